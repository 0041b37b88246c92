"""Phantoms as volumes on disk, with a table of what is known of every patient."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import nibabel
import numpy as np

from bregma.config import save_yaml
from bregma.errors import ConfigError
from bregma.files import atomic_path, write_text
from bregma.phantoms import PHANTOMS, phantom_settings, volume_maker
from bregma.phantoms.base import Difficulty, PhantomSettings
from bregma.types import Dataset
from bregma.workflows.quantities import in_quantities
from bregma.workflows.run_folder import refuse_used

_TAGS = ("age",)


def check_volumes(name: str, out: Path) -> None:
    """Refuse, before anything is drawn, what :func:`write_phantom_volumes` cannot do.

    Raises:
        ConfigError: the anatomy has no volumes.
        RunError: the folder holds something already.
    """
    if volume_maker(name) is None:
        known = ", ".join(other for other, info in PHANTOMS.items() if info.volume)
        raise ConfigError(f"the phantom '{name}' has no volumes", where="--volumes", expected=f"one of {known}")
    refuse_used(out, fix="choose another --out, or remove it")


def write_phantom_volumes(
    name: str,
    dataset: Dataset,
    out: Path,
    *,
    seed: int,
    images_per_subject: int,
    size: int | tuple[int, int] | None,
    difficulty: Difficulty | None,
    settings: PhantomSettings,
) -> None:
    """Write the volumes whose middle slices a phantom dataset shows.

    Writes ``volumes/CASE.nii.gz`` in sagittal slices, ``labels.csv``, ``columns.yaml`` and ``schema.yaml``.

    Args:
        name: a row of ``PHANTOMS``.
        dataset: the middle slices, with their quantities.
        out: the folder to write; must be new or empty.
        seed: as the dataset was drawn with.
        images_per_subject: likewise.
        size: likewise.
        difficulty: likewise.
        settings: likewise.

    Raises:
        ConfigError: the anatomy has no volumes.
        RunError: the folder holds something already, or cannot be written.
    """
    check_volumes(name, out)
    draw = volume_maker(name)
    resolved = phantom_settings(name, settings, size=size, difficulty=difficulty)
    quantities = in_quantities(dataset)
    names = [quantity.name for quantity in quantities.schema.quantities]
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["image", "case", "subject", *names, *_TAGS])
    for number, case in enumerate(quantities):
        subject, image = divmod(number, images_per_subject)
        volume = draw(subject, seed=seed, image=image, settings=resolved)
        path = out / "volumes" / f"{case.id}.nii.gz"
        with atomic_path(path) as temporary:
            # Slices from the subject's left to right, rows from head to foot, columns from front to back.
            between, down, across = volume.spacing
            affine = np.array([[between, 0, 0, 0], [0, 0, -across, 0], [0, -down, 0, 0], [0, 0, 0, 1]])
            data = nibabel.Nifti1Image(volume.array, affine).to_bytes()
            temporary.write_bytes(_zipped(data))
        values = [case.targets[name] for name in names]
        table.writerow([f"volumes/{case.id}.nii.gz", case.id, case.subject, *values, *(case.tags[t] for t in _TAGS)])
    write_text(out / "labels.csv", rows.getvalue())
    columns = {"image": "image", "case": "case", "subject": "subject", "targets": names, "tags": list(_TAGS)}
    save_yaml(out / "columns.yaml", {**columns, "plane": "sagittal"})
    save_yaml(out / "schema.yaml", quantities.schema.to_dict())


def _zipped(data: bytes) -> bytes:
    # Without a time stamp, the same phantom is the same file.
    return gzip.compress(data, compresslevel=3, mtime=0)
