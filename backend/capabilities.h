/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capabilities of the calling thread (capabilities(7)). Each thread has its own: a thread that is made
 * has those of its maker, and nobody can take them from another thread. So a thread that is made while
 * the process still needs some gives them up itself, first of all. Any thread may call all of this.
 */
#ifndef BACKEND_CAPABILITIES_H
#define BACKEND_CAPABILITIES_H

#include <linux/capability.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAPABILITY(number) (1ull << (number))

struct capabilities {
	struct __user_cap_data_struct word[_LINUX_CAPABILITY_U32S_3];
};

static inline void capabilities_get(struct capabilities *ret)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	*ret = (struct capabilities){ 0 };
	syscall(SYS_capget, &header, ret->word);
}

/* Those that it has or may take. */
static inline uint64_t capabilities_held(void)
{
	struct capabilities all;
	capabilities_get(&all);
	return all.word[0].permitted | (uint64_t)all.word[1].permitted << 32;
}

/*
 * From now on `used` of them are in force, and it can never have others than `kept`; what it does not
 * hold is left out. To give up needs no right, so it cannot fail.
 */
static inline void capabilities_set(uint64_t used, uint64_t kept)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct capabilities all;
	capabilities_get(&all);
	for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		all.word[i].permitted &= (uint32_t)(kept >> 32 * i);
		all.word[i].effective = all.word[i].permitted & (uint32_t)(used >> 32 * i);
		all.word[i].inheritable &= (uint32_t)(kept >> 32 * i);
	}
	syscall(SYS_capset, &header, all.word);
}

/* Gives up all others. */
static inline void capabilities_keep(uint64_t kept)
{
	capabilities_set(kept, kept);
}

#endif
