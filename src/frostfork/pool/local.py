# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the zygote until it is there: workers are forked from the owner itself."""

from __future__ import annotations

import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from frostfork._confine import silence
from frostfork.fork import fork


class Ended(NamedTuple):
    code: int | None
    rusage: resource.struct_rusage | None


class Worker:
    def __init__(self, pid: int, name: str, generation: int) -> None:
        self.pid, self.name, self.generation = pid, name, generation
        self._fd = os.pidfd_open(pid)
        self._ended: Ended | None = None

    def fileno(self) -> int:
        return self._fd

    def poll(self) -> Ended | None:
        if self._ended is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._ended = Ended(os.waitstatus_to_exitcode(status), usage)
        return self._ended

    def wait(self, timeout: float | None = None) -> Ended:
        if not select.select([self._fd], [], [], timeout)[0]:
            raise TimeoutError
        while (ended := self.poll()) is None:
            time.sleep(0.001)
        return ended

    def kill(self) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def close(self) -> None:
        os.close(self._fd)


class Zygote:
    pid = 0
    generation = 1

    def start(self) -> Zygote:
        return self

    def fork_many(
        self,
        count: int,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        *,
        fds: Sequence[Sequence[int]],
        names: Sequence[str],
    ) -> list[Worker]:
        made = []
        for given, name in zip(fds, names, strict=True):
            pid = fork()
            if pid == 0:
                code = 1
                try:
                    silence(given)
                    os.dup2(given[-1], 2)
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    code = target(*args, fds=list(given)) or 0
                except BaseException:
                    os.write(2, traceback.format_exc().encode())
                finally:
                    os._exit(code)
            made.append(Worker(pid, name, self.generation))
        return made

    def replace(self, timeout: float | None = None) -> int:
        self.generation += 1
        return self.generation

    def close(self, timeout: float = 10.0, *, drain: bool = False) -> None:
        pass
