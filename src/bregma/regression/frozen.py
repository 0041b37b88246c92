"""Fitted regressors as plain arrays: what is deployed needs no pickle, and no library to predict with.

Shape suffixes: S subjects, F columns, P columns that the model sees, K training subjects that it keeps, N nodes, T
trees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bregma.errors import InputError
from bregma.geometry import Array

Kind = Literal["linear", "kernel", "process", "trees"]
_PIPELINE = ("fill", "centre", "scale", "target")
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "linear": ("coef", "intercept"),
    "kernel": ("support", "dual", "gamma", "intercept"),
    "process": ("support", "dual", "gamma", "amplitude", "noise", "factor"),
    "trees": ("column", "threshold", "left", "right", "value", "roots", "inclusive", "intercept"),
}
_SAMPLES = 4096
"""Rows whose distances to all support vectors are held at once."""


@dataclass(frozen=True)
class Frozen:
    """A fitted pipeline.

    Attributes:
        kind: how the model at its end predicts.
        arrays: ``fill (F,)`` replaces what is missing, then ``centre (F,)`` and ``scale (F,)``; ``components (P, F)``
            and ``middle (F,)`` where there is a projection, ``target (2,)`` the mean and deviation of the target, and
            the model's own.
    """

    kind: Kind
    arrays: Mapping[str, Array]

    def __post_init__(self) -> None:
        lacking = [name for name in (*_PIPELINE, *_NEEDS.get(self.kind, ("?",))) if name not in self.arrays]
        if lacking:
            problem = "a regressor is not complete"
            raise InputError(problem, expected=", ".join(lacking), got=f"{self.kind}: {', '.join(self.arrays)}")

    @property
    def columns(self) -> int:
        """Number of columns that it is given."""
        return len(self.arrays["fill"])

    def predict(self, table: Array) -> tuple[Array, Array | None]:
        """Return the values ``(S,)`` of rows ``(S, F)``, and their standard deviations where the model knows them.

        NaN stands for what is missing.

        Raises:
            InputError: rows with another number of columns.
        """
        given = np.asarray(table, dtype=np.float64)
        if given.ndim != 2 or given.shape[1] != self.columns:
            expected = f"(S, {self.columns})"
            raise InputError("the rows do not fit the regressor", expected=expected, got=str(given.shape))
        seen = self._seen(given)
        mean, sd = self.arrays["target"]
        value, spread = getattr(self, f"_{self.kind}")(seen)
        return value * sd + mean, None if spread is None else spread * sd

    def _seen(self, given: Array) -> Array:
        a = self.arrays
        seen = (np.where(np.isfinite(given), given, a["fill"]) - a["centre"]) / a["scale"]
        return np.asarray((seen - a["middle"]) @ a["components"].T if "components" in a else seen)

    def _linear(self, x: Array) -> tuple[Array, None]:
        return np.asarray(x @ self.arrays["coef"] + self.arrays["intercept"]), None

    def _kernel(self, x: Array) -> tuple[Array, None]:
        return np.asarray(self._similar(x) @ self.arrays["dual"] + self.arrays["intercept"]), None

    def _process(self, x: Array) -> tuple[Array, Array]:
        a = self.arrays
        cross = a["amplitude"] * self._similar(x)
        solved = np.linalg.solve(a["factor"], cross.T)
        variance = a["amplitude"] + a["noise"] - (solved**2).sum(axis=0)
        return np.asarray(cross @ a["dual"]), np.sqrt(np.maximum(variance, 0.0))

    def _similar(self, x: Array) -> Array:
        """Return ``exp(-gamma |x - k|²)``, ``(S, K)``."""
        support, gamma = self.arrays["support"], float(self.arrays["gamma"])
        parts = [
            np.exp(-gamma * ((part[:, None] - support) ** 2).sum(axis=-1))
            for part in np.array_split(x, max(1, -(-x.size * len(support) // (_SAMPLES * 1024))))
        ]
        return np.concatenate(parts)

    def _trees(self, x: Array) -> tuple[Array, None]:
        """Let every row fall through every tree; comparisons are in single precision, as when they were grown."""
        a = self.arrays
        column, left, right = (a[name].astype(np.intp) for name in ("column", "left", "right"))
        threshold, rows = a["threshold"].astype(np.float32), x.astype(np.float32)
        at = np.broadcast_to(a["roots"].astype(np.intp), (len(x), len(a["roots"]))).copy()
        index = np.arange(len(x))[:, None]
        while (inner := left[at] >= 0).any():
            value = rows[index, np.maximum(column[at], 0)]
            below = value <= threshold[at] if a["inclusive"] else value < threshold[at]
            at = np.where(inner, np.where(below, left[at], right[at]), at)
        return np.asarray(a["value"][at].sum(axis=1) + a["intercept"]), None


def freeze(pipeline: Any, target: tuple[float, float]) -> Frozen:
    """Return a fitted pipeline of :func:`bregma.regression.models.pipeline_of` as arrays.

    Args:
        pipeline: with the steps ``fill``, ``scale``, perhaps ``project``, and ``model``.
        target: mean and standard deviation by which its target was standardised.
    """
    steps = pipeline.named_steps
    arrays: dict[str, NDArray[Any]] = {
        "fill": np.nan_to_num(steps["fill"].statistics_),
        "centre": steps["scale"].mean_,
        "scale": steps["scale"].scale_,
        "target": np.array(target),
    }
    if "project" in steps:
        arrays |= {"components": steps["project"].components_, "middle": steps["project"].mean_}
    kind, own = _MODELS[type(steps["model"]).__name__](steps["model"])
    arrays |= own
    return Frozen(kind, {name: np.array(value, dtype=np.float64, order="C") for name, value in arrays.items()})


def _linear(model: Any) -> tuple[Kind, dict[str, Any]]:
    return "linear", {"coef": model.coef_, "intercept": model.intercept_}


def _mean(model: Any) -> tuple[Kind, dict[str, Any]]:
    return "linear", {"coef": np.zeros(model.n_features_in_), "intercept": np.ravel(model.constant_)[0]}


def _svr(model: Any) -> tuple[Kind, dict[str, Any]]:
    return "kernel", {
        "support": model.support_vectors_,
        "dual": model.dual_coef_[0],
        "gamma": model._gamma,
        "intercept": model.intercept_[0],
    }


def _process(model: Any) -> tuple[Kind, dict[str, Any]]:
    # The kernel is amplitude * Gaussian + noise, in this order.
    signal, noise = model.kernel_.k1, model.kernel_.k2
    return "process", {
        "support": model.X_train_,
        "dual": model.alpha_,
        "gamma": 0.5 / signal.k2.length_scale**2,
        "amplitude": signal.k1.constant_value,
        "noise": noise.noise_level,
        "factor": model.L_,
    }


def _forest(model: Any) -> tuple[Kind, dict[str, Any]]:
    trees = [tree.tree_ for tree in model.estimators_]
    starts = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
    moved = {
        name: np.concatenate(
            [np.where(getattr(t, source) < 0, -1, getattr(t, source) + start) for t, start in zip(trees, starts)]
        )
        for name, source in (("left", "children_left"), ("right", "children_right"))
    }
    return "trees", moved | {
        "column": np.concatenate([tree.feature for tree in trees]),
        "threshold": np.concatenate([_no_higher(tree.threshold) for tree in trees]),
        "value": np.concatenate([tree.value[:, 0, 0] for tree in trees]) / len(trees),
        "roots": starts,
        "inclusive": 1,
        "intercept": 0,
    }


def _no_higher(threshold: Array) -> Array:
    """Return the largest single-precision numbers that are not above ``threshold``: below them lie the same numbers."""
    single = threshold.astype(np.float32)
    return np.where(single > threshold, np.nextafter(single, np.float32(-np.inf)), single).astype(np.float64)


def _boosted(model: Any) -> tuple[Kind, dict[str, Any]]:
    import json

    saved = json.loads(model.get_booster().save_raw("json"))["learner"]
    trees = saved["gradient_booster"]["model"]["trees"]
    starts = np.cumsum([0, *(len(tree["left_children"]) for tree in trees[:-1])])

    def joined(name: str) -> Array:
        return np.concatenate([np.asarray(tree[name], dtype=np.float64) for tree in trees])

    def moved(name: str) -> Array:
        children = [np.asarray(tree[name]) for tree in trees]
        return np.concatenate([np.where(own < 0, -1, own + start) for own, start in zip(children, starts)])

    base = saved["learner_model_param"]["base_score"].strip("[]")
    return "trees", {
        "left": moved("left_children"),
        "right": moved("right_children"),
        "column": joined("split_indices"),
        # Of a leaf, this is its value.
        "threshold": joined("split_conditions"),
        "value": joined("split_conditions"),
        "roots": starts,
        "inclusive": 0,
        "intercept": float(base),
    }


_MODELS = {
    "ElasticNet": _linear,
    "DummyRegressor": _mean,
    "SVR": _svr,
    "GaussianProcessRegressor": _process,
    "RandomForestRegressor": _forest,
    "XGBRegressor": _boosted,
}
