// SPDX-License-Identifier: Apache-2.0
//
// A walk over the mappings of a process, in the order of their addresses.

#ifndef FROSTFORK_OS_MAPS_H
#define FROSTFORK_OS_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum ff_kind {
  FF_KIND_HEAP,       // the brk heap: glibc's main arena
  FF_KIND_STACK,      // the main thread's stack
  FF_KIND_ANONYMOUS,  // private memory without a file: pymalloc's arenas, large blocks, other threads' stacks
  FF_KIND_FILE,       // private mapping of a file: libraries, their data and relocations
  FF_KIND_SHARED,     // shared memory and shared files: nothing here is copied by a fork
  FF_KIND_SPECIAL,    // vdso and its like
  FF_KINDS
};

struct ff_mapping {
  uint64_t start, end;
  enum ff_kind kind;
  bool writable;
};

#define FF_MAPS_BUFFER 4096

// Caller-owned, and all of the walk's memory: nothing is allocated, so that a walk in a child adds no page but this.
struct ff_maps {
  int fd;
  bool query;     // PROCMAP_QUERY, else text
  bool names;     // tell heap, stack and other anonymous memory apart, which costs a second query for each
  uint64_t next;  // first address not yet walked
  size_t have, at;
  bool skip_line;  // the rest of a line that did not fit
  char buffer[FF_MAPS_BUFFER];
};

// pid 0 is the calling process. Without names all private memory without a file is FF_KIND_ANONYMOUS. Returns 0 or a
// negative errno.
int ff_maps_init(struct ff_maps *maps, pid_t pid, bool names);

// Returns 1 with *out filled, 0 at the end, or a negative errno.
int ff_maps_next(struct ff_maps *maps, struct ff_mapping *out);

void ff_maps_fini(struct ff_maps *maps);

// Opens /proc/PID/NAME read-only and close-on-exec; pid 0 is the calling process. Returns a descriptor or a negative
// errno.
int ff_maps_open_proc(pid_t pid, const char *name);

#endif
