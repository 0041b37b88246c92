"""The folder of one training and the files in it.

run/
recipe.yaml       the settings a person wrote
suspects.csv      labels that count less or not at all, where there are some
crops.json        which part of every image is seen, where that is not the whole
roi/              the bundle that finds this part, where there is one
plan.json         every resolved setting with its reason
schema.json  split.json  provenance.json
history.csv  curves.png  tensorboard/  checkpoint/
bundle/           the trained model
close_up/         the training of its second network, a run of its own, where there is one
members/2/ ...    the trainings of the other networks of an ensemble, runs of their own, where there are some
evaluation/PART/  metrics.json, cases.csv, points.csv, ...
report.html
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bregma import __version__
from bregma.bundle import copy_bundle
from bregma.config import Config, read_yaml, save_yaml, validate
from bregma.crop import Box
from bregma.data.split import Split
from bregma.errors import InputError, RunError
from bregma.files import read_json, sha256_file, write_json, write_text
from bregma.hardware import detect_hardware
from bregma.recipe import Recipe
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.training.plan import Planned, flatten
from bregma.training.settings import Plan
from bregma.types import ArraySlab, Case, Dataset

_PACKAGES = ("torch", "timm", "lightning-fabric", "numpy", "scipy", "opencv-python-headless", "pydicom", "safetensors")
_BEGUN = ("recipe.yaml", "schema.json", "split.json", "provenance.json", "suspects.csv", "crops.json", "roi")
"""What is written before the plan."""


@dataclass(frozen=True)
class RunFolder:
    """Paths within a run folder."""

    root: Path

    @property
    def bundle(self) -> Path:
        """The trained model."""
        return self.root / "bundle"

    @property
    def close_up(self) -> Path:
        """The training of the network for close-ups, a run of its own."""
        return self.root / "close_up"

    def member(self, number: int) -> Path:
        """The training of a further network of an ensemble, counted from 2, a run of its own."""
        return self.root / "members" / str(number)

    @property
    def within(self) -> tuple[RunFolder, ...]:
        """The runs of its further networks, and of theirs; what a link leads to is none of them."""
        folder = self.root / "members"
        members = [] if folder.is_symlink() else sorted(folder.glob("*"))
        found = [RunFolder(one) for one in (self.close_up, *members) if not one.is_symlink()]
        return tuple(one for run in found if run.exists() for one in (run, *run.within))

    @property
    def report(self) -> Path:
        """The report of the evaluation that ended the training."""
        return self.root / "report.html"

    @property
    def history(self) -> Path:
        """One row a validation."""
        return self.root / "history.csv"

    @property
    def suspects(self) -> Path:
        """The run's own copy of the table of labels that it does not, or not fully, learn from."""
        return self.root / "suspects.csv"

    def keep_suspects(self, table: str | Path) -> None:
        """Copy a table of suspects, so that a resumed run finds it as it was."""
        try:
            text = Path(table).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=table) from error
        write_text(self.suspects, text)

    @property
    def roi(self) -> Path | None:
        """The run's own copy of the bundle that finds the part of every image, if there is one."""
        folder = self.root / "roi"
        return folder if folder.is_dir() else None

    def keep_crops(self, boxes: Mapping[str, Box], roi: Path | None) -> None:
        """Write which part of every case is seen, with a copy of the bundle that found it, for a resumed run."""
        shutil.rmtree(self.root / "roi", ignore_errors=True)
        if roi is not None:
            copy_bundle(roi, self.root / "roi")
        write_json(self.root / "crops.json", {case: box.to_list() for case, box in boxes.items()})

    def read_crops(self) -> dict[str, Box]:
        """Read which part of every case is seen.

        Raises:
            RunError: the file is not as it was written.
        """
        path = self.root / "crops.json"
        try:
            return {str(case): Box(*map(int, box)) for case, box in read_json(path).items()}
        except (InputError, TypeError, ValueError, AttributeError) as error:
            raise RunError("does not tell which part of every image is seen", where=path) from error

    def evaluation(self, part: str) -> Path:
        """Where the evaluation on a part of the split lies."""
        return self.root / "evaluation" / part

    def exists(self) -> bool:
        """Tell whether a training was begun here."""
        return (self.root / "plan.json").is_file()

    def check_new(self, *, again: bool = False) -> None:
        """Refuse a folder that holds anything already.

        Args:
            again: allow the settings that an interrupted start left behind.

        Raises:
            RunError: the folder is not empty, or is a file.
        """
        refuse_used(
            self.root,
            leftovers=_BEGUN if again else (),
            fix="choose another --out, continue it with --resume, or remove it",
        )

    def write_settings(
        self, recipe: Recipe, planned: Planned, schema: LandmarkSchema, split: Split, about: Mapping[str, Any]
    ) -> None:
        """Write all that is known before training; the plan comes last, so that where it is, the rest is."""
        save_yaml(self.root / "recipe.yaml", recipe.model_dump(mode="json", exclude_unset=True))
        write_json(self.root / "schema.json", schema.to_dict())
        write_json(self.root / "split.json", split.to_dict())
        write_json(self.root / "provenance.json", about)
        write_json(self.root / "plan.json", {"plan": planned.plan.to_dict(), "rows": planned.rows()})

    def read_recipe(self) -> Recipe:
        """Read the settings that a person wrote for a run begun before."""
        path = self.root / "recipe.yaml"
        data, lines = read_yaml(path)
        return validate(Recipe, data, where=str(path), lines=lines, error=RunError)

    def read_plan(self) -> Planned:
        """Read the plan of a run begun before.

        Raises:
            RunError: there is none, or it is not readable.
        """
        path = self.root / "plan.json"
        if not path.is_file():
            raise RunError("holds no run", where=self.root, fix="start the training without --resume")
        data = read_json(path)
        try:
            plan = validate(Plan, data["plan"], where=str(path), error=RunError)
            rows = {str(name): str(row["reason"]) for name, row in data["rows"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError("is not a plan as Bregma writes it", where=path) from error
        return Planned(plan, rows)

    def read_split(self) -> Split:
        """Read the split of a run begun before."""
        path = self.root / "split.json"
        return validate(Split, read_json(path), where=str(path), error=RunError)

    def read_schema(self) -> LandmarkSchema:
        """Read the schema of a run begun before."""
        path = self.root / "schema.json"
        return schema_from_dict(read_json(path), where=str(path))


def provenance(dataset: Dataset, split: Split, command: str, plan: Plan) -> dict[str, Any]:
    """Return where a run comes from: versions, machine, data and its hashes, seed and command."""
    hardware = detect_hardware(plan.train.accelerator)
    return {
        "bregma": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "accelerator": hardware.accelerator,
            "cores": hardware.cores,
        },
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": plan.train.seed,
        "data": {
            "name": dataset.name,
            "images": len(dataset),
            "subjects": len(dataset.subjects),
            "license": dataset.license,
            "citation": dataset.citation,
            "split": {part: len(ids) for part, ids in split.parts.items()},
            "sha256": {part: data_hash(split.cases(dataset, part)) for part in split.parts},
        },
    }


def data_hash(cases: tuple[Case, ...]) -> str:
    """Return a hash of the cases' ids, labels and image bytes, whatever their order or place on disk."""
    parts = sorted(_case_hash(case) for case in cases)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def command_line() -> str:
    """Return the command that was typed, with the program's own name for its path."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def check_same_data(folder: RunFolder, dataset: Dataset, split: Split) -> None:
    """Refuse to resume a training on data that have changed.

    Raises:
        RunError: names the part that differs.
    """
    path = folder.root / "provenance.json"
    try:
        stored = {str(part): str(digest) for part, digest in read_json(path)["data"]["sha256"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError("does not say what the run was trained on", where=path) from error
    known = {case.id for case in dataset}
    for part, ids in split.parts.items():
        missing = [case for case in ids if case not in known]
        if missing or data_hash(split.cases(dataset, part)) != stored.get(part):
            raise RunError(
                f"the '{part}' images or labels are not those that the run was started with",
                where=folder.root,
                got=f"no case '{missing[0]}'" if missing else None,
                fix="give the same data, or start a new run",
            )


def refuse_used(folder: Path, *, leftovers: Collection[str] = (), fix: str) -> None:
    """Refuse a folder that holds anything but ``leftovers``, or that is a file.

    Raises:
        RunError: says how to mend it.
    """
    try:
        used = folder.exists() and (
            not folder.is_dir() or any(entry.name not in leftovers for entry in folder.iterdir())
        )
    except OSError as error:
        raise RunError(f"cannot be looked into ({error.strerror})", where=folder) from error
    if used:
        raise RunError("exists already and is not overwritten", where=folder, fix=fix)


def _case_hash(case: Case) -> str:
    digest = hashlib.sha256(f"{case.id}\0{case.subject}\0{case.frame}".encode())
    if case.landmarks is not None:
        digest.update(case.landmarks.points.tobytes())
        digest.update(case.landmarks.status.tobytes())
    else:
        digest.update(repr(sorted(case.targets.items())).encode())
    path = case.image.path
    if path is None:
        pixels = case.image.array if isinstance(case.image, ArraySlab) else case.image.load()
        digest.update(pixels.tobytes())
    else:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            digest.update(sha256_file(file).encode())
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_same_recipe(folder: RunFolder, stored: Recipe, asked: Recipe, *, besides: str | None = None) -> None:
    """Refuse settings that a resumed run would not honour; to give none is to keep the run's own.

    Args:
        folder: of the run.
        stored: the run's own settings.
        asked: those that are given now.
        besides: a part of the recipe that may differ.

    Raises:
        RunError: names the settings that differ.
    """
    old, new = (_comparable(recipe, besides) for recipe in (stored, asked))
    differing = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if asked.model_fields_set and differing:
        raise RunError(
            "the settings are not those that the run was started with",
            where=folder.root,
            got=", ".join(f"{name}={new.get(name)} instead of {old.get(name)}" for name in differing[:3]),
            fix="leave them out to continue the run as it is, or start a new run",
        )


def _comparable(recipe: Recipe, besides: str | None) -> dict[str, Any]:
    """Return the settings that were given, and the defaults of those that no plan derives."""
    unplanned = {name for name, field in Recipe.model_fields.items() if isinstance(field.default, Config)}
    data = recipe.model_dump(mode="json", exclude_unset=True) | recipe.model_dump(mode="json", include=unplanned)
    return flatten({name: value for name, value in data.items() if name != besides})
