// SPDX-License-Identifier: Apache-2.0
//
// Huge pages under memory that is there already.

#ifndef FROSTFORK_OS_HUGE_H
#define FROSTFORK_OS_HUGE_H

#include <stdbool.h>
#include <stdint.h>

// Aligned ranges of one huge page (2 MB on x86-64) that lie whole in one private writable mapping without a file; those
// without a single present page are not counted.
struct ff_huge {
  int64_t ranges;   // full enough, and this process's own: to be collapsed
  int64_t already;  // huge
  int64_t shared;   // full enough, but with a page that another process maps too
  int64_t sparse;   // too few pages present
};

struct ff_huge_made {
  int64_t collapsed;  // ranges
  int64_t failed;     // ranges that the kernel refused
  int64_t added;      // pages that were absent in the collapsed ranges: the growth of resident memory
  int first_error;    // errno of the first refusal, else 0
};

// Bytes of a huge page, or a negative errno where the kernel has none.
int64_t ff_huge_size(void);

// Looks at the calling process and collapses the ranges of which at least `share` percent of the pages are present,
// provided that together with those that are huge already there are at least `fewest`. Returns 0, or a negative errno
// for a walk that failed; what the kernel refuses for one range is counted.
int ff_huge_collapse(int share, int64_t fewest, struct ff_huge *found, struct ff_huge_made *made);

#endif
