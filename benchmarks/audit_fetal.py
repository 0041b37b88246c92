"""How well the audit of labels finds the wrong ones of a careless labelling, judged by the reviewed one.

The fetal heads of ``fetal_head_us`` were labelled twice. Only the careless labelling is audited and learned from; the
reviewed one serves to tell which labels are bad: some point lies farther from its place than 5 % of the reviewed OFD.
Places are taken under the best assignment: the ends of a diameter in either order, and the two diameters in either
order, because the careless labelling calls the short diameter OFD throughout.

Run: ``python benchmarks/audit_fetal.py DATA OUT [--folds 3] [--epochs 75]``; ``--folds 0`` leaves out the networks. It
goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
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
BEFORE: tuple[Source, ...] = ("geometry", "exchange", "axes", "image", "duplicate")
KINDS: dict[str, tuple[Source, ...]] = {
    "geometry": ("geometry", "exchange", "duplicate"),
    "axes": ("axes",),
    "image": ("image",),
    "before any training": BEFORE,
    "out-of-fold networks": ("prediction",),
    "all": (*BEFORE, "prediction"),
}
CHANGES = (
    "minutes=null",
    "refine=null",
    "ensemble=1",
    "train.ema=0.995",
    "data.threshold=0.8",
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


def train_folds(data: Dataset, out: Path, folds: int, epochs: int) -> list[Path]:
    """Train on the careless labels that the first audit trusts, and return the folders of what each fold predicts."""
    predictions = []
    for fold in range(folds):
        run = out / f"fold-{fold}"
        settings = [*CHANGES, f"split.folds={folds}", f"split.fold={fold}", f"train.epochs={epochs}"]
        settings.append(f"train.validate_every={epochs}")
        if not (run / "evaluation" / "val" / "predictions.jsonl").is_file():
            train(data, run, recipe="fetal", overrides=settings, exclude=out / "before" / "audit.csv", resume=True)
        predictions.append(run / "evaluation" / "val")
    return predictions


def report(audit: LabelAudit, error: Array, path: Path) -> None:
    """Print one line a way of looking, and store the figures."""
    used = {entry.source for entry in audit.evidence}
    found = figures(audit, error, [kind for kind, sources in KINDS.items() if used.issuperset(sources)])
    write_json(path, {"bad": int((error > BAD).sum()), "images": len(error), "auroc": found})
    print(f"{(error > BAD).sum()} of {len(error)} are bad; AUROC by the share of the OFD from which a label is bad")
    for kind, row in found.items():
        print(f"  {kind:22s}", "  ".join(f"{s}: {v:.3f} [{low:.3f}, {high:.3f}]" for s, (v, low, high) in row.items()))


def main() -> None:
    """Audit, train on what the audit trusts, audit again; print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=75)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    careless, reviewed = read_dataset(asked.data, labels="unreviewed"), read_dataset(asked.data)
    audit = None
    if not (asked.out / "before" / "audit.csv").is_file() or not asked.folds:
        audit = audit_dataset(careless)
        write_audit(audit, asked.out / "before", images=24, track=untracked)
    if asked.folds:
        predictions = train_folds(careless, asked.out, asked.folds, asked.epochs)
        audit = audit_dataset(careless, predictions)
        write_audit(audit, asked.out / "after", images=24, track=untracked)
    if audit is not None:
        report(audit, errors(audit.cases, reviewed), asked.out / "result.json")


if __name__ == "__main__":
    main()
