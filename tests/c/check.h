// SPDX-License-Identifier: Apache-2.0
//
// Just enough of a test library: a check that says where and what, and a child whose result is its exit status.

#ifndef FROSTFORK_TESTS_CHECK_H
#define FROSTFORK_TESTS_CHECK_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

#define CHECK_EQUAL(found, wanted)                                                                   \
  do {                                                                                               \
    long long found_ = (long long)(found), wanted_ = (long long)(wanted);                            \
    if (found_ != wanted_) {                                                                         \
      fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #found, found_, wanted_); \
      exit(1);                                                                                       \
    }                                                                                                \
  } while (0)

// Exact page counts, but for AddressSanitizer, whose shadow memory grows pages of its own.
#ifdef __SANITIZE_ADDRESS__
#define CHECK_PAGES(found, wanted) CHECK((found) >= (wanted))
#else
#define CHECK_PAGES CHECK_EQUAL
#endif

// fork, with a child that ends when its parent does: a failed check must not leave one waiting.
static inline pid_t fork_bound(void) {
  fflush(NULL);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
  return pid;
}

// Runs the body in a forked child and fails if the child did.
static inline void in_child(void (*body)(void *), void *argument) {
  pid_t pid = fork_bound();
  if (pid == 0) {
    body(argument);
    fflush(NULL);
    _exit(0);
  }
  int status;
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(WIFEXITED(status));
  CHECK_EQUAL(WEXITSTATUS(status), 0);
}

static inline char *anonymous(size_t bytes) {
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  return memory;
}

#endif
