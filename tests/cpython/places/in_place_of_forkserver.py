# SPDX-License-Identifier: Apache-2.0
"""Our context, as it starts processes from a zygote, is what "forkserver" means."""

from __future__ import annotations

import os
from multiprocessing import context, forkserver

from frostfork._context_zygotes import zygotes
from frostfork.context import ZygoteContext, ZygoteProcess


class ForkServerProcess(ZygoteProcess):
    _start_method = "forkserver"


class ForkServerContext(ZygoteContext):
    _name = "forkserver"
    Process = ForkServerProcess


class ForkServer(forkserver.ForkServer):
    """What tests ask of multiprocessing's: to run, and for its pid, which they send signals."""

    def ensure_running(self) -> None:
        zygotes.get()

    @property
    def _forkserver_pid(self) -> int:
        return zygotes.get().zygote.pid

    @_forkserver_pid.setter
    def _forkserver_pid(self, pid: object) -> None:
        """A worker forgets the pid that it inherited."""

    def _stop(self) -> None:
        zygotes.close()


if os.environ["FROSTFORK_IN_PLACE"] == "exec":
    zygotes.start = "exec"
_stock = context._concrete_contexts["forkserver"]
context._concrete_contexts["forkserver"] = ForkServerContext()
if context._default_context._default_context is _stock:  # from 3.14 on
    context._default_context._default_context = context._concrete_contexts["forkserver"]
forkserver._forkserver = ForkServer()
