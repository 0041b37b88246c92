"""``study`` and ``runs``: comparing recipes, and looking after the runs that this leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bregma.cli.models import SOME_FAILED
from bregma.cli.options import Columns, Data, Format, Images, Json, Labels, Out, Schema, Set, Strict, data_options


def study(
    source: Annotated[
        str,
        typer.Argument(help="A name of `bregma info studies`, or a YAML file.", metavar="STUDY", show_default=False),
    ],
    data: Data,
    out: Out,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Seeds of every recipe, e.g. 0,1,2.", show_default=False)
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", help="Cross-validate by subject, with so many folds.", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Budget of each training, in minutes.", show_default=False)
    ] = None,
    set_: Set = None,
    format: Format = "auto",
    schema: Schema = None,
    images: Images = None,
    labels: Labels = None,
    columns: Columns = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Train several recipes on one dataset and one split, and compare them with intervals and paired tests.

    Runs that are there already are kept, and interrupted ones go on, so the same command can be given again. Ends with
    3 where some recipes could not be trained; they are listed, and the others are compared.
    """
    from bregma import workflows
    from bregma.cli.show import show_study
    from bregma.console import TrainingProgress, show_json, track

    options = data_options(format=format, schema=schema, images=images, labels=labels, columns=columns, strict=strict)
    with TrainingProgress() as observer:
        result = workflows.study(
            source,
            data,
            out,
            overrides=set_ or (),
            minutes=minutes,
            seeds=None if seeds is None else _numbers(seeds),
            folds=folds,
            options=options,
            observer=observer,
            announce=observer.say,
            track=track,
        )
    if as_json:
        show_json(result.to_dict())
    else:
        show_study(result)
    raise typer.Exit(SOME_FAILED if result.failures else 0)


def runs(
    action: Annotated[str, typer.Argument(help="list, show or prune.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Folder of runs; for show, a run.", show_default=False)],
    unfinished: Annotated[bool, typer.Option("--unfinished", help="prune: also remove runs that never ended.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", help="prune: only what was started before.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="prune: remove, instead of telling what would go.")] = False,
    as_json: Json = False,
) -> None:
    """List the runs below a folder, show one, or prune what finished runs no longer need.

    Pruning tells what would go, and removes it with --yes: checkpoints and logs of finished runs, whose bundles and
    evaluations stay.
    """
    from bregma import workflows
    from bregma.cli.show import show_pruned, show_run, show_runs
    from bregma.console import show_json
    from bregma.errors import InputError

    match action:
        case "list":
            rows = workflows.list_runs(folder)
            show_json([row.to_dict() for row in rows]) if as_json else show_runs(rows)
        case "show":
            row = workflows.show_run(folder)
            show_json(row.to_dict()) if as_json else show_run(row)
        case "prune":
            gone = workflows.prune_runs(folder, unfinished=unfinished, older_than_days=older_than, dry=not yes)
            show_json([item.__dict__ for item in gone]) if as_json else show_pruned(gone, done=yes)
        case _:
            raise InputError(f"cannot '{action}' runs", expected="list, show or prune")


def _numbers(text: str) -> list[int]:
    from bregma.errors import ConfigError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError("the seeds cannot be understood", where="--seeds", expected="e.g. 0,1,2", got=text) from error
