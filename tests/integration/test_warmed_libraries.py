# SPDX-License-Identifier: Apache-2.0
"""Large libraries give the same results in a warmed process and in its children as in one that never saw frostfork."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.library_work import WORK

ROOT = Path(__file__).parents[2]


def results(library: str, how: str) -> dict[str, list[list[str]]]:
    """What a process of its own printed, and that it ended well: its exit is part of the proof."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.library_work", library, how],
        # The root of the sources for this folder's helpers; the hash seed for the order of sets.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "5"},
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[list[str]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("library", WORK)
def test_same_results_as_in_a_plain_process(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed here (locks/test.txt has it)")
    plain = results(library, "plain")["plain"]
    assert len(plain) > 10
    for where, found in results(library, "warmed").items():
        assert [entry for entry in found if entry not in plain] == [], where
        assert found == plain, where
