# SPDX-License-Identifier: Apache-2.0
"""Run a Python program with every child that it forks under blame: `python -c BOOTSTRAP FD KIND TARGET ARGS...`.

It is what `frostfork blame` starts, in an interpreter of the program's own: this module and what it needs are all that
the program's memory has beside its own. FD is a journal's; KIND is "script", "-m" or "-c".

A child is judged from its fork to its end: os._exit, the end of the interpreter, execve, or SIGTERM where the program
leaves that to the kernel (multiprocessing ends the workers of a pool so). A child that is killed otherwise gives no
report.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from frostfork.blame import blame
from frostfork.errors import ObservationError
from frostfork.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

BOOTSTRAP = "from frostfork.judged import main; main()"

_exit = os._exit
_EXECS = ("execv", "execve")  # the others of os end in one of these


class _Child:
    """The blame of this process, if it is a child."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._judge: blame | None = None
        self._pid = 0
        self._finishing = False
        self._late = 0  # a signal that came while the report was made

    def start(self) -> None:
        """First thing in a child. A blame that its parent had is the parent's."""
        self._pid = os.getpid()
        self._judge = blame()
        try:
            self._journal.write("child", str(self._pid))
            self._judge.start()
        except OSError as error:
            self._judge = None
            self._write("blind", error.strerror or str(error))
            return
        atexit.register(self.finish)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminate)

    def finish(self) -> None:
        """Write the report, once; whatever fails here is no concern of the program's."""
        judge, self._judge = self._judge, None
        if judge is None or self._pid != os.getpid():
            return
        self._finishing = True
        try:
            self._write("verdict", judge.finish().to_json().decode())
        except (OSError, ObservationError) as error:
            self._write("blind", str(error))
        self._finishing = False
        if self._late:
            self._terminate(self._late, None)

    def _write(self, word: str, field: str) -> None:
        try:
            self._journal.write(word, field)
        except (OSError, ValueError):
            pass  # the program closed it

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if self._finishing:
            self._late = number
            return
        self.finish()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _judge_children(journal: Journal) -> None:
    child = _Child(journal)

    def judged_exit(status: int) -> NoReturn:
        child.finish()
        _exit(status)

    def judged(function: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
        def execute(*arguments: Any) -> NoReturn:
            child.finish()
            function(*arguments)

        return execute

    os._exit = judged_exit
    for name in _EXECS:
        setattr(os, name, judged(getattr(os, name)))
    os.register_at_fork(after_in_child=child.start)


def run(kind: str, target: str, arguments: list[str]) -> None:
    """Run a program as the interpreter's own command line would."""
    import types

    sys.argv = [target, *arguments]
    # The bootstrap was a -c, for which the interpreter puts "" there, unless told not to.
    if not getattr(sys.flags, "safe_path", False) and not sys.flags.isolated and kind != "-c":
        sys.path[0] = os.getcwd() if kind == "-m" else os.path.dirname(os.path.realpath(target))
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__builtins__ = __builtins__  # type: ignore[attr-defined]
    if kind == "-m":
        import runpy

        runpy._run_module_as_main(target)  # type: ignore[attr-defined]  # as python -m does, errors included
    elif kind == "-c":
        sys.argv[0] = "-c"
        exec(compile(target, "<string>", "exec"), main.__dict__)  # noqa: S102 - it is what was asked for
    elif os.path.isdir(target) or target.endswith((".zip", ".pyz", ".egg")):
        import runpy

        sys.path[0] = os.path.abspath(target)
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
    else:
        import io

        main.__file__ = target
        with io.open_code(os.path.abspath(target)) as file:
            code = compile(file.read(), target, "exec")
        exec(code, main.__dict__)  # noqa: S102 - the user's own program


def main() -> None:
    """Entry point of the bootstrap."""
    fd, kind, target, *arguments = sys.argv[1:]
    os.set_inheritable(int(fd), False)  # what the program executes shall not have it
    _judge_children(Journal(int(fd)))
    run(kind, target, arguments)
