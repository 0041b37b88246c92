"""What holds for every loss term: gradients, missing points, weighted sums, and what is refused."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from bregma.codecs import Labels, build_codec
from bregma.codecs.coordinate import CoordinateCodecConfig
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.errors import ConfigError
from bregma.losses import (
    ACTIVATIONS,
    LOSSES,
    AdaptiveWingConfig,
    AnatomicalConfig,
    AnyLossConfig,
    CrossEntropyConfig,
    DistanceConfig,
    FocalConfig,
    GaussianNLLConfig,
    KLConfig,
    LossInput,
    MSEConfig,
    PeakConfig,
    PresenceConfig,
    SymmetryConfig,
    WeightedMSEConfig,
    WingConfig,
    check_terms,
    total_loss,
)
from bregma.schema import load_schema, schema_from_dict
from bregma.types import OutputSpec
from loss_inputs import SCHEMA, from_leaves, loss_input, random_input, unused, value

CONFIGS = {name: TypeAdapter(AnyLossConfig).validate_python({"name": name}) for name in LOSSES}
ANATOMY = {"symmetry", "distance", "anatomical"}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences(name):
    leaves, fixed = random_input()
    fixed["placed"][0, 1] = fixed["known"][1, 2] = fixed["present"][0, 0] = 0.0
    names = list(leaves)

    def loss(*tensors):
        return LOSSES[name](CONFIGS[name], from_leaves(dict(zip(names, tensors, strict=True)), fixed))

    assert torch.autograd.gradcheck(loss, tuple(leaves.values()), eps=1e-6, atol=1e-6, fast_mode=True)
    assert loss(*leaves.values()).requires_grad


def _counts(name):
    """What says of a term which landmarks or quantities count."""
    return "values_known" if name.startswith("value_") else "known" if name == "presence" else "placed"


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("missing", [0, 2, 5, 14])
def test_a_missing_point_is_not_trained_and_changes_nothing(name, missing):
    """Whatever a missing landmark's outputs and targets hold, value and gradients are the same, and its own is 0."""
    gradients = []
    for garbage in (0.0, 1e4):
        leaves, fixed = random_input()
        fixed[_counts(name)][:, missing] = 0.0
        fixed["target_maps"][:, missing] = 0.0
        fixed["target_points"][:, missing] = fixed["target_values"][:, missing] = garbage
        with torch.no_grad():
            for given in ("maps", "points", "presence", "values"):
                leaves[given][:, missing] = garbage
        loss = LOSSES[name](CONFIGS[name], from_leaves(leaves, fixed))
        loss.backward()
        used = {key: leaf.grad for key, leaf in leaves.items() if leaf.grad is not None}
        assert used
        assert all((grad[:, missing] == 0).all() for grad in used.values())
        gradients.append({"loss": loss.detach(), **used})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - ANATOMY))
def test_the_mean_is_over_the_landmarks_that_count(name):
    """The loss with a missing landmark is that of the others alone."""
    leaves, fixed = random_input()
    fixed[_counts(name)][:, 1] = 0.0
    keep = [index for index in range(len(SCHEMA)) if index != 1]
    fewer = {key: leaf[:, keep] for key, leaf in leaves.items()}
    alone = from_leaves(fewer, {key: tensor[:, keep] for key, tensor in fixed.items()})
    assert value(CONFIGS[name], from_leaves(leaves, fixed)) == pytest.approx(value(CONFIGS[name], alone), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_any_label_gives_zero_and_no_gradient(name):
    leaves, fixed = random_input()
    fixed["placed"].zero_()
    fixed["known"].zero_()
    fixed["values_known"].zero_()
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
        maps=logits,
        target_maps=target,
        points=lambda: codec.points(outputs, (32, 64)),
        cholesky=unused,
        schema=SCHEMA,
        **plain,
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


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_map_losses_without_maps_are_refused(name):
    with pytest.raises(ConfigError, match="no maps"):
        value(CONFIGS[name], loss_input())


SOFTMAX = build_codec(HeatmapCodecConfig(presence=True), 2, 2).outputs
COORDINATES = build_codec(CoordinateCodecConfig(covariance=True), 2, 2).outputs
MAPS = OutputSpec(2)
NOTHING = schema_from_dict(
    {"name": "nothing", "title": "Nothing", "landmarks": [{"name": "a", "label": "a"}]}, where="nothing"
)


def test_check_terms_takes_what_fits():
    check_terms([CrossEntropyConfig(), KLConfig(), WingConfig(), PresenceConfig()], SOFTMAX, "softmax", SCHEMA)
    check_terms([MSEConfig(), WeightedMSEConfig(), PeakConfig(), AdaptiveWingConfig()], MAPS, "linear", SCHEMA)
    check_terms([FocalConfig(), SymmetryConfig(), DistanceConfig(), AnatomicalConfig()], MAPS, "sigmoid", SCHEMA)
    check_terms([WingConfig(), GaussianNLLConfig()], COORDINATES, None, load_schema("fetal_head"))


@pytest.mark.parametrize(
    ("terms", "outputs", "activation", "where", "words"),
    [
        ([], SOFTMAX, "softmax", "loss", "no loss"),
        ([CrossEntropyConfig()], COORDINATES, None, "loss.0", "'cross_entropy' needs the output 'maps'"),
        ([WingConfig(), FocalConfig()], COORDINATES, None, "loss.1", "'focal' needs the output 'maps'"),
        ([WingConfig(), PresenceConfig()], COORDINATES, None, "loss.1", "'presence' needs the output 'presence'"),
        ([GaussianNLLConfig()], SOFTMAX, "softmax", "loss.0", "'gaussian_nll' needs the output 'cholesky' or 'spread'"),
        ([MSEConfig()], SOFTMAX, "softmax", "loss.0", "codec.activation=linear"),
        ([PeakConfig()], SOFTMAX, "softmax", "loss.0", "codec.activation=linear"),
        ([CrossEntropyConfig()], SOFTMAX, "linear", "loss.0", "codec.activation=softmax"),
        ([KLConfig()], SOFTMAX, "sigmoid", "loss.0", "codec.activation=softmax"),
        ([FocalConfig()], SOFTMAX, "softmax", "loss.0", "codec.activation=sigmoid"),
    ],
)
def test_check_terms_refuses_what_the_codec_cannot_feed(terms, outputs, activation, where, words):
    with pytest.raises(ConfigError, match=words) as caught:
        check_terms(terms, outputs, activation, SCHEMA)
    assert caught.value.where == where
    assert caught.value.expected or caught.value.fix


@pytest.mark.parametrize(
    ("term", "schema", "where", "words"),
    [
        (SymmetryConfig(), "hand", "loss.1", "declares mirror_pairs, got the schema 'hand'"),
        (DistanceConfig(), NOTHING, "loss.1", "declares edges, got the schema 'nothing'"),
        (AnatomicalConfig(), "chest", "loss.1", "declares chains"),
        (SymmetryConfig(midline=("nose", "axis_top")), "chest", "loss.1.midline", "'nose' is not a landmark"),
        (SymmetryConfig(leave_out=("heart_left",)), "chest", "loss.1.leave_out", "'heart_left' is not a landmark"),
        (SymmetryConfig(leave_out=("left",)), SCHEMA, "loss.1", "declares mirror_pairs"),
        (SymmetryConfig(midline=("top",)), SCHEMA, "loss.1", "declares an axis"),
    ],
)
def test_check_terms_refuses_what_the_anatomy_cannot_feed(term, schema, where, words):
    anatomy = load_schema(schema) if isinstance(schema, str) else schema
    with pytest.raises(ConfigError, match=words) as caught:
        check_terms([WingConfig(), term], COORDINATES, None, anatomy)
    assert caught.value.where == where
    assert caught.value.expected


def test_the_anatomies_with_something_to_act_on_are_accepted():
    for name in ("chest", "chest_ctr", "spine_ap"):
        check_terms([SymmetryConfig()], COORDINATES, None, load_schema(name))
    for name in ("chest", "hand", "fetal_head", "lumbar_lateral"):
        check_terms([DistanceConfig()], COORDINATES, None, load_schema(name))
    for name in ("lumbar_lateral", "lumbar_mri", "spine_ap"):
        check_terms([AnatomicalConfig()], COORDINATES, None, load_schema(name))


def test_a_term_that_comes_twice_is_told_apart():
    leaves, fixed = random_input()
    x = from_leaves(leaves, fixed)
    narrow, wide = WingConfig(width=5.0), WingConfig(width=20.0)
    _, values = total_loss([narrow, MSEConfig(), wide, narrow], x)
    assert list(values) == ["wing", "mse", "wing_2", "wing_3"]
    assert values["wing"].item() == value(narrow, x)
    assert values["wing_2"].item() == value(wide, x)


def test_the_complete_loss_can_be_written_in_a_recipe():
    """Wing with 0.3 of symmetry and 0.2 of distance, as one published chest system names it."""
    rows = [{"name": "wing"}, {"name": "symmetry", "weight": 0.3}, {"name": "distance", "weight": 0.2}]
    terms = TypeAdapter(tuple[AnyLossConfig, ...]).validate_python(rows)
    check_terms(terms, COORDINATES, None, load_schema("chest"))
    leaves, fixed = random_input()
    total, values = total_loss(terms, from_leaves(leaves, fixed))
    expected = values["wing"] + 0.3 * values["symmetry"] + 0.2 * values["distance"]
    assert total.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("settings", [{"weight": 0.0}, {"weight": -1.0}, {"wieght": 1.0}])
@pytest.mark.parametrize("name", LOSSES)
def test_settings_that_make_no_sense_are_refused(name, settings):
    with pytest.raises(ValidationError):
        TypeAdapter(AnyLossConfig).validate_python({"name": name, **settings})


@pytest.mark.parametrize("name", LOSSES)
def test_every_term_is_documented_with_its_settings(name):
    page = (Path(__file__).parents[2] / "docs/reference/losses.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith((f"| `{name}`", f"`{name}`")))
    for setting in set(type(CONFIGS[name]).model_fields) - {"name", "weight"}:
        assert f"`{setting}`" in row, setting
