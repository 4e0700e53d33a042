/* SPDX-License-Identifier: Apache-2.0 */
/* Kicks: never lost, whatever the vCPU is doing, and out of a wait for a page as well. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#include "tests/engine/cases.h"

#define HANDLER	     0x100 /* guests.S, of those that fault */
#define KICKS	     1000
#define ROW_KICKS    200
#define ROW_TEST_NS  30000000000ull
#define ROW	     16 /* guests.S */
#define KICK_TEST_NS 4000000000ull

/* A thread that runs a vCPU and counts its EXIT_KICKED. */
struct runner {
	struct rig *rig;
	pthread_t thread;
	_Atomic uint32_t kicks, exits;
	_Atomic int ready, stop;
	enum engine_exit_kind last;
	uint32_t said;		  /* by the last OUT */
	struct vcpu_state kicked; /* the runner's while it is wanted, else whoever wants it */
	_Atomic bool wanted;	  /* to be saved at the next EXIT_KICKED */
};

static void *run_thread(void *arg)
{
	struct runner *runner = arg;
	struct rig *rig = runner->rig;

	rig_ops->vcpu_bind(rig->vcpu[0]);
	atomic_store(&runner->ready, 1);
	while (!atomic_load(&runner->stop)) {
		if (rig_ops->vcpu_run(rig->vcpu[0], &rig->exit[0]))
			break;
		runner->last = rig->exit[0].kind;
		if (runner->last == EXIT_KICKED) {
			atomic_fetch_add(&runner->kicks, 1);
			if (atomic_load(&runner->wanted)) {
				rig_ops->vcpu_save(rig->vcpu[0], &runner->kicked);
				atomic_store(&runner->wanted, false);
			}
		} else if (runner->last == EXIT_IO) {
			memcpy(&runner->said, rig->exit[0].io.data, 4);
		} else {
			break;
		}
		atomic_fetch_add(&runner->exits, 1);
	}
	return NULL;
}

static int runner_start(struct runner *runner, struct rig *rig)
{
	memset(runner, 0, sizeof(*runner));
	runner->rig = rig;
	CHECK(pthread_create(&runner->thread, NULL, run_thread, runner) == 0, "thread");
	while (!atomic_load(&runner->ready))
		sched_yield();
	return 0;
}

static void runner_end(struct runner *runner)
{
	atomic_store(&runner->stop, 1);
	rig_ops->vcpu_kick(runner->rig->vcpu[0]);
	pthread_join(runner->thread, NULL);
}

static int wait_for_kick(struct runner *runner, uint32_t before, uint64_t *ret_ns)
{
	uint64_t start = rig_now_ns();

	while (atomic_load(&runner->kicks) == before)
		CHECK(rig_now_ns() - start < 5000000000ull && !sched_yield(), "kick %u was lost",
		      before);
	*ret_ns = rig_now_ns() - start;
	return 0;
}

/* Kicks it, and has its state saved when it has left: runner->kicked is the caller's then. */
static int kick_to_save(struct runner *runner, uint64_t *ret_ns)
{
	uint64_t start = rig_now_ns();

	atomic_store(&runner->wanted, true);
	rig_ops->vcpu_kick(runner->rig->vcpu[0]);
	while (atomic_load(&runner->wanted))
		CHECK(rig_now_ns() - start < 5000000000ull && !sched_yield(), "a kick was lost");
	*ret_ns = rig_now_ns() - start;
	return 0;
}

/* Every kick is followed by an EXIT_KICKED, wherever the runner is: in the guest, leaving, or
 * entering. */
static int kick_guest(struct rig *rig, struct guest guest)
{
	struct runner runner;
	uint64_t ns = 0, worst = 0, sum = 0, end = rig_now_ns() + KICK_TEST_NS;
	int err = 0;
	uint32_t rounds = 0;

	CHECK(rig_start(rig, 0, guest, RIG_LONG) == 0, "start");
	rig_ops->vcpu_kick(rig->vcpu[0]); /* before it ever ran */
	CHECK(rig_expect(rig, 0, EXIT_KICKED) == 0, "kicked before the run");
	CHECK(runner_start(&runner, rig) == 0, "runner");
	for (; !err && rounds < KICKS && rig_now_ns() < end; rounds++) {
		uint32_t before = atomic_load(&runner.kicks);

		for (uint32_t spin = 0; spin < rounds % 97 * 20; spin++)
			_mm_pause();
		rig_ops->vcpu_kick(rig->vcpu[0]);
		err = wait_for_kick(&runner, before, &ns);
		sum += ns;
		worst = ns > worst ? ns : worst;
	}
	runner_end(&runner);
	CHECK(err == 0 && runner.last == EXIT_KICKED, "%s", rig_kind_name(runner.last));
	printf("  kick to exit: mean %lu us, worst %lu us of %u\n",
	       (unsigned long)(sum / rounds / 1000), (unsigned long)(worst / 1000), rounds);
	return 0;
}

static int test_kicks(struct rig *rig)
{
	return kick_guest(rig, GUEST(spin));
}

static int test_kicks_masked(struct rig *rig)
{
	return kick_guest(rig, GUEST(spin_masked));
}

static int test_kicks_jumps(struct rig *rig)
{
	return kick_guest(rig, GUEST(spin_jumps));
}

/*
 * In a row of pushes or pops rsp is what it is at that instruction. Where the kicker and the vCPU share a
 * core, kicks may all come before the first: until enough have not, or the time is up.
 */
static int test_kicks_rows(struct rig *rig)
{
	uint32_t inside = 0, enough = rig_ops->translates ? ROW_KICKS / 4 : 0;
	uint64_t ns = 0, at, depth, end = rig_now_ns() + ROW_TEST_NS;
	struct runner runner;
	int err = 0;

	CHECK(rig_start(rig, 0, GUEST(spin_rows), RIG_LONG) == 0, "start");
	CHECK(runner_start(&runner, rig) == 0, "runner");
	for (uint32_t i = 0; (i < ROW_KICKS || (inside <= enough && rig_now_ns() < end)) && !err;
	     i++) {
		for (uint32_t spin = 0; spin < i % 97 * 20; spin++)
			_mm_pause();
		err = kick_to_save(&runner, &ns);
		at = runner.kicked.rip - RIG_LOAD;
		at -= at > 0; /* its STI */
		depth = at <= ROW ? at : 2 * ROW - at;
		if (!err && (at > 2 * ROW || runner.kicked.gpr[4] != RIG_STACK - 8 * depth))
			err = printf("  rip %lx, rsp %lx\n", (unsigned long)runner.kicked.rip,
				     (unsigned long)runner.kicked.gpr[4]);
		inside += depth != 0;
	}
	runner_end(&runner);
	CHECK(err == 0, "rsp");
	/* A CPU that is emulated may look at interrupts between larger pieces only. */
	CHECK(!rig_ops->translates || inside > enough, "%u kicks in the rows", inside);
	return 0;
}

/* Kicks while the guest makes exits of its own: none of those is lost or doubled by a kick. */
static int test_kicks_between_exits(struct rig *rig)
{
	static uint32_t undisturbed[RIG_OUT_MAX];
	uint32_t count, seen = 0;

	CHECK(rig_start(rig, 0, GUEST(work), RIG_LONG) == 0, "start");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	count = rig->out_count;
	memcpy(undisturbed, rig->out, sizeof(undisturbed));
	memset(rig->memory, 0, 0x100000);
	rig->out_count = 0;
	CHECK(rig_start(rig, 0, GUEST(work), RIG_LONG) == 0, "start");
	for (uint32_t i = 0;; i++) {
		if (i % 2)
			rig_ops->vcpu_kick(rig->vcpu[0]);
		CHECK(rig_ops->vcpu_run(rig->vcpu[0], &rig->exit[0]) == 0, "run");
		if (rig->exit[0].kind == EXIT_HLT)
			break;
		if (rig->exit[0].kind == EXIT_KICKED) {
			seen++;
			continue;
		}
		CHECK(rig->exit[0].kind == EXIT_IO, "%s", rig_kind_name(rig->exit[0].kind));
		memcpy(&rig->out[rig->out_count++], rig->exit[0].io.data, 4);
	}
	CHECK(seen >= count / 2, "%u kicks", seen);
	CHECK(rig->out_count == count && !memcmp(rig->out, undisturbed, count * sizeof(uint32_t)),
	      "work");
	return 0;
}

/* userfaultfd over the page at 2 MiB, or -1. */
static int watch_page(struct rig *rig)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range = { .start = (uintptr_t)rig->memory + 0x200000,
						    .len = 0x1000 },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -1;
	if (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int wait_for_fault(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	struct uffd_msg message;

	CHECK(poll(&poll_fd, 1, 20000) == 1, "no fault");
	CHECK(read(fd, &message, sizeof(message)) == sizeof(message), "read");
	CHECK(message.event == UFFD_EVENT_PAGEFAULT, "event %u", message.event);
	return 0;
}

/* A guest that needs the page at 2 MiB; what that has; and what it says then. */
struct touch {
	const char *name;
	struct guest guest;
	const uint8_t *at; /* the instruction that needs it */
	uint64_t page[3];
	uint32_t said;
	uint64_t dr7;	      /* when it needs it */
	bool soft_only, kept; /* its fault waits to be delivered */
	uint8_t shadow;	      /* no interrupt may come before it */
};

static int give_page(const struct touch *touch, struct rig *rig, int fd)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	struct uffdio_copy copy = { .dst = (uintptr_t)rig->memory + 0x200000,
				    .src = (uintptr_t)page,
				    .len = 4096 };

	memcpy(page, touch->page, sizeof(touch->page));
	CHECK(ioctl(fd, UFFDIO_COPY, &copy) == 0, "copy: %s", strerrordesc_np(errno));
	return 0;
}

/* The instruction has not begun: all kicks out of it leave the same state behind, at its rip. */
static int check_kicked(const struct touch *touch, const struct vcpu_state *state,
			const struct vcpu_state *first)
{
	uint64_t at = RIG_LOAD + (uint64_t)(touch->at - touch->guest.start);

	CHECK(state->rip == at, "rip %lx, not %lx", (unsigned long)state->rip, (unsigned long)at);
	CHECK(!memcmp(state->gpr, first->gpr, sizeof(state->gpr)) && state->rflags == first->rflags,
	      "registers");
	CHECK(!memcmp(state->xsave, first->xsave, 512), "x87 and SSE registers");
	CHECK(state->interrupt_shadow == touch->shadow, "shadow %u", state->interrupt_shadow);
	CHECK(!touch->kept || (state->exception_pending && state->exception_vector == 14),
	      "the fault is lost");
	/* INT n is begun anew, and is no event: it would come a second time. */
	CHECK(!state->interrupt_injected && !state->exception_injected && !state->nmi_injected,
	      "an event is in delivery");
	if (rig_ops == &engine_soft)
		CHECK(state->cr2 == 0 && state->dr6 == 0xffff0ff0 && state->dr7 == touch->dr7,
		      "cr2 %lx, dr6 %lx, dr7 %lx", (unsigned long)state->cr2,
		      (unsigned long)state->dr6, (unsigned long)state->dr7);
	return 0;
}

static int kick_out_of_fault(const struct touch *touch, struct runner *runner, int fd)
{
	struct rig *rig = runner->rig;
	struct vcpu_state first;
	uint64_t ns;

	for (int i = 0; i < 3; i++) {
		uint32_t before = atomic_load(&runner->kicks);

		CHECK(wait_for_fault(fd) == 0, "fault %d", i);
		rig_sleep_ms(5); /* so that it sleeps in the fault */
		CHECK(atomic_load(&runner->kicks) == before, "left by itself");
		CHECK(kick_to_save(runner, &ns) == 0, "kick %d", i);
		if (i == 0)
			first = runner->kicked;
		CHECK(check_kicked(touch, &runner->kicked, &first) == 0, "kick %d", i);
	}
	printf("  kick out of a fault: %lu us\n", (unsigned long)(ns / 1000));
	CHECK(wait_for_fault(fd) == 0, "the last fault");
	return give_page(touch, rig, fd);
}

static int touch_page(struct rig *rig, const struct touch *touch)
{
	struct runner runner;
	int fd, err;

	CHECK(rig_start(rig, 0, touch->guest, RIG_LONG) == 0, "start");
	rig_set_handler(rig, 1, RIG_LOAD + HANDLER);
	rig_set_handler(rig, 14, RIG_LOAD + HANDLER);
	rig_set_handler(rig, 0x40, RIG_LOAD + HANDLER);
	CHECK(madvise(rig->memory + 0x200000, 4096, MADV_DONTNEED) == 0, "madvise");
	fd = watch_page(rig);
	CHECK(fd >= 0, "userfaultfd: %s", strerrordesc_np(errno));
	err = runner_start(&runner, rig);
	if (!err)
		err = kick_out_of_fault(touch, &runner, fd);
	if (err) { /* whatever happens, let the thread go */
		close(fd);
		runner_end(&runner);
		return err;
	}
	pthread_join(runner.thread, NULL);
	close(fd);
	CHECK(runner.last == EXIT_HLT, "%s", rig_kind_name(runner.last));
	CHECK(runner.said == touch->said, "it says %x, not %x", runner.said, touch->said);
	return 0;
}

/* A vCPU that waits for a page leaves on a kick (Linux 6.2), waits again when run, and goes on with
 * the page. */
#define TOUCH(tag, value, ...)                                                                     \
	{                                                                                          \
		.name = #tag, .guest = GUEST(touch_##tag), .at = guest_touch_##tag##_at,           \
		.page = { __VA_ARGS__ }, .said = (value), .dr7 = 0x400                             \
	}
#define TOUCH_BY_FAULT(tag, value, debug)                                                          \
	{                                                                                          \
		.name = #tag, .guest = GUEST(touch_##tag), .at = guest_touch_##tag##_at,           \
		.said = (value), .dr7 = (debug), .soft_only = true, .kept = (debug) == 0x400       \
	}
#define TOUCH_IN_SHADOW(tag, value, ...)                                                           \
	{                                                                                          \
		.name = #tag, .guest = GUEST(touch_##tag), .at = guest_touch_##tag##_at,           \
		.page = { __VA_ARGS__ }, .said = (value), .dr7 = 0x400, .soft_only = true,         \
		.shadow = 1                                                                        \
	}
static int test_kick_in_fault(struct rig *rig)
{
	extern const uint8_t guest_touch_read_at[], guest_touch_locked_at[], guest_touch_edge_at[],
		guest_touch_push_at[], guest_touch_call_at[], guest_touch_pop_memory_at[],
		guest_touch_strings_at[], guest_touch_shadow_at[], guest_touch_x87_at[],
		guest_touch_table_at[], guest_touch_table_locked_at[], guest_touch_descriptor_at[],
		guest_touch_ltr_at[], guest_touch_fault_at[], guest_touch_debug_at[],
		guest_touch_enter_at[], guest_touch_int_at[];
	const struct touch touches[] = {
		TOUCH(read, 0xdeadbeef, 0xdeadbeef),
		TOUCH(locked, 0x201, 0x100),
		TOUCH(edge, 0x101, 0x100),
		TOUCH(push, 0x200077, 0),
		TOUCH(call, 0x200000, 0),
		TOUCH(pop_memory, RIG_STACK + 0x55, 0),
		TOUCH(strings, 0x60008 + 0x1000, 0x1000),
		TOUCH_IN_SHADOW(shadow, 0x60008 + 0x1000, 0x1000),
		TOUCH(x87, 0x3000, 0, 0x3ff0000000000000),
		TOUCH(table, 1, 0x83),
		TOUCH(table_locked, 12, 0x83),
		TOUCH(descriptor, 16, 0, 0x00af9b000000ffff, 0x00cf93000000ffff),
		TOUCH(ltr, 0x8b10, 0),
		TOUCH(int, 0x20101, 0),
		TOUCH_BY_FAULT(fault, 0x40000000, 0x400),
		TOUCH_BY_FAULT(enter, 0x2222, 0x400),
		TOUCH_BY_FAULT(debug, 0xffff2ff0, 0x2400),
	};

	for (size_t i = 0; i < sizeof(touches) / sizeof(touches[0]); i++) {
		if (touches[i].soft_only && rig_ops != &engine_soft)
			continue;
		rig_close(rig);
		CHECK(rig_open(rig, NULL) == 0, "open");
		CHECK(touch_page(rig, &touches[i]) == 0, "%s", touches[i].name);
	}
	return 0;
}

/*
 * A kick that comes while the vCPU is outside needs no signal: the next run ends at once. Also if
 * that begins with the rest of an instruction whose page is not there.
 */
static int test_kick_before_answer(struct rig *rig)
{
	static const uint8_t code[] = { 0xb0, 0x77, 0xe6, PORT_ASK, 0xf4 }; /* mov, out, hlt */
	struct touch touch = { 0 };
	struct vcpu_state state;
	int fd;

	CHECK(rig_start(rig, 0, GUEST(spin), RIG_LONG) == 0, "start");
	rig_state(rig, 0, RIG_LONG, &state);
	state.rip = 0x200000;
	memcpy(rig->memory + 0x200000, code, sizeof(code));
	CHECK(rig_ops->vcpu_load(rig->vcpu[0], &state) == 0, "load");
	CHECK(rig_expect(rig, 0, EXIT_IO) == 0, "out");
	CHECK(madvise(rig->memory + 0x200000, 4096, MADV_DONTNEED) == 0, "madvise");
	fd = watch_page(rig);
	CHECK(fd >= 0, "userfaultfd: %s", strerrordesc_np(errno));
	rig_ops->vcpu_kick(rig->vcpu[0]);
	rig_watch(rig->vcpu[0], 10);
	CHECK(rig_ops->vcpu_run(rig->vcpu[0], &rig->exit[0]) == 0, "run");
	rig_watch(NULL, 0);
	CHECK(!rig_watch_barked() && rig->exit[0].kind == EXIT_KICKED, "it waited for the page");
	memcpy(touch.page, code, sizeof(code));
	CHECK(give_page(&touch, rig, fd) == 0, "page");
	CHECK(rig_expect(rig, 0, EXIT_HLT) == 0, "hlt");
	close(fd);
	return 0;
}

const struct test_case cases_kick[] = {
	{ "kicks", test_kicks, NULL },
	{ "kicks-masked", test_kicks_masked, NULL },
	{ "kicks-jumps", test_kicks_jumps, NULL },
	{ "kicks-rows", test_kicks_rows, NULL },
	{ "kicks-between-exits", test_kicks_between_exits, NULL },
	{ "kick-before-answer", test_kick_before_answer,
	  "it reads guest memory itself, and such a wait takes no signal" },
	{ "kick-in-fault", test_kick_in_fault,
	  "it reads guest memory itself, and such a wait takes no signal" },
	{ 0 },
};
