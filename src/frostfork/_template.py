# SPDX-License-Identifier: Apache-2.0
"""The process from which files are run: an interpreter that has imported next to nothing.

    template ──fork──▶ keeper ──fork──▶ runner: one file, observed
        └──fork──▶ node: imports what several files begin with ──fork──▶ keeper ──fork──▶ runner

It is started as a program of its own and outside its package: what it has, no file is seen to import. Commands come on
standard input in marshal's form, one at a time; each is answered by lines, of which "done" is the last.
A runner leads a session of its own. Its keeper sees it end, or ends it when its time is over, and with it all that it
started: orphans become the keeper's children. No file hangs, outlives its analysis or meets what another left behind.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself would bring enum along
import _thread
import marshal
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class _Stop(BaseException):
    """SIGTERM: end what was started, and then oneself."""


class Template:
    """What this process is told once, and what all that it forks inherit."""

    def __init__(self, folder: str, core: Any, attendant: Any, script: Any, results: int) -> None:
        self.folder = folder
        self.core = core
        self.results = results
        self.attendant = attendant
        self.entry = script
        self.seconds = 60.0

    def say(self, *fields: object) -> None:
        """One line, shorter than what a pipe takes in one piece."""
        text = "\t".join(str(field).replace("\t", " ").replace("\n", " ")[:800] for field in fields)
        os.write(self.results, text.encode("utf-8", "backslashreplace") + b"\n")

    # --- the template itself

    def prepare(self, command: dict[str, Any]) -> None:
        self.seconds = command["seconds"]
        if command["entry"]:
            import importlib

            self.entry = importlib.import_module(command["entry"])
        self.entry.prepare()

    def begin(self, command: dict[str, Any]) -> None:
        """From here on nothing is imported in this process."""
        self.entry.begin(command["files"])
        with open(f"{self.folder}/loaded", "w", encoding="utf-8") as file:
            file.write("\n".join(sys.modules))

    def list_files(self, command: dict[str, Any]) -> None:
        """In a child, for it imports and reads what no file shall be measured with."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with open(f"{self.folder}/files", "w", encoding="utf-8", errors="surrogateescape") as file:
                    for folder in command["folders"]:
                        for path in self.entry.list_files(folder):
                            file.write(f"{folder}\0{path}\0")
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError("the files could not be listed")

    def run(self, command: dict[str, Any]) -> None:
        """All pieces, each a tree of files, in so many processes at a time."""
        alive = 0
        for piece in command["pieces"]:
            if alive >= command["jobs"]:
                os.waitpid(-1, 0)
                alive -= 1
            if os.fork() == 0:
                self._live(piece)
            alive += 1
        while alive:
            os.waitpid(-1, 0)
            alive -= 1

    def _live(self, piece: dict[str, Any]) -> NoReturn:
        try:
            if piece["imports"] is None and len(piece["files"]) == 1 and not piece["branches"]:
                self._keep(*piece["files"][0])
            else:
                _end_with_parent(self.core)
                self._branch(piece)
        except _Stop:
            _wait_for_all()
        finally:
            os._exit(0)

    # --- nodes

    def _branch(self, node: dict[str, Any]) -> None:
        """Import what this branch has in common, then run its files and grow its branches, one after the other."""
        if node["imports"] is not None and not self._import(node):
            return
        for file in node["files"]:
            pid = os.fork()
            if pid == 0:
                try:
                    self._keep(*file)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
        for branch in node["branches"]:
            pid = os.fork()
            if pid == 0:
                self._live(branch)
            os.waitpid(pid, 0)

    def _import(self, node: dict[str, Any]) -> bool:
        """Whether all of it was imported, without leaving a thread. The kernel's alarm ends what takes too long."""
        journal = self._journal(f"node-{node['number']}")
        _signal.alarm(max(1, int(self.seconds)))
        wall, cpu, threads = time.perf_counter(), time.process_time(), _thread._count()
        failure = ""
        try:
            if node["warm"]:
                self._warm(node["imports"])
            else:
                self.core.imports_start(journal)
                for module, name in node["imports"]:
                    __import__(module, None, None, [name] if name else [])
                self.core.imports_stop()
        except _Stop:
            raise
        except BaseException as error:
            failure = type(error).__name__
        if not failure and _thread._count() > threads and not node["warm"]:
            failure = "a thread"
        _signal.alarm(0)
        os.close(journal)
        self.say("node", node["number"], failure, time.perf_counter() - wall, time.process_time() - cpu)
        return not failure

    def _warm(self, imports: list[tuple[str, str]]) -> None:
        """Become what a parent with frostfork is: the plan's modules, and a warmup."""
        import importlib

        import frostfork

        frostfork.install()
        for module, _ in imports:
            try:
                importlib.import_module(module)
            except Exception:  # noqa: S112 - it will fail in the children as well
                continue
        self.entry.warm()
        frostfork.warmup(steps=("drain_heap", "immortalize", "freeze"))

    # --- one file

    def _keep(self, number: int, path: str, root: str) -> None:
        """Run one file in a child, see it end, and tell how."""
        _end_with_parent(self.core)
        if (adopt := getattr(self.core, "adopt_orphans", None)) is not None:
            adopt()
        journal = self._journal(f"run-{number}")
        reader, writer = self.entry.channel()
        start = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            self._run(number, path, root, journal, writer)
        os.close(writer)
        os.close(journal)
        late, tail = False, b""
        try:
            late, tail = self.attendant.watch(pid, reader, start + self.seconds)
        finally:
            status, cpu, peak = self.attendant.end(pid)
        tail += self.attendant.rest(reader)
        wall = time.perf_counter() - start
        last = tail.strip().rpartition(b"\n")[2][-400:].decode("utf-8", "replace")
        self.say("run", number, status, int(late), wall, cpu, peak, last)

    def _run(self, number: int, path: str, root: str, journal: int, stderr: int) -> NoReturn:
        """The runner: the file as Python would run it, without its end (no atexit functions, no finalizers)."""
        code = 1
        me = os.getpid()
        try:
            os.setsid()
            for signal in (_signal.SIGTERM, _signal.SIGALRM):
                _signal.signal(signal, _signal.SIG_DFL)
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
            null = os.open("/dev/null", os.O_RDWR)
            for fd, source in ((0, null), (1, null), (2, stderr)):
                os.dup2(source, fd)
            self.core.imports_start(_alone(journal))
            failure = self.entry.run(path, root)
            if os.getpid() == me:
                self.core.imports_stop()
                self._note(number, failure)
                code = 0
        except BaseException as error:
            if os.getpid() == me:
                self.core.imports_stop()
                code = 0
                ended_well = isinstance(error, SystemExit) and error.code in (None, 0)
                self._note(number, "" if ended_well else _said(error))
        finally:
            os._exit(code)

    def _note(self, number: int, failure: str) -> None:
        """By its path: the file that ran may have closed every descriptor."""
        journal = os.open(f"{self.folder}/run-{number}", os.O_WRONLY | os.O_APPEND)
        os.write(journal, b"ran\0" + failure.replace("\0", " ").encode("utf-8", "surrogateescape") + b"\0")

    def _journal(self, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return os.open(f"{self.folder}/{name}", flags, 0o600)


def _said(error: BaseException) -> str:
    try:
        text = str(error).strip().partition("\n")[0]
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _alone(journal: int) -> int:
    """Close all descriptors but the standard ones and the journal's, which gets a number that few files get."""
    kept = 1000
    os.dup2(journal, kept, inheritable=False)
    os.closerange(3, kept)
    return kept


def _end_with_parent(core: Any) -> None:
    if (die := getattr(core, "die_with_parent", None)) is not None:
        die(int(_signal.SIGTERM))


def _wait_for_all() -> None:
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


def _stop(*_: object) -> NoReturn:
    _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
    raise _Stop


def main(core: Any, attendant: Any, script: Any) -> None:
    """The template's life: one command after the other, until standard input ends."""
    if sys.path and sys.path[0] == "":
        del sys.path[0]
    commands = os.fdopen(os.dup(0), "rb")
    results = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    _signal.signal(_signal.SIGTERM, _stop)
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    _end_with_parent(core)  # it may be killed, and then nobody reads what is still to be run
    template = Template(sys.argv[1], core, attendant, script, results)
    try:
        while True:
            try:
                command = marshal.load(commands)  # noqa: S302 - from the process that started this one
            except EOFError:
                break
            try:
                getattr(template, command["do"])(command)
            except Exception as error:
                template.say("failed", _said(error))
            template.say("done")
    except _Stop:
        os.killpg(0, _signal.SIGTERM)
        _wait_for_all()
