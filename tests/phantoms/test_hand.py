"""The hand: its points against single rendered bones."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from bregma import geometry
from bregma.phantoms import make_phantoms
from bregma.phantoms.base import phantom_rngs
from bregma.phantoms.hand import HandSettings, HandView, _add_carpal, _add_forearm, _add_tubular, draw_hand
from bregma.phantoms.hand_anatomy import FINGERS, hand_points, pose_hand, sample_build
from bregma.schema import load_schema

SPACING = 0.25
TURN = geometry.rotate(11.0)
VIEW = HandView(
    geometry.compose(TURN, geometry.scale(1 / SPACING), geometry.translate(400.3, 850.6)), SPACING, (1000, 900)
)


def hand(number=0, age=14.0):
    rng = np.random.default_rng(number)
    return pose_hand(sample_build(age, rng), 4.0, rng)


def bone_pixels(draw, *arguments):
    """Centres ``(N, 2)`` in mm in the hand's frame of the pixels that one bone covers."""
    canvas = np.zeros(VIEW.shape, dtype=np.float32)
    draw(canvas, VIEW, *arguments)
    rows, columns = np.nonzero(canvas > 1e-4)
    return geometry.apply(geometry.invert(VIEW.to_px), np.stack([columns, rows], axis=1))


@pytest.mark.parametrize("finger", FINGERS)
def test_ends_of_the_tubular_bones(finger):
    person = hand()
    points = hand_points(person)
    number = FINGERS.index(finger) + 1
    joints = (
        [f"{finger}_mcp", f"{finger}_ip"] if finger == "thumb" else [f"{finger}_{n}" for n in ("mcp", "pip", "dip")]
    )
    bones = [person.metacarpals[finger], *person.phalanges[finger]]
    for name, bone in zip([f"mc{number}_base", *joints], bones, strict=True):
        pixels = bone_pixels(_add_tubular, bone, 0.0)
        along = (pixels - points[name]) @ np.array(bone.axis)
        assert -0.1 * SPACING < along.min() < SPACING, name
        tip = pixels[along > along.max() - 2 * SPACING].mean(axis=0)
        assert np.linalg.norm(tip - bone.head) < 3 * SPACING
    np.testing.assert_allclose(points[f"{finger}_tip"], bones[-1].head)


@pytest.mark.parametrize("number", range(3))
def test_carpal_points_are_nearest_the_elbow(number):
    person = hand(number)
    points = hand_points(person)
    for name, bone in person.carpals.items():
        if name == "pisiform":
            continue
        pixels = bone_pixels(_add_carpal, bone)
        assert abs(pixels[:, 1].max() - points[f"{name}_proximal"][1]) < SPACING, name
        lowest = pixels[pixels[:, 1] > pixels[:, 1].max() - SPACING]
        assert abs(lowest[:, 0].mean() - points[f"{name}_proximal"][0]) < 3 * SPACING, name


def test_forearm_points_lie_on_the_widest_section_and_at_the_styloids():
    person = hand()
    points = hand_points(person)
    for name, bone in (("radius", person.radius), ("ulna", person.ulna)):
        pixels = bone_pixels(_add_forearm, bone, 0.0)
        left, right = points[f"{name}_metaphysis_ulnar"], points[f"{name}_metaphysis_radial"]
        assert abs(pixels[:, 0].min() - left[0]) < SPACING
        assert abs(pixels[:, 0].max() - right[0]) < SPACING
        widest = pixels[pixels[:, 0] > pixels[:, 0].max() - 0.2 * SPACING]
        assert abs(np.median(widest[:, 1]) - right[1]) < 1.5
    ulna = bone_pixels(_add_forearm, person.ulna, 0.0)
    highest = ulna[ulna[:, 1].argmin()]
    assert np.linalg.norm(highest - points["ulna_styloid"]) < 3 * SPACING
    radius = bone_pixels(_add_forearm, person.radius, 0.0)
    edge = radius[radius[:, 0] > points["radius_styloid"][0] - 2.0]
    assert abs(edge[:, 1].min() - points["radius_styloid"][1]) < 1.5


def test_growth_plates_darken_the_bone_and_close():
    person = hand(age=9.0)
    assert person.plates > 0.5
    assert hand(age=18.0).plates == 0.0
    bone = person.phalanges["middle"][0]
    opened, closed = (np.zeros(VIEW.shape, dtype=np.float32) for _ in range(2))
    _add_tubular(opened, VIEW, bone, person.plates)
    _add_tubular(closed, VIEW, bone, 0.0)
    seat = 0.62 * bone.widths[0]
    x, y = np.round(geometry.apply(VIEW.to_px, bone.along(min(seat, 0.14 * bone.length)))).astype(int)
    assert opened[y, x] < 0.5 * closed[y, x]


def test_image_points_follow_the_view_and_cover_the_schema():
    phantom = draw_hand(HandSettings(), *phantom_rngs("hand", 0, 0))
    assert set(phantom.points) == set(load_schema("hand").names)


def test_wrist_width_by_hand_from_the_points():
    schema = load_schema("hand")
    for case in make_phantoms("hand", 5, size=128):
        p = case.landmarks.points
        first, last = p[schema.index("ulna_metaphysis_ulnar")], p[schema.index("radius_metaphysis_radial")]
        width = np.linalg.norm((last - first) * case.frame.spacing)
        assert width == pytest.approx(case.targets["wrist_width_mm"], abs=1e-9)


def test_age_and_size_stay_in_their_declared_ranges():
    ages = [case.targets["age_years"] for case in make_phantoms("hand", 25, size=64)]
    assert 7 <= min(ages) < 10
    assert 16 < max(ages) <= 19
    adult, child = (np.mean([sample_build(age, np.random.default_rng(k)).scale for k in range(40)]) for age in (19, 7))
    assert adult == pytest.approx(1.0, abs=0.03)
    assert child < 0.8
    with pytest.raises(ValidationError, match="ages from 7"):
        HandSettings(age_years=(3.0, 5.0))


@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
def test_whole_hand_lies_on_the_image(level):
    for case in make_phantoms("hand", 10, seed=3, size=(128, 96), difficulty=level):
        assert case.landmarks.labelled.all()


def test_thumb_tells_the_side():
    schema = load_schema("hand")
    thumb, little = schema.index("thumb_tip"), schema.index("little_tip")
    for side, sign in (("left", 1), ("right", -1)):
        case = make_phantoms("hand", 1, settings=HandSettings(size=(128, 96), side=side)).cases[0]
        assert case.tags["side"] == side
        assert sign * (case.landmarks.points[thumb, 0] - case.landmarks.points[little, 0]) > 0
        assert case.landmarks.labelled.all()
    sides = {
        case.tags["side"] for case in make_phantoms("hand", 12, settings=HandSettings(size=(64, 64), side="either"))
    }
    assert sides == {"left", "right"}


def test_fingers_spread_but_bones_keep_their_length():
    schema = load_schema("hand")
    first, second = make_phantoms("hand", 2, size=128, images_per_subject=2, difficulty="hard").cases
    a, b = schema.index("middle_mcp"), schema.index("middle_pip")
    lengths = [
        np.linalg.norm(c.landmarks.points[b] - c.landmarks.points[a]) * c.frame.spacing[0] for c in (first, second)
    ]
    assert lengths[0] == pytest.approx(lengths[1], abs=1e-9)


def test_bones_are_brighter_than_flesh_and_flesh_than_air():
    clean = HandSettings().resolved_nuisance.model_copy(update={"photons": 1e9, "clutter": 0.0, "scatter": 0.0})
    phantom = draw_hand(HandSettings(nuisance=replace_rotation(clean)), *phantom_rngs("hand", 0, 1))
    x, y = np.mean([phantom.points["middle_pip"], phantom.points["middle_dip"]], axis=0)
    row = phantom.pixels[round(y)].astype(int)
    bone = row[round(x) - 2 : round(x) + 3].mean()
    assert bone > row[0] + 60
    assert phantom.pixels[5, 5] < 0.6 * bone


def replace_rotation(nuisance):
    return nuisance.model_copy(update={"rotation_deg": 0.0, "exposure": 0.0})


def test_view_is_where_the_points_are_drawn():
    """Removing a bone changes the image around its landmark and nowhere far from it."""
    person = hand(2)
    slim = replace(person.phalanges["index"][2], widths=(0.1, 0.1, 0.1))
    with_bone, without = (np.zeros(VIEW.shape, dtype=np.float32) for _ in range(2))
    for canvas, bone in ((with_bone, person.phalanges["index"][2]), (without, slim)):
        _add_tubular(canvas, VIEW, bone, 0.0)
    rows, columns = np.nonzero(with_bone - without > 1e-3)
    tip = geometry.apply(VIEW.to_px, hand_points(person)["index_tip"])
    assert np.hypot(columns - tip[0], rows - tip[1]).min() < 1.5
    assert np.hypot(columns - tip[0], rows - tip[1]).max() * SPACING < 1.1 * person.phalanges["index"][2].length + 6
