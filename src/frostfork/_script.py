# SPDX-License-Identifier: Apache-2.0
"""How the template process runs scripts. Has the same functions as frostfork.airflow.analysis, for DAG files."""

from __future__ import annotations

import os
import sys


def prepare() -> None:
    """Nothing: a script finds a bare Python."""


def begin(files: list[str]) -> None:
    """Nothing either."""


def warm() -> None:
    """A parent of scripts needs its imports alone."""


def channel() -> tuple[int, int]:
    """Where a runner's standard error is read, and where it is written."""
    return os.pipe()


def run(path: str, root: str) -> str:  # noqa: ARG001 - Airflow's way needs it
    """Run the file as Python would, but for its name: what is guarded by __main__ stays out. Returns no failure.

    The name is multiprocessing's for the same: __mp_main__.
    """
    import _frozen_importlib as importlib
    import _frozen_importlib_external as files

    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, os.path.dirname(path))
    sys.argv[:] = [path]
    loader = files.SourceFileLoader("__mp_main__", path)
    spec = files.spec_from_file_location("__mp_main__", path, loader=loader)
    assert spec is not None
    module = importlib.module_from_spec(spec)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    # Not through the loader: a script's bytecode is not kept, and its folder is left as it is.
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102 - the user's own script
    return ""
