"""The core values that flow between the parts: frozen, checked when made, JSON round-trip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.errors import ImageError, InputError, LabelError, SchemaError, SplitError
from bregma.geometry import Array, Frame
from bregma.instances import Instance
from bregma.schema import Code, LandmarkSchema

Tag = str | int | float | bool


class Status(IntEnum):
    """The state of a landmark on an image. NaN never stands for a state."""

    VISIBLE = 0
    """Seen and labelled."""
    OCCLUDED = 1
    """Labelled where it must lie, though something covers it."""
    OUTSIDE = 2
    """Known to lie outside the image, or not to exist in this subject."""
    UNLABELLED = 3
    """Nobody said where it is; not a statement about the image."""


@runtime_checkable
class ImageSource(Protocol):
    """Where pixels come from; read on demand."""

    @property
    def path(self) -> Path | None:
        """The file, if there is one."""
        ...

    def load(self) -> NDArray[Any]:
        """Return the pixels ``(H, W)``, one channel, bright = dense for radiographs, in their own number type."""
        ...


@dataclass(frozen=True)
class ArrayImage:
    """Pixels held in memory."""

    array: NDArray[Any]
    path: Path | None = None

    def load(self) -> NDArray[Any]:
        """Return the pixels ``(H, W)``."""
        return self.array

    def __repr__(self) -> str:
        return f"ArrayImage({self.array.shape}, {self.array.dtype})"


@runtime_checkable
class SlabSource(Protocol):
    """An image that is the middle one of several parallel slices of a volume."""

    def load_slab(self, reach: int) -> NDArray[Any]:
        """Return the slice with ``reach`` neighbours either side, ``(2 * reach + 1, H, W)``, in order."""
        ...


@dataclass(frozen=True)
class ArraySlab:
    """Parallel slices held in memory; as an image, the middle one.

    Attributes:
        array: ``(S, H, W)``, S odd.
        path: the file they come from, if there is one.
    """

    array: NDArray[Any]
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or len(self.array) % 2 == 0:
            raise ImageError(
                "slices must be an odd number of images", expected="(S, H, W), S odd", got=str(self.array.shape)
            )

    def load(self) -> NDArray[Any]:
        """Return the middle slice ``(H, W)``."""
        return np.asarray(self.array[len(self.array) // 2])

    def load_slab(self, reach: int) -> NDArray[Any]:
        """Return the middle slice with ``reach`` neighbours either side, ``(2 * reach + 1, H, W)``.

        Raises:
            ImageError: there are fewer.
        """
        middle = len(self.array) // 2
        if reach > middle:
            raise ImageError(
                "has too few slices", where=self.path, expected=f"{2 * reach + 1}", got=str(len(self.array))
            )
        return self.array[middle - reach : middle + reach + 1]

    def __repr__(self) -> str:
        return f"ArraySlab({self.array.shape}, {self.array.dtype})"


@dataclass(frozen=True)
class LandmarkSet:
    """Points of one image and the state of each.

    Attributes:
        points: ``(N, 2)`` float64, ``(x, y)`` in pixels of the original image; 0 where the status has no position.
        status: ``(N,)`` of :class:`Status`.
    """

    points: Array
    status: NDArray[np.int8]

    def __init__(self, points: ArrayLike, status: ArrayLike | None = None) -> None:
        p = np.array(points, dtype=np.float64)
        if p.ndim != 2 or p.shape[1] != 2:
            raise LabelError("landmarks have the wrong shape", expected="(N, 2)", got=str(p.shape))
        given = np.zeros(len(p), dtype=np.int8) if status is None else np.asarray(status)
        if given.shape != (len(p),):
            raise LabelError("there must be one status a landmark", expected=f"({len(p)},)", got=str(given.shape))
        if not np.isin(given, list(Status)).all():
            raise LabelError("unknown landmark status", expected="0, 1, 2 or 3", got=str(given.tolist()))
        s = given.astype(np.int8)
        placed = s <= Status.OCCLUDED
        if not np.isfinite(p[placed]).all():
            bad = int(np.flatnonzero(placed & ~np.isfinite(p).all(axis=1))[0])
            raise LabelError(f"landmark {bad} is marked as labelled but has no finite position", got=str(p[bad]))
        p[~placed] = 0.0
        p.setflags(write=False)
        s.setflags(write=False)
        object.__setattr__(self, "points", p)
        object.__setattr__(self, "status", s)

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        return f"LandmarkSet({int(self.labelled.sum())} of {len(self)} labelled)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LandmarkSet):
            return NotImplemented
        return np.array_equal(self.points, other.points) and np.array_equal(self.status, other.status)

    __hash__ = None  # type: ignore[assignment]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Mask ``(N,)`` of landmarks that have a position (visible or occluded)."""
        return np.asarray(self.status <= Status.OCCLUDED)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"points": self.points.tolist(), "status": [Status(s).name.lower() for s in self.status]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LandmarkSet:
        """Rebuild from ``to_dict``."""
        try:
            status = [Status[str(s).upper()] for s in data["status"]]
        except KeyError as error:
            known = ", ".join(s.name.lower() for s in Status)
            raise LabelError("unknown landmark status", expected=f"one of {known}", got=str(error)) from None
        return cls(np.array(data["points"], dtype=np.float64).reshape(-1, 2), status)


@dataclass(frozen=True)
class Case:
    """One image with its frame, subject, labels and tags.

    Attributes:
        id: unique within a dataset.
        subject: the person (or phantom); splits never divide a subject.
        image: where the pixels come from; read lazily.
        frame: pixel grid and spacing.
        landmarks: labels, or None where the image is unlabelled.
        targets: clinical quantities by name.
        tags: anything else worth keeping (sex, diagnosis, site), as plain values.
        observers: further readings of the same landmarks, by observer.
    """

    id: str
    subject: str
    image: ImageSource
    frame: Frame
    landmarks: LandmarkSet | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, Tag] = field(default_factory=dict)
    observers: Mapping[str, LandmarkSet] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id or not self.subject:
            raise LabelError("a case needs an id and a subject", got=f"id={self.id!r}, subject={self.subject!r}")
        for name, value in self.targets.items():
            if not math.isfinite(value):
                raise LabelError(f"the target '{name}' is not a finite number", where=self.id, got=str(value))

    def __repr__(self) -> str:
        return f"Case({self.id!r}, subject={self.subject!r}, {self.frame.width}x{self.frame.height}, {self.landmarks})"


@dataclass(frozen=True)
class Dataset:
    """Cases of one anatomy, with what their publishers say about them.

    Attributes:
        name: short name.
        schema: the anatomy.
        cases: ids are unique; landmarks fit the schema.
        splits: published splits by name, as case ids; empty where none is published.
        license: the terms under which the data may be used.
        citation: what to cite.
        problems: what was wrong with single files or rows that were left out, one sentence each.
    """

    name: str
    schema: LandmarkSchema
    cases: tuple[Case, ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    license: str = ""
    citation: str = ""
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for case in self.cases:
            if case.id in seen:
                raise LabelError(f"the case id '{case.id}' occurs twice", where=self.name)
            seen.add(case.id)
            for marks in (case.landmarks, *case.observers.values()):
                if marks is not None and len(marks) != len(self.schema):
                    raise SchemaError(
                        f"the labels do not fit the schema '{self.schema.name}'",
                        where=f"{self.name}, case {case.id}",
                        expected=f"{len(self.schema)} landmarks",
                        got=str(len(marks)),
                        fix="choose the schema that these labels were made for",
                    )

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} cases, {len(self.subjects)} subjects, {self.schema})"

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subjects in order of first appearance."""
        return tuple(dict.fromkeys(case.subject for case in self.cases))

    def select(self, ids: Iterable[str]) -> tuple[Case, ...]:
        """Return the cases with the given ids, in that order.

        Raises:
            SplitError: an id that is not in the dataset.
        """
        by_id = {case.id: case for case in self.cases}
        wanted = list(ids)
        for name in wanted:
            if name not in by_id:
                raise SplitError(f"there is no case '{name}'", where=self.name)
        return tuple(by_id[name] for name in wanted)


@dataclass(frozen=True)
class Value:
    """A quantity that a model read from a whole image, as a normal distribution.

    Attributes:
        mean: in the quantity's unit.
        sd: its standard deviation, or None where the model gives none.
        unit: the quantity's own, or px or px2 where a length or an area has no trusted spacing.
        half_width: of the interval about the mean that holds the true value in 95 % of subjects like those on whom
            that was measured; None where it was not.
    """

    mean: float
    sd: float | None
    unit: str
    half_width: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise InputError("a predicted value is not finite", got=str(self.mean))
        if self.sd is not None and not (math.isfinite(self.sd) and self.sd >= 0):
            raise InputError("the standard deviation of a predicted value is none", got=str(self.sd))
        if self.half_width is not None and not (math.isfinite(self.half_width) and self.half_width >= 0):
            raise InputError("the interval of a predicted value is none", got=str(self.half_width))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"mean": self.mean, "sd": self.sd, "unit": self.unit, "half_width": self.half_width}


@dataclass(frozen=True)
class Prediction:
    """Landmarks of one image as distributions, in pixels of the original image.

    Attributes:
        case_id: the case or file it belongs to.
        mean: ``(N, 2)`` expected positions.
        cov: ``(N, 2, 2)`` covariances in px².
        presence: ``(N,)`` probability that the landmark is on the image.
        frame: the image's frame.
        model: name and version of the bundle.
        calibration: how ``cov`` was calibrated, or ``"none"``.
        samples: ``(S, N, 2)`` draws, where the model gives them.
        instances: the elements of the schema's chain in order, named or not, from a model that tells them apart; None
            from one that fills fixed slots.
        flags: ``(N,)`` why a landmark is doubtful, empty where nothing speaks against it; None where nobody looked.
        view_spread: ``(N,)`` root mean square distance in px of the point in single views (or of single models) from
            ``mean``, part of ``cov``; None where there was one view.
        values: quantities by name, from a model that reads them from the whole image.
    """

    case_id: str
    mean: Array
    cov: Array
    presence: Array
    frame: Frame
    model: str = ""
    calibration: str = "none"
    samples: Array | None = None
    instances: tuple[Instance, ...] | None = None
    flags: tuple[str, ...] | None = None
    view_spread: Array | None = None
    values: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.mean)
        for name, shape in {"mean": (n, 2), "cov": (n, 2, 2), "presence": (n,)}.items():
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape:
                raise InputError(f"prediction '{name}' has the wrong shape", expected=str(shape), got=str(array.shape))
            if not np.isfinite(array).all():
                raise InputError(f"prediction '{name}' is not finite", where=self.case_id)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if ((self.presence < 0) | (self.presence > 1)).any():
            raise InputError("a probability of presence lies outside 0 to 1", where=self.case_id)
        for name in ("flags", "view_spread"):
            given = getattr(self, name)
            if given is not None and len(given) != n:
                raise InputError(f"prediction '{name}' has the wrong length", expected=str(n), got=str(len(given)))
        if self.view_spread is not None:
            spread = np.array(self.view_spread, dtype=np.float64)
            spread.setflags(write=False)
            object.__setattr__(self, "view_spread", spread)
        if self.samples is not None:
            object.__setattr__(self, "samples", _checked_samples(self.samples, n, self.case_id))

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        return f"Prediction({self.case_id!r}, {len(self)} landmarks, model={self.model!r})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "case_id": self.case_id,
            "mean": self.mean.tolist(),
            "cov": self.cov.tolist(),
            "presence": self.presence.tolist(),
            "frame": self.frame.to_dict(),
            "model": self.model,
            "calibration": self.calibration,
            "samples": None if self.samples is None else self.samples.tolist(),
            "instances": None if self.instances is None else [one.to_dict() for one in self.instances],
            "flags": None if self.flags is None else list(self.flags),
            "view_spread": None if self.view_spread is None else self.view_spread.tolist(),
            "values": {name: value.to_dict() for name, value in self.values.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Prediction:
        """Rebuild from ``to_dict``."""
        samples, instances = data.get("samples"), data.get("instances")
        flags, spread = data.get("flags"), data.get("view_spread")
        mean = np.array(data["mean"], dtype=np.float64).reshape(-1, 2)
        return cls(
            case_id=data["case_id"],
            mean=mean,
            cov=np.array(data["cov"], dtype=np.float64).reshape(-1, 2, 2),
            presence=np.array(data["presence"], dtype=np.float64),
            frame=Frame.from_dict(data["frame"]),
            model=data.get("model", ""),
            calibration=data.get("calibration", "none"),
            samples=None if samples is None else np.array(samples, dtype=np.float64),
            instances=None if instances is None else tuple(Instance.from_dict(one) for one in instances),
            flags=None if flags is None else tuple(flags),
            view_spread=None if spread is None else np.array(spread, dtype=np.float64),
            values={name: Value(**value) for name, value in data.get("values", {}).items()},
        )


def _checked_samples(samples: Array, count: int, where: str) -> Array:
    """Return a frozen copy of draws ``(S, count, 2)``."""
    array = np.array(samples, dtype=np.float64)
    if array.ndim != 3 or array.shape[1:] != (count, 2):
        got = str(array.shape)
        raise InputError("prediction 'samples' has the wrong shape", where=where, expected=f"(S, {count}, 2)", got=got)
    if not np.isfinite(array).all():
        raise InputError("prediction 'samples' is not finite", where=where)
    array.setflags(write=False)
    return array


MeasurementStatus = Literal["ok", "missing_landmark", "no_spacing", "uncalibrated", "refer", "not_applicable"]


@dataclass(frozen=True)
class Measurement:
    """A clinical quantity of one image; never rounded.

    Attributes:
        name: the measurement's name in the schema.
        label: words for a reader.
        value: the quantity in ``unit``, or None where it cannot be given.
        unit: ``mm``, ``px``, ``%``, ``deg``, ... (px where a length has no trusted spacing).
        status: ok, or why there is no value or no interval.
        reason: the status in words; empty when ok.
        interval: low and high end at ``interval_level``, or None.
        interval_level: coverage the interval claims, e.g. 0.95.
        level: where along a chain, e.g. ``L4-L5``; None otherwise.
        ends: the levels between which the quantity was found to lie on this image, upper one first (the end vertebrae
            of a curve); None where its place is the same on every image.
        grade: the grade's label, or None.
        grade_probabilities: label to probability, where a distribution was propagated.
        uses: the landmarks that it came from.
        code: coded concept, if any.
        standard_error: the equation's own, in ``unit``, of a value read off a published one; ``interval`` includes it.
        convention: how the landmarks bound the structure, e.g. ``outer to outer``; empty where there is only one way.
    """

    name: str
    label: str
    value: float | None
    unit: str
    status: MeasurementStatus = "ok"
    reason: str = ""
    interval: tuple[float, float] | None = None
    interval_level: float | None = None
    level: str | None = None
    grade: str | None = None
    grade_probabilities: Mapping[str, float] | None = None
    uses: tuple[str, ...] = ()
    code: Code | None = None
    standard_error: float | None = None
    convention: str = ""
    ends: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.status not in get_args(MeasurementStatus):
            raise InputError("unknown measurement status", got=repr(self.status))
        if self.value is not None and not math.isfinite(self.value):
            raise InputError(f"the measurement '{self.name}' is not a finite number", got=str(self.value))
        if self.status == "ok" and self.value is None:
            raise InputError(f"the measurement '{self.name}' is marked ok but has no value")
        if self.status != "ok" and not self.reason:
            raise InputError(f"the measurement '{self.name}' needs a reason for its status '{self.status}'")

    @property
    def place(self) -> str | None:
        """Where it was taken, in words: its level or, where that was found on this image, its two ends."""
        return "-".join(self.ends) if self.ends else self.level

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "name": self.name,
            "label": self.label,
            "level": self.level,
            "ends": None if self.ends is None else list(self.ends),
            "value": self.value,
            "unit": self.unit,
            "interval": None if self.interval is None else list(self.interval),
            "interval_level": self.interval_level,
            "grade": self.grade,
            "grade_probabilities": None if self.grade_probabilities is None else dict(self.grade_probabilities),
            "status": self.status,
            "reason": self.reason,
            "uses": list(self.uses),
            "code": None if self.code is None else self.code.to_dict(),
            "standard_error": self.standard_error,
            "convention": self.convention,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """Rebuild from ``to_dict``."""
        values = dict(data)
        interval = values.get("interval")
        values["interval"] = None if interval is None else (interval[0], interval[1])
        ends = values.get("ends")
        values["ends"] = None if ends is None else (ends[0], ends[1])
        values["uses"] = tuple(values.get("uses", ()))
        values["code"] = None if values.get("code") is None else Code.model_validate(values["code"])
        return cls(**values)


SIGMOID_OFFSET = math.log(0.1 / 0.9)
"""Added to a map before its sigmoid, so that an output of 0 means a landmark in one cell of ten: begun at a half, the
many cells without one drive all maps down before any is learned (Lin et al., ICCV 2017; the value is CenterNet's)."""


@dataclass(frozen=True)
class OutputSpec:
    """What a codec needs from a network.

    Attributes:
        maps: number of output maps; 0 for none.
        vectors: name to length of outputs without spatial extent.
        fields: how many of the maps, the last ones, are fields: values that are regressed at some cells.
        shared: how many of the maps show several landmarks, which are in no order.
        constants: name to length of outputs that are the same for every image: weights, learned from a start at 0.
        renumbered: whether maps and points stand in an order of the codec's own, and not in that of the landmarks.
    """

    maps: int = 0
    vectors: dict[str, int] = field(default_factory=dict)
    constants: dict[str, int] = field(default_factory=dict)
    fields: int = 0
    shared: int = 0
    renumbered: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all outputs."""
        return (*(("maps",) if self.maps else ()), *self.vectors, *self.constants)
