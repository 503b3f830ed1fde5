# SPDX-License-Identifier: Apache-2.0
"""What the DAG processor's warmup does for its children, as the children themselves see it; and its options."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.airflow.processor import COMMANDS, Home, dag, run_together, write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]
pytest.importorskip("airflow")

ROUNDS = 6  # three of them to learn from: modules, code, and once more for what came with them
STEPS = ("compact_code", "drain_heap", "drain_pools", "immortalize", "collapse")

# The last lines of each DAG file: what the parse has cost its process by then.
COST = """
import json, os
with open("/proc/self/smaps_rollup") as rollup:
    private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
with open("/proc/self/stat") as stat:
    faults = int(stat.read().rpartition(")")[2].split()[7])
fds = len(os.listdir("/proc/self/fd"))
with open(os.environ["LOG"], "a") as log:
    log.write(json.dumps({"private": private * 1024, "faults": faults, "fds": fds}) + "\\n")
"""
DAGS = {f"dag_{i}.py": dag(f"dag_{i}", "import json, decimal, sqlalchemy.orm") + COST for i in range(4)}


@dataclass(frozen=True)
class Run:
    out: str
    private: float  # bytes, the median of the later half of all children
    faults: float
    fds: list[int]  # of each child, in order

    def line(self, beginning: str) -> str:
        """The line of the log that says this."""
        found = [line for line in self.out.splitlines() if beginning in line]
        assert len(found) == 1, self.out[-6000:]
        return found[0]


@pytest.fixture(scope="module")
def runs(migrated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """By name: with every step, without any, and with every step where each third child is judged."""
    scratch = tmp_path_factory.mktemp("warming")
    write(scratch / "dags", DAGS)
    settings = {
        "warmed": {},
        "bare": {f"frostfork__{step}": "False" for step in STEPS},
        "judged": {"frostfork__blame": "3"},
    }
    homes = {name: Home.make(migrated_home, scratch / name) for name in settings}
    command = (*COMMANDS["frostfork"], "--num-runs", str(ROUNDS))
    plans = {
        name: (command, home.environment(scratch / "dags", LOG=str(home.path / "log"), **settings[name]))
        for name, home in homes.items()
    }
    found = {}
    for name, processor in run_together(plans).items():
        output = processor.out + processor.err
        assert processor.wait() == 0, output[-6000:]
        costs = [json.loads(line) for line in (homes[name].path / "log").read_text().splitlines()]
        assert len(costs) == ROUNDS * len(DAGS)
        later = costs[len(costs) // 2 :]
        found[name] = Run(
            output,
            statistics.median(cost["private"] for cost in later),
            statistics.median(cost["faults"] for cost in later),
            [cost["fds"] for cost in costs],
        )
    return found


def test_the_log_says_what_was_done(runs: dict[str, Run]) -> None:
    said = runs["warmed"].line("frostfork warmed up")
    for step in ("compact_code", "drain_heap", "immortalize", "freeze"):
        assert step in said
    assert "merge" not in said
    assert "collapse" not in said
    assert "compact_code 0 " not in said


def test_steps_that_are_off_are_not_run(runs: dict[str, Run]) -> None:
    said = runs["bare"].line("frostfork warmed up")
    assert "freeze" in said
    for step in STEPS:
        assert step not in said


@pytest.mark.skipif(sys.version_info < (3, 12), reason="immortal objects came with Python 3.12")
def test_children_copy_less(runs: dict[str, Run]) -> None:
    assert runs["warmed"].private < runs["bare"].private * 0.6
    assert runs["warmed"].faults < runs["bare"].faults * 0.6


def test_each_third_child_is_judged(runs: dict[str, Run]) -> None:
    said = runs["judged"].line("frostfork judged")
    children = ROUNDS * len(DAGS)
    assert f"frostfork judged {children // 3} children" in said
    table = runs["judged"].out.partition("frostfork judged")[2]
    for cause in ("code", "new objects", "malloc"):
        assert f"\n{cause} " in table
    assert "frostfork judged" not in runs["warmed"].out


def test_the_parent_closes_what_it_opens_for_a_child(runs: dict[str, Run]) -> None:
    """A child inherits its parent's descriptors: a leak of one per child would show."""
    for run in runs.values():
        half = len(run.fds) // 2
        assert max(run.fds[half:]) < max(run.fds[:half]) + half // 2, run.fds
