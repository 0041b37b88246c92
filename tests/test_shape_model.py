"""The shape model against textbook formulas, simulated shapes of known spread, and images of unequal pixel sides."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import chi2, multivariate_normal

from bregma import geometry
from bregma.errors import InputError
from bregma.geometry import Frame
from bregma.shape_model import (
    MIN_CASES,
    ShapeModel,
    flag_outliers,
    isotropic,
    learn_shape_model,
    reconcile,
    shape_model_of,
)
from bregma.types import ArrayImage, Case, LandmarkSet, Prediction, Status

SQUARE = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (0.0, 0.0)])
SQUARE = SQUARE / np.sqrt((SQUARE**2).sum(axis=1).mean())


def posed(shapes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each shape turned by any angle, zoomed and shifted."""
    out = []
    for shape in shapes:
        turn = geometry.rotate(rng.uniform(-180, 180))
        zoom = geometry.scale(rng.uniform(20, 60))
        out.append(geometry.apply(geometry.compose(geometry.translate(*rng.uniform(0, 300, 2)), zoom, turn), shape))
    return np.stack(out)


def model_of(spread: float = 0.05) -> ShapeModel:
    return ShapeModel(SQUARE, spread**2 * np.eye(10), 100)


def noise(sd: float, count: int = 5) -> np.ndarray:
    return np.tile(sd**2 * np.eye(2), (count, 1, 1))


class TestModes:
    def test_the_ways_in_which_shapes_vary_come_by_their_strength(self) -> None:
        """The middle point varies by 0.3 along x and by 0.1 along y; neither can be had by moving the whole."""
        cov = np.zeros((10, 10))
        cov[8, 8], cov[9, 9] = 0.3**2, 0.1**2
        away, share = ShapeModel(SQUARE, cov, 100).modes(5)
        assert away.shape == (5, 5, 2)
        # A shift of the middle alone is four fifths of it, and a fifth of all points the other way.
        expected = np.array([[-0.2, 0]] * 4 + [[0.8, 0]]) * 0.3
        np.testing.assert_allclose(np.abs(away[0]), np.abs(expected), atol=1e-9)
        np.testing.assert_allclose(np.abs(away[1]), np.abs(expected[:, ::-1]) / 3, atol=1e-9)
        np.testing.assert_allclose(share, [0.9, 0.1, 0, 0, 0], atol=1e-9)

    def test_no_more_than_there_are(self) -> None:
        away, share = model_of().modes(100)
        assert (len(away), len(share)) == (6, 6)
        assert share.sum() == pytest.approx(1)


class TestLearning:
    def test_pose_is_not_learned(self) -> None:
        model = learn_shape_model(posed(np.tile(SQUARE, (20, 1, 1)), np.random.default_rng(0)))
        assert (len(model), model.cases) == (5, 20)
        assert np.abs(model.cov).max() < 1e-12
        np.testing.assert_allclose(model.mean.mean(axis=0), 0, atol=1e-12)
        assert (model.mean**2).sum(axis=1).mean() == pytest.approx(1)
        sides = np.linalg.norm(np.diff(model.mean[[0, 1, 2, 3, 0]], axis=0), axis=1)
        np.testing.assert_allclose(sides, np.linalg.norm(SQUARE[1] - SQUARE[0]), rtol=1e-9)

    def test_a_mirrored_shape_is_another_shape(self) -> None:
        kite = SQUARE * (1, 1) + np.array([(0, 0), (0.5, 0), (0, 0), (0, 0), (0, 0.3)])
        rng = np.random.default_rng(1)
        same = learn_shape_model(posed(np.tile(kite, (20, 1, 1)), rng))
        mixed = learn_shape_model(posed(np.stack([kite, kite * (-1, 1)] * 10), rng))
        assert np.trace(mixed.cov) > 0.01 > np.trace(same.cov)

    def test_the_one_way_in_which_shapes_vary_is_found(self) -> None:
        """The middle point slides along x; all else is fixed."""
        rng = np.random.default_rng(2)
        shapes = np.tile(SQUARE, (2000, 1, 1))
        shapes[:, 4, 0] += rng.normal(0, 0.02, 2000)
        model = learn_shape_model(posed(shapes, rng))
        values, vectors = np.linalg.eigh(model.cov)
        # Where poses are free, the mean variance stands in for all four of them.
        np.testing.assert_allclose(values[-5:-1], values[-1] / 6, rtol=0.02)
        np.testing.assert_allclose(values[:-5], 0, atol=0.01 * values[-1])
        assert np.argmax(np.abs(vectors[:, -1])) in (8, 9)

    def test_missing_points_are_filled_by_what_the_others_tell(self) -> None:
        """A fixed shape loses points at random: nothing is left to vary, whatever is missing."""
        rng = np.random.default_rng(3)
        known = rng.random((60, 5)) > 0.25
        shapes = posed(np.tile(SQUARE, (60, 1, 1)), rng)
        shapes[~known] = 1e6  # Must never be looked at.
        model = learn_shape_model(shapes, known)
        assert model.cases == (known.sum(axis=1) >= 3).sum()
        assert np.abs(model.cov).max() < 1e-6

    def test_missing_points_do_not_shrink_the_spread(self) -> None:
        rng = np.random.default_rng(4)
        shapes = SQUARE + rng.normal(0, 0.03, (3000, 5, 2))
        known = rng.random((3000, 5)) > 0.3
        full, holed = learn_shape_model(shapes), learn_shape_model(shapes, known)
        np.testing.assert_allclose(np.diag(holed.cov), np.diag(full.cov), rtol=0.1)
        np.testing.assert_allclose(pdist(holed.mean), pdist(full.mean), atol=0.01)  # Whatever their turn.

    @pytest.mark.parametrize(
        ("points", "known", "words"),
        [
            (np.zeros((MIN_CASES - 1, 5, 2)), None, "at least 10"),
            (np.ones((30, 5, 2)), np.arange(5)[None] < 2 * np.ones((30, 1)), "at least 10.*got 0"),
            (
                np.random.default_rng(0).normal(0, 1, (30, 5, 2)),
                np.arange(5)[None] < 4 * np.ones((30, 1)),
                "labelled on no image.*landmarks 4",
            ),
            (np.ones((30, 5, 2)), None, "at least 10.*different points.*got 0"),
            (
                np.random.default_rng(0).normal(0, 1, (30, 7, 2)),
                np.repeat([[1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]], 15, axis=0),
                "never labelled together.*landmarks 4, 5, 6",
            ),
        ],
    )
    def test_what_teaches_nothing_is_refused(self, points: np.ndarray, known: np.ndarray | None, words: str) -> None:
        with pytest.raises(InputError, match=words):
            learn_shape_model(points, known)

    def test_a_row_of_equal_points_does_no_harm(self) -> None:
        shapes = posed(np.tile(SQUARE, (20, 1, 1)), np.random.default_rng(15))
        model = learn_shape_model(np.concatenate([np.zeros((2, 5, 2)), shapes]))
        assert model.cases == 20
        assert np.abs(model.cov).max() < 1e-12


class TestFitting:
    def test_a_shape_in_any_pose_stays(self) -> None:
        for shape in posed(np.tile(SQUARE, (5, 1, 1)), np.random.default_rng(5)):
            fit = model_of().fit(shape, noise(2.0))
            np.testing.assert_allclose(fit.points, shape, atol=1e-8)
            np.testing.assert_allclose(fit.contradiction, 0, atol=1e-8)

    def test_the_less_weight_the_less_is_moved(self) -> None:
        seen = 40 * SQUARE + np.random.default_rng(6).normal(0, 5, (5, 2))
        moved = [np.abs(model_of().fit(seen, noise(5.0), weight=w).points - seen).max() for w in (1, 0.1, 1e-9)]
        assert moved[0] > moved[1] > moved[2]
        assert moved[2] < 1e-6

    @pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
    def test_a_weight_that_is_not_positive_is_refused(self, weight: float) -> None:
        with pytest.raises(InputError, match="must be positive"):
            model_of().fit(SQUARE, noise(1.0), weight=weight)

    def test_a_stiff_shape_gives_the_pose_of_least_squares(self) -> None:
        seen = 40 * SQUARE + np.random.default_rng(7).normal(0, 2, (5, 2))
        fit = model_of(1e-6).fit(seen, noise(2.0), robust=False)
        z, w = seen @ (1, 1j), SQUARE @ (1, 1j)
        turn = np.vdot(w, z - z.mean()) / np.vdot(w, w)
        best = turn * w + z.mean()
        np.testing.assert_allclose(fit.points @ (1, 1j), best, atol=1e-4)

    def test_it_is_the_posterior_of_a_flat_prior_over_poses(self) -> None:
        """Against Bayes' rule with an enormous, but finite, prior over poses; anisotropic, unequal noise."""
        rng = np.random.default_rng(8)
        root = rng.normal(0, 0.03, (10, 10))
        model = ShapeModel(SQUARE, root @ root.T, 100)
        seen = 30 * SQUARE + rng.normal(0, 2, (5, 2)) + (100, 80)
        half = rng.normal(0, 1.5, (5, 2, 2))
        covs = half @ half.transpose(0, 2, 1) + 0.1 * np.eye(2)
        fit = model.fit(seen, covs, robust=False)
        x, y = SQUARE.T
        basis = np.zeros((10, 4))
        basis[0::2] = np.stack([x, -y, np.ones(5), np.zeros(5)], axis=1)
        basis[1::2] = np.stack([y, x, np.zeros(5), np.ones(5)], axis=1)
        theta = np.linalg.lstsq(basis, fit.points.ravel(), rcond=None)[0]
        for _ in range(20):  # The spread turns with the pose.
            turn = np.kron(np.eye(5), [[theta[0], -theta[1]], [theta[1], theta[0]]])
            spread = turn @ model.cov @ turn.T
            big = np.zeros((10, 10))
            for i in range(5):
                big[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = covs[i]
            joint = spread + 1e7 * basis @ basis.T
            expected = joint @ np.linalg.solve(joint + big, seen.ravel())
            inverse = np.linalg.inv(spread + big)
            theta = np.linalg.solve(basis.T @ inverse @ basis, basis.T @ inverse @ seen.ravel())
        np.testing.assert_allclose(fit.points.ravel(), expected, atol=2e-3)

    def test_it_lessens_errors_and_more_so_than_a_wrong_weight(self) -> None:
        rng = np.random.default_rng(9)
        truth = 40 * (SQUARE + rng.normal(0, 0.05, (400, 5, 2)))
        seen = truth + rng.normal(0, 3, truth.shape)
        error = {
            weight: np.mean(
                [((model_of().fit(s, noise(3.0), weight=weight).points - t) ** 2).sum() for s, t in zip(seen, truth)]
            )
            for weight in (1e-6, 0.05, 1.0)
        }
        assert error[1.0] < error[0.05] < error[1e-6]
        assert error[1.0] < 0.75 * error[1e-6]

    def test_contradiction_follows_its_distribution(self) -> None:
        rng = np.random.default_rng(10)
        seen = 40 * (SQUARE + rng.normal(0, 0.05, (1000, 5, 2))) + rng.normal(0, 3, (1000, 5, 2))
        distances = np.stack([model_of().contradiction(s, noise(3.0)) for s in seen])
        for share in (0.5, 0.95):
            assert (distances < chi2(2).ppf(share)).mean() == pytest.approx(share, abs=0.02)

    def test_contradiction_by_hand(self) -> None:
        """Leave one out the long way: pose and spread from the others predict the point."""
        rng = np.random.default_rng(11)
        seen = 40 * SQUARE + rng.normal(0, 4, (5, 2))
        model = model_of()
        fit = model.fit(seen, noise(3.0), robust=False)
        x, y = SQUARE.T
        basis = np.zeros((10, 4))
        basis[0::2] = np.stack([x, -y, np.ones(5), np.zeros(5)], axis=1)
        basis[1::2] = np.stack([y, x, np.zeros(5), np.ones(5)], axis=1)
        theta = np.linalg.lstsq(basis, seen.ravel(), rcond=None)[0]  # Equal, round noise: plain least squares.
        each = 0.05**2 * (theta[0] ** 2 + theta[1] ** 2) + 9
        rest, own = basis[2:], basis[:2]
        found = np.linalg.lstsq(rest, seen.ravel()[2:], rcond=None)[0]
        cov = each * (np.eye(2) + own @ np.linalg.inv(rest.T @ rest) @ own.T)
        expected = -2 * (
            multivariate_normal(own @ found, cov).logpdf(seen[0]) + np.log(2 * np.pi * np.sqrt(np.linalg.det(cov)))
        )
        assert fit.contradiction[0] == pytest.approx(expected, rel=1e-6)

    def test_a_stray_point_does_not_drag_the_others(self) -> None:
        seen = 40 * SQUARE
        seen[1] += (60.0, 0.0)
        plain, robust = (model_of().fit(seen, noise(1.5), robust=r) for r in (False, True))
        others = [0, 2, 3, 4]
        away = [np.linalg.norm((fit.points - 40 * SQUARE)[others], axis=1).max() for fit in (plain, robust)]
        assert away[1] < 0.25 * away[0]
        assert robust.contradiction.argmax() == 1

    def test_a_stiff_shape_and_a_network_sure_of_itself(self) -> None:
        """Nothing may vary and nothing is uncertain, yet the two contradict each other."""
        seen = 40 * SQUARE + np.random.default_rng(16).normal(0, 1, (5, 2))
        fit = ShapeModel(SQUARE, np.zeros((10, 10)), 10).fit(seen, np.zeros((5, 2, 2)))
        assert np.isfinite(fit.points).all()
        assert np.abs(fit.points - seen).max() < 5
        collapsed = model_of().fit(np.ones((5, 2)), noise(1.0))
        np.testing.assert_allclose(collapsed.points, 1, atol=1e-6)

    def test_wrong_shapes_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"do not fit the shape model.*\(5, 2\)"):
            model_of().fit(np.zeros((4, 2)), noise(1.0, 4))


def case(points: np.ndarray, frame: Frame, name: str) -> Case:
    return Case(name, name, ArrayImage(np.zeros(frame.shape, np.uint8)), frame, LandmarkSet(points))


def test_unequal_pixel_sides_make_no_difference() -> None:
    rng = np.random.default_rng(12)
    shapes = posed(SQUARE + rng.normal(0, 0.05, (40, 5, 2)), rng)
    tall = Frame((600, 300), (0.5, 0.25), "user")
    plain = shape_model_of([case(s, Frame((600, 600)), str(i)) for i, s in enumerate(shapes)])
    squeezed = shape_model_of([case(s * (0.5, 1.0), tall, str(i)) for i, s in enumerate(shapes)])
    assert plain is not None
    assert squeezed is not None
    np.testing.assert_allclose(isotropic(tall), (np.sqrt(2), np.sqrt(0.5)))
    # Up to a turn, which is as free as the mean's.
    np.testing.assert_allclose(np.linalg.eigvalsh(squeezed.cov), np.linalg.eigvalsh(plain.cov), atol=1e-9)
    seen = shapes[0] + rng.normal(0, 3, (5, 2))
    flat = Prediction("a", seen, noise(3.0), np.ones(5), Frame((600, 600)))
    thin = Prediction("a", seen * (0.5, 1), noise(3.0) * np.outer((0.5, 1), (0.5, 1)), np.ones(5), tall)
    one, other = reconcile(flat, plain, weight=1), reconcile(thin, squeezed, weight=1)
    np.testing.assert_allclose(other.mean, one.mean * (0.5, 1), atol=1e-5)
    np.testing.assert_array_equal(one.cov, flat.cov)
    assert np.abs(one.mean - seen).max() > 0.1


def test_no_shape_model_where_a_landmark_is_too_rare() -> None:
    shapes = posed(np.tile(SQUARE, (30, 1, 1)), np.random.default_rng(13))
    status = np.full((30, 5), Status.VISIBLE)
    status[:21, 3] = Status.OUTSIDE
    cases = [
        Case(str(i), str(i), ArrayImage(np.zeros((9, 9), np.uint8)), Frame((9, 9)), LandmarkSet(p, s))
        for i, (p, s) in enumerate(zip(shapes, status, strict=True))
    ]
    assert shape_model_of(cases) is None
    assert shape_model_of([]) is None
    apart = np.repeat([[0, 0, 3, 3, 3], [3, 3, 0, 0, 0]], 15, axis=0)
    never = [replace(c, landmarks=LandmarkSet(c.landmarks.points, s)) for c, s in zip(cases, apart, strict=True)]
    assert shape_model_of(never) is None
    more = shape_model_of([*cases, cases[-1]])
    assert more is not None
    assert more.cases == 31


def test_round_trip() -> None:
    model = learn_shape_model(SQUARE + np.random.default_rng(14).normal(0, 0.1, (30, 5, 2)))
    again = ShapeModel.from_dict(json.loads(json.dumps(model.to_dict())))
    np.testing.assert_array_equal(again.cov, model.cov)
    np.testing.assert_array_equal(again.mean, model.mean)
    assert again.cases == 30


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"mean": [[0, 0]], "cov": [[1, 0], [0, 1]]},
        {"mean": [[0, 0]], "cov": [[1]], "cases": 3},
        {"mean": [[0, "a"]], "cov": [[1, 0], [0, 1]], "cases": 3},
        {"mean": [[0, float("nan")]], "cov": [[1, 0], [0, 1]], "cases": 3},
        {"mean": 3, "cov": 4, "cases": 3},
    ],
)
def test_what_is_no_shape_model(data: dict) -> None:
    with pytest.raises(InputError, match="shape model"):
        ShapeModel.from_dict(data)


class TestPredictions:
    """A square of five points about (200, 200), of which one may be somewhere else."""

    @staticmethod
    def seen(*, stray: int, presence: float = 1.0) -> Prediction:
        points = 200 + 50 * SQUARE
        points[stray] += (80.0, 60.0)
        there = np.ones(5)
        there[stray] = presence
        return Prediction("a", points, noise(1.0), there, Frame((400, 400), None, "none"))

    def test_a_flagged_point_that_is_called_back_says_how_far(self) -> None:
        given = self.seen(stray=1)
        flagged = flag_outliers(given, model_of(), limit=6.0)
        np.testing.assert_array_equal(flagged.mean, given.mean)
        moved = reconcile(flagged, model_of(), weight=1.0)
        assert moved.flags is not None
        assert [bool(why) for why in moved.flags] == [False, True, False, False, False]
        distance = np.linalg.norm(moved.mean[1] - given.mean[1])
        assert distance > 5
        assert moved.flags[1].endswith(f"; moved by {distance:.1f} px")

    def test_a_point_that_is_not_there_says_nothing_about_the_others(self) -> None:
        flagged = flag_outliers(self.seen(stray=1, presence=0.1), model_of(), limit=6.0)
        assert flagged.flags == ("",) * 5
        # All but that one stay, as if it had been in its place.
        back = reconcile(self.seen(stray=1, presence=0.1), model_of(), weight=1.0)
        rest = [0, 2, 3, 4]
        np.testing.assert_allclose(back.mean[rest], (200 + 50 * SQUARE)[rest], atol=0.3)
