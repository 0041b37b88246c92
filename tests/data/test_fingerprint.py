"""A hand-made dataset whose numbers can be worked out on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bregma.config import validate
from bregma.data.fingerprint import Fingerprint, fingerprint
from bregma.errors import LabelError
from bregma.geometry import Frame
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case, Dataset, LandmarkSet, Status

SCHEMA = schema_from_dict(
    {
        "name": "trio",
        "title": "Trio",
        "landmarks": [{"name": n, "label": n.upper()} for n in "abc"],
        "exchangeable": [["b", "c"]],
    },
    where="test",
)


def _dataset() -> Dataset:
    small = np.arange(128 * 64, dtype=np.uint16).reshape(128, 64) % 1000
    large = np.full((256, 512), 4095, dtype=np.uint16)
    tall = Frame((128, 64), (0.2, 0.4), "nifti")
    first = LandmarkSet([[10, 20], [40, 60], [10, 80]])
    second = LandmarkSet([[100, 100], [520, 100], [0, 0]], [Status.VISIBLE, Status.OCCLUDED, Status.OUTSIDE])
    return Dataset(
        "two",
        SCHEMA,
        (
            Case("1", "p", ArrayImage(small), tall, first, tags={"sex": "F", "age": 30}),
            Case("2", "p", ArrayImage(large), Frame((256, 512)), second, tags={"sex": "M", "age": 50}),
            Case("3", "q", ArrayImage(small), Frame((128, 64), (0.3, 0.3), "user")),
        ),
    )


@pytest.fixture(scope="module")
def found() -> Fingerprint:
    return fingerprint(_dataset())


def test_counts_and_sizes(found: Fingerprint) -> None:
    assert (found.images, found.labelled, found.subjects) == (3, 2, 2)
    assert found.images_per_subject.to_dict() == {"min": 1, "median": 1.5, "max": 2}
    assert found.height.to_dict() == {"min": 128, "median": 128, "max": 256}
    assert found.long_side.max == 512
    assert found.aspect.to_dict() == {"min": 0.5, "median": 0.5, "max": 2}
    assert found.exchangeable == (("b", "c"),)


def test_spacing(found: Fingerprint) -> None:
    assert found.spacing.known == 2
    assert found.spacing.sources == {"nifti": 1, "none": 1, "user": 1}
    assert found.spacing.anisotropic == 1
    assert found.spacing.mm is not None
    assert found.spacing.mm.median == pytest.approx(0.3)


def test_pixels(found: Fingerprint) -> None:
    assert found.pixels is not None
    assert found.pixels.types == {"uint16": 3}
    assert found.pixels.bits == 12  # 4095
    assert found.pixels.percentiles["99.5"] == 4095
    assert fingerprint(_dataset(), sample=0).pixels is None
    one = fingerprint(_dataset(), sample=1).pixels
    assert one is not None
    assert one.images == 1


def test_landmarks(found: Fingerprint) -> None:
    a, b, c = found.landmarks
    assert (a.visible, a.off_image) == (2, 0)
    assert (b.visible, b.occluded, b.off_image) == (1, 1, 1)
    assert (c.visible, c.outside, c.unlabelled) == (1, 1, 0)
    # In the 256 px frame a is at (20, 40) and (50, 50): 15 and 5 from the mean.
    assert a.spread_256 == pytest.approx(math.hypot(15, 5))
    assert a.mean == pytest.approx(((10 / 64 + 100 / 512) / 2, (20 / 128 + 100 / 256) / 2))
    # Neighbours of a: b at (80, 120) is 100 away in the first image, b at (260, 50) is 210 away in the second.
    assert a.nearest_256 == pytest.approx((100 + 210) / 2)
    assert c.nearest_256 == pytest.approx(math.hypot(60, 40))


def test_shape_of_an_image(found: Fingerprint) -> None:
    assert found.labelled_landmarks is not None
    assert found.labelled_landmarks.to_dict() == {"min": 2, "median": 2.5, "max": 3}
    assert found.extent is not None
    assert found.extent.to_dict() == pytest.approx(
        {"min": 60 / 128, "median": (60 / 128 + 420 / 512) / 2, "max": 420 / 512}
    )
    assert found.shortest_256 is not None
    assert found.shortest_256.min == pytest.approx(math.hypot(60, 40))
    assert found.shortest_256.max == pytest.approx(210)


def test_tags(found: Fingerprint) -> None:
    assert found.tags["sex"] == {"F": 1, "M": 1}
    assert found.numeric_tags["age"].to_dict() == {"min": 30, "median": 40, "max": 50}
    assert "sex" not in found.numeric_tags


def test_json_round_trip(found: Fingerprint) -> None:
    assert validate(Fingerprint, found.to_dict(), where="fingerprint.json") == found


def test_a_dataset_without_labels_is_described_too() -> None:
    bare = Dataset("bare", SCHEMA, _dataset().cases[2:])
    described = fingerprint(bare)
    assert described.labelled == 0
    assert described.shortest_256 is None
    assert described.landmarks[0].mean is None


def test_no_cases_is_an_error() -> None:
    with pytest.raises(LabelError, match="no cases"):
        fingerprint(Dataset("none", SCHEMA, ()))
