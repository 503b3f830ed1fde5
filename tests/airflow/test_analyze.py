# SPDX-License-Identifier: Apache-2.0
"""`frostfork analyze` over DAG files, as Airflow finds and parses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]
pytest.importorskip("airflow")

DAG = """
from datetime import datetime
{imports}
from airflow.sdk import DAG

with DAG(dag_id="{name}", schedule=None, start_date=datetime(2024, 1, 1)):
    pass
"""


def result(folder: Path, *options: str, **env: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "frostfork", "analyze", "--json", *options, str(folder)],
        capture_output=True, text=True, timeout=250, check=False, env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    (folder / "team").mkdir(parents=True)
    (folder / "common").mkdir()
    files = {
        "one": "import wave", "team/two": "import wave\nfrom common.help import x", "missing": "import nowhere_at_all",
        "exits": "import sys; sys.exit(1)", "ignored": "import wave",
    }  # fmt: skip
    for name, imports in files.items():
        (folder / f"{name}.py").write_text(DAG.format(imports=imports, name=Path(name).stem))
    (folder / "common" / "help.py").write_text(
        "import mailcap\nx = 1\n" if sys.version_info < (3, 13) else "x = 1\n"
    )
    (folder / "helper.py").write_text("import wave\n")
    (folder / ".airflowignore").write_text("ignored.py\n")
    return folder


def test_files_are_those_that_airflow_parses_and_fail_as_there(dags: Path, tmp_path: Path) -> None:
    found = result(dags, AIRFLOW_HOME=str(tmp_path / "home"))
    sources = {os.path.relpath(source["path"], dags): source for source in found["sources"]}
    assert {name: source["outcome"] for name, source in sources.items()} == {
        "one.py": "ok", "team/two.py": "ok", "missing.py": "failed", "exits.py": "failed",
    }  # fmt: skip
    assert "No module named 'nowhere_at_all'" in sources["missing.py"]["error"]
    modules = {module["name"]: module for module in found["modules"]}
    assert modules["wave"]["files"] == 2, "not the files that Airflow leaves out"
    assert modules["wave"]["preload"] is True
    assert modules["common.help"]["preload"] is False
    assert modules["common.help"]["distribution"] == "your own code"
    assert not any(name.startswith("unusual_prefix_") for name in found["plan"]["order"])
    assert "sqlalchemy" not in modules, "the processor's own parent has it"
    estimate = found["estimate"]
    assert estimate["verified_files"] == 4
    assert 0 < estimate["preloaded_cpu_seconds"] < estimate["plain_cpu_seconds"]


def test_without_airflow_they_are_scripts(dags: Path, tmp_path: Path) -> None:
    found = result(dags, "--no-airflow", "--no-verify", AIRFLOW_HOME=str(tmp_path / "home"))
    names = {os.path.relpath(source["path"], dags) for source in found["sources"]}
    assert {"helper.py", "ignored.py", "common/help.py"} <= names
    modules = {module["name"]: module for module in found["modules"]}
    assert modules["airflow.sdk"]["files"] == 2, (
        "a bare Python imports Airflow itself, in the files that get there"
    )
