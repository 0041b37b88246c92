"""``inspect --audit``: the suspects among the labels as a table and as a sheet to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bregma.auditing.audit import ALARM, LabelAudit, Suspect, audit_labels
from bregma.auditing.files import LEAST_LISTED, write_suspects
from bregma.errors import BregmaError, SchemaError, SplitError
from bregma.files import read_json, write_json
from bregma.geometry import Frame
from bregma.report import contact_sheet, draw_overlay, read_predictions, save_png
from bregma.types import Dataset, Prediction
from bregma.workflows.track import Track

_TILE_PX = 560
_COLUMNS = 4


def audit_dataset(dataset: Dataset, predictions: Iterable[str | Path] = ()) -> LabelAudit:
    """Audit a dataset's labels, with out-of-fold predictions where there are some.

    Args:
        dataset: labelled cases.
        predictions: files written by ``evaluate`` or ``predict``, by models that did not learn from the cases in them.

    Raises:
        SchemaError: predictions of another anatomy.
        SplitError: predictions of images that their own run was trained on.
        InputError: a file that cannot be read.
    """
    known: dict[str, list[Prediction]] = {}
    for path in map(Path, predictions):
        file = path / "predictions.jsonl" if path.is_dir() else path
        found = read_predictions(file)
        _refuse_trained(file, found)
        for prediction in found:
            if len(prediction) != len(dataset.schema):
                raise SchemaError(
                    "the predictions are of another anatomy",
                    where=f"{file}, case {prediction.case_id}",
                    expected=f"{len(dataset.schema)} landmarks of '{dataset.schema.name}'",
                    got=str(len(prediction)),
                )
            known.setdefault(prediction.case_id, []).append(prediction)
    return audit_labels(dataset, predictions=known)


def write_audit(audit: LabelAudit, folder: Path, *, images: int, track: Track) -> tuple[Path, ...]:
    """Write ``audit.csv``, ``audit.json`` and ``audit_sheet.png`` (worst first); return the files.

    Raises:
        RunError: the folder cannot be written.
    """
    listed = audit.suspects(LEAST_LISTED)
    files = [write_suspects(folder / "audit.csv", listed)]
    scores = audit.case_scores()
    summary = {
        "alarm": ALARM,
        "sources": [entry.source for entry in audit.evidence],
        "notes": list(audit.notes),
        "cases": [{"case": audit.cases[row].id, "score": float(scores[row])} for row in audit.ranking],
        "suspects": [suspect.to_dict() for suspect in listed],
    }
    write_json(folder / "audit.json", summary)
    files.append(folder / "audit.json")
    if audit.cases:
        shown = min(images, len(audit.cases))
        tiles = list(track(_tiles(audit, listed, shown), shown, "draw suspects"))
        sheet = contact_sheet(tiles, columns=_COLUMNS, cell=(_TILE_PX, _TILE_PX))
        files.append(save_png(folder / "audit_sheet.png", sheet))
    return tuple(files)


def _tiles(audit: LabelAudit, suspects: Sequence[Suspect], count: int) -> Iterator[tuple[Any, str]]:
    suspected = Counter(suspect.case_id for suspect in suspects if suspect.score >= ALARM)
    scores = audit.case_scores()
    for row in audit.ranking[:count]:
        case, strongest = audit.cases[row], audit.strongest(row)
        why = f", {suspected[case.id]} suspects, {strongest[0]} by {strongest[1]}" if strongest else ""
        yield _drawn(audit, row), f"{scores[row]:.2f} {case.id}{why}"


def _drawn(audit: LabelAudit, row: int) -> Any:
    """Return a case with its labels as rings and the expected places, where they differ, as dots."""
    case, places = audit.cases[row], audit.expected(row)
    try:
        image = case.image.load()
    except BregmaError:
        image = np.zeros(case.frame.shape, dtype=np.uint8)
    suspected = (audit.scores()[row] >= ALARM) & np.isfinite(places).all(axis=1)
    expected = _expected(case.id, places, suspected, case.frame) if suspected.any() else None
    return draw_overlay(
        image,
        schema=audit.schema,
        truth=case.landmarks,
        prediction=expected,
        size=_TILE_PX,
        label_worst=1,
        legend=False,
    )


def _expected(case_id: str, places: Any, suspected: Any, frame: Frame) -> Prediction:
    mean = np.where(suspected[:, None], places, 0.0)
    # A spread of a hundredth of a pixel, so that the region drawn around an expected place is no more than its dot.
    cov = np.tile(1e-4 * np.eye(2), (len(mean), 1, 1))
    return Prediction(case_id, mean, cov, suspected.astype(np.float64), frame)


def _refuse_trained(file: Path, predictions: Sequence[Prediction]) -> None:
    """Refuse predictions of images on which their run was trained: they repeat the labels, faults included."""
    for folder in file.resolve().parents[:3]:
        if (folder / "split.json").is_file() and (folder / "plan.json").is_file():
            learned = set(read_json(folder / "split.json").get("parts", {}).get("train", ()))
            seen = [p.case_id for p in predictions if p.case_id in learned]
            if seen:
                raise SplitError(
                    f"{len(seen)} predictions are of images that the model was trained on",
                    where=file,
                    got=seen[0],
                    fix="give the predictions of the part that the run did not learn from, of every fold",
                )
