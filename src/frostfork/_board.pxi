# SPDX-License-Identifier: Apache-2.0
# Boards and mapped payloads of pools: a part of _core.pyx, in a file of its own for its length.


cdef class Board:
    """Shared memory in which the owner of a pool and its workers agree on what is begun; csrc/os/board.c."""

    cdef ff_board board
    cdef readonly int fd

    def __cinit__(self, size_t slots, int fd=-1):
        """A new one of so many slots, whose `fd` is for workers; or the one behind fd, which may be closed then."""
        self.fd = -1
        if fd < 0:
            check(ff_board_create(&self.board, slots, &self.fd))
        else:
            check(ff_board_map(&self.board, fd, slots))

    def __dealloc__(self):
        self.close()
        ff_board_fini(&self.board)

    cpdef close(self):
        """Close the descriptor. The memory stays mapped for as long as this object lives."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    cdef size_t at(self, size_t slot) except? 0:
        if slot >= self.board.count:
            raise IndexError(f"the board has {self.board.count} slots")
        return slot

    def reset(self, size_t slot):
        ff_board_reset(&self.board, self.at(slot))

    def allow(self, size_t slot, uint32_t number):
        ff_board_allow(&self.board, self.at(slot), number)

    def withdraw(self, size_t slot):
        """The number of the last task that was begun; no later one will be."""
        return ff_board_withdraw(&self.board, self.at(slot))

    def begin(self, size_t slot, uint32_t number):
        return ff_board_begin(&self.board, self.at(slot), number)

    def end(self, size_t slot):
        """Nanoseconds since begin()."""
        return ff_board_end(&self.board, self.at(slot))

    def measured(self, size_t slot, int64_t private_bytes, int64_t unshared):
        ff_board_measured(&self.board, self.at(slot), private_bytes, unshared)

    def look(self, size_t slot):
        """(begun, limit, tasks, since, busy, private_bytes, unshared), as in csrc/os/board.h."""
        cdef ff_board_view view
        ff_board_look(&self.board, self.at(slot), &view)
        return (view.begun, view.limit, view.tasks, view.since, view.busy, view.private_bytes, view.unshared)


cdef class Mapping:
    """The memory of a file, shared and writable, for as long as anything looks into it. It holds no descriptor."""

    cdef void *memory
    cdef size_t size

    def __cinit__(self, int fd, size_t size):
        self.memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if self.memory == MAP_FAILED:
            self.memory = NULL
            check(-c_errno)
        self.size = size

    def __dealloc__(self):
        if self.memory != NULL:
            munmap(self.memory, self.size)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.memory, self.size, 0, flags)
