# SPDX-License-Identifier: Apache-2.0
"""`frostfork analyze PATH...`: what files import, what of it they have in common, and what a preload would save."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from frostfork import analyze as engine
from frostfork.airflow.settings import is_pattern
from frostfork.beginnings import names_in
from frostfork.canary import Canary
from frostfork.cli import analyze_report
from frostfork.cli.output import replace_file, writing
from frostfork.errors import LedgerError
from frostfork.preload import Plan, PreloadPolicy, Verdict, codec, tables
from frostfork.preloader import find_installed

# Files that are run both ways for the estimate: all of a small folder, for what is left out is guessed; of a larger one
# as many as this time allows, but at least so many.
_ALL = 64
_VERIFY_SECONDS = 12.0
_VERIFIED = 8
_AIRFLOW = "frostfork.airflow.analysis"


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--ledger", type=click.Path(path_type=Path), help="Read what a live processor has learned; run nothing."
)
@click.option(
    "--airflow/--no-airflow", default=None, help="DAG files by Airflow's rules. Default: where files look so."
)
@click.option(
    "--jobs", type=click.IntRange(1), default=None, help="Files at a time.  [default: the processors]"
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 1e6),
    default=60.0,
    show_default=True,
    help="Seconds for one file.",
)
@click.option(
    "--memory",
    type=click.IntRange(64, 1 << 40),
    default=4096,
    show_default=True,
    help="MB of data for one process.",
)
@click.option(
    "--share/--no-share", default=True, help="Import once what many files begin with.  [default: share]"
)
@click.option(
    "--verify/--no-verify", default=True, help="Run some files both ways for the estimate.  [default: verify]"
)
@click.option(
    "--canary/--no-canary", default=True, help="Try in a canary what would be preloaded.  [default: canary]"
)
@click.option(
    "--deny", multiple=True, metavar="MODULE", help="Never preload this one, with all below. May be repeated."
)
@click.option(
    "--min-files", type=click.IntRange(1), default=1, show_default=True, help="Preload what so many import."
)
@click.option("--top", type=click.IntRange(0), default=15, show_default=True, help="Lines of each table.")
@click.option("--json", "as_json", is_flag=True, help="Write all of it as JSON to standard output.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with figures to this file."
)
@click.pass_context
def analyze(
    context: click.Context,
    paths: tuple[Path, ...],
    ledger: Path | None,
    airflow: bool | None,
    jobs: int | None,
    timeout: float,
    memory: int,
    share: bool,
    verify: bool,
    canary: bool,
    deny: tuple[str, ...],
    min_files: int,
    top: int,
    as_json: bool,
    html: Path | None,
) -> None:
    """What DAG files or scripts import, what of it they have in common, and what a preload would save.

    PATH is a file or a folder, which is searched for .py files. Each file runs in a process of its own, which is ended
    when its time is over. Files are imported, not run as __main__: code under `if __name__ == "__main__":` stays out.
    """
    if bool(paths) == (ledger is not None):
        raise click.UsageError("Give one or more paths, or else a ledger with --ledger.")
    if math.isnan(timeout):  # which lies in every range
        raise click.UsageError("--timeout: nan is no number of seconds.")
    for name in deny:
        if not is_pattern(name):
            raise click.UsageError(f"--deny: {name!r} is no name of a module, in which * may stand.")
    if html is not None:
        _check_page(html)
    policy = PreloadPolicy(installed=find_installed(), deny=deny, min_files=min_files)
    limits = engine.Limits(timeout, memory << 20, jobs or len(os.sched_getaffinity(0)))
    with _terminable():
        try:
            if ledger is not None:
                found, plan, estimate = _read(ledger, policy)
            else:
                found, plan, estimate = _run(paths, airflow, limits, policy, share, verify, canary)
        except engine.AnalyzeError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted before any file had run.", err=True)
            context.exit(128 + signal.SIGINT)
    decisions = {name: (each.preload, each.reason) for name, each in plan.decisions.items()}
    made = tables.tables(found.ledger, decisions, analyze_report.distributions(policy.installed), estimate)
    result = analyze_report.assemble(found, made, plan, policy)
    unwritten = False
    if html is not None:
        from frostfork.cli.analyze_html import page

        try:
            replace_file(html, page(result))
        except OSError as error:  # what was found is not lost for that
            click.echo(f"Error: {html} cannot be written: {error.strerror}.", err=True)
            unwritten = True
    with writing():
        if as_json:
            click.echo(json.dumps(result, indent=2))
        else:
            analyze_report.show(result, Console(), top)
    if html is not None and not unwritten:
        click.echo(f"The page is in {html}.", err=True)
    if not found.complete:
        click.echo(
            f"Interrupted: this is what was known after {len(found.runs)} of {found.files} files.", err=True
        )
        context.exit(128 + signal.SIGINT)
    if unwritten:
        context.exit(1)


def _check_page(path: Path) -> None:
    if importlib.util.find_spec("plotly") is None:
        raise click.UsageError(
            "--html needs plotly, which is not installed here: pip install 'frostfork[html]'."
        )
    if not path.absolute().parent.is_dir():
        raise click.UsageError(f"--html: there is no folder {path.parent}.")


def _read(path: Path, policy: PreloadPolicy) -> tuple[engine.Analysis, Plan, tables.Estimate]:
    try:
        if path.exists() and not path.is_file():  # a pipe would block, a device need not end
            raise engine.AnalyzeError(f"{path} is no file.")
        with path.open("rb") as file:
            known = codec.from_bytes(file.read(codec.MAX_BYTES + 1))
    except OSError as error:
        raise engine.AnalyzeError(f"{path} cannot be read: {error.strerror}.") from error
    except LedgerError as error:
        raise engine.AnalyzeError(f"{path} is no ledger: {error}.") from error
    found = engine.Analysis(known, files=len(known.sources))
    found.notes.append("Read from a ledger: what the processor's parent had imported already is not in it.")
    return found, policy.plan(known), tables.Estimate()


def _run(
    paths: Sequence[Path],
    airflow: bool | None,
    limits: engine.Limits,
    policy: PreloadPolicy,
    share: bool,
    verify: bool,
    canary: bool,
) -> tuple[engine.Analysis, Plan, tables.Estimate]:
    scripts, folders = _listed(paths)
    as_dags = _looks_like_airflow(scripts) if airflow is None else airflow
    if as_dags and importlib.util.find_spec("airflow") is None:
        raise click.UsageError("Apache Airflow is not installed here: pip install 'frostfork[airflow]'.")
    with contextlib.ExitStack() as stack:
        shown = stack.enter_context(_Shown())
        environment = _environment(stack) if as_dags else None
        runner = stack.enter_context(engine.Runner(limits, _AIRFLOW if as_dags else None, environment))
        shown.progress(0, 0, "importing Airflow" if as_dags else "preparing")
        runner.prepare()
        if as_dags and folders:
            single = [script for script in scripts if script.root not in folders]
            scripts = sorted({*runner.list_files(folders), *single})
        if not scripts:
            what = "DAG file by Airflow's rules" if as_dags else ".py file"
            raise engine.AnalyzeError(f"There is no {what} in {', '.join(map(str, paths))}.")
        found = engine.analyze(runner, scripts, shown.progress, share=share)
        if not found.runs and not found.complete:
            raise KeyboardInterrupt
        local = [
            names_in(folder) for script in scripts for folder in {script.root, os.path.dirname(script.path)}
        ]
        names: frozenset[str] = frozenset().union(*local)
        plan = policy.plan(found.ledger, loaded=found.loaded, local_names=names)
        estimate = tables.Estimate()
        try:
            if canary and found.complete:
                with shown.paused("trying in a canary what would be preloaded"):
                    verdicts = _verdicts(policy, plan, names)
                plan = policy.plan(found.ledger, loaded=found.loaded, local_names=names, verdicts=verdicts)
            if verify and found.complete:
                estimate = _verified(runner, scripts, found, plan, shown)
        except KeyboardInterrupt:
            found.complete = False
    return found, plan, estimate


def _verdicts(policy: PreloadPolicy, plan: Plan, local_names: frozenset[str]) -> dict[str, Verdict]:
    """What a child of this process finds when it imports the plan, as a parent's canary would."""
    try:
        trial = Canary().start(
            plan.order, deny=policy.forbidden, local_names=local_names, tolerates=policy.tolerates
        )
    except OSError as error:
        raise engine.AnalyzeError(
            f"No canary could be started: {error.strerror}. See --no-canary."
        ) from error
    with trial:
        return trial.wait()


def _verified(
    runner: engine.Runner,
    scripts: Sequence[engine.Script],
    found: engine.Analysis,
    plan: Plan,
    shown: _Shown,
) -> tables.Estimate:
    """Run some files both ways; a plan that ends its parent leaves the estimate to the imports' own seconds."""
    chosen = [name for name, decision in plan.decisions.items() if decision.preload]
    seconds = tables.preloaded_seconds(found.ledger, chosen)
    good = {
        path: seconds.get(path, 0.0) for path, run in found.runs.items() if run.outcome in ("ok", "failed")
    }
    mean = sum(found.runs[path].cpu_seconds for path in good) / max(1, len(good))
    most = _ALL if len(good) <= _ALL else max(_VERIFIED, int(_VERIFY_SECONDS / max(mean, 0.01)))
    wanted = set(tables.sample(good, most))
    files = [script for script in scripts if script.path in wanted]
    found.pairs = engine.verify(runner, files, plan.order, shown.progress)
    if len(found.pairs) < len(files):
        found.notes.append(
            "The estimate could not be verified: a parent that imported the plan did not come to run the files."
        )
        found.pairs = []
        return tables.Estimate()
    return tables.fit((seconds.get(path, 0.0), plain, preloaded) for path, plain, preloaded in found.pairs)


def _listed(paths: Sequence[Path]) -> tuple[list[engine.Script], list[str]]:
    """All .py files that the paths name, each once, and those of the paths that are folders."""
    found: dict[str, engine.Script] = {}
    folders = []
    for path in paths:
        place = os.path.abspath(path)
        if os.path.isdir(place):
            folders.append(place)
            for parent, below, names in os.walk(place):
                below[:] = sorted(name for name in below if not _is_passed_over(parent, name))
                for name in sorted(names):
                    if name.endswith(".py") and os.path.isfile(
                        os.path.join(parent, name)
                    ):  # a pipe would block
                        found.setdefault(
                            os.path.join(parent, name), engine.Script(os.path.join(parent, name), place)
                        )
        elif os.path.isfile(place):
            found.setdefault(place, engine.Script(place, os.path.dirname(place)))
        else:
            raise click.UsageError(f"There is no file or folder {path}.")
    return list(found.values()), folders


def _is_passed_over(parent: str, name: str) -> bool:
    """Hidden folders, bytecode, and virtual environments."""
    return (
        name.startswith(".")
        or name == "__pycache__"
        or os.path.exists(os.path.join(parent, name, "pyvenv.cfg"))
    )


def _looks_like_airflow(scripts: Sequence[engine.Script]) -> bool:
    """Whether Airflow is here, and would look for DAGs in one of these files: its own rule of thumb."""
    if importlib.util.find_spec("airflow") is None:
        return False
    for script in scripts:
        with contextlib.suppress(OSError):
            text = Path(script.path).read_bytes().lower()
            if b"airflow" in text and (b"dag" in text or b"asset" in text):
                return True
    return False


def _environment(stack: contextlib.ExitStack) -> dict[str, str]:
    """This process's environment. Airflow makes a home where it finds none: not in that of whoever only asks."""
    environment = dict(os.environ)
    if "AIRFLOW_HOME" not in environment and not os.path.exists(os.path.expanduser("~/airflow")):
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="frostfork-airflow-"))
        environment["AIRFLOW_HOME"] = home
    return environment


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, and the end of the terminal, end it as Ctrl-C does: no process and no folder stays behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}  # nohup
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Shown:
    """Progress on standard error: a bar on a terminal, else a line for each thing that is begun."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        if console.is_terminal:
            columns = (
                TextColumn("{task.description:34}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> _Shown:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @contextlib.contextmanager
    def paused(self, what: str) -> Iterator[None]:
        """Without the bar, whose thread a process that forks had better not have."""
        self.__exit__()
        click.echo(what, err=True)
        try:
            yield
        finally:
            self.__enter__()

    def progress(self, done: int, total: int, what: str) -> None:
        if self._bar is None:
            if what != self._what:
                click.echo(what, err=True)
        elif self._task is None or what != self._what:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(what, total=total or None, completed=done)
        else:
            self._bar.update(self._task, total=total or None, completed=done)
        self._what = what
