# SPDX-License-Identifier: Apache-2.0
"""The ledger adds up what children imported, the same in whatever order they came, and forgets."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from frostfork.observe import ModuleImport, Observation
from frostfork.preload import Ledger
from frostfork.preload.codec import to_bytes
from frostfork.preload.ledger import MAX_IMPORTERS, MAX_ORIGINS, NOWHERE


def module(name: str, **fields: object) -> ModuleImport:
    known: dict[str, object] = {
        "origin": f"/lib/{name}.py",
        "started": 1.0,
        "seconds": 0.5,
        "cumulative": 0.75,
        "error": None,
    }
    return ModuleImport(name, **(known | fields))


def test_sums_over_children() -> None:
    ledger = Ledger()
    outer = module("outer", bytes=100, cumulative_bytes=300)
    inner = module("inner", bytes=200, cumulative_bytes=200, importer="outer")
    bad = module("bad", error="ImportError", origin=None, importer="outer")
    observation = Observation([outer, inner, bad], threads=["outer"], complete=True, wall_seconds=2.0)
    assert [record.name for record in ledger.record(observation, "a.py", now=10.0)] == [
        "outer",
        "inner",
        "bad",
    ]
    assert [record.name for record in ledger.record(Observation([inner]), "b.py", now=20.0)] == ["inner"]
    known = ledger.get("inner")
    assert known is not None
    assert (known.children, known.failures, known.threads, known.files) == (2, 0, 0, 2)
    assert (known.seconds, known.cumulative, known.bytes, known.cumulative_bytes) == (1.0, 1.5, 400, 400)
    assert (known.first_seen, known.last_seen) == (10.0, 20.0)
    assert (known.origins, known.importers) == ({"/lib/inner.py"}, {"outer"})
    failed = ledger.get("bad")
    assert failed is not None
    assert (failed.children, failed.failures, failed.last_error, failed.files) == (0, 1, "ImportError", 0)
    assert (failed.seconds, failed.origins, failed.importers) == (0.0, set(), set())
    threaded = ledger.get("outer")
    assert threaded is not None
    assert threaded.threads == 1
    assert ledger.get("never") is None
    assert [record.name for record in ledger] == ["bad", "inner", "outer"]
    assert (len(ledger), ledger.children) == (3, 2)


def test_sources_know_their_modules_and_modules_their_sources() -> None:
    ledger = Ledger()
    full = Observation([module("x", bytes=7), module("y", bytes=5)], complete=True, wall_seconds=2.0)
    ledger.record(full, "a.py", now=1.0)
    ledger.record(Observation([module("x", bytes=7)]), "b.py", now=2.0)  # killed
    ledger.record(Observation([module("z")]))
    assert ledger.sources_of("x") == {"a.py", "b.py"}
    assert ledger.sources_of("z") == ledger.sources_of("never") == frozenset()
    assert ledger.modules_of("a.py") == {"x", "y"}
    assert ledger.modules_of("never.py") == frozenset()
    a, b = ledger.sources["a.py"], ledger.sources["b.py"]
    assert (a.path, a.children, a.failures, a.seconds, a.import_seconds, a.bytes) == (
        "a.py",
        1,
        0,
        2.0,
        1.0,
        12,
    )
    assert (b.children, b.failures, b.seconds, b.import_seconds, b.last_seen) == (1, 1, 0.0, 0.5, 2.0)


def test_a_child_counts_once_however_often_it_tries() -> None:
    ledger = Ledger()
    tries = [module("m", error="ImportError"), module("m", error="OSError"), module("m"), module("m")]
    assert [record.name for record in ledger.record(Observation(tries))] == ["m"]
    known = ledger.get("m")
    assert known is not None
    assert (known.children, known.failures, known.last_error, known.seconds) == (1, 1, "OSError", 1.0)


def test_a_package_is_wanted_by_whoever_wanted_its_part() -> None:
    """`import p.q.r` in a begins p.q.r, in which p.q begins, in which p begins."""
    ledger = Ledger()
    ledger.record(
        Observation(
            [
                module("p.q.r", importer="a"),
                module("p.q", importer="p.q.r"),
                module("p", importer="p.q"),
                module("part", importer="p.q"),
                module("loop", importer="loop.inner"),
                module("loop.inner", importer="loop.inner"),
            ]
        )
    )
    wanted = {record.name: record.importers for record in ledger}
    assert wanted == {
        "p": {"a"},
        "p.q": {"a"},
        "p.q.r": {"a"},
        "part": {"p.q"},
        "loop": set(),
        "loop.inner": {"loop.inner"},
    }


def test_origins_and_importers_are_bounded_and_too_many_origins_belong_to_nobody() -> None:
    ledger = Ledger()
    for number in range(100):
        place = module("helper", origin=f"/dags/{number:03}/helper.py", importer=f"m{number:03}")
        ledger.record(Observation([place]))
    known = ledger.get("helper")
    assert known is not None
    assert known.origins == {f"/dags/{number:03}/helper.py" for number in range(MAX_ORIGINS)} | {NOWHERE}
    assert known.importers == {f"m{number:03}" for number in range(MAX_IMPORTERS)}


def test_numbers_that_no_clock_gives_count_as_nothing() -> None:
    ledger = Ledger()
    for odd in (math.nan, math.inf, -1.0, 1e300):
        ledger.record(
            Observation([module("m", seconds=odd, cumulative=odd, bytes=-5, cumulative_bytes=2**80)])
        )
    known = ledger.get("m")
    assert known is not None
    assert (known.seconds, known.cumulative, known.bytes, known.cumulative_bytes) == (0.0, 0.0, 0, 0)


NAMES = st.sampled_from(["a", "a.b", "a.b.c", "d", "e", "f"])
SECONDS = st.floats(0, 1000)
IMPORTS = st.builds(
    ModuleImport,
    NAMES,
    st.none() | st.sampled_from(["/1", "/2", "frozen"]),
    SECONDS,
    SECONDS,
    SECONDS,
    st.none() | st.sampled_from(["ImportError", "OSError"]),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.none() | NAMES,
)
OBSERVATIONS = st.builds(
    Observation,
    st.lists(IMPORTS, max_size=5),
    complete=st.booleans(),
    wall_seconds=st.none() | SECONDS,
    threads=st.lists(NAMES, max_size=2),
)
CHILDREN = st.lists(
    st.tuples(OBSERVATIONS, st.none() | st.sampled_from(["x.py", "y.py", "z.py"]), st.floats(0, 2e9)),
    max_size=8,
)


def ledger_of(children: list[tuple[Observation, str | None, float]]) -> Ledger:
    ledger = Ledger()
    for observation, source, now in children:
        ledger.record(observation, source, now=now)
    return ledger


def sums(ledger: Ledger) -> bytes:
    """All that must not depend on the order: the last error is the last."""
    for record in ledger:
        record.last_error = None
    return to_bytes(ledger)


@settings(max_examples=150, deadline=None)
@given(CHILDREN, st.randoms(use_true_random=False), st.integers(0, 8))
def test_any_order_and_any_split_give_the_same_sums(children, random, at) -> None:
    whole = sums(ledger_of(children))
    shuffled = list(children)
    random.shuffle(shuffled)
    assert sums(ledger_of(shuffled)) == whole
    first, second = ledger_of(shuffled[:at]), ledger_of(shuffled[at:])
    untouched = to_bytes(second)
    first.merge(second)
    assert to_bytes(second) == untouched
    assert sums(first) == whole


@settings(max_examples=150, deadline=None)
@given(CHILDREN, st.floats(0, 2e9))
def test_forget_drops_exactly_what_is_not_used(children, before) -> None:
    ledger = ledger_of(children)
    users = {record.name: ledger.sources_of(record.name) for record in ledger}
    seen = {record.name: record.last_seen for record in ledger}
    sources = {path: source.last_seen for path, source in ledger.sources.items()}
    forgotten = ledger.forget(before)
    assert forgotten == sorted(set(seen) - {record.name for record in ledger})
    assert set(ledger.sources) == {path for path, last in sources.items() if last >= before}
    for name in seen:
        used = seen[name] >= before or any(sources[path] >= before for path in users[name])
        assert (name not in forgotten) is used
        assert ledger.sources_of(name) == (users[name] & set(ledger.sources) if used else frozenset())
    ledger.record(Observation([module("new")]), "new.py", now=before)
    assert ledger.modules_of("new.py") == {"new"}, "a bit was left from a source that was dropped"


def test_a_preloaded_module_is_used_while_its_source_is_parsed() -> None:
    ledger = Ledger()
    ledger.record(Observation([module("pandas")]), "a.py", now=10.0)
    ledger.record(Observation([]), "a.py", now=100.0)  # the parent has pandas: the child does not import it
    assert ledger.forget(50.0) == []
    assert ledger.forget(101.0) == ["pandas"]
    assert (len(ledger), dict(ledger.sources)) == (0, {})


def test_hot_code_adds_up() -> None:
    code = ("/lib/m.py", 3, "f")
    ledger, other = Ledger(), Ledger()
    for each in (ledger, other, other):
        each.record(Observation(hot_code=[code]))
    ledger.merge(other)
    assert ledger.hot_code == {code: 3}
