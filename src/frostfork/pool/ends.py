# SPDX-License-Identifier: Apache-2.0
"""The descriptors between an owner and a worker that is to be forked."""

from __future__ import annotations

import os
import socket


class Ends:
    """Both ends of a socket, and of a pipe for the worker's standard error."""

    def __init__(self) -> None:
        self.socket, self._its_socket = socket.socketpair()
        self._taken = False
        self._fds: list[int] = []
        try:
            self._fds += os.pipe()  # its standard error
            os.set_blocking(self._fds[0], False)
        except OSError:
            self.close()
            raise

    def theirs(self, board: int) -> tuple[int, int, int]:
        return self._its_socket.fileno(), board, self._fds[1]

    def take(self) -> int:
        """The reading end; it and the socket are the caller's from now on."""
        self._taken = True
        return self._fds.pop(0)

    def close(self) -> None:
        self._its_socket.close()
        if not self._taken:
            self.socket.close()
        while self._fds:
            os.close(self._fds.pop())
