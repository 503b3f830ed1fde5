# SPDX-License-Identifier: Apache-2.0
"""Asks this interpreter where its installed code lies, and which distribution it came with."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from frostfork.preload.installed import Installed
from frostfork.preload.patterns import ancestors

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_NAME = re.compile(r"^Name:\s*(\S+)", re.MULTILINE)


def find_installed() -> Installed:
    """Reads the metadata of all distributions. Takes some 100 ms: once in a parent's life."""
    from importlib.metadata import distributions  # 40 ms of imports that nobody else here needs

    paths = sysconfig.get_paths()
    folders = {
        paths["purelib"],
        paths["platlib"],
        paths["stdlib"],
        paths["platstdlib"],
        *site.getsitepackages(),
    }
    if site.ENABLE_USER_SITE:
        folders.add(site.getusersitepackages())
    # A virtual environment lends its standard library from the interpreter that made it.
    folders.add(os.path.dirname(os.__file__))
    real = {os.path.realpath(folder) for folder in folders}
    tops: dict[str, list[Distribution]] = defaultdict(list)
    for distribution in distributions():
        for name in _top_level_names(distribution):
            tops[name].append(distribution)
    return Installed(
        tuple(sorted(folders | real)), frozenset(sys.stdlib_module_names) | tops.keys(), _named(tops)
    )


def _named(tops: dict[str, list[Distribution]]) -> dict[str, str | None]:
    """By module: the distribution's name. Only for shared top-level names are files looked at."""
    names: dict[str, str | None] = {}
    for top, found in tops.items():
        owners: dict[str, set[str]] = defaultdict(set)  # by module: who has it, or something below it
        files: dict[str, set[str]] = defaultdict(set)  # by module: who has its file
        for distribution in found:
            name = _name(distribution)
            owners[top].add(name)
            for module in _modules(distribution, top) if len(found) > 1 else ():
                files[module].add(name)
                for each in (module, *ancestors(module)):
                    owners[each].add(name)
        for module, who in owners.items():
            holder = who if len(who) == 1 else files[module]
            above = module.rpartition(".")[0]
            if len(who) > 1 or not above or len(owners[above]) > 1:
                names[module] = min(holder) if len(holder) == 1 else None
    return names


def _name(distribution: Distribution) -> str:
    # Distribution.name would parse the whole of a README that may be long.
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    found = _NAME.search(text)
    return found.group(1) if found else "?"


def _record(distribution: Distribution) -> Iterable[str]:
    return (line.partition(",")[0] for line in (distribution.read_text("RECORD") or "").splitlines())


def _modules(distribution: Distribution, top: str) -> Iterable[str]:
    """The modules below a top-level name, from the paths in RECORD."""
    for path in _record(distribution):
        if path.startswith(top + "/") and path.endswith((".py", ".so")):
            folder, _, file = path.rpartition("/")
            package = folder.replace("/", ".")
            stem = file.partition(".")[0]
            yield package if stem == "__init__" else f"{package}.{stem}"


def _top_level_names(distribution: Distribution) -> set[str]:
    """Importable names of a distribution, from top_level.txt or else from the paths in RECORD.

    importlib.metadata.packages_distributions does the same from 3.11 on; in 3.10 it knows top_level.txt alone.
    """
    declared = distribution.read_text("top_level.txt")
    if declared:
        return set(declared.split())
    # A module file loses its suffix; a folder has none.
    names = {path.partition("/")[0].partition(".")[0] for path in _record(distribution)}
    return {name for name in names if name.isidentifier()}
