# SPDX-License-Identifier: Apache-2.0
"""The reader of ledgers: what it did not write is refused with a LedgerError, in bounded time and memory."""

from __future__ import annotations

import json
import os
import pickle
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostfork.errors import LedgerError
from frostfork.observe import ModuleImport, Observation
from frostfork.preload import Ledger
from frostfork.preload.codec import MAX_BYTES, from_bytes, to_bytes
from tests.unit.test_ledger import CHILDREN, ledger_of


def example() -> Ledger:
    ledger = Ledger()
    ledger.hot_code[("/lib/m.py", 1, "f")] = 3
    modules = [
        ModuleImport("pandas", "/lib/pandas/__init__.py", 1.0, 0.5, 0.75, None, 4096, 8192, None),
        ModuleImport("odd\udc80é", None, 1.5, 0.25, 0.25, None, 4096, 4096, "pandas"),
        ModuleImport("bad", None, 2.0, 0.5, 0.5, "ImportError", 0, 0, "pandas"),
    ]
    for path in ("/dags/b.py", "/dags/a.py"):
        ledger.record(
            Observation(modules, complete=True, wall_seconds=1.0, threads=["pandas"]), path, now=1e9
        )
    return ledger


EXAMPLE = to_bytes(example())


def assert_refused_or_whole(data: bytes) -> None:
    """Nothing but LedgerError, or a ledger that can be used and written."""
    try:
        ledger = from_bytes(data)
    except LedgerError as error:
        assert len(str(error)) < 500
        return
    to_bytes(ledger)
    ledger.merge(example())
    for record in ledger:
        ledger.sources_of(record.name)
    ledger.forget(5e8)


def test_all_but_hot_code_comes_back() -> None:
    back, ledger = from_bytes(EXAMPLE), example()
    assert back.hot_code == {}
    assert [(each.name, each.children, each.last_error, each.importers) for each in back] == [
        (each.name, each.children, each.last_error, each.importers) for each in ledger
    ]
    assert dict(back.sources) == dict(ledger.sources)
    assert back.modules_of("/dags/a.py") == {"pandas", "odd\udc80é"}
    assert back.children == 2
    assert to_bytes(back) == EXAMPLE
    assert to_bytes(from_bytes(to_bytes(Ledger()))) == to_bytes(Ledger())


@settings(max_examples=150, deadline=None)
@given(CHILDREN)
def test_whatever_was_recorded_comes_back(children) -> None:
    ledger = ledger_of(children)
    data = to_bytes(ledger)
    back = from_bytes(data)
    assert to_bytes(back) == data
    assert {record.name: back.sources_of(record.name) for record in back} == {
        record.name: ledger.sources_of(record.name) for record in ledger
    }


def test_sums_beyond_all_limits_are_written_as_the_largest() -> None:
    ledger = example()
    record = ledger.get("pandas")
    assert record is not None
    record.bytes, record.children, record.seconds, record.last_error = 2**200, 2**63, 1e300, "E" * 10**6
    ledger.record(Observation([ModuleImport("n" * 10_000, None, 0, 0, 0, None)]), "p" * 10_000)
    back = from_bytes(to_bytes(ledger))
    known = back.get("pandas")
    assert known is not None
    assert (known.bytes, known.children, known.seconds) == (2**63 - 1, 2**63 - 1, 0.0)
    assert set(back.sources) == {"/dags/a.py", "/dags/b.py"}
    assert back.get("n" * 10_000) is None
    assert back.sources_of("pandas") == {"/dags/a.py", "/dags/b.py"}


@settings(max_examples=500, deadline=1000)
@given(st.binary(max_size=2000))
def test_random_bytes(data: bytes) -> None:
    assert_refused_or_whole(data)


def test_cut_off_anywhere() -> None:
    for length in range(len(EXAMPLE)):
        with pytest.raises(LedgerError):
            from_bytes(EXAMPLE[:length])
    with pytest.raises(LedgerError):
        from_bytes(EXAMPLE + b"\n")


def test_any_flipped_bit() -> None:
    header = EXAMPLE.index(b"\n")
    for position in range(len(EXAMPLE)):
        for bit in range(8):
            data = bytearray(EXAMPLE)
            data[position] ^= 1 << bit
            if position > header:
                with pytest.raises(LedgerError):
                    from_bytes(bytes(data))
            else:  # a flip may leave another number of children, or white space
                assert_refused_or_whole(bytes(data))


def file_of(lines: list[str], sources: object = 1, modules: object = 1, **header: object) -> bytes:
    """A file whose checksum is right, so that the rest is looked at."""
    body = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    known = {
        "frostfork ledger": 1,
        "children": 1,
        "sources": sources,
        "modules": modules,
        "crc32": zlib.crc32(body),
    }
    return json.dumps(known | header).encode() + b"\n" + body


SOURCE = ["/dags/a.py", 1, 0, 1.0, 1.0, 4096, 1e9]
MODULE = ["m", 1, 0, 0, None, 0.5, 0.5, 1, 1, 1e9, 1e9, ["/m.py"], ["n"], "1"]
ODD = [
    "NaN", "Infinity", "-Infinity", "1e999", "-1", "1.5", "true", "null", '""', '"x"', "[]", "{}", '[""]', "[1]",
    "[[]]", "9" * 30, "9" * 5000, "-0.0", '"\\ud800"', '"' + "x" * 9000 + '"', '"-1"', '"0x1"', '"1_0"', '" 1"',
    '"ff"', '"\uff12"', json.dumps(["x"] * 10_000), json.dumps([str(n) for n in range(34)]),
    "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "[", "", "nul", "\x00", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("row", [SOURCE, MODULE], ids=["source", "module"])
def test_any_field_of_another_kind(row: list[object]) -> None:
    good = [json.dumps(SOURCE), json.dumps(MODULE)]
    assert len(from_bytes(file_of(good))) == 1
    refused = 0
    for position in range(len(row)):
        for odd in ODD:
            fields = [json.dumps(field) for field in row]
            fields[position] = odd
            line = f"[{','.join(fields)}]"
            data = file_of([line, good[1]] if row is SOURCE else [good[0], line])
            assert_refused_or_whole(data)
            try:
                from_bytes(data)
            except LedgerError:
                refused += 1
    assert refused > len(row) * len(ODD) * 0.7


@pytest.mark.parametrize("odd", [*ODD, json.dumps(SOURCE), json.dumps(MODULE), json.dumps(MODULE[:-1])])
def test_any_line_of_another_shape(odd: str) -> None:
    for lines, sources, modules in (([odd], 1, 0), ([odd], 0, 1), ([odd, odd], 2, 0), ([odd, odd], 0, 2)):
        assert_refused_or_whole(file_of(lines, sources, modules))


@pytest.mark.parametrize(
    "header",
    [
        {"children": True}, {"children": -1}, {"children": 2**63}, {"children": 1.0}, {"sources": 2}, {"more": 1},
        {"sources": 10**18}, {"modules": 10**18}, {"sources": -1}, {"sources": "1"}, {"modules": None}, {"crc32": None},
        {"crc32": "1"}, {"frostfork ledger": 2}, {"frostfork ledger": 1.0}, {"frostfork ledger": True},
        {"frostfork ledger": "1"}, {"frostfork ledger": []},
    ],
)  # fmt: skip
def test_any_other_header(header: dict[str, object]) -> None:
    with pytest.raises(LedgerError):
        from_bytes(file_of([json.dumps(SOURCE), json.dumps(MODULE)], **header))


def test_nothing_comes_twice() -> None:
    source, module = json.dumps(SOURCE), json.dumps(MODULE)
    with pytest.raises(LedgerError, match=r"line 3 .* a source comes twice"):
        from_bytes(file_of([source, source, module], 2, 1))
    with pytest.raises(LedgerError, match=r"line 4 .* a module comes twice"):
        from_bytes(file_of([source, module, module], 1, 2))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300, deadline=1000)
@given(st.lists(JSON, max_size=4), st.integers(0, 3), JSON)
def test_json_of_any_shape(values, sources, header) -> None:
    lines = [json.dumps(value) for value in values]
    assert_refused_or_whole(file_of(lines, sources, len(lines) - sources))
    assert_refused_or_whole(file_of(lines, header, header))
    assert_refused_or_whole(json.dumps(header).encode() + b"\n")


@settings(max_examples=300, deadline=1000)
@given(st.lists(JSON, min_size=14, max_size=14), st.sets(st.integers(0, 13), max_size=12))
def test_fields_of_any_kind(values, keep) -> None:
    row = [MODULE[at] if at in keep else value for at, value in enumerate(values)]
    assert_refused_or_whole(file_of([json.dumps(SOURCE), json.dumps(row)]))


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("import os; os.environ['FF_BOMB'] = '1'",))


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Bomb()),
        b"\x00" * MAX_BYTES,
        b"\n" * MAX_BYTES,
        b"[" * MAX_BYTES,
        b"[" + b"[]," * (MAX_BYTES // 3 - 1),
        file_of(["[]"] * 1_000_000, 1_000_000, 0),
        file_of(["[" + "[]," * 1_390_000 + "[]]"], 1, 0),
        file_of(["[" + "[]," * 1_400_000 + "[]]"], 1, 0),
        b"x" * (MAX_BYTES + 1),
    ],
    ids=[
        "pickle",
        "zeros",
        "lines",
        "brackets",
        "lists",
        "short lines",
        "a long line",
        "a line too long",
        "too long",
    ],
)
def test_time_and_memory_are_bounded(data: bytes) -> None:
    tracemalloc.start()
    try:
        start = time.process_time()
        with pytest.raises(LedgerError):
            from_bytes(data)
        assert time.process_time() - start < 5
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()
    assert "FF_BOMB" not in os.environ
