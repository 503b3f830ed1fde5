# SPDX-License-Identifier: Apache-2.0
"""The shipped lists: well-formed, and overruled by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from frostfork.preload import Finding, Installed, ModuleRecord, PreloadPolicy
from frostfork.preload.known import HARMLESS, UNSAFE, UNSAFE_LIBRARIES
from frostfork.preload.verdict import KINDS

POLICY = PreloadPolicy(Installed(("/lib",), frozenset(entry.pattern.partition(".")[0] for entry in UNSAFE)))


@pytest.mark.parametrize("entry", [*UNSAFE, *UNSAFE_LIBRARIES, *HARMLESS], ids=lambda entry: entry.pattern)
def test_each_entry_has_a_reason_and_a_source(entry: object) -> None:
    assert entry.source.startswith("https://")
    assert len(entry.reason.split()) > 3
    assert not entry.reason.endswith(".")


def test_the_documentation_names_each_entry() -> None:
    text = (Path(__file__).parents[2] / "docs" / "preload.md").read_text()
    entries = {entry.pattern for entry in (*UNSAFE, *UNSAFE_LIBRARIES, *HARMLESS)} - {"*", "*.six"}
    assert not {pattern for pattern in entries if f"`{pattern}`" not in text}
    assert not {entry.kind for entry in HARMLESS if f"`{entry.kind}`" not in text}


def test_kinds_are_the_canarys() -> None:
    assert {entry.kind for entry in HARMLESS} <= set(KINDS)


@pytest.mark.parametrize("entry", UNSAFE, ids=lambda entry: entry.pattern)
def test_unsafe_modules_and_what_lies_in_them_are_refused_unless_trusted(entry: object) -> None:
    pattern = entry.pattern
    for name in (pattern, f"{pattern}.part"):
        record = ModuleRecord(name, children=1, origins={"/lib/x.py"})
        assert not POLICY.decide(record).preload
        trusting = PreloadPolicy(POLICY.installed, trusted=(pattern,))
        assert trusting.decide(record).preload
        assert pattern not in trusting.forbidden
    assert pattern in POLICY.forbidden
    above = pattern.rpartition(".")[0]
    if above:
        assert POLICY.decide(ModuleRecord(above, children=1)).preload


def test_harmless_effects_are_those_of_the_module_that_did_it() -> None:
    blas = Finding("thread", "left the native thread 'python' running", "numpy._core._multiarray_umath")
    assert POLICY.tolerates("pandas", blas)
    assert not POLICY.tolerates("numpy", blas._replace(module="pandas"))
    assert not POLICY.tolerates("pandas", blas._replace(kind="process"))
    assert POLICY.tolerates("numpy", blas._replace(module=""))


@pytest.mark.parametrize(
    ("module", "kind", "detail", "expected"),
    [
        ("any.part", "warnings", "added the filter default::any.errors.AnyWarning", True),
        ("any.part", "warnings", "added the filter ignore:some: message:any.AnyWarning", True),
        ("any.part", "warnings", "added the filter default::anything.AnyWarning", False),
        ("any.part", "warnings", "added the filter ignore::builtins.DeprecationWarning", False),
        ("any.part", "warnings", "removed the filter default::any.AnyWarning", False),
        ("any", "thread", "left the native thread 'jemalloc_bg_thd' (7) running", True),
        ("any", "thread", "left the native thread 'other' (7) running", False),
        ("any", "atexit", "registered a function for the end of the process (number 3)", True),
    ],
)
def test_what_is_harmless_whoever_does_it(module: str, kind: str, detail: str, expected: bool) -> None:
    assert POLICY.tolerates("outer", Finding(kind, detail, module)) is expected


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [("evil", True), ("evil:thread", True), ("evil:signal", False), ("ev*", True), ("outer", True),
     ("outer:thread", True), ("other", False), ("evil.part", False)],
)  # fmt: skip
def test_trust_names_who_did_it_or_what_was_asked_for(trusted: str, expected: bool) -> None:
    policy = PreloadPolicy(POLICY.installed, trusted=(trusted,))
    assert policy.tolerates("outer", Finding("thread", "left a thread running", "evil")) is expected
