/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a seat costs that no vCPU has come to (docs/architecture.md, Seats): the memory of this process
 * with many of them less that with a few, by the kernel's account. It must be within what a node counts
 * for the thread and its surroundings (NODE_SEAT_BYTES), and what the engine says that it may keep must
 * be enough for the rest.
 *
 * usage: seat-cost [SEATS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"
#include "node/node_state.h"
#include "node/vcpu.h"

#define FEW	     8u
#define THREAD_BYTES 16384u /* its stack in the kernel, which no process is charged for */

static uint64_t now_ns(void *ctx)
{
	(void)ctx;
	return 1;
}

static void ended(void *ctx, uint32_t vcpu, const struct vcpu_end *end)
{
	(void)ctx;
	(void)vcpu;
	(void)end;
}

static const struct vcpu_ops ops = { .now_ns = now_ns, .ended = ended };

/* "NAME: N kB" of a file. */
static uint64_t read_kb(const char *path, const char *name)
{
	unsigned long long kb = 0;
	char line[256];
	FILE *file = fopen(path, "re");

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, name, strlen(name)) == 0)
			sscanf(line + strlen(name), ": %llu kB", &kb);
	if (file)
		fclose(file);
	return kb;
}

static uint64_t resident_bytes(void)
{
	return (read_kb("/proc/self/smaps_rollup", "Rss") + read_kb("/proc/self/status", "VmPTE"))
	       << 10;
}

static void park(struct vcpu **vcpu, struct engine *engine, const struct engine_ops *engine_ops,
		 uint32_t from, uint32_t to)
{
	static struct vcpu_state state;
	struct vcpu_config config = {
		.engine_ops = engine_ops, .engine = engine, .ops = &ops, .away = true
	};
	struct vcpu_stats stats;

	for (config.number = from; config.number < to; config.number++) {
		vcpu_state_reset(&state, config.number);
		if (vcpu_create(&config, &state, &vcpu[config.number]) ||
		    vcpu_start(vcpu[config.number])) {
			fprintf(stderr, "seat-cost: no seat %u\n", config.number);
			exit(1);
		}
	}
	for (uint32_t v = from; v < to; v++)
		do {
			usleep(1000);
			vcpu_stats(vcpu[v], &stats);
		} while (stats.activity != VCPU_PARKED);
}

int main(int argc, char **argv)
{
	static struct engine_features features;
	static struct cpuid_set cpuid;
	static struct vcpu *vcpu[VCPUS_MAX];
	const struct engine_ops *engine_ops = &engine_soft;
	struct engine_config config = { .cpuid = &cpuid };
	struct engine *engine;
	uint32_t count = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 72;
	uint64_t few, bytes;
	char why[256] = "";

	if (count <= FEW || count > NODE_VCPUS_MAX)
		return 2;
	config.vcpu_max = count;
	if (engine_ops->probe(&features, why, sizeof(why)) ||
	    cpuid_finish(&features.offer, count, &cpuid))
		return fprintf(stderr, "seat-cost: %s\n", why), 1;
	config.tsc_khz = features.tsc_khz;
	if (engine_ops->create(&config, &engine, why, sizeof(why)))
		return fprintf(stderr, "seat-cost: %s\n", why), 1;
	park(vcpu, engine, engine_ops, 0, FEW);
	few = resident_bytes();
	park(vcpu, engine, engine_ops, FEW, count);
	bytes = (resident_bytes() - few) / (count - FEW) + THREAD_BYTES;
	uint64_t engines = engine_ops->kept_bytes(count, 0) - engine_ops->kept_bytes(count - 1, 0);
	printf("%s: a seat that no vCPU has come to takes %llu KB; counted for one, whatever has run "
	       "there: %llu KB; for an engine without vCPUs and a guest of 1 GiB: %llu MB\n",
	       engine_ops->name, (unsigned long long)bytes / 1000,
	       (unsigned long long)(engines + NODE_SEAT_BYTES) / 1000,
	       (unsigned long long)engine_ops->kept_bytes(0, 1ull << 30) / 1000000);
	for (uint32_t v = 0; v < count; v++)
		vcpu_destroy(vcpu[v]);
	engine_ops->destroy(engine);
	return bytes > NODE_SEAT_BYTES + 131072;
}
