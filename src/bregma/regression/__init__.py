"""Classical regressors on features of images: fitted with scikit-learn, kept as arrays, predicted with numpy alone."""

from __future__ import annotations

from bregma.regression.frozen import Frozen, freeze
from bregma.regression.model import FILES, Regression, fit_quantities, load_regression, save_regression
from bregma.regression.models import Fitted, fit, fold_of
from bregma.regression.models import fit as fit_table
from bregma.regression.settings import REGRESSORS, FitConfig

__all__ = [
    "FILES",
    "REGRESSORS",
    "FitConfig",
    "Fitted",
    "Frozen",
    "Regression",
    "fit",
    "fit_quantities",
    "fit_table",
    "fold_of",
    "freeze",
    "load_regression",
    "save_regression",
]
