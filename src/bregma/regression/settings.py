"""Settings of classical regressors: which there are, and among which values their settings are chosen.

Every regressor is a pipeline: missing columns filled with their means, columns standardised, perhaps projected on their
principal components, and the model of scikit-learn or XGBoost. A setting that is a list is chosen by cross-validation
on the training subjects; a single value is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from bregma.config import Config

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class RegressorConfig(Config):
    """What all regressors share."""

    choices: ClassVar[tuple[str, ...]] = ()
    """The settings among whose values is chosen."""

    components: tuple[Count | Literal["all"], ...] = ("all",)
    """Principal components of the standardised columns that the model sees; ``all`` leaves them as they are. More than
    there are is all of them."""

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, data: object) -> object:
        """Take one value for a list of one."""
        if not isinstance(data, dict):
            return data
        names = ("components", *cls.choices)
        return {k: [v] if k in names and not isinstance(v, list | tuple) else v for k, v in data.items()}

    @model_validator(mode="after")
    def _some(self) -> RegressorConfig:
        for name in ("components", *self.choices):
            if not getattr(self, name):
                raise ValueError(f"`{name}` has no value to choose from")
        return self

    def grid(self) -> Iterator[Mapping[str, Any]]:
        """Yield every combination of settings."""
        names = ("components", *self.choices)
        for values in product(*(getattr(self, name) for name in names)):
            yield dict(zip(names, values, strict=True))


class ElasticNetConfig(RegressorConfig):
    """Linear regression with both penalties (Zou & Hastie, J R Stat Soc B 2005; 67:301-320)."""

    choices: ClassVar = ("alpha", "l1_ratio")

    name: Literal["elastic_net"] = "elastic_net"
    alpha: tuple[PositiveFloat, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    """Weight of the penalty; targets are standardised."""
    l1_ratio: tuple[Share, ...] = (0.1, 0.5, 0.9)
    """Share of the absolute penalty, 0 is ridge regression and 1 the lasso."""


class SVRConfig(RegressorConfig):
    """Support vector regression with a Gaussian kernel (Smola & Schölkopf, Stat Comput 2004; 14:199-222)."""

    choices: ClassVar = ("c", "gamma", "epsilon")

    name: Literal["svr"] = "svr"
    c: tuple[PositiveFloat, ...] = (0.3, 1.0, 3.0, 10.0)
    gamma: tuple[PositiveFloat, ...] = (0.1, 0.3, 1.0)
    """Width of the kernel, in units of one over the number of columns (times their variance)."""
    epsilon: tuple[Annotated[float, Field(ge=0)], ...] = (0.1,)
    """Half-width of the tube without loss, in standard deviations of the target."""


class RandomForestConfig(RegressorConfig):
    """Random forest (Breiman, Mach Learn 2001; 45:5-32)."""

    choices: ClassVar = ("min_leaf", "max_features")

    name: Literal["random_forest"] = "random_forest"
    trees: PositiveInt = 300
    min_leaf: tuple[Count, ...] = (2, 5)
    """Fewest subjects in a leaf."""
    max_features: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.1, 0.33)
    """Share of the columns that each split looks at."""


class GaussianProcessConfig(RegressorConfig):
    """Gaussian process with a Gaussian kernel and noise, whose widths maximise the likelihood of the training subjects.

    Rasmussen & Williams, Gaussian Processes for Machine Learning, MIT Press 2006, algorithm 2.1; it alone predicts a
    variance.
    """

    name: Literal["gaussian_process"] = "gaussian_process"
    components: tuple[Count | Literal["all"], ...] = (5, 10, 20)


class XGBoostConfig(RegressorConfig):
    """Gradient-boosted trees (Chen & Guestrin, KDD 2016); needs the extra ``tabular``."""

    choices: ClassVar = ("depth", "learning_rate", "rounds")

    name: Literal["xgboost"] = "xgboost"
    depth: tuple[Count, ...] = (2, 4)
    learning_rate: tuple[PositiveFloat, ...] = (0.05,)
    rounds: tuple[Count, ...] = (100, 300)
    subsample: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of subjects, and of columns, that each tree sees."""


class MeanConfig(RegressorConfig):
    """The mean of the training subjects, whatever the image: what any model has to beat."""

    name: Literal["mean"] = "mean"


AnyRegressorConfig = Annotated[
    ElasticNetConfig | SVRConfig | RandomForestConfig | GaussianProcessConfig | XGBoostConfig | MeanConfig,
    Field(discriminator="name"),
]

REGRESSORS: Mapping[str, type[RegressorConfig]] = {
    "elastic_net": ElasticNetConfig,
    "svr": SVRConfig,
    "random_forest": RandomForestConfig,
    "gaussian_process": GaussianProcessConfig,
    "xgboost": XGBoostConfig,
    "mean": MeanConfig,
}
"""Name to settings, the table of regressors."""


class FitConfig(Config):
    """A regressor on features of images in place of a network's own last layers."""

    regressor: AnyRegressorConfig = ElasticNetConfig()
    """Its name and settings (``bregma info regressors``); of several values of a setting one is chosen."""
    train: bool = False
    """Train the network first, as without ``fit``, and take the features that it has learned. By default its encoder
    stays as it starts: published weights, those of a file, or random ones (``model.network.pretrained``)."""
    pyramid: bool = True
    """Whether features of the network's encoder are seen, averaged over the image or the region of interest."""
    intensities: bool = True
    """Whether statistics of the grey values are seen: of the image and, where there is one, of the region of interest,
    of what surrounds it, and their ratio."""
    roi: str | None = None
    """Bundle or run of a landmark model; what its landmarks enclose (the vertebrae) is the region of interest. It is
    copied into the bundle of the run."""
    slices: int = Field(default=1, ge=1, le=31)
    """Neighbouring slices of a volume that are seen one by one, and whose features are averaged."""
    inner_folds: int = Field(default=5, ge=2)
    """Folds, by subject and of the training subjects alone, over which settings are chosen."""
    covariates: tuple[str, ...] = ()
    """Tags of the cases (age, sex) that join the features; numbers, or words that become one column a word."""
    only_covariates: bool = False
    """See the covariates alone, and nothing of the image: the baseline of what the image adds."""
    seed: int = Field(default=0, ge=0)
    """Of the inner folds, and of regressors that draw."""

    @model_validator(mode="after")
    def _check(self) -> FitConfig:
        if self.only_covariates and not self.covariates:
            raise ValueError("`only_covariates` needs the names of some `covariates`")
        if not (self.only_covariates or self.pyramid or self.intensities):
            raise ValueError("nothing of the image is seen: set `pyramid` or `intensities`, or `only_covariates`")
        if self.slices % 2 == 0:
            raise ValueError(f"`slices` must be odd, with one in the middle, not {self.slices}")
        return self
