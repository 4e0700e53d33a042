/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gates: see gate.h. A user that is in has seen the gate open after the shard's thread had done
 * what it opened it for, and the shard's thread that has closed it sees all that users did before
 * they left: acquire and release on the one word. Tested in tests/memory/test_gate.c, and under load
 * in tests/memory/test_window.c.
 */
#include "memory/gate.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#define OPEN(word)    ((word)&3u)
#define ALLOWED(word) ((word) >> 2 & 3u)
#define WANTED	      (1u << 4)
#define READER	      (1u << 5)
#define WRITER	      (1u << 18)
#define READERS(word) ((word) >> 5 & GATE_USERS_MAX)
#define WRITERS(word) ((word) >> 18 & GATE_USERS_MAX)

_Static_assert(COH_WRITE < 4, "an access takes two bits");

int gates_create(struct gates *gates, uint64_t gpn_limit)
{
	void *at;

	gates->bytes = gpn_limit * sizeof(gates->word[0]);
	at = mmap(NULL, gates->bytes, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return -ENOMEM;
	gates->word = gates->at = at;
	return 0;
}

void gates_destroy(struct gates *gates)
{
	if (gates->at)
		munmap(gates->at, gates->bytes);
	gates->word = gates->at = NULL;
}

static uint32_t load(const struct gates *gates, uint64_t gpn)
{
	return atomic_load_explicit(&gates->word[gpn], memory_order_acquire);
}

static bool exchange(struct gates *gates, uint64_t gpn, uint32_t *old, uint32_t new)
{
	return atomic_compare_exchange_weak_explicit(&gates->word[gpn], old, new,
						     memory_order_acq_rel, memory_order_acquire);
}

bool gate_enter(struct gates *gates, uint64_t gpn, enum coh_access want)
{
	uint32_t word = load(gates, gpn);

	do {
		uint32_t users = want == COH_WRITE ? WRITERS(word) : READERS(word);

		if (OPEN(word) < want || (word & WANTED) || users == GATE_USERS_MAX)
			return false;
	} while (!exchange(gates, gpn, &word, word + (want == COH_WRITE ? WRITER : READER)));
	return true;
}

bool gate_leave(struct gates *gates, uint64_t gpn, enum coh_access want)
{
	uint32_t one = want == COH_WRITE ? WRITER : READER;
	uint32_t word =
		atomic_fetch_sub_explicit(&gates->word[gpn], one, memory_order_acq_rel) - one;

	return (word & WANTED) && !(want == COH_WRITE ? WRITERS(word) : READERS(word));
}

static uint32_t with_access(uint32_t word, uint32_t open, uint32_t allowed)
{
	return (word & ~15u) | open | allowed << 2;
}

void gate_allow(struct gates *gates, uint64_t gpn, enum coh_access access)
{
	uint32_t word = load(gates, gpn);

	while (!exchange(gates, gpn, &word, with_access(word, OPEN(word), access)))
		;
}

void gate_open(struct gates *gates, uint64_t gpn, enum coh_access access)
{
	uint32_t word = load(gates, gpn), open;

	do {
		open = ALLOWED(word) < access ? ALLOWED(word) : access;
		if (open <= OPEN(word))
			return;
	} while (!exchange(gates, gpn, &word, with_access(word, open, ALLOWED(word))));
}

bool gate_close(struct gates *gates, uint64_t gpn, enum coh_access after, bool tell)
{
	uint32_t word = load(gates, gpn), new;
	bool busy;

	do {
		busy = WRITERS(word) || (after == COH_NONE && READERS(word));
		if (busy)
			new = tell ? word | WANTED : word;
		else
			new = with_access(word, OPEN(word) < after ? OPEN(word) : after,
					  ALLOWED(word) < after ? ALLOWED(word) : after) &
			      ~WANTED;
		if (new == word)
			break;
	} while (!exchange(gates, gpn, &word, new));
	return !busy;
}

enum coh_access gate_access(const struct gates *gates, uint64_t gpn)
{
	return (enum coh_access)OPEN(load(gates, gpn));
}

bool gate_wanted(const struct gates *gates, uint64_t gpn)
{
	return load(gates, gpn) & WANTED;
}
