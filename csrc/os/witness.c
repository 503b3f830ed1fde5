// SPDX-License-Identifier: Apache-2.0
//
// The witness of a child: what its pages held before it wrote them.
//
// The originals of a child's pages are its parent's memory, which an ordinary user's child may not read, and which the
// parent goes on changing. So the child forks once more: the witness shares all of its pages and never writes one.
// A page that the child maps alone afterwards is one that the child itself copied, whatever the parent did meanwhile,
// and the witness holds what stood there.
//
// The witness does the comparing, not the child. It needs no right for that: the child opens its own pagemap, maps and
// mem before the fork, and the witness inherits the open files. process_vm_readv from the child would be shorter and
// is refused by Yama's ptrace_scope 2 and 3, by a seccomp profile, and once the child has set PR_SET_DUMPABLE=0;
// open files of /proc are checked when they are opened and never again (fs/proc/base.c, mem_open). And the child does
// nothing while it is judged but wait.
//
// What it takes not to be noticed by the child's own code:
//   * No exit signal. The kernel shows such a child only to a wait with __WCLONE or __WALL, so that neither os.wait()
//     nor waitpid(-1) nor a SIGCHLD handler meets it. A double fork would hide it too, and leave nobody to reap it.
//   * No descriptor in the child: it calls by a signal, and the witness answers by its exit. Programs that close all
//     descriptors, as daemons do, lose nothing. The witness closes all that it inherited, or a pipe that the child
//     closes would stay open.
//   * clone(2), not fork(3): no at-fork handler runs, no lock is taken. The stack is in shared memory, so that the
//     witness's own calls write into none of the pages that it keeps.
//
// It ends when its owner does. PR_SET_PDEATHSIG tells it, but also when merely the thread that started it ends: so it
// looks at its parent's pid and goes on if that is still the owner.
//
// An owner that ends without asking for the findings leaves the reaping to init, or to a subreaper above it, which may
// be surprised by a child that it never had.
//
// What it cannot do: outlive SIGKILL to its process group; follow its owner through execve, where it keeps the old
// memory until the owner ends; keep pages that a fork does not pass on (MADV_DONTFORK, MADV_WIPEONFORK): their bytes
// are unknown.

#include "os/witness.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/pagemap.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { STACK = 256 * 1024, BIGGEST_PAGE = 64 * 1024 };
enum { CALL = SIGUSR1, OWNER_ENDED = SIGTERM };

struct ff_witness_memory {
  char stack[STACK];
  struct ff_pagemap pagemap;  // of the owner
  int owner_mem, own_mem;     // /proc/PID/mem
  pid_t owner;
  struct ff_baseline baseline;
  size_t page_size, stride, room;  // room: records that fit
  size_t pages;
  int error;  // 0 or the negative errno of the comparison
  struct ff_comparison sums;
  uint64_t now[BIGGEST_PAGE / 8], then[BIGGEST_PAGE / 8];
  _Alignas(uint64_t) char records[];
};

// Reads one page of a process as /proc/PID/mem shows it, protected or not.
static bool read_page(int mem, uint64_t address, void *page, size_t size) {
  size_t have = 0;
  while (have < size) {
    ssize_t got = pread(mem, (char *)page + have, size - have, (off_t)(address + have));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    have += (size_t)got;
  }
  return true;
}

static int note_page(void *argument, uint64_t address, enum ff_kind kind) {
  struct ff_witness_memory *memory = argument;
  if (memory->pages == memory->room) return -ENOMEM;
  struct ff_witness_page *page = (struct ff_witness_page *)(memory->records + memory->pages * memory->stride);
  page->address = address;
  page->kind = kind;
  page->bytes = -1;
  memory->pages++;
  // Fresh shared memory is zero, and each record is written once: `changed` is empty.
  if (!read_page(memory->own_mem, address, memory->then, memory->page_size)) return 0;
  if (!read_page(memory->owner_mem, address, memory->now, memory->page_size)) return 0;
  page->bytes = 0;
  for (size_t word = 0; word < memory->page_size / 8; word++) {
    uint64_t difference = memory->now[word] ^ memory->then[word];
    if (difference == 0) continue;
    const unsigned char *byte = (const unsigned char *)&difference;
    for (size_t i = 0; i < 8; i++) {
      if (byte[i] == 0) continue;
      page->changed[word / 8] |= UINT64_C(1) << (word % 8 * 8 + i);
      page->bytes++;
    }
  }
  return 0;
}

enum { FEW_DESCRIPTORS = 1 << 16 };

// Keeps the three descriptors of the owner's, as 0 to 2, and closes all others.
static int keep_three(struct ff_witness_memory *memory) {
  int keep[3] = {memory->pagemap.fd, memory->pagemap.maps.fd, memory->owner_mem};
  // First out of the way of the numbers that they shall have.
  for (int i = 0; i < 3; i++) {
    if ((keep[i] = fcntl(keep[i], F_DUPFD_CLOEXEC, 3)) < 0) return -errno;
  }
  for (int i = 0; i < 3; i++) {
    if (dup2(keep[i], i) < 0) return -errno;
  }
  memory->pagemap.fd = 0;
  memory->pagemap.maps.fd = 1;
  memory->owner_mem = 2;
  if (syscall(SYS_close_range, 3U, ~0U, 0U) == 0) return 0;
  // Before Linux 5.9, or where a container forbids it. The limit may be a billion; what lies above stays open as long
  // as the witness lives.
  long most = sysconf(_SC_OPEN_MAX);
  for (int fd = 3; fd < most && fd < FEW_DESCRIPTORS; fd++) close(fd);
  return 0;
}

static int witness_main(void *argument) {
  struct ff_witness_memory *memory = argument;
  prctl(PR_SET_PDEATHSIG, OWNER_ENDED);
  prctl(PR_SET_NAME, "ff-witness");
  memory->error = keep_three(memory);
  memory->own_mem = ff_maps_open_proc(0, "mem");
  if (memory->own_mem < 0 && memory->error == 0) memory->error = memory->own_mem;

  sigset_t awaited;
  sigemptyset(&awaited);
  sigaddset(&awaited, CALL);
  sigaddset(&awaited, OWNER_ENDED);
  while (getppid() == memory->owner) {
    if (sigwaitinfo(&awaited, NULL) != CALL || getppid() != memory->owner) continue;
    if (memory->error == 0) {
      memory->error = ff_baseline_walk(&memory->baseline, &memory->pagemap, false, note_page, memory, &memory->sums);
    }
    return 0;  // clone(3) ends the process with it, and runs no exit handler
  }
  return 1;
}

static pid_t fork_witness(struct ff_witness_memory *memory) {
  // All signals are held back from the first moment: a call that came before the witness awaited it would kill it, and
  // Ctrl-C, which the terminal sends to it too, is meant for the owner.
  sigset_t all, before;
  sigfillset(&all);
  int rc = -pthread_sigmask(SIG_SETMASK, &all, &before);
  if (rc < 0) return rc;
  pid_t pid = clone(witness_main, memory->stack + STACK, 0, memory);
  rc = pid < 0 ? -errno : pid;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return rc;
}

static int start(struct ff_witness *witness) {
  int rc = ff_baseline_take(&witness->baseline, 0);
  if (rc < 0) return rc;
  struct ff_baseline_info info;
  ff_baseline_info(&witness->baseline, &info);
  const size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
  const size_t stride = sizeof(struct ff_witness_page) + page_size / 8;
  if (page_size > BIGGEST_PAGE) return -ENOTSUP;

  witness->reserved = sizeof(struct ff_witness_memory) + (size_t)info.shared * stride;
  struct ff_witness_memory *memory =
      mmap(NULL, witness->reserved, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return -errno;
  witness->memory = memory;
  memory->owner = witness->owner;
  memory->baseline = witness->baseline;
  memory->page_size = page_size;
  memory->stride = stride;
  memory->room = (size_t)info.shared;

  // Handles of the child's own, to close them whatever the witness has made of its copies by then.
  struct ff_pagemap pagemap;
  rc = ff_pagemap_init(&pagemap, 0, true);
  if (rc < 0) return rc;
  int mem = rc = ff_maps_open_proc(0, "mem");
  if (rc >= 0) {
    memory->pagemap = pagemap;
    memory->owner_mem = mem;
    rc = witness->pid = fork_witness(memory);
    close(mem);
  }
  ff_pagemap_fini(&pagemap);
  if (rc < 0) return rc;
  madvise(memory, witness->reserved, MADV_DONTFORK);  // no concern of the child's own children
  return 0;
}

int ff_witness_start(struct ff_witness *witness) {
  *witness = (struct ff_witness){.owner = getpid()};
  int rc = ff_baseline_init(&witness->baseline, 0);
  if (rc == 0) rc = start(witness);
  if (rc < 0) ff_witness_fini(witness);
  return rc < 0 ? rc : 0;
}

// Waits for the end of the witness. Returns its exit status, or -ESRCH when it was killed or reaped by someone else.
static int reap(struct ff_witness *witness) {
  int status;
  pid_t pid;
  do {
    pid = waitpid(witness->pid, &status, __WCLONE);
  } while (pid < 0 && errno == EINTR);
  bool ended = pid == witness->pid && WIFEXITED(status);
  witness->pid = 0;
  return ended ? WEXITSTATUS(status) : -ESRCH;
}

int ff_witness_finish(struct ff_witness *witness, struct ff_witness_findings *out) {
  if (witness->pid <= 0 || witness->owner != getpid()) return -ESRCH;
  // A witness that has died is not yet reaped, so its pid is nobody else's.
  if (kill(witness->pid, CALL) < 0) return -errno;
  int rc = reap(witness);
  const struct ff_witness_memory *memory = witness->memory;
  if (rc == 0) rc = memory->error;
  if (rc != 0) return rc < 0 ? rc : -ESRCH;
  *out = (struct ff_witness_findings){memory->pages, memory->page_size, memory->stride, memory->records, memory->sums};
  return 0;
}

void ff_witness_fini(struct ff_witness *witness) {
  if (witness->owner == getpid()) {
    if (witness->pid > 0 && kill(witness->pid, SIGKILL) == 0) reap(witness);
    if (witness->memory != NULL) munmap(witness->memory, witness->reserved);
  }
  ff_baseline_fini(&witness->baseline);
  *witness = (struct ff_witness){0};
}
