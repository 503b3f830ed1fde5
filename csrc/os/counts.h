// SPDX-License-Identifier: Apache-2.0
//
// How many pages a process has, by state.

#ifndef FROSTFORK_OS_COUNTS_H
#define FROSTFORK_OS_COUNTS_H

#include <stdint.h>
#include <sys/types.h>

struct ff_counts {
  int64_t present;    // anonymous + file
  int64_t anonymous;  // present, and neither of a file nor of shared memory
  int64_t file;       // present, of a file or of shared memory
  int64_t exclusive;  // present and mapped by this process alone
  int64_t shared;     // present - exclusive
  int64_t swapped;
  int64_t huge;  // present as part of a huge page; -1 where the kernel cannot tell (before 6.7)
};

// pid 0 is the calling process. Returns 0 or a negative errno.
int ff_counts_take(pid_t pid, struct ff_counts *out);

#endif
