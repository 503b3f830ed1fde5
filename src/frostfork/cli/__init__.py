# SPDX-License-Identifier: Apache-2.0
"""The command line. Each command lives in a module of its own and is imported when it is called."""

from __future__ import annotations

import importlib
import io
import signal
import sys

_NEEDS_CLI = "frostfork's command line needs click and rich: pip install 'frostfork[cli]'"


def main() -> None:
    """Entry point of the console script."""
    try:
        import rich  # noqa: F401 - commands import it later than they run programs

        from frostfork.cli.group import frostfork
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(_NEEDS_CLI)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(128 + signal.SIGINT)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="replace")
    frostfork()


def load_command(place: str) -> object:
    """The command at "module:name"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
