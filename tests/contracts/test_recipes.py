"""Every shipped recipe plans, trains two steps on phantoms of its anatomy, and predicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bregma.bundle import Bundle, build_model
from bregma.data.fingerprint import fingerprint
from bregma.hardware import Hardware
from bregma.phantoms import PHANTOMS, make_phantoms
from bregma.prediction.predictor import Predictor
from bregma.recipe import builtin_recipes, load_recipe
from bregma.shape_model import MIN_CASES, shape_model_of
from bregma.training.loop import Trainer
from bregma.training.plan import Planned, flatten, make_plan, with_reference
from bregma.types import Dataset, Prediction
from bregma.workflows.training import as_trained

PHANTOM_OF = {
    "demo": "lumbar_lateral",
    "lumbar": "lumbar_lateral",
    "lumbar/mri": "lumbar_mri",
    "spine": "lumbar_lateral",
    "fetal": "fetal_head",
    "ceph": "hand",
    "bmd": "lumbar_mri",
}
"""Recipes that are not called like their phantom, or their folders."""

WRITTEN_SHORT = {"loss", "train.phases", "model.preprocess.steps"}
"""Lists of parts, of which a recipe leaves out what is usual."""

SMALL = (
    "model.preprocess.size=[64, 64]",
    "train.epochs=2",
    "train.batch_size=4",
    "train.accelerator=cpu",
    "train.workers=0",
    "train.devices=1",
    "predict.accelerator=cpu",
)


SMALL_NETWORK = {
    "unet": ("base_channels=8", "max_channels=64"),
    "scn": ("channels=8",),
    "simple_baseline": ("encoder=resnet18", "decoder_channels=16"),
    "hrnet": ("encoder=hrnet_w18_small",),
    "resnet_attention": ("encoder=resnet18", "decoder_channels=[32, 16, 16, 8, 8]"),
    "maht": ("encoder=resnet18", "width=32", "decoder_channels=[32, 16, 16, 8, 8]"),
}
"""Full sizes are built for their parameter counts (tests/networks)."""


@pytest.fixture(params=builtin_recipes())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def phantom_of(name: str) -> str:
    system = name.partition("/")[0]
    return PHANTOM_OF.get(name, PHANTOM_OF.get(system, system))


def phantoms(name: str, count: int = 4) -> Dataset:
    data = make_phantoms(phantom_of(name), count, size=128, difficulty="easy")
    return as_trained(data, load_recipe(name).recipe)


def small(name: str) -> tuple[str, ...]:
    """Return what makes a recipe's training one of two steps of a small network, from random weights."""
    network = load_recipe(name).recipe.model.get("network", {})
    first = ("pretrained=none",) if "pretrained" in network else ()
    changes = (*first, *SMALL_NETWORK.get(network.get("name", ""), ()))
    # Phantoms are single images; volumes go through training in tests/workflows/test_volumes.py.
    slices = ("model.preprocess.slices=1", "augment.slice_shift=0")
    return (*SMALL, *slices, *(f"model.network.{change}" for change in changes))


def planned(name: str, overrides: tuple[str, ...] = (), hardware: Hardware | None = None) -> Planned:
    loaded = load_recipe(name, overrides)
    data = phantoms(name)
    machine = hardware or Hardware("cpu", cores=2, fast_bf16=False)
    part, where, lines = loaded.recipe.plan_part(), loaded.where, loaded.lines
    plan = make_plan(fingerprint(data), data.schema, 4, recipe=part, where=where, lines=lines, hardware=machine)
    return with_reference(plan, data.cases)


def test_has_a_phantom_of_its_anatomy(name: str) -> None:
    assert phantom_of(name) in PHANTOMS


def test_says_what_it_is(name: str) -> None:
    assert load_recipe(name).recipe.title


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_every_setting_of_it_is_known_and_honoured(name: str, accelerator: str) -> None:
    recipe = load_recipe(name).recipe
    plan = planned(name, hardware=Hardware(accelerator, cores=8, fast_bf16=accelerator == "cuda"))
    values = plan.plan.to_dict()
    for setting, value in flatten(recipe.plan_part()).items():
        assert plan.reasons[setting].startswith("set by the recipe")
        found = flatten(values)[setting]
        if setting not in WRITTEN_SHORT:
            assert found == (list(value) if isinstance(value, tuple) else value), setting
    network, _ = build_model(plan.plan.model, phantoms(name, 1).schema)
    network.check_size(plan.plan.model.preprocess.size)


def test_trains_two_steps_and_predicts(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, small(name)).recipe
    plan = planned(name, small(name)).plan
    data = phantoms(name)
    trainer = Trainer(plan, data.schema, data.cases, data.cases[:2], tmp_path)
    before = {key: value.clone() for key, value in trainer.network.module.state_dict().items()}
    trained = trainer.fit()
    assert trainer.progress.step == 2
    assert [np.isfinite(row["train_loss"]) for row in trained.history] == [True] * len(trained.history)
    moved = [key for key, value in trainer.network.module.state_dict().items() if not value.equal(before[key])]
    assert moved
    network, codec = build_model(plan.model, data.schema)
    network.load_state_dict(trained.weights)
    shapes = shape_model_of(phantoms(name, MIN_CASES).cases)
    bundle = Bundle(name, data.schema, plan.model, network.eval(), codec, {}, shapes)
    found = list(Predictor([bundle], recipe.predict).predict(data.cases[:2]))
    assert all(isinstance(one, Prediction) for one in found)
    assert [one.mean.shape for one in found] == [(len(data.schema), 2)] * 2
