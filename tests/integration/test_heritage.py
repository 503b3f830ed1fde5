# SPDX-License-Identifier: Apache-2.0
"""What zygotes hand down to each other survives all of them but the owner."""

from __future__ import annotations

import os

import pytest

from frostfork import Finding, Ledger, ModuleImport, Observation, Verdict
from frostfork._heritage import Estate, Heritage
from tests.integration.forking import wait_bounded


def learned(name: str, *, code: bool = False) -> Ledger:
    ledger = Ledger()
    hot_code = [("/lib/x.py", 7, name)] if code else []
    ledger.record(
        Observation([ModuleImport(name, f"/lib/{name}.py", 0.0, 0.5, 0.5, None)], hot_code=hot_code),
        "workers",
    )
    return ledger


def nothing() -> Estate:
    return Estate(Ledger(), {})


def test_what_one_adds_another_finds() -> None:
    heritage = Heritage()
    mark = ("/lib/x.dist-info/RECORD", (1, 2, 3, 4))
    bad = Verdict("b", (Finding("crashed", "ended the process by SIGSEGV", "c"),), 0.5, 4096)
    pid = os.fork()
    if pid == 0:
        heritage.exchange(
            Estate(learned("a", code=True), {"b": (bad, mark), "n": (Verdict("n"), ("/x", None))})
        )
        os._exit(0)
    assert wait_bounded(pid) == 0
    assert heritage.has_news()
    whole = heritage.exchange(nothing())
    assert whole is not None
    assert not heritage.has_news()
    assert [record.name for record in whole.ledger] == ["a"]
    assert whole.ledger.hot_code == {("/lib/x.py", 7, "a"): 1}
    assert whole.tried == {"b": (bad, mark), "n": (Verdict("n"), ("/x", None))}


def test_many_at_once_lose_nothing() -> None:
    heritage = Heritage()
    pids = []
    for worker in range(3):
        pid = os.fork()
        if pid == 0:
            added = all(heritage.exchange(Estate(learned(f"m{worker}"), {})) for _ in range(30))
            os._exit(0 if added else 1)
        pids.append(pid)
    assert [wait_bounded(pid) for pid in pids] == [0, 0, 0]
    whole = heritage.exchange(nothing())
    assert whole is not None
    assert whole.ledger.children == 90
    assert [record.children for record in whole.ledger] == [30, 30, 30]


@pytest.mark.parametrize("damage", ["cut", "changed", "header"])
def test_what_was_half_written_is_nothing_learned(damage: str) -> None:
    heritage = Heritage()
    heritage.exchange(Estate(learned("a"), {}))
    size = os.fstat(heritage.fileno()).st_size
    if damage == "cut":
        os.ftruncate(heritage.fileno(), size - 5)
    else:
        os.pwrite(heritage.fileno(), b"\xff" * 8, size // 2 if damage == "changed" else 8)
    whole = heritage.exchange(Estate(learned("b"), {}))
    assert whole is not None
    assert [record.name for record in whole.ledger] == ["b"]
    again = heritage.exchange(nothing())
    assert again is not None
    assert [record.name for record in again.ledger] == ["b"]


def test_where_it_cannot_be_had_nothing_is_lost() -> None:
    """As in a process that was not given its descriptor."""
    heritage = Heritage()
    null = os.open(os.devnull, os.O_PATH)
    os.dup2(null, heritage.fileno())
    os.close(null)
    assert not heritage.has_news()
    assert heritage.exchange(Estate(learned("a"), {})) is None
