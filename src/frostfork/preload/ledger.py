# SPDX-License-Identifier: Apache-2.0
"""The memory of the loop: what children imported and ran, added up.

All sums are the same in whatever order the observations came: seconds are whole multiples of 15 ns, so that adding
them rounds nothing, and of names too many to keep the first in the alphabet stay.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from frostfork import _settings
from frostfork.preload._bits import SourceBits

if TYPE_CHECKING:
    from frostfork.observe import ModuleImport, Observation

_TICKS = 2**26  # in a second; four years of them add up without rounding
_MOST_SECONDS = 1e7  # what one child may claim
_MOST_BYTES = 2**50

MAX_IMPORTERS = 16  # as many as a set holds in 700 bytes
MAX_ORIGINS = 32
NOWHERE = "?"  # what observe() calls the origin of something that is no module


@dataclass(slots=True)
class ModuleRecord:
    """What is known of one module, summed over all children.

    A child counts once, however often it imported the module. Seconds and bytes are the module's own, the cumulative
    ones with all that it imported in turn; bytes are those of ModuleImport. A child whose parent has the module does
    not import it, so neither counts nor moves last_seen.
    """

    name: str
    children: int = 0  # that imported it without error
    failures: int = 0  # children in which its import failed
    threads: int = 0  # children in which the import left a thread running
    last_error: str | None = None
    seconds: float = 0.0
    cumulative: float = 0.0
    bytes: int = 0
    cumulative_bytes: int = 0
    first_seen: float = 0.0  # seconds since the epoch
    last_seen: float = 0.0
    # Files it came from. Of more than MAX_ORIGINS the first, and NOWHERE, which belongs to no distribution.
    origins: set[str] = field(default_factory=set)
    # Modules that imported it, the first MAX_IMPORTERS; of a package not its own parts.
    importers: set[str] = field(default_factory=set)
    source_bits: int = 0  # the ledger's, which knows the names: see Ledger.sources_of

    @property
    def files(self) -> int:
        """How many source files' children imported it. Children of no named source count in none."""
        return self.source_bits.bit_count()


@dataclass(slots=True)
class SourceRecord:
    """What is known of one source, such as a DAG file, summed over its children."""

    path: str
    children: int = 0
    failures: int = 0  # children that ended before their observation did: killed, crashed, exited
    seconds: float = 0.0  # wall time of the others
    import_seconds: float = 0.0
    bytes: int = 0  # private growth across all imports
    last_seen: float = 0.0  # seconds since the epoch


class Ledger:
    """Observations added up by module and by source.

    children: observations in all.
    hot_code: what children ran, by file, first line and qualified name: in how many of them.
    """

    def __init__(self) -> None:
        self._modules: dict[str, ModuleRecord] = {}
        self._sources: dict[str, SourceRecord] = {}
        self._bits = SourceBits()
        self.children = 0
        self.hot_code: dict[tuple[str, int, str], int] = {}

    def record(
        self, observation: Observation, source: str | None = None, *, now: float | None = None
    ) -> list[ModuleRecord]:
        """Add one child's observation; returns the records it touched, in the order in which it began to import.

        source: what the child ran, such as the path of a DAG file. now: seconds since the epoch, if not this moment.
        """
        _settings.instance("source", source, str, or_none=True)
        moment = time.time() if now is None else now
        self.children += 1
        for code in observation.hot_code:
            self.hot_code[code] = self.hot_code.get(code, 0) + 1
        threads = set(observation.threads)
        importers = {module.name: module.importer for module in observation.modules}
        touched: dict[str, ModuleRecord] = {}
        good: set[str] = set()
        bad: set[str] = set()
        bit = 0 if source is None else self._bits.bit(source)
        for module in observation.modules:
            name = module.name
            record = self._modules.get(name)
            if record is None:
                record = self._modules[name] = ModuleRecord(name, first_seen=moment, last_seen=moment)
            touched[name] = record
            record.first_seen = min(record.first_seen, moment)
            record.last_seen = max(record.last_seen, moment)
            if module.error is not None:
                record.last_error = module.error
                if name not in bad:
                    bad.add(name)
                    record.failures += 1
                continue
            if name not in good:
                good.add(name)
                record.children += 1
                record.threads += name in threads
            record.seconds += _seconds(module.seconds)
            record.cumulative += _seconds(module.cumulative)
            record.bytes += _bytes(module.bytes)
            record.cumulative_bytes += _bytes(module.cumulative_bytes)
            record.source_bits |= bit
            if module.origin is not None:
                _add_origins(record.origins, (module.origin,))
            importer = _importer(module, importers)
            if importer is not None and importer not in record.importers:
                known = self._modules.get(importer)  # its name is there already: no second string
                _add_importers(record.importers, (importer if known is None else known.name,))
        if source is not None:
            self._record_source(source, observation, moment)
        return list(touched.values())

    def _record_source(self, path: str, observation: Observation, moment: float) -> None:
        source = self._sources.get(path)
        if source is None:
            source = self._sources[path] = SourceRecord(path)
        source.children += 1
        source.last_seen = max(source.last_seen, moment)
        if not observation.complete:
            source.failures += 1
        elif observation.wall_seconds is not None:
            source.seconds += _seconds(observation.wall_seconds)
        source.import_seconds += sum([_seconds(module.seconds) for module in observation.modules])
        source.bytes += sum([_bytes(module.bytes) for module in observation.modules])

    def get(self, name: str) -> ModuleRecord | None:
        return self._modules.get(name)

    def __iter__(self) -> Iterator[ModuleRecord]:
        """All records, by name."""
        return iter([self._modules[name] for name in sorted(self._modules)])

    def __len__(self) -> int:
        return len(self._modules)

    @property
    def sources(self) -> Mapping[str, SourceRecord]:
        return MappingProxyType(self._sources)

    def sources_of(self, name: str) -> frozenset[str]:
        """The sources whose children imported the module; none for one that is unknown."""
        record = self._modules.get(name)
        return frozenset() if record is None else frozenset(self._bits.names(record.source_bits))

    def modules_of(self, source: str) -> frozenset[str]:
        """The modules that the children of this source imported without error."""
        if source not in self._sources:
            return frozenset()
        bit = self._bits.bit(source)
        return frozenset(name for name, record in self._modules.items() if record.source_bits & bit)

    def uses(self) -> dict[str, int]:
        """By module: how many children used it, as far as can be told.

        A child does not import what its parent has, so the records count such children no longer. Their sources do:
        what a source's children imported once, all of them are taken to use.
        """
        known: dict[int, int] = {}
        found = {}
        for name, record in self._modules.items():
            bits = record.source_bits
            if bits not in known:
                known[bits] = sum(self._sources[path].children for path in self._bits.names(bits))
            found[name] = max(record.children, known[bits]) if record.children else 0
        return found

    def merge(self, other: Ledger) -> None:
        """Add all that another ledger knows; that one stays as it is."""
        self.children += other.children
        for code, children in other.hot_code.items():
            self.hot_code[code] = self.hot_code.get(code, 0) + children
        for path, source in other._sources.items():
            mine = self._sources.setdefault(path, SourceRecord(path))
            mine.children += source.children
            mine.failures += source.failures
            mine.seconds += source.seconds
            mine.import_seconds += source.import_seconds
            mine.bytes += source.bytes
            mine.last_seen = max(mine.last_seen, source.last_seen)
        translated = self._bits.translator(other._bits)
        for name, record in other._modules.items():
            known = self._modules.get(name)
            if known is None:
                known = self._modules[name] = ModuleRecord(
                    name, first_seen=record.first_seen, last_seen=record.last_seen
                )
            if record.last_error is not None and (
                known.last_error is None
                or (record.last_seen, record.last_error) > (known.last_seen, known.last_error)
            ):
                known.last_error = record.last_error
            known.children += record.children
            known.failures += record.failures
            known.threads += record.threads
            known.seconds += record.seconds
            known.cumulative += record.cumulative
            known.bytes += record.bytes
            known.cumulative_bytes += record.cumulative_bytes
            known.first_seen = min(known.first_seen, record.first_seen)
            known.last_seen = max(known.last_seen, record.last_seen)
            _add_origins(known.origins, record.origins)
            _add_importers(known.importers, record.importers)
            known.source_bits |= translated(record.source_bits)

    def forget(self, before: float) -> list[str]:
        """Drop what was not seen since `before`, in seconds since the epoch. Returns the modules dropped, by name.

        Children do not import again what their parent has preloaded, so of a module its sources tell whether it is
        still used: it stays as long as one of them was seen, or else if it was seen itself.
        """
        old = {path for path, source in self._sources.items() if source.last_seen < before}
        mask = self._bits.drop(old)
        for path in old:
            del self._sources[path]
        forgotten = []
        for name, record in self._modules.items():
            record.source_bits &= ~mask
            if not record.source_bits and record.last_seen < before:
                forgotten.append(name)
        for name in forgotten:
            del self._modules[name]
        return sorted(forgotten)


def _seconds(measured: float) -> float:
    """To whole ticks; 0 for what no clock measured, such as not-a-number."""
    return round(measured * _TICKS) / _TICKS if 0 <= measured < _MOST_SECONDS else 0.0


def _bytes(measured: int) -> int:
    return measured if 0 <= measured < _MOST_BYTES else 0


def _importer(module: ModuleImport, importers: Mapping[str, str | None]) -> str | None:
    """Who wanted this module. `import a.b` begins a.b, which begins a: a is wanted by whoever wanted a.b."""
    importer = module.importer
    below = f"{module.name}."
    for _ in range(64):  # a damaged journal could lead in a circle
        if importer is None or not importer.startswith(below):
            return importer
        importer = importers.get(importer)
    return None


def _add_importers(names: set[str], more: set[str] | tuple[str, ...]) -> None:
    names.update(more)
    if len(names) > MAX_IMPORTERS:
        names.difference_update(sorted(names)[MAX_IMPORTERS:])


def _add_origins(origins: set[str], more: set[str] | tuple[str, ...]) -> None:
    origins.update(more)
    if len(origins) > MAX_ORIGINS:
        places = sorted(origins - {NOWHERE})
        if len(places) > MAX_ORIGINS:
            origins.difference_update(places[MAX_ORIGINS:])
            origins.add(NOWHERE)
