/* SPDX-License-Identifier: Apache-2.0 */
/* UFFDIO_MOVE (Linux 6.8), for builds against older kernel headers (linux/userfaultfd.h). */
#ifndef MEMORY_UFFD_MOVE_H
#define MEMORY_UFFD_MOVE_H

#include <linux/userfaultfd.h>

#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

#ifndef UFFDIO_MOVE
#define UFFDIO_MOVE_MODE_DONTWAKE (1ull << 0)
struct uffdio_move {
	__u64 dst, src, len, mode;
	__s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif

#endif
