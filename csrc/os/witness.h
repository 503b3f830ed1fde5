// SPDX-License-Identifier: Apache-2.0
//
// A process that keeps another's pages as they were, and says later which bytes of them changed.

#ifndef FROSTFORK_OS_WITNESS_H
#define FROSTFORK_OS_WITNESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "os/baseline.h"

// Caller-owned; {0} is a witness that was never started.
struct ff_witness {
  struct ff_witness_memory *memory;  // shared with the witness: its stack, its handles, its findings
  size_t reserved;                   // bytes of address space
  struct ff_baseline baseline;
  pid_t owner;  // who started it: in any other process a witness does nothing
  pid_t pid;    // 0 once it has ended
};

// One page that was shared at the start and has been copied since. Bit n of `changed` is byte n of the page.
struct ff_witness_page {
  uint64_t address;
  uint32_t kind;  // enum ff_kind of its mapping
  int32_t bytes;  // how many differ; -1 where the original is not known
  uint64_t changed[];
};

struct ff_witness_findings {
  size_t pages;
  size_t page_size;
  size_t stride;  // bytes from one page's record to the next
  const char *records;
  struct ff_comparison sums;
};

// Records which pages of the calling process are shared and forks the witness. Returns 0 or a negative errno; EACCES
// and EPERM are the kernel's refusal to show this process to its user (PR_SET_DUMPABLE=0).
int ff_witness_start(struct ff_witness *witness);

// Lets the witness compare and end. The findings are the witness's memory: valid until _fini. Returns 0 or a negative
// errno: -ESRCH when the witness is gone or belongs to another process.
int ff_witness_finish(struct ff_witness *witness, struct ff_witness_findings *out);

static inline const struct ff_witness_page *ff_witness_page(const struct ff_witness_findings *findings, size_t i) {
  return (const struct ff_witness_page *)(findings->records + i * findings->stride);
}

// Ends the witness if it has not ended, and gives the memory back.
void ff_witness_fini(struct ff_witness *witness);

#endif
