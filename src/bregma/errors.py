"""The exception tree.

    BregmaError
    ├── InputError          a file that cannot be used
    │   ├── ImageError      pixels or their header
    │   └── LabelError      landmark files
    ├── SchemaError         an anatomy declaration, or labels that do not fit one
    ├── ConfigError         a recipe, plan or setting
    ├── SplitError          a division into subjects that is not valid
    ├── RunError            a run folder that cannot be written, read or resumed
    ├── BundleError         a trained model that cannot be trusted or loaded
    └── MissingPartError    an optional dependency that is not installed

Every message says what is wrong and where, what was expected, what came, and how to mend it.
"""

from __future__ import annotations

from pathlib import Path


class BregmaError(Exception):
    """Base of all errors that Bregma raises on purpose.

    Args:
        problem: what is wrong, in one sentence without a full stop.
        where: the file, row, line or setting concerned.
        expected: what would have been right.
        got: what came instead.
        fix: what the user can do about it.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        where: str | Path | None = None,
        expected: str | None = None,
        got: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.where = None if where is None else str(where)
        self.expected = expected
        self.got = got
        self.fix = fix
        super().__init__(self._message())

    def _message(self) -> str:
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        if self.expected:
            text += f"; expected {self.expected}"
        if self.got:
            text += f", got {self.got}" if self.expected else f"; got {self.got}"
        if self.fix:
            text += f". To mend it: {self.fix}"
        return text


class InputError(BregmaError):
    """A file that cannot be used."""


class ImageError(InputError):
    """An image that cannot be read, or whose header contradicts itself."""


class LabelError(InputError):
    """A landmark file that cannot be read or does not fit its images."""


class SchemaError(BregmaError):
    """An anatomy declaration that contradicts itself, or labels that do not fit it."""


class ConfigError(BregmaError):
    """A recipe, plan or single setting that is not valid."""


class SplitError(BregmaError):
    """A division into training, validation and test subjects that is not valid."""


class RunError(BregmaError):
    """A run folder that cannot be written, read or resumed."""


class BundleError(BregmaError):
    """A trained model that cannot be trusted or loaded."""


class MissingPartError(BregmaError):
    """An optional dependency that is needed here and not installed."""
