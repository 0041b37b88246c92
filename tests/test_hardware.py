"""What the machine is said to do, and devices that are not there."""

from __future__ import annotations

import pytest
import torch

from bregma.errors import ConfigError
from bregma.hardware import Hardware, autocast_dtype, detect_hardware, is_helper


def test_the_processor_is_always_there() -> None:
    found = detect_hardware("cpu")
    assert found.accelerator == "cpu"
    assert found.cores >= 1


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(False, False, "cpu"), (False, True, "mps"), (True, True, "cuda")]
)
def test_auto_takes_the_fastest(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    found = detect_hardware()
    assert found.accelerator == expected
    if expected != "cpu":
        assert found.fast_bf16 == (expected == "cuda")


@pytest.mark.parametrize("name", ["cuda", "mps", "tpu"])
def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"accelerator: there is no '{name}' here; expected auto or one of cpu"):
        detect_hardware(name)


@pytest.mark.parametrize(("fast", "expected"), [(True, torch.bfloat16), (False, None)])
def test_mixed_precision_only_where_it_is_faster(fast: bool, expected: torch.dtype | None) -> None:
    assert autocast_dtype(Hardware("cpu", cores=2, fast_bf16=fast)) is expected


@pytest.mark.parametrize(("rank", "expected"), [(None, False), ("0", False), ("1", True), ("3", True)])
def test_helpers_know_that_they_are(monkeypatch: pytest.MonkeyPatch, rank: str | None, expected: bool) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert is_helper() is expected
