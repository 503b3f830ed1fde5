// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>

#include "check.h"
#include "os/board.h"

enum { TASKS = 30000 };

static void words(void *unused) {
  (void)unused;
  struct ff_board board;
  struct ff_board_view view;
  int fd;
  CHECK_EQUAL(ff_board_create(&board, 3, &fd), 0);
  ff_board_reset(&board, 2);
  ff_board_look(&board, 2, &view);
  CHECK(view.begun == 0 && view.limit == 0 && view.private_bytes == -1 && view.unshared == -1);
  CHECK(!ff_board_begin(&board, 2, 1));  // nothing is allowed yet
  ff_board_look(&board, 2, &view);
  CHECK(view.since == 0);
  ff_board_allow(&board, 2, 3);
  CHECK(ff_board_begin(&board, 2, 1));
  ff_board_look(&board, 2, &view);
  CHECK(view.begun == 1 && view.limit == 3 && view.since > 0 && view.tasks == 0);
  CHECK_EQUAL(ff_board_withdraw(&board, 2), 1);
  CHECK(!ff_board_begin(&board, 2, 2) && !ff_board_begin(&board, 2, 3));
  ff_board_allow(&board, 2, 4);
  CHECK(ff_board_begin(&board, 2, 4));
  uint64_t took = ff_board_end(&board, 2);
  ff_board_measured(&board, 2, 4096, 7);
  ff_board_look(&board, 2, &view);
  CHECK(view.tasks == 1 && view.since == 0 && view.busy == took && view.private_bytes == 4096 && view.unshared == 7);
  ff_board_look(&board, 1, &view);  // the neighbour's
  CHECK(view.begun == 0 && view.tasks == 0);
  struct ff_board other;
  CHECK_EQUAL(ff_board_map(&other, fd, 3), 0);
  ff_board_look(&other, 2, &view);
  CHECK_EQUAL(view.begun, 4);
  ff_board_fini(&other);
  CHECK_EQUAL(ff_board_map(&other, fd, 4), -EINVAL);  // the file is smaller
  CHECK_EQUAL(ff_board_map(&other, -1, 1), -EBADF);
  close(fd);
  ff_board_fini(&board);
  ff_board_fini(&board);
}

// Two processes on one word: each task is either begun by the worker or taken back by the owner, never both.
static void race(void *unused) {
  (void)unused;
  struct ff_board board;
  int fd, to[2], status;
  CHECK_EQUAL(ff_board_create(&board, 1, &fd), 0);
  CHECK(pipe(to) == 0);
  char *begun = mmap(NULL, TASKS + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(begun != MAP_FAILED);
  _Atomic uint32_t *seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(seen != MAP_FAILED);
  pid_t worker = fork_bound();
  if (worker == 0) {
    uint32_t number;
    close(to[1]);
    while (read(to[0], &number, sizeof number) == sizeof number) {
      if (ff_board_begin(&board, 0, number)) {
        begun[number]++;
        ff_board_end(&board, 0);
      }
      atomic_store(seen, number);
    }
    _exit(0);
  }
  close(to[0]);
  char *taken = calloc(TASKS + 1, 1);
  CHECK(taken != NULL);
  for (uint32_t number = 1; number <= TASKS; number++) {
    ff_board_allow(&board, 0, number);
    CHECK(write(to[1], &number, sizeof number) == sizeof number);
    if (number % 3 != 0) continue;
    uint32_t last = ff_board_withdraw(&board, 0);
    // What was taken back earlier lies before the last multiple of three.
    for (uint32_t each = number; each > last && each + 3 > number; each--) taken[each]++;
    // As a pool does: nothing new before the worker has passed over what was taken back.
    while (atomic_load(seen) < number) sched_yield();
  }
  close(to[1]);
  CHECK(waitpid(worker, &status, 0) == worker && status == 0);
  long back = 0;
  for (uint32_t each = 1; each <= TASKS; each++) {
    back += taken[each];
    CHECK_EQUAL(begun[each] + taken[each], each > TASKS - TASKS % 3 ? begun[each] : 1);
  }
  struct ff_board_view view;
  ff_board_look(&board, 0, &view);
  CHECK(back > 0 && view.tasks > 0);
  free(taken);
  close(fd);
  ff_board_fini(&board);
}

// Pins this process to a processor that it may use: the first, or the last.
static bool move(bool last) {
  cpu_set_t all, one;
  int at = -1;
  CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
  for (int each = 0; each < CPU_SETSIZE; each++) {
    if (CPU_ISSET(each, &all) && (last || at < 0)) at = each;
  }
  CPU_ZERO(&one);
  CPU_SET(at, &one);
  CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
  return CPU_COUNT(&all) > 1;
}

static void together(void *unused) {
  (void)unused;
  struct ff_board board;
  int fd;
  CHECK_EQUAL(ff_board_create(&board, 1, &fd), 0);
  ff_board_reset(&board, 0);
  move(false);
  CHECK(!ff_board_is_apart(&board, 0, true));  // the owner never waited
  CHECK(!ff_board_is_apart(&board, 0, false));
  CHECK(!ff_board_is_apart(&board, 0, true));
}

static void apart(void *unused) {
  (void)unused;
  struct ff_board board;
  int fd, status;
  CHECK_EQUAL(ff_board_create(&board, 1, &fd), 0);
  ff_board_reset(&board, 0);
  pid_t owner = fork();
  if (owner == 0) {
    move(false);
    CHECK(!ff_board_is_apart(&board, 0, false));
    _exit(0);
  }
  CHECK(waitpid(owner, &status, 0) == owner && status == 0);
  bool several = move(true);
  CHECK_EQUAL(ff_board_is_apart(&board, 0, true), several);
  ff_board_reset(&board, 0);
  CHECK(!ff_board_is_apart(&board, 0, true));
}

int main(void) {
  in_child(words, NULL);
  in_child(together, NULL);
  in_child(apart, NULL);
  in_child(race, NULL);
  return 0;
}
