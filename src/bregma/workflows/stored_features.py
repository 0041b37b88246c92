"""``features`` and ``fit``: features of a dataset stored once, and regressors cross-validated on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bregma import __version__
from bregma.bundle import Bundle, ModelConfig, build_model, find_bundle, load_bundle
from bregma.codecs.scalar import ScalarCodecConfig
from bregma.config import validate
from bregma.data.loader import values_in
from bregma.data.preprocess import PreprocessConfig, input_matrix
from bregma.data.split import make_split
from bregma.errors import ConfigError, InputError, LabelError
from bregma.evaluation import EvaluationSettings, evaluate_predictions, save_evaluation
from bregma.files import atomic_path, read_json, sha256_file, write_json
from bregma.geometry import Array
from bregma.inference import value_in_units
from bregma.networks.coordinate_net import CoordinateNetConfig
from bregma.networks.encoders import resolve_pretrained
from bregma.prediction.failure import Failure
from bregma.prediction.features import FeatureExtractor
from bregma.prediction.predictor import Predictor
from bregma.recipe import with_settings
from bregma.regression import REGRESSORS, FitConfig, check_installed
from bregma.regression import fit as fit_table
from bregma.regression.covariates import has_all, learn_covariates
from bregma.regression.stacking import stacked
from bregma.report import write_predictions, write_report
from bregma.report.tables import iter_predictions
from bregma.results import ComparisonTable, Evaluation
from bregma.schema import LandmarkSchema, Quantity
from bregma.types import Case, Dataset, Prediction, Value
from bregma.workflows.evaluation import compare
from bregma.workflows.loading import DataOptions, load_data
from bregma.workflows.quantities import check_shared, in_quantities
from bregma.workflows.run_folder import data_hash, refuse_used
from bregma.workflows.track import Track, untracked

ARRAYS, ABOUT = "features.npz", "features.json"
MEAN, COVARIATES, STACK = "mean", "covariates", "stack"
"""Names of the rows that ``fit`` adds to the regressors that are asked for."""
_SIZE = 224


@dataclass(frozen=True)
class FeaturesResult:
    """What ``features`` wrote.

    Attributes:
        out: the folder with ``features.npz`` and ``features.json``.
        cases: whose features it holds.
        columns: names of the features.
        failures: cases without features, with the reason.
    """

    out: Path
    cases: tuple[str, ...]
    columns: tuple[str, ...]
    failures: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out),
            "cases": len(self.cases),
            "columns": len(self.columns),
            "failed": dict(self.failures),
        }


@dataclass(frozen=True)
class StoredFeatures:
    """Features read back.

    Attributes:
        columns: names of the F features.
        slices: case id to ``(S, F)``.
        about: where they come from.
        preprocess: of the images that they are features of.
    """

    columns: tuple[str, ...]
    slices: dict[str, Array]
    about: dict[str, Any]
    preprocess: PreprocessConfig

    def pooled(self, case: str) -> Array:
        """Return the mean ``(F,)`` over the slices of a case."""
        return np.asarray(self.slices[case].mean(axis=0))


@dataclass(frozen=True)
class FitComparison:
    """What ``fit`` found.

    Attributes:
        out: the folder: one evaluation a regressor in ``NAME/``, and their comparison.
        evaluations: regressor to its cross-validated evaluation.
        comparison: of all with the first one.
        chosen: regressor to quantity to the settings chosen in each fold.
        failures: cases that were left out, with the reason.
    """

    out: Path
    evaluations: dict[str, Evaluation]
    comparison: ComparisonTable
    chosen: dict[str, dict[str, list[dict[str, Any]]]]
    failures: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out),
            "metrics": {
                name: {key: value.to_dict() for key, value in found.metrics.items()}
                for name, found in self.evaluations.items()
            },
            "chosen": self.chosen,
            "failed": dict(self.failures),
        }


def features(
    source: str | Path,
    data: str | Path | Dataset,
    out: str | Path,
    *,
    options: DataOptions | None = None,
    roi: str | Path | None = None,
    slices: int = 1,
    size: int = _SIZE,
    pretrained: str = "auto",
    track: Track = untracked,
) -> FeaturesResult:
    """Store an encoder's features and statistics of grey values of every case, slice by slice.

    Args:
        source: a bundle or run whose network has an encoder, or the name of a timm encoder.
        data: a dataset, or its folder or label file; labels are not needed.
        out: the folder to write; must be new or empty.
        options: how to read ``data``.
        roi: bundle or run of a landmark model; features are also pooled over what its landmarks enclose.
        slices: neighbouring slices of a volume that are seen one by one.
        size: rows and columns of the input of a timm encoder; a bundle has its own.
        pretrained: first weights of a timm encoder.
        track: wraps the iteration over cases.

    Raises:
        BundleError, ConfigError: no such bundle or encoder, or one without features.
        RunError: ``out`` is in use.
        InputError: not one case has features.
    """
    folder = Path(out)
    refuse_used(folder, fix="choose another --out, or remove it")
    dataset = load_data(data, options)
    network, preprocess, origin = _source(str(source), size, pretrained)
    if slices % 2 == 0:
        raise ConfigError(
            "slices have one in their middle", where="--slices", expected="an odd number", got=str(slices)
        )
    if slices > 1:
        preprocess = preprocess.model_copy(update={"slices": slices})
    locator = None if roi is None else Predictor([load_bundle(roi)])
    extractor = FeatureExtractor(network, preprocess, roi=locator)
    found = list(track(extractor.extract(dataset.cases), len(dataset), "features"))
    kept = [one for one in found if not isinstance(one, Failure)]
    failures = {one.case_id: one.reason for one in found if isinstance(one, Failure)}
    if not kept:
        reason = next(iter(failures.values()), "there is no case")
        raise InputError("no case has features", where=dataset.name, got=reason)
    names = tuple(one.case.id for one in kept)
    with atomic_path(folder / ARRAYS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, slices=np.array([one.slices for one in kept], dtype=np.float32))
    about = {
        "bregma": __version__,
        "source": origin,
        "roi": None if locator is None else locator.bundles[0].name,
        "preprocess": preprocess.to_dict(),
        "data": {"name": dataset.name, "images": len(dataset), "sha256": data_hash(tuple(one.case for one in kept))},
        "sha256": sha256_file(folder / ARRAYS),
        "columns": list(extractor.columns),
        "cases": list(names),
        "failures": failures,
    }
    write_json(folder / ABOUT, about)
    return FeaturesResult(folder, names, extractor.columns, failures)


def _source(source: str, size: int, pretrained: str) -> tuple[Any, PreprocessConfig, dict[str, Any]]:
    """Return network, preprocessing and origin of a bundle or a timm encoder."""
    if Path(source).exists():
        bundle: Bundle = load_bundle(source)
        if bundle.crop is not None:
            raise ConfigError(
                "the model sees a part of every image, and features are taken of whole ones",
                where=source,
                fix="name a model trained without `crop`, or an encoder; --roi pools over what landmarks enclose",
            )
        weights = sha256_file(find_bundle(source) / "weights.safetensors")
        return bundle.network, bundle.config.preprocess, {"bundle": bundle.name, "weights_sha256": weights}
    config, reason = resolve_pretrained(
        validate(CoordinateNetConfig, {"encoder": source, "pretrained": pretrained}, where="--pretrained")
    )
    model = ModelConfig(
        preprocess=PreprocessConfig(size=(size, size)),
        network=config,
        codec=ScalarCodecConfig(),
    )
    one = LandmarkSchema(name="one", title="One", quantities=(Quantity(name="one", label="One", unit="1", source=""),))
    network, _ = build_model(model, one)
    return network.eval(), model.preprocess, {"encoder": source, "weights": config.pretrained, "reason": reason}


def load_features(folder: str | Path) -> StoredFeatures:
    """Read what :func:`features` wrote.

    Raises:
        InputError: a file is missing, was changed, or is not as written.
    """
    root = Path(folder)
    about = read_json(root / ABOUT)
    path = root / ARRAYS
    if not path.is_file():
        raise InputError("is missing", where=path, fix="run `bregma features` again")
    try:
        if sha256_file(path) != about["sha256"]:
            raise InputError("has changed since it was written", where=path, fix="run `bregma features` again")
        with np.load(path, allow_pickle=False) as stored:
            slices = stored["slices"].astype(np.float64)
        columns, cases = tuple(map(str, about["columns"])), [str(case) for case in about["cases"]]
        preprocess = validate(PreprocessConfig, about["preprocess"], where=str(root / ABOUT))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("holds no features as Bregma writes them", where=root) from error
    if slices.ndim != 3 or slices.shape[0] != len(cases) or slices.shape[2] != len(columns):
        raise InputError("the features do not fit their description", where=root, got=str(slices.shape))
    return StoredFeatures(columns, dict(zip(cases, slices, strict=True)), about, preprocess)


def fit(
    source: str | Path,
    data: str | Path | Dataset,
    out: str | Path,
    *,
    regressors: Sequence[str] = ("elastic_net", "svr", "random_forest"),
    quantities: Sequence[str] = (),
    covariates: Sequence[str] = (),
    folds: int = 5,
    overrides: Sequence[str] = (),
    others: Sequence[str | Path] = (),
    seed: int = 0,
    options: DataOptions | None = None,
    settings: EvaluationSettings | None = None,
    track: Track = untracked,
) -> FitComparison:
    """Compare regressors on stored features by nested cross-validation over subjects.

    Each subject is predicted by a model that was fitted, and whose settings were chosen, without it. The mean of the
    training subjects, and the covariates alone where there are some, are always among what is compared; so is, for two
    regressors or more, their stack.

    Args:
        source: folder of :func:`features`.
        data: the dataset of these features, with targets.
        out: the folder to write; must be new or empty.
        regressors: rows of ``REGRESSORS``; the first one is the reference of the comparison.
        quantities: which to predict; all that the schema declares by default.
        covariates: tags that join the features.
        folds: outer folds.
        overrides: settings of :class:`FitConfig`, ``a=value``; of a regressor as ``svr.c=[1, 10]``.
        others: evaluations of the same cases to compare and to stack with, e.g. the arm of a cross-validated study.
        seed: of folds and models.
        options: how to read ``data``.
        settings: how predictions are scored.
        track: wraps the iteration over folds.

    Raises:
        ConfigError: an unknown regressor or setting.
        LabelError: no case has features and a target, there are fewer subjects than folds, or two images of a subject
            have different values of what belongs to the subject.
        RunError: ``out`` is in use.
    """
    folder = Path(out)
    refuse_used(folder, fix="choose another --out, or remove it")
    stored, dataset = load_features(source), in_quantities(load_data(data, options), tuple(quantities))
    check_shared(dataset.schema, dataset.cases)
    configs = _configs(regressors, covariates, overrides, seed)
    cases, failures = _usable(dataset, stored, covariates)
    usable = replace(dataset, cases=cases, splits={})
    splits = (make_split(usable, method="kfold", folds=folds, fold=k, seed=seed) for k in range(folds))
    held_out = [frozenset(split.parts["val"]) for split in splits]
    learned = learn_covariates(cases, covariates)
    table = np.array([np.concatenate([stored.pooled(case.id), learned.of(case)]) for case in cases])
    first = {name: len(stored.columns) if config.only_covariates else 0 for name, config in configs.items()}
    predictions: dict[str, dict[str, Prediction]] = {}
    chosen: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, config in track(iter(configs.items()), len(configs), "fit"):
        predictions[name], chosen[name] = _nested(
            cases, table[:, first[name] :], dataset.schema, config, held_out, stored.preprocess
        )
    for other in others:
        predictions[_name_of(Path(other))] = _others(Path(other), cases)
    members = {name: own for name, own in predictions.items() if name not in (MEAN, COVARIATES)}
    if len(members) > 1:
        predictions[STACK] = _stack(members, cases, dataset.schema, held_out)
    evaluations = {}
    for name, own in predictions.items():
        answers = [replace(own[case.id], model=own[case.id].model or name) for case in cases]
        title = f"{name}, {dataset.name}, nested {folds}-fold cross-validation"
        found = evaluate_predictions(dataset.schema, cases, answers, settings or EvaluationSettings(), name=title)
        save_evaluation(found, folder / name)
        write_predictions(folder / name / "predictions.jsonl", answers, schema=dataset.schema)
        write_json(folder / name / "schema.json", dataset.schema.to_dict())
        write_report(folder / name / "report.html", found, provenance=stored.about)
        evaluations[name] = found
    comparison = compare([folder / name for name in predictions], out=folder, names=list(predictions))
    result = FitComparison(folder, evaluations, comparison, chosen, failures)
    write_json(folder / "fit.json", {**result.to_dict(), "features": stored.about["sha256"]})
    return result


def _configs(
    regressors: Sequence[str], covariates: Sequence[str], overrides: Sequence[str], seed: int
) -> dict[str, FitConfig]:
    wanted = list(dict.fromkeys([*regressors, MEAN]))
    unknown = [name for name in wanted if name not in REGRESSORS]
    if unknown:
        raise ConfigError(f"there is no regressor '{unknown[0]}'", expected=f"one of {', '.join(REGRESSORS)}")
    own = {name: [o for o in overrides if o.split("=")[0].strip().startswith(f"{name}.")] for name in wanted}
    shared = [o for o in overrides if not any(o in mine for mine in own.values())]
    configs = {}
    for name in wanted:
        mine = [f"regressor.{o.strip().removeprefix(f'{name}.')}" for o in own[name]]
        base: dict[str, Any] = {"regressor": {"name": name}, "covariates": list(covariates), "seed": seed}
        data, lines = with_settings(base, {}, [*shared, *mine])
        configs[name] = validate(FitConfig, data, where="--set", lines=lines)
        check_installed(configs[name].regressor)
    if covariates:
        base = {"regressor": {"name": "elastic_net"}, "covariates": list(covariates), "only_covariates": True}
        configs[COVARIATES] = validate(FitConfig, {**base, "seed": seed}, where="--covariate")
    return configs


def _usable(
    dataset: Dataset, stored: StoredFeatures, covariates: Sequence[str]
) -> tuple[tuple[Case, ...], dict[str, str]]:
    failures = {str(case): str(why) for case, why in stored.about.get("failures", {}).items()}
    kept = []
    for case in dataset:
        lacking = [tag for tag in covariates if not has_all(case, [tag])]
        if case.id not in stored.slices:
            failures.setdefault(case.id, "there are no features of it")
        elif not any(quantity.name in case.targets for quantity in dataset.schema.quantities):
            failures[case.id] = "has no target"
        elif lacking:
            failures[case.id] = f"lacks {', '.join(lacking)}"
        else:
            kept.append(case)
    known = {case.id for case in dataset}
    failures |= {case: "is not in the data" for case in stored.slices if case not in known}
    if not kept:
        reason = next(iter(failures.values()), "there is no case")
        raise LabelError("no case has features and a target", where=dataset.name, got=reason)
    return tuple(kept), failures


def _nested(
    cases: Sequence[Case],
    table: Array,
    schema: LandmarkSchema,
    config: FitConfig,
    held_out: Sequence[frozenset[str]],
    preprocess: PreprocessConfig,
) -> tuple[dict[str, Prediction], dict[str, list[dict[str, Any]]]]:
    """Predict every case by a regressor fitted, and tuned, without its fold."""
    matrices = [input_matrix(case.frame, preprocess) for case in cases]
    truth = [values_in(case, schema, matrix) for case, matrix in zip(cases, matrices, strict=True)]
    values: list[dict[str, Value]] = [{} for _ in cases]
    chosen: dict[str, list[dict[str, Any]]] = {quantity.name: [] for quantity in schema.quantities}
    subjects = np.array([case.subject for case in cases])
    for fold in held_out:
        out = np.array([case.id in fold for case in cases])
        for column, quantity in enumerate(schema.quantities):
            target = np.array([value[column] if known[column] else np.nan for value, known in truth])
            learn = ~out & np.isfinite(target)
            found = fit_table(table[learn], target[learn], subjects[learn].tolist(), config)
            chosen[quantity.name].append({**found.chosen, "inner_r2": found.inner_r2})
            mean, sd = found.frozen.predict(table[out])
            for place, i in enumerate(np.flatnonzero(out).tolist()):
                spread = None if sd is None else float(sd[place])
                given = value_in_units(quantity, float(mean[place]), spread, cases[i].frame, matrices[i])
                values[i][quantity.name] = given
    return {case.id: _prediction(case, own) for case, own in zip(cases, values, strict=True)}, chosen


def _prediction(case: Case, values: dict[str, Value]) -> Prediction:
    nothing = np.zeros((0, 2))
    return Prediction(case.id, nothing, np.zeros((0, 2, 2)), np.zeros(0), case.frame, values=values)


def _name_of(evaluation: Path) -> str:
    """Return what an evaluation is called: its folder or, in a study (``arms/ARM/seed-0``), the arm."""
    folder = evaluation.resolve()
    return folder.parent.name if folder.name.startswith("seed-") else folder.name


def _others(folder: Path, cases: Sequence[Case]) -> dict[str, Prediction]:
    found = {one.case_id: one for one in iter_predictions(folder / "predictions.jsonl")}
    lacking = [case.id for case in cases if case.id not in found]
    if lacking:
        raise InputError(
            f"has no prediction of {len(lacking)} of {len(cases)} cases",
            where=folder,
            got=f"none of '{lacking[0]}'",
            fix="give the evaluation of a cross-validation over the same cases",
        )
    return found


def _stack(
    members: dict[str, dict[str, Prediction]],
    cases: Sequence[Case],
    schema: LandmarkSchema,
    held_out: Sequence[frozenset[str]],
) -> dict[str, Prediction]:
    """Weigh the members' predictions of every fold by what the other folds say of them."""
    values: list[dict[str, Value]] = [{} for _ in cases]
    folds = np.array([next(k for k, fold in enumerate(held_out) if case.id in fold) for case in cases])
    subjects = [case.subject for case in cases]
    for quantity in schema.quantities:
        each = np.array([[own[case.id].values[quantity.name].mean for own in members.values()] for case in cases])
        target = np.array([case.targets.get(quantity.name, np.nan) for case in cases])
        first = next(iter(members.values()))
        for i, mean in enumerate(stacked(each, target, folds, subjects)):
            unit = first[cases[i].id].values[quantity.name].unit
            values[i][quantity.name] = Value(float(mean), None, unit)
    return {case.id: _prediction(case, own) for case, own in zip(cases, values, strict=True)}
