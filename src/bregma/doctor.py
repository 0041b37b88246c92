"""What this installation can do on this machine, and the command that adds what it cannot.

Every check answers on its own: a broken part is a row of the report, never the end of it. Optional parts that are
missing warn; only what nothing works without fails.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from bregma.errors import MissingPartError

Status = Literal["ok", "warn", "fail"]

MIN_PYTHON = (3, 11)
MIN_MEMORY_GIB = 4.0
"""Below this a training at 512 px with its cache of images may be ended by the system."""
MIN_DISK_GIB = 2.0
"""Room for a run: checkpoints, reports and logs."""
_GIB = 2**30

COMPRESSIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "uncompressed": ("1.2.840.10008.1.2.1", "pydicom"),
        "RLE": ("1.2.840.10008.1.2.5", "pylibjpeg pylibjpeg-rle"),
        "JPEG baseline, 8 bit": ("1.2.840.10008.1.2.4.50", "pillow"),
        "JPEG extended, 12 bit": ("1.2.840.10008.1.2.4.51", "python-gdcm"),
        "JPEG lossless": ("1.2.840.10008.1.2.4.70", "python-gdcm"),
        "JPEG-LS": ("1.2.840.10008.1.2.4.80", "pyjpegls"),
        "JPEG 2000": ("1.2.840.10008.1.2.4.90", "pylibjpeg pylibjpeg-openjpeg"),
        "HTJ2K": ("1.2.840.10008.1.2.4.201", "pylibjpeg pylibjpeg-openjpeg"),
    }
)
"""Compression of DICOM pixels to a transfer syntax that stands for it (PS3.5 Annex A) and what decodes it."""


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: ok, warn (works without it) or fail.
        found: what is there.
        fix: the command or action that mends it; None where nothing needs mending.
    """

    name: str
    status: Status
    found: str
    fix: str | None = None


@dataclass(frozen=True)
class DoctorReport:
    """All checks of an installation, in the order they were made."""

    checks: tuple[Check, ...]

    def __repr__(self) -> str:
        return f"DoctorReport({self.status}, {len(self.checks)} checks)"

    @property
    def status(self) -> Status:
        """The worst status of all checks."""
        found = {check.status for check in self.checks}
        return "fail" if "fail" in found else "warn" if "warn" in found else "ok"

    @property
    def exit_code(self) -> int:
        """1 where something fails that nothing works without, else 0."""
        return int(self.status == "fail")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"status": self.status, "checks": [asdict(check) for check in self.checks]}


def run_doctor(folder: str | Path = ".") -> DoctorReport:
    """Check Python, machine, torch, timm, DICOM decoders, optional parts and the working folder.

    Args:
        folder: where runs are to be written.
    """
    return DoctorReport(tuple(_checks(Path(folder))))


def _checks(folder: Path) -> Iterator[Check]:
    yield _python()
    yield Check("system", "ok", f"{platform.system()} {platform.release()} on {platform.machine()}")
    yield _memory()
    yield _disk(folder)
    yield _writing(folder)
    yield _guarded("torch", _torch, 'pip install "torch>=2.6,<2.14"')
    yield _guarded("processor", _processor, 'pip install "torch>=2.6,<2.14"')
    yield _guarded("timm", _timm, "pip install timm torchvision")
    for name in COMPRESSIONS:
        yield _guarded(f"DICOM {name}", partial(_compression, name), "pip install pydicom")
    yield _guarded("browser", _browser, "apt-get install chromium")
    yield _tensorboard()


def _guarded(name: str, check: Callable[[], Check], fix: str) -> Check:
    """Turn the faults of a missing or broken package into a failed check."""
    try:
        return check()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return Check(name, "fail", f"cannot be used: {reason}", fix)


def _python(found: tuple[int, ...] = sys.version_info[:3]) -> Check:
    name = ".".join(map(str, found))
    if found[:2] < MIN_PYTHON:
        return Check("Python", "fail", name, "install Python 3.11 or newer and make a new environment with it")
    return Check("Python", "ok", name)


def _memory() -> Check:
    total = _memory_bytes()
    if total is None:
        return Check("memory", "ok", "not known on this system")
    if total < MIN_MEMORY_GIB * _GIB:
        fix = "train with --set train.cache_mb=256 and a smaller train.batch_size"
        return Check("memory", "warn", _gib(total), fix)
    return Check("memory", "ok", _gib(total))


def _memory_bytes() -> int | None:
    """Return the memory that this process may use: the machine's, or its container's where that is less."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _disk(folder: Path) -> Check:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", "fail", f"{folder}: {error.strerror}", "choose a folder that exists")
    if free < MIN_DISK_GIB * _GIB:
        return Check("disk", "warn", f"{_gib(free)} free in {folder.resolve().name}", "free some space first")
    return Check("disk", "ok", f"{_gib(free)} free")


def _writing(folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Check("writing", "ok", "this folder can be written")
    except OSError as error:
        return Check("writing", "fail", f"{folder}: {error.strerror}", "go to a folder in which you may write")


def _torch() -> Check:
    import torch

    devices = ["cpu"]
    devices += [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    return Check("torch", "ok", f"{torch.__version__}, devices: {', '.join(devices)}")


def _processor() -> Check:
    from bregma.hardware import detect_hardware

    hardware = detect_hardware("cpu")
    precision = "bfloat16 in hardware" if hardware.fast_bf16 else "no bfloat16 in hardware: full precision is used"
    cores = f"{hardware.cores} core{'' if hardware.cores == 1 else 's'}"
    return Check("processor", "ok", f"{cores}, {precision}")


def _timm() -> Check:
    from bregma.networks._timm import import_timm

    timm = import_timm()
    return Check("timm", "ok", f"timm {timm.__version__}, torchvision {_installed('torchvision')}")


def _compression(name: str) -> Check:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    from bregma.io.dicom_decode import GDCM_ONLY, PLUGINS

    syntax, package = COMPRESSIONS[name]
    label = f"DICOM {name}"
    if not UID(syntax).is_encapsulated:
        return Check(label, "ok", "read by pydicom")
    wanted = (*PLUGINS, "gdcm") if syntax in GDCM_ONLY else PLUGINS
    plugins = [plugin for plugin in wanted if plugin in get_decoder(syntax).available_plugins]
    if not plugins:
        return Check(label, "warn", "no decoder: such files cannot be read", f"pip install {package}")
    return Check(label, "ok", f"read by {', '.join(plugins)}")


def _browser() -> Check:
    from bregma.report.browser import find_browser

    try:
        return Check("browser", "ok", Path(find_browser()).name)
    except MissingPartError as error:
        return Check("browser", "warn", "none: reports cannot be drawn as pictures", error.fix)


def _tensorboard() -> Check:
    found = _installed("tensorboard")
    if found is None:
        return Check("tensorboard", "warn", "not installed: no TensorBoard logs", 'pip install "bregma[track]"')
    return Check("tensorboard", "ok", found)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
