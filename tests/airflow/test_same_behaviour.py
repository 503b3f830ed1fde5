# SPDX-License-Identifier: Apache-2.0
"""Stock Airflow and frostfork over the same folder: what they leave in the metadata database, and how they end."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.processor import (
    COMMANDS,
    REPORTING,
    VARIANTS,
    Events,
    Home,
    Processor,
    dag,
    run_together,
    write,
)

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]
pytest.importorskip("airflow")
OURS = [name for name in VARIANTS if name != "stock"]
corpus = pytest.importorskip("frostfork._corpus.generate", reason="the generator comes with a wheel")

ROUNDS = 2  # the first is learned from, the second runs over what was learned

# Columns left out of the comparison, and why. All others are compared, in all tables.
CLOCK = "a time, a duration, or what Airflow computes from the present time"
IDENTITY = "a number or UUID made anew in every database, or a reference to one"
LEFT_OUT = {
    **dict.fromkeys(
        ("created_at", "updated_at", "last_updated", "timestamp", "dttm", "last_refreshed"), CLOCK
    ),
    **dict.fromkeys(("last_parsed_time", "last_parse_duration", "start_date", "end_date"), CLOCK),
    **dict.fromkeys(("latest_heartbeat", "next_dagrun", "next_dagrun_create_after"), CLOCK),
    **dict.fromkeys(("next_dagrun_data_interval_start", "next_dagrun_data_interval_end"), CLOCK),
    **dict.fromkeys(("id", "dag_version_id", "asset_id", "alias_id"), IDENTITY),
}
# Its start date is the time of its parse, and the hash is made of that.
UNSTABLE = "unstable_dag"

EXTRA = {
    "deep/er/still/nested.py": dag("nested_dag", "import uuid"),
    "ignored/never_seen.py": dag("ignored_dag"),
    "unstable.py": dag("placeholder").replace(
        'DAG("placeholder", schedule=None)', f'DAG("{UNSTABLE}", schedule=None, start_date=datetime.now())'
    ),
    "assets.py": dag("assets_dag")
    .replace("schedule=None", 'schedule=[Asset("in")]')
    .replace('task_id="only"', 'task_id="only", outlets=[Asset("out", uri="s3://bucket/out")]'),
    "tagged.py": dag("tagged_dag").replace("schedule=None", 'schedule=None, tags=["one", "two"]'),
    # Errors whose text has frames of the DAG file, of a local module, of an installed one and of importlib.
    "common/raises.py": "import numpy\n\n\ndef fail():\n    return numpy.linalg.inv(numpy.zeros((2, 2)))\n",
    "errors/through_helper.py": dag("helper_error_dag", "from common import raises", "raises.fail()"),
    "errors/missing_name.py": dag("name_error_dag", "from numpy import no_such_name"),
    "errors/by_importlib.py": dag("importlib_dag", "import importlib", "importlib.import_module('no.such')"),
    "common/imports_badly.py": "import numpy\nimport no_such_module\n",
    "errors/below.py": dag("below_dag", "import common.imports_badly"),
    "errors/chained.py": dag(
        "chained_dag",
        "try:",
        "    import no_such",
        "except ImportError as e:",
        "    raise OSError(2, 'x') from e",
    ),
    "notify.py": dag(
        "notify_dag",
        "import json, os, numpy",
        "def failed(context):",
        "    said = {'run': context['run_id'], 'why': context['reason'], 'numpy': numpy.__name__}",
        "    with open(os.environ['CALLBACKS'], 'a') as out:",
        "        out.write(json.dumps(said) + '\\n')",
    ).replace("schedule=None", "schedule=None, on_failure_callback=failed"),
}
EXTRA["unstable.py"] = "from datetime import datetime\n" + EXTRA["unstable.py"]
EXTRA["assets.py"] = "from airflow.sdk import Asset\n" + EXTRA["assets.py"]

QUEUE_CALLBACK = """
from airflow.callbacks.callback_requests import DagCallbackRequest
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
DatabaseCallbackSink().send(DagCallbackRequest(
    filepath="notify.py", bundle_name="dags-folder", bundle_version=None, msg="because",
    dag_id="notify_dag", run_id="run 7"))
"""


@pytest.fixture(scope="module")
def homes(migrated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Home]:
    """Homes after a run of each over one folder."""
    scratch = tmp_path_factory.mktemp("same")
    dags = scratch / "dags"
    files = corpus.generate(dags, files=11)
    assert {file.kind for file in files} == set(corpus.KINDS)
    write(dags, EXTRA)
    with (dags / ".airflowignore").open("a") as ignore:
        ignore.write("ignored/\n")
    with zipfile.ZipFile(dags / "packed.zip", "w") as packed:
        packed.writestr("packed.py", dag("packed_dag", "import packed_helper", "assert packed_helper.VALUE"))
        packed.writestr("packed_helper.py", "VALUE = 1\n")
    homes = {name: Home.make(migrated_home, scratch / name) for name in VARIANTS}
    runs = {}
    for name, (command, settings) in VARIANTS.items():
        home = homes[name]
        environment = home.environment(
            dags,
            enabled=True,
            core__dagbag_import_error_traceback_depth="50",
            frostfork__min_children="1",
            CALLBACKS=str(home.path / "callbacks"),
            **settings,
        )
        subprocess.run([sys.executable, "-c", QUEUE_CALLBACK], env=environment, check=True, timeout=60)
        assert len(home.rows("SELECT * FROM callback")) == 1
        # Ours with the report; it is the command that `frostfork airflow dag-processor` is, see test_help below.
        program = command if name == "stock" else REPORTING
        runs[name] = ((*program, "--num-runs", str(ROUNDS)), environment)
    for name, processor in run_together(runs).items():
        assert processor.wait() == 0, f"{name}:\n{processor.out[-3000:]}\n{processor.err[-3000:]}"
    return homes


def comparable(table: str, row: dict[str, Any]) -> str:
    kept = {name: value for name, value in row.items() if name not in LEFT_OUT}
    if table == "log":
        kept.pop("extra")  # the command line, with the path of the program
    if table == "serialized_dag":
        assert row["data_compressed"] is None
        data = json.loads(row["data"])  # as text, its keys come in any order
        if row["dag_id"] == UNSTABLE:
            del kept["dag_hash"], data["dag"]["start_date"]
        kept["data"] = json.dumps(data, sort_keys=True)
    return json.dumps(kept, sort_keys=True, default=repr)


@pytest.mark.parametrize("name", OURS)
def test_metadata_database(homes: dict[str, Home], name: str) -> None:
    """Every row of every table, but for the columns in LEFT_OUT."""
    stock, ours = homes["stock"].tables(), homes[name].tables()
    assert stock.keys() == ours.keys()
    differences = []
    for table in stock:
        left = [comparable(table, row) for row in stock[table]]
        right = [comparable(table, row) for row in ours[table]]
        for line in sorted(set(left) | set(right)):
            counts = left.count(line), right.count(line)
            if counts[0] != counts[1]:
                differences.append(f"{table}: {counts[0]} in stock, {counts[1]} in {name}: {line[:2000]}")
    assert not differences, "\n".join(differences)


def test_the_comparison_had_something_to_compare(homes: dict[str, Home]) -> None:
    """What the corpus is made for is in the database, so that equality means something."""
    ours = homes["frostfork"]
    errors = {row["filename"]: row["stacktrace"] for row in ours.rows("SELECT * FROM import_error")}
    assert {name for name in errors if name.startswith("errors/")} == {
        name for name in EXTRA if name.startswith("errors/")
    }
    assert len(errors) == 5 + 3  # errors/; missing module, syntax error, sys.exit
    assert "common/raises.py" in errors["errors/through_helper.py"]
    assert "site-packages/numpy/" in errors["errors/through_helper.py"]
    assert "importlib._bootstrap" in errors["errors/by_importlib.py"]
    assert "direct cause" in errors["errors/chained.py"]
    dags = {row["dag_id"] for row in ours.rows("SELECT dag_id FROM dag WHERE NOT is_stale")}
    assert {"nested_dag", "packed_dag", "tagged_dag", "notify_dag", UNSTABLE} < dags
    assert "ignored_dag" not in dags
    assert len(dags) > 100
    warned = {(row["dag_id"], row["warning_type"]) for row in ours.rows("SELECT * FROM dag_warning")}
    assert (UNSTABLE, "runtime varying value") in warned
    assert len(ours.rows("SELECT * FROM asset")) == 2


@pytest.mark.parametrize("name", OURS)
def test_parent_was_shared(homes: dict[str, Home], name: str) -> None:
    report = homes[name].report()
    assert (report["parent"] == report["pid"]) is (name == "no zygote")
    assert {"pandas", "sklearn"} <= set(report["preloaded"])
    assert not [name for name in report["preloaded"] if name.partition(".")[0] in ("common", "packed_helper")]


@pytest.mark.parametrize("name", VARIANTS)
def test_callback_ran_once(homes: dict[str, Home], name: str) -> None:
    said = (homes[name].path / "callbacks").read_text().splitlines()
    assert [json.loads(line) for line in said] == [{"run": "run 7", "why": "because", "numpy": "numpy"}]
    assert homes[name].rows("SELECT * FROM callback") == []


BLOCKS = dag(
    "block_{0}",
    "import os, time",
    "with open(os.environ['EVENTS'], 'a') as out: out.write('begun {0}\\n')",
    "time.sleep(600)",
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_in_a_round(migrated_home: Path, tmp_path: Path, number: int) -> None:
    """Both variants end, and take their children along."""
    dags = tmp_path / "dags"
    write(dags, {f"block_{index}.py": BLOCKS.format(index) for index in range(3)})
    codes, said = {}, {}
    with contextlib.ExitStack() as stack:
        running = {}
        for name, (command, settings) in VARIANTS.items():
            home = Home.make(migrated_home, tmp_path / name)
            events = stack.enter_context(Events(home.path / "events"))
            environment = home.environment(dags, EVENTS=str(events.path), **settings)
            running[name] = events, stack.enter_context(Processor(command, environment))
        for events, processor in running.values():
            begun = list(itertools.islice(events.lines(90), 2))  # as many as it has children at a time
            assert len(begun) == 2, processor.out + processor.err
            assert len(processor.look()) >= 2
            processor.signal(number)
        for name, (_, processor) in running.items():
            codes[name] = processor.wait(90)  # Airflow waits for each child up to 5 s, and for all once more
            assert processor.left_over() == [], name
            said[name] = processor.out + processor.err
    assert all(codes[name] == os.EX_OK for name in OURS), said
    # Stock Airflow ends with 1 if the signal comes while it forwards a child's log line: see test_signals.
    assert codes["stock"] in (os.EX_OK, 1), said


def outputs(
    migrated_home: Path, tmp_path: Path, *arguments: str, **settings: str
) -> tuple[dict[str, Processor], dict[str, Home]]:
    dags = tmp_path / "dags"
    write(dags, {"one.py": dag("one_dag")})
    homes = {name: Home.make(migrated_home, tmp_path / name) for name in COMMANDS}
    runs = {
        name: ((*command, *arguments), homes[name].environment(dags, **settings))
        for name, command in COMMANDS.items()
    }
    done = run_together(runs)
    return done, homes


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "--num-runs"),
        (["--no-such-flag"], 2, "unrecognized arguments: --no-such-flag"),
        (["--bundle-name", "nowhere"], 1, "nowhere"),
    ],
    ids=["help", "wrong flag", "unknown bundle"],
)
def test_flags_are_airflows(
    migrated_home: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done, _ = outputs(migrated_home, tmp_path, *arguments)
    shown = {}
    for name, processor in done.items():
        text = processor.out + processor.err
        assert processor.wait() == code, text
        assert said in text
        # The last line of an exception, without the frames above it, which name files and functions of the program.
        shown[name] = text if code != 1 else text.strip().splitlines()[-1]
    assert shown["stock"] == shown["frostfork"]


def test_bundle_name(migrated_home: Path, tmp_path: Path) -> None:
    """-B parses that bundle alone."""
    other = tmp_path / "other"
    write(other, {"two.py": dag("two_dag")})
    path = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [
        {"name": "first", "classpath": path, "kwargs": {"path": str(tmp_path / "dags")}},
        {"name": "second", "classpath": path, "kwargs": {"path": str(other)}},
    ]
    done, homes = outputs(
        migrated_home,
        tmp_path,
        *("-B", "second", "--num-runs", "1"),
        dag_processor__dag_bundle_config_list=json.dumps(bundles),
    )
    for name, processor in done.items():
        assert processor.wait() == 0, processor.out + processor.err
        found = homes[name].rows("SELECT dag_id, bundle_name FROM dag")
        assert found == [{"dag_id": "two_dag", "bundle_name": "second"}]
