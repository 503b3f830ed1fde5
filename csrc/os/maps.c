// SPDX-License-Identifier: Apache-2.0
//
// The address space of a process, mapping by mapping.
//
// A page count needs to know which addresses to ask pagemap about. Two sources say it: PROCMAP_QUERY (Linux 6.11), an
// ioctl that answers in binary, and the text of /proc/PID/maps. Both give the same mappings; for 730 of them the ioctl
// takes a third of the time. Which of the two serves is decided by the first answer of this very file: a kernel that
// does not know the ioctl says so there.
//
// What it cannot do: freeze another process. Mappings that come and go during the walk are seen or missed, as in
// /proc/PID/maps itself; for the calling process, and for its fresh child, there is nothing to miss.

#include "os/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "os/kernel.h"
#include "os/kernel_abi.h"

int ff_maps_open_proc(pid_t pid, const char *name) {
  char path[64];
  if (pid == 0)
    snprintf(path, sizeof path, "/proc/self/%s", name);
  else
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
  int fd;
  do {
    fd = open(path, O_RDONLY | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  return fd < 0 ? -errno : fd;
}

int ff_maps_init(struct ff_maps *maps, pid_t pid, bool names) {
  maps->fd = ff_maps_open_proc(pid, "maps");
  maps->query = true;
  maps->names = names;
  maps->next = 0;
  maps->have = maps->at = 0;
  maps->skip_line = false;
  return maps->fd < 0 ? maps->fd : 0;
}

void ff_maps_fini(struct ff_maps *maps) {
  if (maps->fd >= 0) close(maps->fd);
  maps->fd = -1;
}

static enum ff_kind kind_of(bool shared, bool has_file, const char *name) {
  if (shared) return FF_KIND_SHARED;
  if (has_file) return FF_KIND_FILE;
  if (strncmp(name, "[heap]", 6) == 0) return FF_KIND_HEAP;
  if (strncmp(name, "[stack", 6) == 0) return FF_KIND_STACK;
  // "[anon:...]" is a name that the process gave its own memory with prctl; glibc names its arenas so.
  if (name[0] == '[' && strncmp(name, "[anon", 5) != 0) return FF_KIND_SPECIAL;
  return FF_KIND_ANONYMOUS;
}

static int next_by_query(struct ff_maps *maps, struct ff_mapping *out) {
  struct ff_procmap_query query = {
      .size = sizeof query, .query_flags = FF_PROCMAP_COVERING_OR_NEXT, .query_addr = maps->next};
  int rc;
  do {
    rc = ioctl(maps->fd, FF_PROCMAP_QUERY, &query);
  } while (rc < 0 && errno == EINTR);
  if (rc < 0) return errno == ENOENT ? 0 : -errno;

  bool shared = query.vma_flags & FF_PROCMAP_VMA_SHARED;
  maps->buffer[0] = '\0';
  // The name is asked for only where it decides: for a file the kernel would format a whole path, and without names
  // only the kernel's own mappings count, none of which is writable.
  bool decides = maps->names || !(query.vma_flags & FF_PROCMAP_VMA_WRITABLE);
  if (!shared && query.inode == 0 && decides) {
    struct ff_procmap_query named = query;
    named.query_flags = 0;
    named.query_addr = query.vma_start;
    named.vma_name_addr = (uintptr_t)maps->buffer;
    named.vma_name_size = sizeof maps->buffer;
    if (ioctl(maps->fd, FF_PROCMAP_QUERY, &named) < 0 || named.vma_name_size == 0) maps->buffer[0] = '\0';
  }
  // A mapping of another process, or of another thread's doing, that grew downwards or was merged since the last query
  // covers `next` from below: the walk never goes backwards.
  out->start = query.vma_start > maps->next ? query.vma_start : maps->next;
  out->end = query.vma_end;
  out->kind = kind_of(shared, query.inode != 0, maps->buffer);
  out->writable = query.vma_flags & FF_PROCMAP_VMA_WRITABLE;
  maps->next = query.vma_end;
  return 1;
}

// Makes one whole line, ended by NUL, out of the buffer; 1, 0 at the end of the file, or a negative errno. A line
// longer than the buffer (a path may have 4096 bytes) is cut: all that is parsed stands in its first hundred.
static int next_line(struct ff_maps *maps, char **line) {
  for (;;) {
    char *start = maps->buffer + maps->at;
    char *newline = memchr(start, '\n', maps->have - maps->at);
    if (newline != NULL) {
      *newline = '\0';
      maps->at = (size_t)(newline - maps->buffer) + 1;
      if (maps->skip_line) {
        maps->skip_line = false;
        continue;
      }
      *line = start;
      return 1;
    }
    memmove(maps->buffer, start, maps->have - maps->at);
    maps->have -= maps->at;
    maps->at = 0;
    if (maps->have == sizeof maps->buffer - 1) {
      bool already_returned = maps->skip_line;
      maps->buffer[maps->have] = '\0';
      maps->have = 0;
      maps->skip_line = true;
      if (already_returned) continue;
      *line = maps->buffer;
      return 1;
    }
    ssize_t got;
    do {
      got = read(maps->fd, maps->buffer + maps->have, sizeof maps->buffer - 1 - maps->have);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return -errno;
    if (got == 0) return 0;
    maps->have += (size_t)got;
  }
}

static int next_by_text(struct ff_maps *maps, struct ff_mapping *out) {
  char *line = NULL;
  int rc = next_line(maps, &line);
  if (rc <= 0) return rc;
  // start-end perms offset major:minor inode [name]
  char *at;
  out->start = strtoull(line, &at, 16);
  if (*at != '-') return -EPROTO;
  out->end = strtoull(at + 1, &at, 16);
  if (at[0] != ' ' || strlen(at) < 6) return -EPROTO;
  bool shared = at[4] == 's';
  out->writable = at[2] == 'w';
  unsigned long long inode = 0;
  int name_at = 0;
  if (sscanf(at + 5, " %*x %*x:%*x %llu %n", &inode, &name_at) < 1) return -EPROTO;
  out->kind = kind_of(shared, inode != 0, at + 5 + name_at);
  if (out->start < maps->next) out->start = maps->next;
  if (out->end < out->start) out->end = out->start;
  maps->next = out->end;
  return 1;
}

int ff_maps_next(struct ff_maps *maps, struct ff_mapping *out) {
  if (maps->query) {
    int rc = next_by_query(maps, out);
    if (maps->next != 0 || !ff_kernel_unsupported(rc)) return rc;
    maps->query = false;
  }
  return next_by_text(maps, out);
}
