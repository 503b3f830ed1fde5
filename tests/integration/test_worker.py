# SPDX-License-Identifier: Apache-2.0
"""What a worker finds is its own. Each script is a zygote, in a fresh interpreter, and forks workers as a pool does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from tests.integration.forking import run_script

# work(body): what body returns in a worker.
_PRELUDE = """
import json, os, signal, sys, traceback
from frostfork import _worker, fork

def become():
    _worker.become_zygote("pool zygote", 1, ())

def work(body, name="pool-1", generation=2, keep=(), leave=False, expect=0):
    reader, writer = os.pipe()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = fork()
    if pid == 0:
        code = 1
        try:
            _worker.become_worker(name, generation, (writer, *keep))
            os.write(writer, json.dumps(body()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            if leave:
                _worker.leave(code)
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == expect, status
    return json.loads(text) if text else None
"""


def run(script: str, **environment: str) -> Any:
    return run_script(_PRELUDE + textwrap.dedent(script), **environment)


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
        draw = lambda: [numpy.random.random(), numpy.random.default_rng().random()]
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
    script = _PRELUDE + textwrap.dedent("""
        import faulthandler
        faulthandler.enable()
        become()
        def named_in_the_report():
            os.kill(os.getpid(), signal.SIGSEGV)
        work(named_in_the_report, expect=-signal.SIGSEGV)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
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
        become()
        class Thing: pass
        thing = Thing()
        said = []
        path = os.path.join(folder.name, "by the worker")
        def body():
            global mine
            kept.clear()  # the folder object dies in the worker
            globals().pop("folder").cleanup if False else globals().pop("folder", None)
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
