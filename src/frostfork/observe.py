# SPDX-License-Identifier: Apache-2.0
"""What one child used: the modules it imported, its time, its pages."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from frostfork import _core
from frostfork.errors import BaselineError, ObservationError
from frostfork.fork import child_baseline
from frostfork.journal import Journal
from frostfork.pages import Change, CopyReport, PageCounts, page_counts

if TYPE_CHECKING:
    from types import TracebackType

_FORMAT = 1

CodeName = tuple[str, int, str]  # file name, first line, qualified name


class ModuleImport(NamedTuple):
    """One import that did work. `seconds` and `bytes` are its own, the cumulative ones with all that it imported.

    bytes: by which the private memory of the process grew meanwhile, other threads included; an estimate from cheap
    counters, 0 where more was given back than taken or nothing is known.
    importer: the module during whose import this one began, by an import statement in it or because this one is the
    package above it; None for what the program itself imported.
    """

    name: str
    origin: str | None  # file, "built-in", "frozen", or None for a namespace package and the like
    started: float  # on the monotonic clock, for the order
    seconds: float
    cumulative: float
    error: str | None  # type of the exception that ended it
    bytes: int = 0
    cumulative_bytes: int = 0
    importer: str | None = None


class Observation:
    """What a child used between the beginning and the end of `observe()`.

    modules: imports that did work, in the order in which they began.
    threads: names of the modules whose import left a thread running.
    hot_code: what ran, if that was asked for, in the order of first runs: file name, first line, qualified name.
    complete: False if the child ended before its observation did; then only the modules are known.
    lost: imports that could not be written down.
    pages, copies: at the end; None where /proc refuses, where the child was forked without a baseline, or unasked.
    """

    # Not a dataclass: importing dataclasses would take as long as importing all else that this needs.
    def __init__(
        self,
        modules: list[ModuleImport] | None = None,
        *,
        complete: bool = False,
        wall_seconds: float | None = None,
        cpu_seconds: float | None = None,
        lost: int = 0,
        pages: PageCounts | None = None,
        copies: CopyReport | None = None,
        threads: list[str] | None = None,
        hot_code: list[CodeName] | None = None,
    ) -> None:
        self.modules: list[ModuleImport] = [] if modules is None else modules
        self.complete = complete
        self.wall_seconds = wall_seconds
        self.cpu_seconds = cpu_seconds
        self.lost = lost
        self.pages = pages
        self.copies = copies
        self.threads: list[str] = [] if threads is None else threads
        self.hot_code: list[CodeName] = [] if hot_code is None else hot_code

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if isinstance(other, Observation) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it fills while it is observed

    def __repr__(self) -> str:
        return (
            f"<Observation of {len(self.modules)} imports, {'complete' if self.complete else 'incomplete'}>"
        )

    def to_json(self) -> bytes:
        """The observation as UTF-8 JSON, for from_json of the same or a later version."""
        import json

        modules = [module._asdict() for module in self.modules]
        return json.dumps(
            {
                "format": _FORMAT,
                **measured(self),
                "modules": modules,
                "threads": self.threads,
                "hot_code": self.hot_code,
                "complete": self.complete,
            }
        ).encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> Observation:
        """The inverse of to_json. Raises ObservationError for anything else."""
        import json

        try:
            values = json.loads(data)
            if values.pop("format") != _FORMAT:
                raise ValueError("another format")
            modules = [ModuleImport(**module) for module in values.pop("modules")]
            code = [(str(file), int(line), str(name)) for file, line, name in values.pop("hot_code", [])]
            return cls(modules, hot_code=code, **_restored(values))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ObservationError(f"this is not an observation: {error}") from error

    @classmethod
    def from_journal(cls, journal: Journal, *, skip: int = 0) -> Observation:
        """What a child has written down so far, ended or not. skip: so many imports were read before."""
        import json

        seen = cls()
        for word, *fields in journal.records():
            if word == "import":
                if skip:
                    skip -= 1
                    continue
                name, origin, start, own, cumulative, error, grown, all_grown, importer = fields
                times = (int(start) / 1e9, int(own) / 1e9, int(cumulative) / 1e9)
                growth = (int(grown), int(all_grown))
                seen.modules.append(
                    ModuleImport(name, origin or None, *times, error or None, *growth, importer or None)
                )
            elif word == "thread":
                seen.threads.append(fields[0])
            elif word == "code":
                seen.hot_code = _code_from(fields[0])
            elif word == "end":
                try:
                    measured = _restored(json.loads(fields[0]))
                except (ValueError, TypeError, KeyError) as error:
                    raise ObservationError(f"this journal is damaged: {error}") from error
                seen = cls(
                    seen.modules, **measured, threads=seen.threads, hot_code=seen.hot_code, complete=True
                )
        seen.modules.sort(key=lambda module: module.started)
        return seen


def _code_from(record: str) -> list[CodeName]:
    """Read what code_stop() wrote (csrc/py/hot.h says how). An entry that makes no sense is left out."""
    found: list[CodeName] = []
    file = ""
    for entry in record.split("\x1e"):
        match entry.split("\x1f"):
            case [name, line, function] if line.isdecimal():
                file = name or file
                found.append((file, int(line), function))
    return found


def measured(seen: Observation) -> dict[str, Any]:
    """All but modules and completeness, as JSON takes it: objects by the names of their fields."""
    values: dict[str, Any] = {
        name: getattr(seen, name) for name in ("wall_seconds", "cpu_seconds", "lost", "pages", "copies")
    }
    if seen.pages is not None:
        values["pages"] = seen.pages._asdict()
    if seen.copies is not None:
        kinds = {kind: change._asdict() for kind, change in seen.copies.by_kind.items()}
        values["copies"] = {**seen.copies._asdict(), "by_kind": kinds}
    return values


def _restored(values: dict[str, Any]) -> dict[str, Any]:
    """The inverse of measured."""
    pages, copies = values["pages"], values["copies"]
    if copies is not None:
        kinds = {kind: Change(**change) for kind, change in copies["by_kind"].items()}
        copies = CopyReport(**{**copies, "by_kind": kinds})
    return {**values, "pages": None if pages is None else PageCounts(**pages), "copies": copies}


class observe:  # noqa: N801 - used like a function: `with observe() as seen:`
    """Observe this process until the end of the `with` block.

    The target is an Observation that fills when the block ends. With a `journal` the same is written there as it
    happens, for a parent that holds the other end. Only one observation at a time: RuntimeError otherwise.

    pages=False leaves the pages uncounted, which at 10 ns each cost a large child some milliseconds. code=True notes
    which code runs as well, for warmup; where a profiler is in the way that is left out.
    """

    def __init__(self, journal: Journal | None = None, *, pages: bool = True, code: bool = False) -> None:
        if journal is not None and not isinstance(journal, Journal):
            raise TypeError(f"journal must be of type Journal or None, not {journal!r}")
        self._own = journal is None
        self._pages = pages
        self._code = code
        self._journal = Journal() if journal is None else journal
        self._seen = Observation()

    def __enter__(self) -> Observation:
        self._wall, self._cpu = time.monotonic(), time.process_time()
        _core.imports_start(self._journal.fileno())
        if self._code:
            try:
                _core.code_start()
            except (RuntimeError, ValueError):  # another tool has the place
                self._code = False
        return self._seen

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        hot_code = _core.code_stop() if self._code else b""
        seen = Observation(
            lost=_core.imports_stop(),
            wall_seconds=time.monotonic() - self._wall,
            cpu_seconds=time.process_time() - self._cpu,
            copies=_copies() if self._pages else None,
            pages=_pages() if self._pages else None,
        )
        import json

        try:
            if hot_code:
                self._journal.write("code", hot_code)
            self._journal.write("end", json.dumps(measured(seen)))
        except (OSError, ValueError):
            # User code closed it, or gave a function a name that cannot be written: the parent will see an incomplete
            # observation.
            pass
        if self._own:
            self._seen.__dict__.update(Observation.from_journal(self._journal).__dict__)
            self._journal.close()


class watch_code:  # noqa: N801 - used like a function
    """Note which code this process runs, between start() and finish(), for the ledger of a warmup.

    For a parent whose own work copies pages away from its children. A child that is forked meanwhile goes on noting,
    for nobody, until it calls finish() too.
    """

    def start(self) -> bool:
        """False where another tool has the place."""
        try:
            _core.code_start()
        except (RuntimeError, ValueError):
            return False
        return True

    def finish(self) -> list[CodeName]:
        """What ran, in the order of first runs."""
        return _code_from(_core.code_stop().decode("utf-8", "surrogateescape"))

    def write(self, journal: Journal) -> None:
        """finish() into a journal, as observe(journal, code=True) does at its end. Errors are Journal.write's."""
        if record := _core.code_stop():
            journal.write("code", record)


def _pages() -> PageCounts | None:
    try:
        return page_counts()
    except OSError:
        return None


def _copies() -> CopyReport | None:
    try:
        return child_baseline().compare()
    except (BaselineError, OSError):
        return None
