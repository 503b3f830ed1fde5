# SPDX-License-Identifier: Apache-2.0
# The shortest way of a task through a pool: a part of _core.pyx, in a file of its own for its length.

# Tasks that take no longer need no count of how many to send ahead: as many as ever.
cdef enum:
    SHORT_MICROS = 20
    MOST_AHEAD = 256  # pool/link.py


cdef class Names:
    """The functions that go by their names, for calls that hold nothing but them and plain arguments."""

    cdef readonly dict known  # function -> its pickle, with its length before; b"" if it does not go by name

    def __cinit__(self):
        bind_pickle()
        self.known = {}

    def plain(self, function, tuple args):
        """Such a call as bytes, or None for any other, also if the function was not seen before."""
        cdef bytes data
        head = self.known.get(function) if PyCFunction_Check(function) or PyFunction_Check(function) else None
        if not head:
            return None
        data = plain_pickle(args)
        if data is None or b"__main__" in data:
            return None
        return <bytes> head + data


cdef double seconds() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec / 1e9


cdef int whole_milliseconds(double seconds) noexcept:
    """0 for a time that is over, and for no number."""
    if not seconds > 0:
        return 0
    return <int> (seconds * 1000) if seconds < INT_MAX / 1000 else INT_MAX


cdef class Desk:
    """The part of a pool's Engine that a round trip needs: a task goes to an idle worker, and its result comes back.

    What is not plain is the subclass's: queue(), settled(), check_waiter(), hear_later(), ring(). In C because the same
    in Python made a round trip of 10 us 2 to 3 us longer.
    """

    cdef readonly Mutex lock
    cdef readonly dict idle  # workers; the last is asked first: its caches are warm
    cdef readonly object pending  # tasks that no worker has
    cdef readonly set ahead  # workers that have tasks beyond the first
    cdef public bint forked  # this is a copy in a fork of the owner
    cdef public bint closing  # takes no more
    cdef public bint watching  # the listener wants to know when tasks end
    cdef public bint hearing_later  # all workers will be heard soon
    cdef public bint sweep  # workers may be idle without being known to be
    cdef public int bell  # an eventfd
    cdef public unsigned long collector_ident  # of the thread that listens to all workers; 0 before it runs
    cdef public Py_ssize_t submitted
    cdef public Py_ssize_t done
    cdef Line unheard  # was sent a task, and is heard by nobody yet

    def __cinit__(self):
        bind_pickle()
        self.lock = Mutex()
        self.idle = {}
        self.pending = _deque()
        self.ahead = set()
        self.watching = True
        self.bell = -1

    def submit(self, Task task):
        """Send it to a worker that is idle, if one is and nothing speaks against it; else queue() it."""
        if not self.hand_in(task):
            self.queue(task)

    cdef bint hand_in(self, Task task) except -1:
        cdef Line line
        if type(task._payload) is not bytes or task._timeout is not None or task._hard_timeout is not None:
            return False
        self.lock.take()
        try:
            if self.closing or self.pending or not self.idle:
                return False
            self.submitted += 1
            line = self.idle.popitem()[0]
            if not line.give(task, task._payload, task._flags, -1, False):
                line.push()
            self.hear_all_but(line)
            return True
        finally:
            self.lock.leave()

    def hear(self, Line line):
        """Of this worker, which was just sent a task, or none, the thread may want to hear itself, by bring()."""
        self.hear_all_but(line)

    cdef int hear_all_but(self, Line line) except -1:
        if line is None or line is not self.unheard or len(line.inflight) > 1:
            if self.unheard is not None:
                self.unheard.listen()
            if line is not None and len(line.inflight) > 1:
                line.listen()
            self.unheard = line
        return 0

    def lose(self, Line line):
        """Its worker is gone: let go of it."""
        if self.unheard is line:
            self.unheard = None

    def bring(self, Task task, timeout):
        """Wait for the task's end in its worker's own socket, if that can be. What is left of the timeout.

        The task may have no result then.
        """
        if self.forked or PyThread_get_thread_ident() == self.collector_ident:
            self.check_waiter()
        cdef Line line = task._link
        cdef int milliseconds = -1, done
        cdef uint64_t micros = 0
        cdef double start = 0
        if line is None or task._cond is not None:
            return timeout
        if timeout is not None:
            start = seconds()
            milliseconds = whole_milliseconds(timeout)
        try:
            done = line.lead(task, milliseconds, self.bell, &micros)
            if done >= 0:
                self.brought(line, done, micros)
        except BaseException:
            self.sweep = True  # the collector sees to what is left
            self.ring()
            raise
        if timeout is None or task._state == "FINISHED":
            return timeout
        return max(0.0, timeout - (seconds() - start))

    cdef int brought(self, Line line, int done, uint64_t micros) except -1:
        if not done or self.pending or self.ahead or self.watching or line.inflight or line.retiring is not None:
            self.settled(line, done, micros)
        else:  # the same for the plainest case: a round trip
            self.lock.take()
            try:
                line.dirty = False
                self.done += done
                if micros > SHORT_MICROS or line.depth < MOST_AHEAD:
                    line.took(<double> micros / done)
                if line.has_room():
                    self.idle[line] = None
            finally:
                self.lock.leave()
        if not (self.hearing_later or line.armed):
            # Whatever comes from it unasked is heard a little later.
            self.hearing_later = True
            self.hear_later()
        return 0
