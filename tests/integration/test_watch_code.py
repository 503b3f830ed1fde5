# SPDX-License-Identifier: Apache-2.0
"""Which code runs, noted in a process and in its children."""

from __future__ import annotations

import os
import sys

import pytest

from frostfork.observe import watch_code
from tests.integration.forking import run_child
from tests.integration.fresh import run_fresh


def one() -> int:
    return 1


def two() -> int:
    return 2


def ours(watch: watch_code) -> list[str]:
    """Names of this file's functions that ran."""
    return [name for file, _, name in watch.finish() if file == __file__ and name in ("one", "two")]


def test_what_was_noted_once_is_noted_again() -> None:
    watch = watch_code()
    for _ in range(2):
        assert watch.start()
        two(), one(), one()
        assert ours(watch) == ["two", "one"]


def test_a_child_starts_afresh() -> None:
    """Also for code that its parent is just noting."""
    watch = watch_code()
    assert watch.start()
    one()

    def child() -> list[str]:
        watch.finish()
        assert watch.start()
        one(), two()
        return ours(watch)

    try:
        assert run_child(child, os.fork) == ["one", "two"]
        two()
    finally:
        found = ours(watch)
    assert found == ["one", "two"]


def test_a_second_watch_is_refused() -> None:
    watch = watch_code()
    assert watch.start()
    try:
        assert not watch_code().start()
    finally:
        watch.finish()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
def test_the_number_of_the_tool_is_given_back_clean() -> None:
    assert run_fresh(
        """
        import json, sys
        from frostfork.observe import watch_code
        monitoring = sys.monitoring
        watch = watch_code(); assert watch.start()
        number = next(number for number in range(6) if monitoring.get_tool(number))
        watch.finish()
        free = monitoring.get_tool(number) is None
        monitoring.use_tool_id(number, "mine")
        left = monitoring.register_callback(number, monitoring.events.PY_START, None)
        taken = watch.start()
        print(json.dumps([free, left, taken]))
        """
    ) == [True, None, False]
