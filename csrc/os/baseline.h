// SPDX-License-Identifier: Apache-2.0
//
// A memory of which anonymous pages a process had, and what became of them.

#ifndef FROSTFORK_OS_BASELINE_H
#define FROSTFORK_OS_BASELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "os/maps.h"
#include "os/pagemap.h"

// Caller-owned handle. The pages themselves are in `memory`, which is shared memory: it is not part of what it
// measures, and a child reads its parent's without copying it.
struct ff_baseline {
  struct ff_baseline_head *memory;
  size_t reserved;  // bytes of address space
};

// Facts about a baseline that was taken.
struct ff_baseline_info {
  pid_t owner;        // the process that was looked at
  int64_t anonymous;  // pages
  int64_t shared;     // of these, shared with another process when the baseline was taken
  bool frames;        // frame numbers were readable
  size_t bytes;       // memory that the baseline takes
};

// Pages of one kind of mapping. `copied` is meaningful only when frames were readable both times.
struct ff_change {
  int64_t unshared;  // shared at the baseline, exclusive now
  int64_t copied;    // of these, in another frame now
  int64_t fresh;     // anonymous now, absent at the baseline
  int64_t dropped;   // anonymous at the baseline, absent now
};

struct ff_comparison {
  struct ff_change by_kind[FF_KINDS];
  int64_t unmapped;  // anonymous pages of the baseline whose mapping is gone
  bool frames;       // copied is known
};

// Reserves address space enough for a baseline of the calling process, without touching it: called before the fork
// whose child will take the baseline. Returns 0 or a negative errno.
int ff_baseline_init(struct ff_baseline *baseline, pid_t pid);

// Records the state of now. pid 0 is the calling process. Returns 0 or a negative errno.
int ff_baseline_take(struct ff_baseline *baseline, pid_t pid);

void ff_baseline_info(const struct ff_baseline *baseline, struct ff_baseline_info *out);

// Compares the baseline's process, or the calling process when that is a child of it, with the baseline.
int ff_baseline_compare(const struct ff_baseline *baseline, struct ff_comparison *out);

// Called with the address of each unshared page, upwards; a negative errno ends the walk.
typedef int ff_baseline_each(void *argument, uint64_t address, enum ff_kind kind);

// Compares along a pagemap that the caller opened and closes. all_shared: every page of the baseline was shared,
// whatever it says. `each` may be NULL.
int ff_baseline_walk(const struct ff_baseline *baseline, struct ff_pagemap *pagemap, bool all_shared,
                     ff_baseline_each *each, void *argument, struct ff_comparison *out);

void ff_baseline_fini(struct ff_baseline *baseline);

#endif
