// SPDX-License-Identifier: Apache-2.0
//
// The state of every page of a process, read from /proc/PID/pagemap along its mappings.

#ifndef FROSTFORK_OS_PAGEMAP_H
#define FROSTFORK_OS_PAGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "os/kernel_abi.h"
#include "os/maps.h"

// Caller-owned; about 4.2 KB, nearly all of it the text buffer of the maps.
struct ff_pagemap {
  int fd;
  bool scan;  // PAGEMAP_SCAN answers; cleared for good when it says that it is unknown
  uint64_t page_size;
  bool was_empty;  // the last run had no populated page: look for the next one before reading on
  uint64_t at;     // first address not yet read
  bool by_kind;    // else neighbouring mappings are read as one
  bool have_next;  // `next` was looked at, and is no neighbour
  struct ff_mapping mapping, next;
  struct ff_maps maps;
};

// A stretch of neighbouring pages of one mapping. Pages from `hole` up to `start` are known to be absent and have no
// entry; `pages` may be 0 when a mapping ends in such a hole.
struct ff_run {
  enum ff_kind kind;
  bool writable;
  uint64_t hole;
  uint64_t start;
  size_t pages;
};

// pid 0 is the calling process. Returns 0 or a negative errno; EACCES and EPERM are the kernel's refusal to show this
// process to this user (another uid, PR_SET_DUMPABLE=0). Unless by_kind is set, the kinds of the runs, and whether they
// are writable, mean nothing and mappings that touch are read together: a shared library alone is four or five of them.
int ff_pagemap_init(struct ff_pagemap *pagemap, pid_t pid, bool by_kind);

// Reads the next run into entries[0..capacity), ending it where the address is a multiple of capacity pages, so that
// runs of equal capacity fall into equal windows; capacity is a power of two. Shared and special mappings are passed
// over when private_only is set. Returns 1, 0 at the end, or a negative errno.
int ff_pagemap_next(struct ff_pagemap *pagemap, bool private_only, uint64_t *entries, size_t capacity,
                    struct ff_run *run);

// Whether the page at this address is part of a huge page of the page table; 1, 0, or a negative errno (-ENOTTY where
// the kernel cannot tell).
int ff_pagemap_is_huge(struct ff_pagemap *pagemap, uint64_t address);

void ff_pagemap_fini(struct ff_pagemap *pagemap);

#endif
