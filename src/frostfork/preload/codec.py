# SPDX-License-Identifier: Apache-2.0
"""A ledger as bytes, and back: lines of JSON under a header with a checksum.

    {"frostfork ledger": 1, "children": 3, "sources": 1, "modules": 1, "crc32": 123456789}
    ["/dags/a.py", 3, 0, 1.5, 1.25, 4096, 1760000000.0]
    ["json", 3, 0, 0, null, 0.25, 0.5, 2048, 4096, 1760000000.0, 1760000000.0, ["/lib/json/__init__.py"], [], "1"]

The last field of a module is its set of sources, in hexadecimal, one bit for each in the order of their lines. Equal
ledgers have equal bytes. hot_code is left out: its line numbers change with each upgrade, and children show it again
in the first parses.

The reader takes nothing for granted, since a file may be cut off, damaged, or written by someone else: each field's
type and range is checked, line by line, so that what does not fit is never held in memory as a whole. The checksum
finds damage, not malice; see ledger_file for whom a file is taken from.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

from frostfork.errors import LedgerError
from frostfork.preload.ledger import MAX_IMPORTERS, MAX_ORIGINS, Ledger, ModuleRecord, SourceRecord

FORMAT = 1
MAX_BYTES = 64 << 20

_MAGIC = "frostfork ledger"
_MAX_LINE = 4 << 20
_MAX_TEXT = 8192
_MAX_RECORDS = 1_000_000
_MAX_COUNT = 2**63 - 1
_MAX_SECONDS = 1e15
_HEADER = {_MAGIC, "children", "sources", "modules", "crc32"}
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)
_HEXADECIMAL = re.compile("[0-9a-f]+")


def to_bytes(ledger: Ledger) -> bytes:
    """All that the ledger knows but hot_code. Raises LedgerError for one of more than 64 MB.

    Left out are records with a name that is empty or longer than 8192 characters.
    """
    paths = [path for path in sorted(ledger.sources) if _fits(path)]
    bits = {path: 1 << position for position, path in enumerate(paths)}
    lines = [_source_line(ledger.sources[path]) for path in paths]
    sets: dict[int, str] = {}  # modules that are imported together have the same
    modules = 0
    for record in ledger:
        if record.source_bits not in sets:
            found = sum(bits.get(path, 0) for path in ledger.sources_of(record.name))
            sets[record.source_bits] = f"{found:x}"
        if _fits(record.name, *record.origins, *record.importers):
            lines.append(_module_line(record, sets[record.source_bits]))
            modules += 1
    body = b"".join(lines)
    header = {
        _MAGIC: FORMAT,
        "children": _count(ledger.children),
        "sources": len(paths),
        "modules": modules,
        "crc32": zlib.crc32(body),
    }
    if len(body) > MAX_BYTES - 1000 or len(paths) + modules > _MAX_RECORDS:
        raise LedgerError(
            f"this ledger has {len(body)} bytes in {len(paths) + modules} lines, too many to write"
        )
    return _line(header) + body


def from_bytes(data: bytes) -> Ledger:
    """The inverse of to_bytes. Raises LedgerError for anything else."""
    if len(data) > MAX_BYTES:
        raise LedgerError(f"this ledger has {len(data)} bytes, more than {MAX_BYTES} can be")
    end = data.find(b"\n", 0, _MAX_LINE)
    header = _parsed(data[: end + 1], "header")
    if not isinstance(header, dict) or _MAGIC not in header:
        raise LedgerError("this is no ledger of frostfork")
    if header[_MAGIC] != FORMAT or type(header[_MAGIC]) is not int:
        raise LedgerError(f"this ledger has another format than {FORMAT}, the one that is known here")
    if header.keys() != _HEADER:
        raise LedgerError("the header of this ledger has other fields than it must have")
    sources = _whole(header["sources"], _MAX_RECORDS)
    modules = _whole(header["modules"], _MAX_RECORDS)
    if zlib.crc32(memoryview(data)[end + 1 :]) != header["crc32"]:
        raise LedgerError("this ledger is damaged: its checksum is another")
    if data.count(b"\n", end + 1) != sources + modules or not data.endswith(b"\n"):
        raise LedgerError("this ledger has more or fewer lines than its header says")

    ledger = Ledger()
    ledger.children = _whole(header["children"])
    at = end + 1
    for number in range(sources + modules):
        end = data.index(b"\n", at)
        what = f"line {number + 2}"
        if end - at > _MAX_LINE:
            raise LedgerError(f"{what} of this ledger is too long")
        fields = _parsed(data[at:end], what)
        at = end + 1
        try:
            if number < sources:
                _add_source(ledger, fields)
            else:
                _add_module(ledger, fields, sources)
        except LedgerError as error:
            raise LedgerError(f"{what} of this ledger is wrong: {error}") from None
    return ledger


def _source_line(source: SourceRecord) -> bytes:
    return _line(
        [
            source.path,
            _count(source.children),
            _count(source.failures),
            _time(source.seconds),
            _time(source.import_seconds),
            _count(source.bytes),
            _time(source.last_seen),
        ]
    )


def _add_source(ledger: Ledger, fields: Any) -> None:
    path, children, failures, seconds, import_seconds, grown, last_seen = _row(fields, 7)
    source = SourceRecord(
        _text(path),
        children=_whole(children),
        failures=_whole(failures),
        seconds=_number(seconds),
        import_seconds=_number(import_seconds),
        bytes=_whole(grown),
        last_seen=_number(last_seen),
    )
    if source.path in ledger._sources:
        raise LedgerError("a source comes twice")
    ledger._sources[source.path] = source
    ledger._bits.bit(source.path)  # in order, so that the bits of the lines below are those of this ledger


def _module_line(record: ModuleRecord, bits: str) -> bytes:
    return _line(
        [
            record.name,
            _count(record.children),
            _count(record.failures),
            _count(record.threads),
            record.last_error[:_MAX_TEXT] if record.last_error else None,
            _time(record.seconds),
            _time(record.cumulative),
            _count(record.bytes),
            _count(record.cumulative_bytes),
            _time(record.first_seen),
            _time(record.last_seen),
            sorted(record.origins),
            sorted(record.importers),
            bits,
        ]
    )


def _add_module(ledger: Ledger, fields: Any, sources: int) -> None:
    name, children, failures, threads, error, own, total, *rest = _row(fields, 14)
    grown, all_grown, first, last, origins, importers, bits = rest
    record = ModuleRecord(
        _text(name),
        children=_whole(children),
        failures=_whole(failures),
        threads=_whole(threads),
        last_error=None if error is None else _text(error),
        seconds=_number(own),
        cumulative=_number(total),
        bytes=_whole(grown),
        cumulative_bytes=_whole(all_grown),
        first_seen=_number(first),
        last_seen=_number(last),
        origins=_texts(origins, MAX_ORIGINS + 1),
        importers=_texts(importers, MAX_IMPORTERS),
    )
    if type(bits) is not str or not _HEXADECIMAL.fullmatch(bits):
        raise LedgerError("a set of sources is no hexadecimal number")
    record.source_bits = int(bits, 16)
    if record.source_bits >> sources:
        raise LedgerError("a set of sources names more than there are")
    if record.name in ledger._modules:
        raise LedgerError("a module comes twice")
    ledger._modules[record.name] = record


def _line(value: Any) -> bytes:
    return _ENCODER.encode(value).encode() + b"\n"


def _parsed(line: bytes, what: str) -> Any:
    try:
        return json.loads(line)
    # Not-a-number and infinity are read here and refused by the ranges.
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"{what} of this ledger cannot be read: {error}") from error


def _fits(*names: str) -> bool:
    return all(0 < len(name) <= _MAX_TEXT for name in names)


def _count(number: int) -> int:
    return min(max(number, 0), _MAX_COUNT)


def _time(seconds: float) -> float:
    return seconds if 0 <= seconds <= _MAX_SECONDS else 0.0


def _row(fields: Any, length: int) -> list[Any]:
    if type(fields) is not list or len(fields) != length:
        raise LedgerError(f"it is no list of {length} fields")
    return fields


def _whole(value: Any, most: int = _MAX_COUNT) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise LedgerError(f"a number is not whole or not from 0 to {most}")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= _MAX_SECONDS:
        raise LedgerError("a time is no number of seconds")
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str or not 0 < len(value) <= _MAX_TEXT:
        raise LedgerError("a name is no text, or too long")
    return value


def _texts(value: Any, most: int) -> set[str]:
    if type(value) is not list or len(value) > most:
        raise LedgerError(f"it is no list of up to {most} names")
    return {_text(each) for each in value}
