/* SPDX-License-Identifier: Apache-2.0 */
/* What a host can give, from files as its kernel shows them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "memory/host_memory.h"
#include "tests/test.h"

#define G (1ull << 30)

static char root[] = "/tmp/test_host_memory.XXXXXX";

static void put(const char *name, const char *text)
{
	char path[512];
	snprintf(path, sizeof(path), "%s%s", root, name);
	for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static struct host_memory probe(void)
{
	struct host_memory memory;
	host_memory_probe(root, &memory);
	return memory;
}

static void assert_refused(uint64_t promised, uint64_t mapped, const char *says)
{
	struct host_memory memory = probe();
	struct host_memory_need need = { .promised = promised, .mapped = mapped };
	char why[256] = "";
	assert_int_equal(host_memory_check(&memory, &need, why, sizeof(why)), -ENOMEM);
	if (!strstr(why, says))
		fail_msg("\"%s\" does not say \"%s\"", why, says);
}

static void assert_fine(uint64_t promised, uint64_t mapped)
{
	struct host_memory memory = probe();
	struct host_memory_need need = { .promised = promised, .mapped = mapped };
	char why[256] = "";
	if (host_memory_check(&memory, &need, why, sizeof(why)))
		fail_msg("%s", why);
}

static void test_nothing_known(void **state)
{
	struct host_memory memory = probe();
	assert_true(memory.total == UINT64_MAX && memory.cgroup == UINT64_MAX &&
		    memory.commit == UINT64_MAX);
	assert_fine(1000 * G, 1000 * G);
}

static void test_ram_and_swap(void **state)
{
	put("/proc/meminfo",
	    "MemTotal:       16777216 kB\nMemFree: 1 kB\nSwapTotal:       4194304 kB\n"
	    "CommitLimit:    12582912 kB\nCommitted_AS:    4194304 kB\n");
	assert_fine(20 * G, 1000 * G);
	assert_refused(20 * G + 1, G, "20480M of memory and swap");
}

/* What links need counts, and is told apart; what may be needed is told, and no more. */
static void test_kept(void **state)
{
	struct host_memory memory = probe();
	struct host_memory_need need = { .promised = 19 * G, .kept = G, .may = 0, .mapped = G };
	char why[256] = "?";
	assert_int_equal(host_memory_check(&memory, &need, why, sizeof(why)), 0);
	assert_string_equal(why, "");
	need.may = 2 * G;
	assert_int_equal(host_memory_check(&memory, &need, why, sizeof(why)), 0);
	assert_string_equal(why, "memory may get short: 19456M are promised here, links need "
				 "1024M, vCPUs and devices 2048M at most, of 20480M");
	need.kept = 3 * G;
	assert_int_equal(host_memory_check(&memory, &need, why, sizeof(why)), -ENOMEM);
	assert_string_equal(why,
			    "19456M are promised here, links need 3072M besides, and this host "
			    "has 20480M of memory and swap: promise less");
	memory.cgroup = 21 * G;
	memory.total = 30 * G;
	assert_int_equal(host_memory_check(&memory, &need, why, sizeof(why)), -ENOMEM);
	assert_string_equal(why, "19456M are promised here, links need 3072M besides, and this "
				 "process's cgroup may use 21504M (memory.max): promise less, or "
				 "raise the limit");
}

static void test_overcommit(void **state)
{
	put("/proc/sys/vm/overcommit_memory", "1\n");
	assert_fine(G, 100 * G);
	put("/proc/sys/vm/overcommit_memory", "2\n");
	assert_fine(G, 8 * G);
	assert_refused(G, 8 * G + 1, "vm.overcommit_memory=2");
	put("/proc/sys/vm/overcommit_memory", "0\n");
}

static void test_cgroup_v2(void **state)
{
	put("/proc/self/cgroup", "0::/user.slice/session\n");
	put("/sys/fs/cgroup/user.slice/session/memory.max", "max\n");
	assert_fine(20 * G, G);
	put("/sys/fs/cgroup/user.slice/memory.max", "8589934592\n");
	assert_fine(8 * G, G);
	assert_refused(8 * G + 1, G, "8192M (memory.max)");
	put("/sys/fs/cgroup/user.slice/session/memory.max", "1073741824\n");
	assert_refused(2 * G, G, "1024M (memory.max)");
}

/* A container's own view: it is the root of what it sees. */
static void test_cgroup_namespace(void **state)
{
	put("/proc/self/cgroup", "0::/\n");
	put("/sys/fs/cgroup/memory.max", "3221225472\n");
	assert_refused(4 * G, G, "3072M (memory.max)");
	put("/sys/fs/cgroup/memory.max", "max\n");
}

static void test_cgroup_v1(void **state)
{
	put("/proc/self/cgroup", "12:pids:/a\n4:memory:/a/b\n1:name=systemd:/a\n");
	put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
	assert_fine(20 * G, G);
	put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2147483648\n");
	assert_refused(3 * G, G, "2048M (memory.max)");
}

static int make_root(void **state)
{
	return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
	char command[64];
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_known), cmocka_unit_test(test_ram_and_swap),
		cmocka_unit_test(test_kept),	      cmocka_unit_test(test_overcommit),
		cmocka_unit_test(test_cgroup_v2),     cmocka_unit_test(test_cgroup_namespace),
		cmocka_unit_test(test_cgroup_v1),
	};
	return cmocka_run_group_tests(tests, make_root, remove_root);
}
