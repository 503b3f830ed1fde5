# SPDX-License-Identifier: Apache-2.0
"""Owns the process that files are run from (frostfork._template), and speaks with it."""

from __future__ import annotations

import contextlib
import marshal
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

from frostfork import _core
from frostfork.beginnings import Piece
from frostfork.errors import FrostforkError, ObservationError
from frostfork.journal import Journal
from frostfork.observe import Observation

_START = r"""
import sys, _frozen_importlib as importlib, _frozen_importlib_external as files
def load(name, path):
    spec = files.spec_from_file_location(name, path)
    module = importlib._load(spec)
    return module
core = load("frostfork._core", sys.argv[2])
parts = [load(f"frostfork.{name}", f"{sys.argv[3]}/{name}.py") for name in ("_template", "_attendant", "_script")]
parts[0].main(core, *parts[1:])
"""


class AnalyzeError(FrostforkError):
    """Nothing could be analyzed; the message is one sentence."""


class Script(NamedTuple):
    """A file, and the folder that it belongs to."""

    path: str
    root: str


@dataclass(frozen=True)
class Limits:
    """seconds, bytes: of one file. jobs: files at a time."""

    seconds: float = 60.0
    bytes: int = 4 << 30
    jobs: int = 2


class Result(NamedTuple):
    """One file's run, as its keeper told it."""

    status: int
    late: bool
    seconds: float
    cpu: float
    peak: int
    tail: str
    failure: str | None  # None: it did not come to its end
    observation: Observation


class Node(NamedTuple):
    """What was imported for several files. failure: why none of them ran there."""

    failure: str
    seconds: float
    cpu_seconds: float
    observation: Observation


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
        self.nodes: dict[int, Node] = {}

    def __enter__(self) -> Runner:
        assert _core.__file__ is not None
        self._errors = open(os.path.join(self._folder.name, "errors"), "w+b")
        words = [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", _START]  # type: ignore[attr-defined]
        self._process = subprocess.Popen(
            [*words, self._folder.name, _core.__file__, os.path.dirname(__file__)],
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

    def run(self, files: Sequence[Script], roots: Sequence[Piece]) -> Iterator[tuple[int, Result]]:
        """Run these pieces; gives each file's place in `files` with its result, in the order in which they end."""
        self.nodes.clear()
        tree = [_as_plain(piece, files) for piece in roots]
        for line in self._ask({"do": "run", "pieces": tree, "jobs": self.limits.jobs}):
            if line[0] == "node":
                _, observed = self._read(f"node-{line[1]}")
                self.nodes[int(line[1])] = Node(line[2], float(line[3]), float(line[4]), observed)
            elif line[0] == "run":
                failure, observed = self._read(f"run-{line[1]}")
                status, late, seconds, cpu, peak = line[2:7]
                yield (
                    int(line[1]),
                    Result(
                        int(status),
                        late == "1",
                        float(seconds),
                        float(cpu),
                        int(peak),
                        line[7],
                        failure,
                        observed,
                    ),
                )
        for name in os.listdir(self._folder.name):
            if name.startswith(("node-", "run-")):
                os.unlink(os.path.join(self._folder.name, name))

    def _ask(self, command: dict[str, Any]) -> Iterator[list[str]]:
        assert (
            self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        )
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
