"""The lumbar MRI: its density model against regression, and its picture against its truth."""

import cv2
import numpy as np
import pytest

from bregma import geometry
from bregma.phantoms import iter_phantoms, make_phantoms
from bregma.phantoms.bone_density import DensitySettings, best_r2, sample_marrow
from bregma.phantoms.lumbar_mri import LumbarMRISettings, MRINuisance, best_r2_of, make_volume
from bregma.phantoms.spine import build_spine, sample_spine
from bregma.phantoms.spine_mri import Habitus, marrow_signal, paint_slice
from bregma.schema import load_schema

SCHEMA = load_schema("lumbar_mri")
HABITUS = Habitus(front=110, behind=76, fat_behind=12, fat_front=15, canal=16, visceral_fat=0.4)


def regression_r2(columns, target):
    design = np.column_stack([np.ones(len(target)), *columns])
    left = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return 1 - left.var() / target.var()


@pytest.mark.parametrize("settings", [DensitySettings(), DensitySettings(spread=0.06, level_spread=0.03)])
def test_ceiling_is_what_regression_reaches(settings):
    rng = np.random.default_rng(0)
    patients = [sample_marrow(rng, settings) for _ in range(20000)]
    density = np.array([p.density for p in patients])
    age = np.array([p.age for p in patients])
    fat = np.array([np.mean(list(p.fat.values())) for p in patients])
    assert regression_r2([fat], density) == pytest.approx(best_r2(settings), abs=0.012)
    assert regression_r2([fat, age], density) == pytest.approx(best_r2(settings, age_known=True), abs=0.012)
    assert density.mean() == pytest.approx(120, abs=1)
    assert np.corrcoef(density, age)[0, 1] == pytest.approx(-0.55, abs=0.02)


def test_ceiling_by_hand():
    # slope -0.07 - 0.55 * 0.035 = -0.08925; age part 0.035^2 (1 - 0.3025); noise 0.03^2 + 0.012^2 / 5.
    signal, age, noise = 0.08925**2, 0.035**2 * 0.6975, 0.03**2 + 0.012**2 / 5
    assert best_r2(DensitySettings()) == pytest.approx(signal / (signal + age + noise), rel=1e-12)
    assert best_r2(DensitySettings(spread=0.0, level_spread=0.0), age_known=True) == 1.0


def test_harder_means_a_lower_ceiling():
    ceilings = [best_r2_of(LumbarMRISettings(difficulty=level)) for level in ("easy", "medium", "hard")]
    assert ceilings == sorted(ceilings, reverse=True)
    assert 0.5 < ceilings[2] < ceilings[0] < 0.95


def test_slice_is_the_middle_of_its_volume():
    settings = LumbarMRISettings(size=96, slices=5)
    case = make_phantoms("lumbar_mri", 1, seed=4, start=7, settings=settings).cases[0]
    volume = make_volume(7, seed=4, settings=settings)
    assert volume.array.shape == (5, 96, 96)
    assert volume.spacing == (4.0, *case.frame.spacing)
    assert np.array_equal(volume.array[volume.middle], case.image.load())
    assert not np.array_equal(volume.array[0], volume.array[4])
    assert volume.phantom.targets == case.targets


def straight_spine():
    rng = np.random.default_rng(1)
    return build_spine(sample_spine(rng, {}))


def test_marrow_has_the_signal_of_its_fat_and_lies_between_the_corners():
    fat = {"L1": 0.2, "L2": 0.3, "L3": 0.4, "L4": 0.5, "L5": 0.7}
    spine = straight_spine()
    to_px = geometry.compose(geometry.scale(2.0), geometry.translate(300, 450))
    draws = [paint_slice(np.random.default_rng(s), (520, 360), spine, HABITUS, fat, to_px, 0.0) for s in range(8)]
    image = np.mean(draws, axis=0)
    for level, share in fat.items():
        quad = geometry.apply(to_px, spine.bodies[level])
        front = 0.75 * (quad[0] + quad[2]) / 2 + 0.25 * (quad[1] + quad[3]) / 2
        x, y = np.round(front).astype(int)
        patch = image[y - 12 : y + 13, x - 8 : x + 9]
        assert patch.mean() == pytest.approx((1 - share) * 0.26 + share * 1.0, rel=0.025)
    assert marrow_signal(0.5) == pytest.approx(0.63)


def test_dark_rim_lies_just_inside_the_truth():
    spine = straight_spine()
    to_px = geometry.compose(geometry.scale(6.0), geometry.translate(300, 1000))
    image = paint_slice(np.random.default_rng(2), (700, 420), spine, HABITUS, {"L1": 0.6, "L5": 0.6}, to_px, 0.0)
    sup_ant, sup_post, inf_ant, inf_post = geometry.apply(to_px, spine.bodies["L3"])
    down = (inf_ant + inf_post - sup_ant - sup_post) / 2
    down /= np.hypot(*down)
    steps = np.arange(-30, 60, 0.5)
    spots = ((sup_ant + sup_post) / 2 + steps[:, None] * down).astype(np.float32)
    profile = cv2.remap(image, spots[:, :1], spots[:, 1:], cv2.INTER_LINEAR).ravel()
    # The endplate is hollowed by 1.5 mm in its middle and its rim is 0.9 mm thick: 1.5 to 2.4 mm, at 6 px per mm.
    # Rim 0.07, marrow 0.4 * 0.26 + 0.6 = 0.704: the rim ends where the signal passes 0.387.
    starts = steps[np.argmax(profile < 0.12)]
    ends = steps[np.argmax((steps > starts) & (profile > 0.387))]
    assert starts == pytest.approx(9.0, abs=0.8)
    assert ends == pytest.approx(14.4, abs=0.5)


def test_slip_between_the_landmarks_is_the_target():
    for case in iter_phantoms("lumbar_mri", 5, seed=3, size=128):
        for upper, lower in (("L1", "L2"), ("L2", "L3"), ("L3", "L4"), ("L4", "L5")):
            names = (f"{upper}_inf_post", f"{lower}_sup_ant", f"{lower}_sup_post")
            slipped, anterior, posterior = (case.landmarks.points[SCHEMA.index(name)] for name in names)
            axis = anterior - posterior
            by_hand = 100 * (slipped - posterior) @ axis / (axis @ axis)
            assert by_hand == pytest.approx(case.targets[f"slip_percent_{upper}-{lower}"], abs=1e-6)


def test_all_lumbar_corners_are_in_view_by_default():
    for case in iter_phantoms("lumbar_mri", 25, seed=5, size=64):
        assert case.landmarks.labelled.all()
        assert (
            case.landmarks.points[SCHEMA.index("L3_sup_ant"), 0] < case.landmarks.points[SCHEMA.index("L3_sup_post"), 0]
        )


def test_gain_hides_the_absolute_signal_but_not_the_ratio_to_disc_and_fat():
    quiet = LumbarMRISettings(nuisance=MRINuisance(noise=0.0, shading=0.0, blur_px=0.0, offset_mm=0.0), size=192)
    level, ratio, fat = [], [], []
    for case in iter_phantoms("lumbar_mri", 24, seed=6, settings=quiet):
        image = case.image.load().astype(float)
        marrow = []
        for name in ("L1", "L2", "L3", "L4", "L5"):
            parts = ("sup_ant", "sup_post", "inf_ant", "inf_post")
            quad = np.array([case.landmarks.points[SCHEMA.index(f"{name}_{part}")] for part in parts])
            x, y = np.round(0.35 * (quad[0] + quad[2]) + 0.15 * (quad[1] + quad[3])).astype(int)
            marrow.append(image[y - 3 : y + 4, x - 3 : x + 4].mean())
        level.append(np.mean(marrow))
        ratio.append(np.mean(marrow) / np.percentile(image, 99))
        fat.append(case.targets["marrow_fat"])
    assert np.corrcoef(ratio, fat)[0, 1] > 0.95
    assert np.corrcoef(level, fat)[0, 1] < 0.9
