# SPDX-License-Identifier: Apache-2.0
"""The error of a pool that cannot go on."""

from concurrent.futures import BrokenExecutor

from frostfork.errors import FrostforkError


class PoolBroken(FrostforkError, BrokenExecutor):
    """This pool runs nothing any more; the message says what ended its workers."""


PoolBroken.__module__ = "frostfork.errors"
