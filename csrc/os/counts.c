// SPDX-License-Identifier: Apache-2.0
//
// Page counts of a process.
//
// The sums of smaps_rollup, and three that it does not give: exclusive and shared as the page table sees them at this
// moment, and huge pages of every kind. The loop over the entries has no branch, so that the compiler can make vector
// code of it: the price of a count is that of reading pagemap.

#include "os/counts.h"

#include <errno.h>

#include "os/pagemap.h"

enum { CHUNK = 2048 };  // entries a read: 16 KB of stack, where larger ones gained nothing

static void add_entries(const uint64_t *entries, size_t pages, struct ff_counts *sum) {
  uint64_t present = 0, swapped = 0, file = 0, exclusive = 0;
  for (size_t i = 0; i < pages; i++) {
    uint64_t entry = entries[i], here = entry >> 63;
    present += here;
    swapped += entry >> 62 & 1;
    file += here & entry >> 61;
    exclusive += here & entry >> 56;
  }
  sum->present += (int64_t)present;
  sum->swapped += (int64_t)swapped;
  sum->file += (int64_t)file;
  sum->exclusive += (int64_t)exclusive;
}

// pagemap has no bit for huge pages and PAGEMAP_SCAN has, but scanning all would double the price of the count. A page
// table entry maps 2 MB whole or not at all: one page of each stretch that can be huge is asked about.
static int add_huge(struct ff_pagemap *pagemap, const uint64_t *entries, const struct ff_run *run,
                    struct ff_counts *sum) {
  const uint64_t stretch = (UINT64_C(2) << 20) / pagemap->page_size;
  uint64_t first = (stretch - run->start / pagemap->page_size % stretch) % stretch;
  for (uint64_t i = first; i + stretch <= run->pages; i += stretch) {
    // All present is the necessary condition, tested at both ends and in the middle before the system call.
    if (!(entries[i] & entries[i + stretch / 2] & entries[i + stretch - 1] & FF_PM_PRESENT)) continue;
    // A huge page's frames are aligned as its addresses are; a frame of zero is one that this user may not see.
    if ((entries[i] & FF_PM_FRAME_MASK) % stretch != 0) continue;
    int rc = ff_pagemap_is_huge(pagemap, run->start + i * pagemap->page_size);
    if (rc == -ENOTTY) {
      sum->huge = -1;
      return 0;
    }
    if (rc < 0) return rc;
    if (rc > 0) sum->huge += (int64_t)stretch;
  }
  return 0;
}

int ff_counts_take(pid_t pid, struct ff_counts *out) {
  struct ff_pagemap pagemap;
  int rc = ff_pagemap_init(&pagemap, pid, false);
  if (rc < 0) return rc;
  uint64_t entries[CHUNK];
  struct ff_run run;
  struct ff_counts sum = {0};
  if (ff_pagemap_is_huge(&pagemap, 0) == -ENOTTY) sum.huge = -1;
  while ((rc = ff_pagemap_next(&pagemap, false, entries, CHUNK, &run)) > 0) {
    add_entries(entries, run.pages, &sum);
    if (sum.huge >= 0 && (rc = add_huge(&pagemap, entries, &run, &sum)) < 0) break;
  }
  ff_pagemap_fini(&pagemap);
  if (rc < 0) return rc;
  sum.anonymous = sum.present - sum.file;
  sum.shared = sum.present - sum.exclusive;
  *out = sum;
  return 0;
}
