// SPDX-License-Identifier: Apache-2.0
//
// One-time probe of the kernel.
//
// Each feature is tried on this very process rather than read off the version number: distributions backport, and
// containers and seccomp filters take away. Only EINVAL, ENOTTY and ENOSYS count as "this kernel cannot"; any other
// errno is a fault that the caller must hear of, for hiding it would turn a broken /proc into a slow path for ever.
//
// What it cannot tell: whether bit 56 of pagemap stays exact for large folios (CONFIG_NO_PAGE_MAPCOUNT makes it an
// estimate); the kernel shows that nowhere but in its configuration.

#include "os/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "os/kernel_abi.h"

bool ff_kernel_unsupported(int negative_errno) {
  return negative_errno == -EINVAL || negative_errno == -ENOTTY || negative_errno == -ENOSYS;
}

static int open_proc(const char *path) {
  int fd;
  do {
    fd = open(path, O_RDONLY | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  return fd < 0 ? -errno : fd;
}

// 1 supported, 0 not, else a negative errno.
static int try_scan(int pagemap) {
  struct ff_page_region region;
  struct ff_pm_scan_arg arg = {.size = sizeof arg, .vec = (uintptr_t)&region, .vec_len = 1};
  arg.category_mask = FF_PAGE_IS_PRESENT;
  arg.return_mask = FF_PAGE_IS_PRESENT;
  arg.start = (uintptr_t)&region & ~(uint64_t)(sysconf(_SC_PAGESIZE) - 1);
  arg.end = arg.start + (uint64_t)sysconf(_SC_PAGESIZE);
  if (ioctl(pagemap, FF_PAGEMAP_SCAN, &arg) >= 0) return 1;
  return ff_kernel_unsupported(-errno) ? 0 : -errno;
}

static int try_procmap_query(void) {
  int maps = open_proc("/proc/self/maps");
  if (maps < 0) return maps;
  struct ff_procmap_query query = {.size = sizeof query, .query_flags = FF_PROCMAP_COVERING_OR_NEXT};
  query.query_addr = (uintptr_t)&query;
  int rc = ioctl(maps, FF_PROCMAP_QUERY, &query) < 0 ? -errno : 1;
  close(maps);
  return ff_kernel_unsupported(rc) ? 0 : rc;
}

static bool try_collapse(void) {
  // An advice that is unknown fails with EINVAL before the length is looked at; a known one accepts length zero.
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return false;
  bool known = madvise(page, 0, FF_MADV_COLLAPSE) == 0;
  munmap(page, 4096);
  return known;
}

static bool try_memfd(void) {
  int fd = memfd_create("frostfork-probe", MFD_CLOEXEC);
  if (fd < 0) return false;
  close(fd);
  return true;
}

// The page of a local that was just written is present, so its frame number is zero only where the kernel hides it.
static bool frames_readable(int pagemap, uint64_t page_size) {
  volatile char here = 1;
  uint64_t entry = 0;
  off_t offset = (off_t)((uintptr_t)&here / page_size * sizeof entry);
  ssize_t got;
  do {
    got = pread(pagemap, &entry, sizeof entry, offset);
  } while (got < 0 && errno == EINTR);
  return got == (ssize_t)sizeof entry && (entry & FF_PM_PRESENT) && (entry & FF_PM_FRAME_MASK);
}

int ff_kernel_probe(struct ff_kernel *out) {
  static struct ff_kernel known;
  static bool done;
  int pagemap = open_proc("/proc/self/pagemap");
  if (!done) {
    struct ff_kernel found = {.page_size = (uint64_t)sysconf(_SC_PAGESIZE)};
    struct utsname name;
    if (uname(&name) == 0) sscanf(name.release, "%d.%d", &found.major, &found.minor);
    if (pagemap >= 0) {
      int rc = try_scan(pagemap);
      if (rc < 0) {
        close(pagemap);
        return rc;
      }
      found.pagemap_scan = rc;
    }
    // A process that may not open its own maps (PR_SET_DUMPABLE=0 as an ordinary user) can open nothing else there.
    int query = try_procmap_query();
    if (query < 0 && query != -EACCES && query != -EPERM && query != -ENOENT) {
      if (pagemap >= 0) close(pagemap);
      return query;
    }
    found.procmap_query = query > 0;
    found.madv_collapse = try_collapse();
    found.memfd = try_memfd();
    known = found;
    done = pagemap >= 0 && query >= 0;
  }
  *out = known;
  out->pagemap = pagemap < 0 ? pagemap : 0;
  out->frame_numbers = pagemap >= 0 && frames_readable(pagemap, known.page_size);
  if (pagemap >= 0) close(pagemap);
  return 0;
}

// The number of links of /proc/self/task is that of a directory, two, and one for each thread (fs/proc/base.c,
// proc_task_getattr). One stat takes a tenth of listing the directory, and half of reading /proc/self/stat.
int ff_kernel_threads(void) {
  struct stat task;
  if (stat("/proc/self/task", &task) < 0) return -errno;
  return task.st_nlink > 2 ? (int)task.st_nlink - 2 : -ENOTSUP;
}
