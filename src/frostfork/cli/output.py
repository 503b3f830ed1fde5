# SPDX-License-Identifier: Apache-2.0
"""What commands write: to a standard output that may be closed or full, and to files that stay whole."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click


def check_stdout() -> None:
    """Raise click.ClickException where standard output is closed: the next file to be opened would take its place."""
    if sys.stdout is None:
        raise click.ClickException("standard output cannot be written: it is closed.")


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Around what is printed: one sentence where standard output cannot be written, and nothing for a closed pipe."""
    check_stdout()
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # which click and rich pass over
    except OSError as error:
        # The interpreter writes what is left when it ends, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
        raise click.ClickException(f"standard output cannot be written: {error.strerror}.") from error


def replace_file(path: Path, text: str) -> None:
    """Write a file whole, or leave the earlier one as it was. Raises OSError."""
    place = path.resolve()
    if place.exists() and not place.is_file():  # a pipe is not replaced
        _write(place, text)
        return
    new = place.with_name(f".{place.name}.new-{os.getpid()}")
    try:
        _write(new, text)
        with contextlib.suppress(FileNotFoundError):
            new.chmod(place.stat().st_mode & 0o777)
        new.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
