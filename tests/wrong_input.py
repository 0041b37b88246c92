"""A small place in which one thing is made wrong: labelled images, a trained run, a schema, a recipe."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

import tiny
from bregma.config import save_yaml
from bregma.datasets import write_dataset
from bregma.types import Case, Dataset
from dicom_files import make_dicom, write_dicom

HEADER = "image,subject,split,bright_x,bright_y,dark_x,dark_y\n"


@dataclass(frozen=True)
class Place:
    """A folder with everything in order.

    Attributes:
        root: holds ``data/labels.csv`` with four images, ``json/dataset.json`` with the same, ``images/good.png``,
            ``run/`` (a copy of a finished run), ``spots.yaml`` and ``recipe.yaml``; ``out/`` is not there yet.
    """

    root: Path

    @property
    def labels(self) -> Path:
        return self.root / "data" / "labels.csv"

    @property
    def json(self) -> Path:
        return self.root / "json" / "dataset.json"

    @property
    def schema(self) -> Path:
        return self.root / "spots.yaml"

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def out(self) -> Path:
        return self.root / "out"

    def snapshot(self) -> dict[str, bytes]:
        """Return the bytes of every file, temporary ones included."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in files}


def build(root: Path, run: Path) -> Place:
    """Make the place."""
    place = Place(root)
    cases = tiny.cases(4)
    for case in cases:
        png(root / "data" / f"{case.id}.png", case)
    png(place.images / "good.png", tiny.case(9))
    place.labels.write_text(HEADER + "".join(line(c, "train" if i < 2 else "test") for i, c in enumerate(cases)))
    splits = {"train": ("c0", "c1"), "test": ("c2", "c3")}
    write_dataset(Dataset("spots", tiny.SCHEMA, cases, splits), place.json.parent, "bregma_json")
    save_yaml(place.schema, tiny.SCHEMA.to_dict())
    place.recipe.write_text("title: Mine\ntrain:\n  epochs: 1\n  accelerator: cpu\n")
    shutil.copytree(run, place.run)
    return place


def line(case: Case, split: str) -> str:
    """Return a case's row of the table."""
    (bx, by), (dx, dy) = case.landmarks.points.tolist()
    return f"{case.id}.png,{case.subject},{split},{bx},{by},{dx},{dy}\n"


def png(path: Path, case: Case) -> Path:
    """Write a case's image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, case.image.load())[1].tobytes())
    return path


def cut(path: Path, share: float = 0.5) -> None:
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def flip_byte(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path, old: str, new: str) -> None:
    """Replace a text that must be there."""
    text = path.read_text()
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new, 1))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file's data in place."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def huge_png(path: Path) -> None:
    """Write a PNG whose header claims 200,000 x 200,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def dicom(path: Path, *, without: tuple[str, ...] = (), **elements: Any) -> Path:
    """Write a DICOM file of a tiny case; ``without`` names elements to leave out."""
    pixels = tiny.case(8).image.load()
    if not without:
        return write_dicom(path, pixels, **elements)
    dataset = make_dicom(pixels, **elements)
    for name in without:
        delattr(dataset, name)
    dataset.save_as(path, enforce_file_format=True)
    return path
