"""``demo``, ``train``, ``evaluate``, ``predict``, ``measure`` and ``compare``: models and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bregma.cli.options import (
    Columns,
    Data,
    Format,
    Images,
    Json,
    Labels,
    Model,
    Out,
    OutOrNone,
    Schema,
    Seed,
    Set,
    Strict,
    data_options,
)

SOME_FAILED = 3
"""Exit code where the work was done but some images could not be used."""

Part = Annotated[
    str | None, typer.Option("--part", help="Part of the split: test, val, train or all.", show_default=False)
]


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; an earlier demo there is replaced.")] = Path(
        "runs/demo"
    ),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train on simulated lumbar radiographs, measure slip and Meyerding grade on unseen ones, write a report."""
    from bregma import workflows
    from bregma.cli.show import show_training
    from bregma.console import TrainingProgress, show_json, track

    with TrainingProgress() as observer:
        result = workflows.demo(out, seed=seed, observer=observer, track=track)
    if as_json:
        show_json(result.to_dict())
    else:
        show_training(result)


def train(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; new or empty, unless --resume.")],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="A name of `bregma info recipes`, or a YAML file.", show_default=False),
    ] = None,
    set_: Set = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Budget of wall-clock time for the training.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    exclude: Annotated[
        Path | None,
        typer.Option("--exclude", help="audit.csv of `inspect --audit`: labels to leave out.", show_default=False),
    ] = None,
    format: Format = "auto",
    schema: Schema = None,
    images: Images = None,
    labels: Labels = None,
    columns: Columns = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Plan and train a model on labelled images, then evaluate it on subjects that it has not seen.

    Every setting is planned from the data; a recipe or --set names only what is to differ.
    """
    from bregma import workflows
    from bregma.cli.show import show_training
    from bregma.console import TrainingProgress, show_json, track

    options = data_options(format=format, schema=schema, images=images, labels=labels, columns=columns, strict=strict)
    with TrainingProgress() as observer:
        result = workflows.train(
            data,
            out,
            recipe=recipe,
            overrides=set_ or (),
            options=options,
            minutes=minutes,
            exclude=exclude,
            resume=resume,
            observer=observer,
            track=track,
        )
    if as_json:
        show_json(result.to_dict())
    else:
        show_training(result)


def evaluate(
    model: Model,
    data: Data,
    out: OutOrNone = None,
    part: Part = None,
    set_: Set = None,
    format: Format = "auto",
    schema: Schema = None,
    images: Images = None,
    labels: Labels = None,
    columns: Columns = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Score a trained model on labelled images, with intervals over subjects.

    --set takes settings of the evaluation (evaluate.sdr_px=[2,4]) and of the prediction (predict.flip=true).
    """
    from bregma import workflows
    from bregma.cli.show import evaluation_dict, show_evaluation
    from bregma.console import show_json, track
    from bregma.recipe import load_recipe

    options = data_options(format=format, schema=schema, images=images, labels=labels, columns=columns, strict=strict)
    settings = load_recipe(None, set_ or ()).recipe
    found = workflows.evaluate(
        model,
        data,
        part=part,
        out=out,
        options=options,
        settings=settings.evaluate,
        predict=settings.predict,
        track=track,
    )
    if as_json:
        show_json(evaluation_dict(found))
    else:
        show_evaluation(found)


def predict(
    model: Model,
    inputs: Annotated[list[Path], typer.Argument(help="Images, and folders of images.", show_default=False)],
    out: Out,
    further: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="MODEL", help="A further model, to average with; may be repeated."),
    ] = None,
    spacing: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--spacing", metavar="X Y", help="Millimetres per pixel, over what the files say.", show_default=False
        ),
    ] = None,
    plane: Annotated[
        Literal["sagittal", "coronal", "axial"] | None,
        typer.Option("--plane", help="Of volumes: the plane in which their slices lie.", show_default=False),
    ] = None,
    subjects: Annotated[
        Path | None,
        typer.Option(
            "--subjects",
            help="Table of the images with the columns image and subject, and those of covariates.",
            show_default=False,
        ),
    ] = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Find landmarks on images without labels and measure them.

    Ends with 3 where some images could not be used; they are listed, and the others are done.
    """
    from bregma import workflows
    from bregma.cli.show import show_predictions
    from bregma.console import show_json, track
    from bregma.recipe import load_recipe

    config = load_recipe(None, set_ or ()).recipe.predict
    models = [model, *(further or ())]
    result = workflows.predict(
        models, inputs, out, spacing=spacing, plane=plane, subjects=subjects, config=config, track=track
    )
    if as_json:
        show_json(result.to_dict())
    else:
        show_predictions(result)
    raise typer.Exit(SOME_FAILED if result.failures else 0)


def measure(
    source: Annotated[
        Path,
        typer.Argument(help="predictions.jsonl, the folder that holds it, or a labelled dataset.", show_default=False),
    ],
    out: OutOrNone = None,
    format: Format = "auto",
    schema: Schema = None,
    images: Images = None,
    labels: Labels = None,
    columns: Columns = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Measure predictions, or the labels of a dataset, without running a network."""
    from bregma import workflows
    from bregma.cli.show import show_measurements
    from bregma.console import show_json

    options = data_options(format=format, schema=schema, images=images, labels=labels, columns=columns, strict=strict)
    measured = workflows.measure(source, schema=schema, out=out, options=options)
    if as_json:
        show_json({case: [found.to_dict() for found in rows] for case, rows in measured.items()})
    else:
        show_measurements(measured)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Evaluated runs; the first is the reference.", show_default=False)],
    out: Out,
    part: Part = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Heading of a run, once a run in their order.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare runs on the images that all of them scored, with paired differences over subjects."""
    from bregma import workflows
    from bregma.cli.show import show_comparison
    from bregma.console import show_json

    table = workflows.compare(runs, out=out, part=part, names=name)
    if as_json:
        show_json(table.to_dict())
    else:
        show_comparison(table, out)
