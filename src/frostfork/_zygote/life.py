# SPDX-License-Identifier: Apache-2.0
"""A worker's life: from the fork to os._exit."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import signal
import sys
import traceback
from typing import Any, NamedTuple, NoReturn

from frostfork._worker import become_worker, leave
from frostfork._zygote import lifeline
from frostfork._zygote.channel import read_all
from frostfork._zygote.setup import Setup
from frostfork._zygote.template import Template

_FAILED = 1


class Birth(NamedTuple):
    """What a worker is born with. fds: for its target, None if none were given.

    gate: see _wait_for_announcement; -1 for a worker that is to begin at once.

    foreign: descriptors of the zygote and of others that came with the same message, to be closed.
    """

    name: str
    generation: int
    body: bytes
    memfd: int
    fds: list[int] | None
    others: tuple[int, ...]
    gate: int
    foreign: tuple[int, ...]


def live(birth: Birth, setup: Setup, template: Template) -> NoReturn:
    """All of it. Whatever is raised ends the worker with a traceback on stderr."""
    leave(_work(birth, setup, template))


def _work(birth: Birth, setup: Setup, template: Template) -> int:
    """The exit code."""
    try:
        keep = {
            birth.gate,
            birth.memfd,
            *(birth.fds or ()),
            *birth.others,
            *setup.keep_fds,
            setup.lifeline,
        } - {-1}
        become_worker(birth.name, birth.generation, keep, birth.foreign)
        if setup.kill:
            lifeline.arm(setup.lifeline, across_exec=True)
        os.close(setup.lifeline)
        if birth.gate >= 0:
            _wait_for_announcement(birth.gate)
        template.in_worker(birth.name)
        return _code(_run(birth))
    except SystemExit as error:
        return _code_of_exit(error.code)
    except BaseException:
        traceback.print_exc()
        return _FAILED


def _wait_for_announcement(gate: int) -> None:
    """Until the owner has our pidfd, and has said so.

    A zygote that is killed between a fork and its report would leave a worker that nobody knows of. It has not begun
    anything yet, so it goes the same way, and the owner may have the work done elsewhere.
    """
    if not os.read(gate, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(gate)


def _run(birth: Birth) -> object:
    body = birth.body
    if birth.memfd >= 0:
        body = read_all(birth.memfd)
        os.close(birth.memfd)
    stream = io.BytesIO(body)
    environment = pickle.load(stream)  # noqa: S301 - from the owner; first, for what follows imports
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    target, arguments = pickle.load(stream)  # noqa: S301 - from the owner
    del stream, body
    if isinstance(target, str):
        target = find(target)
    if birth.fds is None:
        return target(*arguments)
    return target(*arguments, fds=birth.fds)


def find(target: str) -> Any:
    """What "package.module:function" names."""
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _code(result: object) -> int:
    return result & 0xFF if isinstance(result, int) else 0


def _code_of_exit(code: object) -> int:
    if code is None or isinstance(code, int):
        return _code(code)
    print(code, file=sys.stderr)  # noqa: T201 - as Python does at its end
    return _FAILED
