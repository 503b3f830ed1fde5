# SPDX-License-Identifier: Apache-2.0
"""A few of CPython's own tests, plain and warmed; `make test-cpython` runs many more."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

COMPARE = Path(__file__).parents[1] / "cpython" / "compare.py"
MODULES = (
    "test_dict",
    "test_descr",
    "test_functools",
    "test_generators",
    "test_weakref",
    "test_sys_settrace",
)


@pytest.mark.skipif(
    importlib.util.find_spec("test.test_dict") is None, reason="this Python has no test package"
)
def test_same_outcome_test_by_test() -> None:
    done = subprocess.run(
        [sys.executable, str(COMPARE), "--timeout", "50", *MODULES],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(MODULES)} modules, " in done.stdout
    assert "warmed freeze: done" in done.stdout


def test_a_difference_is_found(tmp_path: Path) -> None:
    """The comparison itself: what two runs wrote, told apart."""
    sys.path.insert(0, str(COMPARE.parent))
    try:
        compare = importlib.import_module("compare")
    finally:
        sys.path.pop(0)
    lines = ['{"running": "a"}\n{"id": "a", "outcome": "ok", "detail": ""}\n', '{"running": "b"}\n']
    plain = tmp_path / "plain"
    plain.write_text(lines[0] + '{"id": "b", "outcome": "ok", "detail": ""}\n{"finished": true}\n')
    crashed = tmp_path / "crashed"
    crashed.write_text("".join(lines))
    one, other = compare.read(plain, 0, 1, 0), compare.read(crashed, -11, 1, 0)
    assert compare.differing(one, one) == []
    assert compare.differing(one, other) == ["b"]
    assert (one.ended, other.ended) == ("", "signal 11 in b")
