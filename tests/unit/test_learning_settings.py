# SPDX-License-Identifier: Apache-2.0
"""What a LearningTemplate is given is checked when it is made, not in a zygote that fails later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frostfork import ConfigurationError, LearningTemplate, Observation
from frostfork.preload import Ledger

NAN = float("nan")


def nothing() -> None: ...


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("observed", "code_workers") for value in ("x", -1, 1.5, NAN, None)),
        *((name, value) for name in ("begin_seconds", "ledger_days") for value in ("x", -1, NAN, None, True)),
        ("rehearse", "mymodule"),
        ("rehearse", "mymodule:"),
        ("ledger", ""),
    ],
)
def test_values_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is {value!r}; allowed are"):
        LearningTemplate(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("canary", -1),
        ("canary", True),
        ("policy", "x"),
        ("rehearse", 5),
        ("source", 5),
        ("source", None),
        ("ledger", 5),
        ("ledger", b"ledger"),
        ("preload", 5),
        ("preload", [nothing]),
        ("steps", 5),
        ("steps", [5]),
    ],
)
def test_types_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be"):
        LearningTemplate(**{name: value})


def test_a_step_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'thaw' is no step"):
        LearningTemplate(steps="thaw")


@pytest.mark.parametrize(
    "options",
    [
        {"observed": 0, "code_workers": 0, "begin_seconds": 0, "ledger_days": 0.5},
        {"begin_seconds": float("inf"), "ledger_days": float("inf")},
        {"canary": None, "policy": None, "rehearse": None, "ledger": None},
        {"rehearse": nothing, "ledger": Path("ledger"), "steps": (), "source": ""},
        {"rehearse": "mymodule:Class.method", "ledger": "ledger", "steps": "freeze", "preload": "json"},
    ],
)
def test_what_makes_sense_is_taken(options: dict[str, Any]) -> None:
    LearningTemplate(**options)


def test_a_ledger_counts_nothing_for_a_source_that_is_no_name() -> None:
    ledger = Ledger()
    with pytest.raises(TypeError, match="source must be of type str or None, not 5"):
        ledger.record(Observation(), source=5)
    assert ledger.children == 0
    ledger.record(Observation(), source="a.py")
    assert list(ledger.sources) == ["a.py"]
