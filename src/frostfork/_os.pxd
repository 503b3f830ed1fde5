# SPDX-License-Identifier: Apache-2.0
# The kernel layer, csrc/os.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.types cimport pid_t


# For a pointer to one: a bint is an int, which has room for four of them.
cdef extern from "stdbool.h" nogil:
    ctypedef bint c_bool "bool"


cdef extern from "os/kernel.h" nogil:
    struct ff_kernel:
        int major
        int minor
        uint64_t page_size
        int pagemap
        bint pagemap_scan
        bint procmap_query
        bint frame_numbers
        bint madv_collapse
        bint memfd

    int ff_kernel_probe(ff_kernel *out)
    int ff_kernel_threads()


cdef extern from "os/counts.h" nogil:
    struct ff_counts:
        int64_t present
        int64_t anonymous
        int64_t file
        int64_t exclusive
        int64_t shared
        int64_t swapped
        int64_t huge

    int ff_counts_take(pid_t pid, ff_counts *out)


cdef extern from "os/baseline.h" nogil:
    enum: FF_KINDS

    struct ff_baseline:
        pass

    # In C the struct and the function share a name.
    ctypedef struct ff_baseline_info_t "struct ff_baseline_info":
        pid_t owner
        int64_t anonymous
        int64_t shared
        bint frames
        size_t bytes

    struct ff_change:
        int64_t unshared
        int64_t copied
        int64_t fresh
        int64_t dropped

    struct ff_comparison:
        ff_change by_kind[FF_KINDS]
        int64_t unmapped
        bint frames

    int ff_baseline_init(ff_baseline *baseline, pid_t pid)
    int ff_baseline_take(ff_baseline *baseline, pid_t pid)
    void ff_baseline_info(const ff_baseline *baseline, ff_baseline_info_t *out)
    int ff_baseline_compare(const ff_baseline *baseline, ff_comparison *out)
    void ff_baseline_fini(ff_baseline *baseline)


cdef extern from "os/heap.h" nogil:
    enum: FF_HEAP_NAME

    struct ff_heap:
        size_t chunks
        size_t bytes
        bint capped

    int ff_heap_allocator(char *name)
    int ff_heap_drain(ff_heap *heap, size_t largest, size_t most)
    void ff_heap_release(ff_heap *heap)


cdef extern from "os/huge.h" nogil:
    struct ff_huge:
        int64_t ranges
        int64_t already
        int64_t shared
        int64_t sparse

    struct ff_huge_made:
        int64_t collapsed
        int64_t failed
        int64_t added
        int first_error

    int ff_huge_collapse(int share, int64_t fewest, ff_huge *found, ff_huge_made *made)


cdef extern from "os/descriptors.h" nogil:
    int ff_descriptors_release(int *kept, size_t kept_count, int *closed, size_t closed_count)
    bint ff_descriptors_of_library(int fd)


cdef extern from "os/process.h" nogil:
    int ff_process_die_with_parent(int signal)
    int ff_process_adopt_orphans()
    int ff_process_exit_status(int pidfd, int *status)
    void ff_process_set_name(const char *name)
    uint64_t ff_process_environment()
    enum: FF_PROCESS_SIGNALS
    void ff_process_signal_actions(uint64_t *out)
    uint64_t ff_process_libraries_loaded()

cdef extern from "os/merge.h" nogil:
    int ff_merge_set(bint merge)
    int ff_merge_get()


cdef extern from "os/witness.h" nogil:
    struct ff_witness:
        pid_t owner
        pid_t pid

    struct ff_witness_findings:
        size_t pages
        size_t page_size
        ff_comparison sums

    int ff_witness_start(ff_witness *witness)
    int ff_witness_finish(ff_witness *witness, ff_witness_findings *out)
    void ff_witness_fini(ff_witness *witness)


cdef extern from "os/board.h" nogil:
    struct ff_board:
        size_t count

    struct ff_board_view:
        uint32_t begun
        uint32_t limit
        uint64_t tasks
        uint64_t since
        uint64_t busy
        int64_t private_bytes
        int64_t unshared

    int ff_board_create(ff_board *board, size_t count, int *fd)
    int ff_board_map(ff_board *board, int fd, size_t count)
    void ff_board_fini(ff_board *board)
    void ff_board_reset(ff_board *board, size_t slot)
    void ff_board_allow(ff_board *board, size_t slot, uint32_t number)
    uint32_t ff_board_withdraw(ff_board *board, size_t slot)
    bint ff_board_begin(ff_board *board, size_t slot, uint32_t number)
    uint64_t ff_board_end(ff_board *board, size_t slot)
    bint ff_board_is_apart(ff_board *board, size_t slot, bint worker)
    void ff_board_measured(ff_board *board, size_t slot, int64_t private_bytes, int64_t unshared)
    void ff_board_look(const ff_board *board, size_t slot, ff_board_view *out)


cdef extern from "os/channel.h" nogil:
    enum: FF_CHANNEL_FDS

    ssize_t ff_channel_send(
        int socket, const void *first, size_t n_first, const void *second, size_t n_second, int fd, bint wait
    )
    ssize_t ff_channel_receive(int socket, void *into, size_t size, int *fds, size_t *n_fds, c_bool *lost, bint wait)
    ssize_t ff_channel_receive_awake(
        int socket, void *into, size_t size, int *fds, size_t *n_fds, c_bool *lost, uint64_t nanoseconds)
    int ff_channel_patience(int socket, int milliseconds)


cdef extern from "sys/epoll.h" nogil:
    enum:
        EPOLL_CTL_MOD
        EPOLLIN
        EPOLLOUT

    ctypedef union epoll_data_t:
        int fd

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)


cdef extern from "sys/eventfd.h" nogil:
    int eventfd_write(int fd, uint64_t value)
