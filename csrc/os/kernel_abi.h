// SPDX-License-Identifier: Apache-2.0
//
// The kernel's ABI, as far as frostfork reads it and older headers lack it.
//
// Debian 12 builds against headers of Linux 6.1, which know neither PAGEMAP_SCAN (6.7) nor PROCMAP_QUERY (6.11).
// What the running kernel can do is asked at run time (kernel.h), so the numbers are written down here once, under
// names of our own that cannot clash when newer headers do have them.
// Sources: include/uapi/linux/fs.h, prctl.h, asm-generic/mman-common.h and Documentation/admin-guide/mm/pagemap.rst of
// Linux 6.18.

#ifndef FROSTFORK_OS_KERNEL_ABI_H
#define FROSTFORK_OS_KERNEL_ABI_H

#include <linux/ioctl.h>
#include <stdint.h>

#define FF_MADV_COLLAPSE 25        // 6.1
#define FF_PR_SET_MEMORY_MERGE 67  // 6.4
#define FF_PR_GET_MEMORY_MERGE 68

// One 64-bit entry of /proc/PID/pagemap for each virtual page.
#define FF_PM_FRAME_MASK ((UINT64_C(1) << 55) - 1)  // reads as zero without CAP_SYS_ADMIN
#define FF_PM_EXCLUSIVE (UINT64_C(1) << 56)         // mapped once: this process alone sees the page
#define FF_PM_FILE (UINT64_C(1) << 61)              // page of a file or of shared memory, not anonymous
#define FF_PM_SWAPPED (UINT64_C(1) << 62)
#define FF_PM_PRESENT (UINT64_C(1) << 63)

// PAGEMAP_SCAN: an ioctl on /proc/PID/pagemap that returns ranges of pages by category, and skips holes.
#define FF_PAGE_IS_FILE (UINT64_C(1) << 2)
#define FF_PAGE_IS_PRESENT (UINT64_C(1) << 3)
#define FF_PAGE_IS_SWAPPED (UINT64_C(1) << 4)
#define FF_PAGE_IS_HUGE (UINT64_C(1) << 6)

struct ff_page_region {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};

struct ff_pm_scan_arg {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};

#define FF_PAGEMAP_SCAN _IOWR('f', 16, struct ff_pm_scan_arg)

// PROCMAP_QUERY: an ioctl on /proc/PID/maps that answers for one mapping at a time, without formatting text.
#define FF_PROCMAP_VMA_WRITABLE UINT64_C(0x02)
#define FF_PROCMAP_VMA_SHARED UINT64_C(0x08)
#define FF_PROCMAP_COVERING_OR_NEXT UINT64_C(0x10)

struct ff_procmap_query {
  uint64_t size;
  uint64_t query_flags;
  uint64_t query_addr;
  uint64_t vma_start;
  uint64_t vma_end;
  uint64_t vma_flags;
  uint64_t vma_page_size;
  uint64_t vma_offset;
  uint64_t inode;
  uint32_t dev_major;
  uint32_t dev_minor;
  uint32_t vma_name_size;
  uint32_t build_id_size;
  uint64_t vma_name_addr;
  uint64_t build_id_addr;
};

#define FF_PROCMAP_QUERY _IOWR('f', 17, struct ff_procmap_query)

#endif
