// SPDX-License-Identifier: Apache-2.0
//
// The clock that boards show and that waits are measured by.

#ifndef FROSTFORK_OS_CLOCK_H
#define FROSTFORK_OS_CLOCK_H

#include <stdint.h>
#include <time.h>

// CLOCK_MONOTONIC, in nanoseconds.
static inline uint64_t ff_clock_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

#endif
