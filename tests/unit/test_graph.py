# SPDX-License-Identifier: Apache-2.0
"""Graphs of modules, against slow and obvious ways to ask the same."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from frostfork.preload.graph import Closures, Weights, circles, importers_first

NAMES = "abcdefgh"
graphs = st.fixed_dictionaries(
    {name: st.lists(st.sampled_from(NAMES), max_size=3, unique=True) for name in NAMES}
)
thorough = settings(max_examples=200, deadline=None)


def reached(graph: dict[str, list[str]], start: str) -> set[str]:
    found, left = {start}, [start]
    while left:
        for name in graph[left.pop()]:
            if name not in found:
                found.add(name)
                left.append(name)
    return found


@thorough
@given(graphs)
def test_circles_are_those_that_reach_each_other_and_come_after_what_they_reach(
    graph: dict[str, list[str]],
) -> None:
    groups = circles(graph)
    assert sorted(name for group in groups for name in group) == list(NAMES)
    seen: set[str] = set()
    for group in groups:
        assert group == sorted(
            name for name in NAMES if group[0] in reached(graph, name) and name in reached(graph, group[0])
        )
        seen.update(group)
        assert seen >= reached(graph, group[0])


@thorough
@given(graphs)
def test_closures_hold_all_that_is_reached(graph: dict[str, list[str]]) -> None:
    closures = Closures(graph)
    for i, group in enumerate(closures.groups):
        bits = closures.reached[i]
        held = {name for at, other in enumerate(closures.groups) if bits >> at & 1 for name in other}
        assert held == reached(graph, group[0])


@thorough
@given(st.lists(st.integers(0, 10**12), max_size=12), st.integers(0, 2**12 - 1))
def test_weights_add_up(weights: list[int], members: int) -> None:
    expected = sum(weight for at, weight in enumerate(weights) if members >> at & 1)
    assert Weights(weights).sum(members) == expected


@thorough
@given(graphs)
def test_importers_come_first_but_for_circles(graph: dict[str, list[str]]) -> None:
    order = importers_first(graph)
    assert sorted(order) == list(NAMES)
    for name in NAMES:
        for target in graph[name]:
            assert name in reached(graph, target) or order.index(name) < order.index(target)


def test_a_circle_is_entered_where_someone_outside_enters_it() -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["a"], "z": ["c"]}
    assert importers_first(graph) == ["z", "c", "a", "b"]
    assert importers_first({"b": ["a"], "a": ["b"]}) == ["a", "b"]


def test_imports_nested_deeper_than_python_calls() -> None:
    names = [f"m{number}" for number in range(5000)]
    graph = {name: [following] for name, following in itertools.pairwise(names)} | {names[-1]: []}
    assert importers_first(graph) == names
