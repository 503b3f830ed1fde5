# SPDX-License-Identifier: Apache-2.0
"""Children that take long are in flight together, in every slot, whatever the manager thinks of quick ones."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.airflow.processor import VARIANTS, Events, Home, Processor, dag, write

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]
pytest.importorskip("airflow")

SLOTS = 6

# Waits until as many parses have begun as there are slots. If one is left out, all wait until Airflow's time limit.
TOGETHER = (
    "import os, time",
    "def begun():",
    "    with open(os.environ['BEGUN']) as lines: return len(set(lines.read().split()))",
    "with open(os.environ['BEGUN'], 'a') as lines: lines.write(NAME + '\\n')",
    f"while begun() < {SLOTS}: time.sleep(0.01)",
    "with open(os.environ['EVENTS'], 'a') as out: out.write(NAME + '\\n')",
)


@pytest.mark.parametrize("variant", ["frostfork", "no zygote"])
def test_slow_children_fill_every_slot(migrated_home: Path, tmp_path: Path, variant: str) -> None:
    home = Home.make(migrated_home, tmp_path / "home")
    dags, begun = tmp_path / "dags", tmp_path / "begun"
    begun.touch()
    names = [f"dag_{number}" for number in range(SLOTS)]
    write(dags, {f"{name}.py": dag(name, f"NAME = {name!r}", *TOGETHER) for name in names})
    command, settings = VARIANTS[variant]
    with Events(tmp_path / "events") as events:
        environment = home.environment(
            dags,
            EVENTS=str(events.path),
            BEGUN=str(begun),
            dag_processor__parsing_processes=str(SLOTS),
            dag_processor__dag_file_processor_timeout="40",
            **settings,
        )
        with Processor(command, environment) as processor:
            lines = events.lines(60)
            assert {next(lines).strip() for _ in names} == set(names)
            processor.signal(signal.SIGKILL)  # Airflow's own end takes five seconds for each child
            assert processor.wait(30) == -signal.SIGKILL
