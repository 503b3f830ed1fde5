# SPDX-License-Identifier: Apache-2.0
"""The generator of DAG folders. Nothing of a corpus is imported here: that takes Airflow."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

corpus = pytest.importorskip("frostfork._corpus.generate", reason="the generator comes with a wheel")


def _texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_same_folder(tmp_path: Path) -> None:
    first = corpus.generate(tmp_path / "a", seed=7)
    second = corpus.generate(tmp_path / "b", seed=7)
    assert first == second
    assert _texts(tmp_path / "a") == _texts(tmp_path / "b")
    ages = [
        [(folder / file.path).stat().st_mtime for file in first]
        for folder in tmp_path.iterdir()
        if folder.is_dir()
    ]
    assert ages[0] == ages[1]


def test_another_seed_another_folder(tmp_path: Path) -> None:
    corpus.generate(tmp_path / "a", seed=1)
    corpus.generate(tmp_path / "b", seed=2)
    texts = set(_texts(tmp_path / "a").values()), set(_texts(tmp_path / "b").values())
    shared = texts[0] & texts[1]
    # The helper modules, the empty package file among them, and .airflowignore.
    assert len(shared) == len(corpus.heavy.HELPERS) + 1


def test_kinds_of_forty_files(tmp_path: Path) -> None:
    files = corpus.generate(tmp_path / "dags")
    counts = Counter(file.kind for file in files)
    assert set(counts) == set(corpus.KINDS)
    assert sum(counts.values()) == 40
    assert sum(counts[kind] for kind in corpus.HEAVY) == 17
    assert all(counts[kind] == 1 for kind in ("huge", "dynamic", *corpus.BAD))
    names = [Path(file.path).stem for file in files]
    assert len(set(names)) == 40, "a DAG's id is the name of its file"


@pytest.mark.parametrize("count", [11, 12, 13, 25, 200])
def test_every_size_has_every_kind(tmp_path: Path, count: int) -> None:
    files = corpus.generate(tmp_path / "dags", files=count)
    assert len(files) == count
    assert {file.kind for file in files} == set(corpus.KINDS)


def test_manifest_beside_the_folder(tmp_path: Path) -> None:
    files = corpus.generate(tmp_path / "dags", files=11)
    manifest = json.loads(corpus.manifest_path(tmp_path / "dags").read_text())
    assert manifest == {file.path: file.kind for file in files}
    assert not list((tmp_path / "dags").rglob("*.json"))


@pytest.mark.parametrize("seed", range(5))
def test_all_compile_but_the_syntax_error(tmp_path: Path, seed: int) -> None:
    for file in corpus.generate(tmp_path / "dags", seed=seed):
        text = (tmp_path / "dags" / file.path).read_text()
        if file.kind == "syntax":
            with pytest.raises(SyntaxError):
                compile(text, file.path, "exec")
        else:
            compile(text, file.path, "exec")


def test_heavy_imports_stand_where_the_kind_says(tmp_path: Path) -> None:
    heavy = {"pandas", "numpy", "scipy", "sklearn", "matplotlib", "pyarrow"}
    for file in corpus.generate(tmp_path / "dags"):
        if file.kind == "syntax":
            continue
        tree = ast.parse((tmp_path / "dags" / file.path).read_text())
        anywhere = _imported(ast.walk(tree))
        top = _imported(tree.body)
        if file.kind in ("pandas", "huge"):
            assert "pandas" in top
        else:
            assert not top & heavy
        assert ("common" in top) == (file.kind == "helper")
        assert bool(anywhere & heavy) == (file.kind in ("pandas", "huge", "lazy"))


def test_helpers_are_no_dag_files(tmp_path: Path) -> None:
    corpus.generate(tmp_path / "dags", files=11)
    for path in (tmp_path / "dags" / "common").iterdir():
        text = path.read_text().lower()
        assert not ("dag" in text and "airflow" in text)


def test_refuses_too_few_files_and_a_full_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 11"):
        corpus.generate(tmp_path / "few", files=10)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.py").touch()
    with pytest.raises(FileExistsError):
        corpus.generate(tmp_path / "full")


def _imported(nodes: object) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found
