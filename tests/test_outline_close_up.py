"""An outline looked at again: what the second network learns from, and what becomes of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from bregma import geometry
from bregma.bundle import Bundle, ModelConfig, PredictConfig, build_model, load_bundle
from bregma.close_up import RefineConfig, close_up_schema, looked_at
from bregma.data.preprocess import PreprocessConfig
from bregma.errors import ConfigError, LabelError
from bregma.geometry import Frame
from bregma.phantoms import make_phantoms
from bregma.prediction.close_ups import look_again
from bregma.prediction.failure import Failure
from bregma.prediction.predictor import Predictor
from bregma.prediction.unrolling import line_cases
from bregma.schema import load_schema
from bregma.types import ArrayImage, Case, Dataset, LandmarkSet, Prediction, Status
from bregma.unrolled import OFFSETS, ROWS, SAMPLES, start_of, views_of
from bregma.workflows import train

HEAD = load_schema("fetal_head")
SKULL = HEAD.outlines[0]
CONFIG = RefineConfig()
ENDS = np.array([[60.0, 100.0], [180.0, 100.0], [120.0, 52.0], [120.0, 148.0]])
"""A head of 120 by 96 px that lies across, in the order of the schema's landmarks."""
FRAME = Frame((200, 240), (0.5, 0.5), "phantom")


def turned(degrees: float) -> np.ndarray:
    return geometry.apply(geometry.rotate(degrees, about=(120.0, 100.0)), ENDS)


class TestWhatItKnows:
    def test_samples_of_a_line(self) -> None:
        schema = close_up_schema(HEAD, CONFIG)
        assert len(schema) == SAMPLES
        assert schema.flip == "never"
        assert schema.name == "fetal_head_skull"

    def test_needs_an_outline_or_a_chain(self) -> None:
        with pytest.raises(ConfigError, match=r"hand.*no chain and 0 outlines.*refine=null"):
            looked_at(load_schema("hand"), CONFIG)

    @pytest.mark.parametrize("name", ["size", "span", "chain"])
    def test_settings_of_elements_say_nothing_of_an_outline(self, name: str) -> None:
        config = RefineConfig.model_validate({name: {"size": 64, "span": 2, "chain": "a"}[name]})
        with pytest.raises(ConfigError, match=rf"refine\.{name}.*outline"):
            looked_at(HEAD, config)

    def test_chains_come_first(self) -> None:
        spine = load_schema("spine_ap")
        assert looked_at(spine, CONFIG) is spine.chains[0]


class TestPictures:
    def test_labels_lie_where_the_picture_shows_them(self) -> None:
        y, x = np.mgrid[:200, :240].astype(np.float64)
        true = start_of(turned(25), np.ones(2))
        assert true is not None
        away = true.ellipse.distance(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
        image = 200 * np.exp(-0.5 * (away / 2) ** 2)
        case = Case("a", "s", ArrayImage(image), FRAME, LandmarkSet(turned(25)))
        cases = list(line_cases(case, HEAD, SKULL, PreprocessConfig(), copies=4, seed=3))
        assert [one.id for one in cases] == [f"a/{n}" for n in range(4)]
        assert {one.subject for one in cases} == {"s"}
        for one in cases:
            assert one.frame.shape == (ROWS, OFFSETS)
            assert one.landmarks is not None
            pixels = one.image.load().astype(np.float64)
            rows = one.landmarks.points[:, 1]
            found = (pixels * np.arange(OFFSETS)).sum(axis=1) / pixels.sum(axis=1)
            expected = np.interp(np.arange(ROWS), rows, one.landmarks.points[:, 0])
            near = (expected > 8) & (expected < OFFSETS - 9)
            near[[0, 1, -2, -1]] = False  # Beyond the outermost samples.
            assert near.mean() > 0.5
            np.testing.assert_allclose(found[near], expected[near], atol=0.5)
        first, second = (list(line_cases(case, HEAD, SKULL, PreprocessConfig(), copies=1, seed=s)) for s in (3, 4))
        assert np.array_equal(first[0].image.load(), cases[0].image.load())
        assert not np.array_equal(first[0].image.load(), second[0].image.load())

    def test_an_end_without_a_label_leaves_nothing_to_learn(self) -> None:
        bare = Case("a", "s", ArrayImage(np.zeros((200, 240))), FRAME)
        part = replace(bare, landmarks=LandmarkSet(ENDS, [0, 0, Status.UNLABELLED, 0]))
        for case in (bare, part):
            assert list(line_cases(case, HEAD, SKULL, PreprocessConfig(), copies=2, seed=0)) == []


def bundle_of() -> Bundle:
    model = ModelConfig.model_validate(
        {"preprocess": {"size": [64, 64]}, "network": {"name": "unet", "base_channels": 4, "levels": 3}}
    )
    network, codec = build_model(model, HEAD)
    return Bundle("b", HEAD, model, network, codec, {}, refine=CONFIG)


class TestLookingAlong:
    """A second network that sees the line of an ellipse that it is told."""

    CASE = Case("1", "1", ArrayImage(np.random.default_rng(0).uniform(0, 255, (200, 240))), FRAME)

    def _look(
        self, given: np.ndarray, told: np.ndarray, *, first: dict[str, Any] | None = None, fail: bool = False
    ) -> tuple[Prediction, Prediction]:
        before = Prediction("1", given, np.tile(9 * np.eye(2), (4, 1, 1)), np.ones(4), FRAME)
        before = replace(before, **(first or {}))
        start, true = start_of(given, np.ones(2)), start_of(told, np.ones(2))
        assert start is not None
        assert true is not None

        def predict(cases: Sequence[Case]) -> list[Prediction | Failure]:
            answers: list[Prediction | Failure] = []
            for case, view in zip(cases, views_of(start), strict=True):
                assert case.image.load().shape == (ROWS, OFFSETS)
                cov = np.tile(4 * np.eye(2), (SAMPLES, 1, 1))
                found = Prediction(case.id, view.line(true.ellipse), cov, np.ones(SAMPLES), case.frame)
                answers.append(Failure(case.id, "no") if fail and len(answers) == 2 else found)
            return answers

        return before, look_again(before, self.CASE, bundle_of(), predict)

    def test_the_second_look_stands(self) -> None:
        told = geometry.apply(geometry.scale(1.03, 0.98), turned(-3))
        # A first look that hardly knew where the ends lie does not hold their direction.
        before, after = self._look(ENDS, told, first={"cov": np.tile(1e4 * np.eye(2), (4, 1, 1))})
        np.testing.assert_allclose(after.mean, start_of(told, np.ones(2)).ellipse.ends, atol=0.01)  # type: ignore[union-attr]
        assert (np.linalg.det(after.cov) > 0).all()
        assert not np.allclose(after.cov, before.cov)
        assert after.presence.tolist() == before.presence.tolist()

    def test_the_order_is_that_of_all_answers(self) -> None:
        _, after = self._look(turned(80)[[1, 0, 2, 3]], turned(95))
        assert after.mean[0, 0] < after.mean[1, 0]
        assert after.mean[2, 0] < after.mean[3, 0]

    @pytest.mark.parametrize(
        "case",
        [
            {"told": geometry.apply(geometry.scale(1.4), ENDS)},
            {"told": turned(2), "fail": True},
            {"told": turned(2), "first": {"presence": np.array([1, 0.2, 1, 1])}},
            {"told": turned(2), "first": {"flags": ("the outline was not seen", "", "", "")}},
        ],
        ids=["leaves the band", "failed", "not found before", "doubted before"],
    )
    def test_where_either_is_in_doubt_the_first_look_stands(self, case: dict[str, Any]) -> None:
        before, after = self._look(ENDS, **case)
        np.testing.assert_array_equal(after.mean, before.mean)
        np.testing.assert_array_equal(after.cov, before.cov)
        doubted = after.flags is not None and "second look" in after.flags[0]
        # What speaks against the first look is told; where there was no second one, nothing does.
        assert doubted == ("first" not in case and "fail" not in case)

    def test_pixels_that_are_not_square(self) -> None:
        """The same head, seen with rows twice as far apart."""
        tall, frame = [1.0, 0.5], Frame((100, 240), (0.5, 1.0), "phantom")
        factors = np.array([np.sqrt(0.5), np.sqrt(2.0)])
        told = geometry.apply(geometry.scale(1.03, 0.98), turned(-3))
        start, true = start_of(ENDS * tall, factors), start_of(told * tall, factors)
        assert start is not None
        assert true is not None

        def predict(cases: Sequence[Case]) -> list[Prediction | Failure]:
            cov = np.tile(4 * np.eye(2), (SAMPLES, 1, 1))
            return [
                Prediction(case.id, view.line(true.ellipse), cov, np.ones(SAMPLES), case.frame)
                for case, view in zip(cases, views_of(start), strict=True)
            ]

        case = Case("1", "1", ArrayImage(np.zeros((100, 240))), frame)
        cov = np.tile(np.diag([9.0, 2.25]), (4, 1, 1))
        after = look_again(Prediction("1", ENDS * tall, cov, np.ones(4), frame), case, bundle_of(), predict)
        _, square = self._look(ENDS, told)
        np.testing.assert_allclose(after.mean, square.mean * tall, atol=0.02)
        np.testing.assert_allclose(after.cov, square.cov * np.outer(tall, tall), rtol=0.02, atol=1e-3)

    def test_settings_of_views_are_the_first_network_s_alone(self, heads: Dataset, tmp_path: Path) -> None:
        bundle = load_bundle(train(heads, tmp_path / "run", overrides=ASKED).run)
        predictor = Predictor([bundle], PredictConfig(zooms=(0.9,), shape_weight=0.0))
        (second,) = predictor._close_ups
        assert second is not None
        assert (second.settings[0].zooms, second.settings[0].shape_weight) == ((), 0)

    def test_a_diameter_of_length_zero_stays(self) -> None:
        flat = np.concatenate([ENDS[:2], ENDS[[2, 2]]])
        before = Prediction("1", flat, np.tile(np.eye(2), (4, 1, 1)), np.ones(4), FRAME)
        assert look_again(before, self.CASE, bundle_of(), lambda cases: []) is before


@pytest.fixture(scope="module")
def heads() -> Dataset:
    data = make_phantoms("fetal_head", 26, size=64, difficulty="easy")
    ids = [case.id for case in data.cases]
    return replace(data, splits={"train": tuple(ids[:20]), "val": tuple(ids[20:24]), "test": tuple(ids[24:])})


ASKED = (
    *(item for item in tiny.CLOSE_UPS if not item.startswith("refine")),
    'refine.set=["train.epochs=1", "model.network.base_channels=4"]',
)


class TestTraining:
    def test_a_run_holds_both_networks(self, heads: Dataset, tmp_path: Path) -> None:
        made = train(heads, tmp_path / "run", overrides=ASKED)
        bundle = load_bundle(made.run)
        assert bundle.close_up is not None
        assert bundle.close_up.schema.names == close_up_schema(HEAD, CONFIG).names
        assert not bundle.close_up.predict.flip
        # Eight pictures of every head.
        assert bundle.provenance["close_up"]["images"] >= 8 * 20
        assert bundle.parameters > bundle.close_up.parameters
        refined, plain = (
            list(Predictor([bundle], PredictConfig(refine=on)).predict(heads.cases[20:])) for on in (True, False)
        )
        assert all(isinstance(one, Prediction) for one in (*refined, *plain))
        before = (made.run / "close_up" / "history.csv").read_bytes()
        train(heads, tmp_path / "run", resume=True)
        assert (made.run / "close_up" / "history.csv").read_bytes() == before

    @pytest.mark.parametrize(
        ("overrides", "error", "words"),
        [
            (["refine.size=64"], ConfigError, r"refine\.size"),
            (["model.codec.name=coordinate"], ConfigError, "codec heatmap"),
            (['refine.set=["augment.nonsense=1"]'], ConfigError, "nonsense"),
            (['refine.set=["augment.rotation_deg=5"]'], ConfigError, r"augment\.rotation_deg.*stay as they are"),
            (['refine.set=["augment.flip=0.5"]'], ConfigError, r"augment\.flip.*stay as they are"),
            (['refine.set=["model.preprocess.size=[96, 96]"]'], ConfigError, "a size of its own"),
        ],
    )
    def test_what_cannot_be_is_refused_before_training(
        self, overrides: list[str], error: type[Exception], words: str, heads: Dataset, tmp_path: Path
    ) -> None:
        with pytest.raises(error, match=words):
            train(heads, tmp_path / "run", overrides=[*ASKED, *overrides])
        assert not (tmp_path / "run" / "plan.json").exists()

    def test_too_few_whole_outlines(self, heads: Dataset, tmp_path: Path) -> None:
        few = replace(heads, splits={**heads.splits, "train": heads.splits["train"][:8]})
        with pytest.raises(LabelError, match="too few outlines"):
            train(few, tmp_path / "run", overrides=[*ASKED, "train.batch_size=2"])
