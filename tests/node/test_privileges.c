/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node gives up (node/privileges.h, backend/capabilities.h). With whole nodes: tests/pod/privileges.
 */
#include "tests/test.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/capabilities.h"
#include "backend/tap.h"
#include "node/privileges.h"

/* In a process of its own, as nothing of it can be taken back. */
static int in_child(int (*work)(void))
{
	int status;
	pid_t pid = fork();
	if (pid == 0)
		_exit(work());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int begin(void)
{
	privileges_begin();
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
}

static int hide(void)
{
	privileges_hide();
	return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
}

static void test_begin(void **state)
{
	assert_int_equal(in_child(begin), 1);
}

static void test_hide(void **state)
{
	unsetenv("EAGRE_DUMPABLE");
	assert_int_equal(in_child(hide), 0);
	setenv("EAGRE_DUMPABLE", "0", 1);
	assert_int_equal(in_child(hide), 0);
	setenv("EAGRE_DUMPABLE", "1", 1);
	assert_int_equal(in_child(hide), 1);
	unsetenv("EAGRE_DUMPABLE");
}

static uint64_t effective(void)
{
	struct capabilities all;
	capabilities_get(&all);
	return all.word[0].effective | (uint64_t)all.word[1].effective << 32;
}

static const uint64_t some = CAPABILITY(CAP_SYS_PTRACE) | CAPABILITY(CAP_CHECKPOINT_RESTORE);

static void *give_up(void *arg)
{
	uint64_t *held = arg;
	uint64_t before = capabilities_held();
	/* Those that are not held are not got by that. */
	capabilities_set(CAPABILITY(CAP_SYS_PTRACE), some);
	held[0] = capabilities_held() == (before & some) &&
		  effective() == (before & CAPABILITY(CAP_SYS_PTRACE));
	/* What is held may come into force again. */
	capabilities_set(some, some);
	held[1] = effective() == (before & some);
	capabilities_keep(0);
	capabilities_set(some, some);
	held[2] = capabilities_held() == 0 && effective() == 0;
	return NULL;
}

/* Whoever runs this: root has them all, others none. */
static void test_capabilities(void **state)
{
	uint64_t before = capabilities_held(), held[3] = { 0 };
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, give_up, held), 0);
	pthread_join(thread, NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(held[i], 1);
	assert_int_equal(capabilities_held(), before);
}

static void test_tap_of_nobody(void **state)
{
	assert_false(tap_is_others("eagre-no-such"));
	assert_false(tap_is_others("lo"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_begin),
		cmocka_unit_test(test_hide),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_tap_of_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
