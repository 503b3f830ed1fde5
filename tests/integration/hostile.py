# SPDX-License-Identifier: Apache-2.0
"""Modules that do what no import should, and what a process has that they must not touch."""

from __future__ import annotations

import asyncio  # noqa: F401 - it registers a hook of its own when it is imported
import logging
import os
import signal
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import open_descriptors

# By kind: what does it, and a part of the finding's words.
EFFECTS = {
    "crashed-segv": ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
    "crashed-abort": ("import os\nos.abort()", "SIGABRT"),
    "crashed-kill": ("import os\nos.kill(os.getpid(), 9)", "SIGKILL"),
    "crashed-keeper": ("import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(100)", "killed"),
    "exited-sys": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "exited-os": ("import os\nos._exit(4)", "exit code 4"),
    "raised-error": ("1 / 0", "ZeroDivisionError"),
    "raised-interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "raised-syntax": ("def", "SyntaxError"),
    "raised-recursion": ("def f(): f()\nf()", "RecursionError"),
    "raised-file": (
        "with open(__file__ + '.big', 'wb') as file:\n for _ in range(100): file.write(bytes(1 << 20))",
        "File too large",
    ),
    "memory-grown": ("kept = []\nwhile True: kept.append(b'x' * (1 << 20))", "more than 200 MB"),
    "memory-error": ("raise MemoryError", "MemoryError"),
    "memory-child": (
        "import os\nif os.fork() == 0:\n kept = []\n while True: kept.append(b'x' * (1 << 20))\nos.wait()",
        "more than 200 MB",
    ),
    "hung-busy": ("while True: pass", "not done"),
    "hung-asleep": ("import time\ntime.sleep(1000)", "not done"),
    "hung-stopped": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "not done"),
    "hung-deaf": (
        """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass
        """,
        "not done",
    ),
    "output-print": ("for _ in range(20): print('x' * 100_000)", "printed more than 1 MB"),
    "output-child": ("import os\nos.system('head -c 3000000 /dev/zero >&2')", "printed more than 2 MB"),
    "output-gigabyte": ("for _ in range(1 << 10): print('x' * (1 << 20), flush=True)", "printed more than"),
    "thread-python": (
        "import threading\nthreading.Thread(target=threading.Event().wait, name='waits').start()",
        "'waits'",
    ),
    "thread-daemon": (
        "import threading\nthreading.Thread(target=threading.Event().wait, name='waits', daemon=True).start()",
        "'waits'",
    ),
    "thread-native": (
        """
        import ctypes
        libc = ctypes.CDLL(None)
        entry = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(("pause", libc))
        libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, entry, None)
        """,
        "native thread",
    ),
    "process-child": ("import os, time\nif os.fork() == 0: time.sleep(1000)", "running"),
    "process-daemon": (
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(1000)
            os._exit(0)
        os.wait()
        """,
        "running",
    ),
    "process-bomb": (
        """
        import os, time
        for _ in range(200):
            if os.fork() == 0:
                os.setsid()
                break
        time.sleep(1000)
        """,
        "more than 16 processes",
    ),
    "file-open": ("kept = open(__file__)", "open"),
    "file-pipe": ("import os\nkept = os.pipe()", "pipe:"),
    "file-closed": ("import os\nos.closerange(3, 1024)", "closed descriptors"),
    "socket-open": ("import socket\nkept = socket.socket()", "socket:"),
    "lock-flock": ("import fcntl\nkept = open(__file__)\nfcntl.flock(kept, fcntl.LOCK_EX)", "a lock on"),
    "signal-handler": ("import signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)", "SIGUSR1"),
    "signal-c": (
        "import ctypes, signal\nctypes.CDLL(None).signal(signal.SIGUSR2, ctypes.c_void_p(1))",
        "SIGUSR2 in C",
    ),
    "signal-fault": ("import faulthandler, signal\nfaulthandler.register(signal.SIGUSR1)", "SIGUSR1 in C"),
    "signal-mask": ("import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])", "blocked"),
    "signal-timer": ("import signal\nsignal.alarm(1000)", "timer"),
    "environment-set": ("import os\nos.environ['FFC_SET'] = '1'", "set FFC_SET"),
    "environment-unset": ("import os\ndel os.environ['PATH']", "unset PATH"),
    "environment-c": ("import ctypes\nctypes.CDLL(None).setenv(b'FFC_SET', b'1', 1)", "without os.environ"),
    "locale-set": ("import locale\nlocale.setlocale(locale.LC_ALL, 'C')", "locale"),
    "directory-changed": ("import os\nos.chdir('/usr')", "/usr"),
    "umask-set": ("import os\nos.umask(0o027)", "to 27"),
    "path-entry": ("import sys\nsys.path.insert(0, '/nowhere')", "/nowhere"),
    "path-finder": (
        "import sys\nclass Finder:\n def find_spec(*a): return None\nsys.meta_path.append(Finder())",
        "Finder",
    ),
    "path-hook": ("import sys\ndef hook(path): raise ImportError\nsys.path_hooks.append(hook)", "hook"),
    "path-module": ("import sys\ndel sys.modules['pathlib']", "'pathlib'"),
    "logging-root": ("import logging\nlogging.root.addHandler(logging.StreamHandler())", "StreamHandler"),
    "logging-level": ("import logging\nlogging.root.setLevel(7)", "to 7"),
    "logging-named": ("import logging\nlogging.getLogger('tests.known').disabled = True", "tests.known"),
    "warnings-filter": ("import warnings\nwarnings.simplefilter('ignore', UserWarning)", "UserWarning"),
    "warnings-shown": ("import warnings\nwarnings.showwarning = print", "print"),
    "hook-sys": ("import sys\nsys.excepthook = print", "sys.excepthook"),
    "hook-threading": ("import threading\nthreading.excepthook = print", "threading.excepthook"),
    "hook-unraisable": ("import sys\nsys.unraisablehook = print", "sys.unraisablehook"),
    "hook-display": ("import sys\nsys.displayhook = print", "sys.displayhook"),
    "start_method-set": (
        "import multiprocessing\nmultiprocessing.set_start_method('spawn', force=True)",
        "start method",
    ),
    "random-seeded": ("import random\nrandom.seed(1)", "random"),
    "event_loop-policy": (
        """
        import asyncio, warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            class Policy(asyncio.DefaultEventLoopPolicy): pass
            asyncio.set_event_loop_policy(Policy())
        """,
        "Policy",
    ),
    "at_fork-hook": ("import os\nos.register_at_fork(before=print)", "print"),
    "trace-set": ("import sys\nsys.settrace(lambda *a: None)", "settrace"),
    "trace-profile": ("import sys\nsys.setprofile(lambda *a: None)", "setprofile"),
    "trace-audit": ("import sys\nsys.addaudithook(lambda *a: None)", "audit hook"),
    "atexit-function": ("import atexit\natexit.register(print)", "end of the process"),
    "gc-disabled": ("import gc\ngc.disable()", "enabled"),
    "gc-threshold": ("import gc\ngc.set_threshold(1, 2, 3)", "thresholds"),
    "limit-recursion": ("import sys\nsys.setrecursionlimit(5000)", "5000"),
    "limit-files": ("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))", "resources"),
    "limit-priority": ("import os\nos.nice(3)", "priority"),
    "patched-function": ("import socket\ndef mine(*a): pass\nsocket.create_connection = mine", "mine"),
    "patched-method": ("import threading\nthreading.Thread.run = lambda self: None", "threading.Thread.run"),
    "patched-https": (
        "import ssl\nssl._create_default_https_context = ssl._create_unverified_context",
        "_create_default_https_context",
    ),
    "patched-builtin": ("import builtins\nbuiltins._ = str", "builtins._"),
    "patched-stream": ("import sys, io\nsys.stdout = io.StringIO()", "sys.stdout"),
}

HARMLESS = {
    "prints": "import sys\nfor _ in range(1000): print('x' * 1000)\nsys.stderr.write('x' * 1000)",
    "reads": "import sys\nassert sys.stdin.read() == ''",
    "runs": "import subprocess\nsubprocess.run(['true'], check=True)",
    "threads": "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
    "ends_soon": "import threading\nthreading.Timer(0.005, print).start()",
    "closes": "import socket\nsocket.socket().close()\nx = [open(__file__)]\nx.append(x)\ndel x",
    "puts_back": "import os\nos.environ['A_B'] = '1'\ndel os.environ['A_B']\nos.umask(os.umask(7))",
    "undoes": "import warnings\nwith warnings.catch_warnings():\n warnings.simplefilter('ignore')\n import decimal",
    "logs": "import logging\nlogging.getLogger(__name__).addHandler(logging.NullHandler())",
}


def write(folder: Path, name: str, body: str) -> str:
    """A module; returns its name."""
    name = "ffc_" + name.replace("-", "_")
    (folder / f"{name}.py").write_text(textwrap.dedent(body) + "\n")
    return name


def state() -> dict[str, Any]:
    """What a parent must not lose by a trial, asked of the system and not of the code under test."""
    return {
        "threads": os.listdir("/proc/self/task"),
        "descriptors": open_descriptors(),
        "handlers": [signal.getsignal(number) for number in range(1, signal.NSIG)],
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "environment": dict(os.environ),
        "children": [child.pid for child in psutil.Process().children(recursive=True)],
        "directory": os.getcwd(),
        "path": list(sys.path),
        "meta_path": list(sys.meta_path),
        "modules": {name for name in sys.modules if name.startswith("ffc_")},
        "logging": (logging.root.level, list(logging.root.handlers)),
        "filters": list(warnings.filters),
    }
