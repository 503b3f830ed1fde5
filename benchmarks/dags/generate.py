# SPDX-License-Identifier: Apache-2.0
"""Writes a folder of DAG files that looks like a team's repository, the same for the same seed.

The mix of kinds is what such repositories hold, bad files included; it is not chosen to favour anything.
Of 40 files 17 import something heavy. What kind a file is stands in a manifest beside the folder, not in it,
where all that is found is Airflow's to read. A wheel carries these modules as `frostfork._corpus`: they
import each other relatively, and nothing else but the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import bad, body, heavy, light

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = (
    "plain",
    "pandas",
    "models",
    "helper",
    "dynamic",
    "lazy",
    "huge",
    "missing",
    "syntax",
    "exit",
    "thread",
)
HEAVY = ("pandas", "helper", "huge")
BAD = ("missing", "syntax", "exit", "thread")

# The share of each kind in the files that are left once every kind of which there is one has its file.
_SHARES = {"pandas": 11, "plain": 9, "helper": 5, "lazy": 5, "models": 4}

_WRITERS: dict[str, Callable[[random.Random, str], str]] = {
    "plain": light.plain,
    "pandas": heavy.pandas,
    "models": light.models,
    "helper": heavy.helper,
    "dynamic": light.dynamic,
    "lazy": light.lazy,
    "huge": heavy.huge,
    "missing": bad.missing,
    "syntax": bad.syntax,
    "exit": bad.exits,
    "thread": bad.thread,
}

# Airflow parses the newest file first. A fixed date makes that order part of the corpus.
_NEWEST = 1_735_689_600


@dataclass(frozen=True)
class CorpusFile:
    """One DAG file: its path relative to the folder, and its kind."""

    path: str
    kind: str


def manifest_path(folder: str | Path) -> Path:
    """Where the manifest of a corpus is: `dags.manifest.json` beside `dags`."""
    folder = Path(folder)
    return folder.with_name(folder.name + ".manifest.json")


def generate(folder: str | Path, *, seed: int = 1, files: int = 40) -> list[CorpusFile]:
    """Write `files` DAG files, their helper modules and the manifest; return the DAG files, sorted by path.

    The folder must be empty or absent. Raises ValueError for fewer files than there are kinds, and
    FileExistsError if the folder holds something.
    """
    if files < len(KINDS):
        raise ValueError(f"a corpus needs at least {len(KINDS)} files, one of each kind, not {files}")
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty: a corpus is written into a folder of its own")
    rng = random.Random(seed)
    kinds = _kinds(files)
    rng.shuffle(kinds)
    names = body.names(rng, files)
    corpus = []
    for kind, (team, name) in zip(kinds, names, strict=True):
        path = root / team / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_WRITERS[kind](rng, name), encoding="utf-8")
        corpus.append(CorpusFile(path.relative_to(root).as_posix(), kind))
    for relative, text in heavy.HELPERS.items():
        path = root / relative
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (root / ".airflowignore").write_text("common/\n", encoding="utf-8")
    for age, file in enumerate(corpus):
        written = _NEWEST - 86_400 * age
        os.utime(root / file.path, (written, written))
    corpus.sort(key=lambda file: file.path)
    manifest = {file.path: file.kind for file in corpus}
    manifest_path(root).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return corpus


def _kinds(files: int) -> list[str]:
    """One file of each kind, and the rest by share, the largest remainders first."""
    counts = dict.fromkeys(KINDS, 1)
    rest = files - (len(KINDS) - len(_SHARES))
    total = sum(_SHARES.values())
    exact = {kind: rest * share / total for kind, share in _SHARES.items()}
    counts.update({kind: max(1, int(value)) for kind, value in exact.items()})
    by_need = sorted(_SHARES, key=lambda kind: exact[kind] - counts[kind], reverse=True)
    while sum(counts.values()) < files:
        counts[by_need[0]] += 1
        by_need = sorted(_SHARES, key=lambda kind: exact[kind] - counts[kind], reverse=True)
    while sum(counts.values()) > files:
        # Small corpora: a kind that was lifted to one file takes it from the kind that has the most.
        counts[max(_SHARES, key=lambda kind: counts[kind])] -= 1
    return [kind for kind in KINDS for _ in range(counts[kind])]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a folder of DAG files that looks like real use.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=40, help=f"at least {len(KINDS)}")
    arguments = parser.parse_args()
    try:
        corpus = generate(arguments.folder, seed=arguments.seed, files=arguments.files)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for file in corpus:
        print(f"{file.kind:8} {file.path}")


if __name__ == "__main__":
    main()
