// SPDX-License-Identifier: Apache-2.0
//
// The board of a pool.
//
// An owner sends its workers tasks ahead, so that none waits for the next. If a worker dies, or is busy with a long
// task, the owner must know which of them were begun: those may have had effects, the others can run elsewhere. A
// message could not tell, since it may be on its way. So the number of the task that is begun and the number up to
// which the worker may begin share one word, which both sides change by compare-and-swap only: either the worker has
// begun the task, or the owner has it back, never both.
//
// Numbers of one worker's tasks rise from 1 and are used once. The counters are written by the worker alone.
//
// What it cannot do: protect itself from a worker that writes into this memory where it should not.

#include "os/board.h"

#include <errno.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/clock.h"

// A cache line each: a worker's counters do not slow its neighbours.
struct ff_board_slot {
  alignas(64) _Atomic uint64_t word;  // limit << 32 | begun
  _Atomic uint64_t tasks;
  _Atomic uint64_t since;
  _Atomic uint64_t busy;
  _Atomic int64_t private_bytes;
  _Atomic int64_t unshared;
  _Atomic int32_t cpu[2];  // where the owner and the worker were when they waited last, -1: neither did
};

_Static_assert(sizeof(struct ff_board_slot) == 64, "a slot is one cache line");

static uint64_t word_of(uint32_t begun, uint32_t limit) { return (uint64_t)limit << 32 | begun; }
static uint32_t begun_of(uint64_t word) { return (uint32_t)word; }
static uint32_t limit_of(uint64_t word) { return (uint32_t)(word >> 32); }

int ff_board_create(struct ff_board *board, size_t count, int *fd) {
  *board = (struct ff_board){0};
  *fd = memfd_create("frostfork-board", MFD_CLOEXEC);
  if (*fd < 0) return -errno;
  int rc = ftruncate(*fd, (off_t)(count * sizeof(struct ff_board_slot))) < 0 ? -errno : 0;
  if (rc == 0) rc = ff_board_map(board, *fd, count);
  if (rc < 0) {
    close(*fd);
    *fd = -1;
  }
  return rc;
}

int ff_board_map(struct ff_board *board, int fd, size_t count) {
  struct stat file;
  size_t bytes = count * sizeof(struct ff_board_slot);
  *board = (struct ff_board){0};
  // Beyond the end of the file an access is SIGBUS.
  if (fstat(fd, &file) < 0) return -errno;
  if (count == 0 || (uint64_t)file.st_size < bytes) return -EINVAL;
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return -errno;
  *board = (struct ff_board){.slots = at, .count = count, .bytes = bytes};
  return 0;
}

void ff_board_fini(struct ff_board *board) {
  if (board->slots != NULL) munmap(board->slots, board->bytes);
  *board = (struct ff_board){0};
}

void ff_board_reset(struct ff_board *board, size_t slot) {
  struct ff_board_slot *at = &board->slots[slot];
  atomic_store(&at->word, 0);
  atomic_store(&at->tasks, 0);
  atomic_store(&at->since, 0);
  atomic_store(&at->busy, 0);
  atomic_store(&at->private_bytes, -1);
  atomic_store(&at->unshared, -1);
  atomic_store(&at->cpu[0], -1);
  atomic_store(&at->cpu[1], -1);
}

void ff_board_allow(struct ff_board *board, size_t slot, uint32_t number) {
  _Atomic uint64_t *word = &board->slots[slot].word;
  uint64_t seen = atomic_load(word);
  while (!atomic_compare_exchange_weak(word, &seen, word_of(begun_of(seen), number))) {
  }
}

uint32_t ff_board_withdraw(struct ff_board *board, size_t slot) {
  _Atomic uint64_t *word = &board->slots[slot].word;
  uint64_t seen = atomic_load(word);
  while (!atomic_compare_exchange_weak(word, &seen, word_of(begun_of(seen), begun_of(seen)))) {
  }
  return begun_of(seen);
}

bool ff_board_begin(struct ff_board *board, size_t slot, uint32_t number) {
  struct ff_board_slot *at = &board->slots[slot];
  // Before the word: who sees the task begun sees since when.
  atomic_store_explicit(&at->since, ff_clock_now(), memory_order_release);
  uint64_t seen = atomic_load(&at->word);
  while (limit_of(seen) >= number) {
    if (atomic_compare_exchange_weak(&at->word, &seen, word_of(number, limit_of(seen)))) return true;
  }
  atomic_store_explicit(&at->since, 0, memory_order_release);
  return false;
}

uint64_t ff_board_end(struct ff_board *board, size_t slot) {
  struct ff_board_slot *at = &board->slots[slot];
  uint64_t took = ff_clock_now() - atomic_load_explicit(&at->since, memory_order_relaxed);
  atomic_store_explicit(&at->since, 0, memory_order_release);
  atomic_store_explicit(&at->busy, atomic_load_explicit(&at->busy, memory_order_relaxed) + took, memory_order_relaxed);
  atomic_store_explicit(&at->tasks, atomic_load_explicit(&at->tasks, memory_order_relaxed) + 1, memory_order_relaxed);
  return took;
}

bool ff_board_is_apart(struct ff_board *board, size_t slot, bool worker) {
  struct ff_board_slot *at = &board->slots[slot];
  int32_t here = sched_getcpu(), there = atomic_load_explicit(&at->cpu[!worker], memory_order_relaxed);
  atomic_store_explicit(&at->cpu[worker], here, memory_order_relaxed);
  return here >= 0 && there >= 0 && there != here;
}

void ff_board_measured(struct ff_board *board, size_t slot, int64_t private_bytes, int64_t unshared) {
  atomic_store_explicit(&board->slots[slot].private_bytes, private_bytes, memory_order_relaxed);
  atomic_store_explicit(&board->slots[slot].unshared, unshared, memory_order_relaxed);
}

void ff_board_look(const struct ff_board *board, size_t slot, struct ff_board_view *out) {
  struct ff_board_slot *at = &board->slots[slot];
  uint64_t word = atomic_load(&at->word);
  *out = (struct ff_board_view){
      .begun = begun_of(word),
      .limit = limit_of(word),
      .tasks = atomic_load_explicit(&at->tasks, memory_order_relaxed),
      .since = atomic_load_explicit(&at->since, memory_order_acquire),
      .busy = atomic_load_explicit(&at->busy, memory_order_relaxed),
      .private_bytes = atomic_load_explicit(&at->private_bytes, memory_order_relaxed),
      .unshared = atomic_load_explicit(&at->unshared, memory_order_relaxed),
  };
}
