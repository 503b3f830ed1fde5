# SPDX-License-Identifier: Apache-2.0
"""Work with a large library whose every result can be compared between processes.

    python library_work.py LIBRARY plain|warmed

Prints a JSON object: to where the work was done (the process itself; with "warmed" its children too), the results, a
list of [what, result]. Results hold values, reprs, exceptions and pickles, and no address, time or temporary name.
"""

# No `from __future__ import annotations`: the libraries read the annotations of classes made within a function.

import contextlib
import copy
import gc
import hashlib
import json
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

Results = list[tuple[str, str]]


class Notes:
    """Collects results; an exception is a result too."""

    def __init__(self) -> None:
        self.results: Results = []

    def value(self, what: str, value: object) -> None:
        self.results.append((what, repr(value)))

    def pickled(self, what: str, value: object) -> None:
        """The very bytes, and what comes back from them and from a copy."""
        data = pickle.dumps(value, protocol=4)
        self.results.append((f"{what}, pickled", hashlib.sha256(data).hexdigest()))
        self.results.append((f"{what}, from its pickle", repr(pickle.loads(data))))
        self.results.append((f"{what}, copied", repr(copy.deepcopy(value))))

    @contextlib.contextmanager
    def refused(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.results.append((what, f"{type(error).__module__}.{type(error).__qualname__}: {error}"))
        else:
            self.results.append((what, "no exception"))

    def dies(self, what: str, make: Callable[[], Any]) -> None:
        """Made after a warmup, an object ends like any other."""
        alive = weakref.ref(make())
        gc.collect()
        self.results.append((f"{what} ends", str(alive() is None)))


def numpy() -> Results:
    import numpy as np

    note = Notes()
    grid = np.arange(60, dtype="float64").reshape(6, 10)
    note.value("sums", (grid.sum(axis=0).tolist(), grid.mean(), grid.std()))
    note.value("shape of a product", (grid @ grid.T)[:2])
    note.value("chosen", grid[grid % 7 == 0])
    note.value("record", np.array([(1, "a"), (2, "b")], dtype=[("n", "i4"), ("s", "U3")]))
    note.value("random", np.random.default_rng(5).integers(0, 100, 8).tolist())
    note.pickled("array", grid[1])
    note.pickled("type", np.dtype([("n", "<i4"), ("s", "<U3")]))
    with note.refused("shapes that do not fit"):
        grid + np.ones(3)
    with np.errstate(divide="raise"), note.refused("division"):
        np.ones(2) / np.zeros(2)
    note.dies("array", lambda: np.ones(1000))
    return note.results


def pandas() -> Results:
    import pandas as pd

    note = Notes()
    frame = pd.DataFrame(
        {
            "team": ["red", "blue", "red", "green", "blue", "red"],
            "day": pd.to_datetime(
                ["2024-01-05", "2024-02-10", "2024-02-29", None, "2024-03-01", "2024-03-31"]
            ),
            "score": [3.5, 1.25, None, 8.0, 2.5, -1.0],
        }
    )
    note.value("frame", frame)
    note.value("types", frame.dtypes)
    note.value("groups", frame.groupby("team")["score"].agg(["sum", "mean", "count"]))
    note.value("months", frame.dropna().set_index("day").loc["2024-02":"2024-03", "score"])
    note.value("pivot", frame.assign(m=frame.day.dt.month).pivot_table("score", "team", "m", aggfunc="sum"))
    note.value("merged", frame.merge(pd.DataFrame({"team": ["red", "blue"], "home": ["A", "B"]}), how="left"))
    note.value("text", frame.team.str.upper().str.replace("E", "3").value_counts().sort_index())
    note.value("categories", frame.team.astype("category").cat.codes.tolist())
    note.value("windows", frame.score.rolling(2, min_periods=1).mean().tolist())
    note.value("applied", frame.apply(lambda row: f"{row.team}:{row.score}", axis=1).tolist())
    note.value("query", frame.query("score > 2 and team != 'blue'"))
    note.value("csv", frame.to_csv(index=False))
    note.value("json", frame.to_json(date_format="iso"))
    note.pickled("frame", frame)
    note.pickled("index", pd.MultiIndex.from_product([["a", "b"], [1, 2]]))
    with note.refused("missing column"):
        frame["absent"]
    with note.refused("bad date"):
        pd.to_datetime("2024-13-45")
    with note.refused("ambiguous truth"):
        bool(frame)
    note.dies("frame", frame.copy)
    return note.results


def sqlalchemy() -> Results:
    import sqlalchemy as sa
    from sqlalchemy import orm

    note = Notes()

    class Base(orm.DeclarativeBase):
        pass

    class Team(Base):
        __tablename__ = "team"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str] = orm.mapped_column(sa.String(20), unique=True)
        players: orm.Mapped[list["Player"]] = orm.relationship(back_populates="team")

    class Player(Base):
        __tablename__ = "player"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str]
        team_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("team.id"))
        team: orm.Mapped[Team] = orm.relationship(back_populates="players")

    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with orm.Session(engine) as session:
        for name in ("red", "blue"):
            session.add(Team(name=name, players=[Player(name=f"{name} {number}") for number in range(3)]))
        session.commit()
        counted = (
            sa.select(Team.name, sa.func.count(Player.id))
            .join(Player)
            .group_by(Team.name)
            .order_by(Team.name)
        )
        note.value("statement", str(counted))
        note.value("rows", session.execute(counted).all())
        loaded = sa.select(Team).options(orm.selectinload(Team.players)).order_by(Team.id)
        note.value("related", [(t.name, [p.name for p in t.players]) for t in session.scalars(loaded)])
        note.value("changed", session.execute(sa.update(Player).values(name=Player.name + "!")).rowcount)
        session.add(Team(name="red"))
        with note.refused("unique"):
            session.flush()
        session.rollback()
        with note.refused("one of two"):
            session.scalars(sa.select(Team)).one()
        note.dies("player", lambda: Player(name="nobody"))
    with note.refused("no such table"), engine.connect() as connection:
        connection.execute(sa.text("select * from absent"))
    note.value("table", repr(Team.__table__))
    note.value("mapper", orm.class_mapper(Player).column_attrs.keys())
    note.pickled("type", sa.Numeric(10, 2))
    note.value("dialects", [str(counted.compile(dialect=d.dialect())) for d in dialects()])
    engine.dispose()
    return note.results


def dialects() -> list[Any]:
    from sqlalchemy.dialects import mysql, postgresql

    return [mysql, postgresql]


def pydantic() -> Results:
    import datetime
    import enum
    from typing import Annotated, Generic, Literal, TypeVar, Union

    from pydantic import BaseModel, Field, RootModel, TypeAdapter, ValidationError, field_validator

    note = Notes()
    item = TypeVar("item")

    class Color(enum.Enum):
        RED = "red"
        BLUE = "blue"

    class Cat(BaseModel):
        kind: Literal["cat"]
        lives: int = 9

    class Dog(BaseModel):
        kind: Literal["dog"]
        color: Color

    class Page(BaseModel, Generic[item]):
        items: list[item]
        when: datetime.date = datetime.date(2024, 2, 29)
        size: Annotated[int, Field(gt=0, le=10)] = 5

        @field_validator("size")
        @classmethod
        def even_or_five(cls, value: int) -> int:
            if value % 2 and value != 5:
                raise ValueError("neither even nor five")
            return value

    pet = TypeAdapter(Annotated[Union[Cat, Dog], Field(discriminator="kind")])  # noqa: UP007 - the older form counts
    note.value(
        "pets",
        [
            pet.validate_python({"kind": "cat", "lives": "7"}),
            pet.validate_json('{"kind":"dog","color":"red"}'),
        ],
    )
    pages = Page[int].model_validate({"items": ["1", 2, 3.0]})
    note.value("page", pages)
    note.value("json", pages.model_dump_json())
    note.value("schema", json.dumps(Page[int].model_json_schema()))
    note.value("root", RootModel[dict[str, int]].model_validate({"a": 1}))
    for what, data in (
        ("wrong item", {"items": ["x"]}),
        ("too big", {"items": [], "size": 11}),
        ("odd", {"items": [], "size": 3}),
        ("missing", {}),
    ):
        try:
            Page[int].model_validate(data)
        except ValidationError as error:
            note.value(what, error.errors(include_url=False, include_context=False))
    with note.refused("unknown kind"):
        pet.validate_python({"kind": "cow"})
    note.pickled("schema field", Field(default=3, gt=1).metadata)
    note.value("copied", pages.model_copy(update={"size": 4}, deep=True))
    note.dies("model", lambda: Cat(kind="cat"))
    return note.results


WORK: dict[str, Callable[[], Results]] = {
    "numpy": numpy, "pandas": pandas, "sqlalchemy": sqlalchemy, "pydantic": pydantic,
}  # fmt: skip


def warm() -> None:
    import frostfork

    steps = frostfork.warmup().steps.values()
    assert not [step for step in steps if step.status == "failed"], steps


def main() -> None:
    library, how = sys.argv[1:]
    work = WORK[library]
    if how == "plain":
        json.dump({"plain": work()}, sys.stdout)
        return
    import frostfork
    from tests.integration.forking import run_child

    __import__(library)
    done = {}
    warm()
    done["child"] = run_child(work, frostfork.fork)
    done["parent"] = work()
    # Again, when the library has filled its caches: these are warmed too.
    warm()
    done["child of a parent that worked"] = run_child(work, frostfork.fork)
    done["parent, warmed twice"] = work()
    json.dump(done, sys.stdout)


if __name__ == "__main__":
    main()
