"""A body's outline must pass through its corners, to a small part of a pixel."""

import math

import cv2
import numpy as np
import pytest

from bregma.phantoms.slip import SlipSettings, sample_slips
from bregma.phantoms.spine import build_spine, sample_spine
from bregma.phantoms.spine_xray import BodyLook, add_body
from bregma.phantoms.vertebra import body_edges, local_frame, sacral_bodies

PLAIN = BodyLook(spongy=1.0, wall=0.0, endplate=0.0, waist_mm=0.0, hollow_mm=0.0)
CORNERS = np.array([(22.3, 30.8), (78.1, 20.2), (27.9, 80.4), (84.6, 66.7)])


def edge_line(image, start, end, inside):
    """Fit a line to the places where profiles across the side ``start``-``end`` pass half of their inner level."""
    along = (end - start) / math.dist(start, end)
    normal = np.array([-along[1], along[0]])
    normal *= np.sign((inside - start) @ normal)
    steps = np.arange(-2.0, 2.0, 0.02)
    points = []
    for share in np.linspace(0.25, 0.75, 25):
        foot = start + share * (end - start)
        spots = (foot + steps[:, None] * normal).astype(np.float32)
        profile = cv2.remap(image, spots[:, :1], spots[:, 1:], cv2.INTER_LINEAR).ravel()
        level = 0.5 * profile[np.searchsorted(steps, 0.75)]
        points.append(foot + steps[np.argmax(profile >= level)] * normal)
    centre = np.mean(points, axis=0)
    direction = np.linalg.svd(np.array(points) - centre)[2][0]
    return centre, direction


def crossing(first, second):
    (p, u), (q, v) = first, second
    t = np.linalg.solve(np.column_stack([u, -v]), q - p)
    return p + t[0] * u


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, 0.61), (0.5, 0.25)])
def test_edges_found_in_the_picture_cross_in_the_corners(shift):
    quad = CORNERS + shift
    image = np.zeros((100, 110), np.float32)
    add_body(image, quad, 0.6, PLAIN)
    middle = quad.mean(axis=0)
    top, bottom = edge_line(image, quad[0], quad[1], middle), edge_line(image, quad[2], quad[3], middle)
    front, back = edge_line(image, quad[0], quad[2], middle), edge_line(image, quad[1], quad[3], middle)
    found = [crossing(top, front), crossing(top, back), crossing(bottom, front), crossing(bottom, back)]
    np.testing.assert_allclose(found, quad, atol=0.12)


def test_tilt_does_not_move_the_endplate():
    quad = np.array([(20.0, 20.0), (80.0, 20.0), (20.0, 70.0), (80.0, 70.0)])
    tilted = BodyLook(spongy=1.0, wall=0.0, endplate=0.0, waist_mm=0.0, hollow_mm=0.0, tilt_mm=2.0)
    image = np.zeros((100, 100), np.float32)
    add_body(image, quad, 1.0, tilted)
    column = image[:, 50] / image[45, 50]
    assert column[20] == pytest.approx(0.5, abs=1e-3)
    assert 0 < column[18] < 0.2
    assert 0.8 < column[22] < 1


def test_hollows_have_their_depth():
    quad = np.array([(20.0, 20.0), (80.0, 20.0), (20.0, 70.0), (80.0, 70.0)])
    edges = body_edges((100, 100), quad, 0.5, 3.0, 2.0)
    row, column = 45 - edges.rows.start, 50 - edges.columns.start
    # Half way, at 0.5 mm a pixel: wall 6 px, back wall 0.6 of it, endplates 4 px inside the straight sides.
    assert edges.front[row, column] == pytest.approx(30 - 6, abs=1e-3)
    assert edges.back[row, column] == pytest.approx(30 - 3.6, abs=1e-3)
    assert edges.top[row, column] == pytest.approx(25 - 4, abs=1e-3)
    assert edges.bottom[row, column] == pytest.approx(25 - 4, abs=1e-3)
    assert edges.top[20 - edges.rows.start, 20 - edges.columns.start] == pytest.approx(0, abs=1e-3)


def test_local_frame_lies_on_the_upper_back_corner():
    square = np.array([(0.0, 0.0), (0.0, -30.0), (25.0, 0.0), (25.0, -30.0)])
    frame = local_frame(square)
    np.testing.assert_allclose(frame @ [0, 0, 1], [0, -30, 1], atol=1e-12)
    np.testing.assert_allclose(frame @ [10, 0, 1], [0, -40, 1], atol=1e-12)
    np.testing.assert_allclose(frame @ [0, 10, 1], [10, -30, 1], atol=1e-12)


def test_sacrum_starts_at_its_endplate_and_goes_down():
    rng = np.random.default_rng(0)
    spine = build_spine(sample_spine(rng, sample_slips(rng, SlipSettings())))
    bodies = sacral_bodies(spine)
    np.testing.assert_array_equal(bodies[0][:2], spine.sacrum)
    depths = [body[:, 1].mean() for body in bodies]
    assert depths == sorted(depths)
