# SPDX-License-Identifier: Apache-2.0
"""How a task's exception travels: whole where it can be pickled, as text where not, and with its traceback always."""

from __future__ import annotations

import pickle
import sys
import traceback

from frostfork.errors import RemoteError
from frostfork.pool.payload import Payload, decode, encode, plain

_OURS = ("frostfork.pool.", "frostfork._core")


class RemoteTraceback(Exception):
    """The traceback of a task, as its worker saw it. It is the cause of what the task raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def encode_error(error: BaseException) -> bytes | Payload:
    """Without the frames of our own at the beginning of its traceback."""
    start = error.__traceback__
    while start is not None and start.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        start = start.tb_next
    error = _explained(error)
    text = "".join(traceback.format_exception(type(error), error, start))
    described = f"{type(error).__module__}.{type(error).__qualname__}: {_text(error)}"
    try:
        pickled = plain(error)
    except BaseException as refusal:
        pickled = b""
        described += f" (which cannot be pickled: {type(refusal).__name__}: {_text(refusal)})"
    return encode((text, described, pickled))


def decode_error(body: bytes, flags: int, fd: int) -> BaseException:
    """Never raises: what cannot be read is a RemoteError that says so."""
    try:
        text, described, pickled = decode(body, flags, fd)
    except BaseException as error:
        return RemoteError(f"the exception of a task did not arrive: {type(error).__name__}: {_text(error)}")
    found: object = None
    if pickled:
        try:
            found = pickle.loads(pickled)  # noqa: S301 - from our own kind
        except BaseException as error:  # it may even exit
            described += f" (which cannot be unpickled: {type(error).__name__}: {_text(error)})"
    if not isinstance(found, BaseException):
        found = RemoteError(described)
    # Not by assignment: a frozen dataclass refuses it.
    vars(BaseException)["__cause__"].__set__(found, RemoteTraceback(text))
    return found


def _explained(error: BaseException) -> BaseException:
    """Of a name that a module lacks: a forked zygote has what had been imported of it when the pool was made."""
    if isinstance(error, AttributeError):
        for name, module in sys.modules.copy().items():
            half = getattr(getattr(module, "__spec__", None), "_initializing", False)
            if half and repr(name) in _text(error):
                return AttributeError(
                    f"{_text(error)}: {name} was being imported when the pool was made, and workers have it as it was "
                    "then. Make the pool later, in a function"
                )
    return error


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "its text cannot be had"
