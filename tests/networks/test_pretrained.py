"""First weights: files and published ones end up where they belong, or are refused with the setting named."""

import hashlib
import logging
import pickle
import urllib.error

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from bregma.bundle import ModelConfig
from bregma.errors import ConfigError
from bregma.networks import build_network, encoders, pretrained
from bregma.networks._timm import import_timm
from bregma.networks.encoders import create_pyramid, resolve_pretrained
from bregma.networks.timm_unet import TimmUNetConfig
from bregma.training.first_weights import with_first_weights
from bregma.training.plan import Planned
from bregma.training.settings import Plan
from bregma.types import OutputSpec

ENCODER = "test_resnet"
TAG = "r160_in1k"  # The weights that timm publishes for it.


def config(first, encoder=ENCODER):
    return TimmUNetConfig(encoder=encoder, pretrained=str(first), decoder_channels=(8,) * 5)


@pytest.fixture
def classifier():
    """What timm would publish: a whole classifier for colour images, of weights that no start gives."""
    torch.manual_seed(0)
    model = import_timm().create_model(ENCODER).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1)
    return model


@pytest.fixture
def file(tmp_path, classifier):
    save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.fixture
def hub(monkeypatch, file):
    """A hub that has the file, whatever is asked for; returns what was."""
    asked = []
    monkeypatch.setattr(pretrained, "_from_hub", lambda *wanted: asked.append(wanted) or file)
    return asked


@pytest.fixture
def no_hub(monkeypatch):
    def refuse(*wanted):
        raise OSError("no route to host")

    monkeypatch.setattr(pretrained, "_from_hub", refuse)


def assert_features_of(classifier, encoder, channels):
    """An image of equal channels gives the features that the classifier's own body gives."""
    image = torch.rand(1, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        deep = encoder.eval()(image.expand(-1, channels, -1, -1))[-1]
        torch.testing.assert_close(deep, classifier.forward_features(image.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


class TestFile:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("ending", ["safetensors", "pt", "pth"])
    def test_gives_the_features_of_the_model_it_is_of(self, tmp_path, classifier, channels, ending):
        path = tmp_path / f"weights.{ending}"
        if ending == "safetensors":
            save_file(classifier.state_dict(), path)
        else:
            torch.save({"epoch": 3, "state_dict": {f"module.{k}": t for k, t in classifier.state_dict().items()}}, path)
        assert_features_of(classifier, create_pyramid(config(path), channels), channels)

    def test_the_stem_is_summed_over_colours_and_nothing_else_is_changed(self, file, classifier):
        found = create_pyramid(config(file), 1).state_dict()
        whole = classifier.state_dict()
        stem = next(key for key, tensor in found.items() if tensor.ndim == 4)
        first = next(key for key, tensor in whole.items() if tensor.ndim == 4)
        torch.testing.assert_close(found[stem][:, 0], whole[first][:, 0] + whole[first][:, 1] + whole[first][:, 2])
        assert not any(key.startswith("fc.") for key in found)

    def test_of_a_network_of_ours_goes_into_another(self, tmp_path):
        first = build_network(config("none"), OutputSpec(2))
        save_file(first.state_dict(), tmp_path / "weights.safetensors")
        second = build_network(config(tmp_path / "weights.safetensors"), OutputSpec(5))
        for key, tensor in first.encoder.state_dict().items():
            assert torch.equal(second.encoder.state_dict()[key], tensor)

    def test_of_an_encoder_whose_names_differ_from_its_pyramid(self, tmp_path):
        model = import_timm().create_model("test_convnext")
        save_file(model.state_dict(), tmp_path / "weights.safetensors")
        found = create_pyramid(config(tmp_path / "weights.safetensors", "test_convnext"), 3).state_dict()
        assert torch.equal(found["stages_1.blocks.0.conv_dw.weight"], model.stages[1].blocks[0].conv_dw.weight)

    def test_of_another_encoder_is_refused_and_the_first_tensor_named(self, file):
        with pytest.raises(ConfigError, match="not those of the encoder 'resnet10t'") as caught:
            create_pyramid(config(file, "resnet10t"), 1)
        assert caught.value.where == "network.pretrained"
        assert "conv1.0.weight" in (caught.value.expected or "")

    def test_of_another_shape_is_refused_and_both_shapes_named(self, tmp_path, classifier):
        wrong = classifier.state_dict()
        wrong["layer2.0.conv1.weight"] = torch.zeros(7, 5, 3, 3)
        save_file(wrong, tmp_path / "weights.safetensors")
        with pytest.raises(ConfigError) as caught:
            create_pyramid(config(tmp_path / "weights.safetensors"), 1)
        right = " x ".join(map(str, classifier.layer2[0].conv1.weight.shape))
        assert caught.value.expected == f"'layer2.0.conv1.weight' of {right}"
        assert caught.value.got == "7 x 5 x 3 x 3"

    def test_missing(self, tmp_path):
        with pytest.raises(ConfigError, match="no such file") as caught:
            create_pyramid(config(tmp_path / "none.pt"), 1)
        assert caught.value.where == "network.pretrained"
        assert caught.value.got == str(tmp_path / "none.pt")

    @pytest.mark.parametrize("ending", ["safetensors", "pt"])
    @pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 broken"])
    def test_broken(self, tmp_path, ending, content):
        path = tmp_path / f"weights.{ending}"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=str(path)) as caught:
            create_pyramid(config(path), 1)
        assert caught.value.where == "network.pretrained"

    def test_of_no_tensors(self, tmp_path):
        torch.save({"state_dict": {"lr": 0.1}}, tmp_path / "weights.pt")
        with pytest.raises(ConfigError, match="holds no weights"):
            create_pyramid(config(tmp_path / "weights.pt"), 1)

    @pytest.mark.parametrize("write", [torch.save, lambda data, path: path.write_bytes(pickle.dumps(data, protocol=2))])
    def test_with_python_objects_is_never_unpickled(self, tmp_path, write):
        write({"state_dict": {"w": torch.ones(1)}, "trap": Trap(tmp_path / "sprung")}, tmp_path / "weights.pt")
        with pytest.raises(ConfigError, match="never loaded") as caught:
            create_pyramid(config(tmp_path / "weights.pt"), 1)
        assert "state_dict" in (caught.value.fix or "")
        assert not (tmp_path / "sprung").exists()


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.write_text, ("sprung",)


class TestPublished:
    @pytest.mark.parametrize("first", ["auto", TAG])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_are_loaded(self, hub, classifier, first, channels):
        encoder = create_pyramid(config(first), channels)
        assert_features_of(classifier, encoder, channels)
        assert set(hub) == {(f"timm/{ENCODER}.{TAG}", "model.safetensors", None)}
        assert "state_dict" not in encoder.pretrained_cfg

    def test_auto_starts_at_random_with_one_line_where_they_cannot_be_had(self, no_hub, caplog):
        with caplog.at_level(logging.WARNING, logger="bregma"):
            network = build_network(config("auto"), OutputSpec(2))
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "no route to host" in caplog.text
        assert network.encoder is not None

    def test_a_tag_that_cannot_be_had_is_an_error(self, no_hub):
        with pytest.raises(ConfigError, match="no route to host") as caught:
            create_pyramid(config(TAG), 1)
        assert caught.value.where == "network.pretrained"

    def test_an_unknown_tag_names_the_known_ones(self, hub):
        with pytest.raises(ConfigError, match="no weights 'a9_in1k'") as caught:
            create_pyramid(config("a9_in1k"), 1)
        assert f"auto, none, {TAG}" in (caught.value.expected or "")
        assert hub == []

    def test_timms_own_choice_comes_first(self):
        assert pretrained.published_tags("resnet50")[0] == import_timm().get_pretrained_cfg("resnet50").tag
        assert len(pretrained.published_tags("resnet50")) > 5

    def test_of_an_encoder_without_any(self, hub, caplog):
        timm = import_timm()
        unpublished = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
        settled, reason = resolve_pretrained(config("auto", unpublished))
        assert (settled.pretrained, "timm publishes none" in reason) == ("none", True)
        assert "timm publishes none" in caplog.text


class TestPlan:
    def plan(self, first):
        model = ModelConfig(network=config(first))
        return with_first_weights(Planned(Plan(model=model), {}))

    def row(self, first):
        return self.plan(first).rows()["model.network.pretrained"]

    def test_says_which_weights_auto_found(self, hub):
        row = self.row("auto")
        assert row["value"] == TAG
        assert "auto" in row["reason"]

    def test_says_that_auto_found_none(self, no_hub):
        row = self.row("auto")
        assert row["value"] == "none"
        assert "no route to host" in row["reason"]

    def test_says_what_is_in_a_file(self, file):
        row = self.row(file)
        assert row["value"] == str(file)
        assert hashlib.sha256(file.read_bytes()).hexdigest()[:12] in row["reason"]

    def test_is_left_alone_where_nothing_is_to_be_settled(self, hub):
        assert self.row("none") == {"value": "none", "reason": "default"}
        assert self.row(TAG)["value"] == TAG
        assert hub == [(f"timm/{ENCODER}.{TAG}", "model.safetensors", None)]  # Fetched before anything is stored.


class TestHub:
    @pytest.fixture
    def empty_cache(self, monkeypatch):
        calls = []

        def download(**wanted):
            calls.append(wanted)
            raise LocalEntryNotFoundError("not in the cache")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        return calls

    def test_is_not_asked_where_it_cannot_be_reached(self, empty_cache, monkeypatch):
        def unreachable(request, timeout):
            assert timeout <= 10
            raise urllib.error.URLError("Name or service not known")

        monkeypatch.setattr(pretrained.urllib.request, "urlopen", unreachable)
        with pytest.raises(OSError, match="Name or service not known"):
            pretrained.published_weights(ENCODER, TAG)
        assert [call["local_files_only"] for call in empty_cache] == [True]

    def test_is_not_asked_offline(self, empty_cache, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(OSError, match="HF_HUB_OFFLINE"):
            pretrained.published_weights(ENCODER, TAG)
        assert len(empty_cache) == 1

    def test_serves_what_the_cache_lacks(self, file, monkeypatch):
        def download(**wanted):
            if wanted.pop("local_files_only", False):
                raise LocalEntryNotFoundError("not in the cache")
            assert wanted["repo_id"] == f"timm/{ENCODER}.{TAG}"
            return str(file)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(pretrained, "_check_reachable", lambda constants: None)
        assert "fc.weight" in pretrained.published_weights(ENCODER, TAG)


@pytest.mark.parametrize(("old", "new"), [(True, "auto"), (False, "none")])
def test_the_old_switch_is_understood(old, new):
    assert TimmUNetConfig(pretrained=old).pretrained == new
    assert TimmUNetConfig.model_validate({"pretrained": old}).to_dict()["pretrained"] == new


def test_nothing_is_looked_for_unless_asked(hub):
    assert encoders.EncoderConfig().pretrained == "none"
    create_pyramid(TimmUNetConfig(encoder=ENCODER), 1)
    assert hub == []
