# SPDX-License-Identifier: Apache-2.0
"""Which code runs, noted in a process and in its children."""

from __future__ import annotations

import os
import sys
from types import FunctionType
from typing import Any

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


@pytest.mark.parametrize(
    ("file", "name", "noted"),
    [
        ("/a/b.py", "plain", ("/a/b.py", "plain")),
        ("/a/tüte.py", "größe", ("/a/tüte.py", "größe")),
        ("/a/\udcff.py", "f", ("/a/\udcff.py", "f")),  # a file's name that is no UTF-8
        ("/a/b.py", "\ud800", ("/a/b.py", "?")),
        ("/a/b.py", "nul\0", ("/a/b.py", "nul?")),
    ],
)
def test_names_are_noted_as_they_are_or_replaced(file: str, name: str, noted: tuple[str, str]) -> None:
    made = [
        one.__code__.replace(co_filename=file, co_name=each, **_qualified(each), co_firstlineno=line)
        for each, line in ((name, 7), ("other", 1_000_000))
    ]
    watch = watch_code()
    assert watch.start()
    for code in made:
        FunctionType(code, {})()
    found = [entry for entry in watch.finish() if entry[1] in (7, 1_000_000)]
    assert found == [(noted[0], 7, noted[1]), (noted[0], 1_000_000, "other")]


def _qualified(name: str) -> dict[str, Any]:
    return {"co_qualname": name} if sys.version_info >= (3, 11) else {}


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


def test_who_stops_need_not_be_who_started() -> None:
    """And goes on to run code that nobody notes any more."""
    assert run_fresh(
        """
        import json, threading
        from frostfork.observe import watch_code
        watch, started, stopped = watch_code(), threading.Event(), threading.Event()
        def noted(): pass
        def later(): pass
        def run():
            assert watch.start()
            noted()
            started.set()
            stopped.wait(30)
            for _ in range(1000):
                later()
        thread = threading.Thread(target=run)
        thread.start()
        started.wait(30)
        names = [name for _, _, name in watch.finish()]
        stopped.set()
        thread.join()
        print(json.dumps([any(name.endswith(each) for name in names) for each in ("noted", "later")]))
        """
    ) == [True, False]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="since Python 3.12 no profile function is needed")
def test_a_profiler_that_the_code_sets_stays() -> None:
    assert run_fresh(
        """
        import json, sys
        from frostfork.observe import watch_code
        watch = watch_code()
        assert watch.start()
        seen = []
        sys.setprofile(lambda frame, event, argument: seen.append(event))
        watch.finish()
        before = len(seen)
        (lambda: None)()
        sys.setprofile(None)
        print(json.dumps(len(seen) > before))
        """
    )
