"""A picture of a report's first page, made by a headless browser where one is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bregma.errors import InputError, MissingPartError, RunError
from bregma.files import atomic_path

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_QUIET = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def screenshot(
    path: str | Path, out: str | Path, *, width: int = 1280, height: int = 1800, timeout_s: int = 60
) -> Path:
    """Render the top of an HTML file to a PNG of ``width`` by ``height`` pixels; return the PNG's path.

    Raises:
        InputError: there is no such HTML file.
        MissingPartError: no Chromium or Chrome is installed.
        RunError: the browser failed, or the picture cannot be written.
    """
    page = Path(path).resolve()
    if not page.is_file():
        raise InputError("there is no such file", where=path, expected="an HTML report")
    browser = find_browser()
    with tempfile.TemporaryDirectory() as profile, atomic_path(out) as temporary:
        command = [browser, *_QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        # Chromium refuses to sandbox itself for root, as in most containers; the page is our own, local and offline.
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        try:
            done = subprocess.run(
                [*command, f"--screenshot={temporary}", page.as_uri()],
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(f"the browser did not finish within {timeout_s} s", where=browser) from error
        if done.returncode != 0 or temporary.stat().st_size == 0:
            message = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise RunError("the browser made no picture", where=browser, got=" ".join(message) or None)
    return Path(out)


def find_browser() -> str:
    """Return the path of an installed Chromium or Chrome.

    Raises:
        MissingPartError: there is none.
    """
    for name in _BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    raise MissingPartError(
        "no browser to draw the page with",
        expected=f"one of {', '.join(_BROWSERS)} on the PATH",
        fix="install it (Debian, Ubuntu: apt-get install chromium), or open the report and print it",
    )
