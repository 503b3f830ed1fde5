// SPDX-License-Identifier: Apache-2.0
//
// Ranges of known content: which are collapsed, and that the counters stay exact when a huge page is shared and
// written.
#include <errno.h>
#include <string.h>

#include "check.h"
#include "os/baseline.h"
#include "os/counts.h"
#include "os/huge.h"
#include "os/kernel.h"
#include "os/pagemap.h"

static const size_t PAGE = 4096;
enum { RANGE_PAGES = 512 };
#define RANGE ((size_t)RANGE_PAGES * PAGE)
enum { FULL, FULL_TOO, NEARLY, HALF, READ_ONLY, UNTOUCHED, RANGES };

static char *memory;
static struct ff_baseline baseline;
static struct ff_comparison report;
static int down[2], up[2];

static void tell(int *way) { CHECK(write(way[1], "", 1) == 1); }

static void hear(int *way) {
  char byte;
  CHECK(read(way[0], &byte, 1) == 1);
}

// Populated with small pages, whatever the setting of the machine: a range that has one keeps getting small ones.
// Advice would do the same, but its opposite, which would have to follow, lets khugepaged in at any moment.
static void populate(void) {
  char *all = mmap(NULL, (RANGES + 1) * RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(all != MAP_FAILED);
  memory = (char *)(((uintptr_t)all + RANGE - 1) & ~(uintptr_t)(RANGE - 1));
  static const int pages[RANGES] = {RANGE_PAGES, RANGE_PAGES, 470, 256, RANGE_PAGES, 0};
  for (int range = 0; range < UNTOUCHED; range++) {
    CHECK(mprotect(memory + range * RANGE, PAGE, PROT_READ | PROT_WRITE) == 0);
    memory[range * RANGE] = 1;
  }
  CHECK(mprotect(memory, RANGES * RANGE, PROT_READ | PROT_WRITE) == 0);
  for (int range = 0; range < RANGES; range++)
    for (int i = 0; i < pages[range]; i++) memset(memory + range * RANGE + i * PAGE, range * 31 + i % 7 + 1, PAGE);
  CHECK(mprotect(memory + READ_ONLY * RANGE, RANGE, PROT_READ) == 0);
}

static bool intact(int range, int pages) {
  for (int i = 0; i < pages; i++)
    for (size_t at = 0; at < PAGE; at += 512)
      if (memory[range * RANGE + i * PAGE + at] != (char)(range * 31 + i % 7 + 1)) return false;
  return true;
}

static bool is_huge(int range) {
  struct ff_pagemap pagemap;
  CHECK_EQUAL(ff_pagemap_init(&pagemap, 0, false), 0);
  int rc = ff_pagemap_is_huge(&pagemap, (uintptr_t)memory + range * RANGE);
  ff_pagemap_fini(&pagemap);
  CHECK(rc >= 0);
  return rc > 0;
}

static struct ff_change change(void) {
  CHECK_EQUAL(ff_baseline_compare(&baseline, &report), 0);
  return report.by_kind[FF_KIND_ANONYMOUS];
}

// A child writes ten pages of a huge page that it shares: it has ten pages more of its own, not 512.
static void write_ten(void *unused) {
  (void)unused;
  struct ff_counts counts, later;
  memset(&report, 0, sizeof report);
  CHECK_EQUAL(ff_baseline_take(&baseline, 0), 0);
  CHECK(is_huge(FULL));
  struct ff_change before = change();
  CHECK_EQUAL(ff_counts_take(0, &counts), 0);
  CHECK_EQUAL(ff_counts_take(0, &counts), 0);
  for (int i = 0; i < 10; i++) memory[FULL * RANGE + i * 50 * PAGE] = 1;
  CHECK_EQUAL(ff_counts_take(0, &later), 0);
  struct ff_change after = change();
  CHECK_PAGES(after.unshared - before.unshared, 10);
  if (report.frames) CHECK_PAGES(after.copied - before.copied, 10);
  CHECK_PAGES(after.fresh, before.fresh);
  CHECK_PAGES(after.dropped, before.dropped);
  CHECK_PAGES(later.exclusive - counts.exclusive, 10);
  CHECK_PAGES(later.present, counts.present);
  CHECK(!is_huge(FULL));
  CHECK(is_huge(FULL_TOO));

  madvise(memory + FULL * RANGE + 400 * PAGE, 100 * PAGE, MADV_DONTNEED);  // one of the ten was there
  after = change();
  CHECK_PAGES(after.dropped - before.dropped, 100);
  CHECK_PAGES(after.unshared - before.unshared, 8);
}

// While a child lives that shares the range, the parent writes five pages. The child has copied nothing; how many pages
// turned exclusive in it is not asked, since pagemap's bit 56 is that of the first page throughout a huge page that is
// mapped whole. And the parent does not collapse the range again, which would copy it away from the child.
static void parent_writes(void) {
  pid_t pid = fork_bound();
  if (pid == 0) {
    memset(&report, 0, sizeof report);
    CHECK_EQUAL(ff_baseline_take(&baseline, 0), 0);
    struct ff_change before = change();
    tell(up);
    hear(down);
    struct ff_change after = change();
    CHECK(is_huge(FULL));
    if (report.frames) CHECK_PAGES(after.copied - before.copied, 0);
    _exit(0);
  }
  hear(up);
  for (int i = 0; i < 5; i++) memory[FULL * RANGE + i * PAGE] = (char)(FULL * 31 + i % 7 + 1);
  CHECK(!is_huge(FULL));
  struct ff_huge found;
  struct ff_huge_made made;
  CHECK_EQUAL(ff_huge_collapse(90, 1, &found, &made), 0);
  CHECK(found.shared >= 1);
  CHECK(!is_huge(FULL));
  tell(down);
  int status;
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
  struct ff_kernel kernel;
  CHECK_EQUAL(ff_kernel_probe(&kernel), 0);
  if (!kernel.madv_collapse || !kernel.pagemap_scan || ff_huge_size() != (int64_t)RANGE) {
    printf("skipped: this kernel has no MADV_COLLAPSE, or none of 2 MB, or no PAGEMAP_SCAN to see it\n");
    return 0;
  }
  CHECK(pipe(down) == 0 && pipe(up) == 0);
  populate();
  struct ff_huge found, again;
  struct ff_huge_made made;

  CHECK_EQUAL(ff_huge_collapse(90, 1 << 20, &found, &made), 0);
  CHECK(found.ranges >= 3 && found.sparse >= 1);
  CHECK_EQUAL(made.collapsed, 0);
  CHECK(!is_huge(FULL));

  CHECK_EQUAL(ff_huge_collapse(90, 1, &found, &made), 0);
  if (made.first_error == ENOMEM || made.first_error == EAGAIN) {
    printf("skipped: this machine has no huge page left\n");
    return 0;
  }
  CHECK_EQUAL(made.collapsed, found.ranges);
  CHECK_EQUAL(made.failed, 0);
  CHECK_PAGES(made.added, RANGE_PAGES - 470);
  CHECK(is_huge(FULL) && is_huge(FULL_TOO) && is_huge(NEARLY));
  CHECK(!is_huge(HALF) && !is_huge(READ_ONLY) && !is_huge(UNTOUCHED));
  CHECK(intact(FULL, RANGE_PAGES) && intact(FULL_TOO, RANGE_PAGES) && intact(NEARLY, 470) && intact(HALF, 256));

  CHECK_EQUAL(ff_huge_collapse(90, 1, &again, &made), 0);
  CHECK(again.already >= found.ranges + found.already);
  CHECK_PAGES(made.added, 0);

  CHECK_EQUAL(ff_baseline_init(&baseline, 0), 0);
  in_child(write_ten, NULL);
  CHECK(intact(FULL, RANGE_PAGES));
  CHECK(is_huge(FULL));
  parent_writes();
  CHECK_EQUAL(ff_huge_collapse(90, 1, &found, &made), 0);
  CHECK(is_huge(FULL));  // the child is gone
  CHECK(intact(FULL, RANGE_PAGES));
  ff_baseline_fini(&baseline);

  // What the kernel refuses is counted, with its reason.
  madvise(memory + FULL_TOO * RANGE, 3 * PAGE, MADV_DONTNEED);
  madvise(memory + FULL_TOO * RANGE, RANGE, MADV_NOHUGEPAGE);
  CHECK_EQUAL(ff_huge_collapse(90, 1, &found, &made), 0);
  CHECK_EQUAL(made.failed, 1);
  CHECK_EQUAL(made.first_error, EINVAL);
  return 0;
}
