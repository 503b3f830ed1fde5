// SPDX-License-Identifier: Apache-2.0
//
// Page states along an address space.
//
// /proc/PID/pagemap holds eight bytes for every virtual page. Four of its bits answer all that a fork manager asks:
// is the page there (63), or swapped out (62); does it belong to a file or to shared memory (61); and does this
// process map it alone (56). A page that was shared with the parent at fork and is mapped alone now is one that the
// fork no longer saves. With CAP_SYS_ADMIN the low 55 bits also give the physical frame, which tells a copy (another
// frame) from a page whose other users merely went away (the same frame).
//
// Why not something that sounds better suited:
//   * smaps and smaps_rollup walk the same page tables at the same price, and give sums; a sum cannot be compared page
//     by page with an earlier one.
//   * soft-dirty bits (55) say what was written since they were cleared, but need CONFIG_MEM_SOFT_DIRTY, and clearing
//     them write-protects the whole process: the measurement would cause the faults that it counts.
//   * PAGEMAP_SCAN (Linux 6.7) returns ranges instead of entries, but knows no category for "mapped alone". It is used
//     here for the one thing it does better: to find the next populated page behind a hole. Reading a hole costs two
//     nanoseconds a page, so a reservation of 64 GB would take 30 ms; the scan skips it by whole page tables. Where
//     pages are dense it would only double the work, so it is asked after an empty run and never before.
//
// What it cannot see: pages of the kernel, of other processes, and large folios under CONFIG_NO_PAGE_MAPCOUNT, where
// bit 56 is set only when the whole folio is this process's own. Of a huge page that is mapped whole, bit 56 is that of
// its first page (seen on 6.18). A process that writes into a shared one maps it page by page from then on, and is
// exact; only what others did to it is blurred: a parent's write to the first page of one shows as 512 unshared pages.
// Frame numbers are exact throughout.
// Source: Documentation/admin-guide/mm/pagemap.rst and fs/proc/task_mmu.c of Linux 6.18.

#include "os/pagemap.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "os/kernel.h"

int ff_pagemap_init(struct ff_pagemap *pagemap, pid_t pid, bool by_kind) {
  pagemap->fd = ff_maps_open_proc(pid, "pagemap");
  if (pagemap->fd < 0) return pagemap->fd;
  int rc = ff_maps_init(&pagemap->maps, pid, by_kind);
  if (rc < 0) {
    close(pagemap->fd);
    pagemap->fd = -1;
    return rc;
  }
  pagemap->scan = true;
  pagemap->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
  pagemap->was_empty = false;
  pagemap->at = 0;
  pagemap->by_kind = by_kind;
  pagemap->have_next = false;
  pagemap->mapping = (struct ff_mapping){.kind = FF_KIND_SPECIAL};
  return 0;
}

void ff_pagemap_fini(struct ff_pagemap *pagemap) {
  if (pagemap->fd >= 0) close(pagemap->fd);
  pagemap->fd = -1;
  ff_maps_fini(&pagemap->maps);
}

// One PAGEMAP_SCAN for at most one range and one page. Returns the number of ranges, or a negative errno.
static int scan_one(struct ff_pagemap *pagemap, uint64_t start, uint64_t end, uint64_t anyof, uint64_t mask,
                    struct ff_page_region *found) {
  if (!pagemap->scan) return -ENOTTY;
  struct ff_pm_scan_arg arg = {.size = sizeof arg, .start = start, .end = end};
  arg.vec = (uintptr_t)found;
  arg.vec_len = 1;
  arg.max_pages = 1;
  arg.category_mask = mask;
  arg.category_anyof_mask = anyof;
  arg.return_mask = anyof | mask;
  int rc;
  do {
    rc = ioctl(pagemap->fd, FF_PAGEMAP_SCAN, &arg);
  } while (rc < 0 && errno == EINTR);
  if (rc >= 0) return rc;
  rc = -errno;
  if (ff_kernel_unsupported(rc)) {
    pagemap->scan = false;
    return -ENOTTY;
  }
  return rc;
}

int ff_pagemap_is_huge(struct ff_pagemap *pagemap, uint64_t address) {
  struct ff_page_region found;
  return scan_one(pagemap, address, address + pagemap->page_size, 0, FF_PAGE_IS_HUGE, &found);
}

// Moves pagemap->at over a hole: to the next populated page of the mapping, or to its end.
static int skip_hole(struct ff_pagemap *pagemap) {
  struct ff_page_region found;
  int rc = scan_one(pagemap, pagemap->at, pagemap->mapping.end, FF_PAGE_IS_PRESENT | FF_PAGE_IS_SWAPPED, 0, &found);
  if (rc == -ENOTTY) return 0;
  if (rc < 0) return rc;
  pagemap->at = rc == 0 ? pagemap->mapping.end : found.start;
  return 0;
}

// Whole entries only: the kernel returns a short count at the end of the address space, and a signal may cut a read.
static ssize_t read_entries(struct ff_pagemap *pagemap, uint64_t address, uint64_t *entries, size_t pages) {
  size_t have = 0, want = pages * sizeof *entries;
  off_t offset = (off_t)(address / pagemap->page_size * sizeof *entries);
  while (have < want) {
    ssize_t got = pread(pagemap->fd, (char *)entries + have, want - have, offset + (off_t)have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (got == 0) break;
    have += (size_t)got;
  }
  return (ssize_t)(have / sizeof *entries);
}

// The next mapping whose pages are wanted. The vsyscall page lies above every address that pagemap covers, and the vdso
// is the kernel's.
static int next_wanted(struct ff_pagemap *pagemap, bool private_only, struct ff_mapping *out) {
  int rc;
  do {
    rc = ff_maps_next(&pagemap->maps, out);
  } while (rc > 0 && (out->kind == FF_KIND_SPECIAL || (private_only && out->kind == FF_KIND_SHARED)));
  return rc;
}

static int next_mapping(struct ff_pagemap *pagemap, bool private_only) {
  int rc = 1;
  if (pagemap->have_next)
    pagemap->mapping = pagemap->next;
  else
    rc = next_wanted(pagemap, private_only, &pagemap->mapping);
  pagemap->have_next = false;
  if (rc <= 0) return rc;
  while (!pagemap->by_kind && !pagemap->have_next) {
    rc = next_wanted(pagemap, private_only, &pagemap->next);
    if (rc < 0) return rc;
    if (rc == 0) break;
    if (pagemap->next.start == pagemap->mapping.end)
      pagemap->mapping.end = pagemap->next.end;
    else
      pagemap->have_next = true;
  }
  pagemap->at = pagemap->mapping.start;
  pagemap->was_empty = false;
  return 1;
}

int ff_pagemap_next(struct ff_pagemap *pagemap, bool private_only, uint64_t *entries, size_t capacity,
                    struct ff_run *run) {
  if (pagemap->at >= pagemap->mapping.end) {
    int rc = next_mapping(pagemap, private_only);
    if (rc <= 0) return rc;
  }
  run->kind = pagemap->mapping.kind;
  run->writable = pagemap->mapping.writable;
  run->hole = pagemap->at;
  if (pagemap->was_empty) {
    int rc = skip_hole(pagemap);
    if (rc < 0) return rc;
  }
  run->start = pagemap->at;
  run->pages = 0;
  if (pagemap->at >= pagemap->mapping.end) return 1;

  uint64_t window = capacity * pagemap->page_size;
  uint64_t end = (pagemap->at & ~(window - 1)) + window;
  if (end > pagemap->mapping.end) end = pagemap->mapping.end;
  size_t pages = (size_t)((end - pagemap->at) / pagemap->page_size);
  ssize_t got = read_entries(pagemap, pagemap->at, entries, pages);
  if (got < 0) return (int)got;
  // A process that is just going away reads as the end of the file: its pages are absent, not unknown.
  if ((size_t)got < pages) memset(entries + got, 0, (pages - (size_t)got) * sizeof *entries);

  uint64_t any = 0;
  for (size_t i = 0; i < pages; i++) any |= entries[i];
  pagemap->was_empty = (any & (FF_PM_PRESENT | FF_PM_SWAPPED)) == 0;
  run->pages = pages;
  pagemap->at = end;
  return 1;
}
