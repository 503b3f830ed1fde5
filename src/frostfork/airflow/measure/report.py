# SPDX-License-Identifier: Apache-2.0
"""The demo's tables: stock beside frostfork, and the factor between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console

_REFUSED_SHOWN = 3
# Two tables of seven columns fit into a terminal of 80.
_LOOK: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "title_justify": "left"}
# The demo itself and the kernel take a share too.
_QUIET = 0.2


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def _count(value: float) -> str:
    return f"{value:,.0f}"


# Label, name in the result, how a value is written, whether a factor says something.
_ROWS: tuple[tuple[str, str, Callable[[float], str], bool], ...] = (
    ("wall of a round", "round_seconds", _seconds, True),
    ("seconds a file, mean", "seconds_per_file", _seconds, True),
    ("  median", "seconds_median", _seconds, True),
    ("  95th percentile", "seconds_p95", _seconds, True),
    ("until a child has parsed", "child_seconds", _seconds, True),
    ("CPU a child", "cpu_seconds", _seconds, True),
    ("manager's CPU, zygote's too", "manager_cpu_seconds", _seconds, True),
    ("private memory a child", "private_bytes", _megabytes, True),
    ("peak PSS of all", "peak_pss_bytes", _megabytes, True),
    ("page faults a child", "page_faults", _count, True),
    ("unshared pages a child", "unshared_pages", _count, True),
    ("growth of the manager", "parent_growth_bytes", _megabytes, False),
)


def main_table(result: Mapping[str, Any]) -> Table:
    """Return the table of the whole folder."""
    table = _table(f"Airflow's DAG processor over {result['files']} files, {result['rounds']} timed rounds")
    for label, name, written, compares in _ROWS:
        cells = [_cell(result[variant], name, written) for variant in ("stock", "frostfork")]
        table.add_row(label, *cells, _factor(result["ratio"][name] if compares else None))
    table.add_row("DAGs found", str(result["stock"]["dags"]), str(result["frostfork"]["dags"]), "")
    preload = result["preload"]
    counted = f"{len(preload['preloaded'])} / {len(preload['refused'])}"
    table.add_row("preloaded / refused", Text("-", style="dim"), counted, "")
    return table


def kinds_table(result: Mapping[str, Any]) -> Table:
    """Return the table by kind of file."""
    table = Table(title="Seconds and private memory, by kind of file", **_LOOK)
    table.add_column("kind")
    table.add_column("files", justify="right")
    for heading in (
        *("stock", "frostfork", "factor"),
        *("stock", "frostfork", "factor"),
    ):
        table.add_column(heading, justify="right")
    for kind, stock in result["stock"]["kinds"].items():
        ours = result["frostfork"]["kinds"].get(kind, {})
        factors = result["ratio"]["kinds"].get(kind, {})
        row: list[str | Text] = [Text(kind), str(stock["files"])]
        for name, written in (
            ("seconds_per_file", _seconds),
            ("private_bytes", _megabytes),
        ):
            row += [_value(stock.get(name), written), _value(ours.get(name), written)]
            row.append(_factor(factors.get(name)))
        table.add_row(*row)
    return table


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print the tables, and the sentences as they are: a name of a module or a file may hold brackets."""
    console.print(main_table(result))
    console.print(kinds_table(result))
    for line in sentences(result):
        console.print(line, markup=False, highlight=False)


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Return what the tables leave open: the machine, what was refused, what could not be measured."""
    machine = result["environment"]
    where = f"{machine['cores']} cores, Linux {machine['kernel']}"
    software = f"Python {machine['python']}, Airflow {machine['airflow']}"
    lines = [f"{where}, {software}, {machine['processes']} parsing processes."]
    refused = result["preload"]["refused"]
    if refused:
        shown = [f"{module} ({reason})" for module, reason in list(refused.items())[:_REFUSED_SHOWN]]
        more = len(refused) - len(shown)
        lines.append("Not preloaded: " + "; ".join(shown) + (f"; and {more} more." if more else "."))
    if result["warmups"]:
        lines.append(_warmed_up(result["warmups"]))
    lines.append(_learned(result["frostfork"]["learning"]))
    shares = [result[variant]["foreign_cpu_share"] or 0.0 for variant in ("stock", "frostfork")]
    if max(shares) > _QUIET:
        written = " and ".join(f"{share:.0%}" for share in shares)
        lines.append(
            f"The machine was not idle: {written} of its work was for others. Do not trust the times."
        )
    for variant in ("stock", "frostfork"):
        unparsed = result[variant]["unparsed"]
        if unparsed:
            lines.append(f"{variant}: no result of {', '.join(unparsed)}.")
        lines += [f"{variant}: {note}." for note in result[variant]["notes"]]
    return lines


def _table(title: str) -> Table:
    table = Table(title=title, **_LOOK)
    table.add_column("mean (least..most)")
    for heading in ("stock", "frostfork", "factor"):
        table.add_column(heading, justify="right")
    return table


def _cell(figures: Mapping[str, Any], name: str, written: Callable[[float], str]) -> Text:
    cell = Text(_value(figures[name], written))
    spread = figures["spread"].get(name)
    if spread:
        cell.append(f" ({_range(cell.plain, *map(written, spread))})", style="dim")
    return cell


def _range(mean: str, least: str, most: str) -> str:
    """Both ends, without their unit where it is the mean's."""
    unit = mean.partition(" ")[2]
    if unit and least.endswith(" " + unit) and most.endswith(" " + unit):
        least, most = least.removesuffix(" " + unit), most.removesuffix(" " + unit)
    return f"{least}..{most}"


def _value(value: float | None, written: Callable[[float], str]) -> str:
    return "unknown" if value is None else written(value)


def _factor(value: float | None) -> Text:
    if value is None:
        return Text("-", style="dim")
    return Text(f"{value:.2f}", style="green" if value < 0.95 else "red" if value > 1.05 else "")


def _learned(learning: Mapping[str, Any]) -> str:
    """What the timed rounds leave out."""
    if learning["seconds"] is None:
        return "frostfork was stopped while it learned."
    line = (
        f"It learned in the {learning['rounds']} rounds before the timed ones, {learning['seconds']:.1f} s,"
        f" where a file took {_seconds(learning['seconds_per_file'])}."
    )
    return line if learning["settled"] else f"{line} It was still learning when the timed rounds began."


def _warmed_up(warmups: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """One sentence: what the warmups did, step by step, and why a step never did anything."""
    seconds = sum(step["seconds"] for warmup in warmups for step in warmup.values())
    parts = []
    for name in warmups[0]:
        runs = [warmup[name] for warmup in warmups if name in warmup]
        done = [run for run in runs if run["status"] == "done"]
        if done:
            parts.append(f"{name} {sum(run['count'] for run in done):,} {done[0]['unit']}")
        else:
            parts.append(f"{name} {runs[-1]['status']} ({runs[-1]['reason'].rstrip('.')})")
    return f"Warmed up {len(warmups)} times in {seconds:.1f} s: {'; '.join(parts)}."
