// SPDX-License-Identifier: Apache-2.0
//
// Growth of private memory, estimated from counters.
//
// What an import costs each child is the memory that it has alone: new anonymous pages, and copies of pages that it
// shared with its parent. That is Private_Dirty in smaps_rollup, which takes the kernel 10 ns a page, a millisecond in
// a child of 400 MB: too much at the two ends of 500 imports. Two cheap counters come near. statm says how many
// anonymous pages are present; what it grows by is new. A copied page was present before and after, so it shows only as
// a fault: the minor faults that neither new anonymous pages nor file pages explain are taken for copies. A fault on a
// file maps up to 16 pages around it (fault_around_bytes, mm/memory.c), of which 7 to 15 were counted in imports.
//
// Clean pages of files, such as the code of shared libraries, are left out. Whether smaps_rollup calls them private
// depends on whether any other process has the same library mapped at that moment, and however many have, the page
// cache holds them once.
//
// Sampled at short distances, since the differences are cut off at zero: each sample adds what happened since the last.
//
// What it cannot tell: memory that was taken and given back between two samples looks like copies, up to as many pages
// as the process had at the beginning. Kernels from 6.2 to 6.15 show counters that are up to 32 pages a CPU behind.
// What other threads do meanwhile counts, too.

#include "os/growth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_PAGES_A_FAULT = 8 };

static bool same_file(const struct ff_growth *growth) {
  struct stat now;
  return fstat(growth->fd, &now) == 0 && now.st_dev == growth->device && now.st_ino == growth->inode;
}

static int open_statm(struct ff_growth *growth) {
  struct stat file;
  growth->fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (growth->fd < 0) return -errno;
  if (fstat(growth->fd, &file) < 0) {
    int rc = -errno;
    close(growth->fd);
    growth->fd = -1;
    return rc;
  }
  growth->device = file.st_dev;
  growth->inode = file.st_ino;
  return 0;
}

// The next number at *at, which moves behind it; -1 where there is none.
static int64_t next_number(const char **at) {
  while (**at == ' ') (*at)++;
  if (**at < '0' || **at > '9') return -1;
  int64_t number = 0;
  for (; **at >= '0' && **at <= '9'; (*at)++) number = number * 10 + (**at - '0');
  return number;
}

static bool read_pages(struct ff_growth *growth, int64_t *anonymous, int64_t *file) {
  // Code of the user's may close all descriptors and open its own files under their numbers. Theirs is left alone.
  if (!same_file(growth) && open_statm(growth) < 0) return false;
  char text[160];
  ssize_t got = pread(growth->fd, text, sizeof text - 1, 0);
  if (got <= 0) return false;
  text[got] = '\0';
  const char *at = text;
  next_number(&at);  // the size of the address space
  int64_t resident = next_number(&at);
  *file = next_number(&at);
  *anonymous = resident > *file ? resident - *file : 0;
  return *file >= 0;
}

static int64_t count_faults(void) {
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) < 0 ? -1 : usage.ru_minflt;
}

int ff_growth_init(struct ff_growth *growth) {
  *growth = (struct ff_growth){.fd = -1, .page_size = sysconf(_SC_PAGESIZE), .faults = count_faults()};
  int rc = open_statm(growth);
  if (rc < 0) return rc;
  if (!read_pages(growth, &growth->anonymous, &growth->file)) {
    ff_growth_fini(growth);
    return -EIO;
  }
  growth->uncopied = growth->anonymous;
  return 0;
}

int64_t ff_growth_bytes(struct ff_growth *growth) {
  if (growth->fd < 0) return growth->pages * growth->page_size;
  int64_t anonymous, file, faults = count_faults();
  // Nothing grows without a fault. What was given back meanwhile is seen at the next one.
  if (faults != growth->faults && read_pages(growth, &anonymous, &file)) {
    int64_t new_anonymous = anonymous - growth->anonymous, new_file = file - growth->file;
    int64_t copied = faults - growth->faults - (new_anonymous > 0 ? new_anonymous : 0) -
                     (new_file > 0 ? (new_file + FILE_PAGES_A_FAULT - 1) / FILE_PAGES_A_FAULT : 0);
    if (copied < 0) copied = 0;  // one fault brought a huge page
    if (copied > growth->uncopied) copied = growth->uncopied;
    growth->uncopied -= copied;
    growth->pages += new_anonymous + copied;
    growth->anonymous = anonymous;
    growth->file = file;
    growth->faults = faults;
  }
  return growth->pages * growth->page_size;
}

void ff_growth_fini(struct ff_growth *growth) {
  if (growth->fd >= 0 && same_file(growth)) close(growth->fd);
  growth->fd = -1;
}
