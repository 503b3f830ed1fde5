// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "os/process.h"

static void environment(void *unused) {
  (void)unused;
  uint64_t before = ff_process_environment();
  CHECK(ff_process_environment() == before);
  setenv("FF_TEST", "1", 1);
  uint64_t set = ff_process_environment();
  CHECK(set != before);
  setenv("FF_TEST", "2", 1);
  CHECK(ff_process_environment() != set);
  unsetenv("FF_TEST");
  CHECK(ff_process_environment() == before);
  clearenv();
  CHECK(ff_process_environment() != before);
}

static void actions(void *unused) {
  (void)unused;
  uint64_t seen[FF_PROCESS_SIGNALS];
  signal(SIGUSR1, SIG_DFL);
  signal(SIGUSR2, SIG_IGN);
  ff_process_signal_actions(seen);
  CHECK(seen[SIGUSR1 - 1] == 0);
  CHECK(seen[SIGUSR2 - 1] == 1);
  signal(SIGUSR1, _exit);
  ff_process_signal_actions(seen);
  CHECK(seen[SIGUSR1 - 1] == (uint64_t)(uintptr_t)_exit);
}

// A grandchild whose parent ends becomes our child: its exit status is ours to read.
static void orphans(void *unused) {
  (void)unused;
  int ends[2], status;
  CHECK(pipe(ends) == 0);
  CHECK_EQUAL(ff_process_adopt_orphans(), 0);
  pid_t child = fork_bound();
  if (child == 0) {
    pid_t grandchild = fork();
    if (grandchild == 0) {
      char byte;
      (void)!read(ends[0], &byte, 1);
      _exit(7);
    }
    _exit(write(ends[1], "", 0) != 0);
  }
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(write(ends[1], "x", 1) == 1);
  CHECK(waitpid(-1, &status, 0) > 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

// The child ends by our signal when its parent does, although it would wait for ever.
static void with_parent(void *unused) {
  (void)unused;
  int ends[2], status;
  char byte;
  CHECK(pipe(ends) == 0);
  CHECK_EQUAL(ff_process_adopt_orphans(), 0);
  CHECK(ff_process_die_with_parent(-1) == -EINVAL);
  pid_t child = fork();
  if (child == 0) {
    if (fork() == 0) {
      CHECK_EQUAL(ff_process_die_with_parent(SIGKILL), 0);
      CHECK(write(ends[1], "x", 1) == 1);
      for (;;) pause();
    }
    CHECK(read(ends[0], &byte, 1) == 1);
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(waitpid(-1, &status, 0) > 0);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void name(void *unused) {
  (void)unused;
  char seen[32] = "";
  ff_process_set_name("0123456789abcdefgh");
  FILE *comm = fopen("/proc/self/comm", "r");
  CHECK(comm != NULL && fgets(seen, sizeof(seen), comm) != NULL);
  fclose(comm);
  CHECK(strcmp(seen, "0123456789abcde\n") == 0);
}

int main(void) {
  in_child(environment, NULL);
  in_child(actions, NULL);
  in_child(orphans, NULL);
  in_child(name, NULL);
  in_child(with_parent, NULL);
  CHECK(ff_process_libraries_loaded() > 0);
  return 0;
}
