# SPDX-License-Identifier: Apache-2.0
"""What Airflow is told about the options, and how their values are read."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frostfork.airflow.provider import COMPONENTS, provider_info
from frostfork.airflow.settings import Settings, parse
from frostfork.errors import ConfigurationError

OPTIONS = provider_info()["config"]["frostfork"]["options"]


def test_provider_info_is_valid_for_airflow() -> None:
    airflow = pytest.importorskip("airflow", reason="Airflow is not installed.")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(airflow.__path__[0]) / "provider_info.schema.json").read_text())
    jsonschema.validate(provider_info(), schema)


def test_provider_imports_nothing() -> None:
    # The root package is there anyhow; what counts is what this module adds to it.
    script = (
        "import sys, frostfork; before = set(sys.modules)\n"
        "import frostfork.airflow.provider\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["frostfork.airflow", "frostfork.airflow.provider"]


@pytest.mark.airflow
def test_airflow_lists_the_options(airflow_home: Any) -> None:
    shown = airflow_home.run(
        *("airflow", "config", "list", "--section", "frostfork", "--show-values", "--include-descriptions")
    )
    assert shown.returncode == 0, shown.stderr
    lines = [line.lstrip("# ").rstrip() for line in shown.stdout.splitlines()]
    for name, option in OPTIONS.items():
        assert f"{name} = {option['default']}".rstrip() in lines
        assert option["description"].splitlines()[0] in lines
    given = airflow_home.run(
        *("airflow", "config", "get-value", "frostfork", "components"), frostfork__components="all,-triggerer"
    )
    assert given.stdout.strip() == "all,-triggerer"


@pytest.mark.airflow
def test_airflow_accepts_the_provider(airflow_home: Any) -> None:
    listed = airflow_home.run("airflow", "providers", "list", "--output", "json")
    assert listed.returncode == 0, listed.stderr
    assert "frostfork" in [provider["package_name"] for provider in json.loads(listed.stdout)]
    assert "frostfork" not in listed.stderr  # where Airflow would say what is wrong with it


DEFAULTS = Settings(
    enabled=False,
    components=tuple(COMPONENTS),
    preload="learned",
    approved=(),
    deny=(),
    trust=(),
    min_children=2,
    min_files=1,
    max_bytes=1 << 30,
    max_seconds=120,
    canary=True,
    canary_seconds=30,
    canary_bytes=1 << 30,
    ledger="frostfork-ledger.json",
    ledger_days=14,
    stale="stop",
    zygote=True,
    steps=("compact_code", "drain_heap", "drain_pools", "immortalize"),
    blame=0,
)


@pytest.mark.airflow
def test_settings_come_from_airflows_configuration(airflow_home: Any) -> None:
    configuration = "[frostfork]\nenabled = True\ndeny = grpc, torch\npreload = off\n"
    configuration += "collapse = True\ncompact_code = False\nblame = 7\n"
    configuration += (
        "trust = mine.metrics:thread, yours\nmin_files = 3\nmax_megabytes = 0\nmax_seconds = 20\n"
    )
    configuration += "canary = False\ncanary_megabytes = 64\nledger =\nstale = renew\nzygote = False\n"
    (airflow_home.path / "airflow.cfg").write_text(configuration)
    script = "from frostfork.airflow.settings import load; print(load())"
    shown = airflow_home.run(sys.executable, "-c", script, frostfork__preload="approved")
    wanted = replace(
        DEFAULTS,
        enabled=True,
        preload="approved",
        deny=("grpc", "torch"),
        trust=("mine.metrics:thread", "yours"),
        min_files=3,
        max_bytes=None,
        max_seconds=20,
        canary=False,
        canary_bytes=64 << 20,
        ledger="",
        stale="renew",
        zygote=False,
        steps=("drain_heap", "drain_pools", "immortalize", "collapse"),
        blame=7,
    )
    assert shown.stdout.splitlines()[-1] == str(wanted), shown.stderr


def test_defaults() -> None:
    assert parse({}) == DEFAULTS
    assert parse({name: option["default"] for name, option in OPTIONS.items()}) == parse({})


def test_examples_are_valid() -> None:
    settings = parse({name: option["example"] for name, option in OPTIONS.items()})
    assert settings.covers("scheduler")
    assert not settings.covers("triggerer")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("all", tuple(COMPONENTS)),
        ("scheduler", ("scheduler",)),
        (" Triggerer , dag-processor,", ("dag-processor", "triggerer")),
        ("all,-triggerer,-api-server", ("dag-processor", "scheduler", "celery-worker")),
        ("-triggerer", ("dag-processor", "scheduler", "celery-worker", "api-server")),
        ("scheduler,-scheduler", ()),
        ("", ()),
    ],
)
def test_components(text: str, chosen: tuple[str, ...]) -> None:
    assert parse({"components": text}).components == chosen


@pytest.mark.parametrize(
    ("option", "text", "allowed"),
    [
        ("enabled", "maybe", "True or False"),
        ("enabled", "", "True or False"),
        ("components", "all,-webserver", "api-server"),
        ("preload", "everything", "approved, learned or off"),
        ("merge", "perhaps", "True or False"),
        ("blame", "-1", "a whole number from 0 to 999999999"),
        ("min_children", "0", "a whole number from 1 to 999999999"),
        ("max_megabytes", "1 GB", "a whole number from 0 to 999999999"),
        ("max_megabytes", "99999999999", "a whole number from 0 to 999999999"),
        ("stale", "ignore", "warn, stop or renew"),
        ("trust", "numpy:thread:file", "each with :KIND"),
        ("trust", "numpy:", "each with :KIND"),
        ("approved", "pandas; numpy", "module names"),
        ("deny", "google..cloud", "module names"),
    ],
)
def test_wrong_values(option: str, text: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse({option: text})
    message = str(pickle.loads(pickle.dumps(caught.value)))
    assert f"[frostfork] {option} is {text!r}" in message
    assert allowed in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "value"), [("True", True), ("t", True), ("1  # on", True), ("FALSE", False), ("0", False)]
)
def test_enabled_understands_airflows_words(text: str, value: bool) -> None:
    assert parse({"enabled": text}).enabled is value
