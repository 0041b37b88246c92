"""``info`` and ``doctor``: what Bregma offers, and whether this machine can do it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bregma.cli.options import Json


def info(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="Tables to list; all of them by default.")
    ] = None,
    encoders: Annotated[
        str | None,
        typer.Option("--encoders", metavar="TEXT", help="List timm's encoders with TEXT in their name instead."),
    ] = None,
    anatomy: Annotated[
        str | None,
        typer.Option("--anatomy", metavar="NAME", help="List the landmarks and measurements of one anatomy instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what there is: anatomies, formats, phantoms, networks, codecs, losses, measurements, settings, recipes."""
    from bregma import catalog
    from bregma.cli.show import show_catalog
    from bregma.console import out, show_json

    if encoders is not None:
        names = catalog.encoders(encoders)
        if as_json:
            show_json(list(names))
        else:
            out().print("\n".join(names), highlight=False)
        return
    found = catalog.anatomy(anatomy) if anatomy is not None else catalog.catalog(tables or ())
    if as_json:
        show_json([table.to_dict() for table in found])
    else:
        show_catalog(found)


def doctor(
    folder: Annotated[Path, typer.Argument(help="Where runs are to be written.")] = Path(),
    as_json: Json = False,
) -> None:
    """Check this installation and machine, and name the command that adds what is missing.

    Ends with 1 where something fails that nothing works without.
    """
    from bregma.console import show_json, show_table
    from bregma.doctor import run_doctor

    report = run_doctor(folder)
    if as_json:
        show_json(report.to_dict())
    else:
        rows = [(check.name, check.status, check.found, check.fix or "") for check in report.checks]
        show_table("Installation", ("Part", "Status", "Found", "To mend it"), rows)
    raise typer.Exit(report.exit_code)
