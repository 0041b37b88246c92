"""The curve codec: a line down the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bregma.codecs import Labels, build_codec
from bregma.codecs.curve import CurveCodecConfig
from bregma.errors import ConfigError

ROWS, COLUMNS, N = 32, 24, 8


def labels(x: torch.Tensor, placed: torch.Tensor | None = None) -> Labels:
    y = 4.0 * torch.arange(N) + 1.5
    there = torch.ones_like(x) if placed is None else placed
    return Labels(torch.stack([x, y.expand_as(x)], -1), there, there, torch.ones_like(x), (ROWS, COLUMNS))


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_drawn_is_read_again(stride: int) -> None:
    codec = build_codec(CurveCodecConfig(sigma_px=1.5), N, stride)
    x = 11.0 + 3.0 * torch.sin(torch.linspace(0, 6, N))[None]
    target = codec.encode(labels(x))
    assert target.maps is not None
    assert target.maps.shape == (1, 1, ROWS // stride, COLUMNS // stride)
    assert target.counts is not None
    assert target.counts.tolist() == [[1.0]]
    outputs = {"maps": target.maps.clamp(min=1e-9).log()}
    found = codec.decode(outputs, (ROWS, COLUMNS))
    assert found.mean_in.shape == (1, N, 2)
    assert (found.mean_in[..., 0] - x).abs().max() < 0.35
    assert torch.equal(found.mean_in[0, :, 1], 4.0 * torch.arange(N) + 1.5)
    assert torch.equal(codec.points(outputs, (ROWS, COLUMNS)), found.mean_in)
    # A map that is all that was drawn is sure to a cell.
    assert (found.cov_in[0, :, 0, 0] < 0.6 * stride**2).all()
    assert (found.presence == 1).all()


def test_a_wider_map_is_less_sure() -> None:
    codec = build_codec(CurveCodecConfig(), N, 1)
    sharp = -0.5 * ((torch.arange(COLUMNS) - 12.0) / 1.0) ** 2
    maps = torch.stack([sharp, sharp / 9]).repeat_interleave(ROWS // 2, 0)[None, None]
    cov = codec.decode({"maps": maps}, (ROWS, COLUMNS)).cov_in[0, :, 0, 0]
    assert cov[0] == pytest.approx(1 / 12)
    # Nine cells² of the map, cut at its borders, less those of the target.
    assert 4 < cov[-1] < 9


def test_a_line_of_which_a_sample_has_no_place_does_not_count() -> None:
    codec = build_codec(CurveCodecConfig(), N, 1)
    placed = torch.ones(2, N)
    placed[1, 3] = 0
    target = codec.encode(labels(torch.full((2, N), 10.0), placed))
    assert target.counts is not None
    assert target.counts.tolist() == [[1.0], [0.0]]
    assert target.maps is not None
    assert not target.maps[1].any()


def test_gradients_move_the_line_to_its_place() -> None:
    codec = build_codec(CurveCodecConfig(), N, 1)
    x = torch.full((1, N), 8.0)
    maps = torch.zeros(1, 1, ROWS, COLUMNS, requires_grad=True)
    optimizer = torch.optim.Adam([maps], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        (codec.points({"maps": maps}, (ROWS, COLUMNS))[..., 0] - x).abs().mean().backward()
        optimizer.step()
    found = codec.points({"maps": maps.detach()}, (ROWS, COLUMNS))[..., 0]
    np.testing.assert_allclose(found.numpy(), x.numpy(), atol=0.5)


def test_samples_in_other_rows_are_refused() -> None:
    codec = build_codec(CurveCodecConfig(), N, 1)
    given = labels(torch.full((1, N), 8.0))
    with pytest.raises(ConfigError, match="other rows than its own"):
        codec.encode(replace(given, points_in=given.points_in + torch.tensor([0.0, 6.0])))


def test_rows_that_cannot_be_shared() -> None:
    codec = build_codec(CurveCodecConfig(), 5, 1)
    with pytest.raises(ConfigError, match="a multiple of 5 rows, got 32"):
        codec.decode({"maps": torch.zeros(1, 1, ROWS, COLUMNS)}, (ROWS, COLUMNS))


def test_it_predicts_no_covariance_to_be_learned() -> None:
    codec = build_codec(CurveCodecConfig(), N, 1)
    with pytest.raises(ConfigError, match="no covariance"):
        codec.cholesky({}, (ROWS, COLUMNS))
