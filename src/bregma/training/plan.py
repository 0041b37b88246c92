"""The plan: every setting of a training, derived from the data and the machine, each with its reason.

A recipe lists only what differs from the plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bregma.config import Loc, validate
from bregma.data.fingerprint import LONG_SIDE, Fingerprint
from bregma.hardware import Hardware, detect_hardware
from bregma.schema import LandmarkSchema
from bregma.training.settings import Plan

PIXELS_CPU = 256 * 256
PIXELS_GPU = 512 * 512
VIEWS = 16_000
"""Training images shown, counting every augmented view: where accuracy on small sets levels off (docs/planning.md)."""


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
    lines: Mapping[Loc, int] | None = None,
    hardware: Hardware | None = None,
) -> Planned:
    """Derive a plan and lay a recipe over it.

    Args:
        fingerprint: the training data in numbers.
        schema: the anatomy.
        train_images: number of training images.
        recipe: settings that differ, in the structure of :class:`Plan`.
        where: the recipe's file, for messages.
        lines: line of each recipe entry, for messages.
        hardware: what to plan for; this machine if None.

    Raises:
        ConfigError: an unknown or invalid setting in the recipe; names it.
    """
    recipe = recipe or {}
    accelerator = _lookup(recipe, "train.accelerator") or "auto"
    rules = _Rules(fingerprint, schema, train_images, hardware or detect_hardware(accelerator), recipe)
    derived, reasons = rules.derive()
    data = _overlay(derived, recipe)
    plan = validate(Plan, data, where=where, lines=lines)
    changed = dict.fromkeys(flatten(recipe), "set by the recipe")
    return Planned(plan, {**reasons, **changed})


class _Rules:
    """One method a derived setting; each returns its value and its reason."""

    def __init__(
        self,
        fingerprint: Fingerprint,
        schema: LandmarkSchema,
        train_images: int,
        hardware: Hardware,
        recipe: Mapping[str, Any],
    ) -> None:
        self.f, self.schema, self.n, self.hardware, self.recipe = fingerprint, schema, train_images, hardware, recipe

    def derive(self) -> tuple[dict[str, Any], dict[str, str]]:
        rules = {
            "model.preprocess.size": self.size,
            "model.codec.sigma_px": self.sigma,
            "model.codec.activation": self.activation,
            "model.codec.presence": self.presence,
            "loss": self.loss,
            "augment.flip": self.flip,
            "train.precision": self.precision,
            "train.epochs": self.epochs,
            "train.validate_every": self.validate_every,
            "train.batch_size": self.batch_size,
            "train.workers": self.workers,
            "train.schedule.warmup_steps": self.warmup,
        }
        coordinate = self._codec() == "coordinate"
        skipped = {"model.codec.sigma_px", "model.codec.activation"} if coordinate else set()
        data: dict[str, Any] = {"model": {"codec": {"name": self._codec()}}}
        reasons: dict[str, str] = {}
        for name, rule in rules.items():
            if name in skipped:
                continue
            value, reason = rule()
            _place(data, name, value)
            reasons[name] = reason
        return data, reasons

    def size(self) -> tuple[list[int], str]:
        set_size = _lookup(self.recipe, "model.preprocess.size")
        if set_size:
            return list(set_size), "set by the recipe"
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
        rows, columns = self.size()[0]
        per_256 = min(rows / self.f.height.median, columns / self.f.width.median) * self.f.long_side.median / LONG_SIDE
        nearest = [mark.nearest_256 for mark in self.f.landmarks if mark.nearest_256 is not None]
        if not nearest:
            return 2.0, "no labels to tell the landmarks' distances"
        gap = float(sorted(nearest)[len(nearest) // 2]) * per_256
        sigma = round(min(4.0, max(1.5, 0.1 * gap)), 2)
        return sigma, f"0.1 x the median distance to the nearest landmark ({gap:.1f} input px), within 1.5 and 4"

    def activation(self) -> tuple[str, str]:
        linear = {"mse", "weighted_mse", "adaptive_wing"} & set(self._loss_names())
        if linear:
            return "linear", f"the loss {sorted(linear)[0]} regresses map values"
        return "softmax", "cross-entropy learns a map as a probability over its cells"

    def presence(self) -> tuple[bool, str]:
        missing = sum(mark.outside for mark in self.f.landmarks)
        if missing:
            return True, f"{missing} landmarks are labelled as not on the image, so absence can be learned"
        return False, "no landmark is ever labelled as absent, so absence cannot be learned"

    def loss(self) -> tuple[list[dict[str, Any]], str]:
        first = "wing" if self._codec() == "coordinate" else "cross_entropy"
        terms: list[dict[str, Any]] = [{"name": first}]
        if self.presence()[0]:
            terms.append({"name": "presence"})
        why = "points are regressed directly" if first == "wing" else "learns fastest from few images"
        return terms, f"{first}: {why}"

    def flip(self) -> tuple[float, str]:
        if self.schema.flip == "never":
            return 0.0, "the mirrored anatomy is another one (schema: flip never)"
        if self.schema.flip == "swap":
            return 0.5, "left and right landmarks swap names (schema: flip swap)"
        if self.schema.exchangeable or self.f.mirrored:
            return 0.5, f"the anatomy may face either side (schema: flip keep; {self.f.mirrored} images do)"
        return 0.0, "flips would be right (schema: flip keep), but all images face one way"

    def precision(self) -> tuple[str, str]:
        if self.hardware.fast_bf16:
            return "bf16-mixed", f"this {self.hardware.accelerator} computes bfloat16 in hardware"
        return "32-true", f"this {self.hardware.accelerator} has no fast bfloat16"

    def epochs(self) -> tuple[int, str]:
        epochs = min(400, max(20, math.ceil(VIEWS / max(1, self.n))))
        return epochs, f"about {VIEWS} views of {self.n} training images, within 20 and 400 epochs"

    def validate_every(self) -> tuple[int, str]:
        epochs = _lookup(self.recipe, "train.epochs") or self.epochs()[0]
        steps = math.ceil(self.n / self.batch_size()[0])
        every = max(1, min(math.ceil(60 / steps), epochs // 10))
        return every, "about 60 steps between validations, at least ten validations"

    def batch_size(self) -> tuple[int, str]:
        return (8, "enough for batch normalisation, small enough for many steps on few images")

    def workers(self) -> tuple[int, str]:
        workers = 1 if self.hardware.accelerator == "cpu" else max(2, min(12, self.hardware.cores - 2))
        return workers, f"threads that keep up with the {self.hardware.accelerator} ({self.hardware.cores} cores)"

    def warmup(self) -> tuple[int, str]:
        epochs = _lookup(self.recipe, "train.epochs") or self.epochs()[0]
        steps = epochs * math.ceil(self.n / self.batch_size()[0])
        return min(100, max(1, steps // 10)), "a tenth of the steps, 100 at most"

    def _codec(self) -> str:
        return _lookup(self.recipe, "model.codec.name") or "heatmap"

    def _loss_names(self) -> list[str]:
        terms = _lookup(self.recipe, "loss") or []
        return [term.get("name", "") for term in terms if isinstance(term, Mapping)]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into ``a.b.c`` names."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a recipe over derived settings; a part of another kind (its ``name`` differs) replaces the whole part."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        if not isinstance(old, Mapping) or not isinstance(value, Mapping):
            result[key] = value
        elif "name" in value and "name" in old and value["name"] != old["name"]:
            result[key] = dict(value)
        else:
            result[key] = _overlay(old, value)
    return result


def _lookup(data: Mapping[str, Any], name: str) -> Any:
    current: Any = data
    for part in name.split("."):
        if not isinstance(current, Mapping):
            return None
        current = current.get(part)
    return current


def _place(data: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
    data[last] = value
