"""``study``: recipes trained over one dataset and one split, several seeds each, and compared once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bregma.bundle import PredictConfig, load_bundle
from bregma.config import laid_over, validate
from bregma.errors import BregmaError, ConfigError, RunError, SplitError
from bregma.evaluation.stored import StoredRun, load_run
from bregma.evaluation.study import compare_arms
from bregma.files import read_json, write_json
from bregma.prediction.predictor import Predictor
from bregma.recipe import LoadedRecipe, Recipe, load_recipe
from bregma.report.study import StudyRun, write_study
from bregma.results import StudyTable
from bregma.study_settings import Arm, Study, load_study
from bregma.training.history import read_history
from bregma.training.progress import Observer
from bregma.types import Case, Dataset
from bregma.workflows.loading import DataOptions, load_data
from bregma.workflows.run_folder import RunFolder, check_same_data
from bregma.workflows.track import Track, untracked
from bregma.workflows.training import check_same_recipe, selects_by_validation, train_loaded

log = logging.getLogger(__name__)

_TIMED_IMAGES = 16


@dataclass(frozen=True)
class StudyResult:
    """What a study left behind.

    Attributes:
        out: its folder.
        report: the HTML page, or None where fewer than two arms could be trained.
        table: the comparison behind it, or None.
        failures: run to what went wrong with it.
    """

    out: Path
    report: Path | None
    table: StudyTable | None
    failures: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out),
            "report": None if self.report is None else str(self.report),
            "study": None if self.table is None else self.table.to_dict(),
            "failures": dict(self.failures),
        }


def study(
    source: str | Path,
    data: str | Path | Dataset,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    minutes: float | None = None,
    seeds: Sequence[int] | None = None,
    options: DataOptions | None = None,
    observer: Observer | None = None,
    announce: Callable[[str], None] = log.info,
    track: Track = untracked,
) -> StudyResult:
    """Train every arm of a study under every seed and compare them; runs that are there already are kept or resumed.

    A run that fails is named, and the others go on; an arm is compared once all its seeds are done.

    Args:
        source: name of a shipped study, or a YAML file.
        data: a labelled dataset, or its folder or label file.
        out: the folder of the study: ``runs/ARM/seed-N/``, ``study.json``, ``study.html`` and ``comparison.csv``.
        overrides: single settings of the study, ``a.b=value``.
        minutes: wall-clock budget of each training, over the study's.
        seeds: over the study's.
        options: how to read ``data``.
        observer: hears of each training's progress.
        announce: is told which training begins.
        track: wraps long iterations.

    Raises:
        ConfigError: the study or a recipe is not valid, or the recipes divide the data differently.
        LabelError, SplitError: the data do not fit.
    """
    changes = [*overrides]
    changes += [] if minutes is None else [f"minutes={minutes}"]
    changes += [] if seeds is None else [f"seeds={list(seeds)}"]
    plan = load_study(source, changes)
    recipes = {(arm.name, seed): recipe_of(plan, arm, seed) for arm in plan.arms for seed in plan.seeds}
    dataset = load_data(data, options)
    _check_fit(plan, list(recipes.values()), dataset)
    root = Path(out)
    failures: dict[str, str] = {}
    for number, (arm, seed) in enumerate(((a, s) for a in plan.arms for s in plan.seeds), start=1):
        announce(f"{number} of {len(recipes)}: {arm.name}, seed {seed}")
        try:
            _train_once(dataset, run_folder(root, arm, seed), recipes[arm.name, seed], observer, track)
        except BregmaError as error:
            announce(f"failed: {error}")
            failures[f"{arm.name}, seed {seed}"] = str(error)
    table = _compare(plan, dataset, root, failures)
    report = None if table is None else root / "study.html"
    return StudyResult(root, report, table, failures)


def recipe_of(study: Study, arm: Arm, seed: int) -> LoadedRecipe:
    """Return an arm's recipe with what the study fixes for all arms."""
    loaded = load_recipe(arm.recipe, (*study.set, *arm.set))
    fixed: dict[str, Any] = {"train": {"seed": seed}}
    fixed |= {name: getattr(study, name).to_dict() for name in ("split", "evaluate") if name in study.model_fields_set}
    fixed |= {} if study.minutes is None else {"minutes": study.minutes}
    data = laid_over(loaded.recipe.model_dump(mode="json", exclude_unset=True), fixed)
    return replace(loaded, recipe=validate(Recipe, data, where=loaded.where, lines=loaded.lines))


def run_folder(root: Path, arm: Arm, seed: int) -> Path:
    """Return where a study keeps one training."""
    return root / "runs" / arm.folder / f"seed-{seed}"


def _check_fit(study: Study, recipes: Sequence[LoadedRecipe], dataset: Dataset) -> None:
    """Refuse before any training what would leave nothing to compare at the end."""
    splits = [loaded.recipe.split.apply(dataset) for loaded in recipes]
    for loaded, split in zip(recipes, splits):
        if split.parts != splits[0].parts:
            raise ConfigError(
                "the recipes of the study divide the data differently",
                where=loaded.where,
                expected="the same subjects in every part",
                fix="give the study a `split` of its own",
            )
    if not {"test", "val"} & splits[0].parts.keys():
        raise SplitError(
            "there are no images to compare the recipes on",
            where=dataset.name,
            expected="a part called 'test' or 'val'",
            got=", ".join(splits[0].parts),
        )
    known = sorted({name for case in dataset for name in case.tags})
    for tag in study.tags:
        if tag not in known:
            raise ConfigError(
                f"no image has the tag '{tag}'",
                where="tags",
                expected=f"one of {', '.join(known)}" if known else "none, because the data have no tags",
            )


def _train_once(dataset: Dataset, folder: Path, loaded: LoadedRecipe, observer: Observer | None, track: Track) -> None:
    run = RunFolder(folder)
    if _finished(run):
        # A study scores all its runs anew, so how the run was scored by itself does not matter.
        check_same_recipe(run, run.read_recipe(), loaded.recipe, besides="evaluate")
        check_same_data(run, dataset, run.read_split())
        return
    train_loaded(dataset, folder, loaded, resume=True, observer=observer, track=track)


def _finished(run: RunFolder) -> bool:
    return run.exists() and any((run.evaluation(part) / "metrics.json").is_file() for part in ("test", "val"))


def _compare(study: Study, dataset: Dataset, root: Path, failures: Mapping[str, str]) -> StudyTable | None:
    arms: dict[str, list[StoredRun]] = {}
    runs: list[StudyRun] = []
    for arm in study.arms:
        folders = [run_folder(root, arm, seed) for seed in study.seeds]
        if any(f"{arm.name}, seed {seed}" in failures for seed in study.seeds):
            continue
        arms[arm.name] = [load_run(_evaluation(RunFolder(folder))) for folder in folders]
        runs += [_facts(arm, root, seed, dataset) for seed in study.seeds]
    if len(arms) < 2:
        return None
    table = compare_arms(
        arms, title=study.title or root.name, settings=study.evaluate, tiers=study.tiers, tags=study.tags
    )
    notes = [f"{name} could not be trained: {why}" for name, why in failures.items()]
    if table.arms[0].name != study.arms[0].name:
        notes.append(f"The reference is {table.arms[0].name}, because {study.arms[0].name} could not be trained.")
    notes += _chosen_notes([run_folder(root, arm, study.seeds[0]) for arm in study.arms if arm.name in arms])
    table = replace(table, notes=(*notes, *table.notes))
    write_json(root / "study.json", {**table.to_dict(), "runs": [run.to_dict() for run in runs]})
    write_study(root, table, runs, schema=dataset.schema)
    return table


def _chosen_notes(folders: Sequence[Path]) -> list[str]:
    """Say where the compared images chose the weights of some arm."""
    runs = [run for run in map(RunFolder, folders) if _evaluation(run).name == "val"]
    if not any(selects_by_validation(run.read_plan()) for run in runs):
        return []
    return [
        "There is no test part: the images compared on also chose the best weights, so the figures are somewhat "
        "optimistic."
    ]


def _evaluation(run: RunFolder) -> Path:
    for part in ("test", "val"):
        if (run.evaluation(part) / "metrics.json").is_file():
            return run.evaluation(part)
    raise RunError("has not been evaluated", where=run.root, fix="remove it and run the study again")


def _facts(arm: Arm, root: Path, seed: int, dataset: Dataset) -> StudyRun:
    run = RunFolder(run_folder(root, arm, seed))
    training = load_bundle(run.bundle).provenance.get("training", {})
    seconds, images = float(training.get("seconds", 0.0)), int(training.get("images", 0))
    parameters, predicted = _measured(run, _evaluation(run).name, dataset)
    return StudyRun(
        arm=arm.name,
        seed=seed,
        folder=run.root.relative_to(root).as_posix(),
        parameters=parameters,
        minutes=seconds / 60,
        trained_per_s=images / seconds if seconds else 0.0,
        predicted_per_s=predicted,
        history=tuple(read_history(run.history)),
    )


def _measured(run: RunFolder, part: str, dataset: Dataset) -> tuple[int, float]:
    """Return the network's parameters, and images a second in prediction with one view; measured once and kept."""
    kept = run.root / "speed.json"
    if kept.is_file():
        found = read_json(kept)
        return int(found["parameters"]), float(found["predicted_per_s"])
    bundle = load_bundle(run.bundle)
    predictor = Predictor([bundle], PredictConfig(flip=False, rotations_deg=(), zooms=()))
    cases: tuple[Case, ...] = run.read_split().cases(dataset, part)[:_TIMED_IMAGES]
    list(predictor.predict(cases[:2]))
    start = time.perf_counter()
    list(predictor.predict(cases))
    speed = len(cases) / (time.perf_counter() - start)
    parameters = sum(weight.numel() for weight in bundle.network.parameters())
    write_json(kept, {"parameters": parameters, "predicted_per_s": speed})
    return parameters, speed
