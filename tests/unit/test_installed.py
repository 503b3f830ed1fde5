# SPDX-License-Identifier: Apache-2.0
"""Whose code a module is, and patterns of module names."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostfork.preload import Installed
from frostfork.preload.patterns import ancestors, matches

INSTALLED = Installed(
    ("/lib",),
    frozenset({"pandas", "google", "json"}),
    {
        "pandas": "pandas",
        "google": None,
        "google.cloud": None,
        "google.cloud.storage": "google-cloud-storage",
    },
)


@pytest.mark.parametrize(
    ("module", "expected"),
    [("pandas", "pandas"), ("pandas.core.frame", "pandas"), ("json", None), ("google", None), ("google.auth", None),
     ("google.cloud.storage.blob", "google-cloud-storage"), ("google.cloud.storages", None), ("pandas_x", None)],
)  # fmt: skip
def test_distributions(module: str, expected: str | None) -> None:
    assert INSTALLED.distribution(module) == expected


def test_places() -> None:
    assert INSTALLED.holds("google", [])
    assert INSTALLED.contains([])
    assert INSTALLED.contains(["/lib/x.py", "built-in", "frozen"])
    assert not INSTALLED.contains(["/lib/x.py", "?"])
    assert not INSTALLED.holds("other", ["/lib/x.py"])


def test_ancestors() -> None:
    assert ancestors("a.b.c") == ["a.b", "a"]
    assert ancestors("a") == []


names = st.text("ab.", min_size=1, max_size=6)


@given(names, st.lists(st.text("ab.*?[]!", min_size=1, max_size=6), max_size=4))
def test_patterns_match_as_file_names_do(module: str, patterns: list[str]) -> None:
    above = [module, *ancestors(module)]
    expected = any(fnmatch.fnmatchcase(name, pattern) for name in above for pattern in patterns)
    assert matches(module, patterns) is expected
