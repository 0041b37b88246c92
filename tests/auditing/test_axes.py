"""Diameters that should be an ellipse's axes: worked by hand, and on phantoms with spoilt diameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bregma.auditing.audit import ALARM, audit_labels
from bregma.auditing.axes import axes_evidence, declared_axes, nearest_axes
from bregma.geometry import Array
from bregma.phantoms import make_phantoms
from bregma.schema import LandmarkSchema
from bregma.types import Case, Dataset, LandmarkSet

AXES = np.array([[-10.0, 0], [10, 0], [0, -8], [0, 8]])


@pytest.fixture(scope="module")
def heads() -> Dataset:
    return make_phantoms("fetal_head", 12, seed=5, size=160, difficulty="easy")


@pytest.fixture(scope="module")
def schema(heads: Dataset) -> LandmarkSchema:
    return heads.schema


def _points(case: Case) -> Array:
    assert case.landmarks is not None
    return case.landmarks.points


def _turned(ends: Array, degrees: float) -> Array:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.asarray(ends @ np.array([[c, s], [-s, c]]))


class TestNearestAxes:
    @pytest.mark.parametrize("degrees", [0, 30, 90, 200])
    @pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3), (2, 3, 0, 1), (3, 2, 1, 0)])
    def test_true_axes_are_their_own(self, degrees: float, order: tuple[int, ...]) -> None:
        ends = (_turned(AXES, degrees) + np.array([3.0, -4.0]))[list(order)]
        np.testing.assert_allclose(nearest_axes(ends), ends, atol=1e-12)

    def test_middles_that_lie_apart_meet_half_way(self) -> None:
        ends = AXES + np.array([[2.0, 0], [2, 0], [0, 0], [0, 0]])
        np.testing.assert_allclose(nearest_axes(ends), AXES + np.array([1.0, 0.0]), atol=1e-12)

    def test_equal_diameters_share_a_turn(self) -> None:
        square = np.array([[-10.0, 0], [10, 0], [0, -10], [0, 10]])
        turned = np.concatenate([_turned(square[:2], 8), square[2:]])
        expected = _turned(square, 4) * np.cos(np.deg2rad(4))
        np.testing.assert_allclose(nearest_axes(turned), expected, atol=1e-12)

    def test_no_other_axes_are_nearer(self) -> None:
        rng = np.random.default_rng(0)
        ends = AXES + rng.normal(0, 2, AXES.shape)
        least = ((ends - nearest_axes(ends)) ** 2).sum()
        for _ in range(2000):
            p, q, turn = rng.uniform(7, 13), rng.uniform(5, 11), rng.uniform(-40, 40)
            other = _turned(np.array([[-p, 0], [p, 0], [0, -q], [0, q]]), turn) + rng.normal(0, 2, 2)
            assert ((ends - other) ** 2).sum() >= least


class TestEvidence:
    def test_the_head_measures_one_ellipse(self, schema: LandmarkSchema) -> None:
        assert [[schema.names[k] for k in ends] for ends in declared_axes(schema)] == [
            ["ofd_1", "ofd_2", "bpd_1", "bpd_2"]
        ]

    def test_an_anatomy_without_ellipse_is_not_judged(self) -> None:
        chest = make_phantoms("chest", 1, size=64)
        assert axes_evidence(np.zeros((1, len(chest.schema), 2)), chest.schema) is None

    def test_half_where_an_end_is_a_tenth_of_the_size_off(self, schema: LandmarkSchema) -> None:
        # Middles d apart along x move each end by d / 2; the size is √((2·(100 + d²/4) + 2·(64 + d²/4)) / 4).
        d = 0.2 * np.sqrt(82 / (1 - 0.01))
        ends = AXES + np.array([[d, 0], [d, 0], [0, 0], [0, 0]])
        evidence = axes_evidence(ends[None], schema)
        assert evidence is not None
        np.testing.assert_allclose(evidence.scores, 0.5, atol=1e-9)
        assert np.isnan(evidence.expected).all()

    def test_a_missing_end_or_no_length_says_nothing(self, schema: LandmarkSchema) -> None:
        missing = AXES + np.array([[9.0, 0], [9, 0], [0, 0], [0, 0]])
        missing[3] = np.nan
        evidence = axes_evidence(np.array([missing, np.ones((4, 2))]), schema)
        assert evidence is not None
        assert (evidence.times == 0).all()
        assert evidence.reasons == {}


class TestAudit:
    def test_spoilt_diameters_are_found_and_true_ones_are_not(self, heads: Dataset) -> None:
        spoilt = {2: _long_diameter_turned, 6: _long_diameter_moved}
        cases = [
            replace(case, landmarks=LandmarkSet(spoilt[row](_points(case)))) if row in spoilt else case
            for row, case in enumerate(heads)
        ]
        audit = audit_labels(replace(heads, cases=tuple(cases)), use_images=False)
        scores = audit.case_scores(["axes"])
        assert set(np.flatnonzero(scores >= ALARM)) == set(spoilt)
        assert np.delete(scores, list(spoilt)).max() < 1e-3
        reasons = [s.reason for s in audit.suspects() if s.case_id == heads.cases[6].id]
        assert any("do not halve each other at right angles" in reason for reason in reasons)


def _long_diameter_turned(points: Array) -> Array:
    middle = points[:2].mean(axis=0)
    return np.concatenate([_turned(points[:2] - middle, 25) + middle, points[2:]])


def _long_diameter_moved(points: Array) -> Array:
    along = points[1] - points[0]
    return np.concatenate([points[:2] + 0.15 * along, points[2:]])
