# SPDX-License-Identifier: Apache-2.0
"""`frostfork blame -- CMD`: what the children of a Python program copied, and what they wrote."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from types import FrameType
from typing import NamedTuple

import click

from frostfork.blame import CAUSES, BlameReport
from frostfork.cli.output import writing
from frostfork.cli.program import Program, find_program
from frostfork.errors import FrostforkError, ObservationError
from frostfork.journal import Journal
from frostfork.judged import BOOTSTRAP
from frostfork.pages import PAGE_SIZE


class _Outcome(NamedTuple):
    """All children of one run. silent: ended without a report. blind: why a report could not be made, and how often."""

    code: int
    children: int
    silent: int
    blind: dict[str, int]
    total: BlameReport


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--json", "as_json", is_flag=True, help="Print JSON; the program's own output goes to stderr.")
@click.option(
    "--top",
    type=click.IntRange(0),
    default=12,
    show_default=True,
    help="How many types, files and libraries to name.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def blame(command: tuple[str, ...], as_json: bool, top: int) -> None:
    """What the children of a Python program copied of the memory that they shared, and what they wrote there.

    COMMAND is a script, -m MODULE, -c CODE, python ..., or a console script on PATH; put -- before it. Each child is
    judged from its fork to its end. The table goes to stderr, and the exit code is the program's. Root is not needed.

    Not judged: what is not forked from Python (subprocesses, and processes that multiprocessing spawns).
    """
    try:
        program = find_program(list(command))
    except FrostforkError as error:
        raise click.ClickException(str(error)) from error
    outcome = _run(program, as_json)
    if as_json:
        with writing():
            click.echo(json.dumps(_as_values(outcome), indent=2))
    else:
        _show(outcome, top)
    sys.exit(outcome.code)


def _run(program: Program, output_to_stderr: bool) -> _Outcome:
    journal = Journal()
    try:
        fd = journal.fileno()
        words = [program.interpreter, *program.options, "-c", BOOTSTRAP, str(fd)]
        words += [program.kind, program.target, *program.arguments]
        sys.stdout.flush()
        process = subprocess.Popen(words, pass_fds=[fd], stdout=sys.stderr if output_to_stderr else None)
        code = _wait(process)
        return _collect(code, journal)
    finally:
        journal.close()


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The program's exit code; 128 and the signal's number for one that a signal ended, as a shell says it."""

    def pass_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    # Ctrl-C reaches the program from the terminal; whoever asks this process to end means the program.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, pass_on)
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _collect(code: int, journal: Journal) -> _Outcome:
    children = 0
    blind: dict[str, int] = {}
    reports: list[BlameReport] = []
    for word, field in journal.records():
        if word == "child":
            children += 1
        elif word == "blind":
            blind[field] = blind.get(field, 0) + 1
        elif word == "verdict":
            try:
                reports.append(BlameReport.from_json(field))
            except ObservationError as error:
                blind[str(error)] = blind.get(str(error), 0) + 1
    silent = children - len(reports) - sum(blind.values())
    return _Outcome(code, children, silent, blind, BlameReport.total(reports))


def _as_values(outcome: _Outcome) -> dict[str, object]:
    report = json.loads(outcome.total.to_json())
    return {
        "exit_code": outcome.code,
        "children": outcome.children,
        "silent": outcome.silent,
        "blind": outcome.blind,
        "page_size": PAGE_SIZE,
        "unshared": outcome.total.unshared,
        "changed_bytes": outcome.total.changed_bytes,
        **report,
    }


def _show(outcome: _Outcome, top: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, total = Console(stderr=True), outcome.total
    for sentence in _sentences(outcome):
        console.print(sentence, highlight=False)
    if total.unshared == 0:
        return
    causes = Table(box=None, pad_edge=False, header_style="bold")
    causes.add_column("cause")
    for column in ("pages", "share", "alone", "bytes"):
        causes.add_column(column, justify="right")
    causes.add_column("what it is", overflow="fold")
    for name, share in sorted(total.causes.items(), key=lambda item: -item[1].pages):
        if share.touched:
            causes.add_row(
                name, f"{share.pages:,}", f"{share.pages / total.unshared:.0%}", f"{share.alone:,}",
                f"{share.bytes:,}", CAUSES[name],
            )  # fmt: skip
    console.print()
    console.print(causes)
    if total.owners and top > 0:
        owners = Table(box=None, pad_edge=False, header_style="bold")
        owners.add_column("most bytes of", overflow="fold")
        owners.add_column("cause")
        for column in ("pages", "bytes"):
            owners.add_column(column, justify="right")
        for owner in total.owners[:top]:
            owners.add_row(escape(_short(owner.name)), owner.cause, f"{owner.pages:,}", f"{owner.bytes:,}")
        console.print()
        console.print(owners)
    console.print(
        "\n[dim]pages: each once, under the cause of most of its changed bytes. alone: pages that would still be "
        "shared without this cause. What removes each: docs/blame.md[/dim]",
        highlight=False,
    )


def _short(name: str) -> str:
    """A long path by its end."""
    parts = name.split("/")
    return name if len(name) <= 44 or len(parts) < 4 else "…/" + "/".join(parts[-3:])


def _sentences(outcome: _Outcome) -> list[str]:
    """What the tables are about, in words and rich's markup."""
    from rich.markup import escape

    total, children = outcome.total, outcome.children
    if children == 0:
        return ["The program forked no child from Python: there is nothing to judge."]
    found = []
    if total.processes:
        megabytes = total.unshared * PAGE_SIZE / 1e6
        found.append(
            f"[bold]{total.processes} of {children} children judged: {total.unshared:,} shared pages copied "
            f"({megabytes:,.1f} MB), {total.changed_bytes:,} bytes changed; the floor is {total.floor:,} pages.[/bold]"
        )
        kinds = ", ".join(f"{name} {count:,}" for name, count in total.by_kind.items())
        found.append(
            f"By mapping: {kinds}. Beside these {total.new:,} pages are new, {total.dropped:,} given back."
        )
    if outcome.silent:
        found.append(f"{outcome.silent} of {children} children gave no report: killed, or still running.")
    found += [
        f"{count} of {children} children could not be judged: {escape(why)}"
        for why, count in outcome.blind.items()
    ]
    if not total.complete:
        found.append("Some frozen objects could not be found; what was written in them counts as malloc.")
    return found
