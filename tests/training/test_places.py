"""The places of a chain's levels: learned from the labels of the training part, or not at all."""

from dataclasses import replace

import numpy as np
import pytest

from bregma.data.fingerprint import fingerprint
from bregma.geometry import Array
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.training.places import with_places
from bregma.training.plan import Planned, make_plan
from bregma.types import ArrayImage, Case, Dataset, Frame, LandmarkSet, Status

HEIGHT, WIDTH, LEVELS = 300, 200, 6


def schema_of(flip: str = "swap", **chain: object) -> LandmarkSchema:
    parts = {"left": "left", "right": "right"}
    column = {"name": "column", "levels": [f"V{i}" for i in range(LEVELS)], "parts": parts, **chain}
    swaps = {"mirror_pairs": [[f"V{i}_left", f"V{i}_right"] for i in range(LEVELS)]} if flip == "swap" else {}
    return schema_from_dict({"name": "trial", "title": "Trial", "flip": flip, **swaps, "chains": [column]}, where="t")


def cases(schema: LandmarkSchema, count: int = 40, *, lying: bool = False) -> tuple[Case, ...]:
    """Columns down the image, all moved up or down by up to a tenth of it."""
    return tuple(_case(schema, i, lying) for i in range(count))


def _case(schema: LandmarkSchema, number: int, lying: bool) -> Case:
    moved = np.random.default_rng(number).normal(0, 0.03)
    shape = (WIDTH, HEIGHT) if lying else (HEIGHT, WIDTH)
    share = 0.15 + 0.14 * np.arange(LEVELS) + moved
    points: Array = np.array([(x, HEIGHT * y) for y in share for x in (90.0, 110.0)])
    marks = LandmarkSet(points[:, ::-1] if lying else points, np.full(len(schema), Status.VISIBLE))
    return Case(f"c{number}", f"s{number}", ArrayImage(np.zeros(shape, np.uint8)), Frame(shape), marks)


def planned(schema: LandmarkSchema, own: tuple[Case, ...], **codec: object) -> Planned:
    recipe = {"model": {"codec": {"name": "chain", **codec}, "preprocess": {"size": [256, 256]}}}
    data = Dataset("trial", schema, own)
    return with_places(make_plan(fingerprint(data, sample=0), schema, len(own), recipe=recipe), schema, own)


def test_they_are_shares_of_the_image() -> None:
    schema = schema_of()
    plan = planned(schema, cases(schema))
    found = plan.plan.model.codec.to_dict()["places"]
    assert found["axis"] == "y"
    assert found["mean"] == pytest.approx(0.15 + 0.14 * np.arange(LEVELS), abs=0.02)
    assert found["sd"] == pytest.approx([0.03] * LEVELS, abs=0.012)
    assert plan.rows()["model.codec.places.mean"]["reason"].endswith("over 40 training images that are labelled whole")
    wide = tuple(replace(case, frame=Frame((HEIGHT, 2 * HEIGHT))) for case in cases(schema))
    assert planned(schema, wide).plan.model.codec.to_dict()["places"] == found


def test_of_a_chain_that_lies_only_where_no_mirror_turns_it_round() -> None:
    schema = schema_of(flip="never")
    assert planned(schema, cases(schema, lying=True)).plan.model.codec.to_dict()["places"]["axis"] == "x"
    schema = schema_of()
    assert planned(schema, cases(schema, lying=True)).plan.model.codec.to_dict()["places"] is None


def test_images_with_a_gap_do_not_count_and_too_few_tell_nothing() -> None:
    schema = schema_of()
    own = cases(schema, 30)
    marks = own[0].landmarks
    assert marks is not None
    status = marks.status.copy()
    status[0] = Status.UNLABELLED
    gaps = tuple(replace(case, landmarks=LandmarkSet(case.landmarks.points, status)) for case in own[:11])  # type: ignore[union-attr]
    assert planned(schema, (*gaps, *own[11:])).plan.model.codec.to_dict()["places"] is None
    assert "over 20 training" in planned(schema, (*gaps[:10], *own[10:])).reasons["model.codec.places.sd"]


def test_asked_not_to_or_given_they_are_not_learned() -> None:
    schema = schema_of()
    assert planned(schema, cases(schema), by_place=False).plan.model.codec.to_dict()["places"] is None
    given = {"axis": "y", "mean": [0.1 * i for i in range(LEVELS)], "sd": [0.1] * LEVELS}
    assert planned(schema, cases(schema), places=given).plan.model.codec.to_dict()["places"]["sd"] == [0.1] * LEVELS


def test_a_chain_of_which_an_image_may_show_a_part_has_none() -> None:
    schema = schema_of(optional=["V0"])
    assert planned(schema, cases(schema)).plan.model.codec.to_dict()["places"] is None
