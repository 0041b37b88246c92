"""From inputs back to original images: order, and distances of what is labelled."""

from dataclasses import replace

import numpy as np
import torch

from blob_images import blob_case, blob_schema
from bregma import geometry
from bregma.codecs import Decoded
from bregma.codecs.base import EXTENT
from bregma.data.augment import Geometric
from bregma.data.loader import SampleSource
from bregma.data.preprocess import PreprocessConfig, input_matrix
from bregma.inference import in_order, predict_source, radial_errors, to_original

SHAPE = (50, 60)
POINTS = np.array([(20.0, 20.0), (45.0, 22.0), (30.0, 35.0), (32.0, 10.0)])


def test_in_order_visits_every_case_once():
    assert in_order(7, 3) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert in_order(0, 3) == []


def test_means_and_covariances_are_mapped_back_once():
    case = blob_case(POINTS, SHAPE)
    # Turned by 90° and doubled: an input x is an original -y, at half the size.
    matrix = geometry.compose(geometry.rotate(90), geometry.scale(2.0), geometry.translate(100, 10))
    cov = np.tile([[8.0, 0.0], [0.0, 4.0]], (4, 1, 1))
    got = to_original(case, matrix, geometry.apply(matrix, POINTS), cov, np.full(4, 1.0 + 1e-9), "m")
    np.testing.assert_allclose(got.mean, POINTS)
    np.testing.assert_allclose(got.cov[0], [[1, 0], [0, 2]], atol=1e-12)
    assert got.presence.max() == 1.0  # Rounding beyond 1 is no reason to fail.


class Corner:
    """Stands for a codec: every landmark at one input pixel, with the image's mean as presence."""

    def decode(self, outputs, shape):
        images = outputs["maps"]
        mean = torch.tensor([10.0, 20.0]).expand(len(images), 4, 2)
        presence = images.mean((1, 2, 3))[:, None].expand(-1, 4)
        return Decoded(mean, torch.eye(2).expand(len(images), 4, 2, 2), presence)


class Eye(torch.nn.Module):
    """Stands for a network."""

    def forward(self, image):
        return {"maps": image}


def test_predictions_come_in_order_each_through_its_own_map():
    cases = [blob_case(POINTS, (50, 60 + 10 * i), name=f"c{i}") for i in range(5)]
    config = PreprocessConfig(size=(32, 48))
    source = SampleSource(cases, blob_schema(), config)
    got = list(predict_source(Eye(), Corner(), source, device=torch.device("cpu"), batch_size=2, model="m"))
    assert [p.case_id for p in got] == [case.id for case in cases]
    for i, (case, prediction) in enumerate(zip(cases, got, strict=True)):
        back = geometry.invert(input_matrix(case.frame, config))
        np.testing.assert_allclose(prediction.mean[0], geometry.apply(back, [(10.0, 20.0)])[0], atol=1e-5)
        np.testing.assert_allclose(prediction.presence, source.sample(i).image.mean(), atol=1e-6)
        assert prediction.model == "m"


def test_radial_errors_are_distances_of_labelled_points():
    case = blob_case(POINTS, SHAPE, status=[0, 2, 1, 3])
    matrix = geometry.translate(-3.0, -4.0)
    moved = to_original(case, matrix, POINTS, np.tile(np.eye(2), (4, 1, 1)), np.ones(4), "m")
    bare = replace(case, landmarks=None)
    np.testing.assert_allclose(radial_errors([case, bare], [moved, moved]), [5.0, 5.0])
    assert radial_errors([bare], [moved]).shape == (0,)


def test_a_codec_is_told_where_the_images_lie_in_the_input():
    seen = []

    class Listening(Corner):
        def decode(self, outputs, shape):
            seen.append(outputs[EXTENT].numpy())
            return super().decode(outputs, shape)

    cases = [blob_case(POINTS, shape, name=f"c{shape}") for shape in ((50, 60), (50, 200), (200, 50))]
    source = SampleSource(cases, blob_schema(), PreprocessConfig(size=(50, 60)))
    list(predict_source(Eye(), Listening(), source, device=torch.device("cpu"), batch_size=3))
    # Fitted whole and centred: 200 columns to 60, 200 rows to 50.
    wide = (50 - 50 * 60 / 200) / 2
    tall = (60 - 50 * 50 / 200) / 2
    wanted = [(0, 0, 60, 50), (0, wide, 60, 50 - wide), (tall, 0, 60 - tall, 50)]
    np.testing.assert_allclose(seen[0] + 0.5, wanted, atol=1e-6)
    turned = Geometric(geometry.rotate(5, about=(29.5, 24.5)), False, None)
    mirrored = Geometric(geometry.flip_horizontal(60), True, None)
    for view in (turned, mirrored):
        list(predict_source(Eye(), Listening(), source.seen_through(view), device=torch.device("cpu"), batch_size=3))
    cos = np.cos(np.radians(5))
    height = seen[1][:, 3] - seen[1][:, 1]
    np.testing.assert_allclose(height, cos * (seen[0][:, 3] - seen[0][:, 1]))
    np.testing.assert_allclose(seen[2], seen[0], atol=1e-6)
