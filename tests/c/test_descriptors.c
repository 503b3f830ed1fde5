// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "check.h"
#include "os/descriptors.h"

static void released(void *unused) {
  (void)unused;
  int pair[2], ends[2];
  char byte;
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  CHECK(pipe(ends) == 0);
  int random = open("/dev/urandom", O_RDONLY);
  int high = fcntl(ends[0], F_DUPFD, 900);
  int closed = dup(0);
  int kept[] = {high, ends[0], pair[1]}, gone[] = {closed};
  CHECK_EQUAL(ff_descriptors_release(kept, 3, gone, 1), 0);
  CHECK(read(pair[1], &byte, 1) == 0);  // nobody has the other end any more
  CHECK(read(high, &byte, 1) == 0);
  CHECK(write(ends[1], "x", 1) < 0 && errno == EBADF);
  CHECK(recv(pair[0], &byte, 1, 0) < 0 && errno == EBADF);
  CHECK(read(random, &byte, 1) == 1);
  CHECK(fcntl(closed, F_GETFD) < 0 && errno == EBADF);
  CHECK(fcntl(pair[0], F_GETFD) == FD_CLOEXEC);
  CHECK(close(pair[0]) == 0);
  CHECK(fcntl(0, F_GETFD) >= 0 && fcntl(2, F_GETFD) >= 0);
}

// More than fit into one reading of the list.
static void many(void *unused) {
  (void)unused;
  int ends[2], count = 0;
  char byte;
  CHECK(pipe(ends) == 0);
  while (count < 500 && dup(ends[1]) >= 0) count++;
  CHECK(count > 100);
  CHECK_EQUAL(ff_descriptors_release(ends, 1, NULL, 0), 0);
  CHECK(read(ends[0], &byte, 1) == 0);
}

// The limit may be lowered below what is open.
static void beyond_the_limit(void *unused) {
  (void)unused;
  int ends[2];
  char byte;
  CHECK(pipe(ends) == 0);
  int high = fcntl(ends[1], F_DUPFD, 900);
  close(ends[1]);
  struct rlimit low = {64, 64};
  CHECK(high >= 900 && setrlimit(RLIMIT_NOFILE, &low) == 0);
  CHECK_EQUAL(ff_descriptors_release(ends, 1, NULL, 0), 0);
  CHECK(read(ends[0], &byte, 1) == 0);
}

// libffi's own file stays open; a file that is open for writing, or of no loaded library, does not.
static void of_a_library(void *unused) {
  (void)unused;
  Dl_info info;
  char byte;
  CHECK(dladdr((void *)setrlimit, &info) != 0);
  int library = open(info.dli_fname, O_RDONLY), other = open("/proc/self/exe", O_RDONLY), path = open("/", O_PATH);
  CHECK(library >= 0 && other >= 0);
  CHECK(ff_descriptors_of_library(library));
  CHECK(!ff_descriptors_of_library(other) && !ff_descriptors_of_library(path) && !ff_descriptors_of_library(999));
  CHECK_EQUAL(ff_descriptors_release(NULL, 0, NULL, 0), 0);
  CHECK(read(library, &byte, 1) == 1);
  CHECK(read(other, &byte, 1) < 0 && errno == EBADF);
}

int main(void) {
  in_child(released, NULL);
  in_child(many, NULL);
  in_child(beyond_the_limit, NULL);
  in_child(of_a_library, NULL);
  return 0;
}
