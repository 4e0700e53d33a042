/* SPDX-License-Identifier: Apache-2.0 */
/* The probe: on a host that can, and as a user who may not. */
#include "tests/test.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory/uffd_probe.h"

static void probe_says_what_is_there(void **state)
{
	struct uffd_probe probe = { 0 };
	char why[256] = "";
	int fd;

	assert_int_equal(uffd_probe(&probe, why, sizeof(why)), 0);
	assert_string_equal(why, "");
	fd = uffd_open();
	assert_true(fd >= 0);
	close(fd);
}

/* In a child without root: 0 as expected, 1 not, 2 the host allows everybody. */
static int probe_as_nobody(void)
{
	struct uffd_probe probe;
	char why[256] = "";
	int error;

	if (setgid(65534) < 0 || setuid(65534) < 0)
		return 1;
	error = uffd_probe(&probe, why, sizeof(why));
	if (error == 0)
		return 2;
	return error == -EPERM && strstr(why, "CAP_SYS_PTRACE") &&
			       strstr(why, "vm.unprivileged_userfaultfd") &&
			       strstr(why, "/dev/userfaultfd") && !strchr(why, '\n')
		       ? 0
		       : 1;
}

static void probe_names_the_missing_permission(void **state)
{
	int status;
	pid_t child;

	if (geteuid() != 0)
		skip();
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(probe_as_nobody());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_not_equal(WEXITSTATUS(status), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(probe_says_what_is_there),
		cmocka_unit_test(probe_names_the_missing_permission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
