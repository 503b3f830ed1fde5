# SPDX-License-Identifier: Apache-2.0
"""What `frostfork analyze` found: as one dictionary, which is also its JSON, and as tables on a terminal."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import metadata
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from frostfork.analyze import Analysis
from frostfork.preload import Installed, Plan, PreloadPolicy
from frostfork.preload.tables import OWN_CODE, STANDARD_LIBRARY, Tables

FORMAT = 1
_COVERED = 0.99  # of the saving, by what the configuration names


def distributions(installed: Installed) -> Callable[[str, Collection[str]], str]:
    """Whose a module is. What nobody installed is the user's own."""

    def of(module: str, origins: Collection[str]) -> str:
        if not installed.holds(module, origins):
            return OWN_CODE
        top = module.partition(".")[0]
        return installed.distribution(module) or (STANDARD_LIBRARY if top in sys.stdlib_module_names else top)

    return of


def assemble(found: Analysis, made: Tables, plan: Plan, policy: PreloadPolicy) -> dict[str, Any]:
    """All of it, as JSON takes it; docs/analyze.md says what each key means."""
    refused: dict[str, list[str]] = {}
    for row in made.modules:
        if not row.preload:
            refused.setdefault(row.reason, []).append(row.name)
    estimate = made.estimate
    return {
        "format": FORMAT,
        "complete": found.complete,
        "files": made.files,
        "import_seconds": made.seconds,
        "notes": found.notes,
        "environment": {
            "python": platform.python_version(),
            "frostfork": metadata.version("frostfork"),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
        },
        "estimate": {
            "saving": made.saving,
            "saving_per_file": made.saving / made.files if made.files else 0.0,
            "verified_files": len(found.pairs),
            "plain_cpu_seconds": estimate.plain,
            "preloaded_cpu_seconds": estimate.preloaded,
            "pairs": [pair._asdict() for pair in found.pairs],
        },
        "plan": {
            "order": plan.order,
            "modules": sum(row.preload for row in made.modules),
            "bytes": plan.bytes,
            "seconds": plan.seconds,
            "refused": refused,
        },
        "modules": [
            {
                **{name: getattr(row, name) for name in _MODULE},
                "importers": list(row.importers),
            }
            for row in made.modules
        ],
        "distributions": [{name: getattr(row, name) for name in _DISTRIBUTION} for row in made.distributions],
        "sources": _sources(found, made),
        "overlap": [{"files": list(row.files), "seconds": row.seconds} for row in made.overlap],
        "configuration": _configuration(made, policy),
    }


_MODULE = (
    "name", "distribution", "files", "children", "failures", "last_error", "seconds", "cumulative", "bytes",
    "cumulative_bytes", "overlap", "saving", "preload", "reason",
)  # fmt: skip
_DISTRIBUTION = ("name", "modules", "preloaded", "files", "seconds", "bytes", "overlap", "saving")


def _sources(found: Analysis, made: Tables) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path, source in found.ledger.sources.items():
        run = found.runs.get(path)
        children = max(1, source.children)
        rows.append(
            {
                "path": path,
                "outcome": run.outcome if run else "unknown",
                "error": run.error if run else "",
                "seconds": run.seconds if run else source.seconds / children,
                "cpu_seconds": run.cpu_seconds if run else None,
                "import_seconds": run.import_seconds if run else source.import_seconds / children,
                "bytes": run.bytes if run else source.bytes // children,
                "modules": run.modules if run else len(found.ledger.modules_of(path)),
                "shared": run.shared if run else 0,
                "lazy": list(run.lazy) if run else [],
                "saving": made.file_savings.get(path, 0.0),
            }
        )
    return sorted(rows, key=lambda row: (-row["import_seconds"], row["path"]))


def _configuration(made: Tables, policy: PreloadPolicy) -> dict[str, str]:
    """Lines for airflow.cfg, and the same policy in Python: the fewest names that save nearly all."""
    names = _heads(made)
    lines = ["[frostfork]", "enabled = True", "preload = approved", f"approved = {','.join(names)}"]
    keywords = ["mode=frostfork.PreloadMode.APPROVED", f"approved={tuple(names)!r}"]
    if policy.deny:
        lines.append(f"deny = {','.join(policy.deny)}")
        keywords.append(f"deny={policy.deny!r}")
    if policy.min_files > 1:
        lines.append(f"min_files = {policy.min_files}")
        keywords.append(f"min_files={policy.min_files}")
    written = "".join(f"    {keyword},\n" for keyword in keywords)
    python = f"policy = frostfork.PreloadPolicy(\n    frostfork.find_installed(),\n{written})\n"
    return {"airflow": "\n".join(lines) + "\n", "python": python}


def _heads(made: Tables) -> list[str]:
    """What to approve: what no other preloaded module brings along. Several of one package become that package.

    So does a package's private part, which no other module need import.
    """
    chosen = {row.name for row in made.modules if row.preload}
    heads = [row for row in made.modules if row.preload and not chosen.intersection(row.importers)]
    whole = sum(row.cumulative for row in heads)
    names: list[str] = []
    covered = 0.0
    for row in sorted(heads, key=lambda row: (-row.cumulative, row.name)):
        if covered >= _COVERED * whole:
            break
        names.append(row.name)
        covered += row.cumulative
    tops = Counter(name.partition(".")[0] for name in names)
    whole_packages = [tops[name.partition(".")[0]] > 1 or "._" in name for name in names]
    pairs = zip(names, whole_packages, strict=True)
    return list(dict.fromkeys(name.partition(".")[0] if package else name for name, package in pairs))


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:,.1f} ms"
    return f"{value:,.2f} s" if value < 100 else f"{value:,.0f} s"


def megabytes(value: float) -> str:
    return f"{value / 1e6:,.1f} MB"


def sentences(result: Mapping[str, Any]) -> list[str]:
    """What the tables are about, in words."""
    sources = result["sources"]
    good = sum(source["outcome"] in ("ok", "unknown") for source in sources)
    files = result["files"]
    lines = [
        f"{files:,} files, of which {files - good:,} failed. Their imports took {seconds(result['import_seconds'])}."
    ]
    plan, estimate = result["plan"], result["estimate"]
    lines.append(
        f"A parent that preloads {plan['modules']:,} modules, in {seconds(plan['seconds'])} and"
        f" {megabytes(plan['bytes'])}, would save {seconds(estimate['saving_per_file'])} of CPU time a file,"
        f" {seconds(estimate['saving'])} in all."
    )
    if estimate["verified_files"]:
        plain, preloaded = estimate["plain_cpu_seconds"], estimate["preloaded_cpu_seconds"]
        lines.append(
            f"Found by running {estimate['verified_files']} of the files both ways: {seconds(plain)} a file without a"
            f" preload, {seconds(preloaded)} with it, on average."
        )
    else:
        lines.append("That is the sum of the imports' own seconds; no file was run both ways to verify it.")
    lazy = [source for source in sources if source["lazy"]]
    if lazy:
        names = sorted({name for source in lazy for name in source["lazy"]})
        lines.append(
            f"{len(lazy):,} files import lazily (PEP 810), which counts where it happened: {', '.join(names)}."
        )
    return lines + list(result["notes"])


def show(result: Mapping[str, Any], console: Console, top: int) -> None:
    for line in sentences(result):
        console.print(escape(line), highlight=False)
    names = short_paths([row["path"] for row in result["sources"]])
    if top:
        for table in (_modules(result, top), _distributions(result, top), _files(result, names, top)):
            console.print()
            console.print(table)
    failed = [row for row in result["sources"] if row["outcome"] not in ("ok", "unknown")]
    _list(
        console, "Failed", [(names[row["path"]], f"{row['outcome']}: {row['error']}") for row in failed], top
    )
    refused = sorted(result["plan"]["refused"].items(), key=lambda item: (-len(item[1]), item[0]))
    shown = [
        (reason, ", ".join(modules[:4]) + (f" and {len(modules) - 4:,} more" if len(modules) > 4 else ""))
        for reason, modules in refused
    ]
    _list(console, "Not preloaded, and why", shown, top)
    console.print("\n[bold]Configuration[/bold] (or preload = learned, for all of it)")
    # As it is, to be pasted: neither wrapped nor coloured.
    for text in result["configuration"].values():
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _list(console: Console, title: str, items: Sequence[tuple[str, str]], top: int) -> None:
    if items:
        console.print(f"\n[bold]{title}[/bold]")
        for first, second in items[: top or None]:
            console.print(f"  {escape(first)}: {escape(second)}", highlight=False)
        if top and len(items) > top:
            console.print(f"  [dim]and {len(items) - top:,} more[/dim]")


def short_paths(paths: Sequence[str]) -> dict[str, str]:
    """Without the folder that all lie in."""
    try:
        base = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # none, or absolute and relative ones
        base = ""
    return {path: os.path.relpath(path, base) if base else path for path in paths}


def _table(title: str, count: int, top: int, first: str, columns: Sequence[str]) -> Table:
    shown = f"the first {top:,} of {count:,}" if count > top else f"all {count:,}"
    table = Table(
        title=f"{title}, {shown}", title_justify="left", title_style="bold", box=None, pad_edge=False,
        padding=(0, 2, 0, 0), header_style="dim",
    )  # fmt: skip
    table.add_column(first, overflow="fold", min_width=20)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _modules(result: Mapping[str, Any], top: int) -> Table:
    rows = result["modules"]
    columns = ("files", "seconds", "with all", "bytes", "saving", "preload")
    table = _table("Modules", len(rows), top, "module", columns)
    for row in rows[:top]:
        table.add_row(
            escape(row["name"]), _share(row), seconds(row["seconds"]), seconds(row["cumulative"]),
            megabytes(row["bytes"]), seconds(row["saving"]), "yes" if row["preload"] else "no",
        )  # fmt: skip
    return table


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['files']:,} {row['overlap']:>4.0%}"


def _distributions(result: Mapping[str, Any], top: int) -> Table:
    rows = result["distributions"]
    columns = ("modules", "files", "seconds", "bytes", "saving")
    table = _table("Distributions", len(rows), top, "distribution", columns)
    for row in rows[:top]:
        table.add_row(
            escape(row["name"]), f"{row['modules']:,}", _share(row), seconds(row["seconds"]),
            megabytes(row["bytes"]), seconds(row["saving"]),
        )  # fmt: skip
    return table


def _files(result: Mapping[str, Any], names: Mapping[str, str], top: int) -> Table:
    rows = result["sources"]
    columns = ("seconds", "CPU", "imports", "bytes", "saving", "outcome")
    table = _table("Files", len(rows), top, "file", columns)
    for row in rows[:top]:
        failed = row["outcome"] not in ("ok", "unknown")
        table.add_row(
            escape(names[row["path"]]), seconds(row["seconds"]), seconds(row["cpu_seconds"]),
            seconds(row["import_seconds"]), megabytes(row["bytes"]), seconds(row["saving"]),
            f"[red]{row['outcome']}[/red]" if failed else row["outcome"],
        )  # fmt: skip
    return table
