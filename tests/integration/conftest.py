# SPDX-License-Identifier: Apache-2.0
"""What several modules of these tests begin with."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frostfork import Zygote
from tests.integration import zygote_work as work


@pytest.fixture(params=["fork", "exec"])
def zygote(request: pytest.FixtureRequest) -> Iterator[Zygote]:
    with Zygote(work.Recorder(), start=request.param) as started:
        yield started


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """Run a program from a file, as multiprocessing needs it; returns what it printed."""

    def run(body: str, *, code: int = 0, **environment: str) -> str:
        file = tmp_path / "program.py"
        file.write_text(textwrap.dedent(body))
        with open(tmp_path / "errors", "w+") as errors:  # children hold it open: a pipe would wait for them
            done = subprocess.run(
                [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=errors, text=True, timeout=90,
                check=False, cwd=tmp_path, env={**os.environ, **environment},
            )  # fmt: skip
            errors.seek(0)
            said = errors.read()
        assert done.returncode == code, said
        assert "Traceback" not in said or code, said
        return done.stdout

    return run
