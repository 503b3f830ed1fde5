# SPDX-License-Identifier: Apache-2.0
"""From what was recorded to the figures of the demo: arithmetic only, nothing is read or run here.

Airflow's own rounds overlap, see `phases`, so the same file may come twice in one round and not at all in the next:
figures are means over the files of each file's mean.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from frostfork.airflow.measure.phases import learning_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# What `ratio` compares; `kinds` has the same names.
FIGURES = (
    "seconds_per_file",
    "child_seconds",
    "round_seconds",
    "cpu_seconds",
    "private_bytes",
    "peak_pss_bytes",
    "page_faults",
)
_MORE_FIGURES = (
    "seconds_median",
    "seconds_p95",
    "unshared_pages",
    "parent_growth_bytes",
    "manager_cpu_seconds",
)


@dataclass(frozen=True)
class Parse:
    """One finished parse. CPU seconds and page faults are the child's own after `per_child`.

    `seconds` is what Airflow takes for the file's duration: it ends when the manager gets round to the result.
    `child_seconds` end with the child's own work; None of a child that ended otherwise, killed or by os._exit().
    """

    path: str
    pid: int
    start: float
    end: float
    seconds: float
    cpu: float
    faults: float
    manager_cpu: float
    dags: int | None = None
    child_seconds: float | None = None


@dataclass
class ChildMemory:
    """What was last seen of one child, in bytes; `unshared` in pages since it was first seen."""

    pid: int
    seen: float
    private: int
    pss: int
    unshared: int | None = None


@dataclass(frozen=True)
class TreeMemory:
    """PSS of the manager and all its children at one moment, in bytes."""

    seen: float
    pss: int


@dataclass
class Measured:
    """All that one variant left behind."""

    parses: list[Parse] = field(default_factory=list)
    settled_from: int | None = None  # after so many parses nothing was left to learn
    sampled_from: int | None = None
    # The machine's CPU seconds at the beginning and the end of the timed rounds, each after so many parses.
    busy: list[tuple[int, float]] = field(default_factory=list)
    children: list[ChildMemory] = field(default_factory=list)
    trees: list[TreeMemory] = field(default_factory=list)
    manager_rss: list[int] = field(default_factory=list)
    preloaded: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    warmups: list[dict[str, dict[str, Any]]] = field(default_factory=list)  # each by step, as StepReport
    notes: list[str] = field(default_factory=list)


def per_child(parses: Iterable[Parse]) -> list[Parse]:
    """Turn the counters of the manager, which only grow, into what each parse added to them."""
    cpu = faults = manager = 0.0
    result = []
    for parse in parses:
        added = (parse.cpu - cpu, parse.faults - faults, parse.manager_cpu - manager)
        cpu, faults, manager = parse.cpu, parse.faults, parse.manager_cpu
        result.append(replace(parse, cpu=added[0], faults=added[1], manager_cpu=added[2]))
    return result


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of values, which may not be empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def balanced(pairs: Iterable[tuple[str, float]]) -> float | None:
    """Mean over the paths of each path's mean, or None of nothing."""
    by_path: dict[str, list[float]] = defaultdict(list)
    for path, value in pairs:
        by_path[path].append(value)
    return fmean(fmean(values) for values in by_path.values()) if by_path else None


def summarize(measured: Measured, kinds: Mapping[str, str], rounds: int) -> dict[str, Any]:
    """Return one variant's part of the result. `kinds` names each path's kind; the rest are `all`."""
    parses = measured.parses
    paths = [parse.path for parse in parses]
    files = len(set(paths))
    learning = learning_rounds(files, measured.settled_from)
    first = learning * files
    last = measured.sampled_from if measured.sampled_from is not None else len(parses)
    timed = parses[first:last]
    sampled = _join(parses[last:], measured.children)
    walls = _walls(parses, files, range(learning, learning + rounds))
    result = _figures(timed, sampled)
    peaks = _peaks(measured, parses[last:], files)
    result["round_seconds"] = fmean(walls) if walls else None
    result["peak_pss_bytes"] = fmean(peaks) if peaks else None
    rss = measured.manager_rss
    result["parent_growth_bytes"] = rss[-1] - rss[0] if len(rss) > 1 else None
    result["foreign_cpu_share"] = _foreign(measured)
    result["spread"] = _spread(timed, sampled, files)
    result["spread"]["round_seconds"] = _ends(walls)
    result["spread"]["peak_pss_bytes"] = _ends(peaks)
    result["learning"] = _learning(measured, learning, parses[:first])
    result["files"] = files
    result["parses"] = len(parses)
    # Of each file's last parse; a file that ended without a result has none.
    result["dags"] = sum({parse.path: parse.dags or 0 for parse in parses}.values())
    result["unparsed"] = sorted(set(kinds) - set(paths))
    result["notes"] = measured.notes
    result["kinds"] = {}
    for kind in sorted({kinds.get(path, "all") for path in paths}):
        of_kind = [parse for parse in timed if kinds.get(parse.path, "all") == kind]
        memory = [pair for pair in sampled if kinds.get(pair[0].path, "all") == kind]
        part = _figures(of_kind, memory)
        names = {parse.path for parse in of_kind}
        # The time that a round spends in files of this kind, and the largest child among them.
        mean = part["seconds_per_file"]
        part["round_seconds"] = None if mean is None else mean * len(names)
        part["peak_pss_bytes"] = max((child.pss for _, child in memory), default=None)
        part["files"] = len(names)
        result["kinds"][kind] = part
    return result


def ratio(stock: Mapping[str, Any], frostfork: Mapping[str, Any]) -> dict[str, Any]:
    """Return frostfork's figures divided by stock's; None where one is unknown or stock's not positive."""
    result: dict[str, Any] = {
        name: _divided(frostfork.get(name), stock.get(name)) for name in (*FIGURES, *_MORE_FIGURES)
    }
    common = [kind for kind in stock.get("kinds", {}) if kind in frostfork.get("kinds", {})]
    result["kinds"] = {
        kind: {
            name: _divided(frostfork["kinds"][kind].get(name), stock["kinds"][kind].get(name))
            for name in FIGURES
        }
        for kind in common
    }
    return result


def _divided(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below is not None and below > 0 else None


def _figures(timed: Sequence[Parse], sampled: Sequence[tuple[Parse, ChildMemory]]) -> dict[str, Any]:
    seconds = [parse.seconds for parse in timed]
    own = [(parse.path, parse.child_seconds) for parse in timed if parse.child_seconds is not None]
    unshared = [(parse.path, child.unshared) for parse, child in sampled if child.unshared is not None]
    return {
        "seconds_per_file": balanced((parse.path, parse.seconds) for parse in timed),
        "child_seconds": balanced(own),
        "seconds_median": median(seconds) if seconds else None,
        "seconds_p95": percentile(seconds, 0.95) if seconds else None,
        "cpu_seconds": balanced((parse.path, parse.cpu) for parse in timed),
        "page_faults": balanced((parse.path, parse.faults) for parse in timed),
        "manager_cpu_seconds": balanced((parse.path, parse.manager_cpu) for parse in timed),
        "private_bytes": balanced((parse.path, child.private) for parse, child in sampled),
        "unshared_pages": balanced(unshared),
    }


def _join(parses: Iterable[Parse], children: Iterable[ChildMemory]) -> list[tuple[Parse, ChildMemory]]:
    """Match each sampled child with its parse, by pid and by time: a pid may come again.

    A child without a private byte had not run yet when it was last seen, and says nothing of its kind.
    """
    by_pid: dict[int, list[ChildMemory]] = defaultdict(list)
    for child in children:
        by_pid[child.pid].append(child)
    return [
        (parse, child)
        for parse in parses
        for child in by_pid[parse.pid]
        if child.private and parse.start <= child.seen <= parse.end
    ]


def _foreign(measured: Measured) -> float | None:
    """Share of the machine's work in the timed rounds that was neither the manager's nor its children's."""
    if len(measured.busy) < 2:
        return None
    (first, before), (last, after) = measured.busy
    own = sum(parse.cpu + parse.manager_cpu for parse in measured.parses[first:last])
    return max(0.0, 1 - own / (after - before)) if after > before else None


def _learning(measured: Measured, rounds: int, parses: Sequence[Parse]) -> dict[str, Any]:
    """Of the rounds before the timed ones."""
    return {
        "rounds": rounds,
        "seconds": parses[-1].end - parses[0].start if parses else None,
        "seconds_per_file": balanced((parse.path, parse.seconds) for parse in parses),
        "settled": measured.settled_from is not None and measured.settled_from <= len(parses),
    }


def _walls(parses: Sequence[Parse], files: int, timed: Iterable[int]) -> list[float]:
    """Seconds of each timed round: from the last parse of the round before to the last of its own."""
    ends = [parse.end for parse in parses]
    return [
        ends[(k + 1) * files - 1] - ends[k * files - 1]
        for k in timed
        if files and (k + 1) * files <= len(ends)
    ]


def _peaks(measured: Measured, after: Sequence[Parse], files: int) -> list[int]:
    """Return the highest PSS in each memory round."""
    borders = [parse.end for parse in after[files - 1 :: files]] if files else []
    peaks: dict[int, int] = {}
    for tree in measured.trees:
        index = sum(border < tree.seen for border in borders)
        peaks[index] = max(tree.pss, peaks.get(index, 0))
    # What comes after the last whole round belongs to no round; it is only the end of the last files.
    whole = [peak for index, peak in sorted(peaks.items()) if index < len(borders)]
    return whole or list(peaks.values())


def _spread(
    timed: Sequence[Parse], sampled: Sequence[tuple[Parse, ChildMemory]], files: int
) -> dict[str, list[float] | None]:
    def of_timed(value: Callable[[Parse], float]) -> list[float] | None:
        return _ends(_round_means([(parse.path, value(parse)) for parse in timed], files))

    private: list[tuple[str, float]] = [(parse.path, child.private) for parse, child in sampled]
    own = [(parse.path, parse.child_seconds) for parse in timed if parse.child_seconds is not None]
    return {
        "child_seconds": _ends(_round_means(own, files)),
        "seconds_per_file": of_timed(lambda parse: parse.seconds),
        "cpu_seconds": of_timed(lambda parse: parse.cpu),
        "page_faults": of_timed(lambda parse: parse.faults),
        "private_bytes": _ends(_round_means(private, files)),
    }


def _round_means(pairs: Sequence[tuple[str, float]], files: int) -> list[float]:
    """Mean of each round. A file that sat a round out counts there with its mean of the others."""
    means = {path: balanced(pair for pair in pairs if pair[0] == path) for path, _ in pairs}
    chunks = [pairs[at : at + files] for at in range(0, len(pairs), files)] if files else []
    result = []
    for chunk in chunks:
        # A remainder of a few parses says nothing about the spread between rounds.
        if 2 * len(chunk) >= files:
            absent = [(path, mean) for path, mean in means.items() if mean is not None]
            present = {path for path, _ in chunk}
            mean = balanced([*chunk, *(pair for pair in absent if pair[0] not in present)])
            assert mean is not None
            result.append(mean)
    return result


def _ends(values: Sequence[float]) -> list[float] | None:
    return [min(values), max(values)] if values else None
