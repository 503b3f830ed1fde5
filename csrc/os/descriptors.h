// SPDX-License-Identifier: Apache-2.0
//
// Which open files a forked process keeps: those on a list, and no other.

#ifndef FROSTFORK_OS_DESCRIPTORS_H
#define FROSTFORK_OS_DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>

// Let go of every descriptor but 0 to 2 and the `kept` ones. Those in `closed` are closed. Of the others the number
// stays taken, by something that can neither be read nor written. Both lists are sorted here. Returns 0 or a negative
// errno.
int ff_descriptors_release(int *kept, size_t kept_count, int *closed, size_t closed_count);

// Whether this is the file of a loaded library, open for reading: the library's own, which it needs in every process.
bool ff_descriptors_of_library(int fd);

#endif
