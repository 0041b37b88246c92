"""The command line, run within the tests' own process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner, Result

from bregma.cli import app


def bregma(*arguments: str | Path) -> Result:
    """Run ``bregma`` with these arguments."""
    with _logger_as_it_was():
        return CliRunner().invoke(app, [str(argument) for argument in arguments])


@contextmanager
def _logger_as_it_was() -> Iterator[None]:
    """Undo what the command line does to Bregma's logger, for what comes after."""
    logger = logging.getLogger("bregma")
    handlers, level = list(logger.handlers), logger.level
    try:
        yield
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
