"""Classical regressors on features of images: fitted with scikit-learn, kept as arrays, predicted with numpy alone."""

from __future__ import annotations

from bregma.regression.frozen import Frozen, freeze
from bregma.regression.model import FILES, Regression, fit_quantities, load_regression, save_regression
from bregma.regression.models import Fitted, check_installed, fit, fold_of
from bregma.regression.settings import REGRESSORS, FitConfig

__all__ = [
    "FILES",
    "REGRESSORS",
    "FitConfig",
    "Fitted",
    "Frozen",
    "Regression",
    "check_installed",
    "fit",
    "fit_quantities",
    "fold_of",
    "freeze",
    "load_regression",
    "save_regression",
]
