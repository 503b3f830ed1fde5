# SPDX-License-Identifier: Apache-2.0
"""The multiprocessing context: how its processes start, what they inherit, and who takes it.

Programs of their own, since a test's process has threads at times and its start method is everybody's.
CPython's own tests of multiprocessing run with it in tests/cpython.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import frostfork.context
from tests.integration.forking import run_script


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """Run a program from a file, as multiprocessing needs it; returns what it printed."""

    def run(body: str, *, code: int = 0, **environment: str) -> str:
        file = tmp_path / "program.py"
        file.write_text(textwrap.dedent(body))
        with open(tmp_path / "errors", "w+") as errors:  # children hold it open: a pipe would wait for them
            done = subprocess.run(
                [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=errors, text=True, timeout=90,
                check=False, cwd=tmp_path, env={**os.environ, **environment},
            )  # fmt: skip
            errors.seek(0)
            said = errors.read()
        assert done.returncode == code, said
        assert "Traceback" not in said or code, said
        return done.stdout

    return run


# --- the names


def test_contexts_are_known_by_name() -> None:
    context = frostfork.context.get_context()
    assert multiprocessing.get_context("frostfork") is context
    assert context.get_context("frostfork") is context
    assert isinstance(context, multiprocessing.context.BaseContext)
    assert context.get_start_method() == "frostfork"
    assert "frostfork" in multiprocessing.get_all_start_methods()
    assert multiprocessing.get_context("frostfork-zygote").get_start_method() == "frostfork-zygote"


def test_fork_says_that_it_is_fork() -> None:
    # ProcessPoolExecutor starts all workers before it has a thread, and locks need no name, if this is "fork".
    assert frostfork.context.get_context("fork").get_start_method() == "fork"


def test_a_wrong_start_is_named() -> None:
    with pytest.raises(ValueError, match="'spawn'"):
        frostfork.context.get_context("spawn")  # type: ignore[arg-type]


def test_the_other_start_methods_stay() -> None:
    assert {"fork", "spawn", "forkserver"} <= set(multiprocessing.get_all_start_methods())
    assert type(multiprocessing.get_context("fork")).__module__ == "multiprocessing.context"


# --- by fork


def test_from_one_thread_it_forks(program: Any) -> None:
    said = program(
        """
        import gc, multiprocessing, frostfork.context

        seen = []

        def child(send):
            process = multiprocessing.current_process()
            send.send((process.started, process.name, multiprocessing.parent_process().pid,
                       multiprocessing.get_start_method(), seen, gc.get_freeze_count() > 1000))

        if __name__ == "__main__":
            import os
            multiprocessing.set_start_method("frostfork")
            seen.append("set after the start")
            receive, send = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=lambda: child(send), name="one")  # which nothing can pickle
            process.start()
            started, name, parent, method, inherited, frozen = receive.recv()
            process.join(20)
            assert process.exitcode == 0, process
            assert started == process.started == ("fork", "its parent has one thread"), started
            assert (name, parent, method) == ("one", os.getpid(), "frostfork")
            assert inherited == ["set after the start"]
            assert frozen
            print("done")
        """
    )
    assert said == "done\n"


def test_fork_exit_codes_and_signals(program: Any) -> None:
    said = program(
        """
        import os, signal, sys, time
        import frostfork.context

        if __name__ == "__main__":
            context = frostfork.context.get_context("fork")
            ends = [(sys.exit, (7,)), (os.kill, (0, signal.SIGTERM)), (os._exit, (3,))]
            for target, args in ends[:1] + ends[2:]:
                process = context.Process(target=target, args=args)
                process.start()
                process.join(20)
                print(process.exitcode)
            sleeper = context.Process(target=time.sleep, args=(60,), daemon=True)
            sleeper.start()
            sleeper.terminate()
            sleeper.join(20)
            print(sleeper.exitcode)
        """
    )
    assert said.split() == ["7", "3", "-15"]


def test_fork_with_threads_warns_of_them() -> None:
    said = run_script(
        """
        import json, threading, warnings
        import frostfork.context

        done = threading.Event()
        thread = threading.Thread(target=done.wait, name="of a library")
        thread.start()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            process = frostfork.context.get_context("fork").Process(target=int)
            process.start()
        process.join(20)
        done.set()
        thread.join()
        print(json.dumps([process.exitcode, [str(each.message) for each in seen]]))
        """
    )
    assert said[0] == 0
    if sys.version_info >= (3, 12):
        assert "of a library" in said[1][0]


def test_a_fork_that_fails_leaves_nothing_open(program: Any) -> None:
    said = program(
        """
        import os, sys
        import frostfork.context

        def refuse(event, args):
            if event == "os.fork":
                raise PermissionError("refused")

        context = frostfork.context.get_context("fork")
        process = context.Process(target=int)
        sys.addaudithook(refuse)
        before = os.listdir("/proc/self/fd")
        try:
            process.start()
        except PermissionError:
            print(before == os.listdir("/proc/self/fd"))
        """
    )
    assert said == "True\n"


# --- beside other start methods


def test_a_spawned_process_of_a_frostfork_program_knows_the_name(program: Any) -> None:
    said = program(
        """
        import multiprocessing, frostfork.context

        def child(send):
            send.send(multiprocessing.get_start_method())

        if __name__ == "__main__":
            multiprocessing.set_start_method("frostfork")
            for method in ("spawn", "forkserver"):
                context = multiprocessing.get_context(method)
                receive, send = context.Pipe(duplex=False)
                process = context.Process(target=child, args=(send,))
                process.start()
                send.close()
                print(receive.recv())
                process.join(20)
                assert process.exitcode == 0
        """
    )
    assert said.split() == ["spawn", "forkserver"]


# --- from the zygote


def test_from_the_zygote(program: Any) -> None:
    said = program(
        """
        import multiprocessing, os, signal, time
        import frostfork

        loaded = []

        def child(queue, lock, value):
            process = multiprocessing.current_process()
            with lock:
                value.value += 1
            queue.put((process.name, process.started, os.getppid(), multiprocessing.parent_process().pid, loaded,
                       os.environ.get("LATE"), os.getcwd(), bytes(process.authkey)))

        if __name__ == "__main__":
            context = frostfork.get_context("zygote")
            loaded.append("before the zygote")
            queue, lock, value = context.Queue(), context.Lock(), context.Value("i", 0)
            for number in range(2):
                process = context.Process(target=child, args=(queue, lock, value), name=f"w{number}")
                os.environ["LATE"] = str(number)
                process.start()
                said = queue.get(timeout=20)
                process.join(20)
                assert process.exitcode == 0
                assert said == (f"w{number}", ("zygote", "asked for"), context.zygote.pid, os.getpid(),
                                ["before the zygote"], str(number), os.getcwd(),
                                bytes(multiprocessing.current_process().authkey)), said
            assert value.value == 2
            for end, code in ((os._exit, 7), (os.abort, -signal.SIGABRT), (time.sleep, -signal.SIGTERM)):
                process = context.Process(target=end, args=(60,) if end is time.sleep else (7,) if code > 0 else ())
                process.start()
                if end is time.sleep:
                    process.terminate()
                multiprocessing.connection.wait([process.sentinel], 20)
                assert process.exitcode == code, (end, process)
                process.close()
            print("done")
        """
    )
    assert said == "done\n"


def test_auto_goes_to_the_zygote_when_there_are_threads(program: Any) -> None:
    said = program(
        """
        import threading
        import frostfork

        def child():
            print("child", flush=True)

        if __name__ == "__main__":
            context = frostfork.get_context()
            done = threading.Event()
            thread = threading.Thread(target=done.wait, name="heartbeat")
            thread.start()
            process = context.Process(target=child)
            process.start()
            process.join(30)
            print(process.exitcode, *process.started)
            refused = context.Process(target=lambda: None)
            try:
                refused.start()
            except Exception as error:
                print(*getattr(error, "__notes__", [f"{refused.name} is pickled because it starts from the zygote"]))
            done.set()
            thread.join()
        """
    )
    assert said.splitlines()[:2] == ["child", "0 zygote its parent has other threads: heartbeat"]
    assert "is pickled because it starts from the zygote" in said.splitlines()[2]


POOLS = """
    import concurrent.futures, multiprocessing, os, sys
    import frostfork

    data = None

    def task(number):
        process = multiprocessing.current_process()
        return os.getpid(), process.started.method, data["key"]

    if __name__ == "__main__":
        for key in ("first", "second"):
            data = {"key": key}   # which a fork inherits
            context = frostfork.get_context()
"""


@pytest.mark.parametrize(
    "body",
    [
        """
            with context.Pool(2, maxtasksperchild=2) as pool:
                seen = set(pool.map(task, range(12), chunksize=1))
    """,
        """
            # Not with max_tasks_per_child, with which it hangs whatever the context (CPython issue 115634).
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
                seen = set(pool.map(task, range(12)))
    """,
    ],
    ids=["Pool", "ProcessPoolExecutor"],
)
def test_all_workers_of_a_pool_begin_alike(program: Any, body: str) -> None:
    """Replacements included: they have what the pool's process had when the pool was made."""
    check = """
            assert {(how, what) for _, how, what in seen} == {("zygote", key)}, seen
            print(len({pid for pid, _, _ in seen}))
    """
    counts = [int(line) for line in program(textwrap.dedent(POOLS + body + check)).split()]
    assert len(counts) == 2
    if "maxtasksperchild" in body:
        assert min(counts) > 2, "no worker was replaced"


def test_joblib_takes_it(program: Any) -> None:
    pytest.importorskip("joblib")
    said = program(
        """
        import os
        import joblib, frostfork

        def square(number):
            return number * number, os.getppid()

        if __name__ == "__main__":
            context = frostfork.get_context()
            done = joblib.Parallel(n_jobs=2, backend=context)(joblib.delayed(square)(n) for n in range(6))
            print([result for result, _ in done], {parent for _, parent in done} == {context.zygote.pid})
        """
    )
    assert said == "[0, 1, 4, 9, 16, 25] True\n"


def test_what_a_data_loader_does(program: Any) -> None:
    """By the calls that torch makes: the context by name, an index queue and a process for each worker, an event, one
    queue of results, daemons."""
    said = program(
        """
        import multiprocessing, queue
        import frostfork.context

        def loop(dataset, index_queue, data_queue, done):
            while True:
                index = index_queue.get(timeout=20)
                if index is None:
                    break
                data_queue.put((index, dataset[index]))
            assert done.is_set()
            data_queue.cancel_join_thread()
            data_queue.close()

        if __name__ == "__main__":
            assert "frostfork" in multiprocessing.get_all_start_methods()
            context = multiprocessing.get_context("frostfork")
            assert isinstance(context, multiprocessing.context.BaseContext)
            for epoch in range(2):
                results, done, workers, queues = context.Queue(), context.Event(), [], []
                for number in range(2):
                    indices = context.Queue()
                    indices.cancel_join_thread()
                    worker = context.Process(target=loop, args=(list("abcdef"), indices, results, done))
                    worker.daemon = True
                    worker.start()
                    workers.append(worker)
                    queues.append(indices)
                for index in range(6):
                    queues[index % 2].put(index)
                print(sorted(results.get(timeout=20) for _ in range(6)) == list(enumerate("abcdef")))
                done.set()
                for indices in queues:
                    indices.put(None)
                for worker in workers:
                    worker.join(20)
                    assert worker.exitcode == 0
        """
    )
    assert said.split() == ["True", "True"]


def test_a_manager_and_shared_memory(program: Any) -> None:
    said = program(
        """
        from multiprocessing import shared_memory
        import frostfork

        def child(shared, name, items):
            memory = shared_memory.SharedMemory(name)
            memory.buf[0] = 42
            memory.close()
            items.append(shared["key"] + 1)

        if __name__ == "__main__":
            for start in ("fork", "zygote"):
                context = frostfork.get_context(start)
                memory = shared_memory.SharedMemory(create=True, size=16)
                with context.Manager() as manager:
                    shared, items = manager.dict(key=1), manager.list()
                    process = context.Process(target=child, args=(shared, memory.name, items))
                    process.start()
                    process.join(20)
                    print(process.exitcode, list(items), memory.buf[0])
                memory.close()
                memory.unlink()
        """
    )
    assert said.splitlines() == ["0 [2] 42", "0 [2] 42"]


def test_what_is_running_at_the_end_is_waited_for(program: Any, tmp_path: Path) -> None:
    program(
        """
        import atexit, os
        import frostfork.context  # and so, before what follows, multiprocessing's own part of the end

        def child(go, path):
            os.read(go, 1)
            with open(path, "w") as file:
                file.write("written")

        class Passed:  # a descriptor, as multiprocessing passes it to a process that it starts
            def __init__(self, fd):
                self.fd = fd

            def __reduce__(self):
                from multiprocessing.reduction import DupFd
                return _received, (DupFd(self.fd),)

        def _received(duplicate):
            return duplicate.detach()

        if __name__ == "__main__":
            read, write = os.pipe()
            atexit.register(os.write, write, b".")  # at the end, and before multiprocessing waits
            frostfork.get_context("zygote").Process(target=child, args=(Passed(read), "late")).start()
        """
    )
    assert (tmp_path / "late").read_text() == "written"


def test_a_killed_zygote_is_followed_by_another(program: Any) -> None:
    said = program(
        """
        import os, signal
        import frostfork

        def child(receive):
            receive.recv()

        if __name__ == "__main__":
            context = frostfork.get_context("zygote")
            receive, send = context.Pipe(duplex=False)
            first = context.Process(target=child, args=(receive,))
            first.start()
            pid = context.zygote.pid
            os.kill(pid, signal.SIGKILL)
            send.send("go on")
            second = context.Process(target=int)
            second.start()
            second.join(20)
            first.join(20)
            print(second.exitcode, first.exitcode in (0, 255), context.zygote.pid != pid)
        """
    )
    assert said == "0 True True\n"


def test_a_fork_and_a_worker_have_zygotes_of_their_own(program: Any) -> None:
    said = program(
        """
        import os
        import frostfork

        def leaf():
            os._exit(5)

        def branch():
            context = frostfork.get_context("zygote")
            process = context.Process(target=leaf)
            process.start()
            process.join(20)
            assert process.exitcode == 5, process
            assert context.zygote.pid not in seen
            os._exit(6)

        seen = []

        if __name__ == "__main__":
            zygote = frostfork.get_context("zygote").start_zygote()
            seen.append(zygote.pid)
            for start in ("fork", "zygote"):
                process = frostfork.get_context(start).Process(target=branch)
                process.start()
                process.join(30)
                print(process.exitcode)
        """
    )
    assert said.split() == ["6", "6"]


def test_a_zygote_of_ones_own(program: Any) -> None:
    said = program(
        """
        import os
        import frostfork

        class Loaded(frostfork.Template):
            def begin(self):
                global loaded
                loaded = "by the template"

        def show():
            print(loaded, os.getppid(), flush=True)

        if __name__ == "__main__":
            context = frostfork.get_context("zygote")
            with frostfork.Zygote(Loaded()) as zygote:
                context.use_zygote(zygote)
                process = context.Process(target=show)
                process.start()
                process.join(20)
                assert process.exitcode == 0
                context.use_zygote(None)
                print(zygote.pid)
        """
    )
    said, pid = said.splitlines()
    assert said == f"by the template {pid}"


def test_a_program_without_a_guard_is_told_so(program: Any) -> None:
    """Where the zygote is a new interpreter, it imports the program."""
    said = program(
        """
        import threading
        import frostfork

        done = threading.Event()
        thread = threading.Thread(target=done.wait, daemon=True)
        thread.start()
        process = frostfork.get_context("zygote").Process(target=print)
        try:
            process.start()
        except frostfork.ZygoteError as error:
            print(str(error))
        """
    )
    assert "if __name__ == '__main__':" in said and "is pickled because" not in said
