"""The lateral radiograph: truth, field of view, facing, and what the nuisances do."""

import cv2
import numpy as np
import pytest

from bregma.errors import ConfigError
from bregma.phantoms import iter_phantoms, make_phantoms, phantom_settings
from bregma.phantoms.lumbar_lateral import FOV_MM, NUISANCE, LateralNuisance, LumbarLateralSettings
from bregma.phantoms.slip import PAIRS, SlipSettings
from bregma.schema import load_schema
from bregma.types import Status

SCHEMA = load_schema("lumbar_lateral")
CLEAN = LateralNuisance(
    photons=1e9,
    scatter=0.0,
    gas=0.0,
    clutter=0.0,
    tilt_mm=0.0,
    grid_probability=0.0,
    collimation_probability=0.0,
    marker_probability=0.0,
    exposure=0.0,
)


def points_of(case, *names):
    return [case.landmarks.points[SCHEMA.index(name)] for name in names]


def slip_by_hand(case, upper, lower):
    slipped, anterior, posterior = points_of(case, f"{upper}_inf_post", f"{lower}_sup_ant", f"{lower}_sup_post")
    axis = anterior - posterior
    return 100 * (slipped - posterior) @ axis / (axis @ axis)


def test_slip_between_the_landmarks_is_the_target():
    for case in iter_phantoms("lumbar_lateral", 12, seed=1, size=128, settings=LumbarLateralSettings(fov="wild")):
        values = []
        for pair in PAIRS:
            upper, lower = pair.split("-")
            names = (f"{upper}_inf_post", f"{lower}_sup_ant", f"{lower}_sup_post")
            values.append(case.targets[f"slip_percent_{pair}"])
            if all(case.landmarks.status[SCHEMA.index(name)] == Status.VISIBLE for name in names):
                assert slip_by_hand(case, upper, lower) == pytest.approx(values[-1], abs=1e-6)
        assert case.targets["slip_percent_max"] == max(values, key=abs)
        grade = sum(abs(case.targets["slip_percent_max"]) >= edge for edge in (5, 25, 50, 75, 100))
        assert case.targets["meyerding_grade"] == grade
        assert (case.tags["slipped_level"] == "none") == (grade == 0)


def test_lordosis_between_the_landmarks_is_the_target():
    for case in iter_phantoms("lumbar_lateral", 6, seed=2, size=128):
        l1a, l1p, s1a, s1p = points_of(case, "L1_sup_ant", "L1_sup_post", "S1_sup_ant", "S1_sup_post")
        upper, lower = l1a - l1p, s1a - s1p
        cosine = upper @ lower / np.hypot(*upper) / np.hypot(*lower)
        assert np.degrees(np.arccos(cosine)) == pytest.approx(case.targets["lumbar_lordosis"], abs=1e-6)


@pytest.mark.parametrize("facing", ["left", "right"])
def test_bodies_are_brighter_than_what_surrounds_their_corners(facing):
    settings = LumbarLateralSettings(nuisance=CLEAN, facing=facing)
    for case in iter_phantoms("lumbar_lateral", 3, seed=8, settings=settings):
        image = cv2.GaussianBlur(case.image.load().astype(np.float32), (0, 0), 0.8)
        assert case.tags["facing"] == facing
        anterior, posterior = points_of(case, "L3_sup_ant", "L3_sup_post")
        assert (anterior[0] < posterior[0]) == (facing == "left")
        for level in ("L1", "L2", "L3", "L4", "L5"):
            quad = np.array(points_of(case, *(f"{level}_{p}" for p in ("sup_ant", "sup_post", "inf_ant", "inf_post"))))
            for end, other in ((0, 2), (2, 0)):
                wall = (quad[end] - quad[other]) / np.hypot(*(quad[end] - quad[other]))
                inward = 0.15 * (quad[end + 1] - quad[end])
                spots = np.array([quad[end] + inward - 4 * wall, quad[end] + inward + 2.5 * wall], np.float32)
                inside, outside = cv2.remap(image, spots[:, :1], spots[:, 1:], cv2.INTER_LINEAR).ravel()
                assert inside > outside + 10


def test_sacrum_stays_in_view_and_the_top_may_leave_it():
    settings = LumbarLateralSettings(fov="wild", size=(96, 64))
    cut = {"T12_sup_ant": 0, "L5_sup_ant": 0}
    for case in iter_phantoms("lumbar_lateral", 50, seed=3, settings=settings):
        status = dict(zip(SCHEMA.names, case.landmarks.status, strict=True))
        ends = np.array(points_of(case, "S1_sup_ant", "S1_sup_post"))
        assert status["S1_sup_ant"] == status["S1_sup_post"] == Status.VISIBLE
        assert (ends > 0.035 * np.array([64, 96])).all()
        assert (ends < 0.965 * np.array([64, 96])).all()
        for name in cut:
            cut[name] += status[name] == Status.OUTSIDE
    assert cut["T12_sup_ant"] > 6
    assert cut["L5_sup_ant"] == 0


@pytest.mark.parametrize("fov", ["fixed", "varying", "wild", "partial"])
def test_spacing_follows_the_field_of_view(fov):
    settings = LumbarLateralSettings(fov=fov, size=128)
    spacings = [case.frame.spacing for case in iter_phantoms("lumbar_lateral", 12, seed=4, settings=settings)]
    low, high = FOV_MM[fov]
    assert all(x == y and low / 128 <= x <= high / 128 for x, y in spacings)
    assert len(set(spacings)) == (1 if fov == "fixed" else 12)


def test_a_partial_view_ends_above_any_vertebra():
    settings = LumbarLateralSettings(fov="partial", size=64)
    topmost = set()
    for case in iter_phantoms("lumbar_lateral", 40, seed=7, settings=settings):
        whole = [
            level
            for level in ("T12", "L1", "L2", "L3", "L4")
            if case.landmarks.labelled[[SCHEMA.index(f"{level}_{part}") for part in ("sup_ant", "sup_post")]].all()
        ]
        topmost.add(whole[0] if whole else "L5")
        assert case.landmarks.labelled[[SCHEMA.index("S1_sup_ant"), SCHEMA.index("S1_sup_post")]].all()
    assert {"T12", "L1", "L2", "L3"} <= topmost


def test_landmarks_scale_with_the_given_spacing():
    def width_mm(spacing):
        case = make_phantoms("lumbar_lateral", 1, seed=5, size=256, spacing=spacing).cases[0]
        a, b = points_of(case, "L4_inf_ant", "L4_inf_post")
        return np.hypot(*case.frame.to_mm(a - b))

    assert width_mm(1.1) == pytest.approx(width_mm(1.3), rel=1e-9)


def test_two_exposures_of_one_patient_have_one_anatomy():
    first, second = make_phantoms("lumbar_lateral", 2, seed=6, size=256, images_per_subject=2).cases
    lengths = []
    for case in (first, second):
        a, b = points_of(case, "L3_sup_ant", "L3_sup_post")
        lengths.append(np.hypot(*case.frame.to_mm(a - b)))
    assert first.frame.spacing != second.frame.spacing
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-9)


def test_collimation_never_hides_a_corner():
    shutters = LateralNuisance(collimation_probability=1.0, marker_probability=0.0)
    for case in iter_phantoms("lumbar_lateral", 8, seed=7, size=128, settings=LumbarLateralSettings(nuisance=shutters)):
        image = case.image.load()
        assert (image == 0).mean() > 0.02
        places = np.round(case.landmarks.points[case.landmarks.labelled]).astype(int)
        assert all(image[min(y, 127), min(x, 127)] > 0 for x, y in places)


def test_fewer_quanta_are_noisier():
    def roughness(photons):
        settings = LumbarLateralSettings(nuisance=CLEAN.model_copy(update={"photons": photons}), size=128)
        image = make_phantoms("lumbar_lateral", 1, seed=9, settings=settings).cases[0].image.load().astype(float)
        return np.abs(np.diff(image, n=2, axis=1)).mean()

    assert roughness(200.0) > 2 * roughness(1e9)


def test_slip_settings_are_honoured():
    slip = SlipSettings(grade_weights=(0, 0, 1, 0, 0), level_weights={"L3-L4": 1.0}, second_share=0.0)
    for case in iter_phantoms("lumbar_lateral", 5, size=96, settings=LumbarLateralSettings(slip=slip)):
        assert case.tags["slipped_level"] == "L3-L4"
        assert 26.5 <= case.targets["slip_percent_L3-L4"] <= 48.5


def test_difficulty_stands_for_a_nuisance_that_can_be_replaced():
    assert phantom_settings("lumbar_lateral").resolved_nuisance == LateralNuisance() == NUISANCE["medium"]
    assert phantom_settings("lumbar_lateral", difficulty="hard").resolved_nuisance == NUISANCE["hard"]
    assert phantom_settings("lumbar_lateral", LumbarLateralSettings(nuisance=CLEAN)).resolved_nuisance == CLEAN
    with pytest.raises(ConfigError, match="fov"):
        phantom_settings("lumbar_lateral", LumbarLateralSettings().model_copy(update={"fov": "tiny"}))
