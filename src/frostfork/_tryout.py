# SPDX-License-Identifier: Apache-2.0
"""What a canary does: import one module after the other, and write down what each has done to the process.

An import is followed down to all that it imports in turn, so that an effect, a crash or a hang is put down to the
module whose own code it was, and to those that were importing it. The first effect that is not tolerated ends the
canary: what came later would be seen in a process that is no longer like the parent. The keeper starts another one.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, NoReturn

from frostfork import fingerprint
from frostfork._import_guard import ForbiddenImport, ImportGuard, described, drop_orphans
from frostfork._records import encode
from frostfork.journal import Journal
from frostfork.preload.verdict import Finding, Verdict

_exit = os._exit  # bound once: a module may put something in its place

# Said to a keeper that finds the journal closed.
LOST_JOURNAL = 86
_MOST_FINDINGS = 8  # of one kind, by one module
_LONGEST_DETAIL = 300


class Conditions(NamedTuple):
    """What is asked of every canary of a trial. tolerates: whether an effect of a module is no reason to stop."""

    deny: tuple[str, ...]
    local_names: frozenset[str]
    tolerates: Callable[[str, Finding], bool]
    unsafe_libraries: tuple[tuple[str, str], ...]
    around: Callable[[], AbstractContextManager[None]]


class _Import(NamedTuple):
    """One that has begun."""

    name: str
    started: float
    before: list[Any]


class Tryout:
    """One canary's work. refused: what earlier ones found, which nothing may import any more."""

    def __init__(
        self, journal: Journal, conditions: Conditions, refused: Mapping[str, tuple[Finding, ...]]
    ) -> None:
        self._journal = journal
        self._conditions = conditions
        self._refused = refused
        self._main = threading.get_ident()
        self._importlib: Any = sys.modules["_frozen_importlib"]
        self._original = self._importlib._find_and_load
        self._stack: list[_Import] = []
        self._blamed: dict[fingerprint.Effect, str] = {}  # within the present module that was asked for
        self._brought: list[Verdict] = []  # what it brought along
        fingerprint.watch_registrations()
        self._deep = fingerprint.deep_probes(conditions.unsafe_libraries)

    def run(self, names: Iterable[str]) -> NoReturn:
        """Import them in this order. Ends the process, whatever happens."""
        self._importlib._find_and_load = self._find_and_load
        wanted = set(names)
        deep = fingerprint.take(self._deep)
        for name in names:
            if name in wanted and name not in sys.modules:
                deep = self._try(name, deep, wanted)
            elif name in wanted:
                self._say(Verdict(name))  # it came without an import, as os.path does
            wanted.discard(name)
        self._write("done", "")
        _exit(0)

    def _try(self, name: str, deep: list[Any], wanted: set[str]) -> list[Any]:
        self._write("try", name)
        self._blamed.clear()
        self._brought.clear()
        start, memory, known = time.monotonic(), private_bytes(), len(sys.modules)
        quick = fingerprint.take(fingerprint.QUICK)
        ended = self._import(name)
        drop_orphans(known)
        # Once more, outside the import: the name may be a module that is imported in no way that can be followed.
        found = self._effects(name, fingerprint.QUICK, quick, fingerprint.take(fingerprint.QUICK))
        after = fingerprint.take(self._deep)
        thorough = self._effects(name, self._deep, deep, after)
        findings = (*ended, *found, *thorough)
        verdict = Verdict(
            name, _shortened(findings), time.monotonic() - start, max(0, private_bytes() - memory)
        )
        self._say(verdict)
        if not all(self._tolerated(name, finding) for finding in (*found, *thorough)):
            self._stop()
        if not thorough:  # else it may be any of these that did it: they will be tried by themselves
            for along in self._brought:
                if along.module in wanted and along.module in sys.modules:
                    self._say(along)
                    wanted.discard(along.module)
        return after

    def _import(self, name: str) -> tuple[Finding, ...]:
        """How it ended, if not well."""
        guard = _Guard((*self._conditions.deny, *self._refused), self._conditions.local_names)
        try:
            with self._conditions.around(), guard:
                importlib.import_module(name)
        except ForbiddenImport as error:
            guard.refused = guard.refused or error
        except SystemExit as error:
            return (Finding("exited", f"raised {described(error)}", name),)
        except MemoryError as error:
            return (Finding("memory", f"raised {described(error)}", name),)
        except BaseException as error:
            return (Finding("raised", f"raised {described(error)}", name),)
        finally:
            self._stack.clear()
        if guard.refused is None:
            return ()
        known = [refused for refused in self._refused if _lies_in(guard.refused.module, refused)]
        if known:
            return self._refused[max(known, key=len)]
        return (Finding("denied", f"would import {guard.refused}", guard.refused.module),)

    def _find_and_load(self, name: str, import_: Any) -> Any:
        """Stands in the place of importlib's, as observe() does in C, but a frame in tracebacks is no harm here."""
        if threading.get_ident() != self._main:
            return self._original(name, import_)
        self._write("begin", name)
        depth = len(self._stack)
        self._stack.append(_Import(name, time.monotonic(), fingerprint.take(fingerprint.QUICK)))
        try:
            return self._original(name, import_)
        finally:
            del self._stack[depth + 1 :]
            self._ended()

    def _ended(self) -> None:
        present = self._stack[-1]
        after = fingerprint.take(fingerprint.QUICK)
        found = self._effects(present.name, fingerprint.QUICK, present.before, after)
        if not all(self._tolerated(present.name, finding) for finding in found):
            # For each that was importing it, this is what its own import does.
            now = time.monotonic()
            for each in reversed(self._stack):
                self._say(Verdict(each.name, _shortened(found), now - each.started))
            self._stop()
        self._brought.append(Verdict(present.name, _shortened(found), time.monotonic() - present.started))
        self._stack.pop()
        self._write("end", present.name)

    def _effects(
        self, module: str, probes: tuple[fingerprint.Probe, ...], before: list[Any], after: list[Any]
    ) -> tuple[Finding, ...]:
        effects = fingerprint.compare(probes, before, after)
        return tuple(
            Finding(kind, detail, self._blamed.setdefault((kind, detail), module)) for kind, detail in effects
        )

    def _tolerated(self, module: str, finding: Finding) -> bool:
        return self._conditions.tolerates(module, finding)

    def _say(self, verdict: Verdict) -> None:
        self._write("verdict", encode(verdict))

    def _stop(self) -> NoReturn:
        self._write("done", "")
        _exit(0)

    def _write(self, word: str, text: str) -> None:
        try:
            self._journal.write(word, text.replace("\0", ""))
        except OSError:
            _exit(LOST_JOURNAL)


class _Guard(ImportGuard):
    """Remembers what it refused: a module may catch everything."""

    refused: ForbiddenImport | None = None

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        try:
            super().find_spec(name, path, target)
        except ForbiddenImport as error:
            self.refused = self.refused or error
            raise


def _lies_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _shortened(findings: Collection[Finding]) -> tuple[Finding, ...]:
    """A hundred threads of one pool say no more than eight do."""
    kept: list[Finding] = []
    counts: dict[tuple[str, str], int] = {}
    for finding in dict.fromkeys(findings):
        key = finding.kind, finding.module
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= _MOST_FINDINGS:
            kept.append(finding._replace(detail=finding.detail[:_LONGEST_DETAIL]))
    return tuple(kept)


def private_bytes(pid: int | str = "self") -> int:
    """Anonymous memory that is resident, whether shared with a forked process or not; 0 for a process that ended."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
