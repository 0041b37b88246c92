"""Every rule of the plan: the value, its reason, and that a recipe wins over it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

import tiny
from bregma.codecs.coordinate import CoordinateCodecConfig
from bregma.config import parse_yaml
from bregma.data.fingerprint import Fingerprint, fingerprint
from bregma.data.preprocess import reference_curve
from bregma.data.steps import ClaheConfig, HistogramMatchConfig
from bregma.errors import ConfigError
from bregma.hardware import Hardware
from bregma.networks.unet import UNetConfig
from bregma.schema import LandmarkSchema, load_schema
from bregma.training.checks import check_plan
from bregma.training.plan import Planned, flatten, make_plan, with_reference
from bregma.types import Case, Dataset, LandmarkSet

CPU = Hardware("cpu", cores=4, fast_bf16=False)
GPU = Hardware("cuda", cores=16, fast_bf16=True)


def printed(*, height: int = 500, width: int = 400, cases: tuple[Case, ...] | None = None) -> Fingerprint:
    """Return the fingerprint of 4 cases, as if their images were ``height`` x ``width``."""
    found = fingerprint(Dataset("spots", tiny.SCHEMA, tiny.cases(4) if cases is None else cases), sample=0)
    sides = {"height": height, "width": width, "long_side": max(height, width)}
    same = {name: {"min": side, "median": side, "max": side} for name, side in sides.items()}
    return Fingerprint.model_validate(found.to_dict() | same)


def planned(
    recipe: dict[str, Any] | None = None,
    *,
    found: Fingerprint | None = None,
    schema: LandmarkSchema = tiny.SCHEMA,
    images: int = 100,
    hardware: Hardware = CPU,
) -> Planned:
    return make_plan(found or printed(), schema, images, recipe=recipe, hardware=hardware)


def nearest(gap_256: float) -> Fingerprint:
    """Return a fingerprint whose landmarks are that far from their nearest neighbours, at a long side of 256 px."""
    data = printed(height=256, width=256).to_dict()
    for mark in data["landmarks"]:
        mark["nearest_256"] = gap_256
    return Fingerprint.model_validate(data)


class TestSize:
    @pytest.mark.parametrize(
        ("height", "width", "hardware", "size"),
        [
            (256, 256, CPU, (256, 256)),
            # 500 x 400 within 256²: zoom 0.5724, so 286.2 x 229.0, whose nearest multiples of 32 are 288 and 224.
            (500, 400, CPU, (288, 224)),
            # Within 512²: zoom 1 (never enlarged), so 500 x 400 and its multiples 512 and 384 (12.5 rounds to even).
            (500, 400, GPU, (512, 384)),
            (100, 100, CPU, (96, 96)),
            (40, 3000, CPU, (64, 2208)),
        ],
    )
    def test_keeps_the_proportions_within_the_budget(
        self, height: int, width: int, hardware: Hardware, size: tuple[int, int]
    ) -> None:
        plan = planned(found=printed(height=height, width=width), hardware=hardware)
        assert plan.plan.model.preprocess.size == size
        assert f"median image {height} x {width}" in plan.reasons["model.preprocess.size"]


class TestSigma:
    @pytest.mark.parametrize(("gap", "sigma"), [(5.0, 1.5), (22.0, 2.2), (200.0, 4.0)])
    def test_follows_the_nearest_landmark_within_limits(self, gap: float, sigma: float) -> None:
        plan = planned(found=nearest(gap))
        assert plan.plan.model.codec.sigma_px == sigma
        assert f"({gap:.1f} input px)" in plan.reasons["model.codec.sigma_px"]

    def test_scales_with_the_input(self) -> None:
        # 22 px at a long side of 256 are 11 px in an input of 128.
        plan = planned({"model": {"preprocess": {"size": [128, 128]}}}, found=nearest(32.0))
        assert plan.plan.model.codec.sigma_px == 1.6
        assert "(16.0 input px)" in plan.reasons["model.codec.sigma_px"]

    def test_without_labels(self) -> None:
        bare = tuple(replace(case, landmarks=None) for case in tiny.cases(2))
        plan = planned(found=printed(cases=bare))
        assert plan.plan.model.codec.sigma_px == 2.0
        assert "no labels" in plan.reasons["model.codec.sigma_px"]


class TestLoss:
    def test_cross_entropy_with_a_softmax(self) -> None:
        plan = planned()
        assert [term.name for term in plan.plan.loss] == ["cross_entropy"]
        assert plan.plan.model.codec.activation == "softmax"
        assert plan.reasons["loss"] == "cross_entropy: learns fastest from few images"

    @pytest.mark.parametrize("name", ["mse", "weighted_mse", "adaptive_wing", "peak"])
    def test_a_loss_on_map_values_makes_maps_linear(self, name: str) -> None:
        plan = planned({"loss": [{"name": name}]})
        assert plan.plan.model.codec.activation == "linear"
        assert name in plan.reasons["model.codec.activation"]
        assert plan.reasons["loss"] == "set by the recipe"

    def test_the_focal_loss_makes_every_cell_a_logit(self) -> None:
        plan = planned({"loss": [{"name": "wing"}, {"name": "focal"}]})
        assert plan.plan.model.codec.activation == "sigmoid"
        assert plan.reasons["model.codec.activation"].startswith("the loss focal learns every cell")

    def test_logits_a_cell_get_the_focal_loss(self) -> None:
        plan = planned({"model": {"codec": {"activation": "sigmoid"}}})
        assert [term.name for term in plan.plan.loss] == ["focal"]

    def test_learned_widths_get_linear_maps_and_their_price(self) -> None:
        plan = planned({"model": {"codec": {"learn_sigma": True}}})
        assert plan.plan.model.codec.activation == "linear"
        assert [term.name for term in plan.plan.loss] == ["mse", "heatmap_width"]

    def test_linear_maps_get_a_loss_on_their_values(self) -> None:
        plan = planned({"model": {"codec": {"activation": "linear"}}})
        assert [term.name for term in plan.plan.loss] == ["mse"]

    @pytest.mark.parametrize(("covariance", "name"), [(False, "wing"), (True, "gaussian_nll")])
    def test_points_are_regressed(self, covariance: bool, name: str) -> None:
        plan = planned({"model": {"codec": {"name": "coordinate", "covariance": covariance}}})
        assert [term.name for term in plan.plan.loss] == [name]
        assert "model.codec.sigma_px" not in plan.reasons

    def test_a_network_that_regresses_points_gets_the_codec_that_reads_them(self) -> None:
        plan = planned({"model": {"network": {"name": "coordinate_net"}}})
        assert plan.plan.model.codec == CoordinateCodecConfig()
        assert "coordinate_net" in plan.reasons["model.codec.name"]
        assert [term.name for term in plan.plan.loss] == ["wing"]
        part = {"network": {"name": "coordinate_net"}, "codec": {"covariance": True}}
        assert planned({"model": part}).plan.model.codec == CoordinateCodecConfig(covariance=True)

    def test_another_codec_is_honoured_and_then_refused_by_the_network(self) -> None:
        plan = planned({"model": {"network": {"name": "coordinate_net"}, "codec": {"name": "heatmap"}}}).plan
        with pytest.raises(ConfigError, match=r"'coordinate_net' gives vectors only.*heatmap"):
            check_plan(plan, tiny.SCHEMA, 4)


class TestPresence:
    def test_is_learned_where_landmarks_are_labelled_as_outside(self) -> None:
        cases = (*tiny.cases(3), tiny.case(3, status=(tiny.VISIBLE, tiny.OUTSIDE)))
        plan = planned(found=printed(cases=cases))
        assert plan.plan.model.codec.presence
        assert plan.reasons["model.codec.presence"].startswith("1 landmarks are labelled as not on the image")
        assert [term.name for term in plan.plan.loss] == ["cross_entropy", "presence"]

    def test_is_not_learned_from_unlabelled_points(self) -> None:
        cases = (*tiny.cases(3), tiny.case(3, status=(tiny.VISIBLE, tiny.UNLABELLED)))
        plan = planned(found=printed(cases=cases))
        assert not plan.plan.model.codec.presence
        assert "absence cannot be learned" in plan.reasons["model.codec.presence"]

    def test_brings_its_loss_where_a_recipe_asks_for_it(self) -> None:
        plan = planned({"model": {"codec": {"presence": True}}})
        assert [term.name for term in plan.plan.loss] == ["cross_entropy", "presence"]


class TestFlip:
    def test_never(self) -> None:
        schema = tiny.SCHEMA.model_copy(update={"flip": "never"})
        plan = planned(schema=schema)
        assert plan.plan.augment.flip == 0
        assert "flip never" in plan.reasons["augment.flip"]

    def test_left_and_right_swap(self) -> None:
        plan = planned(schema=load_schema("chest"))
        assert plan.plan.augment.flip == 0.5
        assert "flip swap" in plan.reasons["augment.flip"]

    @pytest.mark.parametrize(("facing_left", "flip"), [(0, 0.0), (2, 0.5)])
    def test_a_profile_is_flipped_only_where_the_data_face_both_ways(self, facing_left: int, flip: float) -> None:
        schema = load_schema("lumbar_lateral")
        names = len(schema)
        shape = [[10 + 3 * (i % 5), 5 + 2 * i + (i * i) % 7] for i in range(names)]
        turned = [[63 - x, y] for x, y in shape]
        cases = tuple(
            replace(case, landmarks=LandmarkSet(turned if number < facing_left else shape))
            for number, case in enumerate(tiny.cases(6))
        )
        found = fingerprint(Dataset("profiles", schema, cases), sample=0)
        plan = planned(found=found, schema=schema)
        assert plan.plan.augment.flip == flip
        assert "flip keep" in plan.reasons["augment.flip"]


class TestLength:
    @pytest.mark.parametrize(
        ("images", "epochs", "every", "warmup"),
        [
            # 16000 views of 100 images are 160 epochs of 13 steps: 60 steps are 5 epochs.
            (100, 160, 5, 100),
            # 10 images would need 1600 epochs; the most is 400, of 2 steps each.
            (10, 400, 30, 80),
            # The least is 20 epochs.
            (50_000, 20, 1, 100),
            (3, 400, 40, 40),
        ],
    )
    def test_follows_the_number_of_images(self, images: int, epochs: int, every: int, warmup: int) -> None:
        train = planned(images=images).plan.train
        assert (train.epochs, train.validate_every, train.schedule.warmup_steps) == (epochs, every, warmup)

    def test_a_recipe_s_epochs_and_batch_set_the_pace(self) -> None:
        # 40 epochs of 100 / 50 = 2 steps.
        plan = planned({"train": {"epochs": 40, "batch_size": 50}})
        assert plan.plan.train.validate_every == 4
        assert plan.plan.train.schedule.warmup_steps == 8
        assert plan.reasons["train.epochs"] == plan.reasons["train.batch_size"] == "set by the recipe"
        assert plan.reasons["train.schedule.warmup_steps"] == "a tenth of the steps, 100 at most"

    def test_phases_set_the_epochs_and_the_shortest_one_the_warm_up(self) -> None:
        # 100 images in batches of 25, two of them a step: 2 steps an epoch, 30 in the shorter phase.
        train = {"batch_size": 25, "accumulate": 2, "phases": [{"epochs": 15, "freeze": ["backbone"]}, {"epochs": 55}]}
        plan = planned({"train": train})
        assert plan.plan.train.epochs == 70
        assert plan.reasons["train.epochs"] == "the sum of train.phases"
        assert plan.plan.train.schedule.warmup_steps == 3
        assert plan.reasons["train.schedule.warmup_steps"] == "a tenth of the shortest phase's steps, 100 at most"
        assert plan.reasons["train.phases"] == "set by the recipe"

    def test_epochs_beside_phases_stretch_them(self) -> None:
        train = {"epochs": 14, "phases": [{"epochs": 15}, {"epochs": 55}]}
        assert [phase.epochs for phase in planned({"train": train}).plan.train.phases] == [3, 11]


class TestMachine:
    @pytest.mark.parametrize(
        ("hardware", "precision", "workers"),
        [
            (CPU, "32-true", 1),
            (replace(CPU, fast_bf16=True), "bf16-mixed", 1),
            (GPU, "bf16-mixed", 12),
            (Hardware("cuda", cores=6, fast_bf16=False), "32-true", 4),
            (Hardware("mps", cores=2, fast_bf16=False), "32-true", 2),
        ],
    )
    def test_precision_and_workers(self, hardware: Hardware, precision: str, workers: int) -> None:
        plan = planned(hardware=hardware)
        assert (plan.plan.train.precision, plan.plan.train.workers) == (precision, workers)
        assert f"{hardware.accelerator}" in plan.reasons["train.precision"]
        assert f"({hardware.cores} cores)" in plan.reasons["train.workers"]

    @pytest.mark.parametrize(("devices", "batch"), [(1, 8), (2, 8), (3, 9), (8, 8), (16, 16)])
    def test_the_batch_divides_among_devices(self, devices: int, batch: int) -> None:
        assert planned({"train": {"devices": devices}}).plan.train.batch_size == batch


class TestRecipe:
    def test_wins_and_is_marked(self) -> None:
        recipe = {"train": {"epochs": 7, "optimizer": {"lr": 0.01}}, "augment": {"flip": 0.25}}
        rows = planned(recipe).rows()
        for name, value in {"train.epochs": 7, "train.optimizer.lr": 0.01, "augment.flip": 0.25}.items():
            assert rows[name] == {"value": value, "reason": "set by the recipe"}
        assert rows["train.ema"] == {"value": 0.998, "reason": "default"}
        assert rows["train.workers"]["reason"].startswith("threads that keep up")

    def test_a_kind_may_be_left_out(self) -> None:
        network = planned({"model": {"network": {"encoder": "resnet34"}}}).plan.model.network
        assert (network.name, network.encoder) == ("timm_unet", "resnet34")

    def test_another_kind_replaces_the_part(self) -> None:
        recipe = {"model": {"network": {"name": "unet", "base_channels": 8}, "codec": {"name": "coordinate"}}}
        plan = planned(recipe).plan
        assert plan.model.network == UNetConfig(map_stride=2, base_channels=8)
        assert plan.model.codec.to_dict() == {"name": "coordinate", "covariance": False, "presence": False}

    def test_every_setting_has_a_row(self) -> None:
        plan = planned()
        assert plan.rows().keys() == flatten(plan.plan.to_dict()).keys()

    @pytest.mark.parametrize(
        ("text", "line", "words"),
        [
            ("train:\n  epoch: 5\n", 2, ["unknown setting 'train.epoch'", "epochs"]),
            ("train:\n  epochs: many\n", 2, ["'train.epochs'", "many"]),
            ("train:\n  epochs: 0\n", 2, ["'train.epochs'", "greater than or equal to 1"]),
            ("model:\n  preprocess: {size: 256}\n", 2, ["'model.preprocess.size'", "256"]),
            (
                "model:\n  network:\n    name: unet\n    base_chanels: 8\n",
                4,
                ["unknown setting 'model.network.ba"],
            ),
            ("model:\n  network: {name: vgg}\n", 2, ["'model.network'", "vgg", "unet"]),
            ("model:\n  codec: heatmap\n", 2, ["'model.codec'"]),
            ("loss:\n- {name: mse}\n- name: wing\n  wide: 2\n", 4, ["unknown setting 'loss.1.wide'"]),
            ("loss: []\n", 1, ["'loss'", "at least 1"]),
            ("train:\n  accelerator: tpu\n", 2, ["'train.accelerator'", "tpu"]),
            ("augment:\n  flip: .nan\n", 2, ["'augment.flip'"]),
        ],
    )
    def test_a_fault_is_named_with_its_line(self, text: str, line: int, words: list[str]) -> None:
        recipe, lines = parse_yaml(text, where="my.yaml")
        with pytest.raises(ConfigError) as caught:
            make_plan(printed(), tiny.SCHEMA, 10, recipe=recipe, where="my.yaml", lines=lines, hardware=CPU)
        message = str(caught.value)
        assert message.startswith(f"my.yaml, line {line}: ")
        for word in words:
            assert word in message


def test_flatten() -> None:
    data = {"a": 1, "b": {"c": 2, "d": {"e": [3, {"f": 4}]}}, "g": {}}
    assert flatten(data) == {"a": 1, "b.c": 2, "b.d.e": [3, {"f": 4}]}


class TestReference:
    RECIPE: ClassVar = {"model": {"preprocess": {"steps": [{"name": "clahe"}, {"name": "histogram_match"}]}}}

    def test_it_comes_from_the_cases_given_and_is_noted(self) -> None:
        found = with_reference(planned(self.RECIPE), tiny.cases(5))
        clahe, matching = found.plan.model.preprocess.steps
        assert clahe == ClaheConfig()
        assert isinstance(matching, HistogramMatchConfig)
        assert matching.reference == reference_curve(tiny.cases(5), planned(self.RECIPE).plan.model.preprocess)
        assert matching.reference != reference_curve(tiny.cases(6), planned(self.RECIPE).plan.model.preprocess)
        reason = found.rows()["model.preprocess.steps"]["reason"]
        assert reason == "set by the recipe; reference: the median foreground of 5 training images"

    def test_of_many_images_a_part_is_read(self) -> None:
        cases = tuple(replace(tiny.case(0), id=f"c{i}") for i in range(500))
        found = with_reference(planned(self.RECIPE), cases)
        assert "of 200 training images" in found.reasons["model.preprocess.steps"]

    def test_one_that_is_given_is_kept(self) -> None:
        steps = [{"name": "histogram_match", "reference": [0.1, 0.9]}]
        given = planned({"model": {"preprocess": {"steps": steps}}})
        assert with_reference(given, ()) is given

    def test_nothing_is_read_where_nothing_is_matched(self) -> None:
        plain = planned()
        assert with_reference(plain, ()) is plain


class TestOutline:
    def test_outline_is_learned_where_its_points_are_labelled(self) -> None:
        found = self._head()
        rows = planned(found=found, schema=load_schema("fetal_head")).rows()["model.codec.outline"]
        assert rows["value"] is True
        assert "on up to 3 images" in rows["reason"]

    def test_outline_is_not_learned_without_labels_of_all_its_points(self) -> None:
        rows = planned(found=self._head(placed=3), schema=load_schema("fetal_head")).rows()["model.codec.outline"]
        assert rows["value"] is False
        assert "labelled on no image" in rows["reason"]

    def test_network_with_a_map_for_each_landmark_has_none_for_outlines(self) -> None:
        recipe = {"model": {"network": {"name": "maht"}, "codec": {"exchangeable": "separate"}}}
        rows = planned(recipe, found=self._head(), schema=load_schema("fetal_head")).rows()["model.codec.outline"]
        assert rows["value"] is False

    def test_schema_without_outlines_has_no_such_row(self) -> None:
        assert "model.codec.outline" not in planned().reasons

    @staticmethod
    def _head(placed: int = 4) -> Fingerprint:
        points = np.array([[10.0, 30.0], [50.0, 30.0], [30.0, 15.0], [30.0, 45.0]])
        status = np.where(np.arange(4) < placed, tiny.VISIBLE, tiny.UNLABELLED)
        cases = [replace(case, landmarks=LandmarkSet(points, status)) for case in tiny.cases(3)]
        return fingerprint(Dataset("heads", load_schema("fetal_head"), tuple(cases)), sample=0)
