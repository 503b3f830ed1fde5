# SPDX-License-Identifier: Apache-2.0
"""The shape of the package: what it exports, what it imports, how its binding is typed."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import frostfork
from frostfork import _core, errors


def test_all_is_there_once() -> None:
    assert len(frostfork.__all__) == len(set(frostfork.__all__))  # ruff sees to the order
    assert all(hasattr(frostfork, name) for name in frostfork.__all__)


def test_stub_names_what_the_binding_has() -> None:
    stub = ast.parse((Path(frostfork.__file__).parent / "_core.pyi").read_text())
    stubbed = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    built = {name for name in dir(_core) if not name.startswith("_") and callable(getattr(_core, name))}
    assert set(stubbed) == built
    handle = stubbed["BaselineHandle"]
    assert isinstance(handle, ast.ClassDef)
    methods = {node.name for node in handle.body if isinstance(node, ast.FunctionDef)} - {"__init__"}
    assert methods == {name for name in dir(_core.BaselineHandle) if not name.startswith("_")}


def test_root_imports_nothing_of_the_adapters() -> None:
    heavy = "airflow", "celery", "click", "rich", "psutil", "asyncio", "multiprocessing"
    script = f"import sys, frostfork; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout == "[]\n"


def test_errors_have_one_base_and_survive_pickling() -> None:
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(ours) > 3
    for kind in ours:
        assert issubclass(kind, frostfork.FrostforkError)
        assert str(pickle.loads(pickle.dumps(kind("why")))) == "why"
