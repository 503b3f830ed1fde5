// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

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

// Of a process that is not our child: known once its own parent has waited for it, and not before.
static void exit_status(void *unused) {
  (void)unused;
  int gate[2], told[2], status = -1;
  CHECK(pipe(gate) == 0 && pipe(told) == 0);
  pid_t parent = fork_bound();
  if (parent == 0) {
    char byte;
    pid_t child = fork();
    if (child == 0) _exit(read(gate[0], &byte, 1) == 1 ? 9 : 1);
    CHECK(write(told[1], &child, sizeof(child)) == sizeof(child));
    siginfo_t info;
    CHECK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
    CHECK(write(told[1], "z", 1) == 1);
    CHECK(read(gate[0], &byte, 1) == 1);
    CHECK(waitpid(child, &status, 0) == child);
    _exit(0);
  }
  pid_t child;
  char byte;
  CHECK(read(told[0], &child, sizeof(child)) == sizeof(child));
  int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
  CHECK(pidfd >= 0);
  int running = ff_process_exit_status(pidfd, &status);
  CHECK(running <= 0 && status == -1);
  CHECK(write(gate[1], "x", 1) == 1);
  CHECK(read(told[0], &byte, 1) == 1);
  CHECK(ff_process_exit_status(pidfd, &status) <= 0 && status == -1);
  CHECK(write(gate[1], "x", 1) == 1);
  CHECK(waitpid(parent, &(int){0}, 0) == parent);
  int ended = ff_process_exit_status(pidfd, &status);
  if (ended == 1)
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
  else
    CHECK(ended == -ENOTTY || ended == -EINVAL || ended == -ESRCH);
  close(pidfd);
  CHECK(ff_process_exit_status(pidfd, &status) == -EBADF);
}

int main(void) {
  in_child(environment, NULL);
  in_child(actions, NULL);
  in_child(orphans, NULL);
  in_child(name, NULL);
  in_child(exit_status, NULL);
  in_child(with_parent, NULL);
  CHECK(ff_process_libraries_loaded() > 0);
  return 0;
}
