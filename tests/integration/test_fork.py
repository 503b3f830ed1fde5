# SPDX-License-Identifier: Apache-2.0
"""fork(): the contract of os.fork, and a frozen child."""

from __future__ import annotations

import errno
import gc
import os
import resource
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest

import frostfork
from tests.integration.forking import run_child, wait_bounded


def test_pid_in_parent_and_zero_in_child() -> None:
    pid = frostfork.fork()
    if pid == 0:
        os._exit(7)
    assert pid > 0
    assert wait_bounded(pid) == 7


def test_child_has_everything_inherited_frozen_and_nothing_else() -> None:
    tracked = len(gc.get_objects())

    def look() -> tuple[int, int]:
        return gc.get_freeze_count(), len(gc.get_objects())

    frozen, young = run_child(look, frostfork.fork)
    assert frozen >= tracked * 0.99  # a collection meanwhile may end some of them
    assert young < tracked / 10
    plain, _ = run_child(look, os.fork)
    assert plain == gc.get_freeze_count()
    unfrozen, _ = run_child(look, lambda: frostfork.fork(freeze=False))
    assert unfrozen == gc.get_freeze_count()


@pytest.mark.parametrize("enabled", [True, False])
def test_collector_is_as_enabled_as_it_was(enabled: bool) -> None:
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        assert run_child(gc.isenabled, frostfork.fork) is enabled
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_fork_within_a_collection_callback() -> None:
    answers: list[int] = []

    def callback(phase: str, info: dict[str, int]) -> None:
        if not answers:
            answers.append(run_child(lambda: gc.get_freeze_count() + gc.collect() * 0, frostfork.fork))

    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)
    assert answers[0] > 1000


SCRIPT_HOOKS = """
    import gc, os, sys, frostfork
    seen = []
    for name in ("first", "second"):
        os.register_at_fork(
            before=lambda name=name: seen.append("before " + name),
            after_in_parent=lambda name=name: seen.append("parent " + name),
            after_in_child=lambda name=name: seen.append(f"child {name} {gc.get_freeze_count() > 1000}"),
        )
    events = []
    sys.addaudithook(lambda event, args: events.append(event) if event.startswith("os.fork") else None)
    pid = getattr(__import__(sys.argv[1]), "fork")()
    if pid == 0:
        print(seen, events, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    print(seen, events)
"""


def run_script(script: str, *arguments: str, **options: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_hooks_and_audit_event_as_os_fork_and_hooks_see_a_frozen_child() -> None:
    ours, plain = (run_script(SCRIPT_HOOKS, module) for module in ("frostfork", "os"))
    assert "'child first True', 'child second True'" in ours
    assert ours.replace("True", "False") == plain
    assert "['before second', 'before first', 'parent first', 'parent second'] ['os.fork']" in ours


def test_audit_hook_can_refuse() -> None:
    script = """
        import os, sys, frostfork
        def refuse(event, args):
            if event == "os.fork":
                raise PermissionError("not here")
        sys.addaudithook(refuse)
        try:
            frostfork.fork()
        except PermissionError as error:
            print(error)
    """
    assert run_script(script) == "not here\n"


def test_eagain_from_the_process_limit() -> None:
    script = """
        import errno, os, resource, frostfork
        if os.getuid() == 0:
            os.setgid(54321)
            os.setuid(100_000 + os.getpid())  # the limit does not bind root
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        try:
            frostfork.fork()
        except BlockingIOError as error:
            print(error.errno == errno.EAGAIN)
    """
    assert run_script(script) == "True\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="os.fork does not warn of threads before 3.12")
def test_warning_names_the_threads() -> None:
    stop = threading.Event()
    worker = threading.Thread(target=stop.wait, name="a worker of mine")
    worker.start()
    try:
        with pytest.warns(
            DeprecationWarning, match=r"multi-threaded.*fork.*Threads: .*a worker of mine"
        ) as caught:
            assert run_child(threading.active_count, frostfork.fork) == 1
        assert caught[0].filename != frostfork.install.__code__.co_filename
    finally:
        stop.set()
        worker.join(10)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="os.fork does not warn of threads before 3.12")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_warning_made_an_error_does_not_lose_the_child() -> None:
    stop = threading.Event()
    worker = threading.Thread(target=stop.wait)
    worker.start()
    hook, seen = sys.unraisablehook, []
    sys.unraisablehook = lambda args: seen.append(args.exc_type)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert run_child(lambda: 5, frostfork.fork) == 5
        assert seen == [DeprecationWarning]
    finally:
        sys.unraisablehook = hook
        stop.set()
        worker.join(10)


def test_fork_with_a_thousand_open_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip(f"at most {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    opened = []
    try:
        opened = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(1000)]
        counted = run_child(lambda: len(os.listdir("/proc/self/fd")), lambda: frostfork.fork(baseline=True))
        assert counted >= 1000
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_used_up_leaves_a_child_without_a_baseline() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def why() -> str:
        try:
            frostfork.child_baseline()
        except frostfork.BaselineError as error:
            return errno.errorcode[error.__cause__.errno]
        return "there is one"

    def fork() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            return frostfork.fork(baseline=True)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert run_child(why, fork) == "EMFILE"


@pytest.mark.timeout(300)
def test_parent_of_many_forks_does_not_keep_its_garbage() -> None:
    """Freezing and unfreezing in the parent grows without end here; freezing in the child does not."""
    script = """
        import gc, os, sys, frostfork, resource
        class Node: pass
        def garbage():
            for _ in range(300):
                a, b = Node(), Node()
                a.other, b.other, a.load = b, a, bytes(500)
        fork = {"frostfork": frostfork.fork, "os": os.fork}[sys.argv[1]]
        for _ in range(400):
            garbage()
            pid = fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        statm = open("/proc/self/statm").read().split()
        print(int(statm[1]) * resource.getpagesize())
    """
    ours, plain = (int(run_script(script, name)) for name in ("frostfork", "os"))
    assert ours < plain * 1.1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="os.fork does not warn of threads before 3.12")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_thread_with_an_odd_name_does_not_lose_the_child() -> None:
    stop = threading.Event()

    # The kernel cuts names at 15 bytes, in the middle of a character.
    def run() -> None:
        with open("/proc/thread-self/comm", "wb") as comm:
            comm.write(b"\xc3" * 15)
        named.set()
        stop.wait()

    named = threading.Event()
    odd = threading.Thread(target=run)
    odd.start()
    assert named.wait(10)
    del threading._active[odd.ident]  # as a native thread, of which only the kernel knows the name
    try:
        assert run_child(lambda: 1, frostfork.fork) == 1
    finally:
        threading._active[odd.ident] = odd
        stop.set()
        odd.join(10)
