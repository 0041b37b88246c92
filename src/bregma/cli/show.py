"""Results of workflows as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bregma.console import say, show_facts, show_table

if TYPE_CHECKING:
    from bregma.auditing.audit import LabelAudit
    from bregma.catalog import CatalogTable
    from bregma.data.fingerprint import Fingerprint
    from bregma.results import ComparisonTable, Estimate, Evaluation
    from bregma.types import Measurement
    from bregma.workflows import FitComparison, Inspection, PredictResult, RunRow, StudyResult, TrainResult
    from bregma.workflows.runs import Pruned

MOST_ROWS = 40
"""Longer tables are cut; the whole of them is in the files and in --json."""


def show_catalog(tables: Iterable[CatalogTable]) -> None:
    """Write the tables of the catalog."""
    for table in tables:
        rows = [(row.name, row.summary, row.source) for row in table.rows]
        show_table(table.title, ("Name", "What it is", "Source"), rows)


def show_inspection(found: Inspection) -> None:
    """Write a dataset's fingerprint and findings."""
    print_ = found.fingerprint
    known = print_.spacing.known
    show_facts(
        {
            "dataset": print_.name,
            "anatomy": print_.schema_name,
            "images": f"{print_.images} of {print_.subjects} subjects, {_known(print_)}",
            "size": f"{_range(print_.width)} x {_range(print_.height)} px",
            "spacing": f"known for {known} of {print_.images} images" if known else "not known: lengths are in pixels",
            **({"contact sheet": found.sheet} if found.sheet else {}),
            **({"figures": ", ".join(path.name for path in found.figures)} if found.figures else {}),
        }
    )
    rows = [(finding.severity, finding.kind.replace("_", " "), finding.sentence) for finding in found.findings]
    if rows:
        show_table(f"\n{len(rows)} findings, worst first", ("Severity", "Kind", "What"), rows[:MOST_ROWS])
        _say_cut(len(rows), "--out writes them all")
    else:
        say("nothing looks wrong")
    if found.audit is not None:
        _show_audit(found.audit, found.audit_files)


def _known(print_: Fingerprint) -> str:
    """Return how many images have labels, or a value where the anatomy has no landmarks."""
    return f"{print_.labelled} with labels" if print_.landmarks else f"{print_.valued} with a value"


def _show_audit(audit: LabelAudit, files: Sequence[Path]) -> None:
    suspects = audit.suspects()
    images = len({suspect.case_id for suspect in suspects})
    if suspects:
        title = f"\nAudit: {len(suspects)} suspects on {images} of {len(audit.cases)} images, worst first"
        rows = [(f"{s.score:.2f}", s.case_id, s.landmark, s.reason) for s in suspects[:MOST_ROWS]]
        show_table(title, ("Score", "Image", "Landmark", "Why"), rows)
        _say_cut(len(suspects), "--out writes them all")
    else:
        say(f"the audit suspects none of the labels of {len(audit.cases)} images")
    for note in audit.notes:
        say(f"note: {note}")
    if files:
        show_facts({"audit": ", ".join(str(path) for path in files)})


def show_training(result: TrainResult) -> None:
    """Write where a training's results lie and how it scored."""
    if result.evaluation is not None:
        show_evaluation(result.evaluation)
    show_facts(
        {
            "run": result.run,
            "bundle": result.bundle,
            "report": result.report or "none: there was no part to evaluate on",
            "weights of epoch": result.epoch,
            "images": f"{result.images} in {result.seconds:.0f} s",
        }
    )


def show_evaluation(found: Evaluation) -> None:
    """Write an evaluation's figures with their intervals."""
    rows = [(name, estimate_text(figure), str(figure.n)) for name, figure in found.metrics.items()]
    show_table(found.name, ("Metric", "Figure [95 % interval]", "n"), rows)
    measured = [
        (row.label, estimate_text(row.mae), estimate_text(row.bias), str(row.failed))
        for row in found.agreements
        if row.level is None
    ]
    if measured:
        columns = ("Measurement", "Mean absolute difference", "Bias", "Failed")
        show_table("Measurements against those from the labels", columns, measured)
    for note in found.notes:
        say(f"note: {note}")


def evaluation_dict(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation's figures as plain data for JSON."""
    return {
        "name": found.name,
        "images": len(found.cases),
        "metrics": {name: figure.to_dict() for name, figure in found.metrics.items()},
        "notes": list(found.notes),
    }


def show_predictions(result: PredictResult) -> None:
    """Write where predictions lie, and the files that could not be used."""
    for note in result.notes:
        say(note)
    for failure in result.failures:
        say(f"left out: {failure.case_id}: {failure.reason}")
    show_facts(
        {
            "predicted": f"{len(result.predictions)} images",
            "left out": f"{len(result.failures)} images",
            "report": result.out / "report.html",
            "measurements": result.out / "measurements.csv",
            **({"subjects": result.out / "subjects.csv"} if result.subjects else {}),
        }
    )


def show_measurements(measured: Mapping[str, tuple[Measurement, ...]]) -> None:
    """Write measurements, one a row."""
    rows = [
        (case, found.label, found.place or "", measurement_text(found), found.grade or "")
        for case, all_found in measured.items()
        for found in all_found
    ]
    show_table(f"{len(measured)} images", ("Image", "Measurement", "Level", "Value", "Grade"), rows[:MOST_ROWS])
    _say_cut(len(rows), "--out writes them all")


def show_comparison(table: ComparisonTable, out: Path) -> None:
    """Write runs side by side."""
    rows = []
    for row in table.rows:
        figures = [estimate_text(figure) for figure in row.figures]
        rows.append((row.metric, *(text + _stars(p) for text, p in zip(figures, row.p_values, strict=True))))
    title = f"{table.cases} images of {table.subjects} subjects; * p < 0.05 against {table.runs[0]}"
    show_table(f"{title} ({table.test})" if table.test else title, ("Metric", *table.runs), rows)
    for note in table.notes:
        say(f"note: {note}")
    show_facts({"report": out / "comparison.html"})


def show_fits(result: FitComparison) -> None:
    """Write cross-validated regressors side by side."""
    show_comparison(result.comparison, result.out)
    show_facts({name: result.out / name / "report.html" for name in result.evaluations})


def show_left_out(failures: Mapping[str, str]) -> None:
    """Write which images could not be used."""
    for case, reason in failures.items():
        say(f"left out: {case}: {reason}")


def show_study(result: StudyResult) -> None:
    """Write the arms of a study side by side."""
    for name, why in result.failures.items():
        say(f"failed: {name}: {why}")
    if result.table is None and result.report is not None:
        show_facts({"report": result.report})
        return
    if result.table is None:
        say("fewer than two recipes could be trained, so there is nothing to compare")
        return
    rows = []
    for arm in result.table.arms:
        difference = "reference" if arm.difference is None else estimate_text(arm.difference) + _stars(arm.p_value)
        tiers = [f"{tier.value:.0f} %" if tier.value is not None else "" for tier in arm.tiers]
        rows.append((arm.name, estimate_text(arm.mre), difference, estimate_text(arm.median), *tiers))
    columns = ("Recipe", f"MRE ({result.table.unit})", "Difference", "Median")
    below = [f"< {tier:g}" for tier in result.table.tiers]
    title = f"{result.table.title}; * p < 0.05 after Holm, signed-rank test over subjects"
    show_table(title, (*columns, *below), rows)
    for note in result.table.notes:
        say(f"note: {note}")
    show_facts({"report": result.report or "", "table": result.out / "comparison.csv"})


def show_runs(rows: Sequence[RunRow]) -> None:
    """Write the runs of a folder, one a row."""
    cells = [
        (
            row.path,
            row.title,
            row.data,
            row.state if row.state != "unfinished" else f"epoch {row.epoch} of {row.epochs}",
            "" if row.figure is None else f"{estimate_text(row.figure)}, {row.metric}",
            f"{row.minutes:.1f}",
            f"{row.bytes / 2**20:.1f}",
        )
        for row in rows
    ]
    columns = ("Run", "Recipe", "Data", "State", "MRE [95 % interval]", "Minutes", "MiB")
    show_table(f"{len(rows)} runs", columns, cells)


def show_run(row: RunRow) -> None:
    """Write what one run says of itself."""
    facts = {name: value for name, value in row.to_dict().items() if value not in ("", None)}
    if row.figure is not None:
        facts["figure"] = estimate_text(row.figure)
    show_facts(facts)


def show_pruned(items: Sequence[Pruned], *, done: bool) -> None:
    """Write what pruning removed, or would remove."""
    rows = [(item.path, item.why, f"{item.bytes / 2**20:.1f}") for item in items]
    show_table("Removed" if done else "Would be removed", ("Folder", "Why", "MiB"), rows)
    total = sum(item.bytes for item in items) / 2**20
    say(f"{total:.1f} MiB {'freed' if done else 'would be freed; --yes removes them'}")


def estimate_text(figure: Estimate) -> str:
    """Return a figure with its interval and unit in words."""
    if figure.value is None:
        return "not known"
    unit = "" if figure.unit == "1" else f" {figure.unit}"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3g}{unit}"
    return f"{figure.value:.3g} [{figure.low:.3g}, {figure.high:.3g}]{unit}"


def measurement_text(found: Measurement) -> str:
    """Return a measurement's value with its interval and unit, or the reason why there is none."""
    if found.value is None:
        return f"none: {found.reason}"
    unit = "" if found.unit == "1" else f" {found.unit}"
    interval = "" if found.interval is None else f" [{found.interval[0]:.4g}, {found.interval[1]:.4g}]"
    return f"{found.value:.4g}{interval}{unit}" + (f" ({found.reason})" if found.reason else "")


def _range(summary: Any) -> str:
    same = summary.min == summary.max
    return f"{summary.min:.0f}" if same else f"{summary.min:.0f}..{summary.max:.0f}"


def _stars(p_value: float | None) -> str:
    return " *" if p_value is not None and p_value < 0.05 else ""


def _say_cut(rows: int, where: str) -> None:
    if rows > MOST_ROWS:
        say(f"{rows - MOST_ROWS} rows more; {where}")
