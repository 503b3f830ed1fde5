// SPDX-License-Identifier: Apache-2.0
//
// Baselines against ground truth: a child writes, adds and drops known pages, and the report is exact to the page.
#include <errno.h>
#include <string.h>

#include "check.h"
#include "os/baseline.h"
#include "os/kernel.h"

static const size_t PAGE = 4096;
enum { PAGES = 5000 };

struct scene {
  struct ff_baseline baseline;
  char *memory;  // PAGES pages, all written by the parent but for the last 1,000
  bool inherit;  // compare with the parent's own baseline
};

static struct ff_comparison since;  // touched before the baseline, so that it is not what is counted

// A comparison that came out the same three times running: a page that the kernel just moves elsewhere (compaction) is
// for that moment not present.
static struct ff_change change(struct scene *scene) {
  struct ff_comparison last;
  CHECK_EQUAL(ff_baseline_compare(&scene->baseline, &last), 0);
  for (int same = 0, tries = 0; same < 3 && tries < 1000; tries++) {
    CHECK_EQUAL(ff_baseline_compare(&scene->baseline, &since), 0);
    same = memcmp(&since, &last, sizeof last) == 0 ? same + 1 : 0;
    last = since;
  }
  return since.by_kind[FF_KIND_ANONYMOUS];
}

static void exact(void *argument) {
  struct scene *scene = argument;
  struct ff_kernel kernel;
  CHECK_EQUAL(ff_kernel_probe(&kernel), 0);
  memset(&since, 0, sizeof since);
  if (!scene->inherit) CHECK_EQUAL(ff_baseline_take(&scene->baseline, 0), 0);
  struct ff_change before = change(scene);

  for (size_t i = 0; i < 4000; i += 4) scene->memory[i * PAGE]++;    // 1,000 copies
  for (size_t i = 4000; i < 4321; i++) scene->memory[i * PAGE] = 1;  // 321 new pages
  madvise(scene->memory + 3901 * PAGE, 99 * PAGE, MADV_DONTNEED);    // of which 24 were just copied
  struct ff_change after = change(scene);
  CHECK_PAGES(after.unshared - before.unshared, 1000 - 24);
  CHECK_EQUAL(since.frames, kernel.frame_numbers);
  if (since.frames) CHECK_PAGES(after.copied - before.copied, 1000 - 24);
  CHECK_PAGES(after.fresh - before.fresh, 321);
  CHECK_PAGES(after.dropped - before.dropped, 99);

  int64_t unmapped = since.unmapped;
  munmap(scene->memory + 10 * PAGE, 20 * PAGE);
  change(scene);
  CHECK_PAGES(since.unmapped - unmapped, 20);
}

// The parent copies away a page and unmaps others: the child's pages turn exclusive without being copied.
static void parent_goes_first(struct scene *scene) {
  int down[2], up[2];
  char byte = 0;
  CHECK(pipe(down) == 0 && pipe(up) == 0);
  pid_t pid = fork_bound();
  if (pid == 0) {
    memset(&since, 0, sizeof since);
    CHECK_EQUAL(ff_baseline_take(&scene->baseline, 0), 0);
    struct ff_change before = change(scene);
    CHECK(write(up[1], &byte, 1) == 1 && read(down[0], &byte, 1) == 1);
    struct ff_change after = change(scene);
    CHECK_PAGES(after.unshared - before.unshared, 50);
    if (since.frames) CHECK_PAGES(after.copied - before.copied, 0);
    _exit(0);
  }
  CHECK(read(up[0], &byte, 1) == 1);
  for (size_t i = 0; i < 50; i++) scene->memory[i * PAGE]++;
  CHECK(write(down[1], &byte, 1) == 1);
  int status;
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// A baseline of another process, compared from here.
static void of_another(void) {
  int down[2], up[2];
  char byte = 0;
  char *memory = anonymous(600 * PAGE);
  memset(memory, 1, 600 * PAGE);
  CHECK(pipe(down) == 0 && pipe(up) == 0);
  pid_t pid = fork_bound();
  if (pid == 0) {
    // Once through both calls before the baseline is taken: their own pages are copied then.
    CHECK(write(up[1], &byte, 1) == 1 && read(down[0], &byte, 1) == 1);
    for (size_t i = 0; i < 300; i++) memory[i * PAGE] = 2;
    CHECK(write(up[1], &byte, 1) == 1 && read(down[0], &byte, 1) == 1);
    _exit(0);
  }
  CHECK(read(up[0], &byte, 1) == 1);
  struct ff_baseline baseline;
  struct ff_comparison report;
  CHECK_EQUAL(ff_baseline_init(&baseline, pid), 0);
  CHECK_EQUAL(ff_baseline_take(&baseline, pid), 0);
  CHECK(write(down[1], &byte, 1) == 1 && read(up[0], &byte, 1) == 1);
  CHECK_EQUAL(ff_baseline_compare(&baseline, &report), 0);
  CHECK_PAGES(report.by_kind[FF_KIND_ANONYMOUS].unshared, 300);
  CHECK(write(down[1], &byte, 1) == 1);
  CHECK(waitpid(pid, NULL, 0) == pid);
  CHECK_EQUAL(ff_baseline_compare(&baseline, &report), -ENOENT);
  ff_baseline_fini(&baseline);
  munmap(memory, 600 * PAGE);
}

// A process whose heap moves while it is looked at: no window may be recorded twice.
static void of_one_that_moves(void) {
  pid_t pid = fork_bound();
  if (pid == 0) {
    for (;;) {
      char *grown = sbrk(64 * (intptr_t)PAGE);
      for (size_t i = 0; i < 64; i++) grown[i * PAGE] = 1;
      sbrk(-64 * (intptr_t)PAGE);
    }
  }
  struct ff_baseline baseline;
  struct ff_comparison report;
  struct ff_baseline_info info;
  for (int i = 0; i < 2000; i++) {
    CHECK_EQUAL(ff_baseline_init(&baseline, pid), 0);
    CHECK_EQUAL(ff_baseline_take(&baseline, pid), 0);
    CHECK_EQUAL(ff_baseline_compare(&baseline, &report), 0);
    ff_baseline_info(&baseline, &info);
    CHECK(info.shared <= info.anonymous);
    ff_baseline_fini(&baseline);
  }
  CHECK(kill(pid, SIGKILL) == 0);
  CHECK(waitpid(pid, NULL, 0) == pid);
}

#ifndef __SANITIZE_ADDRESS__  // its shadow is hundreds of megabytes more
// A gigabyte of pages in under a megabyte, taken in a child as it would be.
static void small(void *argument) {
  struct ff_baseline *baseline = argument;
  struct ff_baseline_info info;
  CHECK_EQUAL(ff_baseline_take(baseline, 0), 0);
  ff_baseline_info(baseline, &info);
  CHECK(info.anonymous >= 262144);
  CHECK(info.shared >= 262144);
  CHECK(info.bytes < 1000000);
}
#endif

int main(void) {
  struct scene scene = {.memory = anonymous(PAGES * PAGE)};
  memset(scene.memory, 1, 4000 * PAGE);
  CHECK_EQUAL(ff_baseline_init(&scene.baseline, 0), 0);
  in_child(exact, &scene);
  parent_goes_first(&scene);
  ff_baseline_fini(&scene.baseline);

  CHECK_EQUAL(ff_baseline_init(&scene.baseline, 0), 0);
  memset(&since, 0, sizeof since);
  CHECK_EQUAL(ff_baseline_take(&scene.baseline, 0), 0);
  scene.inherit = true;
  in_child(exact, &scene);
  ff_baseline_fini(&scene.baseline);

  of_another();
  of_one_that_moves();

#ifndef __SANITIZE_ADDRESS__
  const size_t gigabyte = (size_t)1 << 30;
  char *memory = anonymous(gigabyte);
  for (size_t i = 0; i < gigabyte; i += PAGE) memory[i] = 1;
  struct ff_baseline baseline;
  CHECK_EQUAL(ff_baseline_init(&baseline, 0), 0);
  in_child(small, &baseline);
  ff_baseline_fini(&baseline);
  munmap(memory, gigabyte);
#endif
  return 0;
}
