# SPDX-License-Identifier: Apache-2.0
"""What a worker finds is its own. Each script is a zygote, in a fresh interpreter, and forks workers as a pool does."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.integration.worker_script import PRELUDE, run

needs_numpy = pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="needs numpy")


def test_siblings_draw_other_numbers() -> None:
    seen = run("""
        import random, ssl, secrets, tempfile
        become()
        random.seed(1)
        next(tempfile._get_candidate_names())
        ssl.RAND_bytes(8)
        draw = lambda: [random.random(), ssl.RAND_bytes(8).hex(), secrets.token_hex(8),
                        next(tempfile._get_candidate_names())]
        print(json.dumps([work(draw), work(draw), draw()]))
    """)
    for each in zip(*seen, strict=True):
        assert len(set(each)) == 3


@needs_numpy
@pytest.mark.parametrize("kind", ["MT19937", "PCG64"])
def test_siblings_draw_other_numbers_from_numpy(kind: str) -> None:
    seen = run(f"""
        import numpy
        if {kind!r} != "MT19937":
            numpy.random.set_bit_generator(numpy.random.{kind}(1))
        else:
            numpy.random.seed(1)
        become()
        numpy.random.standard_normal()  # keeps a second number for the next call
        draw = lambda: [numpy.random.standard_normal(), numpy.random.random(), numpy.random.default_rng().random()]
        print(json.dumps([work(draw), work(draw), draw()]))
    """)
    for each in zip(*seen, strict=True):
        assert len(set(each)) == 3


def test_signals_do_what_they_do_by_default() -> None:
    seen = run("""
        import _signal
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        become()
        zygote = {"INT": int(signal.getsignal(signal.SIGINT)), "TERM": int(signal.getsignal(signal.SIGTERM))}
        def look():
            def name(number):
                handler = signal.getsignal(number)
                return getattr(handler, "__name__", None) or int(handler)
            return {
                "handlers": {signal.Signals(n).name: name(n) for n in signal.valid_signals()
                             if n < 32 and name(n) != 0},
                "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
                "wakeup": signal.set_wakeup_fd(-1),
            }
        print(json.dumps([zygote, work(look)]))
    """)
    zygote, worker = seen
    assert zygote == {"INT": 1, "TERM": 0}
    # SIGUSR2 as across an exec; SIGCHLD not, or no worker could wait for a subprocess.
    assert worker["handlers"] == {"SIGINT": "default_int_handler", "SIGPIPE": 1, "SIGXFSZ": 1, "SIGUSR2": 1}
    assert worker["blocked"] == []
    assert worker["wakeup"] == -1


def test_an_owner_under_nohup_has_workers_under_nohup() -> None:
    seen = run("""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        become()
        look = lambda: [int(signal.getsignal(number)) for number in (signal.SIGHUP, signal.SIGINT)]
        print(json.dumps(work(look)))
    """)
    assert seen == [1, 1]


def test_a_signal_that_comes_before_a_worker_is_one_ends_it() -> None:
    seen = run("""
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"a handler of the zygote ran"))
        become()
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"a handler of the zygote ran"))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            _worker.become_worker("pool-1", 1, ())
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)
    assert seen == -15


def test_crash_reports_of_faulthandler_stay() -> None:
    script = PRELUDE + textwrap.dedent("""
        import faulthandler
        faulthandler.enable()
        become()
        def named_in_the_report():
            os.kill(os.getpid(), signal.SIGSEGV)
        work(named_in_the_report, expect=-signal.SIGSEGV)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "named_in_the_report" in done.stderr


def test_inherited_descriptors_refuse_and_their_numbers_stay_taken() -> None:
    seen = run("""
        import errno, fcntl, socket, tempfile
        become()
        left, right = socket.socketpair()
        kept, _ = socket.socketpair()
        file = tempfile.TemporaryFile()
        lock = open(tempfile.mkstemp()[1], "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        random = open("/dev/urandom", "rb", buffering=0)
        spare = os.dup(0)
        _worker.disposable.add(spare)
        def error(act, *arguments):
            try:
                act(*arguments)
            except OSError as error:
                return errno.errorcode[error.errno]
        def look():
            answers = {
                "send": error(left.send, b"x"), "read": error(os.read, file.fileno(), 1),
                "write": error(os.write, file.fileno(), b"x"), "kept": error(kept.send, b"x"),
                "random": len(random.read(4)), "disposable": error(os.fstat, spare),
                "flock": error(fcntl.flock, lock, fcntl.LOCK_UN),
            }
            number = left.fileno()
            left.close()
            answers["free again"] = error(os.fstat, number)
            return answers
        answers = work(look, keep=(kept.fileno(),))
        other = open(lock.name)
        answers["still locked"] = error(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(lock.name)
        # The other end sees an end of file although a worker lives.
        def hold():
            os.write(out, b"here")
            os.read(hold_on, 1)
        hold_on, let_go = os.pipe()
        ready, out = os.pipe()
        pid = fork()
        if pid == 0:
            _worker.become_worker("pool-2", 1, (hold_on, out))
            hold()
            os._exit(0)
        os.read(ready, 4)
        left.close()
        right.settimeout(20)
        answers["peer"] = right.recv(1).decode()
        os.close(let_go)
        os.waitpid(pid, 0)
        print(json.dumps(answers))
    """)
    assert seen == {
        "send": "EBADF",
        "read": "EBADF",
        "write": "EBADF",
        "kept": None,
        "random": 4,
        "disposable": "EBADF",
        "flock": "EBADF",
        "free again": "EBADF",
        "still locked": "EAGAIN",
        "peer": "",
    }


def test_what_was_registered_for_the_zygotes_end_is_not_for_a_workers() -> None:
    seen = run("""
        import atexit, tempfile, threading, weakref, multiprocessing.util
        from concurrent.futures import ThreadPoolExecutor
        out = open(os.dup(1), "wb", buffering=0)
        folder = tempfile.TemporaryDirectory()
        kept = [folder]
        atexit.register(lambda: out.write(b"zygote's atexit\\n"))
        threading._register_atexit(lambda: out.write(b"zygote's threading\\n"))
        multiprocessing.util.Finalize(None, lambda: out.write(b"zygote's Finalize\\n"), exitpriority=1)
        become(out.fileno())
        class Thing: pass
        thing = Thing()
        said = []
        path = os.path.join(folder.name, "by the worker")
        def body():
            global mine
            kept.clear()  # the folder object dies here
            globals().pop("folder")
            atexit.register(lambda: os.write(answer, b"atexit "))
            threading._register_atexit(lambda: os.write(answer, b"threading "))
            multiprocessing.util.Finalize(None, lambda: os.write(answer, b"Finalize "), exitpriority=1)
            weakref.finalize(thing, os.write, answer, b"finalize ")
            executor = ThreadPoolExecutor(1)
            executor.submit(os.write, answer, b"thread ")
            mine = open(path, "w")
            mine.write("buffered")
        reader, answer = os.pipe()
        name = folder.name
        work(body, keep=(answer, out.fileno()), leave=True)
        os.close(answer)
        with open(path) as file:
            written = file.read()
        words = os.read(reader, 1000).decode().split()
        os.unlink(path)
        os.write(1, json.dumps([sorted(words), written, os.path.isdir(name)]).encode())
        atexit._clear(); folder.cleanup(); os._exit(0)
    """)
    assert seen == [["Finalize", "atexit", "finalize", "thread", "threading"], "buffered", True]


def test_log_records_name_the_worker_and_go_where_the_zygotes_go(tmp_path: Path) -> None:
    seen = run(f"""
        import logging.handlers, socket, threading, pickle
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(20)
        file = logging.FileHandler({str(tmp_path / "log")!r})
        file.setFormatter(logging.Formatter("%(processName)s %(threadName)s %(message)s"))
        memory = logging.handlers.MemoryHandler(1000, target=file)
        net = logging.handlers.SocketHandler("127.0.0.1", listener.getsockname()[1])
        memory_log, net_log, file_log = (logging.getLogger(name) for name in ("memory", "net", "file"))
        for log, handler in ((memory_log, memory), (net_log, net), (file_log, file)):
            log.addHandler(handler)
        net_log.warning("from the zygote")
        zygote, _ = listener.accept()
        memory_log.warning("zygote's, unwritten")
        become(listener.fileno(), zygote.fileno())
        def body():
            file_log.warning("from the worker")
            memory_log.warning("worker's, unwritten")
            net_log.warning("from the worker")
        work(body, name="pool-7", generation=3, leave=True)
        worker, _ = listener.accept()
        def message(connection):
            with connection, connection.makefile("rb") as stream:
                return pickle.loads(stream.read(int.from_bytes(stream.read(4), "big")))["msg"]
        said = [message(zygote), message(worker)]
        print(json.dumps([said, open({str(tmp_path / "log")!r}).read().splitlines()]))
        memory.buffer.clear()
        os._exit(0 if sys.stdout.flush() is None else 1)
    """)
    said, lines = seen
    assert said == ["from the zygote", "from the worker"]
    assert lines == ["pool-7@3 MainThread from the worker", "pool-7@3 MainThread worker's, unwritten"]


@pytest.mark.parametrize("titles", [True, False])
def test_ps_shows_name_and_generation(titles: bool) -> None:
    if titles and importlib.util.find_spec("setproctitle") is None:
        pytest.skip("needs setproctitle")
    seen = run(f"""
        import psutil
        if not {titles}:
            sys.modules["setproctitle"] = None
        become()
        def look():
            me = psutil.Process()
            with open("/proc/self/comm") as comm:
                return [comm.read().strip(), " ".join(me.cmdline()).strip()]
        print(json.dumps([look(), work(look, name="a-long-pool-name-12", generation=3)]))
    """)
    (zygote, zygote_title), (worker, worker_title) = seen
    assert zygote == "pool zygote@1"
    assert worker == "-pool-name-12@3"
    if titles:
        assert zygote_title == "frostfork: pool zygote@1"
        assert worker_title == "frostfork: a-long-pool-name-12@3"


def test_nothing_is_printed_twice_and_nothing_printed_is_lost() -> None:
    script = PRELUDE + textwrap.dedent("""
        print("owner's,", end=" ")
        sys.stderr = sys.stdout = open(os.devnull, "w")  # as a test runner does
        pid = os.fork()
        if pid == 0:
            become()
            def die():
                print("worker's")
                print("stdin:", repr(sys.stdin.read()), os.path.samefile("/dev/fd/0", os.devnull))
                os.kill(os.getpid(), signal.SIGKILL)
            work(die, expect=-signal.SIGKILL)
            os._exit(0)
        os.waitpid(pid, 0)
        sys.__stdout__.write("and the owner's rest")
    """)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        input="secret",
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "worker's\nstdin: '' True\nowner's, and the owner's rest"


def test_event_loops_are_a_workers_own() -> None:
    seen = run("""
        import asyncio, warnings
        warnings.simplefilter("ignore")
        become()
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)  # as a library does when it is imported
        async def answer():
            await asyncio.sleep(0)
            process = await asyncio.create_subprocess_exec("/bin/echo", "42", stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            return int(out)
        def body():
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return asyncio.run(answer())
        async def fork_within():
            return work(body)
        print(json.dumps([work(body), loop.run_until_complete(fork_within())]))
        loop.close()
    """)
    assert seen == [42, 42]


def test_threads_and_executors_work_in_a_worker() -> None:
    seen = run("""
        import threading
        from concurrent.futures import ThreadPoolExecutor
        executor = ThreadPoolExecutor(1)
        executor.submit(int).result()
        executor.shutdown()
        become()
        def body():
            seen = []
            thread = threading.Thread(target=lambda: seen.append(threading.active_count()))
            thread.start()
            thread.join()
            with ThreadPoolExecutor(2) as mine:
                total = sum(mine.map(int, "123"))
            return [threading.current_thread() is threading.main_thread(), threading.main_thread().name,
                    threading.active_count(), seen, total]
        print(json.dumps(work(body, leave=True)))
    """)
    assert seen == [True, "MainThread", 1, [2], 6]


def test_callbacks_from_c_can_be_made_in_a_worker() -> None:
    """More than libffi has trampolines for: some builds of it map more from their own file, which they hold open."""
    seen = run("""
        import ctypes
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
        callback(abs)
        become()
        print(json.dumps(work(lambda: sum(each(-3) for each in [callback(abs) for _ in range(3000)]))))
    """)
    assert seen == 9000


def test_multiprocessing_works_in_a_worker() -> None:
    seen = run("""
        import multiprocessing, multiprocessing.util, psutil
        from multiprocessing import shared_memory
        context = multiprocessing.get_context("fork")
        block = shared_memory.SharedMemory(create=True, size=1000)  # starts a tracker
        folder = multiprocessing.util.get_temp_dir()
        stop = context.Event()
        child = context.Process(target=stop.wait, args=(20,))
        child.start()
        become()
        def body():
            children = multiprocessing.active_children()
            queue = context.Queue()
            process = context.Process(target=queue.put, args=("from a worker's child",))
            process.start()
            answer = queue.get(timeout=20)
            process.join()
            block.buf[0] = 7
            mine = shared_memory.SharedMemory(create=True, size=1000)
            name = mine.name
            mine.close()
            other = multiprocessing.util.get_temp_dir()
            assert psutil.Process().children() == [], "it has begun a tracker of its own"
            return [len(children), answer, process.name, name, other != folder and os.path.isdir(other), other]
        children, answer, name, shared, own_folder, other = work(body, leave=True)
        # The tracker is one for all: what a worker made is there after its end, until it is unlinked here.
        found = shared_memory.SharedMemory(shared)
        found.close()
        found.unlink()
        stop.set()
        child.join(20)
        gone = not os.path.exists(other)
        kept = [os.path.isdir(folder), block.buf[0], child.exitcode]
        print(json.dumps([children, answer, name, own_folder, gone, *kept]))
        block.close()
        block.unlink()
    """)
    assert seen == [0, "from a worker's child", "ForkProcess-1", True, True, True, 7, 0]


def test_an_exit_code_arrives() -> None:
    """leave() ends with the code that it is given, 120 where output cannot be written."""
    run("""
        become()
        def full():
            device = os.open("/dev/full", os.O_WRONLY)
            os.dup2(device, 1)
            sys.stdout.write("no newline")
        work(full, leave=True, expect=120)
        pid = fork()
        if pid == 0:
            _worker.become_worker("pool-1", 1, ())
            _worker.leave(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        print("null")
    """)


@needs_numpy
def test_an_idle_worker_has_less_than_a_megabyte_of_its_own() -> None:
    """As the kernel counts it: Private_Clean and Private_Dirty. An os.fork child has 0.6 of it, whatever it does.

    Without immortal objects, which came with 3.12, an os.fork child has 0.9 of it.
    """
    seen = run("""
        import asyncio, logging.handlers, multiprocessing.pool, numpy.random, frostfork
        become()
        frostfork.warmup()
        def private():
            reader, writer = os.pipe()
            stop, go = os.pipe()
            pid = fork()
            if pid == 0:
                _worker.become_worker("pool-1", 1, (writer, stop))
                os.write(writer, b"x")
                os.read(stop, 1)
                os._exit(0)
            os.read(reader, 1)
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                found = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
            os.write(go, b"x")
            os.waitpid(pid, 0)
            for fd in (reader, writer, stop, go):
                os.close(fd)
            return found
        print(json.dumps([private() for _ in range(3)]))
    """)
    assert max(seen) < (1024 if sys.version_info >= (3, 12) else 2048)
