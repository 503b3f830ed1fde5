# SPDX-License-Identifier: Apache-2.0
"""Which of the pages that a child shared it has copied, and what in them it wrote.

A witness, a process forked for this, keeps the pages as they were; at the end every byte is compared, and each that
differs is looked up: which object, table, free block or library is it part of. Neither root nor any capability is
needed. What cannot be seen:

- the pages of a process that set PR_SET_DUMPABLE=0 before the blame began: the kernel then refuses an ordinary user
  even its own pagemap (PermissionError). Set later, it does no harm.
- what the parent wrote before the blame began, and pages that the process had already copied: they were not shared.
- pages of files that nobody had written yet, such as a library's data at its first write: they count as `new`.
- why a page without a changed byte was written. Nearly always a reference count went up and down again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from frostfork import _core
from frostfork.errors import ObservationError
from frostfork.pages import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

_FORMAT = 1

# In the order of enum ff_cause in csrc/py/blame.h.
CAUSES = {
    "reference counts": "counters of objects that were only used",
    "collector headers": "written by runs of the garbage collector",
    "code": "inline caches and counters of functions that ran",
    "versions": "of dicts, types and functions, given out when a use is specialized",
    "types": "bodies of types: caches, flags, subclasses",
    "tables": "what dicts, sets, lists and bytearrays hold",
    "object bodies": "fields of other objects",
    "new objects": "put into free memory of pages that were shared",
    "allocator": "free blocks and pool headers of Python's allocator",
    "malloc": "heap of C code, or freed again",
    "libraries": "data of the interpreter and of C libraries",
    "stack": "stacks and thread states",
    "other mappings": "private mappings of files",
    "unchanged": "written, and every byte is what it was: reference counts up and down",
    "unknown": "the original was not kept (MADV_DONTFORK)",
}


class Share(NamedTuple):
    """What one cause did.

    pages: unshared pages of which most changed bytes are its own; each page counts once. touched: pages that have some
    of it. alone: pages that have nothing else, and would still be shared without it. bytes: changed bytes.
    """

    pages: int
    touched: int
    alone: int
    bytes: int


class Owner(NamedTuple):
    """What was written of one type, code file or library, for one cause; `pages` have some of it."""

    cause: str
    name: str
    pages: int
    bytes: int


class BlameReport:
    """The unshared pages of one process, or of several added up, and what was written in them.

    causes: a Share for each of CAUSES. owners: most bytes first. by_kind: unshared pages by kind of mapping.
    new, dropped: pages beside those, as in CopyReport.
    floor: pages that the changed bytes would fill if they lay side by side: no arrangement copies fewer.
    complete: every live object could be found; otherwise some of them count as "malloc".
    """

    def __init__(
        self,
        causes: dict[str, Share] | None = None,
        owners: list[Owner] | None = None,
        by_kind: dict[str, int] | None = None,
        *,
        floor: int = 0,
        new: int = 0,
        dropped: int = 0,
        complete: bool = True,
        processes: int = 0,
    ) -> None:
        self.causes = {name: Share(0, 0, 0, 0) for name in CAUSES} if causes is None else causes
        self.owners: list[Owner] = [] if owners is None else owners
        self.by_kind: dict[str, int] = {} if by_kind is None else by_kind
        self.floor = floor
        self.new = new
        self.dropped = dropped
        self.complete = complete
        self.processes = processes

    @property
    def unshared(self) -> int:
        """Pages that were shared and are copied."""
        return sum(share.pages for share in self.causes.values())

    @property
    def changed_bytes(self) -> int:
        return sum(share.bytes for share in self.causes.values())

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if isinstance(other, BlameReport) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it fills when the blame ends

    def __repr__(self) -> str:
        return (
            f"<BlameReport of {self.processes} processes: {self.unshared} unshared pages, floor {self.floor}>"
        )

    def __str__(self) -> str:
        lines = [
            f"{self.unshared} unshared pages; {self.changed_bytes} bytes changed, which would fit in {self.floor}",
            f"{'cause':<18}{'pages':>8}{'alone':>8}{'bytes':>10}",
        ]
        lines += [
            f"{name:<18}{share.pages:>8}{share.alone:>8}{share.bytes:>10}"
            for name, share in self.causes.items()
            if share.touched
        ]
        return "\n".join(lines)

    def to_json(self) -> bytes:
        """The report as UTF-8 JSON, for from_json of the same or a later version."""
        import json

        values = {**self.__dict__, "format": _FORMAT}
        values["causes"] = {name: share._asdict() for name, share in self.causes.items()}
        values["owners"] = [owner._asdict() for owner in self.owners]
        return json.dumps(values).encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> BlameReport:
        """The inverse of to_json. Raises ObservationError for anything else."""
        import json

        try:
            values: dict[str, Any] = json.loads(data)
            if values.pop("format") != _FORMAT:
                raise ValueError("another format")
            if values.keys() != cls().__dict__.keys():
                raise ValueError("other fields")
            causes = {name: Share(**share) for name, share in values.pop("causes").items()}
            owners = [Owner(**owner) for owner in values.pop("owners")]
            _check(causes, owners, values)
            return cls({**cls().causes, **causes}, owners, **values)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ObservationError(f"this is not a blame report: {error}") from error

    @classmethod
    def total(cls, reports: Iterable[BlameReport]) -> BlameReport:
        """Several reports added up. The floor is the sum of theirs: processes do not share what they changed."""
        whole = cls()
        owners: dict[tuple[str, str], Owner] = {}
        for report in reports:
            for name, share in report.causes.items():
                whole.causes[name] = Share._make(map(sum, zip(whole.causes[name], share, strict=True)))
            for owner in report.owners:
                cause, name, pages, changed = owner
                had = owners.get((cause, name), Owner(cause, name, 0, 0))
                owners[cause, name] = Owner(cause, name, had.pages + pages, had.bytes + changed)
            for kind, count in report.by_kind.items():
                whole.by_kind[kind] = whole.by_kind.get(kind, 0) + count
            whole.floor += report.floor
            whole.new += report.new
            whole.dropped += report.dropped
            whole.complete &= report.complete
            whole.processes += report.processes
        whole.owners = _by_bytes(owners.values())
        return whole


class blame:  # noqa: N801 - used like a function: `with blame() as report:`
    """Judge this process until the end of the `with` block: which shared pages did it copy, and why.

    The target is a BlameReport that fills when the block ends. start() and finish() do the same without a block.
    It takes some milliseconds at the start, 30 ms for 100,000 objects at the end, and meanwhile a second
    process, which waitpid(-1) does not see. Raises OSError where the kernel refuses (PermissionError: see above), and
    ObservationError at the end if the witness was killed.
    """

    def __init__(self) -> None:
        self._witness = _core.WitnessHandle()
        self._report = BlameReport()

    def start(self) -> BlameReport:
        """Pages that are shared now and copied later are what is judged."""
        self._witness.start()
        return self._report

    def finish(self) -> BlameReport:
        """Compare, fill the report and return it. What is written from here on is not judged."""
        try:
            causes, owners, complete, kinds, dropped, new = self._witness.finish()
        except ProcessLookupError as error:
            raise ObservationError(
                "the process that kept the original pages is gone, or another process started it"
            ) from error
        report = self._report
        report.causes = {name: Share._make(sums) for name, sums in zip(CAUSES, causes, strict=True)}
        names = list(CAUSES)
        report.owners = _by_bytes(
            Owner(names[cause], _name(key), pages, changed) for cause, key, pages, changed in owners
        )
        report.by_kind = {name: count for name, count in zip(_core.KINDS, kinds, strict=True) if count}
        report.floor = -(-report.changed_bytes // PAGE_SIZE)
        report.new, report.dropped = new, dropped
        report.complete, report.processes = complete, 1
        return report

    def cancel(self) -> None:
        """End without a verdict."""
        self._witness.close()

    def __enter__(self) -> BlameReport:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.finish()
        except ObservationError:
            if error is None:
                raise


def _check(causes: dict[str, Share], owners: list[Owner], values: dict[str, Any]) -> None:
    """ValueError if a value of a report is not what it should be."""
    if unknown := ({*causes} | {owner.cause for owner in owners}) - CAUSES.keys():
        raise ValueError(f"{min(unknown)!r} is no cause")
    counts = [values[name] for name in ("floor", "new", "dropped", "processes")]
    counts += [*values["by_kind"].values(), *(count for share in causes.values() for count in share)]
    for _, name, pages, changed in owners:
        counts += [pages, changed]
        if not isinstance(name, str):
            raise ValueError(f"{name!r} is no name")
    for count in counts:
        if type(count) is not int or count < 0:
            raise ValueError(f"{count!r} is no count")
    if not isinstance(values["complete"], bool):
        raise ValueError(f"complete is {values['complete']!r}")


def _name(key: type | str) -> str:
    if isinstance(key, str):
        return key or "the program"
    # type's own way to the names: a metaclass may answer for them with code of its own.
    module, name = (type.__dict__[each].__get__(key) for each in ("__module__", "__qualname__"))
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else name


def _by_bytes(owners: Iterable[Owner]) -> list[Owner]:
    return sorted(owners, key=lambda owner: (-owner.bytes, owner.cause, owner.name))
