// SPDX-License-Identifier: Apache-2.0
//
// The witness against ground truth: a child changes known bytes, and the findings are exact to the byte, as root and as
// an ordinary user; nobody but its owner meets the witness, and it never outlives it.
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>

#include "check.h"
#include "os/witness.h"

static const size_t PAGE = 4096;
enum { PAGES = 1200 };

static char *memory;  // PAGES pages, written by the parent

static int open_descriptors(void) {
  int count = 0;
  DIR *fds = opendir("/proc/self/fd");
  CHECK(fds != NULL);
  while (readdir(fds) != NULL) count++;
  closedir(fds);
  return count;
}

// Findings of the pages of `memory`: how many, how many of them unchanged, how many bytes differ.
static void sum(const struct ff_witness_findings *findings, int *pages, int *unchanged, int *bytes) {
  *pages = *unchanged = *bytes = 0;
  uint64_t last = 0;
  for (size_t i = 0; i < findings->pages; i++) {
    const struct ff_witness_page *page = ff_witness_page(findings, i);
    CHECK(page->address > last);
    last = page->address;
    if (page->address < (uintptr_t)memory || page->address >= (uintptr_t)memory + PAGES * PAGE) continue;
    ++*pages;
    *unchanged += page->bytes == 0;
    if (page->bytes > 0) *bytes += page->bytes;
    int bits = 0;
    for (size_t word = 0; word < PAGE / 64; word++) bits += __builtin_popcountll(page->changed[word]);
    CHECK_EQUAL(bits, page->bytes < 0 ? 0 : page->bytes);
  }
}

static void exact(void *undumpable) {
  struct ff_witness witness;
  struct ff_witness_findings findings;
  int pages, unchanged, bytes, before = open_descriptors();
  memory[1100 * PAGE] = 1;  // the child's own before the start: no longer shared, so not to be found
  CHECK_EQUAL(ff_witness_start(&witness), 0);
  CHECK_EQUAL(open_descriptors(), before);
  // The check happens when a file of /proc is opened, not when it is read.
  if (undumpable != NULL) prctl(PR_SET_DUMPABLE, 0);

  for (size_t i = 0; i < 100; i++) memory[i * PAGE + 7]++;                    // 100 pages, a byte each
  memset(memory + 200 * PAGE, 'x', 2 * PAGE);                                 // two pages whole
  for (size_t i = 300; i < 350; i++) memory[i * PAGE]++, memory[i * PAGE]--;  // 50 pages and no byte
  memory[400 * PAGE + 4095] ^= 1;                                             // the last byte of a page
  memory[1100 * PAGE] = 2;
  CHECK_EQUAL(ff_witness_finish(&witness, &findings), 0);
  sum(&findings, &pages, &unchanged, &bytes);
  CHECK_EQUAL(pages, 153);
  CHECK_EQUAL(unchanged, 50);
  CHECK_EQUAL(bytes, 100 + 2 * (int)PAGE + 1);
  const struct ff_witness_page *page;
  for (size_t i = 0; (page = ff_witness_page(&findings, i))->address != (uintptr_t)memory + 400 * PAGE;) i++;
  CHECK_EQUAL(page->changed[63], INT64_MIN);
  CHECK_EQUAL(page->kind, FF_KIND_ANONYMOUS);
  CHECK_EQUAL(ff_witness_finish(&witness, &findings), -ESRCH);
  ff_witness_fini(&witness);
  CHECK_EQUAL(open_descriptors(), before);
  CHECK(waitpid(-1, NULL, __WALL) == -1 && errno == ECHILD);
}

// What the parent writes while the child lives is none of the child's doing.
static void the_parent_writes(void) {
  int down[2], up[2];
  char byte = 0;
  CHECK(pipe(down) == 0 && pipe(up) == 0);
  pid_t pid = fork_bound();
  if (pid == 0) {
    struct ff_witness witness;
    struct ff_witness_findings findings;
    int pages, unchanged, bytes;
    CHECK_EQUAL(ff_witness_start(&witness), 0);
    CHECK(write(up[1], &byte, 1) == 1 && read(down[0], &byte, 1) == 1);
    memory[0]++;
    CHECK_EQUAL(ff_witness_finish(&witness, &findings), 0);
    sum(&findings, &pages, &unchanged, &bytes);
    CHECK_EQUAL(pages, 1);
    CHECK_EQUAL(bytes, 1);
    ff_witness_fini(&witness);
    _exit(0);
  }
  CHECK(read(up[0], &byte, 1) == 1);
  memset(memory, 3, 50 * PAGE);
  CHECK(write(down[1], &byte, 1) == 1);
  int status;
  CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int received;

static void receive(int number) {
  (void)number;
  received++;
}

static void unseen(void *unused) {
  (void)unused;
  struct ff_witness witness;
  struct ff_witness_findings findings;
  int ends[2];
  char byte;
  signal(SIGCHLD, receive);
  CHECK(pipe(ends) == 0);
  CHECK_EQUAL(ff_witness_start(&witness), 0);
  CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
  // A pipe whose writing end the child closes is at its end: the witness holds none. It closes them a moment after it
  // began, so this read may wait for that moment.
  close(ends[1]);
  CHECK(read(ends[0], &byte, 1) == 0);
  // Ctrl-C and a request to end are meant for the owner.
  kill(witness.pid, SIGINT);
  kill(witness.pid, SIGTERM);
  // A child of the child has nothing to do with it.
  pid_t pid = fork_bound();
  if (pid == 0) {
    CHECK_EQUAL(ff_witness_finish(&witness, &findings), -ESRCH);
    ff_witness_fini(&witness);
    _exit(0);
  }
  int status;
  CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK_EQUAL(received, 1);
  CHECK_EQUAL(ff_witness_finish(&witness, &findings), 0);
  ff_witness_fini(&witness);
  CHECK_EQUAL(received, 1);
}

static void killed(void *unused) {
  (void)unused;
  struct ff_witness witness;
  struct ff_witness_findings findings;
  CHECK_EQUAL(ff_witness_start(&witness), 0);
  CHECK(kill(witness.pid, SIGKILL) == 0);
  CHECK_EQUAL(ff_witness_finish(&witness, &findings), -ESRCH);
  ff_witness_fini(&witness);
  CHECK_EQUAL(ff_witness_start(&witness), 0);
  ff_witness_fini(&witness);
  CHECK(waitpid(-1, NULL, __WALL) == -1 && errno == ECHILD);
}

static void unkept(void *unused) {
  (void)unused;
  struct ff_witness witness;
  struct ff_witness_findings findings;
  int pages, unchanged, bytes;
  CHECK(madvise(memory + 10 * PAGE, 5 * PAGE, MADV_DONTFORK) == 0);
  // Protected pages are read all the same.
  CHECK(mprotect(memory + 100 * PAGE, PAGE, PROT_NONE) == 0);
  CHECK_EQUAL(ff_witness_start(&witness), 0);
  CHECK(mprotect(memory + 100 * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);
  memset(memory + 9 * PAGE, 'y', 7 * PAGE);
  memory[100 * PAGE]++;
  CHECK_EQUAL(ff_witness_finish(&witness, &findings), 0);
  sum(&findings, &pages, &unchanged, &bytes);
  CHECK_EQUAL(pages, 8);
  CHECK_EQUAL(bytes, 2 * (int)PAGE + 1);
  ff_witness_fini(&witness);
}

// The owner ends in each way without a word to the witness. The witness is a child of the test's by then (the test is a
// subreaper), which sees it end.
static void never_outlives(void) {
  CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  for (int way = 0; way < 2; way++) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      struct ff_witness witness;
      CHECK_EQUAL(ff_witness_start(&witness), 0);
      if (way == 1) raise(SIGKILL);
      _exit(0);
    }
    CHECK(waitpid(pid, NULL, 0) == pid);
    alarm(30);
    CHECK(waitpid(-1, NULL, __WALL) > 0);
    alarm(0);
    CHECK(waitpid(-1, NULL, __WALL) == -1 && errno == ECHILD);
  }
}

static void as_somebody(void *undumpable) {
  CHECK(setgid(65534) == 0 && setuid(65534) == 0);
  struct ff_witness witness;
  CHECK_EQUAL(ff_witness_start(&witness), -EACCES);  // a change of uid made it undumpable
  CHECK(waitpid(-1, NULL, __WALL) == -1 && errno == ECHILD);
  prctl(PR_SET_DUMPABLE, 1);
  exact(undumpable);
}

int main(void) {
  memory = anonymous(PAGES * PAGE);
  memset(memory, 1, PAGES * PAGE);
  in_child(exact, NULL);
  in_child(exact, memory);
  if (getuid() == 0) {
    in_child(as_somebody, NULL);
    in_child(as_somebody, memory);
  }
  the_parent_writes();
  in_child(unseen, NULL);
  in_child(killed, NULL);
  in_child(unkept, NULL);
  never_outlives();
  return 0;
}
