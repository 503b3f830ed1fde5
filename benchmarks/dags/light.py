# SPDX-License-Identifier: Apache-2.0
"""Generated DAG files whose imports cost little while Airflow parses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import body

if TYPE_CHECKING:
    import random


def plain(rng: random.Random, name: str) -> str:
    """Standard operators alone."""
    made = body.source(rng, name)
    if rng.random() < 0.4:
        made.imports.add("import json")
        made.top.append(f"SETTINGS = json.loads('{{\"limit\": {rng.randint(1, 500)}}}')")
    body.add_dag(rng, made, name)
    return made.text()


def lazy(rng: random.Random, name: str) -> str:
    """Heavy libraries too, but imported where Airflow's documentation wants it: inside the tasks."""
    made = body.source(rng, name)
    column = rng.choice(body.SUBJECTS)
    steps = [
        ("read", ["import pandas as pd", "", f'return pd.read_csv("/data/in/{column}.csv").to_dict("list")']),
        ("average", ["import numpy as np", "", f'return float(np.mean(data["{column}"]))']),
    ]
    if rng.random() < 0.5:
        steps.append(
            (
                "fit",
                ["from sklearn.linear_model import LinearRegression", "", "return str(LinearRegression())"],
            )
        )
    body.add_dag(rng, made, name, [body.flow(steps)])
    return made.text()


def models(rng: random.Random, name: str) -> str:
    """SQLAlchemy tables and pydantic models at top level."""
    made = body.source(rng, name)
    subjects = rng.sample(body.SUBJECTS, rng.randint(2, 5))
    made.imports |= {
        "from decimal import Decimal",
        "from pydantic import BaseModel, Field",
        "from sqlalchemy import ForeignKey, Numeric, String, select",
        "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column",
    }
    made.top += ["", "", "class Base(DeclarativeBase):", "    pass"]
    for index, subject in enumerate(subjects):
        title = subject.capitalize()
        made.top += [
            "",
            "",
            f"class {title}(Base):",
            f'    __tablename__ = "{subject}"',
            "    id: Mapped[int] = mapped_column(primary_key=True)",
            f"    name: Mapped[str] = mapped_column(String({rng.choice((40, 80, 255))}))",
            "    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))",
        ]
        if index:
            made.top.append(
                f'    {subjects[0]}_id: Mapped[int] = mapped_column(ForeignKey("{subjects[0]}.id"))'
            )
        made.top += [
            "",
            "",
            f"class {title}Message(BaseModel):",
            "    id: int",
            f"    name: str = Field(max_length={rng.choice((40, 80, 255))})",
            "    amount: Decimal = Decimal(0)",
            f"    tags: list[str] = Field(default_factory=list, max_length={rng.randint(3, 20)})",
        ]
    first = subjects[0].capitalize()
    made.top += [
        "",
        f"QUERY = select({first}.id, {first}.amount).where({first}.amount > {rng.randint(1, 900)})",
    ]
    steps = [
        ("query", ["return str(QUERY)"]),
        ("check", [f'return {first}Message(id=1, name=data[:10]).model_dump(mode="json")']),
    ]
    body.add_dag(rng, made, name, [body.flow(steps)])
    return made.text()


def dynamic(rng: random.Random, name: str) -> str:
    """One file that makes a hundred DAGs, one for each customer."""
    made = body.source(rng, name)
    made.imports |= {
        "from airflow.providers.standard.operators.bash import BashOperator",
        "from airflow.providers.standard.operators.empty import EmptyOperator",
    }
    made.top += [
        "",
        f'CUSTOMERS = [f"customer_{{number:03}}" for number in range(100)]  # {rng.choice(body.OWNERS)}',
    ]
    made.dag = [
        "def build(customer: str) -> DAG:",
        "    with DAG(",
        f'        dag_id=f"{name}_{{customer}}",',
        f"        schedule={rng.choice(body.SCHEDULES)},",
        f"        start_date=datetime(2024, {rng.randint(1, 12)}, 1),",
        "        catchup=False,",
        "        default_args=default_args,",
        "    ) as dag:",
        '        start = EmptyOperator(task_id="start")',
        f"        for step in range({rng.randint(3, 5)}):",
        '            start >> BashOperator(task_id=f"step_{step}", bash_command=f"run {customer} {step}")',
        "    return dag",
        "",
        "",
        "for customer in CUSTOMERS:",
        '    globals()[f"dag_{customer}"] = build(customer)',
    ]
    return made.text()
