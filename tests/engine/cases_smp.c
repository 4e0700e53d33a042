/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two vCPUs at once, each in a thread: code that the other one (or the outside) changes, locked
 * instructions, the order of stores (SDM vol. 3, 8.1 and 8.2). The guests judge themselves and
 * leave what they found.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/engine/cases.h"

#define WORD(n)	     (0x30000u + 64u * (n))
#define ROUNDS	     WORD(0)
#define FAILED	     WORD(1)
#define SITE	     WORD(2)
#define TRAPS	     WORD(8)
#define DONE	     WORD(7)
#define CALLS	     WORD(9)
#define A	     WORD(10)
#define B	     WORD(11)
#define SPLIT	     0x31ffdu
#define LINES	     0x3203du
#define BREAKPOINT   3
#define PAGE_FAULT   14
#define HANDLER_AT   0x10
#define POKE_ROUNDS  1000u
#define SHORT_ROUNDS 100000u
#define MUCH_BYTES   (256ull << 30)

/* Emulated hosts are slow, and their CPUs wait for each other's time slices. */
static uint64_t rounds_of(uint64_t rounds)
{
	return rig_host == RIG_HOST_REAL ? rounds : rounds / 10;
}

static uint64_t word(const struct rig *rig, uint32_t gpa)
{
	uint64_t value;

	memcpy(&value, rig->memory + gpa, sizeof(value));
	return value;
}

static void set_word(struct rig *rig, uint32_t gpa, uint64_t value)
{
	memcpy(rig->memory + gpa, &value, sizeof(value));
}

struct second {
	struct rig *rig;
	uint32_t number; /* of the vCPU */
	struct guest guest;
	_Atomic int ready, stop, ended;
	pid_t thread;
	enum engine_exit_kind last;
	int err;
};

static void *run_second(void *arg)
{
	struct second *second = arg;
	struct rig *rig = second->rig;
	uint32_t number = second->number;

	second->thread = gettid();
	second->err = rig_start(rig, number, second->guest, RIG_LONG);
	atomic_store(&second->ready, 1);
	while (!second->err && !atomic_load(&second->stop)) {
		second->err = rig_ops->vcpu_run(rig->vcpu[number], &rig->exit[number]);
		second->last = rig->exit[number].kind;
		if (second->last != EXIT_KICKED)
			break;
	}
	atomic_store(&second->ended, 1);
	return NULL;
}

static int run_both(struct rig *rig, struct guest guest, uint64_t rounds)
{
	struct second second = { .rig = rig, .number = 1, .guest = guest };
	pthread_t thread;
	int err;

	CHECK(rig_start(rig, 0, guest, RIG_LONG) == 0, "start");
	CHECK(rig_ops->vcpu_create(rig->engine, 1, &rig->vcpu[1]) == 0, "second vCPU");
	set_word(rig, ROUNDS, rounds);
	CHECK(pthread_create(&thread, NULL, run_second, &second) == 0, "thread");
	while (!atomic_load(&second.ready)) /* it loads the guest as well */
		sched_yield();
	err = rig_expect(rig, 0, EXIT_HLT);
	if (err) {
		atomic_store(&second.stop, 1);
		rig_ops->vcpu_kick(rig->vcpu[1]);
	}
	pthread_join(thread, NULL);
	CHECK(err == 0 && second.err == 0, "run: %d", second.err);
	CHECK(second.last == EXIT_HLT, "%s", rig_kind_name(second.last));
	CHECK(word(rig, FAILED) == 0, "failure %lu: %lx, not %lx", (unsigned long)word(rig, FAILED),
	      (unsigned long)word(rig, A), (unsigned long)word(rig, B));
	return 0;
}

/* QEMU 7.2 can translate the old bytes while they are changed, and then keeps that translation. */
static bool goes_stale(void)
{
	if (rig_host != RIG_HOST_QEMU)
		return false;
	printf("  left out: QEMU 7.2 now and then keeps stale code\n");
	return true;
}

static int poke(struct rig *rig, uint64_t site)
{
	uint64_t rounds = rig_rounds ? rig_rounds : rounds_of(POKE_ROUNDS);

	if (goes_stale())
		return 0;
	rig_set_handler(rig, BREAKPOINT, RIG_LOAD + HANDLER_AT);
	set_word(rig, SITE, site);
	if (run_both(rig, GUEST(poke), rounds))
		return -1;
	printf("  %lu patches, %lu calls, %lu breakpoints\n", (unsigned long)rounds,
	       (unsigned long)word(rig, CALLS), (unsigned long)word(rig, TRAPS));
	return 0;
}

static int test_poke_far(struct rig *rig)
{
	extern const uint8_t guest_poke_far[];

	return poke(rig, RIG_LOAD + (uint64_t)(guest_poke_far - GUEST(poke).start));
}

static int test_poke_near(struct rig *rig)
{
	extern const uint8_t guest_poke_near[];

	return poke(rig, RIG_LOAD + (uint64_t)(guest_poke_near - GUEST(poke).start));
}

static int test_code_neighbours(struct rig *rig)
{
	return goes_stale() ? 0 : run_both(rig, GUEST(neighbours), rounds_of(POKE_ROUNDS));
}

static int test_code_written(struct rig *rig)
{
	return goes_stale() ? 0 : run_both(rig, GUEST(written), rounds_of(SHORT_ROUNDS));
}

static int test_code_released(struct rig *rig)
{
	return goes_stale() ? 0 : run_both(rig, GUEST(released), rounds_of(POKE_ROUNDS) / 10);
}

static int test_locked(struct rig *rig)
{
	const uint64_t rounds = rounds_of(SHORT_ROUNDS);

	if (run_both(rig, GUEST(locked), rounds))
		return -1;
	CHECK(word(rig, A) == 2 * rounds && word(rig, B) == 2 * rounds &&
		      word(rig, B + 8) == 2 * rounds && word(rig, B + 16) == 6 * rounds,
	      "%lu %lu %lu %lu", (unsigned long)word(rig, A), (unsigned long)word(rig, B),
	      (unsigned long)word(rig, B + 8), (unsigned long)word(rig, B + 16));
	CHECK(word(rig, CALLS) == 2 * rounds && word(rig, SPLIT) == 4 * rounds, "%lu %lu",
	      (unsigned long)word(rig, CALLS), (unsigned long)word(rig, SPLIT));
	return 0;
}

static int test_locked_split(struct rig *rig)
{
	const uint64_t rounds = rounds_of(POKE_ROUNDS);

	if (run_both(rig, GUEST(locked_split), rounds))
		return -1;
	CHECK((uint32_t)word(rig, SPLIT) == 2 * rounds, "%lu", (unsigned long)word(rig, SPLIT));
	CHECK(word(rig, SPLIT + 0x1000 - 2) == 2 * rounds, "%lu",
	      (unsigned long)word(rig, SPLIT + 0x1000 - 2));
	return 0;
}

static int open_with(struct rig *rig, const char *variable, const char *value)
{
	int err;

	rig_close(rig);
	setenv(variable, value, 1);
	err = rig_open(rig, NULL);
	unsetenv(variable);
	return err;
}

static int open_small_cache(struct rig *rig)
{
	return open_with(rig, "EAGRE_SOFT_CACHE_BYTES", "65536");
}

/* Who empties the cache says so, to who looks for lost kicks. */
static int check_work_counted(const struct rig *rig)
{
	uint64_t work = 0;

	if (!rig_ops->vcpu_work)
		return 0;
	for (uint32_t v = 0; v < 2; v++)
		work += rig_ops->vcpu_work(rig->vcpu[v]);
	CHECK(work > 0, "%lu pieces of work", (unsigned long)work);
	return 0;
}

/*
 * The code cache is emptied again and again while an instruction that it knew decoded waits for its
 * turn. There is much memory that nobody touches: emptying must not look at it.
 */
static int test_cache_emptied(struct rig *rig)
{
	const uint64_t rounds = rounds_of(POKE_ROUNDS) / 20;
	void *untouched = mmap(NULL, MUCH_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t begin_ns;
	int err;

	CHECK(untouched != MAP_FAILED, "mmap");
	err = open_small_cache(rig);
	if (!err)
		err = rig_ops->add_memory(rig->engine, 1ull << 32, untouched, MUCH_BYTES);
	begin_ns = rig_now_ns();
	if (!err)
		err = run_both(rig, GUEST(emptied), rounds);
	if (!err)
		err = check_work_counted(rig);
	if (!err)
		printf("  %lu fillings, %lu toggles, %lu ms\n", (unsigned long)word(rig, CALLS),
		       (unsigned long)word(rig, A),
		       (unsigned long)(rig_now_ns() - begin_ns) / 1000000);
	rig_close(rig);
	munmap(untouched, MUCH_BYTES);
	return err;
}

static int come_and_go(struct rig *rig, uint32_t times)
{
	for (uint32_t i = 0; i < times; i++) {
		CHECK(rig_start(rig, 0, GUEST(emptied), RIG_LONG) == 0, "start");
		CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "run");
		rig_ops->vcpu_destroy(rig->vcpu[0]);
		rig->vcpu[0] = NULL;
	}
	return 0;
}

/* A vCPU is made, runs and goes again and again, while another one pauses all there are. */
static int test_cache_visitors(struct rig *rig)
{
	const uint32_t times = (uint32_t)rounds_of(POKE_ROUNDS) / 2;
	struct second second = { .rig = rig, .number = 1, .guest = GUEST(emptied) };
	pthread_t thread;
	int err;

	if (open_small_cache(rig))
		return -1;
	CHECK(rig_ops->vcpu_create(rig->engine, 1, &rig->vcpu[1]) == 0, "second vCPU");
	set_word(rig, SITE, 1);
	CHECK(pthread_create(&thread, NULL, run_second, &second) == 0, "thread");
	while (!atomic_load(&second.ready))
		sched_yield();
	err = come_and_go(rig, times);
	set_word(rig, DONE, 1);
	pthread_join(thread, NULL);
	CHECK(err == 0 && second.err == 0 && second.last == EXIT_HLT, "%s",
	      rig_kind_name(second.last));
	CHECK(word(rig, A) == times && (uint32_t)word(rig, SPLIT) == times, "%lu, %lu",
	      (unsigned long)word(rig, A), (unsigned long)word(rig, SPLIT));
	printf("  %lu fillings, %u visits\n", (unsigned long)word(rig, CALLS), times);
	return 0;
}

/* Who does nothing but pause the others leaves them some time. */
static int test_lock_hog(struct rig *rig)
{
	const uint64_t rounds = rounds_of(100 * SHORT_ROUNDS);
	uint64_t begin_ns = rig_now_ns();

	if (run_both(rig, GUEST(lock_hog), rounds))
		return -1;
	CHECK(word(rig, A) == rounds, "%lu", (unsigned long)word(rig, A));
	printf("  %u locked instructions in %lu ms\n", (uint32_t)word(rig, SPLIT),
	       (unsigned long)(rig_now_ns() - begin_ns) / 1000000);
	return 0;
}

/* A thread that has no core for a while. */
static _Atomic int thread_held, thread_let_go;

static void hold_thread(int number)
{
	(void)number;
	atomic_store(&thread_held, 1);
	while (!atomic_load(&thread_let_go))
		usleep(1000);
}

static uint64_t cpu_ns(pthread_t thread)
{
	struct timespec time = { 0 };
	clockid_t clock;

	if (!pthread_getcpuclockid(thread, &clock))
		clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

#define HOLD_MS 300u
#define REST_NS 20000000000ull

static int wait_for_word(struct rig *rig, uint32_t gpa)
{
	uint64_t begin_ns = rig_now_ns();

	while (!word(rig, gpa))
		CHECK(rig_now_ns() - begin_ns < 20000000000ull && !sched_yield(), "%x", gpa);
	return 0;
}

/* vCPU 0 stands still without knowing that it should; the others are about to pause it. */
static int hold_first(struct rig *rig, struct second *vcpu, pthread_t *thread)
{
	struct sigaction action = { .sa_handler = hold_thread, .sa_flags = SA_ONSTACK };
	uint64_t spent_ns, locked, before_ns, begin_ns = rig_now_ns();

	CHECK(wait_for_word(rig, A) == 0, "it runs");
	sigfillset(&action.sa_mask);
	sigaction(SIGUSR1, &action, NULL);
	syscall(SYS_tgkill, getpid(), vcpu[0].thread, SIGUSR1);
	while (!atomic_load(&thread_held))
		CHECK(rig_now_ns() - begin_ns < REST_NS && !sched_yield(), "it is not held");
	/* Until the others have come to where they wait, whenever they get a core. */
	do {
		locked = word(rig, SPLIT);
		before_ns = cpu_ns(thread[1]) + cpu_ns(thread[2]);
		rig_sleep_ms(HOLD_MS);
		spent_ns = cpu_ns(thread[1]) + cpu_ns(thread[2]) - before_ns;
		CHECK(rig_now_ns() - begin_ns < REST_NS, "they do not come to rest");
	} while (word(rig, SPLIT) != locked || spent_ns >= HOLD_MS * 1000000ull / 15);
	/* From then on they do, but that a machine that stands still counts that as their time. */
	for (int try = 0; try < 3; try++) {
		before_ns = cpu_ns(thread[1]) + cpu_ns(thread[2]);
		rig_sleep_ms(HOLD_MS);
		spent_ns = cpu_ns(thread[1]) + cpu_ns(thread[2]) - before_ns;
		printf("  %lu ms of CPU time in %u ms\n", (unsigned long)spent_ns / 1000000,
		       HOLD_MS);
		CHECK(word(rig, SPLIT) == locked, "somebody did not wait");
		if (spent_ns < HOLD_MS * 1000000ull / 15)
			return 0;
	}
	CHECK(false, "%lu us of CPU time", (unsigned long)spent_ns / 1000);
	return 0;
}

/* Who waits for a vCPU that has no core, or for its turn to, leaves the CPU to it. */
static int test_lock_waits(struct rig *rig)
{
	struct second vcpu[3] = { 0 };
	pthread_t thread[3];
	int err = 0;

	if (!rig_ops->translates)
		return 0;
	atomic_store(&thread_held, 0);
	atomic_store(&thread_let_go, 0);
	set_word(rig, ROUNDS, UINT64_MAX);
	for (uint32_t i = 0; i < 3; i++) {
		vcpu[i] = (struct second){ .rig = rig, .number = i, .guest = GUEST(lock_hog) };
		CHECK(pthread_create(&thread[i], NULL, run_second, &vcpu[i]) == 0, "thread");
		while (!atomic_load(&vcpu[i].ready))
			sched_yield();
	}
	err = hold_first(rig, vcpu, thread);
	set_word(rig, DONE, 1);
	atomic_store(&vcpu[0].stop, 1);
	atomic_store(&thread_let_go, 1);
	rig_ops->vcpu_kick(rig->vcpu[0]);
	for (uint32_t i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	CHECK(vcpu[1].last == EXIT_HLT && vcpu[2].last == EXIT_HLT, "they end");
	return err;
}

/* As the kernel reports that a host forbids them, wherever the vCPU's thread is. */
static void report_split_lock(pid_t thread)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = BUS_ADRALN };

	syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, SIGBUS, &info);
}

#define LINES_NS 2000000000ull

/*
 * Nothing is lost or done twice where locked accesses across cache lines trap, and nobody knew. On
 * hosts where they really do, one may take milliseconds or, after many, seconds: it ends sooner.
 */
static int test_locked_lines(struct rig *rig)
{
	const uint64_t rounds = rounds_of(10 * POKE_ROUNDS);
	struct second second = { .rig = rig, .number = 1, .guest = GUEST(locked_lines) };
	uint64_t begin_ns;
	uint32_t reports = 0;
	pthread_t thread;

	CHECK(open_with(rig, "EAGRE_SOFT_SPLIT_LOCKS", "0") == 0, "open");
	CHECK(rig_ops->vcpu_create(rig->engine, 1, &rig->vcpu[1]) == 0, "vCPU");
	set_word(rig, ROUNDS, rounds);
	CHECK(pthread_create(&thread, NULL, run_second, &second) == 0, "thread");
	while (!atomic_load(&second.ready))
		sched_yield();
	begin_ns = rig_now_ns();
	while (!atomic_load(&second.ended)) {
		if (rig_ops->page_lost) {
			report_split_lock(second.thread);
			reports++;
		}
		if (rig_now_ns() - begin_ns > LINES_NS)
			set_word(rig, DONE, 1);
		usleep(20);
	}
	pthread_join(thread, NULL);
	CHECK(second.err == 0 && second.last == EXIT_HLT, "%s", rig_kind_name(second.last));
	CHECK(word(rig, CALLS) > 0 && word(rig, LINES) == 6 * word(rig, CALLS), "%lu of %lu",
	      (unsigned long)word(rig, LINES), (unsigned long)(6 * word(rig, CALLS)));
	printf("  %lu rounds of %lu, %u reports\n", (unsigned long)word(rig, CALLS),
	       (unsigned long)rounds, reports);
	return 0;
}

#define PLACES_SPLIT (1u + 3 + 7 + 7 + 3 + 3 + 7 + 2 * 7) /* line_places */

static int count_kept(void *arg, const uint64_t *gpa, uint32_t count)
{
	(void)gpa;
	*(uint32_t *)arg += count;
	return 0;
}

static void count_no_more(void *arg)
{
	(void)arg;
}

/*
 * Where locked accesses across cache lines are dear the host sees none: each of them, and no other
 * one, is done with its page kept.
 */
static int test_line_places(struct rig *rig)
{
	uint32_t kept = 0;
	int err;

	if (!rig_ops->translates)
		return 0;
	rig_pages = (struct engine_pages){ count_kept, count_no_more, &kept };
	err = open_with(rig, "EAGRE_SOFT_SPLIT_LOCKS", "1");
	rig_pages = (struct engine_pages){ 0 };
	CHECK(err == 0, "open");
	CHECK(rig_start(rig, 0, GUEST(line_places), RIG_LONG) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "run");
	for (uint32_t i = 0; i < 72; i++)
		CHECK(rig->memory[(LINES & ~0xfffu) + i] == (i < 64 ? 7 : 0), "byte %u: %u", i,
		      rig->memory[(LINES & ~0xfffu) + i]);
	CHECK(kept == PLACES_SPLIT, "%u, not %u", kept, PLACES_SPLIT);
	return 0;
}

/* And they are still one step to the other vCPU. */
static int test_line_pair(struct rig *rig)
{
	const uint64_t rounds = rounds_of(POKE_ROUNDS / 4);

	if (!rig_ops->translates)
		return 0;
	CHECK(open_with(rig, "EAGRE_SOFT_SPLIT_LOCKS", "1") == 0, "open");
	if (run_both(rig, GUEST(line_pair), rounds))
		return -1;
	CHECK(word(rig, LINES) == 6 * rounds, "%lu of %lu", (unsigned long)word(rig, LINES),
	      (unsigned long)(6 * rounds));
	return 0;
}

static int test_order(struct rig *rig)
{
	return run_both(rig, GUEST(order), rounds_of(10 * SHORT_ROUNDS));
}

static int test_store_buffer(struct rig *rig)
{
	return run_both(rig, GUEST(store_buffer), rounds_of(POKE_ROUNDS));
}

/* Another vCPU makes a page present between what the stepper asks twice: an x87 operand's fault. */
static int test_operand_comes_and_goes(struct rig *rig)
{
	rig_set_handler(rig, PAGE_FAULT, RIG_LOAD + HANDLER_AT);
	if (run_both(rig, GUEST(operand_comes_and_goes), rounds_of(SHORT_ROUNDS / 3)))
		return -1;
	CHECK(word(rig, TRAPS) > 0, "no page fault");
	printf("  %lu page faults\n", (unsigned long)word(rig, TRAPS));
	return 0;
}

static void write_outside(struct rig *rig, uint64_t gpa, uint32_t value)
{
	memcpy(rig->memory + gpa, &value, sizeof(value));
	if (rig_ops->page_lost)
		rig_ops->page_lost(rig->engine, gpa, sizeof(value));
}

/* Code that a device or another node writes: the engine is told, and executes the new one. */
static int test_code_outside(struct rig *rig)
{
	extern const uint8_t guest_outside_near[], guest_outside_far[];
	const uint8_t *const function[] = { guest_outside_near, guest_outside_far };
	struct engine_exit *exit = &rig->exit[0];

	CHECK(rig_start(rig, 0, GUEST(outside), RIG_LONG) == 0, "start");
	for (uint32_t i = 0; i < 2000; i++) {
		uint64_t gpa = RIG_LOAD + (uint64_t)(function[i % 2] - GUEST(outside).start);
		uint32_t said;

		write_outside(rig, gpa + 1, i);
		CHECK(rig_ops->vcpu_run(rig->vcpu[0], exit) == 0 && exit->kind == EXIT_IO, "%s",
		      rig_kind_name(exit->kind));
		memcpy(&said, exit->io.data, sizeof(said));
		CHECK(said == i, "%x, not %x", said, i);
	}
	return 0;
}

#define ONE_THREAD "it runs one vCPU at a time, slowly"

const struct test_case cases_smp[] = {
	{ "poke-far", test_poke_far, ONE_THREAD },
	{ "poke-near", test_poke_near, ONE_THREAD },
	{ "code-neighbours", test_code_neighbours, ONE_THREAD },
	{ "code-written", test_code_written, ONE_THREAD },
	{ "code-released", test_code_released, ONE_THREAD },
	{ "locked", test_locked, ONE_THREAD },
	{ "lock-hog", test_lock_hog, ONE_THREAD },
	{ "lock-waits", test_lock_waits, ONE_THREAD },
	{ "locked-lines", test_locked_lines, NULL },
	{ "line-places", test_line_places, NULL },
	{ "line-pair", test_line_pair, ONE_THREAD },
	{ "cache-emptied", test_cache_emptied, ONE_THREAD },
	{ "cache-visitors", test_cache_visitors, ONE_THREAD },
	{ "locked-split", test_locked_split, ONE_THREAD },
	{ "operand-comes-and-goes", test_operand_comes_and_goes, ONE_THREAD },
	{ "code-outside", test_code_outside, NULL },
	{ "order", test_order, ONE_THREAD },
	{ "store-buffer", test_store_buffer, ONE_THREAD },
	{ 0 },
};
