"""``features`` and ``fit``: features of images, and regressors that read quantities off them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bregma.cli.models import SOME_FAILED
from bregma.cli.options import Columns, Data, Format, Images, Json, Labels, Out, Schema, Seed, Set, Strict, data_options


def features(
    source: Annotated[
        str,
        typer.Argument(help="Run or bundle with an encoder, or a timm encoder, e.g. resnet18.", show_default=False),
    ],
    data: Data,
    out: Out,
    roi: Annotated[
        Path | None,
        typer.Option("--roi", help="Landmark model: pool over what its landmarks enclose, too.", show_default=False),
    ] = None,
    slices: Annotated[int, typer.Option("--slices", min=1, help="Neighbouring slices of a volume, an odd number.")] = 1,
    size: Annotated[int, typer.Option("--size", min=32, help="Input of a timm encoder, rows and columns.")] = 224,
    pretrained: Annotated[str, typer.Option("--pretrained", help="First weights of a timm encoder.")] = "auto",
    format: Format = "auto",
    schema: Schema = None,
    images: Images = None,
    labels: Labels = None,
    columns: Columns = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Store an encoder's features and statistics of grey values of every image, slice by slice.

    Ends with 3 where some images could not be used; they are listed, and the others are done.
    """
    from bregma import workflows
    from bregma.cli.show import show_left_out
    from bregma.console import show_facts, show_json, track

    options = data_options(format=format, schema=schema, images=images, labels=labels, columns=columns, strict=strict)
    result = workflows.features(
        source, data, out, options=options, roi=roi, slices=slices, size=size, pretrained=pretrained, track=track
    )
    if as_json:
        show_json(result.to_dict())
    else:
        show_facts({"written": str(out), "images": len(result.cases), "columns": len(result.columns)})
        show_left_out(result.failures)
    raise typer.Exit(SOME_FAILED if result.failures else 0)


def fit(
    source: Annotated[
        Path, typer.Argument(help="Folder of `bregma features`.", metavar="FEATURES", show_default=False)
    ],
    data: Data,
    out: Out,
    regressor: Annotated[
        list[str] | None,
        typer.Option("--regressor", "-r", help="A name of `bregma info regressors`; may be repeated."),
    ] = None,
    quantity: Annotated[
        list[str] | None, typer.Option("--quantity", help="Which to predict; all that the schema declares by default.")
    ] = None,
    covariate: Annotated[
        list[str] | None, typer.Option("--covariate", help="A tag that joins the features, e.g. age; may be repeated.")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Outer folds, by subject.")] = 5,
    further: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="EVALUATION", help="A cross-validated evaluation to compare and to stack with."),
    ] = None,
    set_: Set = None,
    seed: Seed = 0,
    format: Format = "auto",
    schema: Schema = None,
    images: Images = None,
    labels: Labels = None,
    columns: Columns = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Compare regressors on stored features by nested cross-validation over subjects, with baselines and their stack.

    --set takes settings of the fit (inner_folds=3) and of single regressors (svr.c=[1, 10]). Ends with 3 where some
    images could not be used.
    """
    from bregma import workflows
    from bregma.cli.show import show_fits, show_left_out
    from bregma.console import show_json, track

    options = data_options(format=format, schema=schema, images=images, labels=labels, columns=columns, strict=strict)
    result = workflows.fit(
        source,
        data,
        out,
        regressors=regressor or ("elastic_net", "svr", "random_forest"),
        quantities=quantity or (),
        covariates=covariate or (),
        folds=folds,
        overrides=set_ or (),
        others=further or (),
        seed=seed,
        options=options,
        track=track,
    )
    if as_json:
        show_json(result.to_dict())
    else:
        show_fits(result)
        show_left_out(result.failures)
    raise typer.Exit(SOME_FAILED if result.failures else 0)
