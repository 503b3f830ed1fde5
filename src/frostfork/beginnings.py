# SPDX-License-Identifier: Apache-2.0
"""What files begin with: the imports that stand before anything else, and how many files have them in common.

Five hundred files that begin with `import pandas` need not import it five hundred times to be analyzed. One process
imports it, is measured, and forks a child for each of them, which goes on from there. It is the file's own imports that
were done for it, so its sums are what they were, and nothing reaches it that it would not have reached by itself. Only
what is sure to run counts: a file's first statements as long as they are imports, constants and functions.
"""

from __future__ import annotations

import ast
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Key(NamedTuple):
    """One import: a module, or with a name what `from module import name` imports."""

    module: str
    name: str = ""


@dataclass
class Piece:
    """Files, and what is imported for all of them before they run."""

    imports: list[Key] | None = None
    files: list[int] = field(default_factory=list)
    branches: list[Piece] = field(default_factory=list)
    warm: bool = False
    number: int = -1


def beginning(source: bytes, local_names: Collection[str]) -> list[Key]:
    """The imports that a file is sure to do first, but for the user's own modules. [] for what is no Python."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    keys: list[Key] = []
    for statement in body:
        if isinstance(statement, ast.Import):
            found = [Key(alias.name) for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            if statement.level or statement.module is None:
                break
            if statement.module == "__future__":
                continue
            found = [_from(statement.module, alias.name) for alias in statement.names]
        elif _is_idle(statement):
            continue
        else:
            break
        if any(key.module.partition(".")[0] in local_names for key in found):
            break  # what the user's own module does first, nobody knows
        keys += found
    return list(dict.fromkeys(keys))


def _from(module: str, name: str) -> Key:
    """A class is no module, by the spelling of its name; to be wrong costs time and no truth."""
    return Key(module, name if name.islower() and name != "*" else "")


def _is_idle(statement: ast.stmt) -> bool:
    """Whether it can change nothing that a later import would see."""
    match statement:
        case ast.Expr(value=ast.Constant()):
            return True
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=value)
        ):
            return not name.startswith("__") and (value is None or _is_constant(value))
        case ast.FunctionDef(decorator_list=[]) | ast.AsyncFunctionDef(decorator_list=[]):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=[]):
            return True
    return False


def _is_constant(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def lazy_names(source: bytes) -> list[str]:
    """Modules that a file imports lazily (PEP 810): by `__lazy_modules__`, or `lazy import` where that parses."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names: list[str] = []
    for statement in tree.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id="__lazy_modules__")], value=ast.List(elts=values))
                | ast.Assign(
                    targets=[ast.Name(id="__lazy_modules__")],
                    value=ast.Tuple(elts=values) | ast.Set(elts=values),
                )
            ):
                names += [str(value.value) for value in values if isinstance(value, ast.Constant)]
            case ast.Import(names=aliases) if getattr(statement, "is_lazy", 0):
                names += [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(module)) if getattr(statement, "is_lazy", 0):
                names.append(module)
    return sorted(set(names))


def candidates(files: Mapping[int, Sequence[Key]], fewest: int, most: int) -> list[Key]:
    """The imports that at least so many files begin with, most files first."""
    counts = Counter(key for keys in files.values() for key in keys)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [key for key, count in ranked[:most] if count >= fewest]


@dataclass(frozen=True)
class Effect:
    """What a key's import took when it was tried, and the modules that it loaded."""

    seconds: float
    modules: frozenset[str]


def chains(
    files: Mapping[int, Sequence[Key]], effects: Mapping[Key, Effect], least_seconds: float
) -> dict[int, tuple[Key, ...]]:
    """By file, what is worth importing ahead, the costliest first, so that many files share the first steps."""
    found: dict[int, tuple[Key, ...]] = {}
    same: dict[frozenset[str], Key] = {}
    for key in sorted(effects):
        same.setdefault(effects[key].modules, key)
    for number, keys in files.items():
        worth = {
            same[effects[key].modules]
            for key in keys
            if key in effects and effects[key].seconds >= least_seconds
        }
        ranked = sorted(worth, key=lambda key: (-effects[key].seconds, key))
        chosen: list[Key] = []
        known: frozenset[str] = frozenset()
        for key in ranked:
            if not effects[key].modules <= known:
                chosen.append(key)
                known |= effects[key].modules
        found[number] = tuple(chosen)
    return found


def pieces(files: Mapping[int, tuple[Key, ...]], count: int) -> list[Piece]:
    """Cut the files into so many pieces, neighbours together, and make a tree of each."""
    ordered = sorted(files, key=lambda number: (files[number], number))
    alone = [Piece(files=[number]) for number in ordered if not files[number]]
    shared = [number for number in ordered if files[number]]
    size = max(1, -(-len(shared) // max(1, count)))
    cut = [shared[at : at + size] for at in range(0, len(shared), size)]
    return [_grown({number: files[number] for number in part}, 0, None) for part in cut] + alone


def _grown(files: Mapping[int, tuple[Key, ...]], depth: int, imports: list[Key] | None) -> Piece:
    piece = Piece(imports)
    branches: dict[Key, dict[int, tuple[Key, ...]]] = {}
    for number, keys in files.items():
        if len(keys) > depth:
            branches.setdefault(keys[depth], {})[number] = keys
        else:
            piece.files.append(number)
    for key, part in branches.items():
        if len(part) == 1:
            piece.files += part
        else:
            piece.branches.append(_grown(part, depth + 1, [key]))
    if len(piece.branches) == 1 and not piece.files and depth == 0:
        return piece.branches[0]
    return piece


def number(roots: Sequence[Piece]) -> dict[int, list[int]]:
    """Number all nodes; returns by file the numbers of the nodes above it, the first import first."""
    above: dict[int, list[int]] = {}
    count = 0

    def visit(piece: Piece, way: list[int]) -> None:
        nonlocal count
        if piece.imports is not None:
            piece.number = count
            count += 1
            way = [*way, piece.number]
        for file in piece.files:
            above[file] = way
        for branch in piece.branches:
            visit(branch, way)

    for root in roots:
        visit(root, [])
    return above


def names_in(folder: str, listed: Callable[[str], list[str]] = os.listdir) -> frozenset[str]:
    """Top-level names that an import could find in this folder."""
    try:
        return frozenset(name.partition(".")[0] for name in listed(folder))
    except OSError:
        return frozenset()
