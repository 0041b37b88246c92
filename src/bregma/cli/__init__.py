"""The command line: a table of commands, each of which calls one workflow."""

from __future__ import annotations

from bregma.cli.app import COMMANDS, app, main

__all__ = ["COMMANDS", "app", "main"]
