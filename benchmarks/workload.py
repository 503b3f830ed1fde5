# SPDX-License-Identifier: Apache-2.0
"""Work as a child of a data pipeline does it: models, queries, a grouped frame, and the collector at the end."""

from __future__ import annotations

import gc
from typing import Any


def missing(name: str) -> str:
    """Why the benchmark of this name cannot run here; "" if it can."""
    from importlib.util import find_spec

    absent = [name for name in ("pandas", "pydantic", "sqlalchemy") if find_spec(name) is None]
    if not absent:
        return ""
    return f"{name}: left out, for {', '.join(absent)} cannot be imported here (locks/demo.txt pins what it needs)."


def imports() -> None:
    """What the parent has before it forks."""
    import pandas  # noqa: F401 - imported to be there in the children
    import pydantic  # noqa: F401
    import sqlalchemy.orm  # noqa: F401


def work() -> None:
    _queries()
    _models()
    _frames()
    for _ in range(3):
        gc.collect()


def task(number: int) -> None:
    """A small piece of it, for one of many tasks: the three kinds in turn."""
    (_rows, _orders, _groups)[number % 3](number)


def _rows(number: int) -> None:
    import sqlalchemy as sa

    table = sa.Table(
        "numbers",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("square", sa.Integer),
    )
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"id": i, "square": i * i} for i in range(number % 50 + 1)])
        assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == number % 50 + 1
    engine.dispose()


def _orders(number: int) -> None:
    order = _order_model().model_validate(
        {"items": {str(i): {"name": f"{i}", "price": i} for i in range(number % 50)}}
    )
    assert len(order.model_dump_json()) > 10


def _groups(number: int) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {"key": [i % 7 for i in range(100 + number % 50)], "value": range(100 + number % 50)}
    )
    assert len(frame.groupby("key").agg({"value": ["mean", "max"]})) == 7


def _queries() -> None:
    import sqlalchemy as sa
    from sqlalchemy import orm

    registry = orm.registry()
    users = sa.Table(
        "users",
        registry.metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String),
    )
    mails = sa.Table(
        "mails",
        registry.metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.ForeignKey("users.id")),
        sa.Column("address", sa.String),
    )

    class User:
        def __init__(self, name: str, mails: list[Mail]) -> None:
            self.name, self.mails = name, mails

    class Mail:
        def __init__(self, address: str) -> None:
            self.address = address

    registry.map_imperatively(Mail, mails)
    registry.map_imperatively(User, users, properties={"mails": orm.relationship(Mail)})
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    registry.metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.add_all(
            User(f"user {i}", [Mail(f"{i}@example.org"), Mail(f"{i}@example.com")]) for i in range(40)
        )
        session.commit()
        count = sa.func.count(mails.c.id)
        rows = session.execute(sa.select(users.c.name, count).join(mails).group_by(users.c.name)).all()
    assert len(rows) == 40
    registry.dispose()
    engine.dispose()


def _models() -> None:
    order_model = _order_model()
    order = order_model.model_validate(
        {"items": {str(i): {"name": f"item {i}", "price": i} for i in range(50)}}
    )
    assert order_model.model_validate_json(order.model_dump_json()) == order


def _order_model() -> Any:
    import pydantic

    class Item(pydantic.BaseModel):
        name: str
        price: float = 0.0

    class Order(pydantic.BaseModel):
        items: dict[str, Item]
        note: str | None = None

    return Order


def _frames() -> None:
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"key": np.arange(2000) % 7, "value": np.arange(2000.0)})
    means = frame.groupby("key")["value"].agg(["mean", "sum"]).reset_index()
    assert len(means.merge(frame, on="key").sort_values("value").describe()) == 8
