"""Prediction: views and ensembles agree on where things are, and one bad image costs only itself."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from blob_images import LEFT, MIDDLE, RIGHT, TOP, blob_case, blob_schema, centroid
from bregma.bundle import Bundle, ModelConfig, PredictConfig, build_model
from bregma.codecs import Decoded
from bregma.data.preprocess import PreprocessConfig
from bregma.errors import BundleError, ImageError
from bregma.geometry import Frame
from bregma.networks.unet import UNetConfig
from bregma.prediction import predictor
from bregma.prediction.failure import Failure
from bregma.prediction.predictor import Predictor, mixture, unflip
from bregma.shape_model import ShapeModel
from bregma.types import ArrayImage, OutputSpec, Prediction

SHAPE = (170, 200)
POINTS = np.array([(60.0, 70.0), (140.0, 80.0), (95.0, 115.0), (110.0, 50.0)])
SIZE = (128, 160)
SCALE = 128 / 170
"""Of the letterbox from SHAPE to SIZE."""


class Eye(torch.nn.Module):
    """Stands for a network: shows the codec the image itself."""

    def forward(self, image):
        return {"maps": image}


@dataclass(frozen=True)
class BlobFinder:
    """Stands for a codec: finds the four blobs of an image, and names them by place or by brightness."""

    by: str = "place"
    offset: tuple = (0.0, 0.0)
    cov: tuple = ((1.0, 0.0), (0.0, 1.0))
    outputs = OutputSpec()

    def decode(self, outputs, shape):
        images = outputs["maps"][:, 0].numpy()
        assert images.shape[1:] == shape
        mean = np.stack([self._named(image) for image in images]) + self.offset
        cov = torch.tensor(self.cov).expand(len(mean), 4, 2, 2)
        return Decoded(torch.tensor(mean), cov, torch.full((len(mean), 4), 0.75))

    def _named(self, image):
        if not image.any():
            return np.full((4, 2), np.nan)  # A network gone wrong.
        found = _blobs(image)  # Brightest first: left, top, right, middle.
        if self.by == "brightness":
            return found[[0, 2, 3, 1]]
        order = np.empty(4, int)
        order[[LEFT, RIGHT]] = found[:, 0].argmin(), found[:, 0].argmax()
        inner = [i for i in range(4) if i not in order[[LEFT, RIGHT]]]
        order[[TOP, MIDDLE]] = sorted(inner, key=lambda i: found[i, 1])
        return found[order]


def _blobs(image):
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    left, found = image.copy(), []
    for _ in range(4):
        row, column = np.unravel_index(left.argmax(), left.shape)
        found.append(centroid(image, (column, row), radius=7))
        left[np.hypot(x - column, y - row) < 9] = 0
    return np.array(found)


def stub(codec=None, *, flip="swap", name="stub", size=SIZE, fit="letterbox"):
    config = ModelConfig(preprocess=PreprocessConfig(size=size, fit=fit, percentiles=(0, 100)))
    return Bundle(name, blob_schema(flip), config, Eye(), codec or BlobFinder(), {})


def predict(cases, *bundles, **settings):
    return list(Predictor(bundles or (stub(),), PredictConfig(accelerator="cpu", **settings)).predict(cases))


def assert_found(prediction, points=POINTS, atol=0.1):
    assert isinstance(prediction, Prediction)
    np.testing.assert_allclose(prediction.mean, points, atol=atol)


def test_points_come_back_in_pixels_of_the_original_image():
    case = blob_case(POINTS, SHAPE, spacing=(0.3, 0.3))
    (prediction,) = predict([case])
    assert_found(prediction)
    assert prediction.frame is case.frame
    assert (prediction.case_id, prediction.model, prediction.calibration) == ("a", "stub", "none")
    # One input px² is 1 / 0.753² original px².
    np.testing.assert_allclose(prediction.cov, np.tile(np.eye(2) / SCALE**2, (4, 1, 1)), rtol=1e-6)
    np.testing.assert_allclose(prediction.presence, 0.75)


VIEWS = [
    {"rotations_deg": (-12.0, 8.0)},
    {"zooms": (0.8, 1.15)},
    {"flip": True},
    {"rotations_deg": (10.0,), "zooms": (0.9,), "flip": True},
]


@pytest.mark.parametrize("settings", VIEWS)
@pytest.mark.parametrize(("flip", "by"), [("swap", "place"), ("keep", "brightness")])
@pytest.mark.parametrize("spacing", [None, (0.5, 0.7)])
def test_every_view_finds_the_same_places(settings, flip, by, spacing):
    case = blob_case(POINTS, SHAPE, spacing=spacing)
    bundle = stub(BlobFinder(by), flip=flip)
    (prediction,) = predict([case], bundle, **settings)
    assert_found(prediction)
    # Every view has 1 input px², which a zoom makes z^-2 of that; views that disagreed would add to it.
    (alone,) = predict([case], bundle)
    widths = [1.0] * (1 + len(settings.get("rotations_deg", ()))) + [z**-2 for z in settings.get("zooms", ())]
    np.testing.assert_allclose(prediction.cov, alone.cov * np.mean(widths), atol=0.02)


def test_a_turned_views_covariance_is_turned_back():
    # A square input of a square image, scale 1: 4 px² along x in the plain view, along y in the one turned by 90°.
    points = np.array([(40.0, 64.0), (90.0, 66.0), (64.0, 95.0), (66.0, 35.0)])
    bundle = stub(BlobFinder("brightness", cov=((4.0, 0.0), (0.0, 1.0))), size=(128, 128))
    (prediction,) = predict([blob_case(points, (128, 128))], bundle, rotations_deg=(90.0,))
    assert_found(prediction, points)
    np.testing.assert_allclose(prediction.cov, np.tile(np.eye(2) * 2.5, (4, 1, 1)), atol=0.01)


def test_views_are_those_asked_for_and_flips_only_where_the_schema_allows_them():
    config = PredictConfig(rotations_deg=(-10.0, 10.0), zooms=(0.9,), flip=True)
    views = predictor.test_views(config, blob_schema("swap"), SIZE)
    assert [view.flip for view in views] == [False] * 4 + [True] * 4
    np.testing.assert_array_equal(views[0].matrix, np.eye(3))
    centre = np.array([79.5, 63.5, 1.0])
    for view in views:
        np.testing.assert_allclose(view.matrix @ centre, centre, atol=1e-9)
    assert len(predictor.test_views(config, blob_schema("never"), SIZE)) == 4
    assert len(predictor.test_views(PredictConfig(), blob_schema("swap"), SIZE)) == 1


def prediction_of(mean, cov, presence, name="a"):
    count = len(mean)
    return Prediction(name, np.array(mean), np.array(cov), np.full(count, presence), Frame(SHAPE), "m")


def test_a_mixture_by_hand():
    one = prediction_of([(0.0, 0.0), (5.0, 5.0)], [np.eye(2), np.eye(2)], 0.9)
    two = prediction_of([(2.0, -4.0), (5.0, 5.0)], [3 * np.eye(2), [[5.0, 2.0], [2.0, 3.0]]], 0.5)
    both = mixture([one, two])
    np.testing.assert_allclose(both.mean, [(1, -2), (5, 5)])
    # Mean covariance 2 I, and the means lie at ± (1, -2): [[1, -2], [-2, 4]] between them.
    np.testing.assert_allclose(both.cov[0], [[3, -2], [-2, 6]])
    np.testing.assert_allclose(both.cov[1], [[3, 1], [1, 2]])
    np.testing.assert_allclose(both.presence, 0.7)


def test_a_mixture_has_the_moments_of_draws_from_its_parts():
    rng = np.random.default_rng(0)
    covs = [np.array([[4.0, 1.0], [1.0, 2.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]]), np.eye(2)]
    means = [(0.0, 0.0), (3.0, 1.0), (-2.0, 4.0)]
    draws = np.concatenate([rng.multivariate_normal(m, c, 40000) for m, c in zip(means, covs, strict=True)])
    both = mixture([prediction_of([m], [c], 1.0) for m, c in zip(means, covs, strict=True)])
    np.testing.assert_allclose(both.mean[0], draws.mean(0), atol=0.05)
    np.testing.assert_allclose(both.cov[0], np.cov(draws.T), atol=0.1)


def test_a_mixture_of_one_is_itself():
    one = prediction_of([(0.0, 0.0)], [np.eye(2)], 0.9)
    assert mixture([one]) is one


def test_unflip_gives_names_back():
    mean = [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (4.0, 0.0)]
    cov = [np.eye(2) * (i + 1) for i in range(4)]
    seen = replace(prediction_of(mean, cov, 1.0), presence=np.array([0.1, 0.2, 0.3, 0.4]))
    back = unflip(seen, blob_schema("swap"))
    assert back.mean[:, 0].tolist() == [2, 1, 3, 4]
    assert back.cov[:, 0, 0].tolist() == [2, 1, 3, 4]
    assert back.presence.tolist() == [0.2, 0.1, 0.3, 0.4]
    assert unflip(seen, blob_schema("keep")).mean[:, 0].tolist() == [1, 2, 3, 4]


def test_an_ensemble_is_the_mixture_of_its_members_whatever_their_sizes():
    # Each is 2 input px off, in opposite directions; on the larger input these are half as many original pixels.
    small = stub(BlobFinder(offset=(2.0, 0.0)), name="small")
    large = stub(BlobFinder(offset=(-4.0, 0.0)), name="large", size=(256, 320))
    case = blob_case(POINTS, SHAPE)
    (prediction,) = predict([case], small, large)
    assert_found(prediction)
    assert prediction.model == "small+large"
    within = (1 / SCALE**2 + 1 / (2 * SCALE) ** 2) / 2
    expected = np.diag([within + (2 / SCALE) ** 2, within])
    np.testing.assert_allclose(prediction.cov, np.tile(expected, (4, 1, 1)), atol=0.3)


class Broken:
    """An image that cannot be read."""

    path = None

    def load(self):
        raise ImageError("the file ends too early", where="broken.png")


def mixed_cases():
    """Good images at 0, 3 and 6; between them every way in which one can fail."""
    good = [blob_case(POINTS + i, SHAPE, name=f"good{i}") for i in range(3)]
    hole = good[0].image.load().copy()
    hole[0, 0] = np.nan
    return [
        good[0],
        replace(good[0], id="unreadable", image=Broken()),
        replace(good[0], id="hole", image=ArrayImage(hole)),
        good[1],
        replace(good[0], id="wide", frame=Frame((170, 201))),
        replace(good[0], id="constant", image=ArrayImage(np.ones(SHAPE))),  # Makes the stub answer NaN.
        good[2],
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_bad_image_among_good_ones_fails_alone_and_in_its_place(batch_size):
    results = predict(mixed_cases(), batch_size=batch_size, flip=True)
    assert [type(r) for r in results] == [Prediction, Failure, Failure, Prediction, Failure, Failure, Prediction]
    for i, index in enumerate((0, 3, 6)):
        assert results[index].case_id == f"good{i}"
        assert_found(results[index], POINTS + i)
    reasons = {r.case_id: r.reason for r in results if isinstance(r, Failure)}
    assert list(reasons) == ["unreadable", "hole", "wide", "constant"]
    assert reasons["unreadable"] == "broken.png: the file ends too early"
    for name, words in {"hole": "not finite", "wide": "frame", "constant": "not finite"}.items():
        assert words in reasons[name]


def test_bad_images_only_give_failures_only():
    assert [type(r) for r in predict([mixed_cases()[1], mixed_cases()[4]])] == [Failure, Failure]
    assert predict([]) == []


def test_images_of_one_name_are_not_taken_for_each_other():
    """Two folders may hold files of the same name."""
    cases = [blob_case(POINTS, SHAPE, name="001"), blob_case(POINTS + 4, SHAPE, name="001")]
    first, second = predict(cases)
    assert_found(first)
    assert_found(second, POINTS + 4)


def test_order_is_kept_over_many_chunks_and_images_are_read_as_they_are_needed():
    reads = []

    class Lazy(ArrayImage):
        def load(self):
            reads.append(1)
            return self.array

    points = POINTS / 2

    def stream():
        for i in range(70):
            case = blob_case(points + i % 5, (85, 100), name=f"c{i}", sigma=2.0)
            yield replace(case, image=Lazy(case.image.array))

    stubbed = stub(size=(80, 96))
    results = Predictor([stubbed], PredictConfig(accelerator="cpu")).predict(stream())
    first = next(results)
    assert first.case_id == "c0"
    assert len(reads) == predictor.CHUNK
    rest = list(results)
    assert [r.case_id for r in rest] == [f"c{i}" for i in range(1, 70)]
    for i, result in enumerate(rest, start=1):
        assert_found(result, points + i % 5, atol=0.2)
    assert len(reads) == 70


def test_a_real_model_predicts_the_same_alone_and_in_a_batch():
    schema = blob_schema()
    config = ModelConfig(
        preprocess=PreprocessConfig(size=(32, 48)), network=UNetConfig(base_channels=4, levels=3, map_stride=1)
    )
    torch.manual_seed(0)
    network, codec = build_model(config, schema)
    bundle = Bundle("unet", schema, config, network.eval(), codec, {})
    cases = [blob_case(POINTS * 0.2 + i, (34, 50), name=f"c{i}", sigma=1.5) for i in range(5)]
    together, alone = predict(cases, bundle, flip=True), predict(cases, bundle, flip=True, batch_size=1)
    for one, two in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.mean, two.mean, atol=0.05)
        assert np.linalg.eigvalsh(one.cov).min() > 0


def blob_shapes(sd=0.02):
    size = np.sqrt(((POINTS - POINTS.mean(axis=0)) ** 2).sum(axis=1).mean())
    return ShapeModel((POINTS - POINTS.mean(axis=0)) / size, sd**2 * np.eye(8), 50)


def test_points_give_way_to_the_shapes_seen_in_training_where_that_is_asked_for():
    seen = POINTS + np.array([(0, 0), (0, 0), (0, 0), (9.0, 0)])
    case = blob_case(seen, SHAPE)
    bundle = replace(stub(BlobFinder(cov=((9.0, 0.0), (0.0, 9.0)))), shape_model=blob_shapes())
    (asis,) = predict([case], bundle, shape_weight=0)
    (pulled,) = predict([case], bundle, shape_weight=1.0, flip=True)
    (both,) = predict([case], bundle, bundle, shape_weight=1.0)
    assert_found(asis, seen)
    for prediction in (pulled, both):
        assert np.linalg.norm(prediction.mean - POINTS, axis=1).max() < 5
        np.testing.assert_allclose(prediction.mean, both.mean, atol=0.1)
    assert pulled.mean[3, 0] < seen[3, 0] - 2
    # Narrower intervals would be right only if points erred independently.
    assert np.trace(pulled.cov, axis1=1, axis2=2) == pytest.approx(np.trace(asis.cov, axis1=1, axis2=2), rel=0.05)


def test_a_stray_point_is_called_back_unasked_and_clear_ones_stay():
    """One point taken for something far off, by a network that knows that it is unsure of it."""

    @dataclass(frozen=True)
    class Unsure(BlobFinder):
        def decode(self, outputs, shape):
            found = super().decode(outputs, shape)
            cov = found.cov_in.clone()
            cov[:, 3] = 400 * torch.eye(2)
            return replace(found, cov_in=cov)

    case = blob_case(POINTS + np.array([(0, 0), (0, 0), (0, 0), (30.0, 0)]), SHAPE)
    (prediction,) = predict([case], replace(stub(Unsure()), shape_model=blob_shapes(0.005)))
    assert np.linalg.norm(prediction.mean[:3] - POINTS[:3], axis=1).max() < 0.5
    assert np.linalg.norm(prediction.mean[3] - POINTS[3]) < 10


def test_a_bundle_without_a_shape_model_is_refused_by_name():
    whole = replace(stub(name="whole"), shape_model=blob_shapes())
    with pytest.raises(BundleError, match=r"^bare: there is no shape model.*shape_weight to 0"):
        predict([], whole, stub(name="bare"), shape_weight=0.5)


def test_no_bundle_is_refused():
    with pytest.raises(BundleError, match="no bundle"):
        Predictor([])


def test_bundles_of_different_anatomies_are_refused_by_name():
    with pytest.raises(BundleError, match="different schemas") as caught:
        Predictor([stub(name="one"), stub(name="two", flip="keep")])
    assert caught.value.got == "one (blobs), two (blobs)"


@pytest.mark.parametrize("settings", [{"zooms": (0.0,)}, {"zooms": (-1.0,)}, {"batch_size": 0}, {"flips": True}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError):
        PredictConfig(**settings)
