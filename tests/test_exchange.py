"""Orders of points that cannot be told apart."""

import numpy as np
import pytest

from bregma.exchange import geometric_order, matching_order, order_rounds, orders_of, presence_of_share, sets_of
from bregma.schema import load_schema
from bregma.shape_model import learn_shape_model

SETS = ((0, 1), (3, 4))


def test_sets_are_positions_in_schema_order():
    assert sets_of(load_schema("fetal_head")) == ((0, 1), (2, 3))
    assert sets_of(load_schema("chest")) == ()


def test_points_go_from_left_to_right_then_down_within_their_set():
    points = np.array([(9.0, 0.0), (2.0, 5.0), (0.0, 0.0), (4.0, 8.0), (4.0, 3.0)])
    assert geometric_order(points, SETS).tolist() == [1, 0, 2, 4, 3]


def test_matching_takes_the_least_sum_of_distances():
    reference = np.array([(0.0, 0.0), (10.0, 0.0), (5.0, 5.0), (0.0, 9.0), (0.0, 0.0)])
    points = reference[[1, 0, 2, 4, 3]] + 0.5
    assert matching_order(points, reference, SETS).tolist() == [1, 0, 2, 4, 3]


def test_a_point_without_a_say_goes_where_there_is_room():
    reference, points = np.array([(0.0, 0.0), (10.0, 0.0)]), np.array([(0.1, 0.0), (0.0, 0.0)])
    usable = np.array([[True, True], [False, False]])
    assert matching_order(points, reference, ((0, 1),), usable).tolist() == [0, 1]


def test_all_orders_are_tried_while_they_are_few():
    assert sorted(o.tolist() for o in orders_of(3, ((0, 2),))) == [[0, 1, 2], [2, 1, 0]]
    assert [len(orders) for orders in order_rounds(5, SETS)] == [4]
    nine = tuple((2 * i, 2 * i + 1) for i in range(9))
    assert [len(orders) for orders in order_rounds(18, nine)] == [2] * 9
    # 6! orders are too many: the given one and 15 exchanges.
    assert [len(orders) for orders in order_rounds(6, (tuple(range(6)),))] == [16]


def test_a_tenth_of_an_equal_share_is_one_half():
    assert presence_of_share(np.array([0.0, 0.1, 1.0])) == pytest.approx([0.0, 0.5, 1.0])


def crosses(count, seed=0):
    """Ends of two perpendicular diameters, the second 0.8 of the first give or take 4 %, anyhow turned and sized."""
    rng = np.random.default_rng(seed)
    ratio = rng.normal(0.8, 0.032, count)
    x = np.zeros((count, 4), complex)
    x[:, 0], x[:, 1], x[:, 2], x[:, 3] = -1, 1, 1j * ratio, -1j * ratio
    x = x * (rng.uniform(40, 80, count) * np.exp(1j * rng.uniform(0, 2 * np.pi, count)))[:, None] + 100 + 90j
    return np.stack([x.real, x.imag], -1) + rng.normal(0, 0.3, (count, 4, 2))


HEAD_SETS = ((0, 1), (2, 3))


def shuffled(points, seed=1):
    rng = np.random.default_rng(seed)
    out = points.copy()
    for shape in out:
        for a, b in HEAD_SETS:
            if rng.random() < 0.5:
                shape[[a, b]] = shape[[b, a]]
    return out


class TestShapesWithoutAnOrder:
    def test_a_model_of_shuffled_labels_is_that_of_ordered_ones(self):
        ordered = crosses(80)
        model = learn_shape_model(shuffled(ordered), sets=HEAD_SETS)
        first, second = (np.linalg.norm(model.mean[b] - model.mean[a]) for a, b in HEAD_SETS)
        assert second / first == pytest.approx(0.8, abs=0.01)
        spread = np.trace(learn_shape_model(ordered).cov)
        assert np.trace(model.cov) == pytest.approx(spread, rel=0.1)
        # Without being told, it takes the ends for one another, and knows nothing.
        assert np.trace(learn_shape_model(shuffled(ordered)).cov) > 20 * spread

    def test_the_likeliest_order_is_found_again(self):
        model = learn_shape_model(shuffled(crosses(80)), sets=HEAD_SETS)
        cov = np.tile(np.eye(2), (4, 1, 1))
        for shape in shuffled(crosses(10, seed=5), seed=6):
            found = shape[model.order(shape, cov, HEAD_SETS)]
            assert model.distances(found[None], cov[None])[0] < 20
            assert model.distances(found[[1, 0, 2, 3]][None], cov[None])[0] > 300

    def test_distances_are_those_of_generalised_least_squares(self):
        model = learn_shape_model(crosses(80))
        shape, cov = crosses(1, seed=3)[0], np.array([np.diag((1.0, 2.0 + n)) for n in range(4)])
        # Written out: p - A θ̂ against the covariance of shape and noise, in a pose by plain least squares.
        (x, y), one, zero = model.mean.T, np.ones(4), np.zeros(4)
        a = np.stack([np.ravel(np.stack(c, 1)) for c in ((x, y), (-y, x), (one, zero), (zero, one))], 1)
        p = shape.ravel()
        c, s = np.linalg.lstsq(a, p, rcond=None)[0][:2]
        turn = np.kron(np.eye(4), [[c, -s], [s, c]])
        noise = np.zeros((8, 8))
        for n in range(4):
            noise[2 * n : 2 * n + 2, 2 * n : 2 * n + 2] = cov[n]
        inverse = np.linalg.inv(turn @ model.cov @ turn.T + noise)
        left = p - a @ np.linalg.solve(a.T @ inverse @ a, a.T @ inverse @ p)
        assert model.distances(shape[None], cov[None])[0] == pytest.approx(left @ inverse @ left, rel=1e-6)
