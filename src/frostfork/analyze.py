# SPDX-License-Identifier: Apache-2.0
"""What files import: each runs in a child of its own, forked from a process that has next to nothing imported.

`Runner` owns that process (frostfork._template) and speaks with it; `analyze()` decides what to run in what order:

1. what many files begin with is imported once, to know what it takes (frostfork.beginnings);
2. every file runs, in a child of a process that has imported what this file begins with;
3. a file that failed so runs again from the bare template, so that its failure is its own;
4. some files run twice more, plainly and in a child of a parent with frostfork: that is what the estimate rests on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import marshal
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from frostfork import _core
from frostfork.beginnings import Effect, Key, Piece, beginning, candidates, chains, lazy_names, names_in, number, pieces
from frostfork.errors import FrostforkError, ObservationError
from frostfork.journal import Journal
from frostfork.observe import Observation
from frostfork.preload import Ledger

_FEWEST = 4  # files that must begin with an import before it is worth trying it
_MOST = 64  # imports that are tried
_LEAST_SECONDS = 0.02  # an import that takes less is not shared: a process more takes as long
_SHARING_PAYS = 64  # files
_START = r"""
import sys, _frozen_importlib as importlib, _frozen_importlib_external as files
def load(name, path):
    spec = files.spec_from_file_location(name, path)
    module = importlib._load(spec)
    return module
core = load("frostfork._core", sys.argv[2])
template = load("frostfork._template", sys.argv[3])
template.main(core)
"""


class AnalyzeError(FrostforkError):
    """Nothing could be analyzed; the message is one sentence."""


class Script(NamedTuple):
    """A file, and the folder that it belongs to."""

    path: str
    root: str


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
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Limits:
    """seconds, bytes: of one file. jobs: files at a time."""

    seconds: float = 60.0
    bytes: int = 4 << 30
    jobs: int = 2


class _Result(NamedTuple):
    """One file's run, as its keeper told it."""

    status: int
    late: bool
    seconds: float
    cpu: float
    peak: int
    tail: str
    failure: str | None  # None: it did not come to its end
    observation: Observation


Progress = Callable[[int, int, str], None]


class Runner:
    """The template process. A context manager: at its end nothing that was started is left."""

    def __init__(
        self, limits: Limits, entry: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.limits = limits
        self._environment = environment
        self._entry = entry
        self._folder = tempfile.TemporaryDirectory(prefix="frostfork-analyze-")
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self.nodes: dict[int, tuple[str, float, float, Observation]] = {}

    def __enter__(self) -> Runner:
        template = importlib.util.find_spec("frostfork._template")
        assert template is not None and template.origin is not None and _core.__file__ is not None
        self._errors = open(os.path.join(self._folder.name, "errors"), "w+b")  # noqa: SIM115
        words = [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", _START]  # type: ignore[attr-defined]
        self._process = subprocess.Popen(
            [*words, self._folder.name, _core.__file__, template.origin],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env=None if self._environment is None else dict(self._environment),
        )
        # Inherited by every child; in an ordinary user's own processes no one can raise them again.
        for what, limit in ((resource.RLIMIT_DATA, self.limits.bytes), (resource.RLIMIT_CORE, 0)):
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(self._process.pid, what, (limit, limit))
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        try:
            if process is not None:
                _end(process)
        finally:
            if self._errors is not None:
                self._errors.close()
            self._folder.cleanup()

    def prepare(self) -> None:
        """Import what a parent of such files has; for DAG files that is Airflow."""
        for line in self._ask({"do": "prepare", "entry": self._entry, "seconds": self.limits.seconds}):
            raise AnalyzeError(f"The process to run files from could not be prepared: {line[1]}.")

    def begin(self, files: Sequence[str]) -> frozenset[str]:
        """Once, before these files are run. Returns the modules that the template has."""
        for line in self._ask({"do": "begin", "files": list(files)}):
            raise AnalyzeError(f"The process to run files from could not be prepared: {line[1]}.")
        with open(os.path.join(self._folder.name, "loaded"), encoding="utf-8") as file:
            return frozenset(file.read().split("\n"))

    def list_files(self, folders: Sequence[str]) -> list[Script]:
        for line in self._ask({"do": "list_files", "folders": list(folders)}):
            raise AnalyzeError(f"The folders could not be read: {line[1]}.")
        path = os.path.join(self._folder.name, "files")
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            words = file.read().split("\0")
        return [Script(file, folder) for folder, file in zip(words[0::2], words[1::2], strict=False)]

    def run(self, files: Sequence[Script], roots: Sequence[Piece]) -> Iterator[tuple[int, _Result]]:
        """Run these pieces; gives each file's place in `files` with its result, in the order in which they end."""
        self.nodes.clear()
        tree = [_as_plain(piece, files) for piece in roots]
        for line in self._ask({"do": "run", "pieces": tree, "jobs": self.limits.jobs}):
            if line[0] == "node":
                self.nodes[int(line[1])] = (line[2], float(line[3]), float(line[4]), self._read(f"node-{line[1]}")[1])
            elif line[0] == "run":
                failure, observed = self._read(f"run-{line[1]}")
                status, late, seconds, cpu, peak = line[2:7]
                yield int(line[1]), _Result(
                    int(status), late == "1", float(seconds), float(cpu), int(peak), line[7], failure, observed
                )
        for name in os.listdir(self._folder.name):
            if name.startswith(("node-", "run-")):
                os.unlink(os.path.join(self._folder.name, name))

    def _ask(self, command: dict[str, Any]) -> Iterator[list[str]]:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(marshal.dumps(command))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        for line in self._process.stdout:
            words = line.decode("utf-8", "replace").rstrip("\n").split("\t")
            if words[0] == "done":
                return
            yield words
        raise self._ended()

    def _ended(self) -> AnalyzeError:
        assert self._errors is not None
        self._errors.seek(0)
        said = self._errors.read()[-400:].decode("utf-8", "replace").strip().rpartition("\n")[2]
        return AnalyzeError(f"The process to run files from ended: {said or 'it was killed'}.")

    def _read(self, name: str) -> tuple[str | None, Observation]:
        path = os.path.join(self._folder.name, name)
        try:
            journal = Journal(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None, Observation()
        with contextlib.closing(journal):
            try:
                observed = Observation.from_journal(journal)
                failure = next((fields[0] for word, *fields in journal.records() if word == "ran"), None)
            except (ObservationError, ValueError, IndexError):  # the file wrote there itself
                return None, Observation()
        os.unlink(path) if name.startswith("run-") else None
        return failure, observed


def _end(process: subprocess.Popen[bytes]) -> None:
    """Gently first: each keeper ends what it has in its care."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process.stdout.close()


def _as_plain(piece: Piece, files: Sequence[Script]) -> dict[str, Any]:
    return {
        "imports": None if piece.imports is None else [tuple(key) for key in piece.imports],
        "files": [(file, files[file].path, files[file].root) for file in piece.files],
        "branches": [_as_plain(branch, files) for branch in piece.branches],
        "warm": piece.warm,
        "number": piece.number,
    }


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


def _analyze(runner: Runner, files: Sequence[Script], progress: Progress, share: bool, found: Analysis) -> None:
    progress(0, len(files), "preparing")
    found.loaded = runner.begin([file.path for file in files])
    sources = [_source(file.path) for file in files]
    lazy = [tuple(lazy_names(source)) if b"lazy" in source else () for source in sources]
    chosen: dict[int, tuple[Key, ...]] = dict.fromkeys(range(len(files)), ())
    if share and len(files) >= _SHARING_PAYS:
        chosen = _shared(runner, files, sources, progress)
    roots = pieces(chosen, 4 * runner.limits.jobs)
    above = number(roots)
    again: list[int] = list(range(len(files)))
    done = 0
    for file, result in runner.run(files, roots):
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
    runner: Runner, files: Sequence[Script], sources: Sequence[bytes], progress: Progress
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
        failure, seconds, _, observed = runner.nodes.get(at, ("it ended the process", 0.0, 0.0, Observation()))
        if not failure and not observed.threads:
            effects[key] = Effect(seconds, frozenset(module.name for module in observed.modules))
    return chains(begun, effects, _LEAST_SECONDS)


def _add(
    found: Analysis,
    file: Script,
    result: _Result,
    chain: Sequence[tuple[str, float, float, Observation]],
    lazy: tuple[str, ...],
) -> None:
    before = [module for node in chain for module in node[3].modules]
    modules = [*before, *result.observation.modules]
    seconds = result.seconds + sum(node[1] for node in chain)
    observed = Observation(
        modules, complete=result.failure == "", wall_seconds=seconds, threads=result.observation.threads
    )
    found.ledger.record(observed, file.path)
    # The innermost record of a file is what it is imported as; its name is nobody else's module.
    outcome, error = _outcome(result)
    own = {module.name: module.seconds for module in modules if module.error is None}
    found.runs[file.path] = FileRun(
        file.path,
        outcome,
        error,
        seconds,
        result.cpu + sum(node[2] for node in chain),
        sum(own.values()),
        sum(module.bytes for module in modules if module.error is None),
        len(own),
        len(before),
        lazy,
    )


def _outcome(result: _Result) -> tuple[str, str]:
    tail = result.tail.strip().rpartition("  ")[2].strip()
    if result.late:
        return "timed out", f"not done after {result.seconds:.0f} s"
    if result.failure is not None:
        return ("failed", result.failure) if result.failure else ("ok", "")
    if os.WIFSIGNALED(result.status):
        name = signal.Signals(os.WTERMSIG(result.status)).name
        return "killed", f"{name}: {tail}" if tail else name
    return "failed", f"it ended its process with {os.WEXITSTATUS(result.status)}" + (f": {tail}" if tail else "")


def verify(runner: Runner, files: Sequence[Script], modules: Iterable[str], progress: Progress) -> list[Pair]:
    """Run these files twice each: plainly, and in children of a parent with frostfork that has these modules."""
    warm = Piece([Key(module) for module in modules], files=list(range(len(files))), warm=True, number=0)
    plain: dict[int, float] = {}
    warmed: dict[int, float] = {}
    roots = [*(Piece(files=[file]) for file in range(len(files)))]
    for into, pieces_ in ((plain, roots), (warmed, [warm])):
        for file, result in runner.run(files, pieces_):
            into[file] = result.cpu
            progress(len(plain) + len(warmed), 2 * len(files), "verifying the estimate")
    return [Pair(files[file].path, plain[file], warmed[file]) for file in sorted(plain.keys() & warmed.keys())]


__all__ = ["AnalyzeError", "Analysis", "FileRun", "Limits", "Pair", "Runner", "Script", "analyze", "verify"]
