"""Shape model: how landmarks lie to each other, learned on training subjects, whatever the pose.

A configuration of N landmarks is taken as ``x = A θ + e``: the mean shape in a free pose (similarity: shift, turn and
zoom, which are linear in θ, so that A is ``(2N, 4)``), plus a deviation ``e`` of known covariance. Coordinates are
interleaved: x0, y0, x1, y1, … They must be isotropic; :func:`isotropic` gives the factors for an image.

Given points ``p = x + n`` with noise of covariance C, the best linear unbiased prediction of x is
``A θ̂ + S V⁻¹ (p - A θ̂)`` with ``V = S + C`` and θ̂ by generalised least squares (Goldberger 1962,
doi:10.1080/01621459.1962.10480665). Mean and covariance S are those of a point distribution model (Cootes, Taylor,
Cooper & Graham 1995, doi:10.1006/cviu.1995.1004) whose shapes were aligned by generalised Procrustes analysis (Gower
1975, doi:10.1007/BF02291478); missing points are filled by expectation-maximisation (Dempster, Laird & Rubin 1977), and
the covariance is shrunk (Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4).

Points that cannot be told apart stand in no order that means anything: configurations are learned, and judged, in the
order of each set that fits the model best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bregma.lazy import lazy_names

if TYPE_CHECKING:
    from bregma.shape_model.applied import as_seen, flag_outliers, reconcile
    from bregma.shape_model.learning import MIN_CASES, learn_shape_model, shape_model_of
    from bregma.shape_model.model import Fit, ShapeModel
    from bregma.shape_model.pose import isotropic

__all__ = [
    "MIN_CASES",
    "Fit",
    "ShapeModel",
    "as_seen",
    "flag_outliers",
    "isotropic",
    "learn_shape_model",
    "reconcile",
    "shape_model_of",
]

_HOMES = {
    "MIN_CASES": "learning",
    "Fit": "model",
    "ShapeModel": "model",
    "as_seen": "applied",
    "flag_outliers": "applied",
    "isotropic": "pose",
    "learn_shape_model": "learning",
    "reconcile": "applied",
    "shape_model_of": "learning",
}


__getattr__ = lazy_names(__name__, _HOMES)
