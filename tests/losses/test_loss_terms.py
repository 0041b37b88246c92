"""Losses against hand-worked values, their gradients against finite differences, and missing points without effect."""

import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from bregma.codecs import Labels, build_codec
from bregma.codecs.coordinate import CoordinateCodecConfig
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.errors import ConfigError
from bregma.losses import (
    LOSSES,
    AdaptiveWingConfig,
    AnyLossConfig,
    CrossEntropyConfig,
    GaussianNLLConfig,
    LossInput,
    MSEConfig,
    PresenceConfig,
    WeightedMSEConfig,
    WingConfig,
    check_terms,
    total_loss,
)
from bregma.types import OutputSpec

CONFIGS = {
    "mse": MSEConfig(),
    "weighted_mse": WeightedMSEConfig(),
    "adaptive_wing": AdaptiveWingConfig(),
    "cross_entropy": CrossEntropyConfig(),
    "wing": WingConfig(),
    "gaussian_nll": GaussianNLLConfig(),
    "presence": PresenceConfig(),
}


def unused():
    raise AssertionError("this term does not look at points")


def loss_input(**given):
    """A loss input of one image and one landmark, with what a test gives."""
    one = torch.ones(given.get("placed", torch.ones(1, 1)).shape)
    empty = {"maps": None, "target_maps": None, "presence": None, "points": unused, "cholesky": unused}
    plain = {"target_points": torch.zeros(*one.shape, 2), "placed": one, "present": one, "known": one}
    return LossInput(**{**empty, **plain, **given})


def maps_input(maps, target, **given):
    return loss_input(maps=torch.tensor([[maps]]), target_maps=torch.tensor([[target]]), **given)


def points_input(points, target, **given):
    return loss_input(points=lambda: torch.tensor([points]), target_points=torch.tensor([target]), **given)


def value(config, x):
    return LOSSES[config.name](config, x).item()


def random_input(seed=0, batch=2, landmarks=3, shape=(4, 5)):
    """Random outputs that ask for gradients, with plausible targets, in double precision."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(size, generator=draw, dtype=torch.float64)

    leaves = {
        "maps": normal(batch, landmarks, *shape),
        "points": 6 * normal(batch, landmarks, 2),
        "cholesky": torch.tril(0.3 * normal(batch, landmarks, 2, 2)) + 1.5 * torch.eye(2, dtype=torch.float64),
        "presence": normal(batch, landmarks),
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    fixed = {
        "target_maps": normal(batch, landmarks, *shape).sigmoid(),
        "target_points": 6 * normal(batch, landmarks, 2),
        "placed": torch.ones(batch, landmarks, dtype=torch.float64),
        "present": torch.ones(batch, landmarks, dtype=torch.float64),
        "known": torch.ones(batch, landmarks, dtype=torch.float64),
    }
    return leaves, fixed


def from_leaves(leaves, fixed):
    return LossInput(
        maps=leaves["maps"],
        presence=leaves["presence"],
        points=lambda: leaves["points"],
        cholesky=lambda: leaves["cholesky"],
        **fixed,
    )


def test_every_term_has_its_settings_and_is_tried():
    assert set(CONFIGS) == set(LOSSES)
    adapter = TypeAdapter(AnyLossConfig)
    assert {name: adapter.validate_python({"name": name}) for name in LOSSES} == CONFIGS


def test_mse_by_hand():
    # Errors 1, -2, 0, 0.5: squares 1 + 4 + 0 + 0.25 over four cells.
    assert value(MSEConfig(), maps_input([[1.0, -2.0], [0.3, 1.0]], [[0.0, 0.0], [0.3, 0.5]])) == pytest.approx(
        5.25 / 4
    )


def test_weighted_mse_by_hand():
    x = maps_input([[1.0, 0.5], [0.0, 0.0]], [[0.0, 1.0], [0.4, 0.39]])
    config = WeightedMSEConfig(threshold=0.4, background=0.5, key=2.0)
    # Background 0.5 (1 + 0.39²), key 2 (0.5² + 0.4²), over four cells.
    assert value(config, x) == pytest.approx((0.5 * (1 + 0.1521) + 2 * (0.25 + 0.16)) / 4)


def test_adaptive_wing_by_hand():
    # Wang et al. 2019, equation 3 with the paper's ω = 14, θ = 0.5, ε = 1, α = 2.1.
    # Target 0, error 0.2: 14 ln(1 + 0.2^2.1) = 14 ln(1.034053...) = 0.468806.
    near = 14 * math.log(1 + 0.2**2.1)
    assert value(AdaptiveWingConfig(), maps_input([[0.2]], [[0.0]])) == pytest.approx(near, rel=1e-5)
    # Target 1, error 1.5: the power is 1.1; A = 14 * 1.1 * 0.5^0.1 / (1 + 0.5^1.1); C = A/2 - 14 ln(1 + 0.5^1.1).
    slope = 14 / (1 + 0.5**1.1) * 1.1 * 0.5**0.1
    far = slope * 1.5 - (0.5 * slope - 14 * math.log(1 + 0.5**1.1))
    assert value(AdaptiveWingConfig(), maps_input([[-0.5]], [[1.0]])) == pytest.approx(far, rel=1e-5)


@pytest.mark.parametrize("target", [0.0, 0.6, 1.0])
def test_adaptive_wing_is_smooth_where_its_halves_meet(target):
    error = torch.tensor([0.5 - 1e-6, 0.5 + 1e-6], dtype=torch.float64, requires_grad=True)
    maps, goal = (target + error)[:, None, None, None], torch.full((2, 1, 1, 1), target, dtype=torch.float64)
    x = loss_input(maps=maps, target_maps=goal, placed=torch.ones(2, 1))
    LOSSES["adaptive_wing"](AdaptiveWingConfig(), x).backward()
    assert error.grad[0].item() == pytest.approx(error.grad[1].item(), rel=1e-4)
    both = [
        LOSSES["adaptive_wing"](AdaptiveWingConfig(), loss_input(maps=maps[i : i + 1], target_maps=goal[i : i + 1]))
        for i in (0, 1)
    ]
    assert both[0].item() == pytest.approx(both[1].item(), rel=1e-4)


def test_adaptive_wing_has_a_gradient_where_there_is_no_error():
    maps = torch.tensor([[[[1.0, 0.0, 0.4]]]], requires_grad=True)
    LOSSES["adaptive_wing"](AdaptiveWingConfig(), loss_input(maps=maps, target_maps=maps.detach().clone())).backward()
    assert (maps.grad == 0).all()
    with pytest.raises(ValidationError, match="alpha"):
        AdaptiveWingConfig(alpha=1.5)


def test_cross_entropy_by_hand():
    # Target 1 and 3 of 4; softmax of (0, ln 3) is the same quarter and three quarters, of equal logits a half each.
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert value(CrossEntropyConfig(), maps_input([[0.0, math.log(3)]], [[0.25, 0.75]])) == pytest.approx(entropy)
    assert value(CrossEntropyConfig(), maps_input([[5.0, 5.0]], [[1.0, 3.0]])) == pytest.approx(math.log(2))


def test_wing_by_hand():
    # Width 10, ε 2: 10 ln(1 + 3/2) for an error of 3; 14 - (10 - 10 ln 6) for one of 14; mean of x and y.
    x = points_input([[3.0, -14.0]], [[0.0, 0.0]])
    expected = (10 * math.log(2.5) + 14 - (10 - 10 * math.log(6))) / 2
    assert value(WingConfig(), x) == pytest.approx(expected, rel=1e-6)


def test_gaussian_nll_by_hand():
    # L = [[2, 0], [1, 3]]: Σ = [[4, 2], [2, 10]], det 36, Σ⁻¹ = [[10, -2], [-2, 4]] / 36; d = (2, -4).
    x = points_input([[2.0, -4.0]], [[0.0, 0.0]], cholesky=lambda: torch.tensor([[[[2.0, 0.0], [1.0, 3.0]]]]))
    quadratic = (10 * 4 + 2 * 2 * 2 * 4 + 4 * 16) / 36
    assert value(GaussianNLLConfig(), x) == pytest.approx(0.5 * quadratic + 0.5 * math.log(36))


def test_gaussian_nll_is_least_at_the_true_covariance():
    away = torch.randn(4000, 1, 2, generator=torch.Generator().manual_seed(0)) * 3.0
    here = {"points": lambda: away, "target_points": torch.zeros_like(away), "placed": torch.ones(4000, 1)}

    def loss(sd):
        factors = (sd * torch.eye(2)).expand(4000, 1, 2, 2)
        return value(GaussianNLLConfig(), loss_input(**here, cholesky=lambda: factors))

    assert min((2.0, 2.7, 3.0, 3.3, 4.0), key=loss) == 3.0


def test_presence_by_hand():
    # Logit ln 3 is a probability of 3/4: -ln(3/4) where present, -ln(1/4) where absent; the unknown third is left out.
    x = loss_input(
        presence=torch.tensor([[math.log(3.0), math.log(3.0), 50.0]]),
        present=torch.tensor([[1.0, 0.0, 0.0]]),
        known=torch.tensor([[1.0, 1.0, 0.0]]),
        placed=torch.tensor([[1.0, 0.0, 0.0]]),
    )
    assert value(PresenceConfig(), x) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences(name):
    leaves, fixed = random_input()
    fixed["placed"][0, 1] = fixed["known"][1, 2] = fixed["present"][0, 0] = 0.0
    names = list(leaves)

    def loss(*tensors):
        return LOSSES[name](CONFIGS[name], from_leaves(dict(zip(names, tensors, strict=True)), fixed))

    assert torch.autograd.gradcheck(loss, tuple(leaves.values()), eps=1e-6, atol=1e-6)
    assert loss(*leaves.values()).requires_grad


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("garbage", [0.0, 1e4])
def test_a_missing_point_changes_nothing_for_the_others_and_is_not_trained(name, garbage):
    """The loss with a missing landmark is that of the others alone, whatever its outputs and targets hold."""
    leaves, fixed = random_input()
    mask = "known" if name == "presence" else "placed"
    fixed[mask][:, 1] = 0.0
    fixed["target_maps"][:, 1] = 0.0
    fixed["target_points"][:, 1] = garbage
    with torch.no_grad():
        leaves["maps"][:, 1] = garbage
    loss = LOSSES[name](CONFIGS[name], from_leaves(leaves, fixed))
    loss.backward()

    keep = [0, 2]
    fewer = {key: leaf.detach()[:, keep].clone().requires_grad_() for key, leaf in leaves.items()}
    alone = LOSSES[name](CONFIGS[name], from_leaves(fewer, {key: t[:, keep] for key, t in fixed.items()}))
    alone.backward()
    assert loss.item() == pytest.approx(alone.item(), rel=1e-12)
    for key, leaf in leaves.items():
        if leaf.grad is not None:
            assert (leaf.grad[:, 1] == 0).all()
            torch.testing.assert_close(leaf.grad[:, keep], fewer[key].grad)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_any_label_gives_zero_and_no_gradient(name):
    leaves, fixed = random_input()
    fixed["placed"].zero_()
    fixed["known"].zero_()
    loss = LOSSES[name](CONFIGS[name], from_leaves(leaves, fixed))
    assert loss.item() == 0.0
    loss.backward()
    used = [leaf for leaf in leaves.values() if leaf.grad is not None]
    assert used
    assert all((leaf.grad == 0).all() for leaf in used)


def test_missing_points_do_not_dilute_the_mean():
    """One labelled landmark of many counts as much as if it were the only one."""
    maps, target = torch.randn(1, 4, 3, 3), torch.rand(1, 4, 3, 3)
    placed = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    some = value(MSEConfig(), loss_input(maps=maps, target_maps=target, placed=placed))
    alone = value(MSEConfig(), loss_input(maps=maps[:, :1], target_maps=target[:, :1]))
    assert some == pytest.approx(alone)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_maps_in_half_precision_are_compared_in_full(kind):
    maps, target = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)).to(kind), torch.rand(1, 1, 6, 6)
    for name in ("mse", "cross_entropy", "adaptive_wing"):
        half = LOSSES[name](CONFIGS[name], loss_input(maps=maps, target_maps=target))
        full = LOSSES[name](CONFIGS[name], loss_input(maps=maps.float(), target_maps=target))
        assert half.dtype == torch.float32
        assert torch.equal(half, full)


def test_the_total_is_the_weighted_sum_of_its_terms():
    leaves, fixed = random_input()
    x = from_leaves(leaves, fixed)
    terms = [MSEConfig(weight=2.0), WingConfig(weight=0.5)]
    total, values = total_loss(terms, x)
    mse, wing = value(MSEConfig(), x), value(WingConfig(), x)
    assert total.item() == pytest.approx(2 * mse + 0.5 * wing)
    assert {name: v.item() for name, v in values.items()} == pytest.approx({"mse": mse, "wing": wing})
    assert total.requires_grad
    assert not any(v.requires_grad for v in values.values())


def test_terms_over_the_codecs_themselves():
    """A perfect answer of each codec is a minimum: cross-entropy of its entropy, wing of nothing."""
    points = torch.tensor([[[20.3, 15.8], [40.1, 16.6]]])
    ones = torch.ones(1, 2)
    labels = Labels(points, ones, ones, ones, (32, 64))
    codec = build_codec(HeatmapCodecConfig(sigma_px=2.0), 2, 1)
    target = codec.encode(labels).maps
    logits = target.clamp(min=1e-30).log().requires_grad_()
    plain = {"target_points": points, "placed": ones, "present": ones, "known": ones, "presence": None}
    outputs = {"maps": logits}
    x = LossInput(
        maps=logits, target_maps=target, points=lambda: codec.points(outputs, (32, 64)), cholesky=unused, **plain
    )
    # Entropy of a Gaussian of σ = 2 in two dimensions: ln(2 π e σ²).
    total, values = total_loss([CrossEntropyConfig(), WingConfig()], x)
    assert values["cross_entropy"].item() == pytest.approx(math.log(2 * math.pi * math.e * 4), abs=1e-3)
    assert values["wing"].item() == pytest.approx(0.0, abs=0.01)
    LOSSES["cross_entropy"](CrossEntropyConfig(), x).backward()
    assert logits.grad.abs().max() < 1e-6
    assert total.item() == pytest.approx(sum(v.item() for v in values.values()))


def test_presence_without_its_output_is_refused():
    with pytest.raises(ConfigError, match="no presence") as caught:
        value(PresenceConfig(), loss_input())
    assert caught.value.fix == "set codec.presence=true"


@pytest.mark.parametrize("name", ["mse", "weighted_mse", "adaptive_wing", "cross_entropy"])
def test_map_losses_without_maps_are_refused(name):
    with pytest.raises(ConfigError, match="no maps"):
        value(CONFIGS[name], loss_input())


SOFTMAX = build_codec(HeatmapCodecConfig(presence=True), 2, 2).outputs
COORDINATES = build_codec(CoordinateCodecConfig(covariance=True), 2, 2).outputs


def test_check_terms_takes_what_fits():
    check_terms([CrossEntropyConfig(), WingConfig(), PresenceConfig()], SOFTMAX, "softmax")
    check_terms([MSEConfig(), WeightedMSEConfig(), AdaptiveWingConfig(), WingConfig()], OutputSpec(2), "linear")
    check_terms([WingConfig(), GaussianNLLConfig()], COORDINATES, None)


@pytest.mark.parametrize(
    ("terms", "outputs", "activation", "words"),
    [
        ([], SOFTMAX, "softmax", "no loss"),
        ([CrossEntropyConfig()], COORDINATES, None, "'cross_entropy' needs the output 'maps'"),
        ([WingConfig(), PresenceConfig()], COORDINATES, None, "'presence' needs the output 'presence'"),
        ([GaussianNLLConfig()], SOFTMAX, "softmax", "'gaussian_nll' needs the output 'cholesky'"),
        ([MSEConfig()], SOFTMAX, "softmax", "codec.activation=linear"),
        ([CrossEntropyConfig()], SOFTMAX, "linear", "codec.activation=softmax"),
    ],
)
def test_check_terms_refuses_what_the_codec_cannot_feed(terms, outputs, activation, words):
    with pytest.raises(ConfigError, match=words) as caught:
        check_terms(terms, outputs, activation)
    assert caught.value.where == "loss"
    assert caught.value.expected or caught.value.fix


@pytest.mark.parametrize("settings", [{"weight": 0.0}, {"weight": -1.0}, {"wieght": 1.0}])
@pytest.mark.parametrize("name", LOSSES)
def test_settings_that_make_no_sense_are_refused(name, settings):
    with pytest.raises(ValidationError):
        TypeAdapter(AnyLossConfig).validate_python({"name": name, **settings})
