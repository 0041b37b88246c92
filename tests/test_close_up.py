"""Close-ups of single elements: where they look, and what comes back from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from bregma import geometry
from bregma.bundle import Bundle, ModelConfig, PredictConfig, build_model, load_bundle
from bregma.close_up import RefineConfig, chain_of, close_up_of, element_schema, render
from bregma.errors import BundleError, ConfigError, LabelError
from bregma.geometry import Frame
from bregma.instances import Instance
from bregma.phantoms import make_phantoms
from bregma.prediction.close_ups import close_up_cases, look_again
from bregma.prediction.failure import Failure
from bregma.prediction.predictor import Predictor
from bregma.schema import load_schema
from bregma.types import ArrayImage, Case, Dataset, LandmarkSet, Prediction, Status
from bregma.workflows import train

SPINE = load_schema("spine_ap")
LUMBAR = load_schema("lumbar_lateral")
CONFIG = RefineConfig()
BODY = np.array([[100.0, 50.0], [150.0, 60.0], [95.0, 80.0], [145.0, 90.0]])
"""A vertebra turned by about eleven degrees."""


class TestWhereItLooks:
    @pytest.mark.parametrize("mirrored", [False, True])
    @pytest.mark.parametrize("turn", [0.0, 35.0, -60.0])
    def test_upright_in_the_middle_and_at_one_size(self, turn: float, mirrored: bool) -> None:
        corners = geometry.apply(geometry.rotate(turn, about=(80.0, 70.0)), BODY)
        if mirrored:
            # Front and back keep their names on a mirrored lateral image.
            corners = geometry.apply(geometry.flip_horizontal(300), geometry.apply(geometry.rotate(-turn), BODY))
        view = close_up_of(corners, Frame((300, 300)), CONFIG)
        assert view is not None
        seen = geometry.apply(view.matrix, corners)
        np.testing.assert_allclose(seen.mean(axis=0), [47.5, 47.5])
        upper, lower = seen[:2].mean(axis=0), seen[2:].mean(axis=0)
        assert lower[1] > upper[1]
        axis = seen[1] - seen[0] + seen[3] - seen[2]
        assert axis[1] == pytest.approx(0, abs=1e-9)
        assert (axis[0] < 0) == mirrored
        across, down = abs(axis[0]) / 2, np.hypot(*(lower - upper))
        assert np.sqrt(across * down) == pytest.approx(96 / 3)
        assert view.element == pytest.approx(32)
        assert np.linalg.det(view.matrix) > 0

    def test_pixels_that_are_not_square_are_made_so(self) -> None:
        tall = geometry.apply(geometry.scale(1.0, 0.5), BODY)
        one = close_up_of(BODY, Frame((300, 300), (0.5, 0.5), "user"), CONFIG)
        other = close_up_of(tall, Frame((150, 300), (0.5, 1.0), "user"), CONFIG)
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(geometry.apply(other.matrix, tall), geometry.apply(one.matrix, BODY))

    def test_corners_without_extent_have_none(self) -> None:
        assert close_up_of(np.full((4, 2), 7.0), Frame((300, 300)), CONFIG) is None

    def test_a_picture_is_the_whole_image_seen_through_its_map(self) -> None:
        image = np.random.default_rng(0).uniform(0, 1, (200, 260)).astype(np.float32)
        for corners in (BODY, BODY - [90, 40], BODY + 100.0, 4 * BODY - [350, 200]):
            view = close_up_of(corners, Frame((200, 260)), CONFIG)
            assert view is not None
            expected = geometry.warp(image, view.matrix, (96, 96), fill=0.5)
            np.testing.assert_allclose(render(image, view, 96, fill=0.5), expected, atol=2e-3)
        far = close_up_of(BODY + 5000, Frame((200, 260)), CONFIG)
        assert far is not None
        assert (render(image, far, 96, fill=0.5) == 0.5).all()


class TestElements:
    def test_sides_change_places_where_they_do_on_the_whole_image(self) -> None:
        assert element_schema(SPINE, SPINE.chains[0]).flip_permutation == (1, 0, 3, 2)
        lateral = element_schema(LUMBAR, LUMBAR.chains[0])
        assert lateral.names == ("sup_ant", "sup_post", "inf_ant", "inf_post")
        assert lateral.flip_permutation == (0, 1, 2, 3)
        assert lateral.flip == LUMBAR.flip

    def test_needs_a_chain_of_corners(self) -> None:
        with pytest.raises(ConfigError, match=r"four corners.*no chain"):
            chain_of(load_schema("hand"), CONFIG)

    def test_labels_of_whole_elements_only(self) -> None:
        case = next(c for c in make_phantoms("lumbar_lateral", 3, size=128, difficulty="easy").cases if c.landmarks)
        assert case.landmarks is not None
        status = case.landmarks.status.copy()
        status[LUMBAR.index("L3_inf_ant")] = Status.UNLABELLED
        case = replace(case, landmarks=LandmarkSet(case.landmarks.points, status))
        model = ModelConfig()
        found = {c.id.partition("/")[2]: c for c in close_up_cases(case, LUMBAR, CONFIG, model.preprocess)}
        whole = {
            level
            for level in LUMBAR.chains[0].levels
            if len(LUMBAR.chains[0].parts_of(level)) == 4
            and all((status[LUMBAR.index(f"{level}_{p}")] <= Status.OCCLUDED) for p in LUMBAR.chains[0].parts)
        }
        assert found.keys() == whole
        assert "L3" not in whole
        assert "L4" in whole
        assert "S1" not in whole
        picture = found["L4"].image.load()
        assert picture.shape == (96, 96)
        assert picture.dtype == np.uint16
        assert found["L4"].subject == case.subject


def bundle_of(refine: RefineConfig | None = CONFIG) -> Bundle:
    model = ModelConfig.model_validate(
        {
            "preprocess": {"size": [64, 64]},
            "network": {"name": "unet", "base_channels": 4, "levels": 3},
            "codec": {"name": "chain"},
        }
    )
    network, codec = build_model(model, LUMBAR)
    return Bundle("b", LUMBAR, model, network, codec, {}, refine=refine)


def prediction_of(case: Case, *bodies: Instance) -> Prediction:
    n = len(LUMBAR)
    return Prediction(case.id, np.zeros((n, 2)), np.zeros((n, 2, 2)), np.zeros(n), case.frame, instances=bodies)


def body(corners: np.ndarray, level: str | None = "L4") -> Instance:
    parts, sure = tuple(LUMBAR.chains[0].parts), 0.9 if level else 0.0
    return Instance("vertebrae", parts, corners, np.tile(np.eye(2), (4, 1, 1)), np.ones(4), 0.9, level, sure)


class TestLookingAgain:
    """A second network that is a function of the close-up: it finds what it is told, in its own pixels."""

    CASE = Case("1", "1", ArrayImage(np.random.default_rng(0).uniform(0, 255, (300, 300))), Frame((300, 300)))

    def _look(self, *bodies: Instance, shift: Any = (0.0, 0.0), presence: float = 1.0, fail: bool = False) -> Any:
        views = [close_up_of(one.points, self.CASE.frame, CONFIG) for one in bodies if len(one.parts) == 4]

        def predict(cases: Sequence[Case]) -> list[Prediction | Failure]:
            assert len(cases) == len(views)
            answers: list[Prediction | Failure] = []
            for case, view, one in zip(cases, views, bodies, strict=True):
                assert view is not None
                assert case.image.load().shape == (96, 96)
                mean = geometry.apply(view.matrix, one.points + np.asarray(shift))
                cov = np.tile(4 * np.eye(2), (4, 1, 1))
                answers.append(
                    Failure(case.id, "no") if fail else Prediction("1", mean, cov, np.full(4, presence), case.frame)
                )
            return answers

        return look_again(prediction_of(self.CASE, *bodies), self.CASE, bundle_of(), predict)

    def test_points_lie_in_the_middle_and_landmarks_with_them(self) -> None:
        found = self._look(body(BODY), body(BODY + np.array([0, 60]), None), shift=(6.0, -4.0))
        np.testing.assert_allclose(found.instances[0].points, BODY + np.array([3, -2]), atol=1e-9)
        np.testing.assert_allclose(found.instances[1].points, BODY + np.array([3, 58]), atol=1e-9)
        column = LUMBAR.index("L4_sup_post")
        np.testing.assert_allclose(found.mean[column], BODY[1] + np.array([3, -2]), atol=1e-9)
        assert found.presence[column] == 1
        # The mean of both networks' own spreads, and how far they lie apart.
        scale = 32 / np.sqrt(np.hypot(*(BODY[1] - BODY[0])) * np.hypot(*(BODY[2:].mean(0) - BODY[:2].mean(0))))
        expected = np.eye(2) * (1 + 4 / scale**2) / 2 + np.outer([3, -2], [3, -2])
        np.testing.assert_allclose(found.instances[0].cov[0], expected, rtol=1e-6)

    @pytest.mark.parametrize(
        "told", [{"shift": (0.0, 40.0)}, {"shift": (6.0, -4.0), "presence": 0.3}, {"fail": True}], ids=str
    )
    def test_another_vertebra_or_none_changes_nothing(self, told: dict[str, Any]) -> None:
        found = self._look(body(BODY), **told)
        np.testing.assert_array_equal(found.instances[0].points, BODY)

    def test_elements_without_all_corners_stay(self) -> None:
        sacrum = Instance(
            "vertebrae", ("sup_ant", "sup_post"), BODY[:2], np.zeros((2, 2, 2)), np.ones(2), 0.9, "S1", 0.9
        )
        given = prediction_of(self.CASE, sacrum)
        assert look_again(given, self.CASE, bundle_of(), lambda cases: []) is given

    def test_a_bundle_without_a_second_network_says_so(self) -> None:
        with pytest.raises(BundleError, match="no network for close-ups"):
            look_again(prediction_of(self.CASE, body(BODY)), self.CASE, bundle_of(None), lambda cases: [])


@pytest.fixture(scope="module")
def phantoms() -> Dataset:
    data = make_phantoms("lumbar_lateral", 12, size=64, difficulty="easy")
    ids = [case.id for case in data.cases]
    return replace(data, splits={"train": tuple(ids[:10]), "val": tuple(ids[10:12])})


class TestTraining:
    def test_a_run_holds_both_networks_and_goes_on_where_it_stopped(self, phantoms: Dataset, tmp_path: Path) -> None:
        result = train(phantoms, tmp_path / "run", recipe="lumbar/chain", overrides=tiny.CLOSE_UPS)
        bundle = load_bundle(result.run)
        assert bundle.close_up is not None
        assert bundle.refine == RefineConfig.model_validate({"size": 32, "set": bundle.refine.set})  # type: ignore[union-attr]
        assert bundle.close_up.schema.names == tuple(LUMBAR.chains[0].parts)
        learned = bundle.provenance["close_up"]
        labelled = sum(
            (c.landmarks.status[LUMBAR.index(f"{level}_{part}")] <= Status.OCCLUDED)
            for c in phantoms.cases[:10]
            if c.landmarks is not None
            for level in LUMBAR.chains[0].levels
            for part in ("inf_post",)
            if level != "S1"
        )
        assert labelled * 0.8 <= learned["images"] <= labelled + 16
        before = (tmp_path / "run" / "close_up" / "history.csv").read_bytes()
        again = train(phantoms, tmp_path / "run", resume=True)
        assert (tmp_path / "run" / "close_up" / "history.csv").read_bytes() == before
        assert load_bundle(again.run).close_up is not None

        # What the second network says counts, and only where it is asked.
        found = body(geometry.apply(geometry.scale(0.2), BODY))
        first = prediction_of(phantoms.cases[10], found)
        second = Predictor([bundle.close_up], PredictConfig())
        moved = look_again(first, phantoms.cases[10], bundle, second.predict)
        assert moved.instances is not None
        plain, refined = (
            list(Predictor([bundle], PredictConfig(refine=asked)).predict(phantoms.cases[10:]))
            for asked in (False, True)
        )
        assert len(plain) == len(refined) == 2

        weights = result.run / "bundle" / "close_up" / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
        with pytest.raises(BundleError, match="has changed since"):
            load_bundle(result.run)

    @pytest.mark.parametrize("flip", [True, False])
    def test_mirrored_close_ups_are_looked_at_only_if_they_are_learned_from(
        self, flip: bool, phantoms: Dataset, tmp_path: Path
    ) -> None:
        asked = [*tiny.CLOSE_UPS, f"predict.flip={str(flip).lower()}", "augment.flip=0.25"]
        result = train(phantoms, tmp_path / "run", recipe="lumbar/chain", overrides=asked)
        learned = json.loads((result.run / "close_up" / "plan.json").read_text())["plan"]["augment"]["flip"]
        assert not flip or learned == 0.25
        close_up = load_bundle(result.run).close_up
        assert close_up is not None
        assert close_up.predict.flip == flip

    @pytest.mark.parametrize(
        ("overrides", "error", "words"),
        [
            (["model.codec.name=heatmap"], ConfigError, "found as such"),
            (['refine.set=["augment.nonsense=1"]'], ConfigError, "nonsense"),
            (["refine.size=50"], ConfigError, r"refine\.size"),
            (["refine.chain=ribs"], ConfigError, r"refine\.chain"),
            (["predict.flip=true", "augment.flip=0"], ConfigError, "none are learned from"),
            (
                ["predict.flip=true", "augment.flip=0.5", 'refine.set=["augment.flip=0"]'],
                ConfigError,
                r"refine\.set, predict\.flip.*none are learned from|none are learned from.*refine\.set",
            ),
            (["predict.flip=false", 'refine.set=["predict.flip=true"]'], ConfigError, "none are learned from"),
        ],
    )
    def test_what_cannot_be_is_refused_before_training(
        self, overrides: list[str], error: type[Exception], words: str, phantoms: Dataset, tmp_path: Path
    ) -> None:
        with pytest.raises(error, match=words):
            train(phantoms, tmp_path / "run", recipe="lumbar/chain", overrides=[*tiny.CLOSE_UPS, *overrides])
        assert not (tmp_path / "run" / "plan.json").exists()

    def test_too_few_whole_elements(self, phantoms: Dataset, tmp_path: Path) -> None:
        lonely = replace(phantoms, splits={"train": phantoms.splits["train"][:2], "val": phantoms.splits["val"]})
        with pytest.raises(LabelError, match="too few elements"):
            train(lonely, tmp_path / "run", recipe="lumbar/chain", overrides=[*tiny.CLOSE_UPS, "train.batch_size=2"])
