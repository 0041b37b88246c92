"""The plan: every setting of a training, derived from the data and the machine, each with its reason.

A recipe lists only what differs from the plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bregma.bundle import ModelConfig
from bregma.codecs.scalar import ScalarCodecConfig, Standard, columns_of
from bregma.config import Loc, laid_over, validate
from bregma.data.fingerprint import LONG_SIDE, Fingerprint
from bregma.data.loader import values_in
from bregma.data.preprocess import PreprocessConfig, input_matrix, reference_curve
from bregma.data.steps import HistogramMatchConfig
from bregma.errors import LabelError
from bregma.hardware import Hardware, detect_hardware
from bregma.losses import ACTIVATIONS
from bregma.networks import NETWORKS
from bregma.schema import LandmarkSchema
from bregma.training.chain_rules import suits_chain, why_chain
from bregma.training.monitoring import VALUES
from bregma.training.settings import Plan, TrainConfig
from bregma.types import Case

PIXELS_CPU = 256 * 256
PIXELS_GPU = 512 * 512
VIEWS = 16_000
"""Training images shown, counting every augmented view (docs/explanation/planning.md)."""
REFERENCE_IMAGES = 200
"""Training images, evenly spread, whose median histogram others are matched to; more would hardly move it."""

BY_RECIPE = "set by the recipe"

_TRAINS = {
    "linear": "regresses map values",
    "softmax": "learns a map as a probability over its cells",
    "sigmoid": "learns every cell of a map as a probability of its own",
}


@dataclass(frozen=True)
class Planned:
    """A plan with the reason of every setting that was derived rather than left at its default."""

    plan: Plan
    reasons: Mapping[str, str]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return setting to ``{value, reason}``, for printing, storing and reports."""
        flat = flatten(self.plan.to_dict())
        return {name: {"value": value, "reason": self.reasons.get(name, "default")} for name, value in flat.items()}


def make_plan(
    fingerprint: Fingerprint,
    schema: LandmarkSchema,
    train_images: int,
    *,
    recipe: Mapping[str, Any] | None = None,
    where: str = "recipe",
    lines: Mapping[Loc, int | str] | None = None,
    hardware: Hardware | None = None,
) -> Planned:
    """Derive a plan and lay a recipe over it.

    Args:
        fingerprint: the training data in numbers.
        schema: the anatomy.
        train_images: number of training images.
        recipe: settings that differ, in the structure of :class:`Plan`; ``train.epochs`` beside ``train.phases``
            stretches or shrinks the phases in proportion.
        where: the recipe's file, for messages.
        lines: line of each recipe entry, for messages.
        hardware: what to plan for; this machine if None.

    Raises:
        ConfigError: an unknown or invalid setting in the recipe; names it.
    """
    recipe = recipe or {}
    # Checked alone first, so that rules see only settings that are valid.
    asked = flatten(check_settings(recipe, where=where, lines=lines).to_dict())
    given = {name: asked[name] for name in flatten(recipe) if name in asked}
    machine = hardware or detect_hardware(given.get("train.accelerator", "auto"))
    derived, reasons = _Rules(fingerprint, schema, train_images, machine, given).derive()
    plan = validate(Plan, laid_over(derived, recipe), where=where, lines=lines)
    return Planned(plan, {**reasons, **dict.fromkeys(flatten(recipe), BY_RECIPE)})


def with_reference(planned: Planned, cases: Sequence[Case]) -> Planned:
    """Return the plan with the histogram that images are matched to, where one is to be learned.

    Args:
        planned: a plan whose preprocessing may hold a ``histogram_match`` without a reference.
        cases: the training part, and nothing else.

    Raises:
        ImageError: an image cannot be read, or none has a foreground.
    """
    preprocess = planned.plan.model.preprocess
    lacking = [isinstance(step, HistogramMatchConfig) and step.reference is None for step in preprocess.steps]
    if not any(lacking):
        return planned
    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, REFERENCE_IMAGES).round().astype(int))]
    curve = reference_curve(chosen, preprocess)
    data = planned.plan.to_dict()
    steps = data["model"]["preprocess"]["steps"]
    steps[lacking.index(True)]["reference"] = curve
    reason = f"{BY_RECIPE}; reference: the median foreground of {len(chosen)} training images"
    return Planned(Plan.model_validate(data), {**planned.reasons, "model.preprocess.steps": reason})


def with_standards(planned: Planned, schema: LandmarkSchema, cases: Sequence[Case]) -> Planned:
    """Return the plan with the mean and spread of each quantity over the training subjects, where a codec needs them.

    Each subject counts once, with the mean of its images.

    Args:
        planned: a plan whose codec may be one of quantities, without standards.
        schema: the anatomy.
        cases: the training part, and nothing else.

    Raises:
        LabelError: a quantity that no training image knows, or that is the same on all.
    """
    codec = planned.plan.model.codec
    if not isinstance(codec, ScalarCodecConfig) or codec.standards:
        return planned
    standards = [
        _standard(schema, column, cases, planned.plan.model.preprocess) for column in columns_of(codec, schema)
    ]
    data = planned.plan.to_dict()
    data["model"]["codec"]["standards"] = [one.to_dict() for one in standards]
    reason = "mean and standard deviation over the training subjects"
    return Planned(Plan.model_validate(data), {**planned.reasons, "model.codec.standards": reason})


def _standard(schema: LandmarkSchema, column: int, cases: Sequence[Case], preprocess: PreprocessConfig) -> Standard:
    by_subject: dict[str, list[float]] = {}
    for case in cases:
        values, known = values_in(case, schema, input_matrix(case.frame, preprocess))
        if known[column]:
            by_subject.setdefault(case.subject, []).append(float(values[column]))
    means = np.array([np.mean(own) for own in by_subject.values()])
    quantity = schema.quantities[column]
    if len(means) < 2 or np.ptp(means) == 0:
        why = (
            "is the same for all training subjects" if len(means) > 1 else f"is known of {len(means)} training subjects"
        )
        raise LabelError(
            f"the quantity '{quantity.name}' {why}, so there is nothing to learn",
            where="targets of the training part",
            expected="different values" + (", and images with a spacing" if quantity.dimension != "none" else ""),
        )
    return Standard(mean=float(means.mean()), sd=float(means.std(ddof=1)))


def check_settings(
    recipe: Mapping[str, Any], *, where: str = "recipe", lines: Mapping[Loc, int | str] | None = None
) -> Plan:
    """Return a recipe's settings over the defaults, without any data to plan from.

    Raises:
        ConfigError: an unknown or invalid setting; names it.
    """
    kinds = _kinds(flatten(recipe).get("model.network.name"))
    return validate(Plan, laid_over(kinds, recipe), where=where, lines=lines)


def pace(epochs: int, steps: int, *, shortest: int | None = None) -> dict[str, tuple[int, str]]:
    """Return the settings that follow from the length of a training, each with its reason.

    Args:
        epochs: of the training.
        steps: of one epoch.
        shortest: epochs of the shortest phase whose schedule begins anew, where there are phases.
    """
    every = max(1, min(math.ceil(60 / steps), epochs // 10))
    warmup = min(100, max(1, (shortest or epochs) * steps // 10))
    whose = "the steps" if shortest is None else "the shortest phase's steps"
    return {
        "train.validate_every": (every, "about 60 steps between validations, at least ten validations"),
        "train.schedule.warmup_steps": (warmup, f"a tenth of {whose}, 100 at most"),
    }


def shortest_schedule(settings: TrainConfig) -> int | None:
    """Return the least epochs over which a schedule runs from its start to its end; None without phases."""
    return min(settings.scheduled_epochs(i) for i in range(len(settings.phases))) if settings.phases else None


class _Rules:
    """One method a derived setting; each returns its value and its reason."""

    def __init__(
        self,
        fingerprint: Fingerprint,
        schema: LandmarkSchema,
        train_images: int,
        hardware: Hardware,
        given: Mapping[str, Any],
    ) -> None:
        self.f, self.schema, self.hardware, self.given = fingerprint, schema, hardware, given
        self.images = train_images

    def derive(self) -> tuple[dict[str, Any], dict[str, str]]:
        rules: dict[str, Callable[[], tuple[Any, str]]] = {
            "model.codec.name": self.codec,
            "model.preprocess.size": self.size,
            "model.codec.sigma_px": self.sigma,
            "model.codec.activation": self.activation,
            "model.codec.presence": self.presence,
            "model.codec.exchangeable": self.exchangeable,
            "model.codec.outline": self.outline,
            "loss": self.loss,
            "augment.flip": self.flip,
            "train.monitor": self.monitor,
            "train.precision": self.precision,
            "train.epochs": self.epochs,
            "train.batch_size": self.batch_size,
            "train.workers": self.workers,
        }
        if self._draw_subjects():
            rules["train.draw"] = self.draw
        if self._codec() != "heatmap" or not self.schema.exchangeable:
            del rules["model.codec.exchangeable"]
        if self._codec() != "heatmap" or not self.schema.outlines:
            del rules["model.codec.outline"]
        if self._codec() == "coordinate":
            del rules["model.codec.sigma_px"], rules["model.codec.activation"]
        if self._codec() in {"chain", "slots", "curve"}:
            del rules["model.codec.presence"]
        if self._codec() == "scalar":
            for name in ("sigma_px", "activation", "presence"):
                del rules[f"model.codec.{name}"]
        else:
            del rules["train.monitor"]
        derived = {name: rule() for name, rule in rules.items()}
        derived |= pace(self._chosen("train.epochs", self.epochs), self._steps(), shortest=self._shortest())
        data = _kinds(self._network(), self._codec())
        for name, (value, _) in derived.items():
            place(data, name, value)
        return data, {name: reason for name, (_, reason) in derived.items()}

    def codec(self) -> tuple[str, str]:
        if self._codec() == "chain":
            return "chain", why_chain(self.schema, self.f)
        if self._codec() == "scalar":
            return "scalar", "the anatomy declares quantities and no landmarks"
        return self._codec(), f"what the network '{self._network()}' is made for"

    def size(self) -> tuple[list[int], str]:
        budget = PIXELS_CPU if self.hardware.accelerator == "cpu" else PIXELS_GPU
        height, width = self.f.height.median, self.f.width.median
        zoom = min(1.0, math.sqrt(budget / (height * width)))
        rows, columns = (max(64, 32 * round(side * zoom / 32)) for side in (height, width))
        reason = (
            f"median image {height:.0f} x {width:.0f}, kept in proportion within {math.isqrt(budget)}² pixels "
            f"({self.hardware.accelerator}), in multiples of 32"
        )
        return [rows, columns], reason

    def sigma(self) -> tuple[float, str]:
        rows, columns = self._chosen("model.preprocess.size", self.size)
        per_256 = min(rows / self.f.height.median, columns / self.f.width.median) * self.f.long_side.median / LONG_SIDE
        nearest = [mark.nearest_256 for mark in self.f.landmarks if mark.nearest_256 is not None]
        if not nearest:
            return 2.0, "no labels to tell the landmarks' distances"
        gap = float(sorted(nearest)[len(nearest) // 2]) * per_256
        sigma = round(min(4.0, max(1.5, 0.1 * gap)), 2)
        return sigma, f"0.1 x the median distance to the nearest landmark ({gap:.1f} input px), within 1.5 and 4"

    def activation(self) -> tuple[str, str]:
        if self.given.get("model.codec.learn_sigma"):
            return "linear", "widths are learned for maps whose values are regressed"
        for term in self.given.get("loss", ()):
            if term["name"] in ACTIVATIONS:
                kind = ACTIVATIONS[term["name"]]
                return kind, f"the loss {term['name']} {_TRAINS[kind]}"
        if self._codec() == "chain":
            return "sigmoid", "a map of the chain codec has any number of peaks, so each cell is a logit of its own"
        return "softmax", "cross-entropy learns a map as a probability over its cells"

    def presence(self) -> tuple[bool, str]:
        missing = sum(mark.outside for mark in self.f.landmarks)
        if missing:
            return True, f"{missing} landmarks are labelled as not on the image, so absence can be learned"
        return False, "no landmark is ever labelled as absent, so absence cannot be learned"

    def exchangeable(self) -> tuple[str, str]:
        sets = "; ".join(", ".join(members) for members in self.schema.exchangeable)
        return "shared", f"nothing in an image tells the points of a set apart ({sets}), so each set has one map"

    def outline(self) -> tuple[bool, str]:
        if NETWORKS[self._network()][1].uses_schema:
            return False, f"the network '{self._network()}' has a map for each landmark and no more"
        names = {name for outline in self.schema.outlines for name in outline.ends}
        seen = min(mark.visible + mark.occluded for mark in self.f.landmarks if mark.name in names)
        if not seen:
            return False, "points of the outline are labelled on no image, so it cannot be drawn"
        return (
            True,
            f"the points' labels draw the whole outline (on up to {seen} images), of which they show four places",
        )

    def loss(self) -> tuple[list[dict[str, Any]], str]:
        if self._codec() == "scalar":
            learned = self.given.get("model.codec.variance", False)
            kind, why = ("value_nll", "variances are learned") if learned else ("value_huber", "values are regressed")
            return [{"name": kind}], f"{kind}: {why}"
        if self._codec() == "coordinate":
            learned = self.given.get("model.codec.covariance", False)
            first, why = ("gaussian_nll", "covariances are learned") if learned else ("wing", "points are regressed")
        elif self.given.get("model.codec.activation") == "linear" or self.given.get("model.codec.learn_sigma"):
            first, why = "mse", "the values of maps are regressed"
        elif self.given.get("model.codec.activation") == "sigmoid" or self._codec() == "chain":
            first, why = "focal", "every cell of a map is a logit of its own"
        else:
            first, why = "cross_entropy", "learns fastest from few images"
        terms = [{"name": first}]
        if self.given.get("model.codec.learn_sigma"):
            terms.append({"name": "heatmap_width"})
            why += "; heatmap_width: the price of a wide target"
        if self._codec() == "chain":
            terms.append({"name": "offset"})
            why += "; offset: the ways from a centre to its parts"
        elif self._codec() == "slots":
            terms.append({"name": "presence"})
            why += "; presence: which slots are filled"
        elif self._chosen("model.codec.presence", self.presence):
            terms.append({"name": "presence"})
        return terms, f"{first}: {why}"

    def flip(self) -> tuple[float, str]:
        if self.schema.flip == "never":
            return 0.0, "the mirrored anatomy is another one (schema: flip never)"
        if self.schema.flip == "swap":
            return 0.5, "left and right landmarks swap names (schema: flip swap)"
        if self.schema.exchangeable or self.f.mirrored:
            return 0.5, f"the anatomy may face either side (schema: flip keep; {self.f.mirrored} images do)"
        return 0.0, "flips would be right (schema: flip keep), but all images face one way"

    def monitor(self) -> tuple[str, str]:
        return VALUES, "no landmarks are predicted"

    def precision(self) -> tuple[str, str]:
        if self.hardware.fast_bf16:
            return "bf16-mixed", f"this {self.hardware.accelerator} computes bfloat16 in hardware"
        return "32-true", f"this {self.hardware.accelerator} has no fast bfloat16"

    def epochs(self) -> tuple[int, str]:
        if phases := self.given.get("train.phases"):
            return sum(phase["epochs"] for phase in phases), "the sum of train.phases"
        epochs = min(400, max(20, math.ceil(VIEWS / max(1, self.n))))
        return epochs, f"about {VIEWS} views, {self.n} an epoch, within 20 and 400 epochs"

    def draw(self) -> tuple[str, str]:
        return "subject", f"the quantities belong to subjects ({self.f.subjects}), who have {self.images} images"

    @property
    def n(self) -> int:
        """Images that an epoch shows."""
        return self.f.subjects if self._chosen("train.draw", self._usual_draw) == "subject" else self.images

    def _usual_draw(self) -> tuple[str, str]:
        return self.draw() if self._draw_subjects() else ("image", "")

    def _draw_subjects(self) -> bool:
        """Whether all images of a subject have the same value, and some subject has several."""
        if self._codec() != "scalar" or self.f.subjects >= self.images:
            return False
        return all(quantity.per == "subject" for quantity in self.schema.quantities)

    def batch_size(self) -> tuple[int, str]:
        devices = self.given.get("train.devices", 1)
        reason = "enough for batch normalisation, small enough for many steps on few images"
        return devices * math.ceil(8 / devices), reason + (f"; a multiple of {devices} devices" if devices > 1 else "")

    def workers(self) -> tuple[int, str]:
        workers = 1 if self.hardware.accelerator == "cpu" else max(2, min(12, self.hardware.cores - 2))
        return workers, f"threads that keep up with the {self.hardware.accelerator} ({self.hardware.cores} cores)"

    def _steps(self) -> int:
        batches = math.ceil(self.n / max(1, min(self.n, self._chosen("train.batch_size", self.batch_size))))
        return math.ceil(batches / self.given.get("train.accumulate", 1))

    def _shortest(self) -> int | None:
        return shortest_schedule(TrainConfig.model_validate({"phases": self.given.get("train.phases", ())}))

    def _network(self) -> str:
        usual = ModelConfig().network.name if len(self.schema) else "coordinate_net"
        return self.given.get("model.network.name", usual)

    def _codec(self) -> str:
        if not len(self.schema):
            return "scalar"
        usual = NETWORKS[self._network()][0].usual_codec
        if usual == "heatmap" and why_chain(self.schema, self.f) and suits_chain(self.given):
            usual = "chain"
        return self.given.get("model.codec.name", usual)

    def _chosen(self, name: str, rule: Callable[[], tuple[Any, str]]) -> Any:
        """Return the recipe's setting, or else what the rule says."""
        return self.given[name] if name in self.given else rule()[0]


def _kinds(network: object, codec: str | None = None) -> dict[str, Any]:
    """Return the parts that a recipe may change without saying which kind they are, given its network's name."""
    name = network if isinstance(network, str) and network in NETWORKS else ModelConfig().network.name
    return {"model": {"network": {"name": name}, "codec": {"name": codec or NETWORKS[name][0].usual_codec}}}


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into ``a.b.c`` names."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def place(data: dict[str, Any], name: str, value: Any) -> None:
    """Set ``a.b.c`` in nested mappings."""
    *parents, last = name.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
    data[last] = value
