// SPDX-License-Identifier: Apache-2.0
//
// Counts against memory whose state is known, and holes that must be skipped.
#include <errno.h>
#include <string.h>

#include "check.h"
#include "os/counts.h"
#include "os/pagemap.h"

static const size_t PAGE = 4096;

// Counts that came out the same three times running: the kernel may move pages of ours (compaction), and a page on its
// way is for that moment not present.
static int settled_counts(struct ff_counts *out) {
  struct ff_counts last;
  int rc = ff_counts_take(0, &last);
  for (int same = 0, tries = 0; rc == 0 && same < 3 && tries < 1000; tries++) {
    rc = ff_counts_take(0, out);
    same = out->anonymous == last.anonymous && out->exclusive == last.exclusive ? same + 1 : 0;
    last = *out;
  }
  return rc;
}

#ifndef __SANITIZE_ADDRESS__  // which grows shadow pages of its own
// Whether writing to 1,000 untouched pages shows as exactly 1,000 anonymous and exclusive pages more.
static int counts_follow_writes(void) {
  enum { PAGES = 3000 };
  char *memory = anonymous(PAGES * PAGE);
  struct ff_counts before, after;
  CHECK_EQUAL(settled_counts(&before), 0);
  for (size_t i = 0; i < PAGES; i += 3) memory[i * PAGE] = 1;
  CHECK_EQUAL(settled_counts(&after), 0);
  munmap(memory, PAGES * PAGE);
  CHECK_EQUAL(after.present, after.anonymous + after.file);
  CHECK_EQUAL(after.present, after.exclusive + after.shared);
  CHECK(after.anonymous - before.anonymous >= PAGES / 3 - 64);  // never far off
  return after.anonymous - before.anonymous == PAGES / 3 && after.exclusive - before.exclusive == PAGES / 3;
}
#endif

static void shared_in_child(void *memory) {
  struct ff_counts before, after;
  CHECK_EQUAL(settled_counts(&before), 0);
  for (size_t i = 0; i < 100; i++) ((char *)memory)[i * PAGE] = 2;
  CHECK_EQUAL(settled_counts(&after), 0);
  CHECK_PAGES(after.exclusive - before.exclusive, 100);
  CHECK_PAGES(after.anonymous, before.anonymous);
}

// Every populated page of a sparse mapping is found, and the walk does not read all of its 64 GB.
static void holes_are_skipped(void) {
  const uint64_t bytes = UINT64_C(64) << 30;
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  const uint64_t at[] = {0, 513 * PAGE, UINT64_C(5) << 30, (UINT64_C(40) << 30) + 511 * PAGE, bytes - PAGE};
  for (size_t i = 0; i < sizeof at / sizeof *at; i++) memory[at[i]] = 1;

  struct ff_pagemap pagemap;
  static uint64_t entries[512];
  struct ff_run run;
  size_t found = 0, runs = 0;
  uint64_t covered = 0;
  CHECK_EQUAL(ff_pagemap_init(&pagemap, 0, true), 0);
  int rc;
  while ((rc = ff_pagemap_next(&pagemap, true, entries, 512, &run)) > 0) {
    if (pagemap.mapping.start > (uintptr_t)memory || pagemap.mapping.end < (uintptr_t)memory + bytes) continue;
    uint64_t end = run.start + run.pages * PAGE;
    covered += end - run.hole;
    runs++;
    for (size_t i = 0; i < run.pages; i++) found += entries[i] >> 63;
  }
  CHECK_EQUAL(rc, 0);
  CHECK_EQUAL(covered, bytes);
  CHECK_EQUAL(found, sizeof at / sizeof *at);
  if (pagemap.scan) CHECK(runs < 30);
  ff_pagemap_fini(&pagemap);
  munmap(memory, bytes);
}

static void huge_pages_are_counted(void) {
  const size_t bytes = 8 << 20;
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  struct ff_counts before, after;
  CHECK_EQUAL(settled_counts(&before), 0);
  char *aligned = (char *)(((uintptr_t)memory + (2 << 20) - 1) & ~(uintptr_t)((2 << 20) - 1));
  memset(aligned, 1, 4 << 20);
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
  if (madvise(aligned, 4 << 20, MADV_COLLAPSE) != 0) return;  // no memory in one piece, or an old kernel
  CHECK_EQUAL(settled_counts(&after), 0);
  if (before.huge >= 0) CHECK_PAGES(after.huge - before.huge, 1024);
  munmap(memory, bytes);
}

static void refusals_keep_their_errno(void) {
  struct ff_counts counts;
  CHECK_EQUAL(ff_counts_take(0x3fffffff, &counts), -ENOENT);
  if (getuid() != 0) CHECK_EQUAL(ff_counts_take(1, &counts), -EACCES);
}

int main(void) {
#ifndef __SANITIZE_ADDRESS__
  int exact = 0;
  for (int tries = 0; tries < 10 && !exact; tries++) exact = counts_follow_writes();
  CHECK(exact);
#endif
  char *memory = anonymous(200 * PAGE);
  memset(memory, 1, 200 * PAGE);
  in_child(shared_in_child, memory);
  holes_are_skipped();
  huge_pages_are_counted();
  refusals_keep_their_errno();
  return 0;
}
