# SPDX-License-Identifier: Apache-2.0
# Channels between the owner of a pool and its workers: a part of _core.pyx, in a file of its own for its length.

cdef enum:
    RECEIVE_BYTES = 65536

cdef struct frame_head:
    uint32_t length  # of the body that follows
    uint8_t kind
    uint8_t flags
    uint16_t spare
    uint32_t number
    uint32_t extra

# frame_head.flags: a descriptor belongs to this frame. The other bits are the users'.
cdef enum:
    FRAME_FD = 1
    FRAME_RESULT = 10  # pool/frames.py

# Bound by the first Line: whoever has no pool need not load them.
cdef object _loads = None
cdef object _deque = None


cdef class Channel:
    """Frames over a stream socket, which stays its creator's to close.

    A frame is (kind, number, extra, flags, body, fd): small integers, bytes, and a descriptor that belongs to whoever
    receives it: -1 for none, -2 for one that was lost because this process has too many open.
    """

    cdef readonly int fd
    cdef uint8_t *buffer
    cdef bytes partial
    cdef list fds
    cdef list outgoing  # [bytes, descriptor], of which not all was sent yet
    cdef list backlog  # frames that were received and are to be returned first
    cdef bint led  # one thread waits in lead(): nobody else may receive

    def __cinit__(self, int fd, *rest):
        self.fd = fd
        self.partial = b""
        self.fds = []
        self.outgoing = []
        self.buffer = <uint8_t *> PyMem_Malloc(RECEIVE_BYTES)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.buffer)
        self.drop()

    cpdef drop(self):
        """Forget what was not sent or not asked for."""
        for _, fd in self.outgoing or ():
            if fd >= 0:
                close(fd)
        for fd in self.fds or ():
            if fd >= 0:
                close(fd)
        self.outgoing = []
        self.fds = []

    @property
    def unsent(self):
        """Whether flush() has something to do."""
        return bool(self.outgoing)

    def send(self, uint8_t kind, uint32_t number, bytes body, uint32_t extra=0, uint8_t flags=0, int fd=-1):
        """Send a frame, however long it takes. OSError if nobody is there. Handlers of signals run and may raise."""
        cdef frame_head head
        cdef const char *data = PyBytes_AS_STRING(body)
        cdef size_t size = PyBytes_GET_SIZE(body), first = sizeof(head), at = 0
        cdef const char *start = <const char *> &head
        cdef ssize_t sent
        head = frame_head(size, kind, flags | (FRAME_FD if fd >= 0 else 0), 0, number, extra)
        sent = ff_channel_send(self.fd, start, first, data, size, fd, False)
        while True:
            if sent >= 0:
                at += sent
                if at > 0:
                    fd = -1
                if at == first + size:
                    return
            elif sent == -errno_EINTR:
                PyErr_CheckSignals()
            elif sent != -errno_EAGAIN:
                check(<int> sent)
            with nogil:
                if at < first:
                    sent = ff_channel_send(self.fd, start + at, first - at, data, size, fd, True)
                else:
                    sent = ff_channel_send(self.fd, data + (at - first), size - (at - first), NULL, 0, fd, True)

    cdef int post(self, frame_head *head, bytes body, int fd, bint later) except -1:
        """Send a frame if it can go at once, else note it for flush(); 1 if it went. fd stays the caller's."""
        cdef const char *data = PyBytes_AS_STRING(body)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(body), whole = sizeof(frame_head) + size
        cdef ssize_t sent = 0
        cdef bytes frame
        head.length = <uint32_t> size
        if fd >= 0:
            head.flags |= FRAME_FD
        if not self.outgoing and not later:
            sent = ff_channel_send(self.fd, head, sizeof(frame_head), data, size, fd, False)
            if sent == whole:
                return 1
            if sent == -errno_EAGAIN or (fd < 0 and (sent == -errno_ENOBUFS or sent == -errno_ENOMEM)):
                sent = 0
            check(<int> sent if sent < 0 else 0)
        frame = PyBytes_FromStringAndSize(NULL, whole)
        memcpy(PyBytes_AS_STRING(frame), head, sizeof(frame_head))
        memcpy(PyBytes_AS_STRING(frame) + sizeof(frame_head), data, size)
        if sent > 0:
            self.outgoing.append((frame[sent:], -1))
            return 0
        if fd >= 0:
            fd = dup(fd)
            if fd < 0:
                check(-c_errno)
        self.outgoing.append((frame, fd))
        return 0

    def say(self, uint8_t kind, bytes body):
        """Send a frame that is no task, or note it for flush()."""
        cdef frame_head head = frame_head(0, kind, 0, 0, 0, 0)
        self.post(&head, body, -1, False)

    def flush(self):
        """Send what can be sent without waiting; whether that was all. OSError if nobody is there."""
        cdef bytes data
        cdef ssize_t sent
        cdef int fd
        cdef Py_ssize_t taken
        while self.outgoing:
            # As many as go into one call: up to the next descriptor, which goes with the first byte of its frame.
            data, fd = self.outgoing[0]
            taken = 1
            if len(self.outgoing) > 1:
                pieces = [data]
                for frame, its_fd in self.outgoing[1:]:
                    if its_fd >= 0:
                        break
                    pieces.append(frame)
                    taken += 1
                data = b"".join(pieces)
            sent = ff_channel_send(self.fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), NULL, 0, fd, False)
            if sent == -errno_EAGAIN:
                return False
            check(<int> sent if sent < 0 else 0)
            if fd >= 0:
                close(fd)
            if sent == PyBytes_GET_SIZE(data):
                del self.outgoing[:taken]
            else:
                self.outgoing[:taken] = [(data[sent:], -1)]
                return False
        return True

    def receive(self, bint wait=False):
        """The frames that have come, [] if none has, None at the end. With wait, handlers of signals run."""
        cdef int fds[FF_CHANNEL_FDS]
        cdef size_t n_fds = FF_CHANNEL_FDS
        cdef bint lost = False
        cdef ssize_t got
        cdef frame_head head
        cdef size_t at = 0, size
        cdef const uint8_t *data
        if self.backlog is not None:
            frames, self.backlog = self.backlog, None
            return frames
        if self.led and not wait:
            return []
        if wait:
            while True:
                n_fds = FF_CHANNEL_FDS
                with nogil:
                    got = ff_channel_receive(self.fd, self.buffer, RECEIVE_BYTES, fds, &n_fds, &lost, True)
                if got != -errno_EINTR:
                    break
                PyErr_CheckSignals()
        else:
            got = ff_channel_receive(self.fd, self.buffer, RECEIVE_BYTES, fds, &n_fds, &lost, False)
        if got == -errno_EAGAIN:
            return []
        if got == 0 or got == -errno_ECONNRESET:
            return None
        check(<int> got if got < 0 else 0)
        for i in range(n_fds):
            self.fds.append(fds[i])
        if lost:
            self.fds.append(-2)
        data = self.buffer
        size = got
        cdef bytes joined = None
        if self.partial:
            joined = self.partial + PyBytes_FromStringAndSize(<char *> data, size)
            data = <const uint8_t *> PyBytes_AS_STRING(joined)
            size = PyBytes_GET_SIZE(joined)
        frames = []
        while size - at >= sizeof(head):
            memcpy(&head, data + at, sizeof(head))
            if size - at - sizeof(head) < head.length:
                break
            fd = -1
            if head.flags & FRAME_FD:
                fd = self.fds.pop(0) if self.fds else -2
            body = PyBytes_FromStringAndSize(<char *> data + at + sizeof(head), head.length)
            frames.append((head.kind, head.number, head.extra, head.flags, body, fd))
            at += sizeof(head) + head.length
        self.partial = PyBytes_FromStringAndSize(<char *> data + at, size - at) if at < size else b""
        if not frames and not wait:
            return self.receive()  # of a long frame, only a part; [] is for nothing
        return frames


cdef class Line(Channel):
    """The owner's end of a worker's channel: what is on its way there, and the results that come back.

    What one call does here it does as a whole: no handler of a signal runs in the middle, so a KeyboardInterrupt in the
    owner's main thread leaves no task half sent and no result half taken.
    """

    cdef readonly Board board
    cdef readonly size_t slot
    cdef readonly object inflight  # tasks that were sent and have no result, in their order
    cdef readonly uint32_t sent  # the number of the last task
    cdef bint handling  # frames were handed to a thread that is not done with them
    cdef public bint dirty  # results were taken, and the pool does not know yet that there is room
    cdef public bint armed  # the owner's epoll set looks at this socket
    cdef object __weakref__
    cdef object owner

    def __init__(self, int fd, Board board, size_t slot, owner):
        self.board = board
        self.slot = board.at(slot)
        self.armed = True
        global _loads, _deque
        if _loads is None:
            import collections
            import pickle

            _loads, _deque = pickle.loads, collections.deque
        self.inflight = _deque()
        self.owner = owner

    def close(self):
        """Forget its owner, and with it the circle of references."""
        self.owner = None
        self.drop()

    def assign(self, future, uint8_t kind, uint32_t extra, bytes body, uint8_t flags, int fd=-1, bint more=False):
        """Send a task; whether it went at once. `more`: others follow before flush(). Who is gone is seen elsewhere.

        OSError: the descriptor cannot be sent, since this process or user has too many; the task was not sent.
        """
        cdef frame_head head
        self.sent += 1
        future._number = self.sent
        future._link = self.owner
        self.inflight.append(future)
        ff_board_allow(&self.board.board, self.slot, self.sent)
        head = frame_head(0, kind, flags, 0, self.sent, extra)
        try:
            return self.post(&head, body, fd, more) == 1
        except OSError as error:
            if error.errno == errno_EPIPE or error.errno == errno_ECONNRESET:
                return True
            # Nothing of it went, and its number is not used again.
            self.inflight.pop()
            future._link = None
            raise

    def withdraw(self):
        """Take back what is not begun, in its order."""
        cdef uint32_t begun = ff_board_withdraw(&self.board.board, self.slot)
        back = []
        while self.inflight and self.inflight[-1]._number > begun:
            future = self.inflight.pop()
            future._link = None
            back.append(future)
        back.reverse()
        return back

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
        if frame[0] != FRAME_RESULT or frame[3] != 0 or not self.inflight:
            return False
        future = self.inflight[0]
        if future._number != frame[1] or future._cond is not None:
            return False
        try:
            value = _loads(frame[4])
        except KeyboardInterrupt:
            if not self.led:
                return False
            raise  # of this thread, and not of the object
        except BaseException:
            return False  # it will fail again where that is dealt with
        if future._cond is not None:
            return False
        self.inflight.popleft()
        future._payload = None
        future._link = None
        future._last = self.owner
        future._micros = frame[2]
        future._result = value
        future._state = "FINISHED"
        if future._cond is not None:
            future._wake()
        return True

    @property
    def unsettled(self):
        return self.dirty or self.backlog is not None

    def lead(self, future, int epoll, int milliseconds, int bell):
        """Wait here for the result of the task that this worker is to do next, without a detour over another thread.

        None if that cannot be now, else (how many results, their microseconds). The epoll set does not look at this
        socket meanwhile, nor afterwards if nothing is left to come: see arm(). Frames that are no simple results are
        left to who listens to the bell, an eventfd. Handlers of signals may raise.
        """
        cdef pollfd look
        cdef int ready
        cdef epoll_event event
        if self.handling or self.led or self.backlog is not None or not self.inflight or self.inflight[0] is not future:
            return None
        if self.outgoing:
            return None
        self.led = True
        if self.armed:
            self.armed = False
            event.data.fd = self.fd
            event.events = 0
            epoll_ctl(epoll, EPOLL_CTL_MOD, self.fd, &event)
        try:
            if milliseconds >= 0:
                look = pollfd(self.fd, POLLIN, 0)
                with nogil:
                    ready = poll(&look, 1, milliseconds)
                if ready <= 0:
                    PyErr_CheckSignals()
                    return (0, 0)
            frames = self.receive(True)
            if frames is None:
                return (0, 0)
            done, micros, rest = self.settle(frames)
            if rest:
                self.backlog = rest
            self.dirty = True
            return (done, micros)
        finally:
            self.led = False
            if self.backlog is not None:
                eventfd_write(bell, 1)
            if self.inflight or self.partial or self.outgoing:
                self.arm(epoll)

    def arm(self, int epoll):
        """Let the epoll set look at this socket, unless somebody leads, who sees to that at the end.

        An idle worker's is not looked at after lead(): whoever submits and then waits needs no system call for it.
        """
        cdef epoll_event event
        if not self.armed and not self.led:
            self.armed = True
            event.data.fd = self.fd
            event.events = EPOLLIN | (EPOLLOUT if self.outgoing else 0)
            epoll_ctl(epoll, EPOLL_CTL_MOD, self.fd, &event)
