# SPDX-License-Identifier: Apache-2.0
"""How an owner starts its root: by fork where it has no other thread, else as a new interpreter."""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import socket
import subprocess
import sys

from frostfork import _core
from frostfork._inherited import share_tracker
from frostfork._zygote.channel import memory_file, pair, write_all
from frostfork._zygote.setup import Setup, preparation
from frostfork._zygote.signals import hold, release
from frostfork.errors import ZygoteError
from frostfork.fork import fork


def choose(start: str, again: bool = False) -> str:
    """again: one was started before, and has ended; by now this process may have threads."""
    if start == "exec" or (start == "fork" and not again):
        return start
    if _core.threads() == 1:
        return "fork"
    if start == "fork":
        import logging

        logging.getLogger("frostfork.zygote").warning(
            "the root of a zygote has ended; it was forked, and this process has threads now: the next root is a new "
            "interpreter, without what this process has imported"
        )
    return "exec"


def start_root(how: str, setup: Setup, import_main: bool) -> tuple[socket.socket, int]:
    """Our end of its socket, and its pid. OSError, or ZygoteError if the template cannot be pickled."""
    _refuse_while_importing_main()
    ours, theirs = pair()
    try:
        pid = _by_fork(theirs, setup) if how == "fork" else _by_exec(theirs, setup, import_main)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours, pid


def _refuse_while_importing_main() -> None:
    """Else a program without a guard would start a zygote, which imports the program, which starts a zygote."""
    from multiprocessing import process

    if getattr(process.current_process(), "_inheriting", False):
        raise ZygoteError(
            "a zygote is importing this program's main module, which starts another: put what only the program itself"
            ' shall do under `if __name__ == "__main__":`, or use import_main=False'
        )


def _by_fork(control: socket.socket, setup: Setup) -> int:
    from frostfork._zygote.root import be_root

    for stream in (sys.stdout, sys.stderr):  # the child must not write out what is ours to write
        with contextlib.suppress(Exception):
            stream.flush()
    before = hold()
    share_tracker(True)
    try:
        pid = fork()
        if pid == 0:
            be_root(control, setup)
    finally:
        share_tracker(False)
        release(before)
    return pid


def _by_exec(control: socket.socket, setup: Setup, import_main: bool) -> int:
    from multiprocessing import spawn

    from frostfork._zygote.bootstrap import BOOTSTRAP

    try:
        template = None if setup.template is None else pickle.dumps(setup.template)
    except Exception as error:
        raise ZygoteError(f"the template cannot be pickled, which start='exec' needs: {error}") from error
    data = preparation(import_main)
    sent = setup._replace(template=template, preparation=pickle.dumps(data))
    path = [entry for entry in data["sys_path"] if isinstance(entry, str)]
    memory = memory_file("frostfork-root")
    try:
        write_all(memory, marshal.dumps((path, control.fileno(), pickle.dumps(tuple(sent)))))
        process = subprocess.Popen(
            [
                spawn.get_executable(),
                *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                "-c",
                BOOTSTRAP.format(memory),
            ],
            pass_fds=(memory, control.fileno(), setup.lifeline, *setup.keep_fds),
        )
    finally:
        os.close(memory)
    process.returncode = 0  # we wait for it ourselves: subprocess shall not, nor warn that nobody did
    return process.pid
