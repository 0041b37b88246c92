"""First weights of encoders: those that timm publishes, or a file of one's own. Nothing is unpickled but tensors."""

from __future__ import annotations

import http.client
import pickle
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bregma.errors import ConfigError
from bregma.networks._timm import import_timm

SETTING = "network.pretrained"
_FILES = (".safetensors", ".pt", ".pth")
_WRAPPED = ("state_dict", "model")  # Where training scripts put the weights beside other things.
_TIMEOUT_S = 5.0


def is_weight_file(pretrained: str) -> bool:
    """Return whether the setting names a file rather than a tag."""
    return pretrained.endswith(_FILES)


def published_tags(encoder: str) -> tuple[str, ...]:
    """Return the tags of the weights that timm publishes for an encoder, its own choice first."""
    timm = import_timm()
    first = timm.get_pretrained_cfg(encoder)
    tags = [name.partition(".")[2] for name in timm.list_models(f"{encoder.partition('.')[0]}.*", pretrained=True)]
    return tuple(sorted(tags, key=lambda tag: first is None or tag != first.tag))


def published_weights(encoder: str, tag: str) -> dict[str, Tensor]:
    """Return weights that timm publishes, from the local cache or else from the Hugging Face hub.

    Raises:
        OSError: they are not in the cache and cannot be fetched.
        ConfigError: what was fetched holds no weights.
    """
    config = import_timm().get_pretrained_cfg(f"{encoder.partition('.')[0]}.{tag}")
    if not config.hf_hub_id:
        raise OSError("they are not on the Hugging Face hub")
    repository, _, revision = config.hf_hub_id.partition("@")
    return read_weights(_from_hub(repository, config.hf_hub_filename or "model.safetensors", revision or None))


def _from_hub(repository: str, file: str, revision: str | None) -> Path:
    """Return the local copy of a file, fetched if there is none.

    The hub's own client would try for most of a minute where there is no network at all.
    """
    import huggingface_hub

    wanted: dict[str, Any] = {"repo_id": repository, "filename": file, "revision": revision}
    try:
        return Path(huggingface_hub.hf_hub_download(**wanted, local_files_only=True))
    except OSError:
        _check_reachable(huggingface_hub.constants)
    errors: Any = huggingface_hub.errors
    try:
        return Path(huggingface_hub.hf_hub_download(**wanted, etag_timeout=_TIMEOUT_S))
    except errors.HTTPError as error:  # Not an OSError in every version of the client.
        raise OSError(str(error).splitlines()[0]) from error


def _check_reachable(constants: Any) -> None:
    if constants.HF_HUB_OFFLINE:
        raise OSError("they are not in the local cache, and HF_HUB_OFFLINE is set")
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        pass  # It answers, if not to this question.
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise OSError(
            f"they are not in the local cache, and {constants.ENDPOINT} cannot be reached: {reason}"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights, as safetensors or by torch's reader of tensors alone.

    Raises:
        ConfigError: missing, broken, not weights, or a file that holds other things than tensors and plain data.
    """
    try:
        if path.suffix == ".safetensors":
            data: Any = load_file(path)
        else:
            data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", where=SETTING, got=str(path)) from error
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"'{path}' is broken, or holds Python objects, which are never loaded",
            where=SETTING,
            fix="save the tensors alone: torch.save(model.state_dict(), ...), or a safetensors file",
        ) from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise ConfigError(f"'{path}' cannot be read as weights ({_first_line(error)})", where=SETTING) from error
    for key in _WRAPPED:
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    named = data.items() if isinstance(data, Mapping) else ()
    weights = {str(name).removeprefix("module."): tensor for name, tensor in named if isinstance(tensor, Tensor)}
    if not weights:
        raise ConfigError(f"'{path}' holds no weights", where=SETTING, expected="tensors by name")
    return weights


def load_weights(encoder: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Put weights into an encoder; what it has no place for, such as a classifier, is passed over.

    Weights for colour images are summed over the colours where the encoder takes one channel: a grey image then gives
    the features that it would give with three equal channels.

    Args:
        encoder: a feature pyramid.
        weights: by the names of timm's model, of the pyramid itself, or of a Bregma network over that pyramid.
        name: of the encoder, for messages.

    Raises:
        ConfigError: a tensor is missing or has another shape; names the first.
    """
    fitted: dict[str, Tensor] = {}
    for key, place in encoder.state_dict().items():
        found = next((weights[alias] for alias in _aliases(key) if alias in weights), None)
        if found is None and key.endswith("num_batches_tracked"):
            found = place  # Only counts; old files lack it.
        if found is not None and _is_colour_stem(found, place):
            found = found.float().sum(dim=1, keepdim=True)
        if found is None or found.shape != place.shape:
            raise ConfigError(
                f"the weights are not those of the encoder '{name}'",
                where=SETTING,
                expected=f"'{key}' of {_shape(place)}",
                got="no such tensor" if found is None else _shape(found),
                fix="give a file of this encoder's weights, or choose the encoder that the file is of",
            )
        fitted[key] = found
    encoder.load_state_dict(fitted)


def _aliases(key: str) -> Iterator[str]:
    """Names that a tensor of a pyramid may have: timm joins the outer two levels of its model's names by ``_``."""
    for name in (key, key.replace("_", ".", 1)):
        yield from (name, f"encoder.{name}")


def _is_colour_stem(found: Tensor, place: Tensor) -> bool:
    return found.ndim == 4 and found.shape[1] == 3 and found[:, :1].shape == place.shape


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
