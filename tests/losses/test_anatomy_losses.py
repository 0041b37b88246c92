"""Terms on the anatomy against hand-worked values, and each shown to act: descending it mends what it is about."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bregma.losses import LOSSES, AnatomicalConfig, DistanceConfig, SymmetryConfig, WingConfig, total_loss
from bregma.schema import load_schema, schema_from_dict
from loss_inputs import SCHEMA, loss_input, points_input, value

PAIRS_ONLY = schema_from_dict(
    {
        "name": "pairs",
        "title": "Pairs",
        "landmarks": [{"name": name, "label": name} for name in ("l1", "r1", "l2", "r2", "l3", "r3")],
        "mirror_pairs": [["l1", "r1"], ["l2", "r2"], ["l3", "r3"]],
    },
    where="pairs",
)
# Two vertebrae and an endplate, ten wide: centres at heights 4, 14 and 20.
BODY = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 8.0], [10.0, 8.0]])
COLUMN = np.concatenate([BODY, np.add(BODY, (0.0, 10.0)), np.add(BODY[:2], (0.0, 20.0))])


def on_trial(given):
    """Points ``(15, 2)`` of the trial anatomy and a mask of those given."""
    points, placed = np.zeros((len(SCHEMA), 2)), np.zeros(len(SCHEMA))
    for name, point in given.items():
        points[SCHEMA.index(name)] = point
        placed[SCHEMA.index(name)] = 1.0
    return points, torch.tensor(placed)[None]


def symmetry_of(given, config=None):
    points, placed = on_trial(given)
    return value(config or SymmetryConfig(), points_input(points, np.zeros_like(points), placed=placed))


def column_of(corners):
    return np.concatenate([np.zeros((5, 2)), corners])


def anatomical_of(corners, placed=None, **weights):
    off = {"order": 0.0, "parallel": 0.0, "aspect": 0.0, "spacing": 0.0}
    given = {} if placed is None else {"placed": torch.tensor([[0.0] * 5 + placed], dtype=torch.float64)}
    x = points_input(column_of(corners), column_of(COLUMN), **given)
    return value(AnatomicalConfig(**{**off, **weights}), x)


def soft(error, softness):
    return math.sqrt(error**2 + softness**2) - softness


def descend(config, schema, start, target, steps=400, rate=0.05):
    """Points ``(N, 2)`` after gradient descent on one term alone."""
    points = torch.tensor(start)[None].requires_grad_()
    x = loss_input(
        points=lambda: points,
        target_points=torch.tensor(target)[None],
        placed=torch.ones(1, len(target), dtype=torch.float64),
        schema=schema,
    )
    optimizer = torch.optim.Adam([points], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        LOSSES[config.name](config, x).backward()
        optimizer.step()
    return points.detach()[0].numpy()


def symmetric_chest(schema):
    """Points ``(15, 2)`` about the axis x = 100."""
    heights = {name: 10.0 * index for index, name in enumerate(schema.names)}
    points = np.array([[100.0, heights[name]] for name in schema.names])
    for left, right in schema.mirror_pairs:
        points[schema.index(left)] = [60.0, heights[right]]
        points[schema.index(right)] = [140.0, heights[right]]
    return points


def lumbar_spine():
    """A lumbar spine: bodies 40 wide and 30 high, 40 apart, on a slant, and a wedged one."""
    schema = load_schema("lumbar_lateral")
    body = np.array([[-20.0, -15.0], [20.0, -15.0], [-20.0, 15.0], [20.0, 15.0]])
    corners = [np.add(body, (3.0 * level, 40.0 * level)) for level in range(6)]
    corners[2][3] -= (0.0, 12.0)
    return schema, np.concatenate([*corners, np.add(body[:2], (18.0, 235.0))])


class TestSymmetry:
    def test_by_hand_about_an_upright_axis(self):
        # Axis x = 10: the left point's mirror image is (16, 5), and (2, 3) off its partner.
        given = {"top": (10, 0), "bottom": (10, 20), "left": (4, 5), "right": (18, 8)}
        assert symmetry_of(given) == pytest.approx(soft(math.sqrt(13), 1.0), rel=1e-5)
        assert symmetry_of(given, SymmetryConfig(softness_px=3.0)) == pytest.approx(soft(math.sqrt(13), 3.0), rel=1e-5)

    def test_by_hand_about_a_slanting_axis(self):
        # The line through (1, 1) and (9, 9) swaps x and y.
        axis = {"top": (1, 1), "bottom": (9, 9)}
        assert symmetry_of({**axis, "left": (2, 7), "right": (7, 2)}) == pytest.approx(0.0, abs=1e-6)
        assert symmetry_of({**axis, "left": (2, 7), "right": (7, 6)}) == pytest.approx(soft(4.0, 1.0), rel=1e-5)

    def test_the_axis_is_the_total_least_squares_line(self):
        draw = np.random.default_rng(0)
        schema = load_schema("chest")
        points = draw.normal(size=(15, 2)) * [20.0, 60.0] @ np.array([[0.8, 0.6], [-0.6, 0.8]])
        middle = points[[schema.index(f"axis_{n}") for n in ("top", "upper", "middle", "lower", "bottom")]]
        normal = np.linalg.svd(middle - middle.mean(0))[2][1]
        expected = []
        for left, right in schema.mirror_pairs:
            a, b = points[schema.index(left)], points[schema.index(right)]
            mirrored = a - 2 * np.dot(a - middle.mean(0), normal) * normal
            expected.append(soft(float(np.linalg.norm(mirrored - b)), 1.0))
        x = points_input(points, np.zeros_like(points), schema=schema)
        assert value(SymmetryConfig(), x) == pytest.approx(np.mean(expected), rel=1e-6)

    def test_the_axis_goes_through_the_named_midline(self):
        # The spare point would tilt the axis, if it were not left out of the midline.
        given = {"top": (10, 0), "bottom": (10, 20), "left": (4, 5), "right": (16, 5), "spare": (30, 30)}
        assert symmetry_of(given) > 1.0
        assert symmetry_of(given, SymmetryConfig(midline=("top", "bottom"))) == pytest.approx(0.0, abs=1e-6)

    def test_without_a_midline_the_pairs_midpoints_make_the_axis(self):
        # Midpoints (2, 1), (2, 10), (2, 20): axis x = 2; the first pair is 2 askew, the others are not.
        points = [[0.0, 0.0], [4.0, 2.0], [0.0, 10.0], [4.0, 10.0], [1.0, 20.0], [3.0, 20.0]]
        x = points_input(points, points, schema=PAIRS_ONLY)
        assert value(SymmetryConfig(), x) == pytest.approx(soft(2.0, 1.0) / 3, rel=1e-5)
        left_out = value(SymmetryConfig(leave_out=("r3",)), x)
        assert left_out == pytest.approx(soft(2.0, 1.0) / 2, rel=1e-5)

    def test_a_pair_counts_only_if_both_are_placed(self):
        points = [[0.0, 0.0], [4.0, 2.0], [0.0, 10.0], [4.0, 10.0], [1.0, 20.0], [900.0, 20.0]]
        x = points_input(points, points, schema=PAIRS_ONLY, placed=torch.tensor([[1.0, 1, 1, 1, 1, 0]]))
        assert value(SymmetryConfig(), x) == pytest.approx(soft(2.0, 1.0) / 2, rel=1e-5)

    def test_an_image_without_an_axis_adds_nothing(self):
        assert symmetry_of({"top": (10, 0), "left": (4, 5), "right": (18, 8)}) == 0.0

    def test_it_acts(self):
        """Descending it makes a crooked chest symmetric, and moves no point further than it was off."""
        draw = np.random.default_rng(1)
        schema = load_schema("chest")
        truth = symmetric_chest(schema)
        start = truth + draw.normal(size=truth.shape) * 3.0
        end = descend(SymmetryConfig(), schema, start, start)
        middle = end[[i for i, name in enumerate(schema.names) if name.startswith("axis")]]
        along, normal = np.linalg.svd(middle - middle.mean(0))[2]
        for left, right in schema.mirror_pairs:
            a, b = end[schema.index(left)], end[schema.index(right)]
            assert abs(np.dot(0.5 * (a + b) - middle.mean(0), normal)) < 0.05
            assert abs(np.dot(b - a, along)) < 0.05
        assert np.linalg.norm(end - start, axis=1).max() < 15.0

    def test_it_changes_what_noisy_labels_teach(self):
        """Points learned from few noisy labels of a symmetric chest come nearer to the truth with it than without."""
        draw = np.random.default_rng(5)
        schema = load_schema("chest")
        truth = symmetric_chest(schema)
        labels = torch.tensor(truth + draw.normal(size=(4, *truth.shape)) * 5.0)

        def learned(terms):
            points = labels.mean(0).requires_grad_()
            ones = torch.ones(labels.shape[:2], dtype=torch.float64)
            x = loss_input(points=lambda: points.expand_as(labels), target_points=labels, placed=ones, schema=schema)
            optimizer = torch.optim.Adam([points], lr=0.05)
            for _ in range(300):
                optimizer.zero_grad()
                total_loss(terms, x)[0].backward()
                optimizer.step()
            return np.linalg.norm(points.detach().numpy() - truth, axis=1).mean()

        assert learned([WingConfig(), SymmetryConfig(weight=0.3)]) < 0.9 * learned([WingConfig()])


class TestDistance:
    def loss(self, config, **moved):
        points, _ = on_trial({"top": (0, 0), "bottom": (0, 12), "left": (3, 0), "spare": (0, 4), **moved})
        truth, placed = on_trial({"top": (5, 5), "bottom": (15, 5), "left": (0, 0), "spare": (5, 0)})
        return value(config, points_input(points, truth, placed=placed))

    def test_by_hand(self):
        # Lengths 12 for 10, and 5 for 5; the third edge is not placed.
        assert self.loss(DistanceConfig()) == pytest.approx(soft(0.2, 0.05) / 2, rel=1e-4)
        pixels = DistanceConfig(relative=False, softness=1.0)
        assert self.loss(pixels) == pytest.approx(soft(2.0, 1.0) / 2, rel=1e-4)

    def test_shorter_costs_as_much_as_longer(self):
        assert self.loss(DistanceConfig(), bottom=(0, 8)) == pytest.approx(self.loss(DistanceConfig()), rel=1e-4)

    def test_it_acts(self):
        """Descending it gives the edges of a hand their lengths back, wherever the hand is."""
        draw = np.random.default_rng(2)
        schema = load_schema("hand")
        truth = draw.uniform(0, 200, size=(len(schema), 2))
        end = descend(DistanceConfig(), schema, truth + draw.normal(size=truth.shape) * 4.0 + 50.0, truth)
        ends = np.array([[schema.index(a), schema.index(b)] for a, b in schema.edges])
        lengths, wanted = (np.linalg.norm(p[ends[:, 0]] - p[ends[:, 1]], axis=1) for p in (end, truth))
        assert np.abs(lengths / wanted - 1).max() < 0.005
        assert np.linalg.norm(end - truth, axis=1).min() > 30.0


class TestAnatomical:
    def test_the_truth_costs_nothing_wherever_it_lies_however_large(self):
        turned = COLUMN @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + 40.0
        assert anatomical_of(turned, parallel=1.0, spacing=1.0, aspect=1.0) == pytest.approx(0.0, abs=1e-9)
        assert anatomical_of(3 * COLUMN, order=1.0, parallel=1.0) == pytest.approx(0.0, abs=1e-6)

    def test_order_by_hand(self):
        # The second vertebra is 7 too high: 3/10 of the step to it, 0.2 less than half; the next step is long enough.
        moved = COLUMN.copy()
        moved[4:8, 1] -= 7.0
        assert anatomical_of(moved, order=1.0) == pytest.approx(soft(0.2, 0.1) / 2, rel=1e-6)
        assert anatomical_of(moved, order=2.5) == pytest.approx(2.5 * soft(0.2, 0.1) / 2, rel=1e-6)

    def test_spacing_by_hand(self):
        # Steps 3 for 10 and 13 for 6; a pixel is added in quadrature to each length.
        moved = COLUMN.copy()
        moved[4:8, 1] -= 7.0
        first, second = 0.5 * math.log(10 / 101), 0.5 * math.log(170 / 37)
        expected = (soft(first, 0.1) + soft(second, 0.1)) / 2
        assert anatomical_of(moved, spacing=1.0) == pytest.approx(expected, rel=1e-6)

    def test_parallel_by_hand(self):
        # The first vertebra's lower endplate turned by 30°, a chord of 2 sin 15°; the other's is as it should be.
        moved = COLUMN.copy()
        moved[3] = moved[2] + 10 * np.array([math.cos(math.pi / 6), math.sin(math.pi / 6)])
        chord = 2 * math.sin(math.pi / 12)
        assert anatomical_of(moved, parallel=1.0) == pytest.approx(soft(chord, 0.1) / 2, rel=2e-4)

    def test_aspect_by_hand(self):
        # The first vertebra twice as high: ln √((16² + 1) / (8² + 1)).
        moved = COLUMN.copy()
        moved[2:4, 1] += 8.0
        assert anatomical_of(moved, aspect=1.0) == pytest.approx(soft(0.5 * math.log(257 / 65), 0.1) / 2, rel=1e-5)

    def test_a_level_counts_only_if_all_its_points_are_placed(self):
        moved = COLUMN.copy()
        moved[0:4] = moved[0:4] * 5.0 - 300.0
        assert anatomical_of(moved, order=1.0, parallel=1.0, aspect=1.0, spacing=1.0) > 0.5
        lacking = [1.0, 0.0, *[1.0] * 8]
        assert anatomical_of(moved, lacking, order=1.0, parallel=1.0, aspect=1.0, spacing=1.0) < 1e-9

    def test_levels_of_different_chains_are_no_neighbours(self):
        levels = {"levels": ["X", "Y"], "parts": {"a": "a"}}
        other = {"levels": ["Z"], "parts": {"b": "b"}}
        schema = schema_from_dict(
            {"name": "two", "title": "Two", "chains": [{"name": "c", **levels}, {"name": "d", **other}]}, where="two"
        )
        truth = [[0.0, 0.0], [0.0, 10.0], [0.0, 20.0]]
        x = points_input([[0.0, 0.0], [0.0, 10.0], [0.0, -90.0]], truth, schema=schema)
        assert value(AnatomicalConfig(), x) == 0.0
        x = points_input([[0.0, 0.0], [0.0, -10.0], [0.0, 20.0]], truth, schema=schema)
        # Only the order is broken: -1 of the step is 1.5 short of half of it.
        assert value(AnatomicalConfig(), x) == pytest.approx(soft(1.5, 0.1))

    def test_doing_nothing_is_refused(self):
        with pytest.raises(ValidationError, match="does nothing"):
            AnatomicalConfig(order=0.0, parallel=0.0, aspect=0.0, spacing=0.0)

    def only(self, **weights):
        return AnatomicalConfig(**{"order": 0.0, "parallel": 0.0, "aspect": 0.0, "spacing": 0.0, **weights})

    def test_order_acts(self):
        """Two vertebrae taken for each other come back into order."""
        schema, truth = lumbar_spine()
        swapped = truth.copy()
        swapped[8:12], swapped[12:16] = np.add(truth[12:16], (2.0, 0.0)), truth[8:12]
        end = descend(self.only(order=1.0), schema, swapped, truth, rate=0.5)
        assert (np.diff(swapped[:24].reshape(6, 4, 2).mean(1)[:, 1]) > 0).tolist() == [True, True, False, True, True]
        assert (np.diff(end[:24].reshape(6, 4, 2).mean(1)[:, 1]) > 15).all()

    def test_parallel_acts(self):
        """Tilted endplates come back to the angle between the true ones, which is not 0 in the wedged vertebra."""
        schema, truth = lumbar_spine()
        start = truth + np.random.default_rng(3).normal(size=truth.shape) * 4.0
        end = descend(self.only(parallel=1.0), schema, start, truth)

        def angles(points):
            bodies = points[:24].reshape(6, 4, 2)
            upper, lower = bodies[:, 1] - bodies[:, 0], bodies[:, 3] - bodies[:, 2]
            return np.degrees(np.arctan2(lower[:, 1], lower[:, 0]) - np.arctan2(upper[:, 1], upper[:, 0]))

        assert angles(truth)[2] < -15
        assert np.abs(angles(start) - angles(truth)).max() > 5
        assert np.abs(angles(end) - angles(truth)).max() < 0.2

    def test_aspect_acts(self):
        schema, truth = lumbar_spine()
        end = descend(self.only(aspect=1.0), schema, truth * [1.0, 1.3], truth)
        bodies = end[:24].reshape(6, 4, 2)
        height = np.linalg.norm(bodies[:, 2:].mean(1) - bodies[:, :2].mean(1), axis=1)
        sides = bodies[:, [1, 3]] - bodies[:, [0, 2]]
        ratio = height / np.linalg.norm(sides, axis=2).mean(1)
        assert ratio[[0, 1, 3, 4, 5]] == pytest.approx(30 / 40, rel=0.01)

    def test_spacing_acts(self):
        schema, truth = lumbar_spine()
        start = truth + np.repeat(np.random.default_rng(4).normal(size=(7, 2)) * 6.0, 4, axis=0)[:26]
        end = descend(self.only(spacing=1.0), schema, start, truth)

        def steps(points):
            middles = np.concatenate([points[:24].reshape(6, 4, 2).mean(1), points[24:].mean(0)[None]])
            return np.linalg.norm(np.diff(middles, axis=0), axis=1)

        assert np.abs(steps(start) / steps(truth) - 1).max() > 0.1
        assert np.abs(steps(end) / steps(truth) - 1).max() < 0.005


@pytest.mark.parametrize("config", [SymmetryConfig(), DistanceConfig(), AnatomicalConfig()], ids=lambda c: c.name)
@pytest.mark.parametrize("place", [0.0, 0.01])
def test_points_that_fell_together_have_finite_gradients(config, place):
    """An untrained regressor puts all landmarks into the middle."""
    points = (112.0 + place * torch.randn(2, 15, 2, generator=torch.Generator().manual_seed(0))).requires_grad_()
    target = 224 * torch.rand(2, 15, 2, generator=torch.Generator().manual_seed(1))
    x = loss_input(points=lambda: points, target_points=target, placed=torch.ones(2, 15))
    loss = LOSSES[config.name](config, x)
    loss.backward()
    assert loss.isfinite()
    assert points.grad.isfinite().all()
    assert points.grad.abs().max() < 10.0
