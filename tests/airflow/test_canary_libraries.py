# SPDX-License-Identifier: Apache-2.0
"""Libraries that many use come through the canary, with the shipped list of what is harmless."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.fresh import run_fresh

pytestmark = pytest.mark.airflow

LIBRARIES = ["pydantic", "sqlalchemy.orm", "numpy", "pandas", "scipy.stats", "sklearn.linear_model",
             "matplotlib.pyplot", "pyarrow", "requests", "grpc", "airflow.sdk"]  # fmt: skip


@pytest.mark.parametrize("beside", ["", "import airflow.dag_processing.manager"])
def test_they_pass_one_after_the_other_in_one_process(tmp_path: Path, beside: str) -> None:
    verdicts = run_fresh(
        f"""
        import json, sys, warnings
        warnings.simplefilter("ignore")
        from frostfork import Canary, PreloadPolicy, find_installed
        {beside}
        policy = PreloadPolicy(find_installed())
        with Canary(seconds=60).start({LIBRARIES!r}, tolerates=policy.tolerates) as trial:
            verdicts = trial.wait(110)
            loaded = [name for name in {LIBRARIES!r} if name in sys.modules]
        refused = {{name: [list(finding) for finding in verdict.findings if not policy.tolerates(name, finding)]
                    for name, verdict in verdicts.items()}}
        refused.update((name, []) for name in loaded)
        print(json.dumps(refused))
        """,
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"},
    )
    assert set(verdicts) >= set(LIBRARIES)
    assert not {name: bad for name, bad in verdicts.items() if bad}
