// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "check.h"
#include "os/channel.h"

static int pair[2];

static void make(void) { CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0); }

static void bytes(void *unused) {
  (void)unused;
  char got[64];
  int fds[4];
  size_t n_fds = 4;
  bool lost;
  make();
  CHECK_EQUAL(ff_channel_receive(pair[1], got, sizeof got, fds, &n_fds, &lost, false), -EAGAIN);
  CHECK_EQUAL(ff_channel_send(pair[0], "ab", 2, "cde", 3, -1, false), 5);
  n_fds = 4;
  CHECK_EQUAL(ff_channel_receive(pair[1], got, sizeof got, fds, &n_fds, &lost, false), 5);
  CHECK(memcmp(got, "abcde", 5) == 0 && n_fds == 0 && !lost);
  close(pair[0]);
  CHECK_EQUAL(ff_channel_receive(pair[1], got, sizeof got, fds, &n_fds, &lost, true), 0);
  CHECK_EQUAL(ff_channel_send(pair[1], "a", 1, NULL, 0, -1, true), -EPIPE);  // and no signal
}

// One receive never takes the bytes of two descriptors.
static void descriptors(void *unused) {
  (void)unused;
  char got[64], byte;
  int fds[4], ends[2];
  size_t n_fds = 4;
  bool lost;
  make();
  CHECK(pipe(ends) == 0);
  CHECK_EQUAL(ff_channel_send(pair[0], "1", 1, NULL, 0, ends[1], false), 1);
  CHECK_EQUAL(ff_channel_send(pair[0], "2", 1, NULL, 0, ends[0], false), 1);
  CHECK_EQUAL(ff_channel_receive(pair[1], got, sizeof got, fds, &n_fds, &lost, false), 1);
  CHECK(got[0] == '1' && n_fds == 1 && !lost);
  CHECK(fcntl(fds[0], F_GETFD) == FD_CLOEXEC);
  CHECK(write(fds[0], "x", 1) == 1 && read(ends[0], &byte, 1) == 1 && byte == 'x');
  // Where this process has no descriptor left, the bytes come and the loss is told.
  struct rlimit few = {3, 3};
  CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
  n_fds = 4;
  CHECK_EQUAL(ff_channel_receive(pair[1], got, sizeof got, fds, &n_fds, &lost, false), 1);
  CHECK(got[0] == '2' && n_fds == 0 && lost);
}

static void full(void *unused) {
  (void)unused;
  static char much[1 << 20];
  make();
  ssize_t sent = ff_channel_send(pair[0], much, 16, much, sizeof much, -1, false);
  CHECK(sent > 0 && sent < (ssize_t)sizeof much);
  while (sent > 0) sent = ff_channel_send(pair[0], much, sizeof much, NULL, 0, -1, false);
  CHECK_EQUAL(sent, -EAGAIN);
}

static void patience(void *unused) {
  (void)unused;
  char got[4];
  int fds[4];
  size_t n_fds = 4;
  bool lost;
  make();
  CHECK_EQUAL(ff_channel_patience(pair[1], 1), 0);
  CHECK_EQUAL(ff_channel_receive(pair[1], got, sizeof got, fds, &n_fds, &lost, true), -EAGAIN);
  struct timeval left;
  socklen_t size = sizeof left;
  CHECK_EQUAL(ff_channel_patience(pair[1], 0), 0);
  CHECK(getsockopt(pair[1], SOL_SOCKET, SO_RCVTIMEO, &left, &size) == 0 && left.tv_sec == 0 && left.tv_usec == 0);
  CHECK_EQUAL(ff_channel_patience(-1, 1), -EBADF);
}

static void awake(void *unused) {
  (void)unused;
  char got[64];
  int fds[4], status, ends[2];
  size_t n_fds = 4;
  bool lost;
  struct timespec before, after;
  make();
  clock_gettime(CLOCK_MONOTONIC, &before);
  CHECK_EQUAL(ff_channel_receive_awake(pair[1], got, sizeof got, fds, &n_fds, &lost, 2000000), -EAGAIN);
  clock_gettime(CLOCK_MONOTONIC, &after);
  CHECK((after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec >= 2000000);
  // What comes in the meantime, with its descriptor: each look in vain has told that none came.
  CHECK(pipe(ends) == 0);
  pid_t sender = fork();
  if (sender == 0) {
    usleep(2000);
    CHECK_EQUAL(ff_channel_send(pair[0], "abc", 3, NULL, 0, ends[1], false), 3);
    _exit(0);
  }
  n_fds = 4;
  CHECK_EQUAL(ff_channel_receive_awake(pair[1], got, sizeof got, fds, &n_fds, &lost, 60000000000), 3);
  CHECK(n_fds == 1 && memcmp(got, "abc", 3) == 0);
  CHECK(waitpid(sender, &status, 0) == sender && status == 0);
  close(pair[0]);
  CHECK_EQUAL(ff_channel_receive_awake(pair[1], got, sizeof got, fds, &n_fds, &lost, 1), 0);
}

int main(void) {
  in_child(awake, NULL);
  in_child(bytes, NULL);
  in_child(descriptors, NULL);
  in_child(full, NULL);
  in_child(patience, NULL);
  return 0;
}
