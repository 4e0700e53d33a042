/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every size and limit that nodes must agree on, in one place.
 *
 * They are part of the protocol: changing one means a new WIRE_VERSION (wire/version.h).
 */
#ifndef CORE_LIMITS_H
#define CORE_LIMITS_H

#include <stdint.h>

/* A page is the unit of coherence, a chunk the unit of homes. gpn = gpa >> PAGE_SHIFT. */
#define PAGE_SHIFT  12
#define PAGE_BYTES  4096u
#define CHUNK_SHIFT 21
#define CHUNK_BYTES (1u << CHUNK_SHIFT)
#define CHUNK_PAGES (CHUNK_BYTES / PAGE_BYTES)

/* Nodes are numbered 0..NODES_MAX-1; node 0 loads the guest and has its devices. */
#define NODES_MAX 256
#define NODE_NONE 0xffffu

/* vCPUs are numbered over the whole pod; a vCPU's number is its x2APIC id. */
#define VCPUS_MAX 512

/* Shards: independent instances of the page protocol in a node, each with a share of the chunks. */
#define SHARDS_MAX 16

/*
 * Guest-physical addresses of RAM are below this limit: 16 TiB less a chunk. The page protocol's
 * tables link pages by 32-bit numbers, each plus one so that 0 means none; a pod of 256 nodes that
 * promise 64 GiB each just fits. A larger guest wants wider links, and 4 bytes more a link and
 * page.
 */
#define GPA_LIMIT ((1ull << 44) - CHUNK_BYTES)
#define GPN_LIMIT (GPA_LIMIT >> PAGE_SHIFT)

#define POD_NAME_MAX  64
#define NODE_NAME_MAX 64

#endif
