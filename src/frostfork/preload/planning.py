# SPDX-License-Identifier: Apache-2.0
"""What to take, once it is known what speaks against which module: what comes along with what, and the budgets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from frostfork.preload.graph import Closures, Weights, importers_first
from frostfork.preload.ledger import ModuleRecord
from frostfork.preload.patterns import ancestors

_PAGE = 4096  # bytes; memory is taken by the page, and a module that is not known to take any takes one


@dataclass(frozen=True)
class Cost:
    """What imports cost the parent. Whole numbers, whose sums do not depend on the order of adding."""

    pages: int = 0
    microseconds: int = 0

    @classmethod
    def of(cls, records: Iterable[ModuleRecord]) -> Cost:
        chosen = list(records)
        return cls(sum(map(_pages, chosen)), sum(map(_microseconds, chosen)))

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.pages + other.pages, self.microseconds + other.microseconds)

    @property
    def bytes(self) -> int:
        return self.pages * _PAGE

    @property
    def seconds(self) -> float:
        return self.microseconds / 1e6


@dataclass(frozen=True)
class Budget:
    """What the parent may spend on all its preloads together; None is no limit."""

    bytes: int | None = None
    seconds: float | None = None

    def objection(self, cost: Cost, spent: Cost) -> str | None:
        """Why an import that costs so much is too much; None if it is not."""
        total = cost + spent
        if self.bytes is not None and total.bytes > self.bytes:
            left = max(0, self.bytes - spent.bytes)
            return (
                f"with what it imports it would take {_megabytes(cost.bytes)} of the parent's memory,"
                f" and {_megabytes(left)} of max_bytes ({_megabytes(self.bytes)}) are left"
            )
        if self.seconds is not None and total.seconds > self.seconds:
            left_seconds = max(0.0, self.seconds - spent.seconds)
            return (
                f"with what it imports it would take the parent {cost.seconds:.3f} s,"
                f" and {left_seconds:.3f} s of max_seconds ({self.seconds:g} s) are left"
            )
        return None


@dataclass
class Choice:
    """along: what will be in the parent, each with the module that it comes along with, itself if it is wanted.

    refused: what stays out for the sake of another module or of a budget, with the reason.
    """

    along: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def choose(
    records: Mapping[str, ModuleRecord],
    unwanted: Collection[str],
    harmful: Mapping[str, str],
    uses: Mapping[str, int],
    budget: Budget,
    spent: Cost,
) -> Choice:
    """Take whatever is wanted, brings nothing harmful along, and fits.

    records: all that is not in the parent yet, sorted by name. unwanted: modules that something speaks against.
    harmful: those of them whose importers it speaks against as well, with the reason. uses: by how many children.
    """
    closures = Closures(_brings(records))
    choice = Choice()
    heads: dict[int, str] = {}  # by group: its first wanted module
    worst: list[str | None] = []  # by group: the first harmful module that it would bring along
    for i, group in enumerate(closures.groups):
        known = [name for name in group if name in harmful and records[name].children]
        known += [name for name in (worst[target] for target in closures.next[i]) if name is not None]
        worst.append(min(known, default=None))
        wanted = [name for name in group if name not in unwanted]
        bad = worst[i]
        if bad is not None:
            choice.refused.update((name, f"would import {bad}: {harmful[bad]}") for name in wanted)
        elif wanted:
            heads[i] = wanted[0]
    taken = 0
    limited = budget != Budget()
    sums = _Sums(closures.groups, records, uses) if limited else None
    for i in _ranked(heads, closures, sums):
        new = closures.reached[i] & ~taken
        if sums is not None:
            cost = sums.cost(new)
            objection = budget.objection(cost, spent)
            if objection is not None:
                choice.refused.update(
                    (name, objection) for name in closures.groups[i] if name not in unwanted
                )
                continue
            spent += cost
        taken |= new
        while new:
            lowest = new & -new
            new ^= lowest
            for name in closures.groups[lowest.bit_length() - 1]:
                choice.along[name] = name if name not in unwanted else heads[i]
    return choice


def import_order(along: Mapping[str, str], records: Mapping[str, ModuleRecord]) -> list[str]:
    """What is wanted, each module after those that import it: so a circle of imports is entered as children did."""
    graph: dict[str, list[str]] = {name: [] for name in along}
    for name in along:
        for importer in records[name].importers:
            # What lies in a package has it imported first in any case.
            if importer in graph and importer != name and name not in ancestors(importer):
                graph[importer].append(name)
    return [name for name in importers_first(graph) if along[name] == name]


def mean_bytes(record: ModuleRecord) -> int:
    return round(record.bytes / record.children) if record.children else 0


def _brings(records: Mapping[str, ModuleRecord]) -> dict[str, set[str]]:
    """What each module imports in turn, as far as every child shows it, and the package above it.

    A module that one child imported within another, and fewer children imported at all than that other, does not come
    along in all of them: the code around the import decided so, and would decide in the parent.
    """
    graph: dict[str, set[str]] = {name: set() for name in records}
    for name, record in records.items():
        if not record.children:
            continue  # what failed brings nothing, and is brought by nobody
        for importer in record.importers:
            if importer in graph and record.children + record.failures >= records[importer].children:
                graph[importer].add(name)
        for package in ancestors(name):
            if package in graph:
                if records[package].children:
                    graph[name].add(package)
                break
    return graph


class _Sums:
    """Costs and savings of groups of modules, and of sets of them."""

    def __init__(
        self, groups: list[list[str]], records: Mapping[str, ModuleRecord], uses: Mapping[str, int]
    ) -> None:
        costs = [Cost.of(records[name] for name in group) for group in groups]
        self._pages = Weights([cost.pages for cost in costs])
        self._microseconds = Weights([cost.microseconds for cost in costs])
        self._saved = Weights(
            [sum(_microseconds(records[name]) * uses[name] for name in group) for group in groups]
        )

    def cost(self, groups: int) -> Cost:
        return Cost(self._pages.sum(groups), self._microseconds.sum(groups))

    def worth(self, groups: int) -> float:
        """What these save in all children together, for the memory that they take."""
        return self._saved.sum(groups) / self._pages.sum(groups)


def _ranked(heads: Mapping[int, str], closures: Closures, sums: _Sums | None) -> list[int]:
    """Groups by what they are worth with all that they bring along; by name where there is room for all."""
    if sums is None:
        return sorted(heads, key=heads.__getitem__)
    return sorted(heads, key=lambda i: (-sums.worth(closures.reached[i]), heads[i]))


def _pages(record: ModuleRecord) -> int:
    return max(1, -(-mean_bytes(record) // _PAGE))


def _microseconds(record: ModuleRecord) -> int:
    """Of one import."""
    return round(record.seconds * 1e6) // record.children if record.children else 0


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
