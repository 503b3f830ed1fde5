# SPDX-License-Identifier: Apache-2.0
"""The kinds of frames between the owner of a pool and its workers."""

# From the owner. A worker ends at the end of its socket.
HELLO = 1  # the first: what the worker needs to know
TASK = 2
TIMED_TASK = 3  # its extra is the soft timeout in milliseconds
PING = 4

# From a worker; RESULT and ERROR carry the microseconds that the task took as extra.
RESULT = 10
ERROR = 11
SKIPPED = 12  # the task was not begun and will not be
READY = 13
REFUSED = 14  # the initializer failed
PONG = 15
RETIRE = 16  # the worker is beyond a limit of its RecyclePolicy; the body says which
