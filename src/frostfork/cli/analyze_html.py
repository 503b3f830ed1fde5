# SPDX-License-Identifier: Apache-2.0
"""The page of `frostfork analyze --html`: one file that needs no network. plotly draws the figures.

What comes from users, names of files and modules and messages of errors, is text and stays so: escaped in the tables,
and in the figures' labels too, which plotly would read as HTML.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from frostfork.cli.analyze_report import megabytes, seconds, sentences, short_paths

_MOST_ROWS = 40  # of the overlap: more lines than that cannot be told apart on a phone
_MOST_COLUMNS = 24
_MOST_TILES = 1200
_MOST_LINES = 2000  # of a table
_MOST_POINTS = 400


def page(result: Mapping[str, Any]) -> str:
    from plotly.offline import get_plotlyjs

    here = resources.files("frostfork.cli")
    figures = {"treemap": _treemap(result), "overlap": _overlap(result), "scatter": _scatter(result)}
    # "</script>" within a string would end the element.
    data = (
        json.dumps(figures).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )
    parts = {
        "STYLE": here.joinpath("analyze_page.css").read_text(encoding="utf-8"),
        "SCRIPT": here.joinpath("analyze_page.js").read_text(encoding="utf-8"),
        "LIBRARY": get_plotlyjs(),
        "DATA": data,
        "FACTS": "".join(f"<p>{html.escape(line)}</p>" for line in sentences(result)),
        "TILES": _tiles(result),
        "OVERLAP_NOTE": html.escape(_overlap_note(result)),
        "TABLES": _tables(result),
        "AIRFLOW": html.escape(result["configuration"]["airflow"]),
        "PYTHON": html.escape(result["configuration"]["python"]),
        "REFUSED": _refused(result),
        "FOOT": html.escape(
            "Python {python}, frostfork {frostfork}, Linux {kernel} {machine}, {cores} cores".format(
                **result["environment"]
            )
        ),
    }
    text = here.joinpath("analyze_page.html").read_text(encoding="utf-8")
    # In one pass: what is put in may look like a place to put something in.
    pieces = text.split("@@")
    return "".join(parts[piece] if at % 2 else piece for at, piece in enumerate(pieces))


def _label(text: str) -> str:
    return html.escape(text, quote=False)


def _tiles(result: Mapping[str, Any]) -> str:
    """The figures that matter most, large."""
    estimate, plan = result["estimate"], result["plan"]
    share = ""
    if estimate["plain_cpu_seconds"]:
        saved = 1 - estimate["preloaded_cpu_seconds"] / estimate["plain_cpu_seconds"]
        share = f"{saved:.0%} of a file's CPU time"
    cells = (
        (f"{result['files']:,}", "files", ""),
        (seconds(result["import_seconds"]), "imports, all files", ""),
        (seconds(estimate["saving_per_file"]), "saved a file", share),
        (
            f"{plan['modules']:,}",
            "modules to preload",
            f"{seconds(plan['seconds'])}, {megabytes(plan['bytes'])}",
        ),
    )
    return "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(name)}</span><small>{html.escape(more)}</small></div>"
        for value, name, more in cells
    )


def _treemap(result: Mapping[str, Any]) -> dict[str, Any]:
    """Distribution, package, module. What is left over of the smallest modules is one tile for each distribution."""
    rows = sorted(
        (row for row in result["modules"] if row["children"]), key=lambda row: (-row["seconds"], row["name"])
    )
    tiles: dict[str, dict[str, Any]] = {}

    def add(key: str, parent: str, label: str, row: Mapping[str, Any], text: str = "") -> None:
        tile = tiles.get(key)
        if tile is None:
            shade = tiles[parent]["shade"] if parent else sum(not each["parent"] for each in tiles.values())
            tile = {
                "parent": parent,
                "label": _label(label),
                "shade": shade,
                "text": text,
                "seconds": 0,
                "bytes": 0,
            }
            tiles[key] = tile
        # Whole numbers: plotly draws nothing where parts are more than their sum.
        tile["seconds"] += round(row["seconds"] * 1e6)
        tile["bytes"] += row["bytes"]

    for at, row in enumerate(rows):
        owner, package = row["distribution"], _package(row["name"])
        above, within = f"d {owner}", f"p {owner} {package}"
        add(above, "", owner, row)
        if at >= _MOST_TILES:
            add(f"r {owner}", above, "small modules", row)
            continue
        add(within, above, package, row)
        text = (
            f"{_label(row['name'])}<br>{seconds(row['seconds'])} in {row['files']:,} files, {megabytes(row['bytes'])}"
            f" each<br>{'preload' if row['preload'] else 'not preloaded'}: {_label(row['reason'])}"
        )
        # The package is written above it already.
        add(f"m {row['name']}", within, row["name"].removeprefix(f"{package}."), row, text)
    return {
        "ids": list(tiles),
        "values": {name: [tile[name] for tile in tiles.values()] for name in ("seconds", "bytes")},
        "shown": {
            "seconds": [seconds(tile["seconds"] / 1e6) for tile in tiles.values()],
            "bytes": [megabytes(tile["bytes"]) for tile in tiles.values()],
        },
        **{
            f"{name}s": [tile[name] for tile in tiles.values()]
            for name in ("parent", "label", "text", "shade")
        },
    }


def _package(name: str) -> str:
    """Two levels are enough to find one's way."""
    return ".".join(name.split(".")[:2]) if name.count(".") > 1 else name.partition(".")[0]


def _overlap(result: Mapping[str, Any]) -> dict[str, Any]:
    rows = result["overlap"][:_MOST_ROWS]
    columns = [row["name"] for row in result["distributions"][:_MOST_COLUMNS]]
    short = short_paths([source["path"] for source in result["sources"]])
    names = []
    for row in rows:
        first, *others = sorted(row["files"], key=lambda path: (len(short[path]), short[path]))
        names.append(short[first] if not others else f"{short[first]} +{len(others):,}")
    return {
        "x": [_label(name) for name in columns],
        # Two names that are cut to the same must stay two lines.
        "y": [_label(_cut(name)) for name in names],
        "full": [[_label(name)] * len(columns) for name in names],
        "z": [[row["seconds"].get(name) for name in columns] for row in rows],
    }


def _cut(name: str) -> str:
    return name if len(name) <= 30 else "…" + name[-29:]


def _overlap_note(result: Mapping[str, Any]) -> str:
    rows, columns = len(result["overlap"]), len(result["distributions"])
    first = "Files that import from the same distributions share a line (+2: and two more)."
    parts = [first, "A cell is the seconds that such a file spends importing from the distribution."]
    if rows > _MOST_ROWS:
        held = sum(len(row["files"]) for row in result["overlap"][_MOST_ROWS:])
        parts.append(
            f"The {_MOST_ROWS} lines with most seconds are shown; {held:,} files are in {rows - _MOST_ROWS} others."
        )
    if columns > _MOST_COLUMNS:
        parts.append(f"The {_MOST_COLUMNS} distributions that matter most are shown, of {columns}.")
    return " ".join(parts)


def _scatter(result: Mapping[str, Any]) -> dict[str, Any]:
    rows = [row for row in result["distributions"] if row["saving"] > 0 and row["bytes"] > 0][:_MOST_POINTS]
    return {
        "x": [row["bytes"] / 1e6 for row in rows],
        "y": [row["saving"] for row in rows],
        "names": [_label(row["name"]) for row in rows],
        "sizes": [row["files"] for row in rows],
        "texts": [
            f"{_label(row['name'])}<br>saves {seconds(row['saving'])}, {megabytes(row['bytes'])} a file"
            f"<br>{row['files']:,} files, {row['preloaded']:,} of {row['modules']:,} modules preloaded"
            for row in rows
        ],
    }


def _tables(result: Mapping[str, Any]) -> str:
    short = short_paths([source["path"] for source in result["sources"]])
    modules = [
        (row["name"], row["distribution"], _count(row["files"]), _percent(row["overlap"]), _time(row["seconds"]),
         _time(row["cumulative"]), _size(row["bytes"]), _time(row["saving"]),
         "yes" if row["preload"] else "no", row["reason"])
        for row in result["modules"]
    ]  # fmt: skip
    distributions = [
        (row["name"], _count(row["modules"]), _count(row["preloaded"]), _count(row["files"]), _percent(row["overlap"]),
         _time(row["seconds"]), _size(row["bytes"]), _time(row["saving"]))
        for row in result["distributions"]
    ]  # fmt: skip
    files = [
        (short[row["path"]], row["outcome"], _time(row["seconds"]), _time(row["cpu_seconds"]),
         _time(row["import_seconds"]), _size(row["bytes"]), _count(row["modules"]), _time(row["saving"]),
         ", ".join(row["lazy"]), row["error"])
        for row in result["sources"]
    ]  # fmt: skip
    return (
        _table("Modules", ("module", "distribution", "files", "overlap", "seconds", "with all", "bytes", "saving",
                           "preload", "why"), modules)
        + _table("Distributions", ("distribution", "modules", "preloaded", "files", "overlap", "seconds", "bytes",
                                   "saving"), distributions)
        + _table("Files", ("file", "outcome", "seconds", "CPU", "imports", "bytes", "modules", "saving", "lazy",
                           "error"), files)
    )  # fmt: skip


_Cell = str | tuple[str, float]  # a number is shown as text and sorted as itself


def _count(value: int) -> _Cell:
    return f"{value:,}", value


def _percent(value: float) -> _Cell:
    return f"{value:.0%}", value


def _time(value: float | None) -> _Cell:
    return seconds(value), value or 0.0


def _size(value: int) -> _Cell:
    return megabytes(value), value


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[_Cell]]) -> str:
    head = "".join(
        f'<th scope="col"><button type="button">{html.escape(name)}</button></th>' for name in heads
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:_MOST_LINES])
    note = f"<p>The first {_MOST_LINES:,} of {len(rows):,}.</p>" if len(rows) > _MOST_LINES else ""
    return (
        f"<details{' open' if title == 'Distributions' else ''}><summary>{title} ({len(rows):,})</summary>{note}"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _cell(cell: _Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{html.escape(cell)}</td>"
    text, value = cell
    return f'<td class="number" data-value="{value:.9g}">{html.escape(text)}</td>'


def _refused(result: Mapping[str, Any]) -> str:
    refused = sorted(result["plan"]["refused"].items(), key=lambda item: (-len(item[1]), item[0]))
    lines = []
    for reason, modules in refused[:_MOST_LINES]:
        shown = ", ".join(modules[:8]) + (f" and {len(modules) - 8:,} more" if len(modules) > 8 else "")
        lines.append(f"<li><b>{html.escape(reason)}</b>: {html.escape(shown)}</li>")
    return f"<ul>{''.join(lines)}</ul>" if lines else "<p>Nothing is refused.</p>"
