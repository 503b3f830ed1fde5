// SPDX-License-Identifier: Apache-2.0
//
// Collapsing small pages into huge ones before a fork.
//
// fork copies one page table entry for each page. A huge page has one entry for 512 pages, so the fork of a large
// parent takes a fraction of the time, and parent and child find their memory through fewer tables. A child that writes
// into a shared huge page copies 4 KB of it, as before: the kernel splits the entry, not the page
// (mm/huge_memory.c, do_huge_pmd_wp_page).
//
// MADV_COLLAPSE (Linux 6.1) does it at once and synchronously; MADV_HUGEPAGE would leave it to khugepaged, minutes
// later, and would also change what later page faults of the mapping do. Collapsing copies the range into a new huge
// page, so it is done only for ranges
//   * of which nearly all pages are present: absent ones become present, and resident memory grows by them;
//   * of which this process is the only user: a range that children share would be copied away from them;
//   * that are not huge already, so that a second run costs in proportion to what is new.
//
// What it cannot do: before Linux 6.7 nobody says which pages are huge already; those ranges are then asked for again,
// which the kernel answers at once, and count as collapsed.
// Source: madvise(2), mm/khugepaged.c of Linux 6.18 (madvise_collapse, hpage_collapse_scan_pmd).

#include "os/huge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/kernel_abi.h"
#include "os/pagemap.h"

enum { MOST_PAGES = 512 };  // entries in one huge page of x86-64, and of arm64 with pages of 4 KB

int64_t ff_huge_size(void) {
  int fd;
  do {
    fd = open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", O_RDONLY | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return -errno;
  char text[32];
  ssize_t got;
  do {
    got = read(fd, text, sizeof text - 1);
  } while (got < 0 && errno == EINTR);
  int64_t rc = got < 0 ? -errno : 0;
  close(fd);
  if (rc < 0) return rc;
  text[got] = '\0';
  long long bytes = strtoll(text, NULL, 10);
  return bytes > 0 ? bytes : -ENOTSUP;
}

enum verdict { NOTHING, ALREADY, FULL, SHARED, SPARSE };

struct range {
  enum verdict verdict;
  size_t present;
};

// A range without an exclusive flag on each present page has a page that another process maps: a live child, mostly.
static int judge(struct ff_pagemap *pagemap, const uint64_t *entries, const struct ff_run *run, int share,
                 struct range *out) {
  size_t present = 0, shared = 0, other = 0;
  for (size_t i = 0; i < run->pages; i++) {
    bool here = entries[i] & FF_PM_PRESENT;
    present += here;
    shared += here && !(entries[i] & FF_PM_EXCLUSIVE);
    other += (here && (entries[i] & FF_PM_FILE)) || (entries[i] & FF_PM_SWAPPED);
  }
  *out = (struct range){NOTHING, present};
  if (present == 0) return 0;
  out->verdict = SPARSE;
  // Swapped pages are left out there: collapsing would read them back. No file pages are expected in these mappings.
  if (other > 0 || present * 100 < (size_t)share * run->pages) return 0;
  if (present == run->pages) {
    int rc = ff_pagemap_is_huge(pagemap, run->start);
    if (rc < 0 && rc != -ENOTTY) return rc;
    if (rc > 0) {
      out->verdict = ALREADY;
      return 0;
    }
  }
  out->verdict = shared > 0 ? SHARED : FULL;
  return 0;
}

static void collapse(const struct ff_run *run, size_t present, struct ff_huge_made *made) {
  int rc, tries = 0;
  do {
    rc = madvise((void *)run->start, run->pages * (size_t)sysconf(_SC_PAGESIZE), FF_MADV_COLLAPSE);
    // EAGAIN: a page was busy for a moment, or on a list that only this call's second attempt has drained.
  } while (rc < 0 && (errno == EINTR || errno == EAGAIN) && ++tries < 3);
  if (rc < 0) {
    if (made->failed++ == 0) made->first_error = errno;
    return;
  }
  made->collapsed++;
  made->added += (int64_t)(run->pages - present);
}

// One walk over all ranges; with `made` it collapses what it finds.
static int walk(int share, size_t range_pages, struct ff_huge *found, struct ff_huge_made *made) {
  struct ff_pagemap pagemap;
  uint64_t entries[MOST_PAGES];
  int rc = ff_pagemap_init(&pagemap, 0, true);
  if (rc < 0) return rc;
  memset(found, 0, sizeof *found);
  struct ff_run run;
  while ((rc = ff_pagemap_next(&pagemap, true, entries, range_pages, &run)) > 0) {
    if (run.kind != FF_KIND_HEAP && run.kind != FF_KIND_ANONYMOUS) continue;
    if (!run.writable || run.pages < range_pages) continue;
    struct range range;
    if ((rc = judge(&pagemap, entries, &run, share, &range)) < 0) break;
    found->already += range.verdict == ALREADY;
    found->shared += range.verdict == SHARED;
    found->sparse += range.verdict == SPARSE;
    found->ranges += range.verdict == FULL;
    if (made != NULL && range.verdict == FULL) collapse(&run, range.present, made);
  }
  ff_pagemap_fini(&pagemap);
  return rc;
}

int ff_huge_collapse(int share, int64_t fewest, struct ff_huge *found, struct ff_huge_made *made) {
  memset(made, 0, sizeof *made);
  int64_t size = ff_huge_size();
  if (size < 0) return (int)size;
  size_t pages = (size_t)(size / sysconf(_SC_PAGESIZE));
  if (pages > MOST_PAGES) return -ENOTSUP;
  int rc = walk(share, pages, found, NULL);
  if (rc < 0 || found->ranges == 0 || found->ranges + found->already < fewest) return rc;
  struct ff_huge now;
  return walk(share, pages, &now, made);
}
