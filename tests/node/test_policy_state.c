/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was learned goes to a file and comes back; a file that makes no sense is said and left alone;
 * what cannot be used is refused at the start; a save replaces the file, or leaves it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/placer.h"
#include "node/policy_state.h"
#include "tests/test.h"

static char folder[64], path[96];
static char said[1024], why[512];
static atomic_uint said_count;

static uint64_t played_now(void *ctx)
{
	return 1;
}

static const struct placer_ops ops = { .now_ns = played_now };

static struct placer *new_placer(void)
{
	static const uint16_t first[1] = { 0 };
	struct placer_config config = {
		.placement = { .node_count = 2, .vcpu_count = 1, .policy = PLACEMENT_LEARNED },
		.cores = 1,
		.ops = &ops,
	};
	struct placer *placer;
	assert_int_equal(placer_create(&config, first, &placer), 0);
	return placer;
}

static void on_say(void *ctx, const char *line)
{
	snprintf(said, sizeof(said), "%s", line);
	said_count++;
}

static struct policy_state_config config_of(struct placer *placer)
{
	return (struct policy_state_config){
		.path = path, .placer = placer, .save_ms = 60000, .say = on_say
	};
}

static void set_up_folder(void)
{
	strcpy(folder, "/tmp/policy-state.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/state", folder);
	said[0] = why[0] = '\0';
	said_count = 0;
}

static void tear_down_folder(void)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	assert_int_equal(system(command), 0);
}

static void put_file(const char *text)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
	fclose(file);
}

static const char *file_text(void)
{
	static char text[PLACEMENT_STATE_BYTES + 1];
	size_t length = 0;
	assert_int_equal(policy_state_read(path, text, &length, why, sizeof(why)), 0);
	assert_true(length < sizeof(text));
	text[length] = '\0';
	return text;
}

/* How many names there are in the folder. */
static int names(void)
{
	char command[128];
	snprintf(command, sizeof(command), "exit $(ls -A '%s' | wc -l)", folder);
	return WEXITSTATUS(system(command));
}

/* A node that is killed while it writes leaves the old file, and nothing beside it. */
static void test_killed_writing(void **state)
{
	static char text[PLACEMENT_STATE_BYTES];
	int status;
	(void)state;
	set_up_folder();
	put_file("before");
	memset(text, 'x', sizeof(text));
	pid_t pid = fork();
	if (pid == 0) {
		struct rlimit limit = { sizeof(text) / 2, sizeof(text) / 2 };
		signal(SIGXFSZ, SIG_DFL);
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
		setrlimit(RLIMIT_FSIZE, &limit);
		policy_state_write(path, text, sizeof(text), true);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
	assert_string_equal(file_text(), "before");
	assert_int_equal(names(), 1);
	tear_down_folder();
}

static void learn(struct placer *placer, uint16_t node)
{
	struct placement_outcome outcome = { .feature = { 64, 64, 32 }, .lost_us = 4000 };
	placer_outcomes(placer, node, &outcome, 1);
}

static void open_state(struct policy_state_config config, struct policy_state **state)
{
	assert_int_equal(policy_state_open(&config, state, why, sizeof(why)), 0);
}

static void test_round_trip(void **state)
{
	struct placer *placer = new_placer(), *next = new_placer();
	struct policy_state *s;
	char had[PLACEMENT_STATE_BYTES], has[PLACEMENT_STATE_BYTES];
	struct stat st;

	set_up_folder();
	open_state(config_of(placer), &s);
	policy_state_close(s);
	assert_int_equal(names(), 0); /* nothing was learned */
	open_state(config_of(placer), &s);
	learn(placer, 1);
	policy_state_close(s);
	placer_save(placer, had, sizeof(had));
	assert_string_equal(file_text(), had);
	assert_int_equal(names(), 1);
	/* What is there keeps its mode; a link stays one. */
	assert_int_equal(chmod(path, 0640), 0);
	char link[128];
	snprintf(link, sizeof(link), "%s/link", folder);
	assert_int_equal(symlink("state", link), 0);
	struct policy_state_config config = config_of(next);
	config.path = link;
	open_state(config, &s);
	placer_save(next, has, sizeof(has));
	assert_string_equal(has, had);
	learn(next, 1);
	policy_state_close(s);
	assert_string_not_equal(file_text(), had);
	assert_true(stat(path, &st) == 0 && (st.st_mode & 07777) == 0640);
	assert_true(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
	assert_int_equal(names(), 2);
	assert_int_equal(said_count, 0);
	placer_destroy(placer);
	placer_destroy(next);
	tear_down_folder();
}

/* Now and then, too: who is killed has lost little. */
static void test_saves_now_and_then(void **state)
{
	struct placer *placer = new_placer();
	struct policy_state_config config = config_of(placer);
	struct policy_state *s;
	set_up_folder();
	config.save_ms = 10;
	open_state(config, &s);
	learn(placer, 1);
	for (int i = 0; i < 20000 && access(path, F_OK) < 0; i++)
		usleep(1000);
	assert_int_equal(access(path, F_OK), 0);
	policy_state_close(s);
	placer_destroy(placer);
	tear_down_folder();
}

static void expect_left_alone(const char *text, const char *reason)
{
	struct placer *placer = new_placer();
	struct policy_state *s;
	char before[PLACEMENT_STATE_BYTES], after[PLACEMENT_STATE_BYTES];
	placer_save(placer, before, sizeof(before));
	put_file(text);
	said_count = 0;
	open_state(config_of(placer), &s);
	assert_int_equal(said_count, 1);
	if (!strstr(said, reason) || !strstr(said, path) || strchr(said, '\n'))
		fail_msg("said: %s", said);
	placer_save(placer, after, sizeof(after));
	assert_string_equal(after, before);
	learn(placer, 1);
	policy_state_close(s);
	assert_string_equal(file_text(), text);
	assert_int_equal(names(), 1);
	placer_destroy(placer);
}

static void test_nonsense_is_left_alone(void **state)
{
	static char text[PLACEMENT_STATE_BYTES], large[PLACEMENT_STATE_BYTES + 1];
	struct placer *placer = new_placer();
	set_up_folder();
	placer_save(placer, text, sizeof(text));
	placer_destroy(placer);
	expect_left_alone("", "is not the state");
	expect_left_alone("root:x:0:0:root:/root:/bin/sh\n", "is not the state");
	expect_left_alone("eagre placement state 0\nbase 1\n", "another version");
	memset(large, 'x', sizeof(large) - 1);
	expect_left_alone(large, "is not the state");
	text[strlen(text) - 2] = '\0';
	expect_left_alone(text, "cut off");
	tear_down_folder();
}

static void expect_refused(const char *name, int error)
{
	struct placer *placer = new_placer();
	struct policy_state_config config = config_of(placer);
	struct policy_state *s;
	config.path = name;
	why[0] = '\0';
	assert_int_equal(policy_state_open(&config, &s, why, sizeof(why)), error);
	assert_non_null(strstr(why, name));
	placer_destroy(placer);
}

static void test_refused(void **state)
{
	char name[128];
	set_up_folder();
	expect_refused(folder, -EISDIR);
	expect_refused("/dev/null", -EINVAL);
	snprintf(name, sizeof(name), "%s/none/state", folder);
	expect_refused(name, -ENOENT);
	assert_int_equal(mkfifo(path, 0600), 0);
	expect_refused(path, -EINVAL); /* and nobody waits for its other end */
	tear_down_folder();
}

/* A disk that is full: the file is as it was, and it is said once. */
static void test_cannot_be_saved(void **state)
{
	struct placer *placer = new_placer();
	struct policy_state_config config = config_of(placer);
	struct rlimit limit = { 100, 100 }, before;
	struct policy_state *s;
	char first[PLACEMENT_STATE_BYTES];
	set_up_folder();
	config.save_ms = 10;
	learn(placer, 1);
	placer_save(placer, first, sizeof(first));
	put_file(first);
	open_state(config, &s);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	limit.rlim_max = before.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	learn(placer, 0);
	for (int i = 0; i < 20000 && atomic_load(&said_count) == 0; i++)
		usleep(1000);
	usleep(50000);
	policy_state_close(s);
	setrlimit(RLIMIT_FSIZE, &before);
	assert_int_equal(said_count, 1);
	assert_non_null(strstr(said, "cannot be saved: File too large"));
	assert_string_equal(file_text(), first);
	assert_int_equal(names(), 1);
	placer_destroy(placer);
	tear_down_folder();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_saves_now_and_then),
		cmocka_unit_test(test_nonsense_is_left_alone),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_cannot_be_saved),
		cmocka_unit_test(test_killed_writing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
