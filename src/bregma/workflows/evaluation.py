"""``evaluate`` and ``compare``: a trained model against labels, and runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bregma.bundle import Bundle, load_bundle
from bregma.data.split import Split
from bregma.errors import SchemaError, SplitError
from bregma.evaluation import EvaluationSettings, compare_runs, evaluate_predictions, save_evaluation
from bregma.files import read_json, write_json
from bregma.prediction.predictor import Failure, PredictConfig, Predictor
from bregma.report import write_comparison_html, write_predictions, write_report
from bregma.results import ComparisonTable, Evaluation
from bregma.training.history import read_history
from bregma.types import Case, Dataset, Prediction
from bregma.workflows.loading import DataOptions, load_data
from bregma.workflows.run_folder import RunFolder
from bregma.workflows.track import Track, untracked


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
        out: where to write; by default ``evaluation/PART`` in the run folder, or beside the bundle.
        options: how to read ``data``.
        settings: thresholds and resampling.
        predict: test-time views and device.
        track: wraps the iteration over images.

    Raises:
        BundleError, LabelError, SchemaError, SplitError: something does not fit; says what.
    """
    root = Path(model)
    dataset = load_data(data, options)
    name, cases = _choose(root, dataset, part)
    folder = Path(out) if out is not None else RunFolder(root).evaluation(name)
    return evaluate_bundle(
        root,
        cases,
        out=folder,
        report=folder / "report.html",
        name=f"{root.resolve().name}, {dataset.name} {name}",
        settings=settings or EvaluationSettings(),
        predict=predict or PredictConfig(),
        notes=dataset.problems,
        track=track,
    )


def evaluate_bundle(
    model: Path,
    cases: Sequence[Case],
    *,
    out: Path,
    report: Path,
    name: str,
    settings: EvaluationSettings,
    predict: PredictConfig,
    notes: Sequence[str] = (),
    track: Track = untracked,
) -> Evaluation:
    """Predict, score, and write ``metrics.json``, tables, predictions and the report."""
    bundle = load_bundle(model)
    check_schema(bundle, cases)
    predictor = Predictor([bundle], predict)
    answers = list(track(predictor.predict(cases), len(cases), "predict"))
    evaluation = evaluate_predictions(bundle.schema, cases, _only(answers), settings, name=name)
    unread = tuple(f"{f.case_id} could not be predicted: {f.reason}" for f in answers if isinstance(f, Failure))
    evaluation = replace(evaluation, notes=(*unread, *notes, *evaluation.notes))
    save_evaluation(evaluation, out)
    write_predictions(out / "predictions.jsonl", _only(answers), schema=bundle.schema)
    run = RunFolder(model)
    write_report(
        report,
        evaluation,
        history=read_history(run.history),
        plan=_plan_rows(run),
        provenance=bundle.provenance,
    )
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
        InputError: fewer than two runs, or no image in common.
        SplitError: a run without an evaluation.
    """
    folders = [_evaluation_folder(Path(run), part) for run in runs]
    titles = names or [Path(run).resolve().name for run in runs]
    table = compare_runs(folders, names=titles if len(set(titles)) == len(titles) else None, settings=settings)
    write_json(Path(out) / "comparison.json", table.to_dict())
    write_comparison_html(Path(out) / "comparison.html", table)
    return table


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


def _choose(root: Path, dataset: Dataset, part: str | None) -> tuple[str, tuple[Case, ...]]:
    split_file = root / "split.json"
    parts: dict[str, tuple[str, ...]] = dict(dataset.splits)
    if split_file.is_file():
        parts |= Split.model_validate(read_json(split_file)).parts
    if part is None:
        part = next((name for name in ("test", "val") if split_file.is_file() and parts.get(name)), "all")
    if part == "all":
        return part, dataset.cases
    if part not in parts:
        raise SplitError(f"there is no part '{part}'", where=dataset.name, expected=f"one of {', '.join(parts)} or all")
    return part, dataset.select(parts[part])


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


def _plan_rows(run: RunFolder) -> dict[str, Any] | None:
    path = run.root / "plan.json"
    return read_json(path)["rows"] if path.is_file() else None


def _only(answers: Sequence[Prediction | Failure]) -> Iterator[Prediction]:
    return (answer for answer in answers if isinstance(answer, Prediction))
