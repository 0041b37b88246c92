"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bregma.workflows import DataOptions

Data = Annotated[Path, typer.Argument(help="Folder of a labelled dataset, or its label file.", show_default=False)]
Model = Annotated[Path, typer.Argument(help="Run folder or bundle.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)]
OutOrNone = Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Write the result to standard output as JSON.")]

Format = Annotated[str, typer.Option("--format", help="Label format: a name of `bregma info datasets`.")]
Schema = Annotated[
    str | None,
    typer.Option("--schema", help="Anatomy: a name of `bregma info anatomies`, or a YAML file.", show_default=False),
]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder of the images, if not the usual one.", show_default=False)
]
Labels = Annotated[
    str | None, typer.Option("--labels", help="Which of several published labellings to read.", show_default=False)
]
Columns = Annotated[
    Path | None, typer.Option("--columns", help="YAML file that names the columns of a CSV table.", show_default=False)
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse missing or broken images instead of leaving them out.")]

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A single setting, e.g. train.epochs=50; may be repeated."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Same seed, same result.")]


def data_options(
    *, format: str, schema: str | None, images: Path | None, labels: str | None, columns: Path | None, strict: bool
) -> DataOptions:
    """Gather the options on reading labels."""
    from bregma.workflows import DataOptions

    return DataOptions(format=format, schema=schema, images=images, labels=labels, columns=columns, strict=strict)
