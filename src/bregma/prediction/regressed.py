"""Bundles whose quantities come from a classical regressor on features."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np

from bregma.bundle import Bundle
from bregma.data.preprocess import input_matrix
from bregma.errors import BundleError
from bregma.geometry import Array
from bregma.inference import to_original, value_in_units
from bregma.prediction.features import FeatureExtractor, Locator
from bregma.regression import FitConfig
from bregma.regression.covariates import Covariates
from bregma.types import Case, Prediction

_MOST_BYTES = 512 * 2**20
_remembered: ContextVar[dict[tuple[object, ...], Array] | None] = ContextVar("_remembered", default=None)
"""Features of images by what gives them and which file they are of, while somebody wants them kept."""


@contextlib.contextmanager
def features_remembered() -> Iterator[None]:
    """Take the features of an image once for all models that would take the same ones, as in a study."""
    token = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(token)


class RowMaker:
    """Turns cases into the rows that a regressor sees: features of the image, then covariates.

    Args:
        bundle: whose network and preprocessing give the features.
        config: which features are wanted.
        covariates: how tags become columns.
        roi: finds the region of interest.

    Raises:
        ConfigError: a network without features to take.
    """

    def __init__(self, bundle: Bundle, config: FitConfig, covariates: Covariates, roi: Locator | None) -> None:
        self.covariates = covariates
        self._extractor: FeatureExtractor | None = None
        self._origin: tuple[object, ...] = ()
        if not config.only_covariates:
            preprocess = bundle.config.preprocess
            if config.slices > 1:
                preprocess = preprocess.model_copy(update={"slices": config.slices})
            self._extractor = FeatureExtractor(
                bundle.network, preprocess, pyramid=config.pyramid, intensities=config.intensities, roi=roi
            )
            finder = None if roi is None else getattr(roi, "name", None)
            if _remembered.get() is not None and (roi is None or finder is not None):
                kinds = (preprocess, bundle.config.network)
                wanted = (config.pyramid, config.intensities, finder)
                self._origin = (_fingerprint(bundle), *(kind.model_dump_json() for kind in kinds), *wanted)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return (*(() if self._extractor is None else self._extractor.columns), *self.covariates.columns)

    def row(self, case: Case) -> Array:
        """Return the row ``(F,)`` of a case.

        Raises:
            ImageError, LabelError: it cannot be read, has no region of interest, or lacks a covariate.
        """
        covariates = self.covariates.of(case)
        if self._extractor is None:
            return covariates
        return np.concatenate([self._features(self._extractor, case), covariates])

    def _features(self, extractor: FeatureExtractor, case: Case) -> Array:
        kept, path = _remembered.get(), case.image.path
        if kept is None or not self._origin or path is None or not path.is_file():
            return extractor.of(case).pooled
        about = path.stat()
        key = (*self._origin, case.id, str(path.resolve()), about.st_mtime_ns, about.st_size, str(case.frame))
        if key not in kept:
            row = extractor.of(case).pooled
            if (len(kept) + 1) * row.nbytes > _MOST_BYTES:
                return row
            kept[key] = row
        return kept[key]


def _fingerprint(bundle: Bundle) -> str:
    """Return a hash of the network's weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(bundle.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Regressor:
    """Applies the regressors of a bundle.

    Args:
        bundle: with a regression.
        roi: finds its region of interest.

    Raises:
        BundleError: there is none, or its columns are not those that the bundle gives.
    """

    def __init__(self, bundle: Bundle, roi: Locator | None) -> None:
        if bundle.regression is None:
            raise BundleError("holds no regressor", where=bundle.name)
        self.bundle, self.regression = bundle, bundle.regression
        self.maker = RowMaker(bundle, self.regression.config, self.regression.covariates, roi)
        if self.maker.columns != self.regression.columns:
            expected, got = (f"{len(names)} columns" for names in (self.regression.columns, self.maker.columns))
            problem = "the features are not those that the regressor was fitted to"
            raise BundleError(problem, where=bundle.name, expected=expected, got=got)

    def predict(self, case: Case, model: str) -> Prediction:
        """Return the quantities of a case; no landmark is there.

        Raises:
            ImageError, LabelError: it cannot be read, has no region of interest, or lacks a covariate.
        """
        row, preprocess = self.maker.row(case), self.bundle.config.preprocess
        matrix = input_matrix(case.frame, preprocess)
        values = {}
        for quantity in self.bundle.schema.quantities:
            if quantity.name in self.regression.models:
                mean, sd = self.regression.models[quantity.name].predict(row[None])
                spread = None if sd is None else float(sd[0])
                values[quantity.name] = value_in_units(quantity, float(mean[0]), spread, case.frame, matrix)
        count, size = len(self.bundle.schema), np.array(preprocess.size[::-1], dtype=np.float64)
        middle, anywhere = np.tile((size - 1) / 2, (count, 1)), np.tile(np.diag(size**2 / 12), (count, 1, 1))
        nowhere = to_original(case, matrix, middle, anywhere, np.zeros(count), model)
        return Prediction(
            nowhere.case_id,
            nowhere.mean,
            nowhere.cov,
            nowhere.presence,
            nowhere.frame,
            model=nowhere.model,
            values=values,
        )
