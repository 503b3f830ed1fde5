# SPDX-License-Identifier: Apache-2.0
"""The root, as its owner sees it."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable

from frostfork._zygote.channel import Channel, Message
from frostfork._zygote.handle import ended
from frostfork._zygote.link import Link
from frostfork._zygote.setup import Setup
from frostfork._zygote.starting import start_root
from frostfork._zygote.worker import Ended


class RootHandle:
    """Its link, and what it said of zygotes that it was asked for: by the number of the question.

    orphan_ended: told of each child of the root's that ended. A bound method, which is not kept alive by this.
    """

    def __init__(
        self, orphan_ended: Callable[[int, Ended], None], how: str, setup: Setup, import_main: bool
    ) -> None:
        self.said: dict[int, Message] = {}
        self._orphan_ended = weakref.WeakMethod(orphan_ended)
        end, self.pid = start_root(how, setup, import_main)
        self.link = Link(Channel(end), self._take)
        try:
            self.link.pidfd = os.pidfd_open(self.pid)
        except BaseException:
            self.link.close()  # it ends by that
            self.reap()
            raise

    def _take(self, message: Message) -> None:
        kind, key, *details = message.header
        if kind in ("forked", "refused"):
            self.said[key] = message
        elif kind == "ended" and (tell := self._orphan_ended()) is not None:
            tell(key, ended(*details))

    def forget(self) -> None:
        """Answers that nobody waited for until they came: an interrupt was quicker."""
        while self.said:
            self.said.popitem()[1].drop()

    def reap(self) -> None:
        """Once it has ended; somebody else's waitpid may have been quicker."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
