# SPDX-License-Identifier: Apache-2.0
"""Every kind of import: what observe() records of it, who asked for it, and how many bytes it took."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import textwrap
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from frostfork import Journal, ModuleImport, Observation, observe
from tests.integration.forking import run_child, run_script, wait_bounded

MB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("ffi_")]:
        del sys.modules[name]


def write(folder: Path, name: str, body: str = "") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(body))


def found(seen: Observation) -> dict[str, tuple[str | None, str | None]]:
    """Origin and importer of each module of ours; a name that comes twice fails."""
    names = [module.name for module in seen.modules if module.name.startswith("ffi_")]
    assert len(names) == len(set(names))
    return {module.name: (module.origin, module.importer) for module in seen.modules if module.name in names}


def test_the_importer_is_the_module_in_whose_import_it_began(folder: Path) -> None:
    write(folder, "ffi_a.py", "import ffi_b\nimport ffi_c\nimport ffi_p.q.r\n")
    write(folder, "ffi_b.py", "import ffi_c\ntry:\n    import ffi_no\nexcept ImportError:\n    pass\n")
    write(folder, "ffi_c.py")
    write(folder, "ffi_p/__init__.py")
    write(folder, "ffi_p/q/__init__.py")
    write(folder, "ffi_p/q/r.py")
    write(folder, "ffi_d.py")
    with observe() as seen:
        importlib.import_module("ffi_a")
        importlib.import_module("ffi_d")
    assert {name: importer for name, (_, importer) in found(seen).items()} == {
        "ffi_a": None,
        "ffi_b": "ffi_a",
        "ffi_c": "ffi_b",  # the second one finds it there
        "ffi_no": "ffi_b",
        "ffi_p": "ffi_p.q",
        "ffi_p.q": "ffi_p.q.r",
        "ffi_p.q.r": "ffi_a",
        "ffi_d": None,
    }


def test_imports_in_function_bodies_when_they_run(folder: Path) -> None:
    write(
        folder,
        "ffi_lazy.py",
        "def f():\n    import ffi_late\n    return ffi_late\ndef never():\n    import ffi_never\n",
    )
    write(folder, "ffi_late.py")
    write(folder, "ffi_never.py")
    with observe() as seen:
        module = importlib.import_module("ffi_lazy")
        assert list(found(seen)) == []  # it fills at the end
        module.f()
        module.f()
    assert found(seen) == {
        "ffi_lazy": (str(folder / "ffi_lazy.py"), None),
        "ffi_late": (str(folder / "ffi_late.py"), None),
    }


def test_namespace_packages_have_no_origin(folder: Path) -> None:
    write(folder, "ffi_space/inner/m.py")
    with observe() as seen:
        importlib.import_module("ffi_space.inner.m")
    assert found(seen) == {
        "ffi_space.inner.m": (str(folder / "ffi_space/inner/m.py"), None),
        "ffi_space.inner": (None, "ffi_space.inner.m"),
        "ffi_space": (None, "ffi_space.inner"),
    }


def test_zip_imports_have_a_path_in_the_archive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = folder / "ffi.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("ffi_zipped/__init__.py", "from ffi_zipped import inner\n")
        file.writestr("ffi_zipped/inner.py", "")
    monkeypatch.syspath_prepend(str(archive))
    with observe() as seen:
        importlib.import_module("ffi_zipped")
    assert found(seen) == {
        "ffi_zipped": (f"{archive}/ffi_zipped/__init__.py", None),
        "ffi_zipped.inner": (f"{archive}/ffi_zipped/inner.py", "ffi_zipped"),
    }


def test_extension_and_built_in_modules() -> None:
    script = """
        import json, sys
        from frostfork import observe
        with observe() as seen:
            import _elementtree, cmath, faulthandler, zipimport
        print(json.dumps([[module.name, module.origin, module.error] for module in seen.modules]))
    """
    seen = {name: (origin, error) for name, origin, error in run_script(script)}
    import _elementtree
    import cmath

    for module in (_elementtree, cmath):  # a file, or built into this interpreter
        assert seen[module.__name__] == (module.__spec__.origin, None)
    assert seen["_elementtree"][0].endswith(".so") or seen["_elementtree"][0] == "built-in"
    assert seen["faulthandler"] == ("built-in", None)


def test_a_reload_adds_no_record_of_its_own_but_what_it_newly_imports(folder: Path) -> None:
    """No preload spares a reload: it runs again what is there."""
    write(folder, "ffi_again.py", "import sys\nif 'ffi_again_done' in sys.__dict__:\n    import ffi_second\n")
    write(folder, "ffi_second.py")
    sys.__dict__.pop("ffi_again_done", None)
    with observe() as seen:
        module = importlib.import_module("ffi_again")
        sys.__dict__["ffi_again_done"] = True
        try:
            importlib.reload(module)
        finally:
            del sys.__dict__["ffi_again_done"]
    assert found(seen) == {
        "ffi_again": (str(folder / "ffi_again.py"), None),
        "ffi_second": (str(folder / "ffi_second.py"), None),
    }


def test_modules_that_replace_themselves(folder: Path) -> None:
    """Another module has its own origin. What is no module has "?", since to ask it might run its code."""
    write(folder, "ffi_swap.py", "import sys\nimport ffi_real\nsys.modules[__name__] = ffi_real\n")
    write(folder, "ffi_real.py")
    write(
        folder,
        "ffi_odd.py",
        """
        import sys
        class Odd:
            def __getattr__(self, name):
                raise SystemExit(name)
        sys.modules[__name__] = Odd()
        """,
    )
    write(folder, "ffi_gone.py", "import sys\nsys.modules[__name__] = None\n")
    with observe() as seen:
        assert importlib.import_module("ffi_swap").__name__ == "ffi_real"
        importlib.import_module("ffi_odd")
        importlib.import_module("ffi_gone")
    assert found(seen) == {
        "ffi_swap": (str(folder / "ffi_real.py"), None),
        "ffi_real": (str(folder / "ffi_real.py"), "ffi_swap"),
        "ffi_odd": ("?", None),
        "ffi_gone": ("?", None),
    }


def test_a_module_made_by_hand_is_not_seen_but_what_it_imports(folder: Path) -> None:
    """As Airflow loads a DAG file."""
    from importlib.util import module_from_spec, spec_from_file_location

    write(folder, "ffi_dag.py", "import ffi_helper\n")
    write(folder, "ffi_helper.py")
    spec = spec_from_file_location("ffi_dag", folder / "ffi_dag.py")
    assert spec is not None
    assert spec.loader is not None
    with observe() as seen:
        spec.loader.exec_module(module_from_spec(spec))
    assert found(seen) == {"ffi_helper": (str(folder / "ffi_helper.py"), None)}


def test_each_thread_has_its_own_importers(folder: Path) -> None:
    write(
        folder,
        "ffi_threads.py",
        """
        import importlib, threading
        thread = threading.Thread(target=importlib.import_module, args=("ffi_elsewhere",))
        thread.start()
        thread.join()
        import ffi_here
        """,
    )
    write(folder, "ffi_elsewhere.py")
    write(folder, "ffi_here.py")
    with observe() as seen:
        importlib.import_module("ffi_threads")
    assert {name: importer for name, (_, importer) in found(seen).items()} == {
        "ffi_threads": None,
        "ffi_elsewhere": None,
        "ffi_here": "ffi_threads",
    }
    assert threading.active_count() == 1


def through_a_journal(name: str) -> list[ModuleImport]:
    """Records of a child that imports one module and ends."""
    journal = Journal()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            gc.freeze()
            with observe(journal, pages=False):
                importlib.import_module(name)
            code = 0
        finally:
            os._exit(code)
    assert wait_bounded(pid) == 0
    seen = Observation.from_journal(journal)
    journal.close()
    return [module for module in seen.modules if module.name.startswith("ffi_")]


def test_new_memory_counts_for_the_module_that_took_it(folder: Path) -> None:
    write(folder, "ffi_outer.py", "data = b'x' * (3 << 20)\nimport ffi_inner\n")
    write(folder, "ffi_inner.py", "data = b'x' * (5 << 20)\n")
    outer, inner = through_a_journal("ffi_outer")
    assert 5 * MB <= inner.bytes < 7 * MB
    assert inner.bytes == inner.cumulative_bytes
    assert 3 * MB <= outer.bytes < 5 * MB
    assert outer.cumulative_bytes == pytest.approx(outer.bytes + inner.bytes, abs=4096)


SHARED = bytearray(b"x" * (8 << 20))


def test_copied_memory_counts_and_memory_of_files_does_not(folder: Path) -> None:
    write(folder, "ffi_copies.py", f"import sys\nsys.modules[{__name__!r}].SHARED[:: 4096] = b'y' * 2048\n")
    big = folder / "big"
    big.write_bytes(b"x" * (8 << 20))
    write(
        folder,
        "ffi_maps.py",
        f"import mmap\nwith open({str(big)!r}, 'rb') as file:\n"
        "    data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)\n"
        "total = sum(data[at] for at in range(0, 8 << 20, 4096))\n",
    )
    SHARED[::4096] = b"x" * 2048
    (copies,) = through_a_journal("ffi_copies")
    assert 8 * MB <= copies.bytes < 11 * MB
    (maps,) = through_a_journal("ffi_maps")
    assert maps.bytes < 3 * MB


def test_what_gives_memory_back_took_none(folder: Path) -> None:
    write(
        folder,
        "ffi_takes.py",
        "from mmap import *\nheld = mmap(-1, 4 << 20, flags=MAP_PRIVATE | MAP_ANONYMOUS)\n"
        "held[::4096] = b'x' * 1024\nimport ffi_gives\n",
    )
    write(folder, "ffi_gives.py", "import sys\nsys.modules['ffi_takes'].held.close()\nmore = b'x'\n")
    takes, gives = through_a_journal("ffi_takes")
    assert (gives.bytes, gives.cumulative_bytes) == (0, 0)
    assert takes.bytes >= 0
    assert takes.cumulative_bytes < 2 * MB


def private_dirty() -> int:
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_Dirty:"))


@pytest.mark.parametrize("name", ["numpy", "http.server", "xmlrpc.client", "sqlite3"])
def test_bytes_of_real_libraries_are_near_the_kernels(name: str) -> None:
    """Against what smaps_rollup says before and after, in a child of this process, which has much to copy."""
    if name in sys.modules:
        pytest.skip(f"{name} is imported already")

    def body() -> list[int]:
        gc.freeze()
        private_dirty()
        with observe(pages=False) as seen:
            before = private_dirty()
            importlib.import_module(name)
            after = private_dirty()
        top = [module for module in seen.modules if module.importer is None and module.name == name]
        return [after - before, sum(module.cumulative_bytes for module in top)]

    kernel, ours = run_child(body, os.fork)
    assert ours == pytest.approx(kernel, rel=0.25, abs=400 << 10)


def test_an_import_that_forks_is_recorded_once(folder: Path) -> None:
    write(folder, "ffi_forks.py", "import os\npid = os.fork()\nimport ffi_after\n")
    write(folder, "ffi_after.py")
    journal = Journal()
    pid = os.fork()
    if pid == 0:
        with observe(journal):
            module = importlib.import_module("ffi_forks")
            if module.pid == 0:
                os._exit(0)
            os.waitpid(module.pid, 0)
        os._exit(0)
    assert wait_bounded(pid) == 0
    seen = Observation.from_journal(journal)
    journal.close()
    assert list(found(seen)) == ["ffi_forks", "ffi_after"]


def test_observations_of_before_still_load() -> None:
    module = (
        b'{"name": "m", "origin": null, "started": 1.0, "seconds": 2.0, "cumulative": 3.0, "error": null}'
    )
    old = (
        b'{"format": 1, "modules": ['
        + module
        + b'], "complete": true, "wall_seconds": 1.0, "cpu_seconds": 1.0,'
        b' "lost": 0, "pages": null, "copies": null}'
    )
    (seen,) = Observation.from_json(old).modules
    assert seen == ModuleImport("m", None, 1.0, 2.0, 3.0, None, 0, 0, None)
    whole = Observation([seen._replace(bytes=5, cumulative_bytes=7, importer="n")])
    assert Observation.from_json(whole.to_json()) == whole
