from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bregma.measurement import PRIMITIVES
from bregma.measurement import primitives as p

ANGLE_345 = math.degrees(math.atan2(3, 4))

# Primitive, points by role, value worked out by hand. 3-4-5 and 5-12-13 triangles keep the arithmetic exact.
EXAMPLES = [
    ("distance", {"a": (1, 2), "b": (4, 6)}, 5.0),
    ("mean_distance", {"a": (0, 0), "b": (3, 4), "c": (0, 0), "d": (5, 12)}, 9.0),  # (5 + 13) / 2
    ("horizontal_width", {"a": (10, 3), "b": (2, 90)}, 8.0),
    ("perpendicular_distance", {"point": (1, 5), "a": (0, 0), "b": (10, 0)}, 5.0),
    ("perpendicular_distance", {"point": (0, 5), "a": (0, 0), "b": (4, 3)}, 4.0),  # |4*5 - 3*0| / 5
    # A 40 px endplate with its front at smaller x: the corner above lies 12 px in front of its back end.
    ("slip_length", {"upper_posterior": (128, 190), "lower_anterior": (100, 200), "lower_posterior": (140, 200)}, 12.0),
    ("slip_ratio", {"upper_posterior": (128, 190), "lower_anterior": (100, 200), "lower_posterior": (140, 200)}, 0.3),
    # The same 12 px behind a spine that faces the other way: retrolisthesis.
    ("slip_ratio", {"upper_posterior": (88, 190), "lower_anterior": (140, 200), "lower_posterior": (100, 200)}, -0.3),
    # A tilted endplate (30, 40), length 50; the corner is (10, 20) from its back end: (300 + 800) / 50 = 22.
    ("slip_length", {"upper_posterior": (10, 20), "lower_anterior": (30, 40), "lower_posterior": (0, 0)}, 22.0),
    ("slip_ratio", {"upper_posterior": (10, 20), "lower_anterior": (30, 40), "lower_posterior": (0, 0)}, 0.44),
    # A circle of radius 5.
    ("ellipse_perimeter", {"a": (0, 0), "b": (10, 0), "c": (5, -5), "d": (5, 5)}, 10 * math.pi),
    # Semi-axes 10 and 5: the exact perimeter is 40 E(3/4) = 48.442241102738... (tables of the elliptic integral).
    ("ellipse_perimeter", {"a": (0, 0), "b": (20, 0), "c": (10, -5), "d": (10, 5)}, 48.442241102738),
    ("quadrilateral_area", {"a": (0, 0), "b": (4, 0), "c": (4, 3), "d": (0, 3)}, 12.0),
    ("quadrilateral_area", {"a": (0, 0), "b": (0, 2), "c": (4, 3), "d": (4, 0)}, 10.0),  # trapezium (2 + 3) / 2 * 4
    ("distance_ratio", {"a": (0, 0), "b": (3, 4), "c": (0, 0), "d": (6, 8)}, 0.5),
    ("distance_deficit", {"a": (0, 0), "b": (3, 4), "c": (0, 0), "d": (6, 8)}, 0.5),  # 5 of 10
    ("distance_deficit", {"a": (0, 0), "b": (6, 8), "c": (0, 0), "d": (3, 4)}, -1.0),  # twice as long
    # Lines of 40 and 20 px; the gap is 10 px high in front and |(20, 10)| px behind.
    (
        "height_index",
        {"upper_front": (0, 0), "upper_back": (40, 0), "lower_front": (0, 10), "lower_back": (20, 10)},
        (10 + math.sqrt(500)) / 60,
    ),
    ("horizontal_width_ratio", {"a": (10, 5), "b": (40, 9), "c": (0, 0), "d": (60, 70)}, 0.5),
    ("vertex_angle", {"a": (0, 5), "vertex": (0, 0), "b": (7, 0)}, 90.0),
    ("vertex_angle", {"a": (9, 0), "vertex": (0, 0), "b": (-4, 0)}, 180.0),
    ("vertex_angle", {"a": (5, 0), "vertex": (0, 0), "b": (4, -3)}, ANGLE_345),
    # Right angle to A, 3-4-5 angle to B.
    (
        "vertex_angle_difference",
        {"reference": (5, 0), "vertex": (0, 0), "a": (0, 2), "b": (8, 6)},
        90.0 - ANGLE_345,
    ),
    (
        "vertex_angle_difference",
        {"reference": (5, 0), "vertex": (0, 0), "a": (8, 6), "b": (0, 2)},
        ANGLE_345 - 90.0,
    ),
    ("line_angle", {"a": (0, 0), "b": (4, 3), "c": (9, 9), "d": (2, 9)}, ANGLE_345),
    ("line_angle", {"a": (0, 0), "b": (0, 3), "c": (9, 9), "d": (2, 9)}, 90.0),
    # Upper line level, lower line falls 3 in 4 towards the front, which lies right: they open to the front.
    (
        "opening_angle",
        {"upper_front": (40, 0), "upper_back": (0, 0), "lower_front": (40, 50), "lower_back": (0, 20)},
        ANGLE_345,
    ),
    # The mirror image faces left and is as lordotic.
    (
        "opening_angle",
        {"upper_front": (-40, 0), "upper_back": (0, 0), "lower_front": (-40, 50), "lower_back": (0, 20)},
        ANGLE_345,
    ),
    # The lower line rises towards the front: kyphotic.
    (
        "opening_angle",
        {"upper_front": (40, 0), "upper_back": (0, 0), "lower_front": (40, 20), "lower_back": (0, 50)},
        -ANGLE_345,
    ),
    # More than a right angle: the lower line points down and back, (-4, 3) from its back end.
    (
        "opening_angle",
        {"upper_front": (40, 0), "upper_back": (0, 0), "lower_front": (-40, 80), "lower_back": (0, 50)},
        180.0 - ANGLE_345,
    ),
    # The endplate falls 3 in 4 to the front, whichever side that is; then it rises.
    ("slope_angle", {"front": (40, 30), "back": (0, 0)}, ANGLE_345),
    ("slope_angle", {"front": (-40, 30), "back": (0, 0)}, ANGLE_345),
    ("slope_angle", {"front": (40, -30), "back": (0, 0)}, -ANGLE_345),
    ("slope_angle", {"front": (0, 30), "back": (0, 0)}, 90.0),
    # Upper endplates (40, 0) and (40, 0); lower ones (40, 20) and (40, 40), together (80, 60): 3 in 4.
    (
        "axis_angle",
        {
            **{"upper_top_left": (0, 0), "upper_top_right": (40, 0)},
            **{"upper_bottom_left": (0, 20), "upper_bottom_right": (40, 20)},
            **{"lower_top_left": (0, 50), "lower_top_right": (40, 70)},
            **{"lower_bottom_left": (0, 70), "lower_bottom_right": (40, 110)},
        },
        ANGLE_345,
    ),
    # The middle of (0, 0) and (10, 0) is 12 px below (5, 12); 13 px for one that lies 5 px to the side.
    ("midpoint_distance", {"point": (5, 12), "a": (0, 0), "b": (10, 0)}, 12.0),
    ("midpoint_distance", {"point": (10, 12), "a": (0, 0), "b": (10, 0)}, 13.0),
    ("midpoint_distance_ratio", {"point": (5, 12), "a": (0, 0), "b": (10, 0), "c": (0, 0), "d": (9, 12)}, 0.8),
    # 3-4-5 steps to the front and to the back, in a face that looks right and in one that looks left.
    ("directed_distance", {"a": (0, 0), "b": (3, 4), "back": (-50, 0), "front": (50, 0)}, 5.0),
    ("directed_distance", {"a": (0, 0), "b": (-3, 4), "back": (-50, 0), "front": (50, 0)}, -5.0),
    ("directed_distance", {"a": (0, 0), "b": (-3, 4), "back": (50, 0), "front": (-50, 0)}, 5.0),
    ("directed_distance", {"a": (2, 2), "b": (2, 2), "back": (-50, 0), "front": (50, 0)}, 0.0),
    ("direction_angle", {"a": (0, 0), "b": (4, 3), "c": (2, 9), "d": (9, 9)}, ANGLE_345),
    ("direction_angle", {"a": (0, 0), "b": (4, 3), "c": (9, 9), "d": (2, 9)}, 180.0 - ANGLE_345),
    # A right angle, and a lower line that falls 3 in 4 to the front; then one that rises as much.
    (
        "direction_angle_plus_opening",
        {
            **{"a": (0, 0), "b": (0, 9), "c": (0, 0), "d": (-7, 0)},
            **{"upper_front": (40, 0), "upper_back": (0, 0), "lower_front": (40, 50), "lower_back": (0, 20)},
        },
        90.0 + ANGLE_345,
    ),
    (
        "direction_angle_plus_opening",
        {
            **{"a": (0, 0), "b": (0, 9), "c": (0, 0), "d": (-7, 0)},
            **{"upper_front": (40, 0), "upper_back": (0, 0), "lower_front": (40, 20), "lower_back": (0, 50)},
        },
        90.0 - ANGLE_345,
    ),
    # An upright axis at x = 100: 60 px to the left side of the body, 40 px to the right one: 20 / 100.
    (
        "midline_asymmetry",
        {"left": (160, 5), "right": (60, 80), **{f"axis_{i}": (100, 20 * i) for i in range(1, 6)}},
        0.2,
    ),
    # The line nearest to (0, 0), (0, 2), (4, 0), (4, 2), (2, 1) is y = 1: 3 px above it and 1 px below.
    (
        "midline_asymmetry",
        {
            **{"left": (1, 4), "right": (3, 0), "axis_1": (0, 0), "axis_2": (0, 2)},
            **{"axis_3": (4, 0), "axis_4": (4, 2), "axis_5": (2, 1)},
        },
        0.5,
    ),
    # Both on one side, at 3 and 1 px: 4 / 2.
    (
        "midline_asymmetry",
        {"left": (3, 0), "right": (1, 0), **{f"axis_{i}": (0, 10 * i) for i in range(1, 6)}},
        2.0,
    ),
]

# Every one of these has a length of nothing to divide by, or a direction that does not exist.
DEGENERATE = [
    ("distance", {"a": (1, 2), "b": (1, 2)}),
    ("perpendicular_distance", {"point": (1, 1), "a": (2, 2), "b": (2, 2)}),
    ("slip_length", {"upper_posterior": (1, 1), "lower_anterior": (2, 2), "lower_posterior": (2, 2)}),
    ("slip_ratio", {"upper_posterior": (1, 1), "lower_anterior": (2, 2), "lower_posterior": (2, 2)}),
    ("distance_ratio", {"a": (1, 1), "b": (5, 5), "c": (2, 2), "d": (2, 2)}),
    ("distance_deficit", {"a": (1, 1), "b": (5, 5), "c": (2, 2), "d": (2, 2)}),
    ("height_index", {"upper_front": (1, 1), "upper_back": (1, 1), "lower_front": (4, 9), "lower_back": (4, 9)}),
    ("slope_angle", {"front": (3, 3), "back": (3, 3)}),
    ("horizontal_width_ratio", {"a": (1, 1), "b": (5, 5), "c": (2, 2), "d": (2, 9)}),
    ("vertex_angle", {"a": (1, 1), "vertex": (1, 1), "b": (5, 5)}),
    ("vertex_angle_difference", {"reference": (0, 0), "vertex": (1, 1), "a": (1, 1), "b": (3, 4)}),
    ("line_angle", {"a": (1, 1), "b": (1, 1), "c": (0, 0), "d": (5, 5)}),
    ("opening_angle", {"upper_front": (1, 1), "upper_back": (1, 1), "lower_front": (4, 9), "lower_back": (0, 9)}),
    # The two lines are one: neither lies below the other.
    ("opening_angle", {"upper_front": (4, 0), "upper_back": (0, 0), "lower_front": (9, 0), "lower_back": (5, 0)}),
    ("ellipse_perimeter", {"a": (1, 1), "b": (1, 1), "c": (1, 1), "d": (1, 1)}),
    ("ellipse_perimeter", {"a": (0, 0), "b": (10, 0), "c": (5, 5), "d": (5, 5)}),
    ("midpoint_distance", {"point": (5, 5), "a": (0, 0), "b": (10, 10)}),
    ("midpoint_distance_ratio", {"point": (5, 9), "a": (0, 0), "b": (10, 10), "c": (3, 3), "d": (3, 3)}),
    ("directed_distance", {"a": (0, 0), "b": (3, 4), "back": (7, 7), "front": (7, 7)}),
    ("direction_angle", {"a": (1, 1), "b": (1, 1), "c": (0, 0), "d": (5, 5)}),
    # The axis's points lie at one place, and then at the corners and the middle of a square: no line fits best.
    ("midline_asymmetry", {"left": (9, 5), "right": (0, 5), **{f"axis_{i}": (4, 4) for i in range(1, 6)}}),
    (
        "midline_asymmetry",
        {
            **{"left": (9, 5), "right": (0, 5), "axis_1": (0, 0), "axis_2": (0, 2)},
            **{"axis_3": (2, 0), "axis_4": (2, 2), "axis_5": (1, 1)},
        },
    ),
    # Both sides lie on the axis.
    ("midline_asymmetry", {"left": (5, 0), "right": (5, 9), **{f"axis_{i}": (5, 10 * i) for i in range(1, 6)}}),
]


def call(name: str, roles: dict[str, object]) -> np.ndarray:
    return PRIMITIVES[name].function(**{role: np.asarray(point, dtype=float) for role, point in roles.items()})


@pytest.mark.parametrize(("name", "roles", "expected"), EXAMPLES)
def test_hand_worked_examples(name: str, roles: dict[str, object], expected: float) -> None:
    assert float(call(name, roles)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_every_primitive_has_an_example() -> None:
    assert {name for name, _, _ in EXAMPLES} == set(PRIMITIVES)


@pytest.mark.parametrize(("name", "roles"), DEGENERATE)
def test_degenerate_geometry_is_nan(name: str, roles: dict[str, object]) -> None:
    assert math.isnan(float(call(name, roles)))


@pytest.mark.parametrize("name", PRIMITIVES)
def test_one_degenerate_sample_leaves_the_others_alone(name: str) -> None:
    primitive = PRIMITIVES[name]
    rng = np.random.default_rng(3)
    samples = rng.normal(0, 10, (4, 5, len(primitive.roles), 2))
    samples[1, 2] = 7.0
    values = primitive.function(*(samples[..., i, :] for i in range(len(primitive.roles))))
    assert values.shape == (4, 5)
    assert np.isfinite(np.delete(values.ravel(), 1 * 5 + 2)).all()
    for index in np.ndindex(4, 5):
        one = primitive.function(*samples[index])
        np.testing.assert_allclose(values[index], one, rtol=1e-12)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_roles_are_the_parameters_of_the_function(name: str) -> None:
    primitive = PRIMITIVES[name]
    code = primitive.function.__code__
    assert code.co_varnames[: code.co_argcount] == primitive.roles


coordinate = st.floats(-500, 500, allow_nan=False)
shift = st.tuples(coordinate, coordinate)
WITHOUT_AXES = sorted(set(PRIMITIVES) - {"horizontal_width", "horizontal_width_ratio", "slope_angle"})


def random_points(name: str, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-100, 100, (len(PRIMITIVES[name].roles), 2))


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), offset=shift)
def test_translation_changes_nothing(name: str, seed: int, offset: tuple[float, float]) -> None:
    points = random_points(name, seed)
    function = PRIMITIVES[name].function
    np.testing.assert_allclose(function(*(points + offset)), function(*points), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WITHOUT_AXES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), angle=st.floats(0, 2 * math.pi))
def test_rotation_changes_nothing(name: str, seed: int, angle: float) -> None:
    points = random_points(name, seed)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    function = PRIMITIVES[name].function
    np.testing.assert_allclose(function(*(points @ turn.T)), function(*points), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.05, 20))
def test_scale_acts_by_kind(name: str, seed: int, factor: float) -> None:
    primitive = PRIMITIVES[name]
    points = random_points(name, seed)
    power = {"length": 1, "area": 2, "ratio": 0, "angle": 0}[primitive.kind]
    expected = primitive.function(*points) * factor**power
    np.testing.assert_allclose(primitive.function(*(points * factor)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_facing_the_other_way_changes_nothing(name: str, seed: int) -> None:
    points = random_points(name, seed)
    function = PRIMITIVES[name].function
    np.testing.assert_allclose(function(*(points * [-1, 1])), function(*points), rtol=1e-9, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(p=st.floats(20, 120), ratio=st.floats(0.5, 1.0))
def test_ellipse_perimeter_agrees_with_the_elliptic_integral(p: float, ratio: float) -> None:
    from scipy.special import ellipe

    q = p * ratio
    exact = 4 * p * ellipe(1 - ratio**2)
    got = float(call("ellipse_perimeter", {"a": (-p, 0), "b": (p, 0), "c": (0, -q), "d": (0, q)}))
    assert got == pytest.approx(exact, rel=1e-7)


def test_integers_and_lists_are_taken() -> None:
    assert p.distance([0, 0], [3, 4]) == 5.0
