# SPDX-License-Identifier: Apache-2.0
"""The multiprocessing context where its processes come from a zygote: pools, executors and what is built on them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest


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


def test_a_program_from_standard_input_has_pools() -> None:
    """It has no file that a worker could import."""
    program = """
import frostfork
with frostfork.get_context("zygote").Pool(2) as pool:
    print(pool.map(len, ["a", "bc"]))
"""
    done = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[1, 2]\n"), done.stderr
