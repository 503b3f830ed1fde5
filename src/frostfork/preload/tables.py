# SPDX-License-Identifier: Apache-2.0
"""From a ledger to the tables that people read: modules, distributions, files, and what a preload would save.

Arithmetic only. Seconds are sums over all files unless a name says otherwise; a file that ran in several children
counts with its mean. bytes are of one child: private memory that it would share instead.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frostfork.preload.ledger import Ledger, ModuleRecord

STANDARD_LIBRARY = "Python's standard library"
OWN_CODE = "your own code"


@dataclass(frozen=True)
class Estimate:
    """What a preload saves of a file's CPU seconds, by the seconds of its imports that the parent would have.

    points: files that were run both ways: their import seconds, and what they saved. Between two of them it is the
    straight line, beyond them in proportion. Without any it is the imports' own seconds.
    plain, preloaded: mean CPU seconds of those files, both ways.
    """

    points: tuple[tuple[float, float], ...] = ()
    plain: float = 0.0
    preloaded: float = 0.0

    def saving(self, import_seconds: float) -> float:
        if not self.points:
            return import_seconds
        at = bisect_left(self.points, (import_seconds,))
        if at == len(self.points):
            x, y = self.points[-1]
            return max(0.0, y * import_seconds / x if x > 0 else y)
        right_x, right_y = self.points[at]
        if at == 0 or right_x <= import_seconds:
            return max(0.0, right_y)
        left_x, left_y = self.points[at - 1]
        share = (import_seconds - left_x) / (right_x - left_x)
        return max(0.0, left_y + share * (right_y - left_y))


@dataclass(frozen=True)
class ModuleRow:
    """overlap: share of the files that import it. saving: of all files together."""

    name: str
    distribution: str
    files: int
    children: int
    failures: int
    seconds: float
    cumulative: float
    bytes: int
    cumulative_bytes: int
    overlap: float
    saving: float
    preload: bool
    reason: str
    importers: tuple[str, ...] = ()
    last_error: str | None = None


@dataclass(frozen=True)
class DistributionRow:
    """The same of all modules of a distribution. bytes: of a file that imports it, on average."""

    name: str
    modules: int
    preloaded: int
    files: int
    seconds: float
    bytes: int
    overlap: float
    saving: float


@dataclass(frozen=True)
class Row:
    """One line of the overlap: files that import alike. seconds: by distribution, of one such file."""

    files: tuple[str, ...]
    seconds: dict[str, float]


@dataclass
class Tables:
    """All of it. files: how many there are; seconds: what they import together."""

    files: int = 0
    seconds: float = 0.0
    saving: float = 0.0
    estimate: Estimate = field(default_factory=Estimate)
    modules: list[ModuleRow] = field(default_factory=list)
    distributions: list[DistributionRow] = field(default_factory=list)
    overlap: list[Row] = field(default_factory=list)
    file_savings: dict[str, float] = field(default_factory=dict)


def fit(pairs: Iterable[tuple[float, float, float]]) -> Estimate:
    """From files that were run both ways: import seconds, plain CPU seconds, preloaded CPU seconds."""
    measured = list(pairs)
    if not measured:
        return Estimate()
    alike: dict[float, list[float]] = {}
    for seconds, plain, preloaded in measured:
        alike.setdefault(seconds, []).append(plain - preloaded)
    points = tuple((seconds, fmean(savings)) for seconds, savings in sorted(alike.items()))
    return Estimate(points, fmean(each[1] for each in measured), fmean(each[2] for each in measured))


def sample(seconds: Mapping[str, float], most: int) -> list[str]:
    """So many files, spread evenly from the one that imports least to the one that imports most."""
    ordered = sorted(seconds, key=lambda path: (seconds[path], path))
    if len(ordered) <= most:
        return sorted(ordered)
    return sorted({ordered[round(at * (len(ordered) - 1) / (most - 1))] for at in range(most)})


def preloaded_seconds(ledger: Ledger, chosen: Collection[str]) -> dict[str, float]:
    """By file: the seconds of its imports that a parent with these modules would spare it."""
    mean = {name: _mean(record, record.seconds) for record in ledger if (name := record.name) in chosen}
    return {
        path: sum(mean.get(name, 0.0) for name in ledger.modules_of(path)) for path in sorted(ledger.sources)
    }


def tables(
    ledger: Ledger,
    decisions: Mapping[str, tuple[bool, str]],
    distribution: Callable[[str, Collection[str]], str],
    estimate: Estimate,
) -> Tables:
    """decisions: by module, whether it would be preloaded, and why. distribution: of a module found at these places."""
    files = len(ledger.sources)
    chosen = {name for name, (preload, _) in decisions.items() if preload}
    spared = preloaded_seconds(ledger, chosen)
    found = Tables(files, estimate=estimate)
    found.file_savings = {path: estimate.saving(seconds) for path, seconds in spared.items()}
    found.saving = sum(found.file_savings.values())
    # What is saved beside the imports themselves is shared out among them, so that the column adds up.
    whole = sum(spared.values())
    rate = found.saving / whole if whole else 0.0
    owner: dict[str, str] = {}
    for record in ledger:
        preload, reason = decisions.get(record.name, (False, "not decided"))
        owner[record.name] = distribution(record.name, record.origins)
        count = record.files or record.children
        found.modules.append(
            ModuleRow(
                record.name,
                owner[record.name],
                record.files,
                record.children,
                record.failures,
                _mean(record, record.seconds) * count,
                _mean(record, record.cumulative) * count,
                round(_mean(record, record.bytes)),
                round(_mean(record, record.cumulative_bytes)),
                record.files / files if files else 0.0,
                rate * _mean(record, record.seconds) * count if preload else 0.0,
                preload,
                reason,
                tuple(sorted(record.importers)),
                record.last_error,
            )
        )
    found.modules.sort(key=lambda row: (-row.saving, -row.seconds, row.name))
    found.seconds = sum(row.seconds for row in found.modules)
    found.distributions = _distributions(ledger, found.modules, files)
    found.overlap = _overlap(ledger, owner)
    return found


def _mean(record: ModuleRecord, total: float) -> float:
    return total / record.children if record.children else 0.0


def _distributions(ledger: Ledger, rows: Sequence[ModuleRow], files: int) -> list[DistributionRow]:
    parts: dict[str, list[ModuleRow]] = {}
    for row in rows:
        if row.children:
            parts.setdefault(row.distribution, []).append(row)
    found = []
    for name, part in parts.items():
        users = frozenset().union(*(ledger.sources_of(row.name) for row in part))
        weighed = sum(row.bytes * (row.files or row.children) for row in part)
        found.append(
            DistributionRow(
                name,
                len(part),
                sum(row.preload for row in part),
                len(users),
                sum(row.seconds for row in part),
                weighed // max(1, len(users)),
                len(users) / files if files else 0.0,
                sum(row.saving for row in part),
            )
        )
    return sorted(found, key=lambda row: (-row.saving, -row.seconds, row.name))


def _overlap(ledger: Ledger, owner: Mapping[str, str]) -> list[Row]:
    """Files with the same distributions in one row, the rows with most seconds first."""
    mean = {record.name: _mean(record, record.seconds) for record in ledger}
    alike: dict[frozenset[str], list[tuple[str, dict[str, float]]]] = {}
    for path in sorted(ledger.sources):
        seconds: dict[str, float] = {}
        for name in ledger.modules_of(path):
            seconds[owner[name]] = seconds.get(owner[name], 0.0) + mean[name]
        alike.setdefault(frozenset(seconds), []).append((path, seconds))
    rows = []
    for names, members in alike.items():
        means = {name: fmean(seconds[name] for _, seconds in members) for name in sorted(names)}
        rows.append(Row(tuple(path for path, _ in members), means))
    return sorted(rows, key=lambda row: (-sum(row.seconds.values()) * len(row.files), row.files))
