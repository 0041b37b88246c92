"""How well the audit of labels finds the wrong ones of a careless labelling, judged by the reviewed one.

The fetal heads of ``fetal_head_us`` were labelled twice. Only the careless labelling is audited and learned from; the
reviewed one serves to tell which labels are bad: some point lies farther from its place than 5 % of the reviewed OFD.
Places are taken under the best assignment: the ends of a diameter in either order, and the two diameters in either
order, because the careless labelling calls the short diameter OFD throughout.

Run: ``python benchmarks/audit_fetal.py DATA OUT [--folds 3] [--minutes 5]``; ``--folds 0`` leaves out the networks. It
goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bregma.auditing.audit import LabelAudit
from bregma.auditing.evidence import Source
from bregma.datasets import read_dataset
from bregma.files import write_json
from bregma.geometry import Array
from bregma.types import Case, Dataset
from bregma.workflows import train
from bregma.workflows.auditing import audit_dataset, write_audit
from bregma.workflows.track import untracked

BAD = 0.05
SHARES = (0.05, 0.07, 0.1, 0.15, 0.2)
DRAWS = 2000
ENDS = ((0, 1), (1, 0))
BEFORE: tuple[Source, ...] = ("geometry", "exchange", "image", "duplicate")
KINDS: dict[str, tuple[Source, ...]] = {
    "geometry": ("geometry", "exchange", "duplicate"),
    "image": ("image",),
    "geometry and image": BEFORE,
    "out-of-fold networks": ("prediction",),
    "all": (*BEFORE, "prediction"),
}
RECIPE = (
    "model.preprocess.size=[128, 192]",
    "train.select=last",
    "predict.flip=true",
    "predict.rotations_deg=[-8, 8]",
    "data.threshold=0.1",
    "split.method=kfold",
)


def errors(cases: Sequence[Case], reviewed: Dataset) -> Array:
    """Return the largest distance of each case's labels from the reviewed ones, as a share of the reviewed OFD."""
    known = {case.id: case for case in reviewed}
    return np.array([_error(_points(case), _points(known[case.id])) for case in cases])


def _error(points: Array, truth: Array) -> float:
    ofd = float(np.linalg.norm(truth[0] - truth[1]))
    away = []
    for first, second in product(ENDS, ENDS):
        ends = [*first, *(2 + index for index in second)]
        away += [np.linalg.norm(points[order] - truth, axis=1).max() for order in (ends, ends[2:] + ends[:2])]
    return float(min(away)) / ofd


def _points(case: Case) -> Array:
    if case.landmarks is None:
        raise ValueError(f"{case.id} has no labels")
    return case.landmarks.points


def auroc(bad: NDArray[np.bool_], scores: Array) -> float:
    """Return the chance that a bad label outranks a good one (Mann & Whitney 1947), ties counting half."""
    ranks, positives = rankdata(scores), int(bad.sum())
    return float((ranks[bad].sum() - positives * (positives + 1) / 2) / (positives * (len(bad) - positives)))


def interval(bad: NDArray[np.bool_], scores: Array, subjects: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % percentile interval over resamples of subjects, each with all its images."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[int]] = {}
    for row, subject in enumerate(subjects):
        rows.setdefault(subject, []).append(row)
    groups = list(rows.values())
    found = []
    for _ in range(DRAWS):
        drawn = np.concatenate([groups[index] for index in rng.integers(len(groups), size=len(groups))])
        if 0 < bad[drawn].sum() < len(drawn):
            found.append(auroc(bad[drawn], scores[drawn]))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def figures(audit: LabelAudit, error: Array, kinds: Iterable[str]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return the AUROC with its interval for every way of looking, at every share of the OFD."""
    subjects = [case.subject for case in audit.cases]
    found = {}
    for kind in kinds:
        scores = audit.case_scores(KINDS[kind])
        found[kind] = {
            f"{share:.0%}": (auroc(error > share, scores), *interval(error > share, scores, subjects))
            for share in SHARES
        }
    return found


def train_folds(data: Dataset, out: Path, folds: int, minutes: float) -> list[Path]:
    """Train on the careless labels that the first audit trusts, and return the folders of what each fold predicts."""
    predictions = []
    for fold in range(folds):
        run = out / f"fold-{fold}"
        settings = [*RECIPE, f"split.folds={folds}", f"split.fold={fold}"]
        if not (run / "evaluation" / "val" / "predictions.jsonl").is_file():
            train(data, run, overrides=settings, minutes=minutes, exclude=out / "before" / "audit.csv", resume=True)
        predictions.append(run / "evaluation" / "val")
    return predictions


def show(title: str, found: dict[str, dict[str, tuple[float, float, float]]]) -> None:
    """Print one line a way of looking."""
    print(title)
    for kind, row in found.items():
        print(f"  {kind:22s}", "  ".join(f"{s}: {v:.3f} [{low:.3f}, {high:.3f}]" for s, (v, low, high) in row.items()))


def main() -> None:
    """Audit, train, audit again; print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5.0)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    careless = read_dataset(asked.data, labels="unreviewed")
    reviewed = read_dataset(asked.data)
    before = audit_dataset(careless)
    write_audit(before, asked.out / "before", images=24, track=untracked)
    error = errors(before.cases, reviewed)
    result = {"bad": float((error > BAD).mean()), "before": figures(before, error, list(KINDS)[:3])}
    show(f"Before training; {(error > BAD).sum()} of {len(error)} are bad", result["before"])
    if asked.folds:
        predictions = train_folds(careless, asked.out, asked.folds, asked.minutes)
        after = audit_dataset(careless, predictions)
        write_audit(after, asked.out / "after", images=24, track=untracked)
        result["after"] = figures(after, error, KINDS)
        show("After training, out of fold", result["after"])
    write_json(asked.out / "result.json", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
