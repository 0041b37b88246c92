"""Chains on the ordinary road: what the plan takes, what is refused, and training to prediction on lumbar phantoms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from bregma.bundle import Bundle, ModelConfig, PredictConfig, build_model, load_bundle
from bregma.data.fingerprint import fingerprint
from bregma.data.loader import Batch, SampleSource, batches
from bregma.errors import ConfigError
from bregma.hardware import Hardware
from bregma.instances import Instance
from bregma.phantoms import make_phantoms
from bregma.prediction.predictor import Predictor
from bregma.schema import LandmarkSchema, load_schema
from bregma.shape_model import shape_model_of
from bregma.training.chain_errors import with_nameless
from bregma.training.checks import check_plan
from bregma.training.objective import Objective
from bregma.training.plan import Planned, check_settings, make_plan
from bregma.training.settings import Plan
from bregma.types import Dataset, LandmarkSet, Prediction, Status
from bregma.workflows import train

LUMBAR = load_schema("lumbar_lateral")
CPU = Hardware("cpu", cores=2, fast_bf16=False)


def labelled(status: Mapping[int, Mapping[str, Status]], schema: LandmarkSchema = LUMBAR, count: int = 10) -> Dataset:
    """Labels of all landmarks on some images, but for those of levels with a status of their own, by case."""
    rng = np.random.default_rng(0)
    cases = []
    for number, case in enumerate(tiny.cases(count)):
        own = np.zeros(len(schema), dtype=int)
        for level, state in status.get(number, {}).items():
            own[[i for i, name in enumerate(schema.names) if name.startswith(f"{level}_")]] = state
        cases.append(replace(case, landmarks=LandmarkSet(rng.uniform(5, 60, (len(schema), 2)), own)))
    return Dataset("spines", schema, tuple(cases))


def planned(data: Dataset, recipe: Mapping[str, Any] | None = None) -> Planned:
    return make_plan(fingerprint(data, sample=0), data.schema, len(data), recipe=recipe, hardware=CPU)


class TestPlan:
    @pytest.mark.parametrize("state", [Status.OUTSIDE, Status.UNLABELLED])
    def test_a_level_that_some_images_lack_makes_it_a_chain(self, state: Status) -> None:
        found = planned(labelled({2: {"T12": state, "L1": state}, 5: {"T12": state}}))
        assert found.plan.model.codec.name == "chain"
        assert found.reasons["model.codec.name"].startswith("T12 is not on 2 of 10 labelled images")
        assert [term.name for term in found.plan.loss] == ["focal", "offset"]
        assert found.plan.model.codec.activation == "sigmoid"

    def test_a_constant_number_stays_with_a_map_for_every_landmark(self) -> None:
        every = {number: {"T12": Status.OUTSIDE} for number in range(10)}
        for status in ({}, every):
            assert planned(labelled(status)).plan.model.codec.name == "heatmap"

    def test_a_few_gaps_are_no_chain(self) -> None:
        """One image of thirty lacks a level, less than a twentieth."""
        assert planned(labelled({0: {"T12": Status.OUTSIDE}}, count=30)).plan.model.codec.name == "heatmap"
        assert planned(labelled({0: {"T12": Status.OUTSIDE}}, count=20)).plan.model.codec.name == "chain"

    def test_levels_without_names_make_it_a_chain(self) -> None:
        chain = LUMBAR.chains[0].model_copy(update={"named": False})
        found = planned(labelled({}, LUMBAR.model_copy(update={"chains": (chain,)})))
        assert found.plan.model.codec.name == "chain"
        assert "no names" in found.reasons["model.codec.name"]

    @pytest.mark.parametrize(
        "recipe",
        [
            {"model": {"codec": {"name": "heatmap"}}},
            {"model": {"codec": {"decoder": "dark"}}},
            {"model": {"codec": {"activation": "softmax"}}},
            {"loss": [{"name": "cross_entropy"}]},
            {"loss": [{"name": "wing"}]},
            {"model": {"network": {"name": "coordinate_net"}}},
        ],
    )
    def test_a_recipe_that_asks_for_something_else_gets_it(self, recipe: dict[str, Any]) -> None:
        assert planned(labelled({2: {"T12": Status.OUTSIDE}}), recipe).plan.model.codec.name != "chain"

    def test_a_recipe_may_regress_the_maps(self) -> None:
        recipe = {"loss": [{"name": "mse"}, {"name": "offset"}]}
        found = planned(labelled({2: {"T12": Status.OUTSIDE}}), recipe)
        assert (found.plan.model.codec.name, found.plan.model.codec.activation) == ("chain", "linear")
        check_plan(found.plan, LUMBAR, 10)

    def test_slots_learn_which_of_them_are_filled(self) -> None:
        found = planned(labelled({}), {"model": {"codec": {"name": "slots", "slots": 10}}})
        assert [term.name for term in found.plan.loss] == ["cross_entropy", "presence"]
        check_plan(found.plan, LUMBAR, 10)


class TestRefused:
    @pytest.mark.parametrize(
        ("codec", "terms", "words"),
        [
            ("chain", ["focal"], "nothing trains the ways"),
            ("chain", ["offset"], "nothing trains the maps"),
            ("chain", ["focal", "offset", "wing"], "'wing' needs points"),
            ("chain", ["focal", "offset", "presence"], "'presence' needs the output 'presence'"),
            ("chain", ["focal", "offset", "anatomical"], "'anatomical' needs points"),
            ("slots", ["cross_entropy"], "nothing trains which slots are filled"),
            ("slots", ["wing", "presence"], "nothing trains the maps"),
            ("slots", ["cross_entropy", "presence", "anatomical"], "slots may show any level"),
            ("slots", ["cross_entropy", "presence", "offset"], "needs a codec that gives fields"),
        ],
    )
    def test_losses_that_do_not_fit(self, codec: str, terms: list[str], words: str) -> None:
        recipe = {"model": {"codec": {"name": codec}}, "loss": [{"name": name} for name in terms]}
        plan = planned(labelled({}), recipe).plan
        with pytest.raises(ConfigError, match=words) as caught:
            check_plan(plan, LUMBAR, 10)
        assert str(caught.value.where).startswith("loss")
        assert caught.value.fix

    @pytest.mark.parametrize("codec", ["chain", "slots"])
    def test_an_anatomy_without_a_chain(self, codec: str) -> None:
        plan = check_settings({"model": {"codec": {"name": codec}}})
        with pytest.raises(ConfigError, match="repeated structure") as caught:
            check_plan(plan, load_schema("hand"), 10)
        assert caught.value.where == "model.codec.name"
        assert "heatmap" in caught.value.fix

    @pytest.mark.parametrize("codec", ["chain", "slots"])
    def test_a_network_without_maps(self, codec: str) -> None:
        recipe = {"model": {"codec": {"name": codec}, "network": {"name": "coordinate_net", "pretrained": "none"}}}
        with pytest.raises(ConfigError, match="'coordinate_net' gives vectors only"):
            check_plan(check_settings(recipe), LUMBAR, 10)


def instance(y: float, level: str | None = None) -> Instance:
    points = np.array([(0, y), (10, y), (0, y + 6), (10, y + 6)])
    return Instance("vertebrae", tuple(LUMBAR.chains[0].parts), points, np.zeros((4, 2, 2)), np.ones(4), 1.0, level)


def test_nameless_elements_count_for_the_labels_that_they_lie_nearest_to() -> None:
    """L3 is given by name; two nameless ones lie nearer to L4 and L2, and one more would stand for nothing."""
    data = labelled({})
    case, truth = data.cases[0], np.zeros((len(LUMBAR), 2))
    status = np.full(len(LUMBAR), int(Status.OUTSIDE))
    for number, level in enumerate(("L2", "L3", "L4")):
        own = slice(LUMBAR.index(f"{level}_sup_ant"), LUMBAR.index(f"{level}_sup_ant") + 4)
        truth[own], status[own] = instance(10.0 * number).points, 0
    case = replace(case, landmarks=LandmarkSet(truth, status))
    mean, presence = np.full((len(LUMBAR), 2), 30.0), np.zeros(len(LUMBAR))
    third = slice(LUMBAR.index("L3_sup_ant"), LUMBAR.index("L3_sup_ant") + 4)
    presence[third] = 1.0
    found = (instance(22.0), instance(13.0, "L3"), instance(1.0), instance(60.0))
    n = len(LUMBAR)
    given = Prediction(case.id, mean, np.zeros((n, 2, 2)), presence, case.frame, instances=found)
    placed = with_nameless(given, case, LUMBAR)
    for level, one in (("L2", found[2]), ("L4", found[0])):
        np.testing.assert_array_equal(placed.mean[LUMBAR.index(f"{level}_sup_ant")], one.points[0])
    assert (placed.mean[third] == 30.0).all()
    assert (placed.mean[LUMBAR.index("T12_sup_ant")] == 30.0).all()
    plain = replace(given, instances=None)
    assert with_nameless(plain, case, LUMBAR) is plain


SMALL = (
    "model.preprocess.size=[64, 64]",
    *(item for item in tiny.OVERRIDES if item.startswith(("model", "train", "predict", "evaluate"))),
    "split.method=given",
)


@pytest.fixture(scope="module")
def phantoms() -> Dataset:
    data = make_phantoms("lumbar_lateral", 12, size=64, difficulty="easy")
    ids = [case.id for case in data.cases]
    return replace(data, splits={"train": tuple(ids[:10]), "val": tuple(ids[10:12])})


@pytest.mark.parametrize("name", ["chain", "slots"])
def test_recipes_train_and_predict_from_end_to_end(name: str, phantoms: Dataset, tmp_path: Path) -> None:
    result = train(phantoms, tmp_path / "run", recipe=f"lumbar/{name}", overrides=SMALL)
    bundle = load_bundle(result.run)
    assert bundle.codec.outputs.renumbered
    assert bundle.config.codec.name == name
    assert bundle.shape_weight(None) == 0.0
    views = bundle.predict.model_copy(update={"flip": True, "rotations_deg": (8.0,)})
    for settings in (bundle.predict, views):
        found = [
            one for one in Predictor([bundle], settings).predict(phantoms.cases[10:12]) if isinstance(one, Prediction)
        ]
        assert len(found) == 2
        for one in found:
            assert one.instances is not None
            named = {level for level in (i.level for i in one.instances) if level}
            given = {n.partition("_")[0] for n, p in zip(LUMBAR.names, one.presence, strict=True) if p > 0}
            assert given == named
            assert Prediction.from_dict(one.to_dict()).instances == one.instances


def chain_model() -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "preprocess": {"size": [64, 64]},
            "network": {"name": "unet", "base_channels": 8, "levels": 3, "map_stride": 2},
            "codec": {"name": "chain", "sigma_px": 1.5},
        }
    )


def test_two_images_are_learned_by_heart(phantoms: Dataset) -> None:
    """A network small enough for seconds finds every vertebra of the images that it was shown, by name.

    So does an ensemble, and its elements follow the landmarks that a shape model moves.
    """
    plan = Plan.model_validate({"model": chain_model().to_dict(), "loss": [{"name": "focal"}, {"name": "offset"}]})
    torch.manual_seed(0)
    network, codec = build_model(plan.model, LUMBAR)
    objective = Objective(plan, codec, LUMBAR)
    cases = [case for case in phantoms.cases if case.landmarks is not None and case.landmarks.labelled.all()][:2]
    (batch,) = batches(SampleSource(cases, LUMBAR, plan.model.preprocess), [(0, 1)], workers=0)
    losses = _overfit(network, objective, batch, steps=120)
    assert losses[-1] < 0.1 * losses[0]
    shapes = shape_model_of(phantoms.cases)
    bundle = Bundle("heart", LUMBAR, plan.model, network.eval(), codec, {}, shapes)
    for bundles, shape_weight in (([bundle], None), ([bundle, bundle], 0.001)):
        config = PredictConfig(accelerator="cpu", shape_weight=shape_weight)
        for case, one in zip(cases, Predictor(bundles, config).predict(cases), strict=True):
            assert isinstance(one, Prediction)
            assert case.landmarks is not None
            assert one.instances is not None
            assert [i.level for i in one.instances] == [*LUMBAR.chains[0].levels]
            assert np.linalg.norm(one.mean - case.landmarks.points, axis=1).mean() < 1.5
            for i in one.instances:
                own = [LUMBAR.index(f"{i.level}_{part}") for part in i.parts]
                np.testing.assert_allclose(i.points, one.mean[own], atol=1e-9)


def _overfit(network: torch.nn.Module, objective: Objective, batch: Batch, steps: int) -> list[float]:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss, _ = objective(network(batch.images), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
