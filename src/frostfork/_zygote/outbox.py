# SPDX-License-Identifier: Apache-2.0
"""What a root or a zygote has to say, kept until the owner's socket takes it.

Neither may wait for its owner to read: the owner may be waiting for it to read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from frostfork._zygote.channel import Channel, Parcel, close_all, encode


class _Item(NamedTuple):
    data: bytes
    fds: list[int]
    sent: Callable[[OSError | None], None] | None


class Outbox:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._items: deque[_Item] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def parts(self) -> tuple[object, ...]:
        """Itself and what it has until it ends."""
        return self, self._items

    def put(
        self,
        header: tuple[Any, ...],
        body: bytes = b"",
        fds: Iterable[int] = (),
        sent: Callable[[OSError | None], None] | None = None,
    ) -> None:
        """Send it, now or by a later flush, and then close its descriptors. sent: told when, or why it cannot be.

        OSError: there can be no memfd for a long body.
        """
        self._items.append(_Item(*encode(header, Parcel(body), fds), sent))
        self.flush()

    def flush(self) -> None:
        """Send as much as goes now. What nobody is there to read counts as sent."""
        while self._items:
            item = self._items[0]
            failure = None
            try:
                self._channel.send_encoded(item.data, item.fds, wait=False)
            except BlockingIOError:
                return
            except OSError as error:  # too many descriptors on their way, or no memory
                failure = error
            self._items.popleft()
            close_all(item.fds)
            if item.sent is not None:
                item.sent(failure)

    def descriptors(self) -> list[int]:
        """Of all that is still to be sent."""
        return [fd for item in self._items for fd in item.fds]

    def drop(self) -> None:
        """In a child: close what is still to be sent by the parent."""
        for item in self._items:
            close_all(item.fds)
        self._items.clear()
