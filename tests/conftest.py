# SPDX-License-Identifier: Apache-2.0
"""What every test owes its neighbours: no process, descriptor or installed hook is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest


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
