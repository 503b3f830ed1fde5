// SPDX-License-Identifier: Apache-2.0
//
// A board in shared memory: one slot for each worker of a pool, in which worker and owner agree on what is begun.

#ifndef FROSTFORK_OS_BOARD_H
#define FROSTFORK_OS_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Caller-owned: one process's view of the board.
struct ff_board {
  struct ff_board_slot *slots;
  size_t count;
  size_t bytes;
};

// What a slot shows. Times are CLOCK_MONOTONIC, in nanoseconds.
struct ff_board_view {
  uint32_t begun;         // the number of the task that was begun last
  uint32_t limit;         // up to which number the worker may begin
  uint64_t tasks;         // tasks that have ended
  uint64_t since;         // when the task that runs now was begun, 0 for none
  uint64_t busy;          // nanoseconds spent in tasks that have ended
  int64_t private_bytes;  // -1: not measured yet
  int64_t unshared;       // pages, -1: unknown
};

// Makes a board of `count` slots and maps it; *fd is for the workers. Returns 0 or a negative errno.
int ff_board_create(struct ff_board *board, size_t count, int *fd);

// Maps the board behind fd. Returns 0, a negative errno, or -EINVAL if it is smaller than `count` slots.
int ff_board_map(struct ff_board *board, int fd, size_t count);

void ff_board_fini(struct ff_board *board);

// The owner's. A slot must be reset before a worker gets it, and may be only when its last worker is gone.
void ff_board_reset(struct ff_board *board, size_t slot);
void ff_board_allow(struct ff_board *board, size_t slot, uint32_t number);

// Takes back what was allowed and is not begun. Returns the number of the last task that was begun.
uint32_t ff_board_withdraw(struct ff_board *board, size_t slot);

// The worker's. Whether this task is begun now; false if it was withdrawn.
bool ff_board_begin(struct ff_board *board, size_t slot, uint32_t number);

// Nanoseconds since the task was begun.
uint64_t ff_board_end(struct ff_board *board, size_t slot);

// Either side, before it waits for the other: notes its processor, and tells whether the other was on a different one
// when it waited last. False if it never did.
bool ff_board_is_apart(struct ff_board *board, size_t slot, bool worker);

void ff_board_measured(struct ff_board *board, size_t slot, int64_t private_bytes, int64_t unshared);

void ff_board_look(const struct ff_board *board, size_t slot, struct ff_board_view *out);

#endif
