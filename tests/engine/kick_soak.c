/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kicks, by the million: vCPU threads of the node (node/vcpu.h) on the soft engine, in loops of
 * every kind of code (guests_soak.S), with a fast timer of their own, while other threads post.
 *
 *   askers   one a vCPU: posts an interrupt, waits until the guest's handler has counted it, and
 *            again; an answer that takes ANSWER_NS_MAX is a kick that was lost
 *   posters  post whenever they like, so that kicks meet kicks, and the timer's
 *   server   of the kind `waits`: gives the pages that the guest waits for, late, and takes them
 *   main     watches, as a node's main thread does: no vCPU may have to be kicked again
 *
 *   kick-soak [--seconds N] [--posts N] [KIND...]
 *
 * Each kind goes on for its share of the seconds (18), or up to so many posts (no bound). Exit
 * status 0: none was lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/vcpu_place.h"
#include "node/vcpu.h"
#include "tests/engine/rig.h"

#define VCPUS	      2u
#define POSTERS	      2u
#define ANSWER_NS_MAX 20000000000ull
#define ASK_VECTOR    0x40u
#define POST_VECTOR   0x41u
#define HANDLERS      0x30000u
#define CODE	      0x1000u
#define SHARED_CODE   0x40000u
#define FS_DATA	      0x800u
#define DATA	      0x100000u
#define DATA_BYTES    0x80000u
#define WAITING	      0x200000u
#define WAITING_BYTES 0x40000u

static struct {
	struct rig rig;
	struct vcpu *vcpu[VCPUS];
	struct vcpu_places places;	/* all are here */
	_Atomic bool stop, ended, lost; /* no more posts; the vCPUs are out; it has failed */
	_Atomic uint64_t posts, answers, worst_ns, sum_ns;
	uint64_t posts_max;
	int uffd;
} soak;

static uint64_t on_now(void *ctx)
{
	(void)ctx;
	return rig_now_ns();
}

static void on_tsc(void *ctx, struct tsc_line *ret_tsc)
{
	(void)ctx;
	*ret_tsc = (struct tsc_line){ .guest_tsc = 77 };
}

static int on_access(void *ctx, uint32_t vcpu, const struct pc_access *access)
{
	(void)ctx;
	(void)vcpu;
	(void)access;
	return 0;
}

static void on_interrupt(void *ctx, const struct interrupt *interrupt)
{
	(void)ctx;
	(void)interrupt;
}

static void on_eoi(void *ctx, uint32_t vcpu, uint8_t vector)
{
	(void)ctx;
	(void)vcpu;
	(void)vector;
}

static void on_ended(void *ctx, uint32_t vcpu, const struct vcpu_end *end)
{
	(void)ctx;
	if (end->kind == VCPU_END_STOPPED)
		return;
	printf("  vCPU %u ended at %lx: %s (%lx)\n", vcpu, (unsigned long)end->rip,
	       end->reason ? end->reason : "shutdown", (unsigned long)end->detail);
	atomic_store(&soak.lost, true);
}

static const struct vcpu_ops ops = { .now_ns = on_now,
				     .tsc = on_tsc,
				     .io = on_access,
				     .mmio = on_access,
				     .send_interrupt = on_interrupt,
				     .eoi = on_eoi,
				     .ended = on_ended };

/* How often the guest's handler of this vector has run. */
static uint32_t handled(uint32_t vcpu, uint32_t vector)
{
	const uint8_t *page = soak.rig.memory + RIG_FS + vcpu * 0x1000;

	return __atomic_load_n((const uint32_t *)(const void *)(page + (size_t)4 * vector),
			       __ATOMIC_ACQUIRE);
}

static void pause_ns(uint64_t ns)
{
	struct timespec time = { .tv_nsec = (long)ns };

	nanosleep(&time, NULL);
}

static void count_answer(uint64_t ns)
{
	uint64_t worst = atomic_load(&soak.worst_ns);

	atomic_fetch_add(&soak.answers, 1);
	atomic_fetch_add(&soak.sum_ns, ns);
	while (ns > worst && !atomic_compare_exchange_weak(&soak.worst_ns, &worst, ns))
		;
}

static bool ends(void)
{
	return atomic_load(&soak.stop) || atomic_load(&soak.lost);
}

/* As a node does: post() in node/guest_io.c. */
static void post_to(uint32_t vcpu, uint8_t vector)
{
	bool first = lapic_inbox_post(vcpu_inbox(soak.vcpu[vcpu]), INTERRUPT_FIXED, vector, false);
	uint16_t to;

	if (vcpu_place_route(&soak.places, vcpu, &to) == PLACE_WAKE && first)
		vcpu_wake(soak.vcpu[vcpu]);
}

static void *ask(void *arg)
{
	uint32_t v = (uint32_t)(uintptr_t)arg, before = 0;
	unsigned int seed = v + 1;

	while (!ends()) {
		uint64_t start = rig_now_ns();

		post_to(v, ASK_VECTOR);
		atomic_fetch_add(&soak.posts, 1);
		while (handled(v, ASK_VECTOR) == before && !atomic_load(&soak.lost)) {
			sched_yield();
			if (rig_now_ns() - start < ANSWER_NS_MAX)
				continue;
			printf("  vCPU %u has not answered for %llu s, after %u answers\n", v,
			       ANSWER_NS_MAX / 1000000000, before);
			atomic_store(&soak.lost, true);
		}
		before++;
		count_answer(rig_now_ns() - start);
		for (int spin = rand_r(&seed) % 300; spin > 0; spin--)
			__builtin_ia32_pause();
	}
	return NULL;
}

static void *post(void *arg)
{
	uint32_t number = (uint32_t)(uintptr_t)arg;
	unsigned int seed = 100 + number;

	prctl(PR_SET_TIMERSLACK, 1);
	while (!ends()) {
		post_to((uint32_t)rand_r(&seed) % VCPUS, (uint8_t)(POST_VECTOR + number));
		atomic_fetch_add(&soak.posts, 1);
		pause_ns((uint64_t)rand_r(&seed) % 60000);
	}
	return NULL;
}

static void give(const struct uffd_msg *message)
{
	struct uffdio_zeropage zero = {
		.range = { .start = message->arg.pagefault.address & ~0xfffull, .len = 4096 }
	};

	ioctl(soak.uffd, UFFDIO_ZEROPAGE, &zero);
}

static void *serve(void *arg)
{
	struct pollfd poll_fd = { .fd = soak.uffd, .events = POLLIN };
	struct uffd_msg message;
	unsigned int seed = 7;
	uint32_t given = 0;

	(void)arg;
	prctl(PR_SET_TIMERSLACK, 1);
	while (!atomic_load(&soak.ended)) {
		if (poll(&poll_fd, 1, 10) != 1 ||
		    read(soak.uffd, &message, sizeof(message)) != sizeof(message))
			continue;
		pause_ns((uint64_t)rand_r(&seed) % 150000);
		give(&message);
		if (++given % 40 == 0)
			madvise(soak.rig.memory + WAITING, WAITING_BYTES, MADV_DONTNEED);
	}
	return NULL;
}

static int open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range = { .start = (uintptr_t)soak.rig.memory + WAITING,
						    .len = WAITING_BYTES },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };

	soak.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	CHECK(soak.uffd >= 0, "userfaultfd: %s", strerrordesc_np(errno));
	CHECK(ioctl(soak.uffd, UFFDIO_API, &api) == 0, "UFFDIO_API");
	CHECK(ioctl(soak.uffd, UFFDIO_REGISTER, &range) == 0, "UFFDIO_REGISTER");
	return 0;
}

static void load(const struct guest *guest, uint32_t gpa)
{
	memcpy(soak.rig.memory + gpa, guest->start, (size_t)(guest->end - guest->start));
}

static int create_vcpu(uint32_t v, const struct guest *guest)
{
	static struct vcpu_state state;
	struct vcpu_config config = { .engine_ops = rig_ops,
				      .engine = soak.rig.engine,
				      .number = v,
				      .lapic = { .tsc_khz = rig_features.tsc_khz },
				      .ops = &ops };
	uint64_t data = DATA + v * DATA_BYTES;

	load(guest, CODE + v * 0x1000);
	memcpy(soak.rig.memory + RIG_FS + v * 0x1000 + FS_DATA, &data, sizeof(data));
	rig_state(&soak.rig, v, RIG_LONG, &state);
	state.rip = CODE + v * 0x1000;
	lapic_reset(&state.lapic, v, v == 0);
	state.lapic.svr = 0x1ff;
	CHECK(vcpu_create(&config, &state, &soak.vcpu[v]) == 0, "vCPU %u", v);
	return 0;
}

static int set_up(const struct guest *guest)
{
	static const uint8_t shared[] = { 0xb8, 0, 0, 0, 0, 0xc3 }; /* mov $0, %eax; ret */
	struct guest handlers = GUEST(soak_handlers);

	memset(&soak.rig, 0, sizeof(soak.rig));
	vcpu_places_init(&soak.places, 0, 1, VCPUS, (const uint16_t[VCPUS]){ 0 });
	CHECK(rig_open(&soak.rig, NULL) == 0, "open");
	load(&handlers, HANDLERS);
	for (uint32_t i = 0; i < 16; i++)
		rig_set_handler(&soak.rig, (uint8_t)(0x40 + i), HANDLERS + 64 * i);
	memcpy(soak.rig.memory + SHARED_CODE, shared, sizeof(shared));
	for (uint32_t v = 0; v < VCPUS; v++)
		CHECK(create_vcpu(v, guest) == 0, "vCPU %u", v);
	return open_uffd();
}

/* Until the time is over, or a kick was lost. */
static void watch_all(uint64_t ns)
{
	uint64_t until = rig_now_ns() + ns;

	while (!atomic_load(&soak.lost) && rig_now_ns() < until &&
	       (!soak.posts_max || atomic_load(&soak.posts) < soak.posts_max)) {
		pause_ns(VCPU_WATCH_NS);
		for (uint32_t v = 0; v < VCPUS; v++) {
			if (vcpu_watch(soak.vcpu[v]) != VCPU_WATCHED_REKICKED)
				continue;
			printf("  vCPU %u had to be kicked again\n", v);
			atomic_store(&soak.lost, true);
		}
	}
}

static int run_kind(const char *name, const struct guest *guest, uint64_t ns)
{
	pthread_t threads[VCPUS + POSTERS + 1];
	uint32_t count = 0;

	memset(&soak, 0, offsetof(__typeof__(soak), posts_max));
	CHECK(set_up(guest) == 0, "%s", name);
	for (uint32_t v = 0; v < VCPUS; v++)
		CHECK(vcpu_start(soak.vcpu[v]) == 0, "start");
	pthread_create(&threads[count++], NULL, serve, NULL);
	for (uint32_t v = 0; v < VCPUS; v++)
		pthread_create(&threads[count++], NULL, ask, (void *)(uintptr_t)v);
	for (uint32_t i = 0; i < POSTERS; i++)
		pthread_create(&threads[count++], NULL, post, (void *)(uintptr_t)i);
	watch_all(ns);
	atomic_store(&soak.stop, true);
	while (count > 1) /* askers get their last answer */
		pthread_join(threads[--count], NULL);
	if (atomic_load(&soak.lost)) {
		printf("FAILED  %s: a kick was lost\n", name);
		return -1; /* what hangs, hangs: the process ends */
	}
	for (uint32_t v = 0; v < VCPUS; v++)
		vcpu_stop(soak.vcpu[v]);
	for (uint32_t v = 0; v < VCPUS; v++)
		vcpu_join(soak.vcpu[v]);
	atomic_store(&soak.ended, true);
	pthread_join(threads[0], NULL);
	printf("ok      %-9s %8lu posts, %7lu answers, mean %5lu us, worst %7lu us, %u ticks\n",
	       name, (unsigned long)soak.posts, (unsigned long)soak.answers,
	       (unsigned long)(soak.sum_ns / 1000 / (soak.answers ? soak.answers : 1)),
	       (unsigned long)(soak.worst_ns / 1000), handled(0, 0x4f) + handled(1, 0x4f));
	for (uint32_t v = 0; v < VCPUS; v++)
		vcpu_destroy(soak.vcpu[v]);
	close(soak.uffd);
	rig_close(&soak.rig);
	return 0;
}

int main(int argc, char **argv)
{
	const struct {
		const char *name;
		struct guest guest;
	} kinds[] = {
		{ "straight", GUEST(soak_straight) }, { "x87", GUEST(soak_x87) },
		{ "strings", GUEST(soak_strings) },   { "jumps", GUEST(soak_jumps) },
		{ "places", GUEST(soak_places) },     { "stepped", GUEST(soak_stepped) },
		{ "walks", GUEST(soak_walks) },	      { "patches", GUEST(soak_patches) },
		{ "waits", GUEST(soak_waits) },
	};
	const size_t kind_count = sizeof(kinds) / sizeof(kinds[0]);
	uint64_t seconds = 18;
	char why[256] = "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	rig_ops = &engine_soft;
	for (; argc > 2 && !strncmp(argv[1], "--", 2); argc -= 2, argv += 2) {
		if (!strcmp(argv[1], "--seconds"))
			seconds = strtoull(argv[2], NULL, 10);
		else if (!strcmp(argv[1], "--posts"))
			soak.posts_max = strtoull(argv[2], NULL, 10);
	}
	if (rig_ops->probe(&rig_features, why, sizeof(why))) {
		printf("%s\n", why);
		return 1;
	}
	for (size_t i = 0; i < kind_count; i++) {
		bool chosen = argc < 2;

		for (int a = 1; a < argc; a++)
			chosen = chosen || !strcmp(argv[a], kinds[i].name);
		if (chosen && run_kind(kinds[i].name, &kinds[i].guest,
				       seconds * 1000000000u / (argc < 2 ? kind_count : 1)))
			_exit(1);
	}
	return 0;
}
