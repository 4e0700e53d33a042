/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory on userfaultfd.
 *
 * Problem: a page must come, change protection and go under threads that touch it at any moment, in
 * kernel mode too (KVM), at the cost of as few system calls as possible. Idea: the kernel's own
 * atomicity. UFFDIO_COPY makes a page appear whole. UFFDIO_WRITEPROTECT and MADV_DONTNEED return
 * after every CPU (and KVM, by its MMU notifiers) has dropped its translation. Taking a page out
 * for another node is one UFFDIO_MOVE where the kernel has it (measured: 1.3 us against 3.9 us),
 * else protect, copy, drop. Invariant: only install makes an absent page present, so EEXIST is a
 * bug of ours and not a race. Left out: huge pages (the unit of coherence is 4 KiB, so NOHUGEPAGE),
 * sharing with other processes. Tested in tests/memory/test_guest_memory.c.
 */
#include "memory/guest_memory.h"

#include <assert.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/uffd_move.h"
#include "memory/uffd_probe.h"

/* More stripes spread a shard's chunks better; fewer keep the kernel's list of mappings short. */
#define STRIPES_PER_SHARD 4

#define TAKE_PAGES 512u /* most that are out at once, or still to be given back, per shard */
#define MOVE_SINGLY                                                                                \
	2u	       /* pages that a kernel without batches moves in one call: more are copied   \
			*/
#define ZERO_PAGES 64u /* installed by one call */

/* mmap_changing is short (a fork, an mremap of other code); a kernel that never settles is
 * reported. */
#define AGAIN_MAX 100000

struct memory_shard {
	int fd;
	void *moved;  /* TAKE_PAGES, registered with fd: where UFFDIO_MOVE puts pages; or NULL */
	void *copied; /* TAKE_PAGES, plain: where the other way copies them */
	uint32_t out_max;      /* of TAKE_PAGES, for less where little memory was promised */
	uint32_t out;	       /* since they were last given back */
	uint32_t moved_end;    /* pages [0, moved_end) of `moved` may be present */
	bool moves_in_batches; /* one shootdown for all pages of an UFFDIO_MOVE */

	/* Written by the shard's thread, read by any. */
	_Atomic uint64_t calls, shootdowns, shootdown_pages, moves_denied;
	_Atomic int move_error;
};

struct guest_memory {
	uint8_t *base;
	uint64_t top;
	struct guest_memory_config config;
	uint64_t stripe_pages;
	void *zeros; /* ZERO_PAGES of them */
	struct memory_shard shard[SHARDS_MAX];
};

/*
 * What the guest's threads do to its memory without locks is their business, and that the kernel
 * orders it with this process's own reads (protection, taking out) is beyond a race detector's
 * sight.
 */
#if defined(__SANITIZE_THREAD__)
void AnnotateBenignRaceSized(const char *file, int line, const volatile void *at, size_t size,
			     const char *why);
static void races_are_benign(const void *at, size_t size)
{
	AnnotateBenignRaceSized(__FILE__, __LINE__, at, size, "guest memory");
}
#else
static void races_are_benign(const void *at, size_t size)
{
}
#endif

/* The one writer's increment: no locked instruction. */
static void count_up(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static void count_shootdown(struct memory_shard *shard, uint64_t pages, uint64_t times)
{
	count_up(&shard->shootdowns, times);
	count_up(&shard->shootdown_pages, pages);
}

static struct memory_shard *shard_of(struct guest_memory *memory, uint64_t gpn)
{
	return &memory->shard[guest_memory_shard(memory, gpn)];
}

static bool config_valid(const struct guest_memory_config *config)
{
	uint64_t end = 0;

	if (config->range_count == 0 || config->range_count > GUEST_MEMORY_RANGES_MAX ||
	    config->shard_count == 0 || config->shard_count > SHARDS_MAX)
		return false;
	for (uint32_t i = 0; i < config->range_count; i++) {
		const struct guest_memory_range *r = &config->range[i];

		if (r->size == 0 || r->gpa % CHUNK_BYTES != 0 || r->size % CHUNK_BYTES != 0 ||
		    r->gpa < end || r->gpa >= GPA_LIMIT || r->size > GPA_LIMIT - r->gpa)
			return false;
		end = r->gpa + r->size;
	}
	return true;
}

static int map_anonymous(size_t size, void **ret_at)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	*ret_at = at;
	return 0;
}

/* Reserves the whole span at a chunk's alignment (KVM likes it) and opens the RAM ranges in it. */
static int map_ranges(struct guest_memory *memory)
{
	uint64_t span = memory->top + CHUNK_BYTES;
	uint8_t *at =
		mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *base;

	if (at == MAP_FAILED)
		return -errno;
	base = at + (CHUNK_BYTES - (uintptr_t)at % CHUNK_BYTES) % CHUNK_BYTES;
	if (base > at)
		munmap(at, (size_t)(base - at));
	if (base + memory->top < at + span)
		munmap(base + memory->top, (size_t)(at + span - (base + memory->top)));
	memory->base = base;

	for (uint32_t i = 0; i < memory->config.range_count; i++) {
		const struct guest_memory_range *r = &memory->config.range[i];

		if (mprotect(base + r->gpa, r->size, PROT_READ | PROT_WRITE) < 0)
			return -errno;
	}
	/* Not every kernel has transparent huge pages: then there is nothing to forbid. */
	(void)madvise(base, memory->top, MADV_NOHUGEPAGE);
	races_are_benign(base, memory->top);
	if (madvise(base, memory->top, MADV_DONTFORK) < 0 ||
	    madvise(base, memory->top, MADV_DONTDUMP) < 0)
		return -errno;
	return 0;
}

static int register_range(int fd, void *at, uint64_t size)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)at, .len = size },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(fd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

static int open_shard(struct memory_shard *shard, const struct uffd_probe *probe)
{
	int error;

	shard->out_max = TAKE_PAGES;
	shard->fd = uffd_open();
	if (shard->fd < 0)
		return shard->fd;
	error = map_anonymous(TAKE_PAGES * PAGE_BYTES, &shard->copied);
	if (error < 0 || !probe->move)
		return error;
	shard->moves_in_batches = probe->move_in_batches;
	error = map_anonymous(TAKE_PAGES * PAGE_BYTES, &shard->moved);
	if (error < 0)
		return error;
	races_are_benign(shard->moved, TAKE_PAGES * PAGE_BYTES);
	(void)madvise(shard->moved, TAKE_PAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
	return register_range(shard->fd, shard->moved, TAKE_PAGES * PAGE_BYTES);
}

static int register_stripes(struct guest_memory *memory)
{
	for (uint32_t i = 0; i < memory->config.range_count; i++) {
		uint64_t gpn = memory->config.range[i].gpa >> PAGE_SHIFT;
		uint64_t left = memory->config.range[i].size >> PAGE_SHIFT;

		while (left > 0) {
			uint32_t some = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
			uint32_t count = guest_memory_run(memory, gpn, some);
			int fd = memory->shard[guest_memory_shard(memory, gpn)].fd;
			int error = register_range(fd, memory->base + (gpn << PAGE_SHIFT),
						   (uint64_t)count << PAGE_SHIFT);

			if (error < 0)
				return error;
			gpn += count;
			left -= count;
		}
	}
	return 0;
}

int guest_memory_create(const struct guest_memory_config *config, struct guest_memory **ret_memory)
{
	const struct guest_memory_range *last;
	struct guest_memory *memory;
	struct uffd_probe probe;
	uint64_t chunks;
	char why[8];
	int error;

	if (!config_valid(config))
		return -EINVAL;
	error = uffd_probe(&probe, why, sizeof(why));
	if (error < 0)
		return error;
	memory = calloc(1, sizeof(*memory));
	if (!memory)
		return -ENOMEM;
	memory->config = *config;
	last = &config->range[config->range_count - 1];
	memory->top = last->gpa + last->size;
	chunks = memory->top >> CHUNK_SHIFT;
	memory->stripe_pages = (chunks + config->shard_count * STRIPES_PER_SHARD - 1) /
			       (config->shard_count * STRIPES_PER_SHARD) * CHUNK_PAGES;
	if (config->shard_count == 1)
		memory->stripe_pages = chunks * CHUNK_PAGES;
	for (uint32_t i = 0; i < SHARDS_MAX; i++)
		memory->shard[i].fd = -1;

	error = map_ranges(memory);
	if (error == 0)
		error = map_anonymous(ZERO_PAGES * PAGE_BYTES, &memory->zeros);
	for (uint32_t i = 0; error == 0 && i < config->shard_count; i++)
		error = open_shard(&memory->shard[i], &probe);
	if (error == 0)
		error = register_stripes(memory);
	if (error < 0) {
		guest_memory_destroy(memory);
		return error;
	}
	*ret_memory = memory;
	return 0;
}

void guest_memory_destroy(struct guest_memory *memory)
{
	if (!memory)
		return;
	for (uint32_t i = 0; i < memory->config.shard_count; i++) {
		struct memory_shard *shard = &memory->shard[i];

		if (shard->fd >= 0)
			close(shard->fd);
		if (shard->moved)
			munmap(shard->moved, TAKE_PAGES * PAGE_BYTES);
		if (shard->copied)
			munmap(shard->copied, TAKE_PAGES * PAGE_BYTES);
	}
	if (memory->zeros)
		munmap(memory->zeros, ZERO_PAGES * PAGE_BYTES);
	if (memory->base)
		munmap(memory->base, memory->top);
	free(memory);
}

void *guest_memory_base(const struct guest_memory *memory)
{
	return memory->base;
}

uint64_t guest_memory_top(const struct guest_memory *memory)
{
	return memory->top;
}

uint32_t guest_memory_range_count(const struct guest_memory *memory)
{
	return memory->config.range_count;
}

struct guest_memory_range guest_memory_range(const struct guest_memory *memory, uint32_t index)
{
	assert(index < memory->config.range_count);
	return memory->config.range[index];
}

uint32_t guest_memory_shard_count(const struct guest_memory *memory)
{
	return memory->config.shard_count;
}

bool guest_memory_is_ram(const struct guest_memory *memory, uint64_t gpa, uint64_t size)
{
	for (uint32_t i = 0; i < memory->config.range_count; i++) {
		const struct guest_memory_range *r = &memory->config.range[i];

		if (gpa >= r->gpa && gpa - r->gpa < r->size)
			return size <= r->size - (gpa - r->gpa);
	}
	return false;
}

void *guest_memory_hva(const struct guest_memory *memory, uint64_t gpa)
{
	return guest_memory_is_ram(memory, gpa, 1) ? memory->base + gpa : NULL;
}

uint32_t guest_memory_shard(const struct guest_memory *memory, uint64_t gpn)
{
	return (uint32_t)(gpn / memory->stripe_pages % memory->config.shard_count);
}

uint32_t guest_memory_run(const struct guest_memory *memory, uint64_t gpn, uint32_t count)
{
	uint64_t run = memory->stripe_pages - gpn % memory->stripe_pages;

	for (uint32_t i = 0; i < memory->config.range_count; i++) {
		const struct guest_memory_range *r = &memory->config.range[i];
		uint64_t first = r->gpa >> PAGE_SHIFT, pages = r->size >> PAGE_SHIFT;

		if (gpn >= first && gpn - first < pages && pages - (gpn - first) < run)
			run = pages - (gpn - first);
	}
	return run < count ? (uint32_t)run : count;
}

uint64_t guest_memory_shard_pages(const struct guest_memory *memory, uint32_t shard)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < memory->config.range_count; i++) {
		uint64_t gpn = memory->config.range[i].gpa >> PAGE_SHIFT;
		uint64_t end = gpn + (memory->config.range[i].size >> PAGE_SHIFT);

		while (gpn < end) {
			uint32_t run = guest_memory_run(memory, gpn, UINT32_MAX);

			if (guest_memory_shard(memory, gpn) == shard)
				pages += run;
			gpn += run;
		}
	}
	return pages;
}

int guest_memory_fd(const struct guest_memory *memory, uint32_t shard)
{
	return memory->shard[shard].fd;
}

static bool fault_of(const struct guest_memory *memory, const struct uffd_msg *msg,
		     struct guest_fault *ret_fault)
{
	uint64_t gpa = msg->arg.pagefault.address - (uintptr_t)memory->base;

	if (msg->event != UFFD_EVENT_PAGEFAULT || gpa >= memory->top)
		return false;
	ret_fault->gpn = gpa >> PAGE_SHIFT;
	ret_fault->offset = gpa & (PAGE_BYTES - 1);
	ret_fault->tid = (pid_t)msg->arg.pagefault.feat.ptid;
	ret_fault->wp = (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0;
	ret_fault->write =
		ret_fault->wp || (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
	return true;
}

int guest_memory_faults(struct guest_memory *memory, uint32_t shard, struct guest_fault *ret_fault,
			uint32_t max)
{
	struct uffd_msg msg[64];
	uint32_t wanted = max < 64 ? max : 64;
	uint32_t count = 0;
	ssize_t got = read(memory->shard[shard].fd, msg, wanted * sizeof(msg[0]));

	count_up(&memory->shard[shard].calls, 1);
	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	for (size_t i = 0; i < (size_t)got / sizeof(msg[0]); i++)
		if (fault_of(memory, &msg[i], &ret_fault[count]))
			count++;
	return (int)count;
}

/* One UFFDIO_COPY of `size` bytes, gone on with where it stopped. */
static int copy_in(struct memory_shard *shard, uint8_t *to, const uint8_t *from, uint64_t size,
		   uint64_t mode)
{
	for (uint32_t again = 0; size > 0;) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)to, .src = (uintptr_t)from, .len = size, .mode = mode
		};
		int error = ioctl(shard->fd, UFFDIO_COPY, &copy) < 0 ? -errno : 0;

		count_up(&shard->calls, 1);
		if (error == 0)
			return 0;
		if (error != -EAGAIN)
			return error;
		if (copy.copy > 0) {
			to += copy.copy;
			from += copy.copy;
			size -= (uint64_t)copy.copy;
		} else if (++again > AGAIN_MAX) {
			return error;
		} else {
			sched_yield();
		}
	}
	return 0;
}

int guest_memory_install(struct guest_memory *memory, uint64_t gpn, uint32_t count,
			 const void *data, enum coh_access access, bool wake)
{
	struct memory_shard *shard = shard_of(memory, gpn);
	uint64_t mode = (access == COH_READ ? UFFDIO_COPY_MODE_WP : 0) |
			(wake ? 0 : UFFDIO_COPY_MODE_DONTWAKE);

	assert(access != COH_NONE);
	while (count > 0) {
		uint32_t some = data || count < ZERO_PAGES ? count : ZERO_PAGES;
		uint64_t size = (uint64_t)some << PAGE_SHIFT;
		const void *from = data ? data : memory->zeros;
		int error = copy_in(shard, memory->base + (gpn << PAGE_SHIFT), from, size, mode);

		if (error < 0)
			return error;
		gpn += some;
		count -= some;
	}
	return 0;
}

static int write_protect(struct memory_shard *shard, void *at, uint64_t size, uint64_t mode)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)at, .len = size },
		.mode = mode,
	};

	count_up(&shard->calls, 1);
	count_shootdown(shard, size >> PAGE_SHIFT, 1);
	for (uint32_t again = 0; ioctl(shard->fd, UFFDIO_WRITEPROTECT, &wp) < 0;) {
		if (errno != EAGAIN || ++again > AGAIN_MAX)
			return -errno;
		sched_yield();
	}
	return 0;
}

static int wake_range(struct memory_shard *shard, void *at, uint64_t size)
{
	struct uffdio_range range = { .start = (uintptr_t)at, .len = size };

	count_up(&shard->calls, 1);
	return ioctl(shard->fd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}

int guest_memory_protect(struct guest_memory *memory, uint64_t gpn, uint32_t count,
			 enum coh_access access, bool wake)
{
	struct memory_shard *shard = shard_of(memory, gpn);
	void *at = memory->base + (gpn << PAGE_SHIFT);
	uint64_t size = (uint64_t)count << PAGE_SHIFT;
	int error;

	assert(access != COH_NONE);
	/* The kernel allows DONTWAKE only when protection is taken away, and setting it never
	 * wakes. */
	if (access == COH_READ) {
		error = write_protect(shard, at, size, UFFDIO_WRITEPROTECT_MODE_WP);
		if (error == 0 && wake)
			error = wake_range(shard, at, size);
		return error;
	}
	return write_protect(shard, at, size, wake ? 0 : UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
}

int guest_memory_drop(struct guest_memory *memory, uint64_t gpn, uint32_t pages)
{
	struct memory_shard *shard = shard_of(memory, gpn);
	void *at = memory->base + (gpn << PAGE_SHIFT);

	count_up(&shard->calls, 1);
	count_shootdown(shard, pages, 1);
	return madvise(at, (size_t)pages << PAGE_SHIFT, MADV_DONTNEED) < 0 ? -errno : 0;
}

uint32_t guest_memory_limit_taken(struct guest_memory *memory, uint32_t shard_index, uint32_t pages)
{
	struct memory_shard *shard = &memory->shard[shard_index];

	assert(shard->out == 0);
	shard->out_max = pages < 1 ? 1 : pages < TAKE_PAGES ? pages : TAKE_PAGES;
	return shard->out_max;
}

uint32_t guest_memory_takeable(const struct guest_memory *memory, uint32_t shard)
{
	return memory->shard[shard].out_max - memory->shard[shard].out;
}

/* Whether the page is in memory; one that the host has swapped out is not. */
static bool is_there(const uint8_t *page)
{
	unsigned char there = 0;

	return mincore((void *)(uintptr_t)page, PAGE_BYTES, &there) == 0 && (there & 1);
}

/*
 * All or nothing of it may be moved; the number of pages that were. Linux (6.18 was seen to) may move
 * a page and say that it has not: then it is there, and no longer here. To copy it would be to wait
 * for a page that only this thread brings. (A page that is not here alone may be swapped out.)
 */
static uint32_t move_out(struct memory_shard *shard, const uint8_t *from, uint32_t pages)
{
	struct uffdio_move move = {
		.dst = (uintptr_t)shard->moved + (uintptr_t)shard->out * PAGE_BYTES,
		.src = (uintptr_t)from,
		.len = (uint64_t)pages * PAGE_BYTES,
		.mode = UFFDIO_MOVE_MODE_DONTWAKE,
	};
	uint32_t done = pages, said;
	int error = 0;

	count_up(&shard->calls, 1);
	if (ioctl(shard->fd, UFFDIO_MOVE, &move) < 0) {
		error = errno;
		done = move.move > 0 ? (uint32_t)((uint64_t)move.move / PAGE_BYTES) : 0;
	}
	said = done;
	while (done < pages &&
	       is_there((uint8_t *)(uintptr_t)move.dst + (size_t)done * PAGE_BYTES) &&
	       !is_there(from + (size_t)done * PAGE_BYTES))
		done++;
	if (done > said) {
		atomic_store_explicit(&shard->move_error, error, memory_order_relaxed);
		count_up(&shard->moves_denied, 1);
	}
	if (done > 0) {
		shard->moved_end = shard->out + done;
		count_shootdown(shard, done, shard->moves_in_batches ? 1 : done);
	}
	return done;
}

/* Takes pages out by hand into `to`: nobody writes any more, copy, nobody reads any more. */
static int copy_out(struct guest_memory *memory, uint64_t gpn, uint32_t pages, void *to)
{
	int error = guest_memory_protect(memory, gpn, pages, COH_READ, false);

	if (error < 0)
		return error;
	memcpy(to, memory->base + (gpn << PAGE_SHIFT), (size_t)pages * PAGE_BYTES);
	return guest_memory_drop(memory, gpn, pages);
}

int guest_memory_take(struct guest_memory *memory, uint64_t gpn, uint32_t pages,
		      const void **ret_data)
{
	struct memory_shard *shard = shard_of(memory, gpn);
	uint8_t *copied = (uint8_t *)shard->copied + (size_t)shard->out * PAGE_BYTES;
	uint32_t moved = 0;
	int error = 0;

	if (pages > shard->out_max - shard->out)
		return -ENOSPC;
	/* A page that is shared with a forked child, pinned or the zero page cannot be moved. */
	if (shard->moved && (shard->moves_in_batches || pages <= MOVE_SINGLY))
		moved = move_out(shard, memory->base + (gpn << PAGE_SHIFT), pages);
	if (moved == pages) {
		*ret_data = (uint8_t *)shard->moved + (size_t)shard->out * PAGE_BYTES;
	} else {
		if (moved > 0)
			memcpy(copied, (uint8_t *)shard->moved + (size_t)shard->out * PAGE_BYTES,
			       (size_t)moved * PAGE_BYTES);
		error = copy_out(memory, gpn + moved, pages - moved,
				 copied + (size_t)moved * PAGE_BYTES);
		*ret_data = copied;
	}
	shard->out += pages;
	return error;
}

/*
 * Nobody but this thread ever touched what was moved, but the kernel does not know that: giving it
 * back is a shootdown like any other. So it waits until there is much of it.
 */
int guest_memory_recycle(struct guest_memory *memory, uint32_t shard_index)
{
	struct memory_shard *shard = &memory->shard[shard_index];
	uint32_t end = shard->moved_end;

	if (shard->out <= shard->out_max / 2)
		return 0;
	shard->out = 0;
	shard->moved_end = 0;
	if (end == 0)
		return 0;
	count_up(&shard->calls, 1);
	count_shootdown(shard, end, 1);
	return madvise(shard->moved, (size_t)end * PAGE_BYTES, MADV_DONTNEED) < 0 ? -errno : 0;
}

int guest_memory_wake(struct guest_memory *memory, uint64_t gpn, uint32_t pages)
{
	return wake_range(shard_of(memory, gpn), memory->base + (gpn << PAGE_SHIFT),
			  (uint64_t)pages << PAGE_SHIFT);
}

void guest_memory_counts(const struct guest_memory *memory, uint32_t shard_index,
			 struct guest_memory_counts *ret_counts)
{
	const struct memory_shard *shard = &memory->shard[shard_index];

	ret_counts->calls = atomic_load_explicit(&shard->calls, memory_order_relaxed);
	ret_counts->shootdowns = atomic_load_explicit(&shard->shootdowns, memory_order_relaxed);
	ret_counts->shootdown_pages =
		atomic_load_explicit(&shard->shootdown_pages, memory_order_relaxed);
	ret_counts->moves_denied = atomic_load_explicit(&shard->moves_denied, memory_order_relaxed);
	ret_counts->move_error = atomic_load_explicit(&shard->move_error, memory_order_relaxed);
}

/* Counted chunk by chunk, so that the vector stays small. */
int guest_memory_resident(const struct guest_memory *memory, uint64_t *ret_pages)
{
	unsigned char present[CHUNK_PAGES];
	uint64_t pages = 0;

	for (uint32_t i = 0; i < memory->config.range_count; i++) {
		const struct guest_memory_range *r = &memory->config.range[i];

		for (uint64_t at = r->gpa; at < r->gpa + r->size; at += CHUNK_BYTES) {
			if (mincore(memory->base + at, CHUNK_BYTES, present) < 0)
				return -errno;
			for (uint32_t page = 0; page < CHUNK_PAGES; page++)
				pages += present[page] & 1;
		}
	}
	*ret_pages = pages;
	return 0;
}
