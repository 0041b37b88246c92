"""``train``: from a folder of labelled images to a run folder with a bundle, an evaluation and a report."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from bregma.bundle import save_bundle
from bregma.close_up import RefineConfig
from bregma.crop import Box
from bregma.data.audit import target_findings
from bregma.data.fingerprint import fingerprint
from bregma.data.loader import draws_of
from bregma.data.split import Split
from bregma.errors import ConfigError, LabelError, RunError, SplitError
from bregma.evaluation.case import is_labelled
from bregma.exchange import sets_of
from bregma.files import atomic_path, read_json
from bregma.hardware import is_helper
from bregma.recipe import LoadedRecipe, Recipe, load_recipe
from bregma.report.figures import learning_curves
from bregma.results import Evaluation
from bregma.schema import LandmarkSchema
from bregma.shape_model import MIN_CASES, shape_model_of
from bregma.training.budget import fit_to_budget
from bregma.training.checks import check_length, check_plan
from bregma.training.first_weights import with_first_weights
from bregma.training.loop import Trained, Trainer
from bregma.training.places import with_places
from bregma.training.plan import Planned, make_plan, with_reference, with_standards
from bregma.training.progress import Observer
from bregma.types import Case, Dataset
from bregma.workflows.correcting import correction_of
from bregma.workflows.cropping import cropper_of, cut, find_boxes, roi_folder, seen_before, with_part, without_part
from bregma.workflows.evaluation import evaluate_bundle
from bregma.workflows.fitting import check_fit, regression_of, residuals_of
from bregma.workflows.loading import DataOptions, load_data
from bregma.workflows.mirrored import check_flip, learned_flip
from bregma.workflows.named_settings import settings_of
from bregma.workflows.quantities import check_shared, in_quantities
from bregma.workflows.refining import check_refine, close_up_dataset, close_up_recipe
from bregma.workflows.run_folder import RunFolder, check_same_data, check_same_recipe, command_line, provenance
from bregma.workflows.track import Track, untracked
from bregma.workflows.trusted import TrustedLabels, trusted_labels

log = logging.getLogger(__name__)

_SEED_STRIDE = 1000
"""From one network of an ensemble to the next, so that trainings with neighbouring seeds share none."""


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind.

    Attributes:
        run: the run folder.
        bundle: the trained model.
        report: the HTML report, or None where there was nothing to evaluate on.
        evaluation: the evaluation behind it.
        epoch: the epoch whose weights were kept.
        images: views that the networks were trained on.
        seconds: time in training steps.
    """

    run: Path
    bundle: Path
    report: Path | None
    evaluation: Evaluation | None
    epoch: int
    images: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        metrics = {} if self.evaluation is None else {k: v.to_dict() for k, v in self.evaluation.metrics.items()}
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "report": None if self.report is None else str(self.report),
            "epoch": self.epoch,
            "images": self.images,
            "seconds": self.seconds,
            "metrics": metrics,
        }


def train(
    data: str | Path | Dataset,
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    options: DataOptions | None = None,
    minutes: float | None = None,
    exclude: str | Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    track: Track = untracked,
) -> TrainResult:
    """Plan and train a model, then evaluate it on the part of the split that it has not learned from.

    Args:
        data: a labelled dataset, or its folder or label file.
        out: the run folder; must be new or empty, unless ``resume``.
        recipe: name of a shipped recipe, or a YAML file; None trains by the plan alone.
        overrides: single settings, ``a.b=value``, over the recipe.
        options: how to read ``data``.
        minutes: wall-clock budget of the training steps, over the recipe's.
        exclude: table of suspect labels, over the recipe's ``data.exclude``.
        resume: continue an interrupted run to the result that it would have had, with its own settings; where there
            is no run yet, begin one.
        observer: hears of progress.
        track: wraps long iterations, e.g. in a progress bar.

    Raises:
        RunError: ``out`` is in use, cannot be written, or holds a run with other data or settings.
        ConfigError, LabelError, SplitError: the recipe, the labels or the split are not valid.
        SystemExit: training is over, in a process that was started for a further device (``train.devices``).
    """
    dataset = load_data(data, options)
    changes = [*overrides, *([] if minutes is None else [f"minutes={minutes}"])]
    if exclude is not None:
        changes.append(f"data.exclude={json.dumps(str(exclude))}")
    loaded = load_recipe(recipe, changes)
    return train_loaded(dataset, Path(out), loaded, resume=resume, observer=observer, track=track)


def train_loaded(
    dataset: Dataset,
    out: Path,
    loaded: LoadedRecipe,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    track: Track = untracked,
) -> TrainResult:
    """Do what :func:`train` does, with data and recipe in hand."""
    dataset = as_trained(dataset, loaded.recipe)
    folder = RunFolder(out)
    if is_helper():
        _help(folder, dataset, resume)
    if resume and folder.exists():
        run = _continue(folder, dataset, loaded.recipe)
    else:
        folder.check_new(again=resume)
        with settings_of(loaded):
            run = _begin(folder, dataset, loaded, track)
    return _finish(folder, dataset, run, _trained(folder, dataset.schema, run, observer, resume), observer, track)


@dataclass(frozen=True)
class _Run:
    """All that is settled before training."""

    recipe: Recipe
    planned: Planned
    split: Split
    parts: dict[str, tuple[Case, ...]]
    """The labelled cases of each part; the training part without the labels that are left out."""
    trusted: TrustedLabels
    """Which labels of the training part count."""
    boxes: Mapping[str, Box] | None = None
    """The part of every training and validation image that the network sees; None is the whole."""
    notes: tuple[str, ...] = ()
    """What readers of its figures must know of the images: which were left out, which a landmark model knew."""
    roi: Path | None = None
    """The run's own copy of the bundle that finds these parts."""

    def seen(self, part: str) -> tuple[Case, ...]:
        """Return the cases of a part of the split as the network sees them."""
        cases = self.parts.get(part, ())
        return cases if self.boxes is None else cut(cases, self.boxes)


def as_trained(dataset: Dataset, recipe: Recipe) -> Dataset:
    """Return the dataset as a recipe sees it: with quantities of whole images in place of landmarks, if it asks for it.

    Raises:
        ConfigError: quantities that the schema does not know.
    """
    codec = recipe.model.get("codec", {})
    if isinstance(codec, dict) and codec.get("name") == "scalar":
        return in_quantities(dataset, tuple(codec.get("quantities", ())))
    return dataset


def check_recipe(dataset: Dataset, loaded: LoadedRecipe) -> None:
    """Refuse whatever :func:`train_loaded` would refuse in a recipe, without training or writing anything.

    Raises:
        ConfigError, LabelError, SplitError: the recipe, the labels or the split are not valid.
    """
    dataset = as_trained(dataset, loaded.recipe)
    with settings_of(loaded):
        run = _settle(dataset, loaded)
        if loaded.recipe.minutes is None:
            check_length(run.planned.plan.train, _shown(run.planned, run.seen("train")))


def _begin(folder: RunFolder, dataset: Dataset, loaded: LoadedRecipe, track: Track) -> _Run:
    run = _settle(dataset, loaded, track)
    planned, cases = run.planned, run.seen("train")
    if loaded.recipe.minutes is not None and loaded.recipe.trains_network:
        planned = fit_to_budget(planned, dataset.schema, cases, loaded.recipe.minutes / loaded.recipe.ensemble)
    check_length(planned.plan.train, _shown(planned, cases))
    about = provenance(dataset, run.split, command_line(), planned.plan)
    about["notes"] = list(run.notes)
    if loaded.recipe.data.exclude is not None:
        folder.keep_suspects(loaded.recipe.data.exclude)
        about["labels"] = {"table": loaded.recipe.data.exclude, **run.trusted.to_dict()}
    if run.boxes is not None:
        folder.keep_crops(run.boxes, roi_folder(loaded.recipe))
    folder.write_settings(loaded.recipe, planned, dataset.schema, run.split, about)
    return replace(run, planned=planned, roi=None if roi_folder(loaded.recipe) is None else folder.roi)


def _shown(planned: Planned, cases: Sequence[Case]) -> int:
    """Return how many images an epoch shows."""
    return len(draws_of(cases, by_subject=planned.plan.train.draw == "subject"))


def _settle(dataset: Dataset, loaded: LoadedRecipe, track: Track | None = None) -> _Run:
    """Plan a training in full, but for the epochs that fit into a budget.

    Without ``track`` the parts of the images are not looked for, and the plan is that for whole images.
    """
    check_shared(dataset.schema, dataset.cases)
    split = loaded.recipe.split.apply(dataset)
    parts, trusted = _trusted_parts(dataset, split, loaded.recipe, loaded.recipe.data.exclude)
    _check_shapes(loaded.recipe, parts["train"])
    boxes, notes = _boxes(loaded.recipe, parts, dataset.schema, track)
    if boxes is not None:
        parts = with_part(parts, boxes)
        _check_shapes(loaded.recipe, parts["train"])
    seen = parts["train"] if boxes is None else cut(parts["train"], boxes)
    planned = make_plan(
        fingerprint(Dataset(dataset.name, dataset.schema, seen)),
        dataset.schema,
        len(seen),
        recipe=loaded.recipe.plan_part(),
        where=loaded.where,
        lines=loaded.lines,
    )
    _check_ensemble(loaded.recipe, planned.plan.train.devices)
    _check_correction(loaded.recipe, dataset.schema, planned.plan.model.codec.name)
    check_flip(loaded.recipe, dataset.schema, planned.plan.augment.flip)
    check_fit(loaded.recipe, dataset.schema, planned.plan.model.codec.name, parts["train"])
    flip = planned.plan.augment.flip
    check_refine(loaded.recipe, dataset.schema, planned.plan.model.codec.name, parts["train"], flip=flip)
    planned = with_standards(planned, dataset.schema, seen)
    planned = with_places(planned, dataset.schema, seen)
    planned = with_first_weights(with_reference(planned, seen))
    check_plan(planned.plan, dataset.schema, _shown(planned, seen))
    notes = (*notes, *seen_before(loaded.recipe, split))
    return _Run(loaded.recipe, planned, split, parts, trusted, boxes, notes)


def _boxes(
    recipe: Recipe, parts: Mapping[str, tuple[Case, ...]], schema: LandmarkSchema, track: Track | None
) -> tuple[dict[str, Box] | None, tuple[str, ...]]:
    """Return which part of the training and validation images is seen, and why some have none."""
    if recipe.crop is None:
        return None, ()
    if recipe.fit is not None:
        raise ConfigError(
            "features are taken from whole images",
            where="crop",
            fix="leave it out; fit.roi pools the features over what landmarks enclose",
        )
    cropper = cropper_of(recipe, recipe.crop)
    if recipe.crop.slices and len(schema) and recipe.model.get("codec", {}).get("name") != "scalar":
        raise ConfigError(
            "landmarks lie on the slice on which they were labelled, and the network would see another one",
            where="crop.slices",
            expected="0 for a network of landmarks",
        )
    if track is None:
        return None, ()
    boxes = find_boxes(parts, schema, cropper, track)
    return boxes, without_part(parts, boxes)


def _check_shapes(recipe: Recipe, cases: Sequence[Case]) -> None:
    """Refuse before a long training what the prediction at its end would refuse."""
    if (recipe.predict.shape_weight or 0) > 0 and shape_model_of(cases) is None:
        raise ConfigError(
            "the training images are too few to learn a shape model",
            where="predict.shape_weight",
            expected=f"three landmarks or more, each labelled on at least {MIN_CASES} images",
            got=f"{len(cases)} images",
            fix="set it to 0",
        )


def _check_ensemble(recipe: Recipe, devices: int) -> None:
    if recipe.ensemble > 1 and not recipe.trains_network:
        raise ConfigError(
            "an ensemble needs networks that are trained, and `fit` only asks one for features",
            where="ensemble",
            fix="leave it out, or set fit.train=true",
        )
    if recipe.ensemble > 1 and devices > 1:
        raise ConfigError(
            "the networks of an ensemble are trained one after another, on one device",
            where="ensemble",
            expected="train.devices=1",
            got=str(devices),
            fix="set it so, or train single networks and give all their runs to `bregma predict`",
        )


def _check_correction(recipe: Recipe, schema: LandmarkSchema, codec: str) -> None:
    if recipe.predict.correction and (schema.exchangeable or codec in ("chain", "slots")):
        raise ConfigError(
            "a correction needs landmarks that each have a name and a place of their own",
            where="predict.correction",
            expected="a schema without exchangeable points, and the codec heatmap or coordinate",
            fix="set it to false",
        )


def _continue(folder: RunFolder, dataset: Dataset, asked: Recipe) -> _Run:
    schema, split, recipe = folder.read_schema(), folder.read_split(), folder.read_recipe()
    if schema != dataset.schema:
        raise RunError(
            "the data are of another schema than the run",
            where=folder.root,
            expected=schema.name,
            got=dataset.schema.name,
        )
    check_same_recipe(folder, recipe, asked)
    check_same_data(folder, dataset, split)
    return _stored(folder, dataset)


def _stored(folder: RunFolder, dataset: Dataset) -> _Run:
    """Return what was settled before a training, from its folder."""
    split, recipe = folder.read_split(), folder.read_recipe()
    parts, trusted = _trusted_parts(dataset, split, recipe, folder.suspects)
    boxes = None if recipe.crop is None else folder.read_crops()
    parts = parts if boxes is None else with_part(parts, boxes)
    notes = tuple(map(str, read_json(folder.root / "provenance.json").get("notes", ())))
    roi = None if recipe.crop is None or recipe.crop.roi is None else folder.roi
    return _Run(recipe, folder.read_plan(), split, parts, trusted, boxes, notes, roi)


def _help(folder: RunFolder, dataset: Dataset, resume: bool) -> NoReturn:
    """Train beside the process that started this one, which alone writes the results; then end."""
    _trainer(folder, dataset.schema, _stored(folder, dataset), None).fit(resume=resume)
    raise SystemExit(0)


def _trusted_parts(
    dataset: Dataset, split: Split, recipe: Recipe, table: str | Path | None
) -> tuple[dict[str, tuple[Case, ...]], TrustedLabels]:
    parts = _labelled_parts(dataset, split)
    trusted = trusted_labels(parts["train"], dataset, recipe.data, table)
    return {**parts, "train": trusted.cases}, trusted


def _labelled_parts(dataset: Dataset, split: Split) -> dict[str, tuple[Case, ...]]:
    parts = {
        part: tuple(case for case in split.cases(dataset, part) if is_labelled(dataset.schema, case))
        for part in split.parts
    }
    if "train" not in parts:
        raise SplitError("there is no part to train on", where=dataset.name, expected="a part called 'train'")
    if not parts["train"]:
        names = " or ".join(quantity.name for quantity in dataset.schema.quantities)
        lacking = "label" if len(dataset.schema) else f"known value of {names}"
        raise LabelError(f"none of the training images has a {lacking}", where=dataset.name)
    return parts


def _finish(
    folder: RunFolder, dataset: Dataset, run: _Run, trained: Trained, observer: Observer | None, track: Track
) -> TrainResult:
    made = _deploy(folder, dataset, run, trained, observer, track)
    part = next((name for name in ("test", "val") if run.parts.get(name)), None)
    evaluation = None
    if part is not None:
        evaluation = evaluate_bundle(
            folder.root,
            run.split.cases(dataset, part),
            out=folder.evaluation(part),
            report=folder.report,
            name=f"{folder.root.resolve().name}, {dataset.name} {part}",
            settings=run.recipe.evaluate,
            predict=run.recipe.predict,
            notes=(*made.notes, *selection_notes(run.planned, part, trained)),
            track=track,
        )
    return TrainResult(
        run=folder.root,
        bundle=folder.bundle,
        report=folder.report if part else None,
        evaluation=evaluation,
        epoch=trained.epoch,
        images=made.images,
        seconds=made.seconds,
    )


@dataclass(frozen=True)
class _Made:
    """What it took to make a bundle.

    Attributes:
        images: views that all its networks were trained on.
        seconds: time in their training steps.
        notes: for readers of its figures.
    """

    images: int
    seconds: float
    notes: tuple[str, ...]


def _deploy(
    folder: RunFolder, dataset: Dataset, run: _Run, trained: Trained, observer: Observer | None, track: Track
) -> _Made:
    """Write the bundle, after what is learned from the trained network and the trainings of further ones."""
    about = read_json(folder.root / "provenance.json")
    about["training"] = {"epoch": trained.epoch, "images": trained.images, "seconds": round(trained.seconds, 1)}
    if trained.history:
        with atomic_path(folder.root / "curves.png") as temporary:
            temporary.write_bytes(learning_curves(trained.history, format="png"))
    parts: dict[str, Any] = {"roi": run.roi}
    images, seconds = trained.images, trained.seconds
    # Before the bundle is there at all, so that it is never there without them.
    if run.recipe.refine is not None:
        close_up = _train_close_up(folder, dataset.schema, run, run.recipe.refine, observer, track)
        about["close_up"] = {"images": close_up.images, "seconds": round(close_up.seconds, 1)}
        parts |= {"refine": run.recipe.refine, "close_up": close_up.bundle}
    members = [_train_member(folder, dataset, run, number, observer, track) for number in _further(run.recipe)]
    if members:
        images += sum(made.images for made in members)
        seconds += sum(made.seconds for made in members)
        about["training"] |= {"networks": 1 + len(members), "images": images, "seconds": round(seconds, 1)}
        parts["members"] = [RunFolder(folder.member(number)).bundle for number in _further(run.recipe)]

    def save() -> None:
        save_bundle(
            folder.bundle,
            name=folder.root.resolve().name,
            schema=dataset.schema,
            config=run.planned.plan.model,
            weights=trained.weights,
            shape_model=shape_model_of(run.parts["train"], sets_of(dataset.schema)),
            predict=run.recipe.predict,
            provenance=about,
            crop=run.recipe.crop,
            **parts,
        )

    save()
    notes = (*run.trusted.notes, *run.notes, *(found.sentence for found in target_findings(dataset)))
    if run.recipe.fit is not None:
        fitted = regression_of(folder.bundle, run.parts["train"], run.recipe.fit, track)
        about["fit"] = {"notes": list(fitted.notes), "chosen": dict(fitted.regression.chosen)}
        notes = (*notes, *fitted.notes)
        parts |= {"regression": fitted.regression, "roi": fitted.roi, "conformal": fitted.regression.conformal}
    elif run.planned.plan.model.codec.name == "scalar" and run.parts.get("val"):
        parts["conformal"] = residuals_of(folder.bundle, run.parts["val"], track)
    if run.recipe.predict.correction:
        correction = correction_of(folder.bundle, run.parts["train"], track)
        about["correction"] = None if correction is None else {"px": correction.before, "px_after": correction.after}
        parts["correction"] = correction
    if parts.keys() & {"regression", "conformal", "correction"}:
        save()
    return _Made(images, seconds, notes)


def _further(recipe: Recipe) -> range:
    """Return the numbers of the networks of an ensemble beyond the first."""
    return range(2, recipe.ensemble + 1)


def _train_member(
    folder: RunFolder, dataset: Dataset, run: _Run, number: int, observer: Observer | None, track: Track
) -> _Made:
    """Train a further network of an ensemble as the first one was, but from another seed, or go on with it."""
    own = RunFolder(folder.member(number))
    plan = run.planned.plan
    seed = plan.train.seed + _SEED_STRIDE * (number - 1)
    settings = plan.train.model_copy(update={"seed": seed})
    planned = replace(run.planned, plan=plan.model_copy(update={"train": settings}))
    recipe = run.recipe.model_copy(update={"ensemble": 1, "minutes": None, "train": {**run.recipe.train, "seed": seed}})
    one = replace(run, recipe=recipe, planned=planned)
    if not own.exists():
        about = {**read_json(folder.root / "provenance.json"), "seed": seed}
        own.write_settings(recipe, planned, dataset.schema, run.split, about)
    if observer is not None:
        observer.say(f"network {number} of {run.recipe.ensemble}")
    trained = _trained(own, dataset.schema, one, observer, resume=True)
    return _deploy(own, dataset, one, trained, observer, track)


def _trained(folder: RunFolder, schema: LandmarkSchema, run: _Run, observer: Observer | None, resume: bool) -> Trained:
    """Train; the trainer, with its images in memory, is gone before another one is made."""
    trainer = _trainer(folder, schema, run, observer)
    return trainer.fit(resume=resume) if run.recipe.trains_network else trainer.untrained()


def _trainer(folder: RunFolder, schema: LandmarkSchema, run: _Run, observer: Observer | None) -> Trainer:
    return Trainer(
        run.planned.plan, schema, run.seen("train"), run.seen("val"), folder.root, observer, run.trusted.trust
    )


def _train_close_up(
    folder: RunFolder,
    schema: LandmarkSchema,
    run: _Run,
    config: RefineConfig,
    observer: Observer | None,
    track: Track,
) -> TrainResult:
    """Train the second network in a run of its own inside the run's folder, or go on with it."""
    plan = run.planned.plan
    close_ups = close_up_dataset(run.parts, schema, config, plan.model.preprocess)
    flip = learned_flip(run.recipe, plan.augment.flip)
    loaded = close_up_recipe(config, schema, flip=flip, seed=plan.train.seed)
    if observer is not None:
        observer.say("close-ups")
    return train_loaded(close_ups, folder.close_up, loaded, resume=True, observer=observer, track=track)


def selection_notes(planned: Planned, part: str, trained: Trained) -> tuple[str, ...]:
    """Say where the figures are optimistic because the evaluated images chose the weights."""
    if part == "val" and selects_by_validation(planned) and trained.best_mre_px is not None:
        return (
            "These images also chose the best weights, so the figures are somewhat optimistic; "
            "keep a test part apart for figures to publish.",
        )
    return ()


def selects_by_validation(planned: Planned) -> bool:
    """Tell whether the validation part has a say in which weights a training ends with."""
    return planned.plan.train.select == "best" or bool(planned.plan.train.early_stop)
