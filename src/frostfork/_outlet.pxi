# SPDX-License-Identifier: Apache-2.0
# The sending side of the owner's channels: a part of _core.pyx, in a file of its own for its length.


@cython.no_gc_clear  # the same
cdef class Outlet(Channel):
    """A channel whose owner never waits to send: what does not fit is kept, and an epoll set tells when there is room.

    Whether anybody is there to receive it is noticed elsewhere.
    """

    cdef list outgoing  # (bytes, descriptor), of which not all was sent yet
    cdef int epoll
    cdef public bint armed  # the epoll set looks at this socket

    def __cinit__(self):
        self.outgoing = []
        self.epoll = -1
        self.armed = True

    def __dealloc__(self):
        for _, fd in self.outgoing or ():
            if fd >= 0:
                close(fd)

    @property
    def unsent(self):
        """Whether flush() has something to do."""
        return bool(self.outgoing)

    def drop(self):
        """Forget what was not sent or not asked for."""
        self.forget()

    cdef forget(self):
        outgoing, self.outgoing = self.outgoing, []
        fds, self.fds = self.fds, []
        for fd in [*fds, *(fd for _, fd in outgoing)]:
            if fd >= 0:
                close(fd)

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
            fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)
            if fd < 0:
                check(-c_errno)
        self.outgoing.append((frame, fd))
        return 0

    def flush(self):
        """Send what can be sent without waiting; whether that was all. Else the epoll set tells when there is room."""
        return self.push()

    def flush_more(self):
        """The same when it has told so."""
        cdef bint all_sent = self.push()
        if all_sent:
            self.watch(EPOLLIN)
        return all_sent

    cdef bint push(self) except -1:
        cdef int rc = self.send_kept()
        if rc == -errno_EAGAIN:
            rc = self.watch(EPOLLIN | EPOLLOUT)
            if rc == 0:
                return False
        if rc < 0:
            self.forget()
        return True

    cdef int send_kept(self) except 1:
        """0, -EAGAIN if not all could be sent, or another negative errno."""
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
            if sent < 0:
                return <int> sent
            if fd >= 0:
                close(fd)
            if sent == PyBytes_GET_SIZE(data):
                del self.outgoing[:taken]
            else:
                self.outgoing[:taken] = [(data[sent:], -1)]
                return -errno_EAGAIN
        return 0

    cdef int watch(self, uint32_t events) noexcept:
        """Have the epoll set look for these. 0 or a negative errno: it does not know the socket any more."""
        cdef epoll_event event
        self.armed = events != 0
        event.data.fd = self.fd
        event.events = events
        if self.epoll >= 0 and epoll_ctl(self.epoll, EPOLL_CTL_MOD, self.fd, &event) < 0:
            return -c_errno
        return 0
