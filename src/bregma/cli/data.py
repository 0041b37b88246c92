"""``inspect``, ``convert`` and ``phantom``: looking at data, changing its format, making it."""

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
    Out,
    OutOrNone,
    Schema,
    Seed,
    Strict,
    data_options,
)


def inspect(
    data: Data,
    out: OutOrNone = None,
    format: Format = "auto",
    schema: Schema = None,
    images: Images = None,
    labels: Labels = None,
    columns: Columns = None,
    strict: Strict = False,
    tiles: Annotated[
        int, typer.Option("--tiles", min=1, help="Images on the contact sheet, and of random samples.")
    ] = 24,
    audit: Annotated[
        bool, typer.Option("--audit", help="Judge every label: audit.csv, audit_sheet.png (takes a while).")
    ] = False,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            "--predictions",
            help="For --audit: predictions.jsonl of images that the model did not learn from; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe a labelled dataset, list what looks wrong in it, and draw its labels.

    With --out it writes fingerprint.json, findings.csv, findings.json, contact_sheet.png, and figures of what the
    dataset has: demographics.png (tags and targets), label_counts.png, shape.png, measurements.png, samples.png, and
    samples_by_NAME.png for tags and grades.
    """
    from bregma import workflows
    from bregma.cli.show import show_inspection
    from bregma.console import show_json, track

    options = data_options(format=format, schema=schema, images=images, labels=labels, columns=columns, strict=strict)
    found = workflows.inspect(
        data, out=out, options=options, images=tiles, audit=audit, predictions=predictions or (), track=track
    )
    if as_json:
        show_json(found.to_dict())
    else:
        show_inspection(found)


def convert(
    data: Data,
    out: Out,
    to: Annotated[str, typer.Option("--to", help="Format to write: a name of `bregma info exporters`.")],
    format: Format = "auto",
    schema: Schema = None,
    images: Images = None,
    labels: Labels = None,
    columns: Columns = None,
    strict: Strict = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")] = False,
    as_json: Json = False,
) -> None:
    """Write a dataset's labels in another format; images stay where they are."""
    from bregma import workflows
    from bregma.console import show_facts, show_json

    options = data_options(format=format, schema=schema, images=images, labels=labels, columns=columns, strict=strict)
    written, dataset = workflows.convert(data, out, to, options=options, overwrite=overwrite)
    facts = {"written": str(written), "images": len(dataset), "left_out": len(dataset.problems)}
    if as_json:
        show_json(facts)
    else:
        show_facts({name.replace("_", " "): value for name, value in facts.items()})


def phantom(
    name: Annotated[str, typer.Argument(help="A name of `bregma info phantoms`.", show_default=False)],
    out: Out,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of images.")] = 16,
    seed: Seed = 0,
    size: Annotated[int | None, typer.Option("--size", min=64, help="Rows and columns.", show_default=False)] = None,
    difficulty: Annotated[
        Literal["easy", "medium", "hard"] | None, typer.Option("--difficulty", show_default=False)
    ] = None,
    images_per_subject: Annotated[int, typer.Option("--images-per-subject", min=1)] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the phantom, e.g. fov=wild; may be repeated."),
    ] = None,
    sheet_only: Annotated[bool, typer.Option("--sheet-only", help="Write the contact sheet alone.")] = False,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Write whole volumes with a table of their quantities (lumbar_mri).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make simulated images with exact truth, as a dataset that every other command reads."""
    from bregma import workflows
    from bregma.console import show_facts, show_json

    dataset = workflows.phantom(
        name,
        out,
        count=count,
        seed=seed,
        size=size,
        difficulty=difficulty,
        images_per_subject=images_per_subject,
        overrides=set_ or (),
        sheet_only=sheet_only,
        volumes=volumes,
    )
    facts = {
        "written": str(out),
        "anatomy": dataset.schema.name,
        "images": len(dataset),
        "subjects": len(dataset.subjects),
    }
    if as_json:
        show_json(facts)
    else:
        show_facts(facts)
