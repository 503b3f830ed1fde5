# SPDX-License-Identifier: Apache-2.0
"""The group of all commands."""

from __future__ import annotations

import signal

import click

import frostfork as package
from frostfork.cli import load_command
from frostfork.cli.output import check_stdout

_COMMANDS = {
    "airflow": ("frostfork.cli.airflow_command:airflow", "Airflow's components over a shared parent."),
    "analyze": ("frostfork.cli.analyze_command:analyze", "What files import, and what a preload would save."),
    "blame": ("frostfork.cli.blame_command:blame", "What a program's children copied, and what they wrote."),
    "demo": ("frostfork.cli.demo:demo", "Airflow's DAG processor, stock and with frostfork, side by side."),
    "doctor": ("frostfork.cli.doctor:doctor", "What this kernel, interpreter and container offer."),
}


class _LazyGroup(click.Group):
    """Imports a command when it is called: `--help` needs none of them."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = load_command(_COMMANDS[name][0])
        assert isinstance(command, click.Command)
        return command

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            context.exit(128 + signal.SIGINT)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package.__version__, prog_name="frostfork")
@click.pass_context
def frostfork(context: click.Context) -> None:
    """A fork manager for CPython on Linux: children keep sharing what their parent loaded once."""
    if context.invoked_subcommand != "airflow":  # whose processor may print nothing
        check_stdout()
