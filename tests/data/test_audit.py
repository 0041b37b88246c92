"""Each fault is planted and found, and clean data has no finding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bregma.data.audit import Finding, find_problems
from bregma.data.split import make_split
from bregma.errors import ImageError
from bregma.geometry import Frame, apply, compose, rotate, scale, translate
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case, Dataset, LandmarkSet, Status

SCHEMA = schema_from_dict(
    {"name": "ring", "title": "Ring", "landmarks": [{"name": n, "label": n} for n in "abcdefgh"]}, where="test"
)
ANGLES = np.linspace(0.0, 2 * np.pi, 8, endpoint=False)
RING = np.stack([(1 + 0.3 * np.cos(ANGLES)) * np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def _cases(count: int = 30) -> list[Case]:
    generator = np.random.default_rng(4)
    cases = []
    for i in range(count):
        moved = compose(scale(20 * generator.uniform(0.8, 1.2)), rotate(generator.uniform(-40, 40)), translate(64, 64))
        points = apply(moved, RING + generator.normal(0, 0.01, RING.shape))
        pixels = generator.integers(0, 255, (128, 128), dtype=np.uint8)
        frame = Frame((128, 128), (0.5, 0.5), "user")
        cases.append(Case(f"c{i:02d}", f"p{i:02d}", ArrayImage(pixels), frame, LandmarkSet(points)))
    return cases


def _find(cases: list[Case], **arguments: object) -> tuple[Finding, ...]:
    return find_problems(Dataset("rings", SCHEMA, tuple(cases)), **arguments)  # type: ignore[arg-type]


def _with_point(case: Case, index: int, xy: tuple[float, float]) -> Case:
    points = case.landmarks.points.copy()  # type: ignore[union-attr]
    points[index] = xy
    return replace(case, landmarks=LandmarkSet(points))


def test_clean_data_has_no_findings() -> None:
    assert _find(_cases()) == ()


def test_a_point_far_from_its_place_is_found_and_no_other() -> None:
    cases = _cases()
    cases[7] = _with_point(cases[7], 2, (60.0, 60.0))
    (found,) = _find(cases)
    assert (found.kind, found.case_id, found.landmark, found.severity) == ("unusual_point", "c07", "c", "warning")
    assert found.score > 20


def test_facing_the_other_way_is_not_unusual_where_the_anatomy_may() -> None:
    # A shape with no mirror symmetry, whose first point is not labelled on all images.
    skew = np.array([(12.0, 6.0), *[(0.0, 0.0)] * 6, (-9.0, 15.0)])
    cases = []
    for i, case in enumerate(_cases()):
        points = case.landmarks.points + skew  # type: ignore[union-attr]
        status = [Status.VISIBLE if i % 3 else Status.UNLABELLED, *[Status.VISIBLE] * 7]
        points = points * (-1.0, 1.0) + (127.0, 0.0) if i % 2 else points
        cases.append(replace(case, landmarks=LandmarkSet(points, np.array(status))))
    both_ways = SCHEMA.model_copy(update={"flip": "keep"})
    assert find_problems(Dataset("rings", both_ways, tuple(cases))) == ()
    cases[7] = _with_point(cases[7], 2, (60.0, 60.0))
    (found,) = find_problems(Dataset("rings", both_ways, tuple(cases)))
    assert (found.case_id, found.landmark) == ("c07", "c")
    # Where it may not, an image that faces the other way is worth a look.
    assert len(_find(cases)) > 1


def test_the_worst_of_a_kind_comes_first_and_errors_before_warnings() -> None:
    cases = _cases()
    cases[3] = _with_point(cases[3], 2, (72.0, 72.0))
    cases[7] = _with_point(cases[7], 2, (40.0, 20.0))
    cases[9] = replace(cases[9], image=ArrayImage(np.zeros((128, 128), dtype=np.uint8)))
    found = _find(cases)
    assert found[0].kind == "constant_image"
    scores = [f.score for f in found[1:]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) >= 2


def test_points_outside_and_coincident_points() -> None:
    cases = _cases(5)
    cases[0] = _with_point(cases[0], 0, (130.5, 64.0))
    cases[1] = _with_point(cases[1], 5, tuple(cases[1].landmarks.points[4]))  # type: ignore[union-attr, arg-type]
    outside, coincident = _find(cases)
    assert (outside.kind, outside.case_id, outside.landmark) == ("point_outside_image", "c00", "a")
    assert outside.score == pytest.approx(3.0)  # the image ends at 127.5
    assert (coincident.kind, coincident.case_id) == ("coincident_points", "c01")
    assert "e and f" in coincident.sentence


def test_a_point_that_is_marked_as_outside_is_no_fault() -> None:
    cases = _cases(5)
    status = np.zeros(8)
    status[0] = Status.OUTSIDE
    cases[0] = replace(cases[0], landmarks=LandmarkSet(cases[0].landmarks.points, status))  # type: ignore[union-attr]
    assert _find(cases) == ()


def test_the_same_image_twice_is_worse_across_subjects_and_parts() -> None:
    cases = _cases(6)
    cases[1] = replace(cases[1], subject="p00", image=cases[0].image)
    (same,) = _find(cases)
    assert (same.kind, same.severity, same.case_id) == ("duplicate_image", "warning", "c01")
    cases[1] = replace(cases[1], subject="p01")
    (other,) = _find(cases)
    assert other.severity == "error"
    assert "another subject" in other.sentence
    (across,) = _find(cases, split={"train": ["c00"], "test": ["c01"]})
    assert "test and train" in across.sentence


def test_copied_labels_are_found() -> None:
    cases = _cases(6)
    cases[4] = replace(cases[4], landmarks=cases[2].landmarks)
    (found,) = _find(cases)
    assert (found.kind, found.case_id) == ("same_labels", "c04")
    assert "c02" in found.sentence


def test_a_subject_in_two_parts() -> None:
    cases = _cases(6)
    cases[1] = replace(cases[1], subject="p00")
    (found,) = _find(cases, split={"train": ["c00", "c02"], "test": ["c01", "c03"]})
    assert (found.kind, found.severity) == ("subject_in_two_parts", "error")
    assert "p00" in found.sentence
    split = make_split(Dataset("rings", SCHEMA, tuple(cases)))
    assert _find(cases, split=split) == ()


class _Broken:
    path = Path("broken.png")

    def load(self) -> np.ndarray:
        raise ImageError("is cut short", where=self.path)


def test_faults_of_pixels() -> None:
    cases = _cases(6)
    cases[0] = replace(cases[0], image=_Broken())
    cases[1] = replace(cases[1], image=ArrayImage(np.arange(60.0).reshape(6, 10)))
    holes = np.random.default_rng(0).random((128, 128))
    holes[3, 3] = np.nan
    cases[2] = replace(cases[2], image=ArrayImage(holes))
    found = _find(cases)
    kinds = [(f.kind, f.case_id) for f in found]
    assert kinds == [("unreadable_image", "c00"), ("size_mismatch", "c01"), ("non_finite_pixels", "c02")]
    assert _find(cases, read_images=False) == ()


def test_notes_about_the_whole_set() -> None:
    cases = _cases(4)
    cases[0] = replace(cases[0], frame=Frame((128, 128)))
    cases[1] = replace(cases[1], landmarks=None)
    found = find_problems(Dataset("rings", SCHEMA, tuple(cases), problems=("row 3 was left out",)))
    assert [f.kind for f in found] == ["left_out", "no_labels", "no_spacing"]
    assert {f.severity for f in found} == {"note"}
    assert found[2].to_dict()["sentence"].startswith("1 of 4")


@pytest.mark.data
def test_patients_published_twice_are_found(data_root: Path) -> None:
    """Four subjects of the public lumbar MRI set have the slice of another one."""
    from bregma.datasets import read_dataset

    found = find_problems(read_dataset(data_root / "spine_mri"))
    twins = [f.case_id for f in found if f.kind == "duplicate_image"]
    images = [(data_root / "spine_mri" / "midsagittal" / f"{name}.png") for name in twins]
    assert len(twins) == 4
    for image in (i for i in images if i.exists()):
        same = [other for other in image.parent.glob("*.png") if other.read_bytes() == image.read_bytes()]
        assert len(same) == 2


def test_quantities_that_contradict_each_other_or_do_not_differ() -> None:
    schema = schema_from_dict(
        {
            "name": "q",
            "title": "q",
            "landmarks": [],
            "quantities": [{"name": name, "label": name, "unit": "1", "source": "test"} for name in ("bmd", "age")],
        },
        where="tests",
    )
    rng = np.random.default_rng(0)

    def case(number: int, subject: str, **targets: float) -> Case:
        pixels = rng.uniform(0, 255, (64, 64)).astype(np.uint8)
        return Case(f"c{number}", subject, ArrayImage(pixels), Frame((64, 64), (1.0, 1.0), "user"), targets=targets)

    cases = (
        case(0, "a", bmd=1.0, age=50),
        case(1, "a", bmd=1.5, age=50),
        case(2, "b", bmd=2.0, age=50),
        case(3, "b", bmd=2.0),
        case(4, "c"),
    )
    found = find_problems(Dataset("q", schema, cases))
    assert [(f.kind, f.case_id) for f in found] == [
        ("constant_target", None),
        ("conflicting_targets", "c0"),
        ("no_labels", None),
    ]
    assert found[0].sentence == "All 2 subjects have the same age, 50."
    assert found[1].sentence == "1 subject has images with different values of bmd, such as a: 1 (c0), 1.5 (c1)."
    assert found[2].sentence == "1 of 5 images have no labels."
