# SPDX-License-Identifier: Apache-2.0
"""`frostfork demo`: Airflow's own DAG processor over one folder twice, stock and with frostfork, side by side."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import re
import signal
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from frostfork.cli.output import writing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frostfork.airflow.measure.runs import Setting

_OLDEST_AIRFLOW = (3, 3)


@click.command()
@click.option(
    "--dags",
    type=click.Path(path_type=Path),
    help="A folder of DAG files. Default: one that is made for the demo, of 40 files.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=4, show_default=True, help="Timed rounds.")
@click.option(
    "--processes", type=click.IntRange(min=1), default=2, show_default=True, help="Parsing processes."
)
@click.option(
    "--zygote/--no-zygote",
    default=None,
    help="Whether frostfork forks the parsing processes from a zygote, or the manager does. "
    "Default: as [frostfork] zygote has it.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON to standard output.")
@click.pass_context
def demo(
    context: click.Context, dags: Path | None, rounds: int, processes: int, zygote: bool | None, as_json: bool
) -> None:
    """Run Airflow's DAG processor over a folder twice, stock and with frostfork, and compare.

    Each run has an AIRFLOW_HOME of its own with a SQLite database. First come rounds in which frostfork
    learns, at least two, until nothing is left to learn; then the timed ones; then two in which memory is sampled.
    """
    airflow = _airflow_version()
    with _terminable(), contextlib.ExitStack() as stack:
        try:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="frostfork-demo-")))
            folder = _made(scratch / "dags") if dags is None else _checked(dags)
            result = _measure(folder, rounds, processes, scratch / "homes", zygote)
        except KeyboardInterrupt:
            stack.close()
            click.echo("Interrupted.", err=True)
            context.exit(128 + signal.SIGINT)
    result["environment"]["airflow"] = airflow
    if as_json:
        with writing():
            click.echo(json.dumps(result, indent=2))
        return
    from frostfork.airflow.measure import report

    with writing():
        report.show(result, Console())


def _measure(folder: Path, rounds: int, processes: int, homes: Path, zygote: bool | None) -> dict[str, Any]:
    from frostfork.airflow.measure import runs, summary
    from frostfork.airflow.measure.background import RunError
    from frostfork.airflow.provider import default_of

    setting = runs.Setting(folder, rounds, processes, homes, zygote)
    kinds = _kinds(folder)
    measured = {}
    with _Shown(setting) as shown:
        try:
            shown.begin("making a metadata database")
            runs.migrate(setting)
            for variant in runs.VARIANTS:
                shown.begin(variant)
                measured[variant] = runs.run(variant, setting, shown.parsed)
        except RunError as error:
            raise click.ClickException(str(error)) from error
        except runs.NothingParsedError as error:
            raise click.UsageError(str(error)) from error
    result: dict[str, Any] = {
        variant: summary.summarize(measured[variant], kinds, rounds) for variant in runs.VARIANTS
    }
    result["ratio"] = summary.ratio(result["stock"], result["frostfork"])
    result["rounds"] = rounds
    result["files"] = max(result[variant]["files"] for variant in runs.VARIANTS)
    ours = measured["frostfork"]
    result["preload"] = {"preloaded": ours.preloaded, "refused": ours.refused}
    result["warmups"] = ours.warmups
    result["environment"] = {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "frostfork": metadata.version("frostfork"),
        "processes": processes,
        "zygote": default_of("zygote") == "True" if zygote is None else zygote,
    }
    return result


def _airflow_version() -> str:
    """Return the version of the Airflow that is installed; click.UsageError if there is none that will do."""
    if importlib.util.find_spec("airflow") is None:
        raise click.UsageError("Apache Airflow is not installed here: pip install 'frostfork[airflow]'.")
    version = "an unknown version"
    for name in ("apache-airflow", "apache-airflow-core"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            version = metadata.version(name)
            break
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _OLDEST_AIRFLOW:
        raise click.UsageError(f"The demo needs Apache Airflow 3.3 or newer; {version} is installed.")
    return version


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise click.UsageError(f"--dags: there is no folder {folder}.")
    if next(folder.rglob("*.py"), None) is None:
        raise click.UsageError(f"--dags: {folder} holds no .py file.")
    return folder.resolve()


def _made(folder: Path) -> Path:
    """Make the demo's own folder of DAG files. Its generator comes with a wheel, but not with the source alone."""
    try:
        from frostfork._corpus.generate import generate
    except ImportError:
        raise click.UsageError(
            "This frostfork has no DAG files of its own to run over: give a folder with --dags."
        ) from None
    missing = [name for name in ("matplotlib", "pandas", "pyarrow", "scipy", "sklearn") if not _found(name)]
    if missing:
        raise click.UsageError(
            f"The demo's DAG files import {', '.join(missing)}: install what is missing, or give --dags."
        )
    generate(folder)
    return folder


def _found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _kinds(folder: Path) -> dict[str, str]:
    """Read the manifest that a generated corpus has beside it; a user's folder has none."""
    manifest = folder.with_name(folder.name + ".manifest.json")
    if not manifest.is_file():
        return {}
    try:
        kinds = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.UsageError(f"{manifest} is no manifest of a generated folder: {error}.") from error
    if not isinstance(kinds, dict):
        raise click.UsageError(f"{manifest} is no manifest of a generated folder.")
    return {str(path): str(kind) for path, kind in kinds.items()}


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that no process and no folder stays behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Shown:
    """Progress on standard error: a bar on a terminal, else a line for each round."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._round = 0
        if console.is_terminal:
            columns = (TextColumn("{task.description:40}"), BarColumn(), TimeElapsedColumn())
            # Seldom refreshed: what this process does takes its time from the measured ones.
            self._bar = Progress(*columns, console=console, refresh_per_second=2)

    def __enter__(self) -> _Shown:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, what: str) -> None:
        self._what, self._round = what, 0
        if self._bar is None:
            click.echo(what, err=True)
            return
        if self._task is not None:
            self._bar.update(self._task, total=1, completed=1)
        self._task = self._bar.add_task(what, total=None)

    def parsed(self, parses: int, files: int, learning: int | None) -> None:
        """Show how far the run is: so many parses, of so many files seen up to now.

        learning: how many rounds of it there are, once that is known.
        """
        # In the first round every parse is of a file that is new, so how many there are is still unknown.
        done = parses // files if parses > files else 0
        rounds = None if learning is None else self._setting.all_rounds(learning)
        what = f"{self._what}, which learns" if rounds is None and done else self._what
        of = "" if rounds is None else f" of {rounds}"
        if self._bar is not None and self._task is not None:
            text = f"{what}: round {done + 1 if rounds is None else min(done + 1, rounds)}{of}"
            total = None if rounds is None else rounds * files
            completed = parses if total is None else min(parses, total)
            self._bar.update(self._task, description=text, completed=completed, total=total)
        elif done > self._round:
            click.echo(f"{what}: round {done if rounds is None else min(done, rounds)}{of} done", err=True)
        self._round = max(done, self._round)
