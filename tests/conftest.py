# SPDX-License-Identifier: Apache-2.0
"""What every test owes its neighbours: no process, descriptor or installed hook is left behind.

And which of two processes runs which tests: see tools/test-halves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--half", type=int, choices=(1, 2), help="run every second module: the odd, or the even ones"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    half = config.getoption("--half")
    if half is not None:
        # Of all that are there, whatever was asked for: with --last-failed each half finds its own again.
        modules = {*sorted(Path(__file__).parent.rglob("test_*.py"))[half - 1 :: 2]}
        config.hook.pytest_deselected(items=[item for item in items if item.path not in modules])
        items[:] = [item for item in items if item.path in modules]


def open_descriptors() -> dict[str, str]:
    """Descriptor to what it shows, without the one that the listing itself needs."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = open_descriptors()
    os_fork = os.fork
    yield
    assert os.fork is os_fork, "os.fork was not put back"
    children = psutil.Process().children(recursive=True)
    assert not children, f"the test left processes behind: {children}"
    left = {fd: what for fd, what in open_descriptors().items() if before.get(fd) != what}
    assert not left, f"the test left descriptors open: {left}"
