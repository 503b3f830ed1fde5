# SPDX-License-Identifier: Apache-2.0
# The plain part of what a worker does: a part of _core.pyx, in a file of its own for its length.

cdef uint64_t _forks = 0  # between this process and the first one that had this module: cheaper to ask than the pid


def count_fork():
    """For os.register_at_fork(), in the child."""
    global _forks
    _forks += 1


cdef class Runner:
    """Runs plain tasks one after the other: a function that goes by name, plain arguments, a result that is one pickle.

    What is not plain is the subclass's: encode(), told(), answer(), after_task(), after_idling(). In C because the same
    in Python made a round trip of 10 us 1.4 us longer.
    """

    cdef readonly Channel channel
    cdef readonly Board board
    cdef readonly size_t slot
    cdef uint64_t forks
    cdef public bint in_task  # an interrupt is the task's
    cdef public bint retiring  # begins no more
    cdef public bint patient  # waits for a while only, and then looks at its memory
    cdef public bint limited  # looks at its limits after each task
    cdef public Py_ssize_t tasks
    cdef object functions  # pickle -> function
    cdef bytes last_name
    cdef object last
    cdef list came
    cdef Py_ssize_t at

    def __init__(self, Channel channel, Board board, size_t slot, functions):
        bind_pickle()
        self.channel = channel
        self.board = board
        self.slot = board.at(slot)
        self.forks = _forks
        self.functions = functions
        self.came = []

    @property
    def is_copy(self):
        """Whether this process was forked from the worker since."""
        return self.forks != _forks

    def next(self):
        """Run tasks, and return the first frame that is something else; () if none came for a while, None at last."""
        cdef tuple frame
        while True:
            if self.at == len(self.came):
                self.at = 0
                self.came = []
                self.channel.apart = ff_board_is_apart(&self.board.board, self.slot, True)
                frames = self.channel.receive(True)
                # Also lets the collector of garbage run, for which tasks in C give no occasion.
                PyErr_CheckSignals()
                if frames is None:
                    return None
                if not frames:
                    return ()
                self.came = frames
            frame = self.came[self.at]
            self.at += 1
            if frame[0] != FRAME_TASK or frame[3] != FLAG_CALL or self.retiring:
                return frame
            self.run(frame[1], frame[4])

    cdef int run(self, uint32_t number, bytes body) except -1:
        cdef uint64_t took
        cdef bytes data
        if not ff_board_begin(&self.board.board, self.slot, number):
            self.channel.transmit(frame_head(0, FRAME_SKIPPED, 0, 0, number, 0), b"", -1)
            return 0
        try:
            self.in_task = True
            out = self.call(body)
            self.in_task = False
        except BaseException as error:
            self.in_task = False
            out = self.told(error)
        if type(out) is bytes and self.forks == _forks:
            data = out
            took = ff_board_end(&self.board.board, self.slot) // 1000
            if took > <uint32_t> -1:
                took = <uint32_t> -1
            self.channel.transmit(frame_head(0, FRAME_RESULT, 0, 0, number, <uint32_t> took), data, -1)
            self.tasks += 1
        else:
            self.answer(number, out)
        if self.limited:
            self.after_task()
        if not self.patient:
            self.after_idling()
        return 0

    cdef object call(self, bytes body):
        """The pickle of what it returns."""
        cdef const char *start = PyBytes_AS_STRING(body)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(body), length
        length = (<uint8_t> start[0]) | (<uint8_t> start[1]) << 8
        name = self.last_name
        if (
            self.last_name is None
            or PyBytes_GET_SIZE(self.last_name) != length
            or memcmp(PyBytes_AS_STRING(self.last_name), start + 2, length) != 0
        ):
            name = PyBytes_FromStringAndSize(start + 2, length)
            self.last = self.functions.named(name)
            self.last_name = name
        args = _loads(PyBytes_FromStringAndSize(start + 2 + length, size - 2 - length))
        value = (<object> self.last)(*args)
        del args
        data = plain_pickle(value)
        return self.encode(value) if data is None else data
