"""Outlines beside points: their ridge under every loss, what is masked, how they are read, and what a bundle keeps."""

import math

import numpy as np
import pytest
import torch

import tiny
from bregma.bundle import build_model, load_bundle, save_bundle
from bregma.codecs import Labels, build_codec
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.codecs.outline import first_order_distances
from bregma.ellipse import Ellipse
from bregma.losses import ACTIVATIONS, LOSSES, check_terms, total_loss
from bregma.schema import load_schema
from bregma.training.objective import Objective
from loss_inputs import loss_input

SHAPE = (128, 192)
SCHEMA = load_schema("fetal_head")
SKULL = Ellipse([95.3, 62.1], [60.0, 20.0], [-15.0, 45.0])
ANGLES = np.linspace(0, 2 * np.pi, 60, endpoint=False)


def codec_of(stride=2, schema=SCHEMA, **settings):
    return build_codec(HeatmapCodecConfig(**({"sigma_px": 3.0} | settings)), len(schema), stride, schema)


def labels_of(points=SKULL.ends, placed=(1, 1, 1, 1), known=(1, 1, 1, 1)):
    p = torch.tensor(np.asarray(points), dtype=torch.float32)[None]
    there, said = (torch.tensor([row], dtype=torch.float32) for row in (placed, known))
    return Labels(p, there, there, said, SHAPE)


def cells(points, stride):
    return (np.asarray(points) + 0.5) / stride - 0.5


def test_an_outline_asks_for_one_map_more():
    assert codec_of().outputs.maps == 3
    assert codec_of(exchangeable="separate").outputs.maps == 5
    assert codec_of(outline=False).outputs.maps == 2
    assert build_codec(HeatmapCodecConfig(), 4, 2, SCHEMA.model_copy(update={"outlines": ()})).outputs.maps == 2
    assert (
        codec_of(presence=True, spread=True).outputs.vectors
        == codec_of(presence=True, spread=True, outline=False).outputs.vectors
    )


def test_distances_are_those_of_the_geometry():
    """Against the numpy form, which is tested against the nearest point found by search."""
    rows, columns = np.mgrid[:40, :64]
    ellipse = Ellipse([30.3, 20.0], [16.0, 12.0], [-4.2, 8.6])
    given = (torch.tensor(a)[None, None] for a in (ellipse.centre, ellipse.u, ellipse.v))
    expected = ellipse.distance(np.stack([columns.ravel(), rows.ravel()], 1)).reshape(40, 64)
    np.testing.assert_allclose(first_order_distances(*given, (40, 64))[0, 0].numpy(), expected, atol=1e-9)


def test_the_centre_is_inside():
    centre = torch.tensor([[[4.0, 4.0]]])
    away = first_order_distances(centre, torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]]), (9, 9))
    assert float(away[0, 0, 4, 4]) == pytest.approx(-3.0, abs=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_ridge_follows_conjugate_diameters(stride):
    """Diameters that are no axes, as a stretched image shows them: the ridge is 1 on the curve, exp(-1/2) one σ off."""
    ridge = codec_of(stride).encode(labels_of()).maps[0, 2].numpy()
    x, y = cells(SKULL.points(ANGLES), stride).T
    inside = (x > 1) & (x < ridge.shape[1] - 2) & (y > 1) & (y < ridge.shape[0] - 2)
    near = ridge[y[inside].round().astype(int), x[inside].round().astype(int)]
    # A cell is half a diagonal from the curve at most, in units of σ.
    assert near.min() > math.exp(-0.5 * (math.sqrt(0.5) * stride / 3.0) ** 2) - 1e-3
    rows, columns = np.mgrid[: ridge.shape[0], : ridge.shape[1]]
    away = SKULL.distance((np.stack([columns.ravel(), rows.ravel()], 1) + 0.5) * stride - 0.5)
    np.testing.assert_allclose(ridge.ravel(), np.exp(-0.5 * (away / 3.0) ** 2), atol=2e-3)


@pytest.mark.parametrize("placed", [(0, 1, 1, 1), (1, 1, 1, 0)])
def test_an_outline_counts_only_where_all_its_points_are_placed(placed):
    target = codec_of().encode(labels_of(placed=placed))
    assert target.counts[0, 2] == 0
    assert torch.isfinite(target.maps).all()
    assert codec_of().encode(labels_of()).counts.tolist() == [[1.0, 1.0, 1.0]]
    separate = codec_of(exchangeable="separate").encode(labels_of(placed=placed)).counts
    assert separate.tolist() == [[*map(float, placed), 0.0]]


def test_diameters_on_a_line_draw_no_outline():
    target = codec_of().encode(labels_of([[10, 10], [50, 10], [20, 10], [30, 10]]))
    assert target.counts.tolist() == [[1.0, 1.0, 0.0]]
    assert torch.isfinite(target.maps).all()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("exchangeable", ["shared", "separate"])
def test_every_loss_on_maps_is_least_at_the_target_and_silent_where_it_is_masked(name, exchangeable):
    activation = ACTIVATIONS[name]
    codec = codec_of(4, activation=activation, exchangeable=exchangeable)
    term = next(t for t in LOSSES if t == name)
    config = _config(term)
    check_terms([config], codec.outputs, activation, SCHEMA)
    whole, partial = codec.encode(labels_of()), codec.encode(labels_of(placed=(1, 1, 0, 1), known=(1, 1, 0, 1)))
    ridge = len(whole.maps[0]) - 1
    perfect = _before(whole.maps, activation)
    worse = perfect.clone()
    worse[:, ridge] = worse[:, ridge].flip(-1)
    assert _loss(config, perfect, whole) < _loss(config, worse, whole)
    maps = (worse + 0.1).requires_grad_()
    _loss(config, maps, partial).backward()
    assert (maps.grad[:, ridge] == 0).all()
    assert (maps.grad[:, 0] != 0).any()


def _config(name):
    from bregma import losses

    kinds = {kind.model_fields["name"].default: kind for kind in vars(losses).values() if _is_term(kind)}
    return kinds[name]()


def _is_term(kind):
    from bregma.losses import LossTerm

    return isinstance(kind, type) and issubclass(kind, LossTerm) and "name" in kind.model_fields


def _loss(config, maps, target):
    x = loss_input(
        maps=maps, target_maps=target.maps, placed=target.labels.placed, counts=target.counts, peaks=target.peaks
    )
    return total_loss([config], x)[0]


def _before(maps, activation):
    """What a perfect network would answer: the target, as it is before the codec's activation."""
    if activation == "sigmoid":
        return torch.logit(maps.clamp(1e-7, 1 - 1e-6)) + math.log(9)
    return maps if activation == "linear" else maps.clamp(min=1e-30).log() + 3.0


def test_cells_that_the_outline_runs_through_are_the_positive_ones_of_a_focal_loss():
    target = codec_of(4, activation="sigmoid").encode(labels_of())
    assert target.peaks.shape == target.maps.shape
    assert (target.maps[0, 2][target.peaks[0, 2]] > math.exp(-0.5 * (0.5 * 4 / 3.0) ** 2) - 1e-3).all()
    assert int(target.peaks[0, 2].sum()) > 50


def test_learned_widths_stay_those_of_points():
    codec = codec_of(4, activation="linear", learn_sigma=True)
    assert codec.outputs.constants == {"sigma": 2}
    target = codec.encode(labels_of())
    assert target.sigma.shape == (1, 2)
    x = loss_input(
        maps=target.maps, target_maps=target.maps, placed=torch.ones(1, 4), counts=target.counts, sigma=target.sigma
    )
    # (3 px / 4)² over the cells of a map.
    assert float(LOSSES["heatmap_width"](_config("heatmap_width"), x)) == pytest.approx(0.75**2 / (32 * 48))
    outputs = {"maps": target.maps, "sigma": torch.zeros(1, 2)}
    np.testing.assert_allclose(np.sort(codec.decode(outputs, SHAPE).mean_in[0].numpy()[:, 0])[0], 35.3, atol=0.05)


def test_points_are_read_as_without_an_outline_and_its_map_sums_to_one():
    codec, alone = codec_of(), codec_of(outline=False)
    maps = _before(codec.encode(labels_of()).maps, "softmax")
    decoded, plain = codec.decode({"maps": maps}, SHAPE), alone.decode({"maps": maps[:, :2]}, SHAPE)
    assert torch.equal(decoded.mean_in, plain.mean_in)
    assert len(decoded.candidates) == 2
    (outline,) = decoded.outlines
    assert outline.ends == (0, 1, 2, 3)
    assert float(outline.p.sum()) == pytest.approx(1.0, abs=1e-4)


def head_of(schema_changes=None):
    names = {"exchangeable": (), "mirror_pairs": (), **(schema_changes or {})}
    return SCHEMA.model_copy(update=names)


def test_two_steps_make_the_loss_smaller():
    plan = tiny.plan(train={"epochs": 1})
    network, codec = build_model(plan.model, SCHEMA)
    assert codec.outputs.maps == 3
    objective = Objective(plan, codec, SCHEMA)
    torch.manual_seed(0)
    images = torch.rand(2, 1, tiny.SIZE, tiny.SIZE)
    points = torch.tensor(Ellipse([31, 30], [20, 3], [-2, 14]).ends, dtype=torch.float32).expand(2, 4, 2)
    ones = torch.ones(2, 4)
    target = codec.encode(Labels(points, ones, ones, ones, (tiny.SIZE, tiny.SIZE)))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        outputs = network(images)
        loss = total_loss(objective.terms, objective._input(outputs, target))[0]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]


def test_a_bundle_draws_the_outlines_that_it_was_trained_with(tmp_path):
    config = tiny.model_config()
    network, _ = build_model(config, SCHEMA)
    save_bundle(tmp_path / "b", name="head", schema=SCHEMA, config=config, weights=network.state_dict(), provenance={})
    bundle = load_bundle(tmp_path / "b")
    assert bundle.codec.outputs.maps == 3
    assert bundle.schema.outlines == SCHEMA.outlines
