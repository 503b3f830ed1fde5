# SPDX-License-Identifier: Apache-2.0
"""Decisions about modules."""

from __future__ import annotations

import pytest

from frostfork import ConfigurationError, find_installed
from frostfork.preload import Installed, ModuleRecord, PreloadMode, PreloadPolicy
from frostfork.preload.policy import matches

INSTALLED = Installed(("/venv/site-packages", "/usr/lib/python3"), frozenset({"pandas", "json", "google"}))


def record(name: str, origin: str | None = "/venv/site-packages/x.py", children: int = 1) -> ModuleRecord:
    origins = set() if origin is None else {origin}
    return ModuleRecord(
        name, children=children, origins=origins, last_error=None if children else "ImportError"
    )


def decide(module: ModuleRecord, local: frozenset[str] = frozenset(), **options: object) -> tuple[bool, str]:
    decision = PreloadPolicy(INSTALLED, **options).decide(module, local)
    return decision.preload, decision.reason


@pytest.mark.parametrize(
    ("name", "origin"),
    [("pandas", "/venv/site-packages/pandas/__init__.py"), ("pandas.io.sql", "/venv/site-packages/pandas/io/sql.py"),
     ("json.tool", "/usr/lib/python3/json/tool.py"), ("json", "frozen"), ("google", None)],
)  # fmt: skip
def test_learned_takes_installed_modules(name: str, origin: str | None) -> None:
    assert decide(record(name, origin))[0]


@pytest.mark.parametrize(
    ("name", "origin", "reason"),
    [
        ("pandas", "/srv/dags/pandas.py", "not from an installed distribution"),
        ("pandas", "/venv/site-packages.zip/pandas.py", "not from an installed distribution"),
        ("pandas", "/venv/site-packages-evil/pandas.py", "not from an installed distribution"),
        ("helper", "/venv/site-packages/helper.py", "not from an installed distribution"),
        ("unusual_prefix_1a2b_dag", "/venv/site-packages/x.py", "script or DAG file"),
        ("__main__", "/venv/site-packages/x.py", "script or DAG file"),
    ],
)
def test_learned_refuses_everything_else(name: str, origin: str, reason: str) -> None:
    allowed, why = decide(record(name, origin))
    assert not allowed
    assert reason in why


def test_two_origins_must_both_be_installed() -> None:
    module = record("pandas", "/venv/site-packages/pandas/__init__.py")
    module.origins.add("/srv/dags/pandas.py")
    assert not decide(module)[0]


def test_failed_denied_excluded_local_and_off() -> None:
    good = record("pandas.io")
    assert decide(record("pandas", children=0)) == (False, "failed in a child: ImportError")
    assert not decide(good, deny=("pandas",))[0]
    assert not decide(good, deny=("pandas",), mode=PreloadMode.APPROVED, approved=("pandas",))[0]
    assert not decide(good, excluded=("/venv/site-packages",))[0]
    assert decide(good, frozenset({"pandas"})) == (False, "the DAG folder has a file or folder of this name")
    assert decide(good, mode=PreloadMode.OFF) == (False, "preload is off")
    assert decide(good, mode=PreloadMode.APPROVED) == (False, "not approved by configuration")
    assert decide(good, mode=PreloadMode.APPROVED, approved=("pandas",))[0]
    assert not decide(record("helper"), mode=PreloadMode.APPROVED, approved=("helper",))[0]


@pytest.mark.parametrize(
    ("module", "pattern", "expected"),
    [("a.b.c", "a", True), ("a.b.c", "a.b", True), ("a.bc", "a.b", False), ("ab", "a", False), ("ab", "a*", True),
     ("a.b", "a.*", True), ("a", "a.*", False), ("google.cloud.storage", "google.cloud.*", True)],
)  # fmt: skip
def test_patterns(module: str, pattern: str, expected: bool) -> None:
    assert matches(module, [pattern]) is expected


@pytest.mark.parametrize("name", ["deny", "approved", "excluded", "trusted"])
def test_one_string_is_one_pattern(name: str) -> None:
    assert getattr(PreloadPolicy(INSTALLED, **{name: "pandas"}), name) == ("pandas",)
    assert getattr(PreloadPolicy(INSTALLED, **{name: ["a", "b"]}), name) == ("a", "b")
    for wrong in (None, 5, [5], b"pandas"):
        with pytest.raises(TypeError, match=name):
            PreloadPolicy(INSTALLED, **{name: wrong})


def test_a_single_string_denies() -> None:
    assert decide(record("pandas.io"), deny="pandas") == (False, "denied by configuration")
    assert not decide(record("pandas", "/venv/site-packages/mine/x.py"), excluded="/venv/site-packages/mine")[
        0
    ]


def test_a_mode_may_be_its_value() -> None:
    assert decide(record("pandas"), mode="off") == (False, "preload is off")
    assert decide(record("pandas"), mode="approved") == (False, "not approved by configuration")
    assert PreloadPolicy(INSTALLED, mode="learned").mode is PreloadMode.LEARNED


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "on"},
        {"mode": None},
        {"min_children": -1},
        {"min_children": 0},
        {"min_files": 1.5},
        {"max_bytes": -5},
        {"max_bytes": float("nan")},
        {"max_bytes": "1 GB"},
        {"max_seconds": -0.1},
        {"max_seconds": float("nan")},
        {"max_seconds": True},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ConfigurationError, match=f"{name} is {value!r}; allowed are"):
        PreloadPolicy(INSTALLED, **wrong)


def test_installed_is_what_find_installed_returns() -> None:
    with pytest.raises(TypeError, match="installed must be of type Installed"):
        PreloadPolicy(find_installed)
