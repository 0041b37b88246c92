"""A bundle gives the same predictions wherever it is loaded, or says why it cannot be trusted."""

from __future__ import annotations

import errno
import json
import os
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bregma.bundle
import tiny
from bregma.bundle import FORMAT, Bundle, PredictConfig, build_model, find_bundle, load_bundle, save_bundle
from bregma.errors import BundleError, RunError
from bregma.files import sha256_file
from bregma.networks import encoders
from bregma.prediction.predictor import Predictor
from bregma.schema import load_schema
from bregma.shape_model import ShapeModel

CONFIG = tiny.model_config(codec={"presence": True})


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    network, _ = build_model(CONFIG, tiny.SCHEMA)
    # Positive throughout, because some of them are variances.
    return {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in network.state_dict().items()}


def save(folder: Path, *, seed: int = 0, name: str = "spots", shapes: ShapeModel | None = None) -> Path:
    save_bundle(
        folder,
        name=name,
        schema=tiny.SCHEMA,
        config=CONFIG,
        weights=weights(seed),
        provenance={"seed": seed, "data": {"license": "CC0-1.0"}},
        shape_model=shapes,
    )
    return folder


def shapes_of(landmarks: int) -> ShapeModel:
    rng = np.random.default_rng(0)
    root = rng.normal(0, 1, (2 * landmarks, 2 * landmarks))
    return ShapeModel(rng.normal(0, 1, (landmarks, 2)), root @ root.T, 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "bundle")


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps(change(data) or data))


def sign(folder: Path) -> None:
    """Make the hashes fit again, as somebody would who forges a bundle."""
    names = [path.name for path in folder.iterdir() if path.name != "bundle.json"]
    edit(folder / "bundle.json", lambda data: data["sha256"].update({n: sha256_file(folder / n) for n in names}))


class TestRoundTrip:
    def test_predictions_are_identical(self, folder: Path) -> None:
        loaded = load_bundle(folder)
        network, codec = build_model(CONFIG, tiny.SCHEMA)
        network.load_state_dict(weights())
        made = Bundle("made", tiny.SCHEMA, CONFIG, network.eval(), codec, {})
        config = PredictConfig(accelerator="cpu")
        for a, b in zip(*(Predictor([one], config).predict(tiny.cases(3)) for one in (loaded, made)), strict=True):
            for field in ("mean", "cov", "presence"):
                np.testing.assert_array_equal(getattr(a, field), getattr(b, field))

    def test_everything_else_comes_back(self, folder: Path) -> None:
        loaded = load_bundle(folder)
        assert loaded.schema == tiny.SCHEMA
        assert loaded.config == CONFIG
        assert loaded.provenance == {"seed": 0, "data": {"license": "CC0-1.0"}}
        assert loaded.name == f"spots@{sha256_file(folder / 'weights.safetensors')[:8]}"
        assert not any(module.training for module in loaded.network.modules())
        assert repr(loaded) == f"Bundle('{loaded.name}', LandmarkSchema('spots', 2 landmarks))"

    def test_a_shape_model_comes_back(self, tmp_path: Path) -> None:
        shapes = shapes_of(len(tiny.SCHEMA))
        loaded = load_bundle(save(tmp_path / "bundle", shapes=shapes)).shape_model
        assert loaded is not None
        np.testing.assert_array_equal(loaded.cov, shapes.cov)
        assert load_bundle(save(tmp_path / "bundle")).shape_model is None

    def test_the_run_folder_serves_too(self, folder: Path) -> None:
        assert find_bundle(folder.parent) == folder
        assert load_bundle(str(folder.parent)).schema == tiny.SCHEMA

    def test_channels_last_weights(self, tmp_path: Path) -> None:
        turned = {n: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in weights().items()}
        save_bundle(tmp_path / "b", name="x", schema=tiny.SCHEMA, config=CONFIG, weights=turned, provenance={})
        back = load_bundle(tmp_path / "b").network.state_dict()
        for name, tensor in weights().items():
            assert torch.equal(back[name], tensor)

    def test_nothing_in_it_is_a_pickle(self, folder: Path) -> None:
        assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "schema.json", "weights.safetensors"]
        for path in folder.iterdir():
            with pytest.raises((ValueError, IndexError)):
                list(pickletools.genops(path.read_bytes()))

    @pytest.mark.parametrize("asked", ["c3_in1k", "auto", "gone.safetensors"])
    def test_first_weights_are_not_fetched(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
        network = {"name": "timm_unet", "encoder": "resnet10t", "map_stride": 4, "decoder_channels": [8, 8, 8, 8]}
        config = bregma.bundle.ModelConfig.model_validate({**CONFIG.to_dict(), "network": network})
        built, _ = build_model(config, tiny.SCHEMA)
        wanted = config.model_copy(update={"network": config.network.model_copy(update={"pretrained": asked})})
        save_bundle(
            tmp_path / "b", name="x", schema=tiny.SCHEMA, config=wanted, weights=built.state_dict(), provenance={}
        )
        monkeypatch.setattr(encoders, "published_weights", lambda *_: pytest.fail("published weights were asked for"))
        loaded = load_bundle(tmp_path / "b")
        assert loaded.config.network.pretrained == asked
        for name, tensor in built.state_dict().items():
            assert torch.equal(loaded.network.state_dict()[name], tensor)


class TestDistrust:
    """What may have happened to a bundle on its way, and what the message must say."""

    @pytest.mark.parametrize("file", ["weights.safetensors", "schema.json"])
    @pytest.mark.parametrize("place", [0, 0.5, 1])
    def test_a_changed_byte(self, folder: Path, file: str, place: float) -> None:
        path = folder / file
        content = bytearray(path.read_bytes())
        content[min(len(content) - 1, int(place * len(content)))] ^= 1
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"has changed since the bundle was written.*copy") as caught:
            load_bundle(folder)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("file", ["weights.safetensors", "schema.json"])
    def test_a_missing_file(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        with pytest.raises(BundleError, match=f"{file}: a file of the bundle is missing.*copy the whole bundle"):
            load_bundle(folder)

    @pytest.mark.parametrize("there", ["nothing", "an empty folder", "a file"])
    def test_no_bundle(self, tmp_path: Path, there: str) -> None:
        path = tmp_path / "model"
        if there == "an empty folder":
            path.mkdir()
        elif there == "a file":
            path.write_bytes(b"weights")
        with pytest.raises(BundleError, match=r"is not a bundle.*bundle.json.*--resume") as caught:
            load_bundle(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda d: d.update(format=2), ["another format version", "expected 1, got 2"]),
            (lambda d: d.pop("format") and None, ["another format version", "got None"]),
            (lambda d: [1], ["another format version", "got list"]),
            (lambda d: d["model"].update(netwrk={}), ["unknown setting 'model.netwrk'", "network"]),
            (lambda d: d["model"]["codec"].update(sgima=1), ["unknown setting 'model.codec.sgima'"]),
            (lambda d: d["model"]["network"].update(name="vgg"), ["'model.network'", "vgg"]),
            (lambda d: d.pop("model") and None, ["'model'", "required"]),
            (lambda d: d.update(model=None), ["'model'"]),
            (lambda d: d.update(sha256=None), ["'sha256'"]),
            (lambda d: d["sha256"].pop("schema.json") and None, ["hashes are not complete", "schema.json"]),
            (lambda d: d["sha256"].update({"../x": "0"}), ["hashes are not complete", "../x"]),
            (lambda d: d.update(extra=1), ["unknown setting 'extra'"]),
            (lambda d: d.update(name=7), ["'name'"]),
        ],
    )
    def test_a_header_that_is_not_right(self, folder: Path, change: Callable[[Any], Any], words: list[str]) -> None:
        edit(folder / "bundle.json", change)
        with pytest.raises(BundleError) as caught:
            load_bundle(folder)
        for word in (str(folder / "bundle.json"), *words):
            assert word in str(caught.value)

    @pytest.mark.parametrize("text", ["", "{", "null", '{"format": 1, "format"}'])
    def test_a_header_that_is_no_json(self, folder: Path, text: str) -> None:
        (folder / "bundle.json").write_text(text)
        with pytest.raises(BundleError, match=r"bundle\.json"):
            load_bundle(folder)

    def test_weights_of_another_shape(self, folder: Path) -> None:
        path = folder / "weights.safetensors"
        other = load_file(path)
        other["heads.maps.weight"] = torch.zeros(3, *other["heads.maps.weight"].shape[1:])
        save_file(other, path)
        sign(folder)
        with pytest.raises(BundleError, match=r"weights do not fit the network.*heads\.maps\.weight"):
            load_bundle(folder)

    def test_weights_of_another_network(self, folder: Path) -> None:
        save_file({"layer": torch.zeros(1)}, folder / "weights.safetensors")
        sign(folder)
        with pytest.raises(BundleError, match="weights do not fit the network"):
            load_bundle(folder)

    def test_weights_that_are_none(self, folder: Path) -> None:
        (folder / "weights.safetensors").write_bytes(b"\x80\x04N.")  # A pickle of None.
        sign(folder)
        with pytest.raises(BundleError, match=r"weights\.safetensors: cannot be read"):
            load_bundle(folder)

    @pytest.mark.parametrize(
        ("schema", "words"),
        [
            ({}, "name"),
            ([], "holds no settings"),
            ({"name": "x", "title": "x", "landmarks": [{"name": "a", "label": "A"}] * 2}, "declared 2 times"),
        ],
    )
    def test_a_schema_that_contradicts_itself(self, folder: Path, schema: Any, words: str) -> None:
        (folder / "schema.json").write_text(json.dumps(schema))
        sign(folder)
        with pytest.raises(BundleError, match=r"contradicts itself.*schema\.json") as caught:
            load_bundle(folder)
        assert words in str(caught.value)

    def test_a_schema_of_another_anatomy(self, folder: Path) -> None:
        (folder / "schema.json").write_text(json.dumps(load_schema("fetal_head").to_dict()))
        sign(folder)
        with pytest.raises(BundleError, match="weights do not fit the network"):
            load_bundle(folder)

    def test_a_shape_model_of_another_schema(self, tmp_path: Path) -> None:
        folder = save(tmp_path / "bundle", shapes=shapes_of(len(tiny.SCHEMA) + 1))
        with pytest.raises(BundleError, match=r"shape model is of another schema.*expected 2 landmarks"):
            load_bundle(folder)

    def test_a_shape_model_that_changed_or_is_none(self, tmp_path: Path) -> None:
        folder = save(tmp_path / "bundle", shapes=shapes_of(len(tiny.SCHEMA)))
        (folder / "shape_model.json").write_text('{"mean": 1}')
        with pytest.raises(BundleError, match=r"shape_model.json: has changed"):
            load_bundle(folder)
        sign(folder)
        with pytest.raises(BundleError, match="is not a shape model"):
            load_bundle(folder)

    def test_settings_that_do_not_fit_each_other(self, folder: Path) -> None:
        edit(folder / "bundle.json", lambda d: d["model"]["preprocess"].update(size=[62, 64]))
        with pytest.raises(BundleError, match=r"contradicts itself.*62 x 64"):
            load_bundle(folder)


class TestReplacing:
    def test_a_new_one_takes_the_place_of_an_old_one(self, folder: Path) -> None:
        before = load_bundle(folder).name
        save(folder, seed=1)
        assert load_bundle(folder).name != before
        assert [path.name for path in folder.parent.iterdir()] == ["bundle"]

    @pytest.mark.parametrize("file", ["schema.json", "weights.safetensors", "bundle.json"])
    def test_an_old_one_outlives_a_full_disk(self, folder: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        replace = Path.replace

        def full(self: Path, target: Path) -> Path:
            if Path(target).name == file:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)") as caught:
            save(folder, seed=1)
        assert str(folder.parent) in str(caught.value)
        monkeypatch.undo()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert [path.name for path in folder.parent.iterdir()] == ["bundle"]

    def test_an_old_one_comes_back_when_the_last_move_fails(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = load_bundle(folder).name
        replace = Path.replace

        def fail_once(self: Path, target: Path) -> Path:
            if Path(target) == folder and self.name != ".bundle.old":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", fail_once)
        with pytest.raises(RunError, match="Input/output error"):
            save(folder, seed=1)
        assert load_bundle(folder).name == before
        assert [path.name for path in folder.parent.iterdir()] == ["bundle"]

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("kept")
        with pytest.raises(RunError, match="cannot be written"):
            save(tmp_path / "file" / "bundle")
        assert (tmp_path / "file").read_text() == "kept"


def test_the_format_has_a_number() -> None:
    # A new layout needs a new number, so that older readers refuse it.
    assert FORMAT == 1
