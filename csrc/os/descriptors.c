// SPDX-License-Identifier: Apache-2.0
//
// Open files that a fork gave to a process that has no use for them.
//
// Closed for good, a number would soon be another file's, and some object that was inherited with the old one would
// close or write that. So it stays taken: by an O_PATH descriptor, which fstat and close take and everything else
// refuses with EBADF. /dev/null, which canaries use, would lose what is written to it without a word.
//
// Devices without a state, such as /dev/urandom, are left as they are. So is a library's own file that it has open for
// reading: libffi (3.4 and newer, where it is built so) maps its trampolines from there, and without it ctypes and cffi
// can make no callback once those are used up that there are: MemoryError. Source: tramp.c of libffi.
//
// In C, since in Python it was half of what a worker costs: each os.fstat makes an object of 20 others. The list is
// read with getdents64 into the stack: opendir would allocate. Source: open(2), getdents64(2), the kernel's
// devices.txt.
//
// What it cannot do: see descriptors without /proc, or those of other threads that begin meanwhile.

#include "os/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct entry {  // linux_dirent64
  uint64_t inode;
  int64_t offset;
  unsigned short length;
  unsigned char type;
  char name[];
};

static int by_value(const void *left, const void *right) {
  int a = *(const int *)left, b = *(const int *)right;
  return (a > b) - (a < b);
}

static bool contains(const int *sorted, size_t count, int fd) {
  return count != 0 && bsearch(&fd, sorted, count, sizeof fd, by_value) != NULL;
}

// /dev/null, zero, full, random, urandom.
static bool is_harmless(const struct stat *status) {
  if (!S_ISCHR(status->st_mode) || major(status->st_rdev) != 1) return false;
  unsigned which = minor(status->st_rdev);
  return which == 3 || which == 5 || (which >= 7 && which <= 9);
}

// The length of a path's last part up to where a library's version begins; 0 if it is no library's.
static size_t stem(const char *path, const char **last) {
  const char *slash = strrchr(path, '/');
  *last = slash != NULL ? slash + 1 : path;
  const char *end = strstr(*last, ".so");
  return end != NULL ? (size_t)(end - *last) : 0;
}

struct library {
  const char *name;
  size_t length;
};

// By its name: the paths differ by links, and the file may have been replaced by a newer one.
static int is_library(struct dl_phdr_info *info, size_t size, void *argument) {
  (void)size;
  const struct library *wanted = argument;
  const char *name;
  return info->dlpi_name != NULL && stem(info->dlpi_name, &name) == wanted->length &&
         memcmp(name, wanted->name, wanted->length) == 0;
}

bool ff_descriptors_of_library(int fd) {
  char path[32], target[4096];
  struct stat status;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & (O_ACCMODE | O_PATH)) != O_RDONLY) return false;
  if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) return false;
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(path, target, sizeof target - 1);
  if (length <= 0) return false;
  target[length] = '\0';
  struct library wanted;
  wanted.length = stem(target, &wanted.name);
  return wanted.length != 0 && dl_iterate_phdr(is_library, &wanted) != 0;
}

static int release(int fd, int nothing, bool close_it) {
  struct stat status;
  if (close_it) return close(fd) < 0 && errno != EINTR ? -errno : 0;
  if (fstat(fd, &status) < 0) return errno == EBADF ? 0 : -errno;
  if (is_harmless(&status) || (S_ISREG(status.st_mode) && ff_descriptors_of_library(fd))) return 0;
  while (dup3(nothing, fd, O_CLOEXEC) < 0) {
    // Beyond the limit, which was lowered since: nothing else can get this number.
    if (errno == EBADF) return close(fd) < 0 && errno != EINTR ? -errno : 0;
    if (errno != EINTR && errno != EBUSY) return -errno;
  }
  return 0;
}

int ff_descriptors_release(int *kept, size_t kept_count, int *closed, size_t closed_count) {
  _Alignas(struct entry) char buffer[4096];
  int result = 0;
  if (kept_count != 0) qsort(kept, kept_count, sizeof *kept, by_value);
  if (closed_count != 0) qsort(closed, closed_count, sizeof *closed, by_value);
  int nothing = open("/dev/null", O_PATH | O_CLOEXEC);
  if (nothing < 0) return -errno;
  int list = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (list < 0) {
    result = -errno;
    close(nothing);
    return result;
  }
  for (;;) {
    long bytes = syscall(SYS_getdents64, list, buffer, sizeof buffer);
    if (bytes < 0) result = -errno;
    if (bytes <= 0) break;
    for (long at = 0; at < bytes;) {
      const struct entry *each = (const struct entry *)(buffer + at);
      at += each->length;
      if (each->name[0] == '.') continue;
      int fd = atoi(each->name);
      if (fd <= 2 || fd == nothing || fd == list || contains(kept, kept_count, fd)) continue;
      int rc = release(fd, nothing, contains(closed, closed_count, fd));
      if (rc < 0 && result == 0) result = rc;
    }
  }
  close(list);
  close(nothing);
  return result;
}
