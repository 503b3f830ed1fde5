# SPDX-License-Identifier: Apache-2.0
# Channels between the owner of a pool and its workers: a part of _core.pyx, in a file of its own for its length.

cdef enum:
    RECEIVE_BYTES = 65536
    LARGE = 65536  # a pickle from here on has no frame to itself: pool/payload.py

# How long a receive stays awake: about what two sleeps cost that each end with a processor being woken. If that was in
# vain, the next one sleeps at once; after two in a row the next three do, then seven, up to a thousand.
cdef enum:
    AWAKE_NANOS = 50_000
    MOST_MISSED = 10

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

# Of what pool/frames.py names, the kinds that are dealt with here, and the flag of a call in pool/payload.py.
cdef enum:
    FRAME_TASK = 2
    FRAME_TIMED_TASK = 3
    FRAME_RESULT = 10
    FRAME_SKIPPED = 12
    FLAG_CALL = 4

# Bound by the first Line or Runner: whoever has no pool need not load them.
cdef object _loads = None
cdef object _dumps = None
cdef object _deque = None


cdef int bind_pickle() except -1:
    global _loads, _dumps, _deque
    if _loads is None:
        import collections
        import pickle

        _loads, _dumps, _deque = pickle.loads, pickle.dumps, collections.deque
    return 0


cdef inline bytes plain_pickle(value):
    """Of what can neither run code nor leave anything out of band, if it fits into a frame; else None."""
    kind = type(value)
    if value is None or kind is int or kind is float or kind is bool or (kind is tuple and all_plain(<tuple> value)):
        data = _dumps(value, 5)
        return data if PyBytes_GET_SIZE(data) < LARGE else None
    return None


cdef inline bint all_plain(tuple values) noexcept:
    for each in values:
        kind = type(each)
        if not (each is None or kind is int or kind is str or kind is float or kind is bool):
            return False
    return True


@cython.no_gc_clear  # its descriptors are to be closed when it dies
cdef class Channel:
    """Frames over a stream socket, which stays its creator's to close.

    A frame is (kind, number, extra, flags, body, fd): small integers, bytes, and a descriptor that belongs to whoever
    receives it: -1 for none, -2 for one that was lost because this process has too many open.
    """

    cdef readonly int fd
    cdef uint8_t *buffer
    cdef bytes partial
    cdef bint apart  # who sends is on another processor: a receive that waits may do so awake
    cdef uint32_t missed  # how often in a row that was in vain
    cdef uint32_t rests  # how many receives are to sleep at once
    cdef list fds

    def __cinit__(self):
        self.fd = -1
        self.partial = b""
        self.fds = []
        self.buffer = <uint8_t *> PyMem_Malloc(RECEIVE_BYTES)
        if self.buffer == NULL:
            raise MemoryError

    def __init__(self, int fd):
        self.fd = fd

    def __dealloc__(self):
        PyMem_Free(self.buffer)
        for fd in self.fds or ():
            if fd >= 0:
                close(fd)

    def send(self, uint8_t kind, uint32_t number, bytes body, uint32_t extra=0, uint8_t flags=0, int fd=-1):
        """Send a frame, however long it takes. OSError if nobody is there. Handlers of signals run and may raise."""
        self.transmit(frame_head(0, kind, flags, 0, number, extra), body, fd)

    cdef int transmit(self, frame_head head, bytes body, int fd) except -1:
        cdef const char *data = PyBytes_AS_STRING(body)
        cdef size_t size = PyBytes_GET_SIZE(body), first = sizeof(head), at = 0
        cdef const char *start = <const char *> &head
        cdef ssize_t sent
        head.length = <uint32_t> size
        if fd >= 0:
            head.flags |= FRAME_FD
        sent = ff_channel_send(self.fd, start, first, data, size, fd, False)
        while True:
            if sent >= 0:
                at += sent
                if at > 0:
                    fd = -1
                if at == first + size:
                    return 0
            elif sent == -errno_EINTR:
                PyErr_CheckSignals()
            elif sent != -errno_EAGAIN:
                check(<int> sent)
            with nogil:
                if at < first:
                    sent = ff_channel_send(self.fd, start + at, first - at, data, size, fd, True)
                else:
                    sent = ff_channel_send(self.fd, data + (at - first), size - (at - first), NULL, 0, fd, True)

    def wait_at_most(self, int milliseconds):
        """A receive that waits returns [] when nothing has come for so long; below 1: it waits for ever."""
        check(ff_channel_patience(self.fd, milliseconds))

    cpdef receive(self, bint wait=False):
        """The frames that have come, [] if none has, None at the end. With wait, handlers of signals run."""
        cdef ssize_t got
        while True:
            got = self.fill(wait)
            if got == -errno_EINTR:
                PyErr_CheckSignals()
                continue
            if got == -errno_EAGAIN:
                return []
            if got <= 0:
                return None
            frames = self.cut(got)
            if frames or wait:
                return frames
            # Of a long frame, only a part; [] is for nothing.

    cdef ssize_t fill(self, bint wait) except -1:
        """Receive once: how many bytes, 0 at the end, or -EAGAIN or -EINTR. cut() must follow before the next one."""
        cdef int fds[FF_CHANNEL_FDS]
        cdef size_t n_fds = FF_CHANNEL_FDS
        cdef c_bool lost = False
        cdef ssize_t got = -errno_EAGAIN
        if wait and self.apart:
            got = self.fill_awake(fds, &n_fds, &lost)
            n_fds = n_fds if got >= 0 else FF_CHANNEL_FDS
        if wait and got == -errno_EAGAIN:
            PyErr_CheckSignals()  # a signal that came before does not end the call
            with nogil:
                got = ff_channel_receive(self.fd, self.buffer, RECEIVE_BYTES, fds, &n_fds, &lost, True)
        elif not wait:
            got = ff_channel_receive(self.fd, self.buffer, RECEIVE_BYTES, fds, &n_fds, &lost, False)
        if got < 0:
            if got == -errno_EAGAIN or got == -errno_EINTR:
                return got
            if got == -errno_ECONNRESET:
                return 0
            check(<int> got)
        for i in range(n_fds):
            self.fds.append(fds[i])
        if lost:
            self.fds.append(-2)
        return got

    cdef ssize_t fill_awake(self, int *fds, size_t *n_fds, c_bool *lost) noexcept:
        """Receive without sleeping; -EAGAIN if nothing comes soon, or did not lately."""
        cdef ssize_t got
        if self.rests > 0:
            self.rests -= 1
            return -errno_EAGAIN
        with nogil:
            got = ff_channel_receive_awake(self.fd, self.buffer, RECEIVE_BYTES, fds, n_fds, lost, AWAKE_NANOS)
        self.missed = min(self.missed + 1, MOST_MISSED) if got == -errno_EAGAIN else 0
        self.rests = (1 << self.missed) - 1
        return got

    cdef list cut(self, size_t size):
        """The frames that are whole with so many bytes of the buffer."""
        cdef frame_head head
        cdef size_t at = 0
        cdef const uint8_t *data = self.buffer
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
        return frames
