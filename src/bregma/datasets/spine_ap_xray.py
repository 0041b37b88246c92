"""Whole-spine AP radiographs of the AASCE 2019 challenge (SpineWeb 16) with the corners of T1 to L5.

Layout: ``data/training/`` and ``labels/training/`` (and ``data/test/``, ``labels/test/`` where they are present). In a
labels folder, three files without headers share their row order: ``filenames.csv``; ``landmarks.csv``, 68 x then 68 y,
each divided by the image's width or height, vertebra by vertebra from T1 down, corners TL, TR, BL, BR; ``angles.csv``,
three Cobb angles in degrees: the largest of the whole spine, then the one above it and the one below it.

Names are ``sunhl-1th-<date>-<number> <letter> AP.jpg``. Letters go on where a number recurs on a later date, and no
number has one letter twice, so that the number stands for the person, over all dates.

Some published rows have the uppermost vertebra last, or corners upside down. Vertebrae and corners are therefore put
into the order of the spine; a case whose order was changed has the tag ``reordered``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from bregma.datasets.records import ImageFolder, Record, assemble, image_stem, with_splits
from bregma.datasets.tables import Row, parse_number, read_rows, refuse_duplicates
from bregma.datasets.vertebrae import canonical
from bregma.errors import LabelError
from bregma.schema import LandmarkSchema, load_schema
from bregma.types import Case, Dataset, LandmarkSet

LICENSE = "Research use, under the terms of SpineWeb."
CITATION = (
    "Wu H, Bailey C, Rasoulinejad P, Li S. Automatic landmark estimation for adolescent idiopathic scoliosis "
    "assessment using BoostNet. MICCAI 2017, LNCS 10433:127-135. "
    "Wang L, Xie C, Lin Y, et al. Evaluation and comparison of accurate automated spinal curvature estimation "
    "algorithms with spinal anterior-posterior X-ray images: the AASCE2019 challenge. Med Image Anal 2021;72:102115."
)

ANGLES = ("cobb_main_deg", "cobb_proximal_deg", "cobb_distal_deg")
_SPLITS = ("training", "test")
_NAME = re.compile(r"(?P<source>.+)-(?P<day>\d+-[A-Za-z]+-\d{4})-(?P<number>\d+) [A-Z] AP.*")


def detect(root: Path) -> bool:
    """Tell whether a folder has this layout."""
    return any((root / "labels" / split / "landmarks.csv").is_file() for split in _SPLITS)


def read(
    root: Path, *, schema: LandmarkSchema | None = None, images: Path | None = None, strict: bool = False
) -> Dataset:
    """Read the dataset; targets are the published Cobb angles.

    Args:
        root: the folder that holds ``data/`` and ``labels/``.
        schema: the anatomy; None takes the built-in ``spine_ap``.
        images: the folder that holds ``training/`` where it is not ``root/data``.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: files of different lengths, or a row that cannot be read; names it.
    """
    schema = schema or load_schema("spine_ap")
    splits = [split for split in _SPLITS if (root / "labels" / split / "landmarks.csv").is_file()]
    records = {split: _records(root / "labels" / split, split, schema) for split in splits}
    dataset = assemble(
        (record for split in splits for record in records[split]),
        ImageFolder(images or root / "data"),
        name="spine_ap_xray",
        schema=schema,
        strict=strict,
        license=LICENSE,
        citation=CITATION,
    )
    dataset = replace(dataset, cases=tuple(map(_in_order, dataset)))
    if len(splits) < 2:
        return dataset
    return with_splits(dataset, {record.id: split for split in splits for record in records[split]})


def subject_of(name: str) -> str:
    """Return the person that an image's name stands for; images with other names are a person each."""
    match = _NAME.fullmatch(name)
    return f"{match['source']}-{match['number']}" if match else name


def _in_order(case: Case) -> Case:
    if case.landmarks is None:
        return case
    # In pixels: in fractions of width and height the angles of vertebrae would be distorted.
    points = canonical(case.landmarks.points.reshape(-1, 4, 2)).reshape(-1, 2)
    if np.array_equal(points, case.landmarks.points):
        return case
    return replace(case, landmarks=LandmarkSet(points, case.landmarks.status), tags={**case.tags, "reordered": True})


def _records(folder: Path, split: str, schema: LandmarkSchema) -> list[Record]:
    # A file name may hold a comma; the names are one field a row.
    names = read_rows(folder / "filenames.csv", header=False, delimiter="\t", width=1)
    layout = f"{len(schema)} x, then {len(schema)} y"
    landmarks = read_rows(folder / "landmarks.csv", header=False, width=2 * len(schema), layout=layout)
    angles = read_rows(folder / "angles.csv", header=False, width=len(ANGLES), layout="three Cobb angles")
    for rows, file in ((landmarks, "landmarks.csv"), (angles, "angles.csv")):
        if len(rows) != len(names):
            raise LabelError(
                "does not have one row for each file name",
                where=folder / file,
                expected=f"{len(names)} rows, as in filenames.csv",
                got=str(len(rows)),
            )
    refuse_duplicates(names, [row.fields[0] for row in names])
    return [_record(*rows, split) for rows in zip(names, landmarks, angles)]


def _record(name: Row, landmarks: Row, angles: Row, split: str) -> Record:
    numbers = [parse_number(t, where=landmarks.where, column=str(i + 1)) for i, t in enumerate(landmarks.fields)]
    degrees = [parse_number(t, where=angles.where, column=str(i + 1)) for i, t in enumerate(angles.fields)]
    stem = image_stem(name.fields[0])
    return Record(
        id=stem,
        subject=subject_of(stem),
        image=f"{split}/{name.fields[0]}",
        where=name.where,
        landmarks=LandmarkSet(np.array(numbers).reshape(2, -1).T),
        fractions=True,
        targets=dict(zip(ANGLES, degrees)),
    )
