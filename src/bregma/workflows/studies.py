"""``study``: recipes trained over one dataset and one split or its folds, several seeds each, and compared once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bregma.bundle import PredictConfig, find_bundle, load_bundle
from bregma.config import laid_over, validate
from bregma.data.split import Split
from bregma.errors import BregmaError, ConfigError, RunError, SplitError
from bregma.evaluation.stored import StoredRun, load_run
from bregma.evaluation.study import compare_arms
from bregma.files import read_json, write_json
from bregma.prediction.predictor import Predictor
from bregma.prediction.regressed import features_remembered
from bregma.recipe import LoadedRecipe, Recipe, load_recipe
from bregma.report.study import StudyRun, write_study
from bregma.results import StudyTable
from bregma.study_settings import Arm, Study, load_study
from bregma.training.history import read_history
from bregma.training.progress import Observer
from bregma.types import Case, Dataset
from bregma.workflows.cropping import seen_before
from bregma.workflows.evaluation import evaluate_folds
from bregma.workflows.loading import DataOptions, load_data
from bregma.workflows.run_folder import RunFolder, check_same_data, check_same_recipe
from bregma.workflows.track import Track, untracked
from bregma.workflows.training import as_trained, check_recipe, selects_by_validation, train_loaded

log = logging.getLogger(__name__)

_TIMED_IMAGES = 16
_MOST_NOTES = 3

_FOLD = "fold-{}"
"""Folder of a fold's run."""
_VAL_SHARE = 0.1
"""Of the subjects that a fold learns from: few, because they are lost to training; they only choose the weights."""


@dataclass(frozen=True)
class Trial:
    """One training of a study.

    Attributes:
        arm: what is trained.
        seed: of the training.
        fold: which fold is held out, from 0; None without cross-validation.
    """

    arm: Arm
    seed: int
    fold: int | None = None

    def __str__(self) -> str:
        return f"{self.arm.name}, seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")

    def folder(self, root: Path) -> Path:
        """Return where the study at ``root`` keeps it."""
        seed = root / "runs" / self.arm.folder / f"seed-{self.seed}"
        return seed if self.fold is None else seed / _FOLD.format(self.fold)


@dataclass(frozen=True)
class StudyResult:
    """What a study left behind.

    Attributes:
        out: its folder.
        report: the page that compares the arms, or that of a single cross-validated one; None where too few could be
            trained.
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
    folds: int | None = None,
    options: DataOptions | None = None,
    observer: Observer | None = None,
    announce: Callable[[str], None] = log.info,
    track: Track = untracked,
) -> StudyResult:
    """Train every arm of a study under every seed and compare them; runs that are there already are kept or resumed.

    Recipes that cannot be trained as they are written are refused before the first training. A run that fails later
    is named, and the others go on; an arm is compared once all its seeds are done.

    Args:
        source: name of a shipped study, or a YAML file.
        data: a labelled dataset, or its folder or label file.
        out: the folder of the study: ``runs/ARM/seed-N/``, ``study.json``, ``study.html`` and ``comparison.csv``; with
            folds ``runs/ARM/seed-N/fold-K/``, and ``arms/ARM/seed-N/`` with the evaluation over all of them.
        overrides: single settings of the study, ``a.b=value``.
        minutes: wall-clock budget of each training, over the study's.
        seeds: over the study's.
        folds: cross-validate with so many, over the study's.
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
    changes += [] if folds is None else [f"folds={folds}"]
    plan = load_study(source, changes)
    recipes = {trial: recipe_of(plan, trial) for trial in trials_of(plan)}
    dataset = load_data(data, options)
    root = Path(out)
    _check_fit(plan, recipes, dataset)
    _check_regions(recipes, dataset)
    _check_recipes(recipes, dataset, root)
    failures: dict[Trial, str] = {}
    with features_remembered():
        for number, (trial, loaded) in enumerate(recipes.items(), start=1):
            announce(f"{number} of {len(recipes)}: {trial}")
            try:
                _train_once(dataset, trial.folder(root), loaded, observer, track)
            except BregmaError as error:
                announce(f"failed: {error}")
                failures[trial] = str(error)
    table = _compare(plan, dataset, root, failures)
    return StudyResult(root, _page(plan, root, table, failures), table, {str(t): why for t, why in failures.items()})


def trials_of(study: Study) -> tuple[Trial, ...]:
    """Return every training of a study, arm by arm."""
    folds = (None,) if study.folds is None else range(study.folds)
    return tuple(Trial(arm, seed, fold) for arm in study.arms for seed in study.seeds for fold in folds)


def recipe_of(study: Study, trial: Trial) -> LoadedRecipe:
    """Return a training's recipe with what the study fixes for all."""
    loaded = load_recipe(trial.arm.recipe, (*study.set, *trial.arm.set))
    fixed: dict[str, Any] = {"train": {"seed": trial.seed}}
    fixed |= {name: getattr(study, name).to_dict() for name in ("split", "evaluate") if name in study.model_fields_set}
    fixed |= {} if study.minutes is None else {"minutes": study.minutes}
    if trial.fold is not None:
        folded = {"method": "kfold", "folds": study.folds, "fold": trial.fold}
        fixed["split"] = {"val_share": _VAL_SHARE, **study.split.model_dump(exclude_unset=True), **folded}
    data = laid_over(loaded.recipe.model_dump(mode="json", exclude_unset=True), fixed)
    if trial.fold is not None:
        data |= _of_fold(data, trial.fold)
    return replace(loaded, recipe=validate(Recipe, data, where=loaded.where, lines=loaded.lines))


def _of_fold(data: Mapping[str, Any], fold: int) -> dict[str, Any]:
    """Return the parts of a recipe whose landmark model was cross-validated, with the model of the fold."""
    found = {}
    for name in ("crop", "fit"):
        part = data.get(name)
        roi = part.get("roi") if isinstance(part, dict) else None
        if isinstance(part, dict) and roi is not None and any(Path(roi).glob(_FOLD.format("*"))):
            own = Path(roi) / _FOLD.format(fold)
            find_bundle(own)
            found[name] = {**part, "roi": str(own)}
    return found


def _check_regions(recipes: Mapping[Trial, LoadedRecipe], dataset: Dataset) -> None:
    """Refuse landmark models of folds that are not the study's.

    Raises:
        ConfigError: one has learned from images that are held out.
    """
    for trial, loaded in recipes.items():
        parts = (part for part in (loaded.recipe.crop, loaded.recipe.fit) if part is not None and part.roi is not None)
        for part in parts:
            own = trial.fold is not None and Path(str(part.roi)).name == _FOLD.format(trial.fold)
            if own and seen_before(loaded.recipe, loaded.recipe.split.apply(dataset)):
                raise ConfigError(
                    f"the landmark model of fold {trial.fold} has learned from images that this study holds out there",
                    where=str(part.roi),
                    expected="one that was cross-validated with the same folds, split.seed and subjects",
                    fix="cross-validate it anew, or name a single landmark model, of which the report then tells",
                )


def _check_fit(study: Study, recipes: Mapping[Trial, LoadedRecipe], dataset: Dataset) -> None:
    """Refuse before any training what would leave nothing to compare at the end."""
    firsts: dict[int | None, Split] = {}
    for trial, loaded in recipes.items():
        split = loaded.recipe.split.apply(dataset)
        if split.parts != firsts.setdefault(trial.fold, split).parts:
            raise ConfigError(
                "the recipes of the study divide the data differently",
                where=loaded.where,
                expected="the same subjects in every part",
                fix="give the study a `split` of its own",
            )
    parts = next(iter(firsts.values())).parts
    if not {"test", "val"} & parts.keys():
        raise SplitError(
            "there are no images to compare the recipes on",
            where=dataset.name,
            expected="a part called 'test' or 'val'",
            got=", ".join(parts),
        )
    known = sorted({name for case in dataset for name in case.tags})
    for tag in study.tags:
        if tag not in known:
            raise ConfigError(
                f"no image has the tag '{tag}'",
                where="tags",
                expected=f"one of {', '.join(known)}" if known else "none, because the data have no tags",
            )


def _check_recipes(recipes: Mapping[Trial, LoadedRecipe], dataset: Dataset, root: Path) -> None:
    """Refuse before any training a recipe that its own training would refuse hours later; seeds make no difference."""
    checked: set[str] = set()
    for trial, loaded in recipes.items():
        if trial.arm.name not in checked and not RunFolder(trial.folder(root)).exists():
            check_recipe(dataset, loaded)
            checked.add(trial.arm.name)


def _train_once(dataset: Dataset, folder: Path, loaded: LoadedRecipe, observer: Observer | None, track: Track) -> None:
    run = RunFolder(folder)
    dataset = as_trained(dataset, loaded.recipe)
    if run.exists():
        # A study scores all its runs anew, so how the run is scored by itself does not matter.
        own = run.read_recipe()
        check_same_recipe(run, own, loaded.recipe, besides="evaluate")
        loaded = replace(loaded, recipe=own)
    if _finished(run):
        check_same_data(run, dataset, run.read_split())
        return
    train_loaded(dataset, folder, loaded, resume=True, observer=observer, track=track)


def _finished(run: RunFolder) -> bool:
    return run.exists() and any((run.evaluation(part) / "metrics.json").is_file() for part in ("test", "val"))


def _compare(study: Study, dataset: Dataset, root: Path, failures: Mapping[Trial, str]) -> StudyTable | None:
    arms: dict[str, list[StoredRun]] = {}
    runs: list[StudyRun] = []
    trials = trials_of(study)
    for arm in study.arms:
        own = [trial for trial in trials if trial.arm == arm]
        if any(trial in failures for trial in own):
            continue
        arms[arm.name] = [load_run(_scored(study, dataset, root, arm, seed)) for seed in study.seeds]
        runs += [_facts(trial, root, dataset) for trial in own]
    if len(arms) < 2:
        return None
    table = compare_arms(
        arms, title=study.title or root.name, settings=study.evaluate, tiers=study.tiers, tags=study.tags
    )
    notes = [f"{trial} could not be trained: {why}" for trial, why in failures.items()]
    if table.arms[0].name != study.arms[0].name:
        notes.append(f"The reference is {table.arms[0].name}, because {study.arms[0].name} could not be trained.")
    notes += [
        f"{name}: {note}"
        for name in arms
        for note in _run_notes([t.folder(root) for t in trials if t.arm.name == name])
    ]
    notes += _chosen_notes([trial.folder(root) for trial in trials if trial.arm.name in arms])
    table = replace(table, notes=(*notes, *table.notes))
    write_json(root / "study.json", {**table.to_dict(), "runs": [run.to_dict() for run in runs]})
    schema = next(iter(arms.values()))[0].schema
    write_study(root, table, runs, schema=schema, reports=_reports(study, root))
    return table


def _page(study: Study, root: Path, table: StudyTable | None, failures: Mapping[Trial, str]) -> Path | None:
    if table is not None:
        return root / "study.html"
    alone = study.arms[0]
    return None if len(study.arms) > 1 or failures else _whole(root, alone, study.seeds[0]) / "report.html"


def _reports(study: Study, root: Path) -> dict[str, str]:
    """Return, for each arm, where its report lies within the study's folder, if one shows all of its images once."""
    seed = study.seeds[0]
    folders = {
        arm.name: Trial(arm, seed).folder(root) if study.folds is None else _whole(root, arm, seed)
        for arm in study.arms
    }
    return {name: (folder / "report.html").relative_to(root).as_posix() for name, folder in folders.items()}


def _whole(root: Path, arm: Arm, seed: int) -> Path:
    """Return where a study keeps the evaluation of an arm over all folds."""
    return root / "arms" / arm.folder / f"seed-{seed}"


def _scored(study: Study, dataset: Dataset, root: Path, arm: Arm, seed: int) -> Path:
    """Return the folder of the evaluation of an arm under one seed, made of those of its folds where there are any."""
    folders = [trial.folder(root) for trial in trials_of(study) if trial.arm == arm and trial.seed == seed]
    if study.folds is None:
        return _evaluation(RunFolder(folders[0]))
    whole = _whole(root, arm, seed)
    name = f"{arm.name}, {dataset.name}, {study.folds}-fold cross-validation"
    evaluations = [_evaluation(RunFolder(folder)) for folder in folders]
    held_out = [
        case
        for folder, evaluation in zip(folders, evaluations, strict=True)
        for case in RunFolder(folder).read_split().parts.get(evaluation.name, ())
    ]
    evaluate_folds(evaluations, dataset, out=whole, name=name, held_out=held_out, notes=_run_notes(folders))
    return whole


def _run_notes(folders: Sequence[Path]) -> list[str]:
    """Return what was noted before the trainings, each once; of many the first ones."""
    found = [str(note) for folder in folders for note in read_json(folder / "provenance.json").get("notes", ())]
    each = list(dict.fromkeys(found))
    more = [f"{len(each) - _MOST_NOTES} more such notes stand in the reports of its runs."]
    return each if len(each) <= _MOST_NOTES else [*each[:_MOST_NOTES], *more]


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


def _facts(trial: Trial, root: Path, dataset: Dataset) -> StudyRun:
    run = RunFolder(trial.folder(root))
    provenance = load_bundle(run.bundle).provenance
    trained = [provenance.get(name, {}) for name in ("training", "close_up")]
    seconds, images = (sum(float(part.get(name, 0)) for part in trained) for name in ("seconds", "images"))
    parameters, predicted = _measured(run, _evaluation(run).name, dataset)
    return StudyRun(
        arm=trial.arm.name,
        seed=trial.seed,
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
    write_json(kept, {"parameters": bundle.parameters, "predicted_per_s": speed})
    return bundle.parameters, speed
