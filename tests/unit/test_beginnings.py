# SPDX-License-Identifier: Apache-2.0
"""What counts as a file's beginning, and how files are put together that share one."""

from __future__ import annotations

from frostfork.beginnings import (
    Effect,
    Key,
    Piece,
    beginning,
    candidates,
    chains,
    lazy_names,
    number,
    pieces,
)  # fmt: skip


def keys(text: str, *local: str) -> list[str]:
    return [".".join(filter(None, key)) for key in beginning(text.encode(), frozenset(local))]


def test_imports_count_until_something_could_change_what_they_do() -> None:
    assert keys('"""Doc."""\nfrom __future__ import annotations\nimport a, b.c as d\nfrom e import f, G\n') == [
        "a", "b.c", "e.f", "e",
    ]  # fmt: skip
    assert keys("import a\nLIMIT = 3\nNAMES: list = ['x']\ndef f(): ...\nimport b\n") == ["a", "b"]
    for stop in (
        "import os; os.environ['X'] = '1'", "x = f()", "class C: pass", "@d\ndef f(): pass", "if x: pass",
        "try:\n    import c\nexcept ImportError: pass", "for i in (): pass", "from . import x", "from .y import x",
        "__path__ = []", "del x", "raise SystemExit",
    ):  # fmt: skip
        assert "b" not in keys(f"import a\n{stop}\nimport b\n"), stop
    assert keys("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import c\nimport b\n") == [
        "typing",
        "b",
    ]


def test_a_module_of_the_users_own_ends_it_for_nobody_knows_what_that_does() -> None:
    assert keys("import a\nimport helpers.x\nimport b\n", "helpers") == ["a"]


def test_what_is_no_python_has_no_beginning() -> None:
    for source in (b"import (", b"\0", b"\xff\xfe", b"import a\nprint 1\n"):
        assert beginning(source, frozenset()) == []
        assert lazy_names(source) == []


def test_lazy_modules_are_named() -> None:
    assert lazy_names(b"__lazy_modules__ = ['pandas', 'a.b']\nimport pandas\n") == ["a.b", "pandas"]


def test_files_share_the_costliest_imports_first_and_none_twice() -> None:
    a, b, c, alias = Key("a"), Key("b"), Key("c"), Key("a", "x")
    effects = {
        a: Effect(0.5, frozenset({"a", "n"})),
        alias: Effect(0.5, frozenset({"a", "n"})),
        b: Effect(0.9, frozenset({"b", "a", "n"})),
        c: Effect(0.001, frozenset({"c"})),
    }
    files = {0: [a], 1: [alias, c], 2: [b, a], 3: [c], 4: [a, b]}
    assert candidates(files, 2, 9) == [a, b, c]
    chosen = chains(files, effects, 0.01)
    assert chosen == {0: (a,), 1: (a,), 2: (b,), 3: (), 4: (b,)}  # b brings a along, and c is not worth it

    roots = pieces(chosen, 1)
    assert sorted(file for piece in _all(roots) for file in piece.files) == [0, 1, 2, 3, 4]
    above = number(roots)
    assert above[0] == above[1] != above[2] == above[4]
    assert above[3] == []


def test_no_import_is_made_for_one_file_alone() -> None:
    a, b = Key("a"), Key("b")
    roots = pieces({0: (a, b), 1: (a,)}, 1)
    assert [piece.imports for piece in _all(roots)] == [[a]]
    assert sorted(roots[0].files) == [0, 1]


def _all(roots: list[Piece]) -> list[Piece]:
    return [each for root in roots for each in (root, *_all(root.branches))]
