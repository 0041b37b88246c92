"""One self-contained HTML page: templates, embedded pictures, and a policy that lets it load nothing."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from bregma import __version__
from bregma.files import write_text
from bregma.report import words
from bregma.report.canvas import Rgb

_IMAGE_BUDGET = 3_600_000
"""Bytes of JPEG on one page; base64 makes a third more of them."""


@dataclass(frozen=True)
class Picture:
    """An embedded picture.

    Attributes:
        uri: data URI.
        alt: what it shows, in words.
        width: in pixels, or None for a scalable one.
        height: in pixels, or None.
        caption: a line below it.
    """

    uri: str
    alt: str
    width: int | None = None
    height: int | None = None
    caption: str = ""


def jpeg(picture: Rgb, alt: str, *, share_of: int = 1) -> Picture:
    """Embed pixels ``(H, W, 3)``, compressed as far as the page's budget for ``share_of`` pictures requires."""
    limit = _IMAGE_BUDGET // max(share_of, 1)
    data = b""
    for quality in (88, 80, 70, 55, 40, 25):
        out = io.BytesIO()
        # Full chroma: thin coloured lines would bleed otherwise.
        Image.fromarray(picture).save(out, format="JPEG", quality=quality, subsampling=0, optimize=True)
        data = out.getvalue()
        if len(data) <= limit:
            break
    return Picture(_data_uri("image/jpeg", data), alt, picture.shape[1], picture.shape[0])


def svg(data: bytes, alt: str, caption: str = "") -> Picture:
    """Embed a figure."""
    return Picture(_data_uri("image/svg+xml", data), alt, caption=caption)


def write_page(path: str | Path, template: str, **context: Any) -> Path:
    """Render a template to a file, all or nothing; return its path.

    Raises:
        RunError: the file cannot be written.
    """
    script = _text("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (
        _environment()
        .get_template(template)
        .render(**context, style=_text("style.css"), script=script, script_hash=digest, version=__version__)
    )
    write_text(path, page)
    return Path(path)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bregma.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = words.number
    environment.filters["unit"] = words.unit_suffix
    environment.filters["p_value"] = words.p_value
    environment.globals["interval"] = words.interval
    return environment


def _text(name: str) -> str:
    return (resources.files("bregma.report") / "templates" / name).read_text(encoding="utf-8")


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
