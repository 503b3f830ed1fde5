# SPDX-License-Identifier: Apache-2.0
"""Generated DAG files with heavy libraries at top level, directly or through a module of the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import body

if TYPE_CHECKING:
    import random

# Modules of the folder that are no DAG files. None may hold both of the words "dag" and "airflow", by which
# Airflow takes a file for one; the folder's .airflowignore names them as well.
HELPERS = {
    "common/__init__.py": "",
    "common/frames.py": '''"""Small frame tools that several teams share."""

from __future__ import annotations

import numpy as np
import pandas as pd

CALENDAR = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=366)})


def weekly(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame.groupby(frame["day"].dt.isocalendar().week)[[column]].sum()


def clip(values: np.ndarray, share: float = 0.01) -> np.ndarray:
    low, high = np.quantile(values, [share, 1 - share])
    return np.clip(values, low, high)
''',
    "common/warehouse.py": '''"""Reads from the warehouse and writes to it."""

from __future__ import annotations

import pandas as pd
from sqlalchemy import create_engine, text

from common.frames import CALENDAR


def read(query: str, url: str = "sqlite://") -> pd.DataFrame:
    with create_engine(url).connect() as connection:
        return pd.read_sql(text(query), connection)


def days() -> int:
    return len(CALENDAR)
''',
    "common/quality.py": '''"""Checks that run before anything is published."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Check:
    column: str
    most_missing: float = 0.05

    def holds(self, frame: pd.DataFrame) -> bool:
        return bool(np.mean(frame[self.column].isna()) <= self.most_missing)
''',
}


def pandas(rng: random.Random, name: str) -> str:
    """pandas, often with numpy, at top level."""
    made = body.source(rng, name)
    made.imports.add("import pandas as pd")
    column = rng.choice(body.SUBJECTS)
    if rng.random() < 0.6:
        made.imports.add("import numpy as np")
        made.top.append(f"WEIGHTS = np.linspace(0, 1, {rng.randint(5, 50)})")
    if rng.random() < 0.3:
        made.imports.add("from pandas.tseries.offsets import BDay")
        made.top.append(f"LAST = pd.Timestamp(2024, {rng.randint(1, 12)}, 15) - BDay({rng.randint(1, 9)})")
    if rng.random() < 0.5:
        rates = {subject: rng.randint(1, 99) / 100 for subject in rng.sample(body.SUBJECTS, 4)}
        made.top.append(f'RATES = pd.Series({rates!r}, name="rate")')
    made.top += [
        "",
        "",
        "def summarise(frame: pd.DataFrame) -> pd.DataFrame:",
        f'    return frame.groupby("{column}").agg(["sum", "mean"])',
    ]
    steps = [
        ("read", [f'return pd.read_csv("/data/in/{column}.csv").to_dict("list")']),
        ("total", ['return summarise(pd.DataFrame(data)).to_dict("list")']),
    ]
    body.add_dag(rng, made, name, [body.flow(steps)])
    return made.text()


def helper(rng: random.Random, name: str) -> str:
    """The same weight, but through a module of the folder."""
    made = body.source(rng, name)
    column = rng.choice(body.SUBJECTS)
    which = rng.choice(("frames", "warehouse", "quality"))
    if which == "frames":
        made.imports.add("from common.frames import CALENDAR, weekly")
        steps = [("sum_up", [f'return weekly(CALENDAR.assign({column}=1), "{column}").to_dict("list")'])]
    elif which == "warehouse":
        made.imports.add("from common.warehouse import days, read")
        made.top.append("DAYS = days()")
        steps = [("fetch", [f'return read("select {rng.randint(1, 99)} as {column}").to_dict("list")'])]
    else:
        made.imports.add("from common.quality import Check")
        made.top.append(
            f'CHECKS = [Check("{column}"), Check("amount", most_missing={rng.randint(1, 20) / 100})]'
        )
        steps = [("check", ["return [check.column for check in CHECKS]"])]
    body.add_dag(rng, made, name, [body.flow(steps)])
    return made.text()


def huge(rng: random.Random, name: str) -> str:
    """Everything that a team of data scientists may import, in the one file that needs it."""
    made = body.source(rng, name)
    made.imports |= {
        "import matplotlib.pyplot as plt",
        "import numpy as np",
        "import pandas as pd",
        "import pyarrow as pa",
        "import pyarrow.parquet as pq",
        "from scipy import stats",
        "from sklearn.ensemble import RandomForestRegressor",
        "from sklearn.model_selection import train_test_split",
        "from sklearn.pipeline import make_pipeline",
        "from sklearn.preprocessing import StandardScaler",
    }
    made.top += [
        'plt.switch_backend("Agg")',
        f"FOREST = RandomForestRegressor(n_estimators={rng.randint(50, 300)})",
        "MODEL = make_pipeline(StandardScaler(), FOREST)",
        'SCHEMA = pa.schema([("id", pa.int64()), ("score", pa.float64())])',
    ]
    steps = [
        (
            "read",
            ['return pd.DataFrame({"x": np.arange(100), "y": stats.norm.rvs(size=100)}).to_dict("list")'],
        ),
        (
            "train",
            [
                'left, right, low, high = train_test_split(np.array(data["x"]).reshape(-1, 1), data["y"])',
                "MODEL.fit(left, low)",
                "return float(MODEL.score(right, high))",
            ],
        ),
        (
            "report",
            [
                "plt.bar([0], [data])",
                'plt.savefig("/data/out/score.png")',
                'table = pa.table({"id": [1], "score": [data]}, schema=SCHEMA)',
                'pq.write_table(table, "/data/out/score.parquet")',
            ],
        ),
    ]
    body.add_dag(rng, made, name, [body.flow(steps)])
    return made.text()
