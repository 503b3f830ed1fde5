# SPDX-License-Identifier: Apache-2.0
# The owner's end of a worker's channel, and the tasks that go there: a part of _core.pyx.

# A socket's timeout ends with a tick of the kernel, which may come 10 ms late. Shorter waits are left to a condition.
cdef enum:
    LEAST_PATIENCE = 100  # milliseconds


cdef class Task:
    """What a future of a pool consists of, where C finds it without a dict. pool/future.py says how it is used.

    The first six are those of concurrent.futures.Future, whose methods use all but _cond.
    """

    cdef public object _state
    cdef public object _result
    cdef public object _exception
    cdef public object _cond  # the condition, once there is one
    cdef public object _waiters
    cdef public object _done_callbacks
    cdef public object _engine
    cdef public object _payload  # what is to be sent, until it is not needed any more
    cdef public object _timeout
    cdef public object _hard_timeout
    cdef public object _link  # to which it was sent
    cdef public object _last  # who ran it
    cdef public uint32_t _number
    cdef public uint32_t _micros
    cdef public int _flags
    cdef public Py_ssize_t _attempts
    cdef public object _retries  # any number: for ever may be a large one

    def __cinit__(self):
        self._state = "PENDING"
        self._waiters = self._done_callbacks = ()
        self._attempts = 1
        self._retries = 0

    def __init__(self, engine, payload, int flags=0):
        self._engine = engine
        self._payload = payload
        self._flags = flags


cdef class Line(Outlet):
    """The owner's end of a worker's channel: what is on its way there, and the results that come back.

    What one call does here it does as a whole: no handler of a signal runs in the middle, so a KeyboardInterrupt in the
    owner's main thread leaves no task half sent and no result half taken. A worker that is gone is noticed elsewhere.
    """

    cdef readonly Board board
    cdef readonly size_t slot
    cdef readonly object inflight  # tasks that were sent and have no result, in their order
    cdef readonly uint32_t sent  # the number of the last task
    cdef list backlog  # frames that were received and are to be returned first
    cdef bint led  # one thread waits in lead(): nobody else may receive
    cdef bint handling  # frames were handed to a thread that is not done with them
    cdef int patience  # how many milliseconds a receive that waits does so; -1: for ever
    cdef public bint dirty  # results were taken, and the pool does not know yet that there is room
    cdef public bint ready
    cdef public bint reserved  # a large task is being written for it
    cdef public bint dead  # the worker is gone, and all that was its is seen to
    cdef public Py_ssize_t skips  # tasks that were taken back and that the worker has yet to pass over
    cdef public Py_ssize_t depth  # how many tasks it may have at a time
    cdef public object retiring  # why it is to go, or None
    cdef public object killed  # why, if the pool did it, or None
    cdef public object who  # all that a finished task keeps of it: this object has a buffer and more
    cdef object __weakref__

    def __cinit__(self):
        self.patience = -1
        self.depth = 1

    def __init__(self, int fd, Board board, size_t slot, int epoll=-1):
        """epoll: the set that looks at the socket, if any."""
        bind_pickle()
        Channel.__init__(self, fd)
        self.board = board
        self.slot = board.at(slot)
        self.inflight = _deque()
        self.epoll = epoll

    @property
    def takes_tasks(self):
        """Whether it may be sent tasks at all: it is there to stay, and has passed over all that was taken back."""
        return self.is_open()

    cdef bint is_open(self):
        return self.skips == 0 and self.retiring is None and self.killed is None and not self.dead

    @property
    def accepts(self):
        """Whether it may be sent a task now."""
        return self.has_room()

    cdef bint has_room(self):
        return (
            self.ready
            and len(self.inflight) < self.depth
            and not self.reserved
            and not self.outgoing
            and self.is_open()
        )

    # --- what is sent

    def say(self, uint8_t kind, bytes body):
        """Send a frame that is no task."""
        cdef frame_head head = frame_head(0, kind, 0, 0, 0, 0)
        try:
            if not self.post(&head, body, -1, False):
                self.push()
        except OSError:
            pass
        self.listen()

    def assign(self, Task task, bytes body, uint8_t flags, int fd=-1, bint more=False):
        """Send a task, for good: from here on the board says who has it. more: others follow before flush().

        Whether it went at once. OSError: the descriptor cannot be sent, since this process or user has too many; the
        task was not sent.
        """
        cdef bint went = self.give(task, body, flags, fd, more)
        if not went and not more:
            self.push()
        self.listen()
        return went

    cdef int give(self, Task task, bytes body, uint8_t flags, int fd, bint more) except -1:
        cdef frame_head head
        head = frame_head(0, FRAME_TASK, flags, 0, self.sent + 1, 0)
        if task._timeout is not None:
            head.kind = FRAME_TIMED_TASK
            head.extra = max(1, int(min(task._timeout * 1000, 0xFFFFFFFF)))
        self.sent += 1
        task._number = self.sent
        task._link = self
        self.inflight.append(task)
        ff_board_allow(&self.board.board, self.slot, self.sent)
        try:
            return self.post(&head, body, fd, more)
        except OSError as error:
            if error.errno == errno_EPIPE or error.errno == errno_ECONNRESET:
                return 1
            # Nothing of it went, and its number is not used again.
            self.inflight.pop()
            task._link = None
            raise

    def arm(self):
        """Let the epoll set look at this socket, unless somebody leads, who sees to that at the end.

        An idle worker's is not looked at after lead(): whoever submits and then waits needs no system call for it.
        """
        self.listen()

    cdef void listen(self) noexcept:
        if not self.armed and not self.led and not self.dead:
            self.watch(EPOLLIN | (EPOLLOUT if self.outgoing else 0))

    def withdraw(self):
        """Take back what is not begun, in its order."""
        cdef uint32_t begun = ff_board_withdraw(&self.board.board, self.slot)
        cdef Task task
        back = []
        while self.inflight:
            task = self.inflight[-1]
            if task._number <= begun:
                break
            self.inflight.pop()
            task._link = None
            back.append(task)
        back.reverse()
        self.skips += len(back)
        return back

    # --- what comes back

    cpdef receive(self, bint wait=False):
        """As a channel's, and what nobody could deal with comes first."""
        if self.backlog is not None:
            frames, self.backlog = self.backlog, None
            return frames
        if self.led:
            return []
        return Channel.receive(self, wait)

    def handle(self):
        """As receive(), and until handled() nobody may lead()."""
        frames = self.receive()
        if frames:
            self.handling = True
        return frames

    def handled(self):
        self.handling = False

    def seize(self):
        """Nobody may lead() any more; whether nobody does."""
        self.handling = True
        return not self.led

    @property
    def unsettled(self):
        return self.dirty or self.backlog is not None

    def settle(self, list frames):
        """Give results to futures that nobody waits for. (how many, microseconds of them all, the other frames)

        It stops at the first frame that needs more than that, so that all is done in its order.
        """
        cdef int done = 0
        cdef uint64_t micros = 0
        for frame in frames:
            try:
                if not self.settle_one(<tuple> frame):
                    break
            except BaseException:
                self.dirty = True
                self.backlog = frames[done:]
                raise
            micros += <uint32_t> (<tuple> frame)[2]
            done += 1
        return (done, micros, frames[done:] if done < len(frames) else [])

    cdef bint settle_one(self, tuple frame) except -1:
        cdef Task task
        if frame[0] != FRAME_RESULT or frame[3] != 0 or not self.inflight:
            return False
        task = self.inflight[0]
        if task._number != frame[1] or task._cond is not None:
            return False
        try:
            value = _loads(frame[4])
        except KeyboardInterrupt:
            if not self.led:
                return False
            raise  # of this thread, and not of the object
        except BaseException:
            return False  # it will fail again where that is dealt with
        if task._cond is not None:
            return False
        self.inflight.popleft()
        task._payload = None
        task._link = None
        task._last = self.who
        task._micros = frame[2]
        task._result = value
        task._state = "FINISHED"
        if task._cond is not None:
            task._wake()
        return True

    cdef int lead(self, Task task, int milliseconds, int bell, uint64_t *micros) except -2:
        """Wait here for the result of the task that this worker is to do next, without a detour over another thread.

        -1 if that cannot be now, else how many results have come, which took `micros` microseconds. The epoll set does
        not look at this socket meanwhile, nor afterwards if nothing is left to come: see arm(). Frames that are no
        simple results are left to who listens to the bell, an eventfd. Handlers of signals may raise.
        """
        cdef ssize_t got
        cdef int done = 0
        if self.handling or self.led or self.backlog is not None or self.outgoing or self.dead:
            return -1
        if not self.inflight or self.inflight[0] is not task or 0 < milliseconds < LEAST_PATIENCE:
            return -1
        self.led = True
        try:
            if self.armed:
                self.watch(0)
            if milliseconds != 0 and milliseconds != self.patience:
                # The socket's own timeout: unlike a poll() before each receive, it is set once and costs nothing then.
                check(ff_channel_patience(self.fd, milliseconds))
                self.patience = milliseconds
            self.apart = ff_board_is_apart(&self.board.board, self.slot, False)
            got = self.fill(milliseconds != 0)
            if got == -errno_EINTR:
                PyErr_CheckSignals()
            if got > 0:
                self.dirty = True
                done, micros[0], rest = self.settle(self.cut(got))
                if rest:
                    self.backlog = rest
            return done
        finally:
            self.led = False
            if self.backlog is not None:
                eventfd_write(bell, 1)
            if self.inflight or self.partial or self.outgoing:
                self.listen()
