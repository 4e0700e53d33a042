/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One node's core among hostile peers: bytes are read as stalls, pins, ticks, steps of members and messages, and what
 * must hold of a node whatever its peers send is asserted. For the fuzzer
 * (tests/fuzz/fuzz_coherence.c) and for a plain random test.
 */
#ifndef TESTS_SIM_HOSTILE_H
#define TESTS_SIM_HOSTILE_H

#include <stddef.h>
#include <stdint.h>

struct hostile_count {
	uint64_t messages, accepted; /* accepted: the core did not answer -EPROTO */
	uint64_t members;	     /* of those, about members that come and go */
};

/* Aborts with a line on stderr when a rule is broken. */
void hostile_run(const uint8_t *data, size_t size, struct hostile_count *count);

#endif
