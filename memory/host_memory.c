/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This host's memory (host_memory.h), from /proc/meminfo, vm.overcommit_memory and the cgroups that
 * /proc/self/cgroup names, of both versions. Tested in tests/memory/test_host_memory.c.
 */
#include "memory/host_memory.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The number in a file of one; UINT64_MAX: there is none ("max"), or no file. */
static uint64_t read_number(const char *path)
{
	char text[32] = "";
	FILE *file = fopen(path, "re");

	if (!file)
		return UINT64_MAX;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	fclose(file);
	return text[0] >= '0' && text[0] <= '9' ? strtoull(text, NULL, 10) : UINT64_MAX;
}

struct meminfo {
	uint64_t total, swap, commit_limit, committed;
};

static void read_meminfo(const char *root, struct meminfo *ret_info)
{
	const struct {
		const char *name;
		uint64_t *value;
	} wanted[] = { { "MemTotal:", &ret_info->total },
		       { "SwapTotal:", &ret_info->swap },
		       { "CommitLimit:", &ret_info->commit_limit },
		       { "Committed_AS:", &ret_info->committed } };
	char path[PATH_MAX], line[256];
	FILE *file;

	memset(ret_info, 0, sizeof(*ret_info));
	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
			if (strncmp(line, wanted[i].name, strlen(wanted[i].name)) == 0)
				*wanted[i].value = strtoull(line + strlen(wanted[i].name), NULL, 10)
						   << 10;
	if (file)
		fclose(file);
}

/* The least limit of a cgroup and of all above it. */
static uint64_t cgroup_limit(const char *root, const char *mount, const char *file, char *group)
{
	uint64_t limit = UINT64_MAX;
	char path[PATH_MAX];

	for (;;) {
		char *slash = strrchr(group, '/');

		snprintf(path, sizeof(path), "%s%s%s/%s", root, mount, group, file);
		limit = least(limit, read_number(path));
		if (!slash)
			return limit;
		*slash = '\0';
	}
}

static uint64_t read_cgroups(const char *root)
{
	uint64_t limit = UINT64_MAX;
	char path[PATH_MAX], line[1024];
	FILE *file;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		char *controllers = strchr(line, ':'), *group;

		line[strcspn(line, "\n")] = '\0';
		group = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!group)
			continue;
		*group++ = '\0';
		controllers++;
		if (strcmp(group, "/") == 0)
			*group = '\0';
		if (!controllers[0])
			limit = least(limit,
				      cgroup_limit(root, "/sys/fs/cgroup", "memory.max", group));
		else if (strstr(controllers, "memory"))
			limit = least(limit, cgroup_limit(root, "/sys/fs/cgroup/memory",
							  "memory.limit_in_bytes", group));
	}
	if (file)
		fclose(file);
	return limit;
}

void host_memory_probe(const char *root, struct host_memory *ret_memory)
{
	struct meminfo info;
	char path[PATH_MAX];

	read_meminfo(root, &info);
	*ret_memory = (struct host_memory){ .total = info.total + info.swap,
					    .cgroup = read_cgroups(root),
					    .commit = UINT64_MAX };
	if (info.total == 0)
		ret_memory->total = UINT64_MAX;
	snprintf(path, sizeof(path), "%s/proc/sys/vm/overcommit_memory", root);
	if (read_number(path) == 2)
		ret_memory->commit =
			info.commit_limit > info.committed ? info.commit_limit - info.committed : 0;
}

static unsigned long long mib(uint64_t bytes)
{
	return (unsigned long long)(bytes >> 20);
}

int host_memory_check(const struct host_memory *memory, const struct host_memory_need *need,
		      char *why, size_t why_size)
{
	uint64_t all = need->promised + need->kept;
	uint64_t least = memory->total < memory->cgroup ? memory->total : memory->cgroup;

	why[0] = '\0';
	if (all > memory->total)
		snprintf(why, why_size,
			 "%lluM are promised here, links need %lluM besides, and this host has "
			 "%lluM of memory and swap: promise less",
			 mib(need->promised), mib(need->kept), mib(memory->total));
	else if (all > memory->cgroup)
		snprintf(why, why_size,
			 "%lluM are promised here, links need %lluM besides, and this process's "
			 "cgroup may use %lluM (memory.max): promise less, or raise the limit",
			 mib(need->promised), mib(need->kept), mib(memory->cgroup));
	else if (need->mapped > memory->commit)
		snprintf(why, why_size,
			 "%lluM of guest memory must be mapped here, vm.overcommit_memory=2 leaves "
			 "%lluM: set it to 0 or 1, or raise vm.overcommit_ratio",
			 mib(need->mapped), mib(memory->commit));
	else if (all + need->may > least) {
		snprintf(why, why_size,
			 "memory may get short: %lluM are promised here, links need %lluM, vCPUs "
			 "and devices %lluM at most, of %lluM",
			 mib(need->promised), mib(need->kept), mib(need->may), mib(least));
		return 0;
	} else
		return 0;
	return -ENOMEM;
}
