// SPDX-License-Identifier: Apache-2.0
//
// What the running kernel offers, asked once.

#ifndef FROSTFORK_OS_KERNEL_H
#define FROSTFORK_OS_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

struct ff_kernel {
  int major, minor;    // of the release, for messages only: features are probed, never inferred from it
  uint64_t page_size;  // bytes
  int pagemap;         // 0 when /proc/self/pagemap can be opened, else a negative errno
  bool pagemap_scan;
  bool procmap_query;
  bool frame_numbers;  // of a pagemap opened now: CAP_SYS_ADMIN comes and goes with the user id
  bool madv_collapse;
  bool memfd;
};

// Fills *out on the first call and copies what it found on later ones, frame numbers excepted: those belong to the
// process and are asked again each time. Returns 0, or a negative errno that does not mean "unsupported".
int ff_kernel_probe(struct ff_kernel *out);

// True for the answers by which a kernel says that it does not know a call.
bool ff_kernel_unsupported(int negative_errno);

// How many threads the calling process has, or a negative errno. Two microseconds: see kernel.c.
int ff_kernel_threads(void);

#endif
