# SPDX-License-Identifier: Apache-2.0
"""Properties of plans, against a model of how Python imports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from frostfork.observe import ModuleImport, Observation
from frostfork.preload import Finding, Installed, Ledger, Plan, PreloadPolicy, Verdict
from frostfork.preload.patterns import ancestors, matches

NAMES = ("a", "a.x", "a.y", "a.y.z", "b", "b.x", "c", "d", "e", "f")
INSTALLED = Installed(("/lib",), frozenset("abcdef"))
PAGE = 4096

thorough = settings(max_examples=60, deadline=None)

Graph = dict[str, list[str]]
World = tuple[Graph, list[Observation]]


def imported(
    graph: Graph, name: str, loaded: set[str], log: list[tuple[str, str | None]], importer: str | None = None
) -> None:
    """Import as Python does: packages first, and nothing twice. log: what began, and who asked for it."""
    log.append((name, importer))
    above = ancestors(name)
    if above and above[0] not in loaded:
        imported(graph, above[0], loaded, log, name)
    if name in loaded:  # its own package imported it
        return
    loaded.add(name)
    for other in graph[name]:
        if other not in loaded:
            imported(graph, other, loaded, log, name)


def observed(graph: Graph, roots: list[str], figures: list[int]) -> Observation:
    """What a child sees that imports these. figures: a module's share of time and memory."""
    loaded: set[str] = set()
    log: list[tuple[str, str | None]] = []
    for name in roots:
        if name not in loaded:
            imported(graph, name, loaded, log)
    seen: dict[int, ModuleImport] = {}
    for at, (name, importer) in enumerate(log):
        again = name in {other for other, _ in log[:at]}
        figure = 0 if again else figures[(NAMES.index(name) + at) % len(figures)]
        seen[at] = ModuleImport(
            name, f"/lib/{name}.py", float(at), figure / 1e6, 0.0, None, figure * 7, 0, importer
        )
    return Observation(list(seen.values()), complete=True)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Modules that import each other, and what was seen of it: each imported alone once, and some together."""
    graph = {name: draw(st.lists(st.sampled_from(NAMES), max_size=2, unique=True)) for name in NAMES}
    roots = [[name] for name in NAMES]
    roots += draw(st.lists(st.lists(st.sampled_from(NAMES), max_size=3), max_size=3))
    figures = draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
    return graph, [observed(graph, each, figures) for each in roots]


@st.composite
def policies(draw: st.DrawFn) -> PreloadPolicy:
    return PreloadPolicy(
        INSTALLED,
        deny=tuple(draw(st.lists(st.sampled_from(NAMES), max_size=2))),
        min_children=draw(st.integers(1, 3)),
        max_bytes=draw(st.none() | st.integers(0, 5 * 10**6)),
        max_seconds=draw(st.none() | st.floats(0, 5)),
    )


VERDICTS = st.dictionaries(
    st.sampled_from(NAMES),
    st.sampled_from(["thread", "signal"]),
    max_size=3,
).map(lambda kinds: {name: Verdict(name, (Finding(kind, "did it", name),)) for name, kind in kinds.items()})
LOADED = st.lists(st.sampled_from(NAMES), max_size=2)


def learned(children: list[Observation]) -> Ledger:
    ledger = Ledger()
    for number, child in enumerate(children):
        ledger.record(child, f"/dags/{number}.py")
    return ledger


def carried_out(graph: Graph, plan: Plan, loaded: set[str]) -> set[str]:
    """What comes into a parent that has some modules and follows the plan."""
    after = set(loaded)
    for name in plan.order:
        if name not in after:
            imported(graph, name, after, [])
    return after - loaded


def has(graph: Graph, names: list[str]) -> set[str]:
    loaded: set[str] = set()
    for name in names:
        imported(graph, name, loaded, [])
    return loaded


@thorough
@given(worlds(), policies(), VERDICTS, LOADED)
def test_what_is_planned_comes_and_nothing_else(
    world: World, policy: PreloadPolicy, verdicts: Mapping[str, Verdict], present: list[str]
) -> None:
    graph, children = world
    ledger, loaded = learned(children), has(graph, present)
    plan = policy.plan(ledger, loaded=loaded, verdicts=verdicts)
    come = carried_out(graph, plan, loaded)
    assert come == {name for name, decision in plan.decisions.items() if decision.preload}
    assert plan.decisions.keys() == set(NAMES)
    assert all(decision.reason for decision in plan.decisions.values())
    assert not [name for name in come if matches(name, policy.deny) or name in verdicts]


@thorough
@given(worlds(), policies(), LOADED)
def test_budgets_are_never_exceeded(world: World, policy: PreloadPolicy, present: list[str]) -> None:
    graph, children = world
    ledger, loaded = learned(children), has(graph, present)
    plan = policy.plan(ledger, loaded=loaded)
    come = [record for record in ledger if record.name in carried_out(graph, plan, loaded)]
    paid = sum(max(PAGE, round(record.bytes / record.children)) for record in come)
    seconds = sum(record.seconds / record.children for record in come)
    assert plan.bytes == paid
    assert abs(plan.seconds - seconds) < 1e-6
    assert policy.max_bytes is None or paid <= policy.max_bytes
    assert policy.max_seconds is None or plan.seconds <= policy.max_seconds


@thorough
@given(worlds(), policies(), st.data())
def test_what_earlier_plans_imported_counts(world: World, policy: PreloadPolicy, data: st.DataObject) -> None:
    """A parent learns from one child after the other, and imports at once what the plan says."""
    graph, children = world
    ledger = Ledger()
    loaded: set[str] = set()
    for child in data.draw(st.permutations(children)):
        ledger.record(child, "/dags/one.py")
        plan = policy.plan(ledger, loaded=loaded, preloaded=loaded)
        loaded |= carried_out(graph, plan, loaded)
    known = [record for record in ledger if record.name in loaded]
    spent = sum(max(PAGE, round(record.bytes / record.children)) for record in known)
    last = policy.plan(ledger, loaded=loaded, preloaded=loaded)
    assert last.bytes == spent + sum(
        max(PAGE, round(record.bytes / record.children))
        for record in ledger
        if record.name in carried_out(graph, last, loaded)
    )
    if last.order and policy.max_bytes is not None:
        assert last.bytes <= policy.max_bytes


@thorough
@given(worlds(), policies(), VERDICTS, st.data())
def test_the_order_of_arrival_does_not_matter(
    world: World, policy: PreloadPolicy, verdicts: Mapping[str, Verdict], data: st.DataObject
) -> None:
    _, children = world
    numbered = list(enumerate(children))
    shuffled = data.draw(st.permutations(numbered))
    one, other = Ledger(), Ledger()
    for ledger, arrivals in ((one, numbered), (other, shuffled)):
        for number, child in arrivals:
            ledger.record(child, f"/dags/{number}.py")
    first, second = (policy.plan(ledger, verdicts=verdicts) for ledger in (one, other))
    assert list(first.decisions) == list(second.decisions)
    assert (first.order, first.bytes, first.seconds) == (second.order, second.bytes, second.seconds)
    for name, decision in first.decisions.items():
        again = second.decisions[name]
        # Floating-point sums differ in the last digits.
        assert abs(decision.saving - again.saving) < 1e-9
        assert dataclasses.replace(decision, saving=0.0) == dataclasses.replace(again, saving=0.0)


@thorough
@given(worlds(), policies(), VERDICTS, st.lists(st.sampled_from(NAMES)), st.lists(st.sampled_from(NAMES)))
def test_trust_takes_nothing_from_others_where_there_is_room(
    world: World, policy: PreloadPolicy, verdicts: Mapping[str, Verdict], some: list[str], more: list[str]
) -> None:
    ledger = learned(world[1])
    roomy = dataclasses.replace(policy, max_bytes=None, max_seconds=None, trusted=tuple(some))
    before = roomy.plan(ledger, verdicts=verdicts)
    after = dataclasses.replace(roomy, trusted=(*some, *more)).plan(ledger, verdicts=verdicts)
    assert not [
        name for name, it in before.decisions.items() if it.preload and not after.decisions[name].preload
    ]


@thorough
@given(worlds(), policies())
def test_whatever_is_refused_has_a_reason_of_its_own(world: World, policy: PreloadPolicy) -> None:
    plan = policy.plan(learned(world[1]))
    for name, decision in plan.decisions.items():
        if matches(name, policy.deny):
            assert not decision.preload
            assert decision.reason == "denied by configuration"
