"""An evaluation built by hand: four cases whose figures are chosen, not computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bregma.errors import ImageError
from bregma.geometry import Frame
from bregma.results import Agreement, CaseResult, Estimate, Evaluation, LandmarkResult
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.types import ArrayImage, Case, LandmarkSet, Measurement, Prediction

SHAPE = (60, 80)
TRUE = np.array([[10.0, 12.0], [62.0, 15.0], [40.0, 45.0]])


class Unreadable:
    """An image whose file is broken."""

    path = Path("broken.png")

    def load(self) -> np.ndarray[Any, Any]:
        raise ImageError("is cut short", where="broken.png")


@pytest.fixture(scope="session")
def schema() -> LandmarkSchema:
    return schema_from_dict(
        {
            "name": "triangle",
            "title": "Triangle",
            "landmarks": [{"name": n, "label": f"Corner {n}, of three"} for n in ("a", "b", "c")],
            "edges": [["a", "b"]],
            "grades": [
                {"name": "width", "label": "Width", "edges": [50], "labels": ["slim", "wide"], "source": "test"}
            ],
            "measurements": [
                {
                    "name": "ab",
                    "label": "Width a to b",
                    "primitive": "distance",
                    "points": {"a": "a", "b": "b"},
                    "unit": "mm",
                    "grade": "width",
                }
            ],
        },
        where="test",
    )


def case_result(case_id: str, error: float, index: int) -> CaseResult:
    rng = np.random.default_rng(index)
    image = ArrayImage(rng.integers(0, 255, SHAPE, dtype=np.uint8))
    frame = Frame(SHAPE, (0.5, 0.5), "user")
    truth = LandmarkSet(TRUE)
    prediction = Prediction(
        case_id, TRUE + np.array([error, 0.0]), np.tile(np.eye(2), (3, 1, 1)), np.ones(3), frame, "net 1"
    )
    value = 26.0 + index
    return CaseResult(
        case=Case(case_id, f"subject-{index}", image, frame, truth),
        truth=truth,
        prediction=prediction,
        errors_px=np.full(3, error),
        errors_mm=np.full(3, error / 2),
        scored=np.ones(3, dtype=bool),
        ipe_px=error,
        outliers=int(3 * (error > 10)),
        measured=(Measurement("ab", "Width a to b", value, "mm", grade="slim", uses=("a", "b")),),
        true_measured=(Measurement("ab", "Width a to b", 26.0, "mm", grade="slim", uses=("a", "b")),),
    )


@pytest.fixture(scope="session")
def evaluation(schema: LandmarkSchema) -> Evaluation:
    cases = tuple(case_result(f"case-{i}", error, i) for i, error in enumerate((11.25, 7.5, 3.75, 1.125)))
    landmarks = tuple(
        LandmarkResult(
            mark.name,
            mark.label,
            Estimate(3.21 + i, 2.11 + i, 4.31 + i, 4, "mm"),
            Estimate(2.87 + i, 2.01, 3.99, 4, "mm"),
            Estimate(5.43 + i, None, None, 4, "mm"),
            i,
        )
        for i, mark in enumerate(schema.landmarks)
    )
    return Evaluation(
        name="run-7, validation",
        schema=schema,
        cases=cases,
        metrics={
            "mre_mm": Estimate(2.953125, 1.513, 4.417, 12, "mm"),
            "sdr_2mm": Estimate(51.23, 40.14, 62.35, 12, "%"),
            "outliers": Estimate(3.0, None, None, 4, "1"),
            "mre_px": Estimate(5.90625, None, None, 12, "px"),
            "ab_mae": Estimate(1.53, 0.52, 2.54, 4, "mm"),
            "a_new_metric": Estimate(None, None, None, 0, "mm"),
        },
        landmarks=landmarks,
        agreements=(
            Agreement(
                "ab",
                "Width a to b",
                None,
                "mm",
                Estimate(1.53, 0.52, 2.54, 4, "mm"),
                Estimate(-1.47, -2.51, -0.43, 4, "mm"),
                Estimate(75.0, 30.1, 95.4, 4, "%"),
                2,
            ),
        ),
        settings={"draws": 200, "seed": 3, "sdr_mm": (2.0,), "level": 0.95},
        notes=("The intervals rest on 4 subjects.",),
        human={"mre_mm": Estimate(1.77, 1.01, 2.53, 12, "mm")},
    )


@pytest.fixture(scope="session")
def hostile(evaluation: Evaluation) -> Evaluation:
    """Names as an attacker, or a careless archive, would choose them."""
    text = '"><script>alert(1)</script>'
    first = evaluation.cases[0]
    case = replace(first.case, id=text, subject=f"{text}s")
    measured = replace(first.measured[0], value=None, grade=None, status="missing_landmark", reason=f"{text}r")
    return replace(
        evaluation,
        name=f"{text}n",
        notes=(f"{text}o",),
        cases=(replace(first, case=case, measured=(measured,)), *evaluation.cases[1:]),
    )


@pytest.fixture(scope="session")
def broken(evaluation: Evaluation) -> Evaluation:
    """The second case's image cannot be read."""
    cases = list(evaluation.cases)
    cases[1] = replace(cases[1], case=replace(cases[1].case, image=Unreadable()))
    return replace(evaluation, cases=tuple(cases))
