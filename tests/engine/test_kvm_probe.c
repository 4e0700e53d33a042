/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kvm engine says about hosts that cannot run it: one line that names the thing and the
 * remedy. Each case is a child process, since it changes its own user, mounts or environment.
 */
#include <cpuid.h>
#include <errno.h>
#include <linux/kvm.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/engine.h"
#include "engine/kvm/kvm.h"

struct verdict {
	int err;
	char why[300];
};

#define CANNOT 77 /* the child could not arrange its case */

/* Runs the probe in a child after prepare(); false if that was not possible here. */
static bool probe_in_child(int (*prepare)(void), struct verdict *ret_verdict)
{
	int pipe_fd[2], status = 0;
	struct verdict verdict = { 0 };
	pid_t child;

	assert_int_equal(pipe(pipe_fd), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		static struct engine_features features;

		if (prepare && prepare())
			_exit(CANNOT);
		verdict.err = engine_kvm.probe(&features, verdict.why, sizeof(verdict.why));
		_exit(write(pipe_fd[1], &verdict, sizeof(verdict)) != sizeof(verdict));
	}
	close(pipe_fd[1]);
	if (read(pipe_fd[0], &verdict, sizeof(verdict)) != sizeof(verdict))
		verdict.err = 0;
	close(pipe_fd[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	*ret_verdict = verdict;
	return WEXITSTATUS(status) == 0;
}

static bool virtualizes(void)
{
	uint32_t eax, ebx, ecx, edx;

	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 2)))
		return true;
	return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 5));
}

static void assert_says(const struct verdict *verdict, int err, const char *what,
			const char *remedy)
{
	assert_int_equal(verdict->err, err);
	if (!strstr(verdict->why, what) || !strstr(verdict->why, remedy))
		fail_msg("says: %s", verdict->why);
	assert_null(strchr(verdict->why, '\n'));
	assert_true(strlen(verdict->why) < sizeof(verdict->why) - 1);
}

static int as_it_is(void)
{
	return unsetenv("EAGRE_KVM_EMULATED");
}

/* The device file alone decides nothing. */
static void test_emulating_device_is_refused(void **unused)
{
	struct verdict verdict;

	(void)unused;
	if (virtualizes())
		skip();
	assert_true(probe_in_child(as_it_is, &verdict));
	assert_says(&verdict, -ENODEV, "hardware virtualization", "--engine soft");
}

static int hide_device(void)
{
	setenv("EAGRE_KVM_EMULATED", "1", 1);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	return mount("none", "/dev", "tmpfs", 0, NULL);
}

static void test_no_device(void **unused)
{
	struct verdict verdict;

	(void)unused;
	if (!probe_in_child(hide_device, &verdict)) {
		print_message("needs root to hide /dev/kvm\n");
		skip();
	}
	assert_says(&verdict, -ENODEV, "no /dev/kvm", "modprobe kvm_");
}

static int drop_rights(void)
{
	setenv("EAGRE_KVM_EMULATED", "1", 1);
	if (access("/dev/kvm", F_OK))
		return -1;
	if (setgid(65534) || setuid(65534))
		return -1;
	return access("/dev/kvm", R_OK | W_OK) ? 0 : -1;
}

static void test_no_permission(void **unused)
{
	struct verdict verdict;

	(void)unused;
	if (!probe_in_child(drop_rights, &verdict)) {
		print_message("needs root and a /dev/kvm that is not everybody's\n");
		skip();
	}
	assert_says(&verdict, -EACCES, "no permission to open /dev/kvm", "group kvm");
}

/* uname() then says 2.6.x. */
static int look_old(void)
{
	setenv("EAGRE_KVM_EMULATED", "1", 1);
	return personality(UNAME26) < 0 ? -1 : 0;
}

static void test_old_kernel(void **unused)
{
	struct verdict verdict;

	(void)unused;
	assert_true(probe_in_child(look_old, &verdict));
	assert_says(&verdict, -ENOTSUP, "Linux 2.6 is too old", "6.2 or newer");
}

/* What KVM can be told, and what comes of it: whole kHz, and nothing within 250 ppm. */
static void test_tsc_ratio(void **unused)
{
	static const uint32_t bits[] = { 32, 48 };
	const uint32_t host = 2596120;

	(void)unused;
	for (unsigned int b = 0; b < 2; b++)
		for (int64_t ppb = -900000; ppb < 900000; ppb += 3331) {
			uint64_t wanted = tsc_ratio_change(TSC_RATIO_ONE, ppb);
			uint64_t got = kvm_tsc_nearest(wanted, host, true, bits[b]);
			uint32_t khz = kvm_tsc_khz_for(got, host);

			assert_int_equal(kvm_tsc_nearest(wanted, host, false, bits[b]),
					 TSC_RATIO_ONE);
			if (got == TSC_RATIO_ONE) {
				assert_in_range(ppb + 251000, 0, 2 * 251000);
				assert_int_equal(khz, host);
				continue;
			}
			assert_false(ppb > -250000 && ppb < 250000);
			assert_true(got <= wanted);
			assert_in_range(tsc_ratio_ppb(got, wanted), 0, 500);
			/* What KVM makes of that kHz is what was promised. */
			assert_int_equal((((unsigned __int128)khz << bits[b]) / host)
						 << (48 - bits[b]),
					 got);
		}
}

/* --- a VM of the test's own, in ioctl()'s place --- */

#define FAKE_VM 123456

static struct kvm_userspace_memory_region slot[16];
static uint32_t slots;

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;

	va_start(args, request);
	void *arg = va_arg(args, void *);
	va_end(args);
	if (fd != FAKE_VM)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	assert_true(request == KVM_SET_USER_MEMORY_REGION && slots < 16);
	slot[slots++] = *(struct kvm_userspace_memory_region *)arg;
	return 0;
}

/* No slot has more pages than KVM takes; together they are the whole range. */
static void test_slots(void **state)
{
	struct engine engine = { .vm_fd = FAKE_VM };
	const uint64_t gpa = 4ull << 30, hva = 1ull << 44, sizes[] = { 2ull << 30, 15ull << 40 };
	uint64_t end[2] = { gpa, hva }, total = 0;

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(kvm_engine_add_memory(&engine, gpa + total,
						       (void *)(uintptr_t)(hva + total), sizes[i]),
				 0);
		total += sizes[i];
	}
	assert_int_equal(slots, 3);
	for (uint32_t i = 0; i < slots; i++) {
		assert_int_equal(slot[i].slot, i);
		assert_true(slot[i].memory_size / 4096 <= (1ull << 31) - 1);
		assert_int_equal(slot[i].memory_size % (2ull << 20), 0);
		assert_true(slot[i].guest_phys_addr == end[0] && slot[i].userspace_addr == end[1]);
		end[0] += slot[i].memory_size;
		end[1] += slot[i].memory_size;
	}
	assert_true(end[0] == gpa + total && end[1] == hva + total);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_emulating_device_is_refused),
		cmocka_unit_test(test_no_device),
		cmocka_unit_test(test_no_permission),
		cmocka_unit_test(test_old_kernel),
		cmocka_unit_test(test_tsc_ratio),
		cmocka_unit_test(test_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
