# SPDX-License-Identifier: Apache-2.0
"""Graphs of modules: which import each other in a circle, what a module brings along, who comes first."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

Graph = Mapping[str, Iterable[str]]


def circles(graph: Graph) -> list[list[str]]:
    """The modules in groups of those that reach each other, most of them alone; whoever is reached comes before.

    Tarjan's algorithm, with a stack of its own, since imports may be nested deeper than Python calls.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    place: dict[str, int] = {}  # in the path
    grouped: set[str] = set()
    groups: list[list[str]] = []
    for root in sorted(graph):
        if root in index:
            continue
        work = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = len(index)
        place[root] = len(path)
        path.append(root)
        while work:
            name, rest = work[-1]
            for target in rest:
                if target not in index:
                    index[target] = low[target] = len(index)
                    place[target] = len(path)
                    path.append(target)
                    work.append((target, iter(sorted(graph[target]))))
                    break
                if target not in grouped:
                    low[name] = min(low[name], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    group = sorted(path[place[name] :])
                    del path[place[name] :]
                    grouped.update(group)
                    groups.append(group)
    return groups


class Closures:
    """What each group reaches, itself included, as sets of bits: bit i stands for groups[i].

    For ten thousand modules sets of names would take minutes and gigabytes.
    """

    def __init__(self, graph: Graph) -> None:
        self.groups = circles(graph)
        self.group_of = {name: i for i, group in enumerate(self.groups) for name in group}
        self.reached: list[int] = []
        self.next: list[set[int]] = []
        for i, group in enumerate(self.groups):
            targets = {self.group_of[target] for name in group for target in graph[name]} - {i}
            bits = 1 << i
            for target in targets:
                bits |= self.reached[target]  # whoever is reached comes before
            self.reached.append(bits)
            self.next.append(targets)


class Weights:
    """Sums of weights over sets of bits, by counting bits: one plane for each binary digit of the weights."""

    def __init__(self, weights: Sequence[int]) -> None:
        digits = max(weights, default=0).bit_length()
        self._planes = [
            int("".join("1" if weight >> digit & 1 else "0" for weight in reversed(weights)), 2)
            for digit in range(digits)
        ]

    def sum(self, members: int) -> int:
        return sum((members & plane).bit_count() << digit for digit, plane in enumerate(self._planes))


def importers_first(graph: Graph) -> list[str]:
    """All modules, each after those that import it; in a circle and among strangers by name.

    In a circle those come first that someone outside it imports: from there it was entered.
    """
    groups = circles(graph)
    group_of = {name: i for i, group in enumerate(groups) for name in group}
    targets = [
        {group_of[target] for name in group for target in graph[name]} - {i} for i, group in enumerate(groups)
    ]
    entered = {target for name in graph for target in graph[name] if group_of[target] != group_of[name]}
    waits = [0] * len(groups)
    for group in targets:
        for target in group:
            waits[target] += 1
    ready = [(groups[i][0], i) for i, count in enumerate(waits) if count == 0]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        _, i = heapq.heappop(ready)
        order += sorted(groups[i], key=lambda name: (name not in entered, name))
        for target in targets[i]:
            waits[target] -= 1
            if waits[target] == 0:
                heapq.heappush(ready, (groups[target][0], target))
    return order
