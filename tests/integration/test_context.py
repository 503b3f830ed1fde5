# SPDX-License-Identifier: Apache-2.0
"""The multiprocessing context: how its processes start, what they inherit, and who takes it.

Programs of their own, since a test's process has threads at times and its start method is everybody's.
CPython's own tests of multiprocessing run with it in tests/cpython.
"""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

import pytest

import frostfork.context
from tests.integration.forking import run_script

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
        frostfork.context.get_context("spawn")


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
