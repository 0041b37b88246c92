"""The command ``bregma``: its table of commands, and what a user sees when one of them fails."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bregma import __version__
from bregma.cli import about, data, experiments, models, regression
from bregma.errors import BregmaError

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells count."""


@dataclass(frozen=True)
class Command:
    """A row of the table of commands.

    Attributes:
        run: takes the options and calls the workflow.
        panel: the heading under which ``--help`` lists it.
        example: shown at the end of its own ``--help``.
    """

    run: Callable[..., None]
    panel: str
    example: str


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "demo": Command(models.demo, "Start here", "bregma demo"),
        "doctor": Command(about.doctor, "Start here", "bregma doctor"),
        "info": Command(about.info, "Start here", "bregma info anatomies"),
        "inspect": Command(data.inspect, "Data", "bregma inspect hands --out runs/inspect"),
        "convert": Command(data.convert, "Data", "bregma convert hands --to coco --out hands-coco"),
        "phantom": Command(data.phantom, "Data", "bregma phantom lumbar_lateral --count 16 --out phantoms"),
        "train": Command(models.train, "Models", "bregma train hands --out runs/hand --set train.epochs=50"),
        "evaluate": Command(models.evaluate, "Models", "bregma evaluate runs/hand hands --part test"),
        "compare": Command(models.compare, "Models", "bregma compare runs/a runs/b --out runs/compare"),
        "study": Command(experiments.study, "Models", "bregma study chest/phases chest_xray --out runs/phases"),
        "features": Command(regression.features, "Models", "bregma features resnet18 scans --out runs/features"),
        "fit": Command(regression.fit, "Models", "bregma fit runs/features scans --regressor svr --out runs/fit"),
        "runs": Command(experiments.runs, "Models", "bregma runs list runs"),
        "predict": Command(models.predict, "Use", "bregma predict runs/hand study.dcm --out predicted"),
        "measure": Command(models.measure, "Use", "bregma measure predicted --json"),
    }
)
"""Name to command, in the order of ``bregma --help``."""


class BregmaGroup(TyperGroup):
    """Turns the errors of Bregma into one line and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the arguments, so that an interrupted command can be named in full."""
        ctx.meta["bregma.args"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        from bregma.console import say, show_error

        try:
            return super().invoke(ctx)
        except BregmaError as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            show_error(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            say(_interrupted(ctx.meta["bregma.args"], ctx.invoked_subcommand))
            raise typer.Exit(INTERRUPTED) from error


def _interrupted(args: list[str], command: str | None) -> str:
    if command == "study":
        return f"interrupted; runs that are done are kept. To go on: {shlex.join(['bregma', *args])}"
    if command != "train":
        return "interrupted"
    again = [*args, *([] if "--resume" in args else ["--resume"])]
    return f"interrupted; the last checkpoint is kept. To go on: {shlex.join(['bregma', *again])}"


app = typer.Typer(
    name="bregma",
    cls=BregmaGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command says more: bregma train --help",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bregma {__version__}")
        raise typer.Exit


@app.callback()
def _bregma(
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Tell what is going on; -vv for all details.")
    ] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Medical images to anatomical landmarks, landmarks to clinical measurements with their uncertainty."""
    from bregma.console import set_up_logging

    del version
    set_up_logging(verbose)
    if debug:
        sys.excepthook = sys.__excepthook__


for _name, _command in COMMANDS.items():
    app.command(_name, rich_help_panel=_command.panel, epilog=f"Example: {_command.example}")(_command.run)


def main() -> None:
    """Run the command line; the entry point of ``bregma``."""
    sys.excepthook = _unexpected
    typer.main.get_command(app)(prog_name="bregma")


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Own up to a fault that no message was written for; Python ends with 1 after it."""
    from bregma.console import say, show_error

    del trace
    show_error(f"{kind.__name__}: {error}")
    say(
        "This is a fault of Bregma, not of your command. Please report it with the output of `bregma doctor` and of "
        f"this command with --debug: {shlex.join(['bregma', '--debug', *sys.argv[1:]])}"
    )
