# SPDX-License-Identifier: Apache-2.0
"""What the manager imports for its children cannot reach the metadata database, and the manager can afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.airflow.processor import Home

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(120)]
pytest.importorskip("airflow")

_SCRIPT = """
import os
from airflow import settings
from airflow.configuration import conf
from frostfork.airflow.no_database import AskedDatabaseError, no_database

settings.initialize()
before, address = dict(vars(settings)), conf.get("database", "sql_alchemy_conn")
variables = dict(os.environ)
assert "sqlite" in address, address


def refused(text):
    try:
        exec(text, {})
    except (ImportError, AttributeError, RuntimeError, AskedDatabaseError):
        return True
    return False


with no_database():
    from airflow.settings import Session
    assert Session is not before["Session"]
    assert refused("from airflow.settings import Session; Session()")
    assert refused("from airflow.settings import engine")
    assert refused("from airflow import settings; settings.configure_orm()")
    for asks in (
        "from airflow.models import Variable; Variable.get('x', default_var=1)",
        "from airflow.sdk import Variable; Variable.get('x', default=1)",
        "from airflow.models import Connection; Connection.get_connection_from_secrets('x')",
        "from airflow.sdk import Connection; Connection.get('x')",
        "from airflow.hooks.base import BaseHook; BaseHook.get_connection('x')",
    ):
        assert refused(asks), asks
    assert conf.get("database", "sql_alchemy_conn") == "airflow-db-not-allowed:///"
    assert "sqlite" not in settings.SQL_ALCHEMY_CONN
try:
    with no_database():
        raise SystemExit
except SystemExit:
    pass
after = dict(vars(settings))
assert all(after[name] is before[name] for name in before), {n for n in before if after.get(n) is not before[n]}
assert set(after) == set(before), set(after) ^ set(before)
assert dict(os.environ) == variables
from airflow.models import Variable
assert Variable.get("x", default_var=1) == 1
with settings.Session() as session:
    from sqlalchemy import text
    assert session.execute(text("select count(*) from dag")).scalar() == 0
print("as before")
"""


def test_the_database_is_hidden_and_comes_back(migrated_home: Path, tmp_path: Path) -> None:
    home = Home.make(migrated_home, tmp_path / "home")
    environment = home.environment(tmp_path, _AIRFLOW_PROCESS_CONTEXT="server")
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "as before" in done.stdout
