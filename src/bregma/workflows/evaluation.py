"""``evaluate`` and ``compare``: a trained model against labels, and runs side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bregma.bundle import Bundle, PredictConfig, load_bundle
from bregma.codecs import AnyCodecConfig
from bregma.codecs.chain import ChainCodecConfig
from bregma.codecs.slots import SlotsCodecConfig
from bregma.errors import ConfigError, SchemaError, SplitError
from bregma.evaluation import EvaluationSettings, compare_runs, evaluate_predictions, save_evaluation
from bregma.evaluation.stored import load_run as load_stored
from bregma.files import write_json
from bregma.prediction.failure import Failure
from bregma.prediction.predictor import Predictor
from bregma.report import write_comparison_html, write_predictions, write_report
from bregma.report.tables import iter_predictions
from bregma.results import ComparisonTable, Evaluation
from bregma.schema import LandmarkSchema
from bregma.training.history import read_history
from bregma.types import Case, Dataset, Prediction
from bregma.workflows.loading import DataOptions, load_data
from bregma.workflows.quantities import check_shared, in_quantities
from bregma.workflows.run_folder import RunFolder
from bregma.workflows.track import Track, untracked

PRESENT = 0.5
"""Probability of presence from which a landmark counts as given, as in measurements."""


def evaluate(
    model: str | Path,
    data: str | Path | Dataset,
    *,
    part: str | None = None,
    out: str | Path | None = None,
    options: DataOptions | None = None,
    settings: EvaluationSettings | None = None,
    predict: PredictConfig | None = None,
    track: Track = untracked,
) -> Evaluation:
    """Score a bundle or run on labelled images and write figures, tables and a report.

    Args:
        model: bundle or run folder.
        data: a labelled dataset, or its folder or label file.
        part: part of the run's own split, of the published split, or ``all``; by default the test part of the run's
            split (else ``val``), or all images where the model is a bare bundle.
        out: where to write; by default ``evaluation/PART`` in the run folder, or ``BUNDLE-evaluation/PART`` beside the
            bundle.
        options: how to read ``data``.
        settings: thresholds and resampling.
        predict: views and device; what it leaves unset is done as the bundle says.
        track: wraps the iteration over images.

    Raises:
        BundleError, LabelError, SchemaError, SplitError: something does not fit; says what.
    """
    root = Path(model)
    dataset = as_predicted(load_data(data, options), load_bundle(root).schema)
    name, cases, notes = _choose(RunFolder(root), dataset, part)
    folder = Path(out) if out is not None else _beside(root) / name
    return evaluate_bundle(
        root,
        cases,
        out=folder,
        report=folder / "report.html",
        name=f"{root.resolve().name}, {dataset.name} {name}",
        settings=settings or EvaluationSettings(),
        predict=predict,
        notes=(*notes, *dataset.problems),
        track=track,
    )


def as_predicted(dataset: Dataset, schema: LandmarkSchema) -> Dataset:
    """Return the dataset as a model sees it: with quantities of whole images in place of landmarks, if it gives these.

    Raises:
        ConfigError: quantities that the data's schema does not know.
        LabelError: two images of a subject have different values of what belongs to the subject.
    """
    if len(schema):
        return dataset
    if len(dataset.schema):
        dataset = in_quantities(dataset, tuple(quantity.name for quantity in schema.quantities))
    check_shared(schema, dataset.cases)
    return dataset


def evaluate_bundle(
    model: Path,
    cases: Sequence[Case],
    *,
    out: Path,
    report: Path,
    name: str,
    settings: EvaluationSettings,
    predict: PredictConfig | None = None,
    notes: Sequence[str] = (),
    track: Track = untracked,
) -> Evaluation:
    """Predict, score, and write ``metrics.json``, tables, predictions and the report."""
    bundle = load_bundle(model)
    check_schema(bundle, cases)
    settings = with_presence(settings, bundle)
    predictor = Predictor([bundle], predict)
    answers = list(track(predictor.predict(cases), len(cases), "predict"))
    evaluation = evaluate_predictions(bundle.schema, cases, _only(answers), settings, name=name)
    unread = tuple(f"{f.case_id} could not be predicted: {f.reason}" for f in answers if isinstance(f, Failure))
    evaluation = replace(evaluation, notes=(*unread, *notes, *evaluation.notes))
    save_evaluation(evaluation, out)
    write_predictions(out / "predictions.jsonl", _only(answers), schema=bundle.schema)
    write_json(out / "schema.json", bundle.schema.to_dict())
    run = RunFolder(model)
    write_report(
        report,
        evaluation,
        history=read_history(run.history),
        plan=run.read_plan().rows() if run.exists() else None,
        provenance=bundle.provenance,
    )
    return evaluation


def evaluate_folds(
    folds: Sequence[Path],
    dataset: Dataset,
    *,
    out: Path,
    name: str,
    held_out: Collection[str] = (),
    notes: Sequence[str] = (),
) -> Evaluation:
    """Score the predictions of all folds of a cross-validation as one evaluation, with its report.

    Args:
        folds: folders of the folds' evaluations, each of the images that its network did not learn from.
        dataset: the labelled images.
        out: the folder to write to, anew.
        name: heading.
        held_out: images of all folds' tests; one of them without a prediction counts as what was not found.
        notes: what else a reader must know.

    Raises:
        InputError: an evaluation is not as written.
    """
    runs = [load_stored(fold) for fold in folds]
    dataset = as_predicted(dataset, runs[0].schema)
    ids = {case for run in runs for case in run.cases} | set(held_out)
    predictions = [prediction for fold in folds for prediction in iter_predictions(fold / "predictions.jsonl")]
    cases = tuple(case for case in dataset if case.id in ids)
    evaluation = evaluate_predictions(dataset.schema, cases, predictions, runs[0].settings, name=name)
    evaluation = replace(
        evaluation,
        notes=(
            f"Cross-validated: each image was predicted by the one of {len(folds)} networks that learned from no image "
            "of its subject.",
            *notes,
            *dataset.problems,
            *evaluation.notes,
        ),
    )
    save_evaluation(evaluation, out)
    write_predictions(out / "predictions.jsonl", predictions, schema=dataset.schema)
    write_json(out / "schema.json", dataset.schema.to_dict())
    write_report(out / "report.html", evaluation)
    return evaluation


def compare(
    runs: Sequence[str | Path],
    *,
    out: str | Path,
    part: str | None = None,
    names: Sequence[str] | None = None,
    settings: EvaluationSettings | None = None,
) -> ComparisonTable:
    """Compare evaluated runs on the images that all of them scored; the first one is the reference.

    Args:
        runs: run folders, or folders of evaluations.
        out: the folder for ``comparison.json`` and ``comparison.html``.
        part: which evaluation of each run; by default ``test``, else ``val``.
        names: headings of the runs.
        settings: thresholds and resampling.

    Raises:
        ConfigError: names that do not tell the runs apart.
        InputError: fewer than two runs, or no image in common.
        SplitError: a run without an evaluation.
    """
    folders = [_evaluation_folder(Path(run), part) for run in runs]
    if names is not None and not len(set(names)) == len(names) == len(runs):
        expected = f"{len(runs)} different names"
        raise ConfigError("the runs cannot be told apart", where="names", expected=expected, got=", ".join(names))
    titles = names or [Path(run).resolve().name for run in runs]
    table = compare_runs(folders, names=titles if len(set(titles)) == len(titles) else None, settings=settings)
    write_json(Path(out) / "comparison.json", table.to_dict())
    write_comparison_html(Path(out) / "comparison.html", table)
    return table


def with_presence(settings: EvaluationSettings, bundle: Bundle) -> EvaluationSettings:
    """Count a landmark as given only where a model that knows of absence says that it is there."""
    if settings.presence_threshold is not None or not _knows_absence(bundle.config.codec):
        return settings
    return settings.model_copy(update={"presence_threshold": PRESENT})


def _knows_absence(codec: AnyCodecConfig) -> bool:
    return isinstance(codec, ChainCodecConfig | SlotsCodecConfig) or getattr(codec, "presence", False)


def check_schema(bundle: Bundle, cases: Sequence[Case]) -> None:
    """Refuse labels that are not of the bundle's anatomy.

    Raises:
        SchemaError: names the case.
    """
    for case in cases:
        if case.landmarks is not None and len(case.landmarks) != len(bundle.schema):
            raise SchemaError(
                "the labels are not of the model's anatomy",
                where=case.id,
                expected=f"{len(bundle.schema)} landmarks of '{bundle.schema.name}'",
                got=str(len(case.landmarks)),
            )


def _choose(run: RunFolder, dataset: Dataset, part: str | None) -> tuple[str, tuple[Case, ...], tuple[str, ...]]:
    """Return the part's name, its cases, and what a reader must know about them."""
    own = run.read_split().parts if (run.root / "split.json").is_file() else {}
    parts = {**dataset.splits, **own}
    if part is None:
        part = next((name for name in ("test", "val") if own.get(name)), "all")
    if part != "all" and part not in parts:
        known = ", ".join([*parts, "all"])
        raise SplitError(f"there is no part '{part}'", where=dataset.name, expected=f"one of {known}")
    ids = {case.id for case in dataset}
    chosen = parts[part] if part != "all" else tuple(case.id for case in dataset)
    missing = [case for case in chosen if case not in ids]
    if missing:
        raise SplitError(
            f"{len(missing)} of {len(chosen)} cases of the run's part '{part}' are not in these data",
            where=dataset.name,
            got=f"no case '{missing[0]}'",
            fix="give the data that the run was trained on, or evaluate on all of these (part 'all')",
        )
    learnt = len(set(own.get("train", ())) & set(chosen))
    notes = (f"{learnt} of these images were learned from, so the figures are too good.",) if learnt else ()
    return part, dataset.select(chosen), notes


def _beside(root: Path) -> Path:
    """Return where the evaluations of a run, or of a bundle on its own, lie by default."""
    if (root / "bundle.json").is_file():
        return root.resolve().with_name(f"{root.resolve().name}-evaluation")
    return root / "evaluation"


def _evaluation_folder(run: Path, part: str | None) -> Path:
    if (run / "metrics.json").is_file():
        return run
    for name in (part,) if part else ("test", "val", "all"):
        folder = RunFolder(run).evaluation(name)
        if (folder / "metrics.json").is_file():
            return folder
    raise SplitError(
        "has not been evaluated" + (f" on '{part}'" if part else ""),
        where=run,
        fix="run `bregma evaluate` on it first",
    )


def _only(answers: Sequence[Prediction | Failure]) -> Iterator[Prediction]:
    return (answer for answer in answers if isinstance(answer, Prediction))
