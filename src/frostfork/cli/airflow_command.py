# SPDX-License-Identifier: Apache-2.0
"""`frostfork airflow ...`: Airflow's components over a shared parent."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from frostfork.cli.output import check_stdout, writing
from frostfork.errors import FrostforkError

if TYPE_CHECKING:
    from frostfork.airflow.explain import Explanation

_OFF = (
    "frostfork is off for the DAG processor, so Airflow's own runs. To switch it on, set [frostfork] enabled = True in "
    "airflow.cfg or AIRFLOW__FROSTFORK__ENABLED=True (and leave dag-processor in [frostfork] components)."
)

_FILES_SHOWN = 3


@click.group()
def airflow() -> None:
    """Airflow's components over a shared parent."""
    if importlib.util.find_spec("airflow") is None:
        raise click.ClickException("Airflow is not installed here: pip install 'frostfork[airflow]'")


# Airflow parses its own flags, --help included: nothing of them is known here.
@airflow.command(
    "dag-processor",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dag_processor(arguments: tuple[str, ...]) -> None:
    """Airflow's DAG processor; takes the flags of `airflow dag-processor`.

    The parent imports what its children import, so that they need not. `[frostfork] enabled` in Airflow's
    configuration switches it on; where it is off, Airflow's own manager runs.
    """
    try:
        from frostfork.airflow.command import run_dag_processor
        from frostfork.airflow.settings import load

        manager: type
        if load().covers("dag-processor"):
            from frostfork.airflow.manager import SharedParentManager

            manager = SharedParentManager
        else:
            click.echo(_OFF, err=True)
            from airflow.dag_processing.manager import DagFileProcessorManager

            manager = DagFileProcessorManager
        run_dag_processor(arguments, manager)
        if getattr(manager, "begin_again", False):
            _begin_again()
    except FrostforkError as error:
        raise click.ClickException(str(error)) from error


@airflow.command()
@click.argument("module")
@click.option(
    "--canary/--no-canary", default=True, show_default=True, help="Import it in a sacrificial child."
)
@click.option("--json", "as_json", is_flag=True, help="Write the answer as JSON to standard output.")
def explain(module: str, canary: bool, as_json: bool) -> None:
    """Say why the DAG processor's parent does or does not import MODULE.

    It asks the ledger that `frostfork airflow dag-processor` keeps, and the same settings.
    """
    check_stdout()
    try:
        from frostfork.airflow.explain import explain as ask

        with contextlib.redirect_stdout(sys.stderr):  # Airflow's log
            found = ask(module, canary=canary)
    except FrostforkError as error:
        raise click.ClickException(str(error)) from error
    with writing():
        if as_json:
            click.echo(json.dumps(found.to_dict(), indent=2))
        else:
            _show(found)


def _show(found: Explanation) -> None:
    click.echo(f"{found.module} is {'' if found.preload else 'not '}preloaded: {found.reason}.")
    click.echo(f"  distribution    {found.distribution or 'the standard library, or none'}")
    click.echo(f"  children        {found.children} of {found.all_children} imported it")
    shown = ", ".join(found.files[:_FILES_SHOWN]) + (", ..." if len(found.files) > _FILES_SHOWN else "")
    click.echo(f"  files           {len(found.files)} of {found.all_files}: {shown}")
    click.echo(
        f"  its own import  {found.seconds * 1e3:.1f} ms and {found.bytes / 1e6:.1f} MB, what it imports not counted"
    )
    click.echo(f"  saving          {found.saving * 1e3:.1f} ms a child, on average over all")
    if found.findings is None:
        click.echo("  canary          not asked")
    for kind, detail in found.findings or ():
        click.echo(f"  canary          {kind}: {detail}")
    if found.findings == []:
        click.echo("  canary          found nothing")
    click.echo(f"  ledger          {found.ledger}")


def _begin_again() -> NoReturn:
    """Run this command line anew in this process: whoever watches it goes on watching it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # As Python itself was started, -X and -W included; descriptors of Python's making close by themselves.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - a shell has no part in it
