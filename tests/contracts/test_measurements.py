"""Every measurement of every shipped anatomy against a value worked out by hand from landmarks placed by hand."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from bregma.geometry import Frame
from bregma.measurement import check_measurements, measure
from bregma.schema import LandmarkSchema, builtin_schemas, load_schema
from bregma.types import Measurement

Place = tuple[str, str | None]
Points = dict[str, tuple[float, float]]

T345 = math.degrees(math.atan2(3, 4))  # 36.87 degrees, the smaller angle of the 3-4-5 triangle
T14 = math.degrees(math.atan2(1, 4))  # 14.04 degrees: a line that falls 10 px over 40 px


def normal_percent(score: float) -> float:
    """Return the share of a normal distribution below a score, in percent."""
    return 50 * (1 + math.erf(score / math.sqrt(2)))


# Fetal head, 0.5 mm a pixel: OFD (80, 60) px = 100 px, BPD (48, -64) px = 80 px.
FETAL_POINTS: Points = {"ofd_1": (0, 0), "ofd_2": (80, 60), "bpd_1": (10, 70), "bpd_2": (58, 6)}
HC = 141.80833944487  # the perimeter of semi-axes 25 and 20 mm is 100 E(0.36) mm, E the complete elliptic integral
BPD_OUTER_INNER = -0.403458 + 0.9714153 * 40.0
# Mean and standard deviation of each chart at 18 weeks: 18² = 324, 18³ = 5832, ln 18 = 2.8903718.
FETAL: dict[Place, float] = {
    ("ofd", None): 50.0,
    ("bpd", None): 40.0,
    ("cephalic_index", None): 80.0,
    ("hc", None): HC,
    ("ga_hc_hadlock", None): 8.96 + 0.0540 * HC + 0.0000003 * HC**3,  # 17.47 weeks
    ("ga_hc_intergrowth", None): math.exp(0.05970 * math.log(HC) ** 2 + 6.409e-9 * HC**3 + 3.3258) / 7,  # 17.52 weeks
    ("ga_bpd_hadlock", None): 9.54 + 0.1482 * BPD_OUTER_INNER + 0.001676 * BPD_OUTER_INNER**2,  # 17.72 weeks
    ("hc_centile", None): normal_percent((HC - 147.903248507296) / 6.893992429768),  # 18.8
    ("bpd_centile", None): normal_percent((40.0 - 41.96831272) / 2.109954696585),  # 17.5
    ("ofd_centile", None): normal_percent((50.0 - 51.855765431646) / 2.515241404199),  # 23.0
}
GIVEN = {"fetal_head": {"gestational_age_wk": 18.0}}

# Hand, 0.5 mm a pixel: wrist (60, 80) px = 100 px; the thumb runs along (3, -4) / 5, the fingers straight up.
HAND_POINTS: Points = {
    "ulna_metaphysis_ulnar": (0, 1000),
    "radius_metaphysis_radial": (60, 1080),
    "radius_metaphysis_ulnar": (540, 80),  # the middle of the radius is (300, 580), 80 px below the third metacarpal
    "mc1_base": (500, 500),
    "thumb_mcp": (530, 460),
    "thumb_ip": (548, 436),
    "thumb_tip": (560, 420),
    "mc2_base": (400, 500),
    "index_mcp": (400, 440),
    "index_pip": (400, 400),
    "index_dip": (400, 375),
    "index_tip": (400, 360),
    "mc3_base": (300, 500),
    "middle_mcp": (300, 420),
    "middle_pip": (300, 375),
    "middle_dip": (300, 347),
    "middle_tip": (300, 330),
    "mc4_base": (200, 500),
    "ring_mcp": (200, 442),
    "ring_pip": (200, 400),
    "ring_dip": (200, 373),
    "ring_tip": (200, 342),
    "mc5_base": (100, 500),
    "little_mcp": (100, 445),
    "little_pip": (100, 412),
    "little_dip": (100, 392),
    "little_tip": (100, 378),
}
HAND: dict[Place, float] = {
    ("wrist_width", None): 50.0,
    ("mc1_length", None): 25.0,  # (30, -40) px
    ("mc2_length", None): 30.0,
    ("mc3_length", None): 40.0,
    ("mc4_length", None): 29.0,
    ("mc5_length", None): 27.5,
    ("thumb_proximal_length", None): 15.0,  # (18, -24) px
    ("thumb_distal_length", None): 10.0,  # (12, -16) px
    ("index_proximal_length", None): 20.0,
    ("index_middle_length", None): 12.5,
    ("index_distal_length", None): 7.5,
    ("middle_proximal_length", None): 22.5,
    ("middle_middle_length", None): 14.0,
    ("middle_distal_length", None): 8.5,
    ("ring_proximal_length", None): 21.0,
    ("ring_middle_length", None): 13.5,
    ("ring_distal_length", None): 15.5,
    ("little_proximal_length", None): 16.5,
    ("little_middle_length", None): 10.0,
    ("little_distal_length", None): 7.0,
    ("digit_ratio", None): 0.8,  # 440 - 360 = 80 px to 442 - 342 = 100 px
    ("mc3_to_wrist", None): 0.8,  # 80 px to 100 px
    ("carpal_length", None): 40.0,
    ("carpal_length_ratio", None): 4 / 3,  # 80 px to 60 px
    ("mc1_to_mc2", None): 5 / 6,
    ("mc3_to_mc2", None): 4 / 3,
    ("mc4_to_mc2", None): 58 / 60,
    ("mc5_to_mc2", None): 55 / 60,
}

# Chest, 0.5 mm a column and 0.25 mm a row.
CHEST_POINTS: Points = {
    "axis_top": (104, 40),
    "axis_bottom": (104, 240),
    "axis_upper": (104, 90),
    "axis_middle": (104, 140),
    "axis_lower": (104, 190),
    "lung_right_upper": (60, 90),
    "lung_left_upper": (140, 92),
    "lung_right_middle": (40, 140),
    "lung_left_middle": (160, 144),
    "lung_right_lower": (30, 190),
    "lung_left_lower": (170, 190),
    "apex_right": (80, 60),
    "apex_left": (144, 60),
    "costophrenic_right": (20, 220),
    "costophrenic_left": (180, 156),
}
CHEST: dict[Place, float] = {
    ("thoracic_width_upper", None): 40.0,  # 80 columns
    ("thoracic_width_middle", None): 60.0,  # 120 columns
    ("thoracic_width_lower", None): 70.0,  # 140 columns
    ("thoracic_width_base", None): 80.0,  # 160 columns
    ("thoracic_height", None): 50.0,  # 200 rows
    ("lung_height_right", None): 50.0,  # 60 columns = 30 mm, 160 rows = 40 mm
    ("lung_height_left", None): 30.0,  # 36 columns = 18 mm, 96 rows = 24 mm
    ("thoracic_width_to_height", None): 1.4,  # 70 / 50
    ("thoracic_taper", None): 4 / 7,  # 40 / 70
    ("lung_height_ratio", None): 5 / 3,  # 50 / 30
    ("asymmetry_upper", None): -10.0,  # 36 columns left of the axis of the body, 44 right of it
    ("asymmetry_middle", None): -100 / 15,  # 56 and 64
    ("asymmetry_lower", None): -100 * 8 / 140,  # 66 and 74
    ("asymmetry_base", None): -5.0,  # 76 and 84
}
CTR_POINTS: Points = {
    **CHEST_POINTS,
    "heart_right": (85, 150),
    "heart_left": (148, 170),
    "thorax_inner_right": (25, 200),
    "thorax_inner_left": (165, 205),
}
CTR: dict[Place, float] = {
    **CHEST,
    ("cardiac_width", None): 31.5,  # 63 columns
    ("thoracic_width", None): 70.0,  # 140 columns
    ("cardiothoracic_ratio", None): 0.45,  # 63 / 140
}

# Lumbar spine from the side, facing left (anterior at smaller x), 0.5 mm a pixel. Bodies 40 px deep, 30 px high,
# 10 px apart; L4 lies 12 px in front; the upper endplate of T12 falls 10 px and that of S1 30 px towards the front.
LUMBAR_POINTS: Points = {
    "T12_sup_ant": (100, 10),
    "T12_sup_post": (140, 0),
    "T12_inf_ant": (100, 30),
    "T12_inf_post": (140, 30),
    "L1_sup_ant": (100, 40),
    "L1_sup_post": (140, 40),
    "L1_inf_ant": (100, 70),
    "L1_inf_post": (140, 70),
    "L2_sup_ant": (100, 80),
    "L2_sup_post": (140, 80),
    "L2_inf_ant": (100, 110),
    "L2_inf_post": (140, 110),
    "L3_sup_ant": (100, 120),
    "L3_sup_post": (140, 120),
    "L3_inf_ant": (100, 150),
    "L3_inf_post": (140, 150),
    "L4_sup_ant": (88, 160),
    "L4_sup_post": (128, 160),
    "L4_inf_ant": (88, 190),
    "L4_inf_post": (128, 190),
    "L5_sup_ant": (100, 200),
    "L5_sup_post": (140, 200),
    "L5_inf_ant": (100, 230),
    "L5_inf_post": (140, 230),
    "S1_sup_ant": (100, 270),
    "S1_sup_post": (140, 240),
}
STEP = math.sqrt(12**2 + 10**2) / 2  # across the disc above or below L4, in mm
LUMBAR: dict[Place, float] = {
    ("slip_percent", "T12-L1"): 0.0,
    ("slip_percent", "L1-L2"): 0.0,
    ("slip_percent", "L2-L3"): 0.0,
    ("slip_percent", "L3-L4"): -30.0,  # L3 lies 12 px behind the 40 px endplate of L4
    ("slip_percent", "L4-L5"): 30.0,
    # From the back end of the sacral endplate, (-40, 30) / 50, to the corner is (0, -10): -6 px of 50 px.
    ("slip_percent", "L5-S1"): -12.0,
    ("slip_mm", "L3-L4"): -6.0,
    ("slip_mm", "L4-L5"): 6.0,
    ("slip_mm", "L5-S1"): -3.0,
    ("slip_direction", "L3-L4"): -30.0,
    ("slip_direction", "L4-L5"): 30.0,
    ("disc_height", "L1-L2"): 5.0,
    ("disc_height", "L4-L5"): STEP,
    ("disc_height", "L5-S1"): 12.5,  # 40 px in front, 10 px behind
    ("disc_height_anterior", "L1-L2"): 5.0,
    ("disc_height_anterior", "L3-L4"): STEP,
    ("disc_height_anterior", "L5-S1"): 20.0,
    ("disc_height_posterior", "L1-L2"): 5.0,
    ("disc_height_posterior", "L5-S1"): 5.0,
    ("disc_height_index", "L1-L2"): 0.25,  # (10 + 10) / (40 + 40) px
    ("disc_height_index", "L5-S1"): 5 / 9,  # (40 + 10) / (40 + 50) px
    ("height_anterior", "T12"): 10.0,
    ("height_anterior", "L3"): 15.0,
    ("height_posterior", "T12"): 15.0,
    ("height_posterior", "L5"): 15.0,
    ("height_ratio", "T12"): 2 / 3,
    ("height_ratio", "L2"): 1.0,
    ("wedge_loss", "T12"): 100 / 3,  # 20 px in front, 30 px behind
    ("wedge_loss", "L2"): 0.0,
    ("compression_ratio", "T12-L1"): 1.0,
    ("body_area", "T12"): 250.0,  # (20 + 30) / 2 * 40 px²
    ("body_area", "L1"): 300.0,
    ("disc_angle", "L4-L5"): 0.0,
    ("disc_angle", "L5-S1"): T345,
    ("segmental_angle", "T12-L1"): -T14,  # the endplate of T12 falls towards the front: kyphosis
    ("segmental_angle", "L3-L4"): 0.0,
    ("lumbar_lordosis", None): T345,
    ("sacral_slope", None): T345,  # falls 30 px over 40 px towards the front
}

# Lumbar MRI facing right (anterior at larger x), 1 mm a pixel. L3 lies 4 px in front; the upper endplate of L2
# falls 10 px and the lower one of L5 30 px towards the front.
MRI_POINTS: Points = {
    "L1_sup_ant": (140, 0),
    "L1_sup_post": (100, 0),
    "L1_inf_ant": (140, 30),
    "L1_inf_post": (100, 30),
    "L2_sup_ant": (140, 50),
    "L2_sup_post": (100, 40),
    "L2_inf_ant": (140, 70),
    "L2_inf_post": (100, 70),
    "L3_sup_ant": (144, 80),
    "L3_sup_post": (104, 80),
    "L3_inf_ant": (144, 110),
    "L3_inf_post": (104, 110),
    "L4_sup_ant": (140, 120),
    "L4_sup_post": (100, 120),
    "L4_inf_ant": (140, 150),
    "L4_inf_post": (100, 150),
    "L5_sup_ant": (140, 160),
    "L5_sup_post": (100, 160),
    "L5_inf_ant": (140, 220),
    "L5_inf_post": (100, 190),
}
MRI: dict[Place, float] = {
    ("slip_percent", "L2-L3"): -10.0,
    ("slip_percent", "L3-L4"): 10.0,
    ("slip_percent", "L4-L5"): 0.0,
    ("slip_mm", "L2-L3"): -4.0,
    ("slip_mm", "L3-L4"): 4.0,
    ("slip_direction", "L3-L4"): 10.0,
    ("disc_height", "L1-L2"): 15.0,
    ("disc_height_anterior", "L1-L2"): 20.0,
    ("disc_height_posterior", "L1-L2"): 10.0,
    ("disc_height_index", "L1-L2"): 30 / (40 + math.sqrt(1700)),  # the endplate of L2 is (40, 10) px
    ("height_anterior", "L2"): 20.0,
    ("height_anterior", "L5"): 60.0,
    ("height_posterior", "L5"): 30.0,
    ("height_ratio", "L5"): 2.0,
    ("wedge_loss", "L2"): 100 / 3,
    ("wedge_loss", "L5"): -100.0,  # higher in front
    ("compression_ratio", "L4-L5"): 1.0,
    ("body_area", "L2"): 1000.0,  # (20 + 30) / 2 * 40
    ("body_area", "L5"): 1800.0,  # (60 + 30) / 2 * 40
    ("disc_angle", "L1-L2"): T14,
    ("segmental_angle", "L1-L2"): 0.0,
    ("segmental_angle", "L2-L3"): -T14,
    ("segmental_angle", "L4-L5"): T345,
    ("lumbar_lordosis_l5", None): T345,
}

# Spine from the front: level boxes 40 px wide, 20 px high, 30 px from one to the next; the lower endplate of T5
# falls 30 px towards the right of the image.
LEVELS = [*(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6))]
SPINE_POINTS: Points = {
    f"{level}_{corner}": (x, 30 * row + y)
    for row, level in enumerate(LEVELS)
    for corner, x, y in (("TL", 100, 0), ("TR", 140, 0), ("BL", 100, 20), ("BR", 140, 20))
}
SPINE_POINTS["T5_BR"] = (140, 170)
# The axis of T5 is the mean of (40, 0) and (40, 30) px; all others are level. The line of the spine is straight.
T5_AXIS = math.degrees(math.atan2(15, 40))
SPINE: dict[Place, float] = {
    ("cobb_main", None): T5_AXIS,
    ("cobb_proximal", None): 0.0,  # the main curve begins at T1, and nothing lies above
    ("cobb_distal", None): T5_AXIS,  # in a single bend, from the main curve's lower end to L5
    ("endplate_angle", "T4-T5"): T345,
    ("endplate_angle", "T5-T6"): 0.0,
    ("wedge_angle", "T5"): T345,
    ("wedge_angle", "L5"): 0.0,
}

# Cephalogram facing right, 0.2 mm a pixel. Nasion-sella and Frankfort are level; from nasion to A is straight
# down, to B (-28, 96) = 100 px; the mandible runs from articulare by (30, 40) to gonion and by (40, 30) to menton.
CEPH_POINTS: Points = {
    "sella": (0, 100),
    "nasion": (100, 100),
    "porion": (10, 120),
    "orbitale": (90, 120),
    "subspinale": (100, 180),
    "supramentale": (72, 196),
    "pogonion": (81.6, 198.8),  # B + 10 (0.96, 0.28): 10 px off the line from nasion to B
    "articulare": (0, 150),
    "gonion": (30, 190),
    "menton": (70, 220),
    "posterior_nasal_spine": (40, 150),
    "anterior_nasal_spine": (80, 180),
    "gnathion": (78, 226),  # (48, 36) from gonion: 3 in 4
    "lower_incisor": (80, 200),
    "upper_incisor": (83, 196),  # 5 px away, 3 of them to the front
}
AB = math.sqrt(28**2 + 16**2)  # A to B is (-28, 16)
CEPH: dict[Place, float] = {
    ("sna", None): 90.0,
    ("snb", None): math.degrees(math.acos(0.28)),  # 73.74
    ("anb", None): 90.0 - math.degrees(math.acos(0.28)),  # 16.26
    ("fma", None): T345,
    ("sn_mandibular_angle", None): T345,
    ("sn_gonion_gnathion", None): T345,
    # Menton to gonion is (-40, -30), B to A (28, -16); the palatal plane falls 3 in 4 under the level Frankfort plane.
    ("odi", None): math.degrees(math.acos(-640 / (50 * AB))) + T345,  # 113.39 + 36.87
    ("apdi", None): math.degrees(math.acos(640 / (50 * AB))),  # 66.61, from (-40, -30) to A to B
    ("modified_wits", None): 1.0,
    ("palatal_mandibular_angle", None): 0.0,  # both planes fall 3 in 4
    ("saddle_angle", None): 90.0,
    ("articular_angle", None): math.degrees(math.acos(-0.8)),  # between (0, -1) and (0.6, 0.8)
    ("gonial_angle", None): math.degrees(math.acos(-0.96)),  # between (-0.6, -0.8) and (0.8, 0.6)
    ("facial_height_index", None): 100 * math.sqrt(9000 / 15300),  # |(30, 90)| to |(-30, 120)|
    ("chin_to_facial_line", None): 2.0,
}

EXAMPLES: dict[str, tuple[Points, tuple[float, float], dict[Place, float]]] = {
    "fetal_head": (FETAL_POINTS, (0.5, 0.5), FETAL),
    "hand": (HAND_POINTS, (0.5, 0.5), HAND),
    "chest": (CHEST_POINTS, (0.5, 0.25), CHEST),
    "chest_ctr": (CTR_POINTS, (0.5, 0.25), CTR),
    "lumbar_lateral": (LUMBAR_POINTS, (0.5, 0.5), LUMBAR),
    "lumbar_mri": (MRI_POINTS, (1.0, 1.0), MRI),
    "spine_ap": (SPINE_POINTS, (0.5, 0.5), SPINE),
    "cephalometric": (CEPH_POINTS, (0.2, 0.2), CEPH),
}

GRADES = {
    ("lumbar_lateral", "slip_percent", "L1-L2"): "0",
    ("lumbar_lateral", "slip_percent", "L3-L4"): "II",
    ("lumbar_lateral", "slip_percent", "L4-L5"): "II",
    ("lumbar_lateral", "slip_percent", "L5-S1"): "I",
    ("lumbar_lateral", "slip_direction", "L3-L4"): "retrolisthesis",
    ("lumbar_lateral", "slip_direction", "L4-L5"): "anterolisthesis",
    ("lumbar_lateral", "slip_direction", "T12-L1"): "none",
    ("lumbar_lateral", "wedge_loss", "T12"): "2",
    ("lumbar_lateral", "wedge_loss", "L2"): "0",
    ("lumbar_mri", "slip_percent", "L3-L4"): "I",
    ("lumbar_mri", "slip_direction", "L2-L3"): "retrolisthesis",
    ("lumbar_mri", "wedge_loss", "L2"): "2",
    ("lumbar_mri", "wedge_loss", "L5"): "0",
    ("spine_ap", "cobb_main", None): "moderate",
    ("spine_ap", "cobb_proximal", None): "none",
    ("spine_ap", "cobb_distal", None): "moderate",
    ("chest_ctr", "cardiothoracic_ratio", None): "normal",
    ("cephalometric", "anb", None): "II",
    ("cephalometric", "sna", None): "prognathic",
    ("cephalometric", "snb", None): "retrognathic",
    ("cephalometric", "odi", None): "deep bite tendency",
    ("cephalometric", "apdi", None): "class II tendency",
    ("cephalometric", "facial_height_index", None): "short face tendency",
    ("cephalometric", "sn_gonion_gnathion", None): "high angle tendency",
    ("cephalometric", "modified_wits", None): "edge to edge or small overjet",
    ("fetal_head", "cephalic_index", None): "mesocephalic",
}


@cache
def anatomy(name: str) -> LandmarkSchema:
    return load_schema(name)


@cache
def measured(name: str) -> dict[Place, Measurement]:
    schema = anatomy(name)
    placed, spacing, _ = EXAMPLES[name]
    points, present = arrays(schema, placed)
    results = measure(schema, points, Frame((2000, 2000), spacing, "user"), present=present, given=GIVEN.get(name))
    return {(result.name, result.level): result for result in results}


def arrays(schema: LandmarkSchema, placed: Points) -> tuple[np.ndarray, np.ndarray]:
    points = np.array([placed.get(name, (np.nan, np.nan)) for name in schema.names])
    return points, np.isfinite(points).all(axis=1)


def test_every_anatomy_has_an_example() -> None:
    assert set(EXAMPLES) == set(builtin_schemas())


@pytest.mark.parametrize("name", builtin_schemas())
def test_every_measurement_has_an_example(name: str) -> None:
    assert {measurement for measurement, _ in EXAMPLES[name][2]} == {spec.name for spec in anatomy(name).measurements}


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [(name, place, value) for name, (_, _, values) in EXAMPLES.items() for place, value in values.items()],
)
def test_hand_worked_value(name: str, place: Place, expected: float) -> None:
    result = measured(name)[place]
    assert result.value == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert (result.status, result.unit) == (
        "ok",
        next(s.unit for s in anatomy(name).measurements if s.name == place[0]),
    )


@pytest.mark.parametrize(("name", "measurement", "level"), GRADES)
def test_hand_worked_grade(name: str, measurement: str, level: str | None) -> None:
    assert measured(name)[measurement, level].grade == GRADES[name, measurement, level]


def test_every_graded_measurement_has_an_example() -> None:
    graded = {(name, spec.name) for name in builtin_schemas() for spec in anatomy(name).measurements if spec.grade}
    assert {(name, measurement) for name, measurement, _ in GRADES} == graded


@pytest.mark.parametrize("name", builtin_schemas())
def test_every_measurement_can_be_made_of_its_primitive(name: str) -> None:
    check_measurements(anatomy(name))


@pytest.mark.parametrize("name", [n for n in builtin_schemas() if anatomy(n).flip != "never"])
def test_a_flipped_image_measures_the_same(name: str) -> None:
    """Flip the picture, rename as the schema says and measure again.

    Right and left change places, so the frontal spine's signed angles open to the other side.
    """
    schema = anatomy(name)
    points, present = arrays(schema, EXAMPLES[name][0])
    frame = Frame((2000, 1001), EXAMPLES[name][1], "user")
    order = list(schema.flip_permutation)
    flipped = (points * [-1, 1] + [1000, 0])[order]
    before = measure(schema, points, frame, present=present)
    after = measure(schema, flipped, frame, present=present[order])
    of_one_side = {"lung_height_right", "lung_height_left", "lung_height_ratio"}
    for old, new in zip(before, after):
        signed = old.name in {"endplate_angle", "wedge_angle"} and name == "spine_ap"
        sign = -1.0 if signed or old.name.startswith("asymmetry") else 1.0
        if old.value is not None and old.name not in of_one_side:
            assert new.value == pytest.approx(sign * old.value, rel=1e-9, abs=1e-9), old.name


def test_compression_is_measured_by_the_vertebra_above() -> None:
    """L4 is 15 px high behind and L3 above it 30 px; L5 below it is twice as high as L4."""
    schema = anatomy("lumbar_mri")
    points, present = arrays(schema, MRI_POINTS | {"L4_inf_post": (100, 135)})
    found = {(r.name, r.level): r.value for r in measure(schema, points, Frame((300, 300)), present=present)}
    assert found["compression_ratio", "L3-L4"] == pytest.approx(0.5)
    assert found["compression_ratio", "L4-L5"] == pytest.approx(2.0)
