# SPDX-License-Identifier: Apache-2.0
"""What docs/pools.md says of things that a zygote holds while it forks: a worker meets them as they are here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.integration.worker_script import run

needs_numpy = pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="needs numpy")


def test_a_database_file_that_the_zygote_has_open_refuses(tmp_path: Path) -> None:
    """Two processes that use one SQLite connection damage the file. A new connection works."""
    seen = run(f"""
        import sqlite3
        become()
        path = {str(tmp_path / "data")!r}
        database = sqlite3.connect(path)
        database.execute("create table t (x)")
        database.execute("insert into t values (1)")
        database.commit()
        def body():
            try:
                database.execute("insert into t values (2)")
                database.commit()
                said = ""
            except sqlite3.Error as error:
                said = type(error).__name__
            mine = sqlite3.connect(path, timeout=10)
            mine.execute("insert into t values (3)")
            mine.commit()
            mine.close()
            return said
        said = work(body, leave=True)
        database.execute("insert into t values (4)")
        database.commit()
        rows = [x for x, in database.execute("select x from t order by x")]
        healthy = database.execute("pragma integrity_check").fetchone()[0]
        database.close()
        print(json.dumps([bool(said), rows, healthy]))
    """)
    assert seen == [True, [1, 3, 4], "ok"]


def test_memory_that_is_mapped_as_shared_is_shared(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(4096))
    seen = run(f"""
        import mmap
        become()
        anonymous = mmap.mmap(-1, 4096)
        with open({str(tmp_path / "file")!r}, "r+b") as file:
            mapped = mmap.mmap(file.fileno(), 4096)
        def body():
            anonymous[0] = mapped[0] = 7
            return mapped[1]
        print(json.dumps([work(body), anonymous[0], mapped[0]]))
    """)
    assert seen == [0, 7, 7]


@needs_numpy
def test_a_generator_that_somebody_made_is_the_same_in_all_workers() -> None:
    """Nobody can find them; the page says so."""
    seen = run("""
        import random, numpy
        become()
        mine, numpys = random.Random(), numpy.random.default_rng()
        draw = lambda: [mine.random(), numpys.random()]
        print(json.dumps([work(draw), work(draw)]))
    """)
    assert seen[0] == seen[1]


@needs_numpy
def test_linear_algebra_works_before_and_after_the_fork() -> None:
    """OpenBLAS ends its threads before a fork, and starts them again where they are needed."""
    seen = run("""
        import warnings
        import numpy
        warnings.simplefilter("ignore", DeprecationWarning)  # the threads are counted when they are back
        become()
        matrix = numpy.ones((600, 600))
        (matrix @ matrix).sum()
        body = lambda: float((matrix @ matrix).sum())
        print(json.dumps([work(body), work(body), body()]))
    """)
    assert seen == [600.0**3] * 3


def test_processes_and_timers_of_the_zygote_are_not_the_workers() -> None:
    seen = run("""
        import subprocess
        become()
        child = subprocess.Popen(["/bin/sleep", "60"])
        signal.setitimer(signal.ITIMER_REAL, 60)
        def body():
            try:
                os.waitpid(child.pid, os.WNOHANG)
                mine = True
            except ChildProcessError:
                mine = False
            own = subprocess.run(["/bin/echo", "own"], capture_output=True, timeout=20)
            return [mine, signal.getitimer(signal.ITIMER_REAL)[0], own.stdout.decode().strip()]
        answer = work(body)
        alive = child.poll() is None
        signal.setitimer(signal.ITIMER_REAL, 0)
        child.kill()
        child.wait(20)
        print(json.dumps([answer, alive]))
    """)
    assert seen == [[False, 0.0, "own"], True]


def test_environment_and_folder_are_copies() -> None:
    seen = run("""
        become()
        def body():
            os.environ["FF_TEST"] = "worker's"
            os.chdir("/")
            os.umask(0o777)
            return os.getcwd()
        before = os.getcwd()
        answer = work(body)
        mask = os.umask(0o22)
        print(json.dumps([answer, os.environ.get("FF_TEST"), os.getcwd() == before, mask == 0o777]))
    """)
    assert seen == ["/", None, True, False]


def test_what_the_zygote_has_not_written_out_is_not_written_twice(tmp_path: Path) -> None:
    seen = run(f"""
        become()
        path = {str(tmp_path / "file")!r}
        file = open(path, "w")
        file.write("once ")
        def body():
            try:
                file.write("worker's")
                file.flush()
            except OSError as error:
                return error.errno
        answer = work(body, leave=True)
        file.close()
        with open(path) as written:
            print(json.dumps([answer, written.read()]))
    """)
    assert seen == [9, "once "]
