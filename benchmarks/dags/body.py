# SPDX-License-Identifier: Apache-2.0
"""What all kinds of generated DAG files share: names, and the DAG with its operators, schedule and groups."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

TEAMS = ("finance", "growth", "logistics", "platform", "risk", "sales")
SUBJECTS = (
    "orders",
    "invoices",
    "customers",
    "sessions",
    "payments",
    "shipments",
    "inventory",
    "tickets",
    "campaigns",
    "prices",
    "returns",
    "contracts",
    "forecasts",
    "accounts",
)
VERBS = (
    "load",
    "export",
    "refresh",
    "reconcile",
    "score",
    "aggregate",
    "archive",
    "validate",
    "publish",
    "enrich",
)
SCHEDULES = (
    '"@daily"',
    '"@hourly"',
    '"0 6 * * 1-5"',
    '"30 2 * * *"',
    '"*/15 * * * *"',
    "timedelta(hours=4)",
    "None",
)
OWNERS = ("data-platform", "analytics", "revenue-ops", "supply-chain", "ml-team")


@dataclass
class Part:
    """A piece of a DAG's body: what it imports, its lines, the first and the last of its tasks."""

    imports: set[str]
    lines: list[str]
    first: str
    last: str


@dataclass
class Source:
    """A DAG file being put together."""

    doc: str
    imports: set[str] = field(default_factory=set)
    top: list[str] = field(default_factory=list)
    dag: list[str] = field(default_factory=list)

    def text(self) -> str:
        standard = sorted(line for line in self.imports if "airflow" not in line)
        airflow = sorted(line for line in self.imports if "airflow" in line)
        head = [f'"""{self.doc}"""', "from __future__ import annotations"]
        parts = [*head, *("\n".join(lines) for lines in (standard, airflow, self.top, self.dag))]
        return "\n\n".join(part for part in parts if part) + "\n"


def names(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """`count` different (team, file stem) pairs."""
    possible = [f"{verb}_{subject}" for verb in VERBS for subject in SUBJECTS]
    rng.shuffle(possible)
    found = []
    for index in range(count):
        lap, place = divmod(index, len(possible))
        found.append((rng.choice(TEAMS), possible[place] + (f"_v{lap + 1}" if lap else "")))
    return found


def source(rng: random.Random, name: str) -> Source:
    """A file with the imports that every DAG file has and the default arguments, without a DAG yet."""
    verb, _, subject = name.partition("_")
    made = Source(f"{verb.capitalize()} {subject.replace('_', ' ')}, owned by {rng.choice(OWNERS)}.")
    made.imports |= {"from datetime import datetime, timedelta", "from airflow.sdk import DAG, task"}
    made.top += [
        "default_args = {",
        f'    "owner": "{rng.choice(OWNERS)}",',
        f'    "retries": {rng.randint(0, 5)},',
        f'    "retry_delay": timedelta(minutes={rng.choice((1, 2, 5, 10))}),',
        f'    "depends_on_past": {rng.random() < 0.2},',
        "}",
    ]
    return made


def add_dag(rng: random.Random, made: Source, name: str, extra: Iterable[Part] = ()) -> None:
    """Add a DAG of a few parts in a row, `extra` in the middle of them."""
    tags = rng.sample((*TEAMS, "daily", "pii", "critical", "reporting"), 2)
    made.dag += [
        "with DAG(",
        f'    dag_id="{name}",',
        f"    schedule={rng.choice(SCHEDULES)},",
        f"    start_date=datetime({rng.randint(2022, 2024)}, {rng.randint(1, 12)}, {rng.randint(1, 28)}),",
        "    catchup=False,",
        f"    max_active_runs={rng.randint(1, 4)},",
        "    default_args=default_args,",
        f"    tags={tags!r},",
        ") as dag:",
    ]
    chosen = [rng.choice(_PARTS)(rng, index) for index in range(rng.randint(2, 4))]
    middle = len(chosen) // 2
    chosen[middle:middle] = list(extra)
    for part in chosen:
        made.imports |= part.imports
        made.dag += [f"    {line}" if line else "" for line in part.lines]
        made.dag.append("")
    for before, after in itertools.pairwise(chosen):
        made.dag.append(f"    {before.last} >> {after.first}")


def flow(names_and_bodies: Sequence[tuple[str, Sequence[str]]]) -> Part:
    """TaskFlow tasks in a row, each given the result of the one before."""
    lines: list[str] = []
    calls: list[str] = []
    result = ""
    for index, (name, code) in enumerate(names_and_bodies):
        lines += ["@task", f"def {name}({'data' if index else ''}):"]
        lines += [f"    {line}" if line else "" for line in code]
        lines.append("")
        calls.append(f"{name}_result = {name}({result})")
        result = f"{name}_result"
    return Part(set(), lines + calls, f"{names_and_bodies[0][0]}_result", result)


def _bash(rng: random.Random, index: int) -> Part:
    count = rng.randint(2, 4)
    commands = (
        "gzip -k /data/in/*.csv",
        "dbt run --select staging",
        "aws s3 sync /data/out s3://exports",
        "make report",
    )
    names = [f"shell_{index}_{step}" for step in range(count)]
    lines = []
    for name in names:
        lines += [
            f"{name} = BashOperator(",
            f'    task_id="{name}",',
            f'    bash_command="{rng.choice(commands)} --date {{{{ ds }}}}",',
            f"    execution_timeout=timedelta(minutes={rng.randint(5, 90)}),",
            ")",
        ]
    lines.append(" >> ".join(names))
    return Part(
        {"from airflow.providers.standard.operators.bash import BashOperator"}, lines, names[0], names[-1]
    )


def _python(rng: random.Random, index: int) -> Part:
    name = f"call_{index}"
    lines = [
        f"def _{name}(**context):",
        f'    print("rows", context["ds"], {rng.randint(10, 5000)})',
        "",
        f"{name} = PythonOperator(",
        f'    task_id="{name}",',
        f"    python_callable=_{name},",
        f'    op_kwargs={{"limit": {rng.randint(1, 99)}}},',
        ")",
    ]
    return Part({"from airflow.providers.standard.operators.python import PythonOperator"}, lines, name, name)


def _branch(rng: random.Random, index: int) -> Part:
    lines = [
        f'@task.branch(task_id="decide_{index}")',
        f"def decide_{index}(**context):",
        f'    whole = context["logical_date"].day == {rng.randint(1, 28)}',
        f'    return "full_{index}" if whole else "part_{index}"',
        "",
        f"choice_{index} = decide_{index}()",
        f'full_{index} = EmptyOperator(task_id="full_{index}")',
        f'part_{index} = EmptyOperator(task_id="part_{index}")',
        f"joined_{index} = EmptyOperator(",
        f'    task_id="joined_{index}", trigger_rule="none_failed_min_one_success"',
        ")",
        f"choice_{index} >> [full_{index}, part_{index}] >> joined_{index}",
    ]
    needed = {"from airflow.providers.standard.operators.empty import EmptyOperator"}
    return Part(needed, lines, f"choice_{index}", f"joined_{index}")


def _sensor(rng: random.Random, index: int) -> Part:
    name = f"wait_{index}"
    if rng.random() < 0.5:
        needed = "from airflow.providers.standard.sensors.filesystem import FileSensor"
        options = f'filepath="/data/in/{{{{ ds }}}}.csv", poke_interval={rng.randint(30, 300)}'
        call = f'FileSensor(task_id="{name}", {options})'
    else:
        needed = "from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor"
        call = f'TimeDeltaSensor(task_id="{name}", delta=timedelta(minutes={rng.randint(5, 60)}))'
    return Part({needed}, [f"{name} = {call}"], name, name)


def _group(rng: random.Random, index: int) -> Part:
    name = f"group_{index}"
    sources = rng.sample(SUBJECTS, rng.randint(2, 5))
    lines = [
        f'with TaskGroup(group_id="{name}") as {name}:',
        f"    for source in {sources!r}:",
        '        extract = BashOperator(task_id=f"extract_{source}", bash_command=f"extract {source}")',
        '        load = BashOperator(task_id=f"load_{source}", bash_command=f"load {source}")',
        "        extract >> load",
    ]
    needed = {
        "from airflow.sdk import TaskGroup",
        "from airflow.providers.standard.operators.bash import BashOperator",
    }
    return Part(needed, lines, name, name)


_PARTS = (_bash, _bash, _python, _branch, _sensor, _group)
