"""Faults are planted among labels of phantoms; each is found and ranked first, and clean labels raise no alarm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from bregma.auditing.audit import ALARM, LabelAudit, audit_labels
from bregma.geometry import Array, Frame
from bregma.phantoms import make_phantoms
from bregma.types import ArrayImage, Case, Dataset, LandmarkSet, Prediction


@pytest.fixture(scope="module")
def heads() -> Dataset:
    return make_phantoms("fetal_head", 40, seed=3, size=160, difficulty="easy")


@pytest.fixture(scope="module")
def chests() -> Dataset:
    return make_phantoms("chest", 30, seed=3, size=128, difficulty="easy")


def _relabelled(data: Dataset, changes: Mapping[int, Callable[[Array, Case], Array]]) -> Dataset:
    cases = list(data.cases)
    for row, change in changes.items():
        marks = cases[row].landmarks
        assert marks is not None
        cases[row] = replace(cases[row], landmarks=LandmarkSet(change(marks.points.copy(), cases[row]), marks.status))
    return replace(data, cases=tuple(cases))


def _order(*order: int) -> Callable[[Array, Case], Array]:
    return lambda points, _: points[list(order)]


def _reasons(audit: LabelAudit, row: int) -> str:
    return " ".join(s.reason for s in audit.suspects() if s.case_id == audit.cases[row].id)


class TestImages:
    def test_clean_labels_raise_no_alarm(self, heads: Dataset) -> None:
        audit = audit_labels(heads)
        assert {entry.source for entry in audit.evidence} == {"duplicate", "geometry", "exchange", "axes", "image"}
        assert audit.suspects() == ()
        assert audit.case_scores().max() < ALARM

    def test_labels_shifted_as_a_whole_are_seen_in_the_image_only(self, heads: Dataset) -> None:
        shifted = _relabelled(heads, {7: lambda points, _: points + np.array([14.0, -9.0])})
        audit = audit_labels(shifted)
        assert audit.ranking[0] == 7
        assert {s.case_id for s in audit.suspects()} == {heads.cases[7].id}
        assert audit.case_scores(["geometry", "exchange", "duplicate", "axes"])[7] < ALARM
        assert "the image suggests another place" in _reasons(audit, 7)

    def test_the_expected_place_is_where_the_label_was(self, heads: Dataset) -> None:
        audit = audit_labels(_relabelled(heads, {7: lambda points, _: points + np.array([14.0, -9.0])}))
        truth = heads.cases[7].landmarks
        assert truth is not None
        found = np.array([s.expected for s in sorted(audit.suspects(), key=lambda s: s.landmark)])
        order = np.argsort(heads.schema.names)
        np.testing.assert_allclose(found, truth.points[order], atol=5.0)

    def test_a_third_of_wrong_labels_does_not_spoil_the_standard(self, heads: Dataset) -> None:
        rng = np.random.default_rng(0)
        bad = rng.choice(len(heads), 13, replace=False)

        def scatter(points: Array, case: Case) -> Array:
            return rng.uniform(0, 160, points.shape)

        audit = audit_labels(_relabelled(heads, dict.fromkeys(bad.tolist(), scatter)))
        assert set(audit.ranking[:13]) == set(bad.tolist())
        suspected = {s.case_id for s in audit.suspects()}
        assert suspected == {heads.cases[row].id for row in bad}

    def test_copied_labels_are_found_and_the_image_tells_which_is_the_copy(self, heads: Dataset) -> None:
        marks = heads.cases[4].landmarks
        assert marks is not None
        audit = audit_labels(_relabelled(heads, {9: lambda points, _: marks.points}))
        assert audit.ranking[:2] == (9, 4)
        assert f"the labels are those of {heads.cases[4].id}" in _reasons(audit, 9)

    def test_two_frames_of_one_scene_may_share_labels(self, heads: Dataset) -> None:
        first = heads.cases[4]
        pixels = first.image.load().astype(np.int64)
        same = ArrayImage(np.clip(pixels + 1, 0, 255).astype(np.uint8))
        again = replace(heads, cases=(*heads.cases, replace(first, id="again", image=same)))
        assert audit_labels(again).suspects() == ()

    def test_one_image_labelled_twice_must_agree(self, heads: Dataset) -> None:
        first = heads.cases[4]
        assert first.landmarks is not None
        moved = first.landmarks.points + np.array([[20.0, 0.0], [0, 0], [0, 0], [0, 0]])
        again = replace(first, id="again", landmarks=LandmarkSet(moved))
        audit = audit_labels(replace(heads, cases=(*heads.cases, again)))
        assert set(audit.ranking[:2]) == {4, len(heads)}
        assert "the image is also" in _reasons(audit, 4)


class TestGeometry:
    def test_the_order_of_a_diameters_ends_means_nothing(self, heads: Dataset) -> None:
        turned = _relabelled(heads, {3: _order(1, 0, 2, 3), 5: _order(0, 1, 3, 2), 6: _order(1, 0, 3, 2)})
        assert audit_labels(turned, use_images=False).suspects() == ()

    def test_ends_of_different_diameters_exchanged(self, heads: Dataset) -> None:
        audit = audit_labels(_relabelled(heads, {3: _order(0, 2, 1, 3)}), use_images=False)
        assert audit.ranking[0] == 3
        assert {s.case_id for s in audit.suspects()} == {heads.cases[3].id}

    def test_whole_diameters_exchanged(self, heads: Dataset) -> None:
        audit = audit_labels(_relabelled(heads, {3: _order(2, 3, 0, 1)}), use_images=False)
        assert audit.ranking[0] == 3
        assert "exchanged: ofd_1, ofd_2 and bpd_1, bpd_2" in _reasons(audit, 3)
        moved = heads.cases[3].landmarks
        assert moved is not None
        found = {s.landmark: s.expected for s in audit.suspects()}
        np.testing.assert_allclose(found["ofd_1"], moved.points[0])

    def test_left_and_right_exchanged(self, chests: Dataset) -> None:
        order = list(range(len(chests.schema)))
        for left, right in chests.schema.mirror_pairs:
            i, j = chests.schema.index(left), chests.schema.index(right)
            order[i], order[j] = j, i
        audit = audit_labels(_relabelled(chests, {8: _order(*order)}), use_images=False)
        assert audit.ranking[0] == 8
        assert "exchanged: left and right" in _reasons(audit, 8)

    def test_two_points_exchanged_are_named(self, chests: Dataset) -> None:
        order = list(range(len(chests.schema)))
        order[2], order[5] = 5, 2
        audit = audit_labels(_relabelled(chests, {8: _order(*order)}), use_images=False)
        named = {s.landmark: s.reason for s in audit.suspects()}
        a, b = chests.schema.names[2], chests.schema.names[5]
        assert set(named) == {a, b}
        assert named[a].startswith(f"exchanged with {b}") or f"exchanged with {b}" in named[a]

    def test_a_shifted_point_is_the_only_suspect_and_its_place_is_told(self, chests: Dataset) -> None:
        def shift(points: Array, case: Case) -> Array:
            points[4] += (15.0, 10.0)
            return points

        audit = audit_labels(_relabelled(chests, {8: shift}), use_images=False)
        (suspect,) = audit.suspects()
        assert (suspect.case_id, suspect.landmark) == (chests.cases[8].id, chests.schema.names[4])
        truth = chests.cases[8].landmarks
        assert truth is not None
        np.testing.assert_allclose(suspect.expected, truth.points[4], atol=4.0)
        assert suspect.weight == 1 - suspect.score

    def test_clean_chests_raise_no_alarm(self, chests: Dataset) -> None:
        assert audit_labels(chests, use_images=False).suspects() == ()

    def test_one_position_for_two_landmarks(self, chests: Dataset) -> None:
        def twice(points: Array, case: Case) -> Array:
            points[9] = points[8]
            return points

        audit = audit_labels(_relabelled(chests, {8: twice}), use_images=False)
        assert audit.ranking[0] == 8
        assert f"has the position of {chests.schema.names[9]}" in _reasons(audit, 8)

    def test_too_few_shapes_are_not_judged(self, chests: Dataset) -> None:
        audit = audit_labels(replace(chests, cases=chests.cases[:5]), use_images=False)
        assert audit.suspects() == ()
        assert any("shape was not judged" in note for note in audit.notes)


def _prediction(case: Case, points: Array, sd: float = 2.0) -> Prediction:
    cov = np.tile(sd**2 * np.eye(2), (len(points), 1, 1))
    return Prediction(case.id, points, cov, np.ones(len(points)), case.frame)


def _shift(points: Array, case: Case) -> Array:
    return points + np.array([30.0, 0.0])


class TestDisagreement:
    def test_a_label_that_no_fold_agrees_with(self, heads: Dataset) -> None:
        rng = np.random.default_rng(1)
        predictions = {
            case.id: [_prediction(case, case.landmarks.points[[1, 0, 2, 3]] + rng.normal(0, 1.5, (4, 2)))]
            for case in heads
            if case.landmarks is not None
        }
        # The shape stays as it is: only the model can tell.
        wrong = _relabelled(heads, {11: lambda points, _: points + np.array([30.0, 0.0])})
        audit = audit_labels(wrong, predictions=predictions, use_images=False)
        assert {s.case_id for s in audit.suspects()} == {heads.cases[11].id}
        assert "predict another place" in _reasons(audit, 11)

    def test_a_model_that_is_unsure_accuses_less(self, heads: Dataset) -> None:
        rng = np.random.default_rng(1)
        predictions = {}
        for row, case in enumerate(heads):
            assert case.landmarks is not None
            sd = 20.0 if row == 12 else 2.0
            predictions[case.id] = [_prediction(case, case.landmarks.points + rng.normal(0, 1.5, (4, 2)), sd)]
        wrong = _relabelled(heads, {11: _shift, 12: _shift})
        audit = audit_labels(wrong, predictions=predictions, use_images=False)
        assert audit.case_scores()[11] > ALARM > audit.case_scores()[12]

    def test_two_observers(self) -> None:
        rng = np.random.default_rng(2)
        shape = np.array([[20.0, 50], [90, 52], [56, 20], [54, 80]])
        data = make_phantoms("fetal_head", 1, size=64)
        cases = []
        for row in range(20):
            points = shape + rng.normal(0, 1, shape.shape)
            other = points + rng.normal(0, 1, shape.shape)
            if row == 6:
                other = other + np.array([[0.0, 0], [0, 0], [0, 30], [0, 0]])
            image = ArrayImage(rng.integers(0, 255, (100, 100), dtype=np.uint8))
            observers = {"second": LandmarkSet(other)}
            cases.append(Case(f"c{row}", f"s{row}", image, Frame((100, 100)), LandmarkSet(points), observers=observers))
        audit = audit_labels(replace(data, cases=tuple(cases)), use_images=False)
        (suspect,) = audit.suspects()
        assert (suspect.case_id, suspect.landmark) == ("c6", data.schema.names[2])
        assert "another observer" in suspect.reason
