# SPDX-License-Identifier: Apache-2.0
"""What files import: each runs in a child of its own, forked from a process that has next to nothing imported.

frostfork.runner owns that process and speaks with it; `analyze()` decides what to run in what order:

1. what many files begin with is imported once, to know what it takes (frostfork.beginnings);
2. every file runs, in a child of a process that has imported what this file begins with;
3. a file that failed so runs again from the bare template, so that its failure is its own;
4. some files run twice more, plainly and in a child of a parent with frostfork: that is what the estimate rests on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from frostfork.beginnings import (
    Effect,
    Key,
    Piece,
    beginning,
    candidates,
    chains,
    lazy_names,
    names_in,
    number,
    pieces,
)
from frostfork.observe import Observation
from frostfork.preload import Ledger
from frostfork.runner import AnalyzeError, Limits, Node, Result, Runner, Script

_FEWEST = 4  # files that must begin with an import before it is worth trying it
_MOST = 64  # imports that are tried
_LEAST_SECONDS = 0.02  # an import that takes less is not shared: a process more takes as long
_SHARING_PAYS = 64  # files


@dataclass(frozen=True)
class FileRun:
    """How one file ran. outcome: "ok", "failed", "timed out" or "killed".

    seconds, cpu_seconds: of its process from fork to end, with what was imported for it before. import_seconds, bytes:
    the sums over its imports. modules: how many it imported; shared: how many of these once for several files.
    """

    path: str
    outcome: str
    error: str
    seconds: float
    cpu_seconds: float
    import_seconds: float
    bytes: int
    modules: int
    shared: int = 0
    lazy: tuple[str, ...] = ()


class Pair(NamedTuple):
    """CPU seconds of the same file in a child of a bare parent, and of one that has the plan imported."""

    path: str
    plain: float
    preloaded: float


@dataclass
class Analysis:
    """What is known. complete: False if it was interrupted; then it is what was known by then."""

    ledger: Ledger = field(default_factory=Ledger)
    runs: dict[str, FileRun] = field(default_factory=dict)
    loaded: frozenset[str] = frozenset()
    pairs: list[Pair] = field(default_factory=list)
    files: int = 0
    complete: bool = True
    # What shared imports took, by module, each time. One of them counts for many files: so not any one, but the middle.
    measured: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


Progress = Callable[[int, int, str], None]


def analyze(runner: Runner, files: Sequence[Script], progress: Progress, *, share: bool = True) -> Analysis:
    """Run every file and add up what they import. share=False: each by itself, from the bare template.

    KeyboardInterrupt ends it early, with what is known by then.
    """
    found = Analysis(files=len(files))
    try:
        _analyze(runner, files, progress, share, found)
    except KeyboardInterrupt:
        found.complete = False
    return found


def _analyze(
    runner: Runner, files: Sequence[Script], progress: Progress, share: bool, found: Analysis
) -> None:
    progress(0, len(files), "preparing")
    found.loaded = runner.begin([file.path for file in files])
    sources = [_source(file.path) for file in files]
    lazy = [tuple(lazy_names(source)) if b"lazy" in source else () for source in sources]
    chosen: dict[int, tuple[Key, ...]] = dict.fromkeys(range(len(files)), ())
    if share and len(files) >= _SHARING_PAYS:
        chosen = _shared(runner, files, sources, progress, found)
    roots = pieces(chosen, 2 * runner.limits.jobs)
    above = number(roots)
    again = list(range(len(files)))
    done = 0
    noted: set[int] = set()
    for file, result in runner.run(files, roots):
        for node in runner.nodes.keys() - noted:
            noted.add(node)
            _note(found, runner.nodes[node])
        chain = [runner.nodes[node] for node in above[file]]
        if chain and not (result.failure == "" and result.status == 0):
            continue  # it shall fail by itself
        _add(found, files[file], result, chain, lazy[file])
        again.remove(file)
        done += 1
        progress(done, len(files), "running")
    plain = pieces(dict.fromkeys(again, ()), 1)
    for file, result in runner.run(files, plain):
        _add(found, files[file], result, [], lazy[file])
        done += 1
        progress(done, len(files), "running")


def _source(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _shared(
    runner: Runner, files: Sequence[Script], sources: Sequence[bytes], progress: Progress, found: Analysis
) -> dict[int, tuple[Key, ...]]:
    """What each file begins with that is worth importing once for several."""
    local: dict[str, frozenset[str]] = {}
    begun: dict[int, list[Key]] = {}
    for at, (file, source) in enumerate(zip(files, sources, strict=True)):
        folders = {os.path.dirname(file.path), file.root}
        names = [local.setdefault(folder, names_in(folder)) for folder in folders]
        begun[at] = beginning(source, frozenset().union(*names))
    keys = candidates(begun, _FEWEST, _MOST)
    tried = [Piece([key], number=at) for at, key in enumerate(keys)]
    progress(0, len(files), f"trying {len(keys)} shared imports")
    for _ in runner.run(files, tried):
        pass
    effects = {}
    for at, key in enumerate(keys):
        node = runner.nodes.get(at)  # none where it ended the process
        if node is not None and not node.failure and not node.observation.threads:
            _note(found, node)
            effects[key] = Effect(node.seconds, frozenset(module.name for module in node.observation.modules))
    return chains(begun, effects, _LEAST_SECONDS)


def _note(found: Analysis, node: Node) -> None:
    for module in node.observation.modules:
        if module.error is None:
            found.measured.setdefault(module.name, []).append(module.seconds)


def _add(
    found: Analysis,
    file: Script,
    result: Result,
    chain: Sequence[Node],
    lazy: tuple[str, ...],
) -> None:
    before = [
        module._replace(seconds=median(found.measured.get(module.name, [module.seconds])))
        for node in chain
        for module in node.observation.modules
    ]
    modules = [*before, *result.observation.modules]
    seconds = result.seconds + sum(node.seconds for node in chain)
    observed = Observation(
        modules, complete=result.failure == "", wall_seconds=seconds, threads=result.observation.threads
    )
    found.ledger.record(observed, file.path)
    outcome, error = _outcome(result)
    own = {module.name: module.seconds for module in modules if module.error is None}
    found.runs[file.path] = FileRun(
        file.path,
        outcome,
        error,
        seconds,
        result.cpu + sum(node.cpu_seconds for node in chain),
        sum(own.values()),
        sum(module.bytes for module in modules if module.error is None),
        len(own),
        len(before),
        lazy,
    )


def _outcome(result: Result) -> tuple[str, str]:
    if result.late:
        return "timed out", f"not done after {result.seconds:.0f} s"
    if result.failure is not None:
        return ("failed", result.failure) if result.failure else ("ok", "")
    if os.WIFSIGNALED(result.status):
        name = signal.Signals(os.WTERMSIG(result.status)).name
        return "killed", f"{name}: {result.tail}" if result.tail else name
    return "failed", f"it ended its process with {os.WEXITSTATUS(result.status)}" + (
        f": {result.tail}" if result.tail else ""
    )


def verify(runner: Runner, files: Sequence[Script], modules: Iterable[str], progress: Progress) -> list[Pair]:
    """Run these files twice each: plainly, and in children of a parent with frostfork that has these modules."""
    warm = Piece([Key(module) for module in modules], files=list(range(len(files))), warm=True, number=0)
    plain: dict[int, float] = {}
    warmed: dict[int, float] = {}
    roots = [Piece(files=[file]) for file in range(len(files))]
    for into, pieces_ in ((plain, roots), (warmed, [warm])):
        for file, result in runner.run(files, pieces_):
            into[file] = result.cpu
            progress(len(plain) + len(warmed), 2 * len(files), "verifying the estimate")
    return [
        Pair(files[file].path, plain[file], warmed[file]) for file in sorted(plain.keys() & warmed.keys())
    ]


__all__ = ["Analysis", "AnalyzeError", "FileRun", "Limits", "Pair", "Runner", "Script", "analyze", "verify"]
