/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds to worlds: most small, since most defects show with three nodes and one vCPU. */
#include "tests/sim/moves/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "tests/rng.h"

#define US 1000ull
#define MS 1000000ull

static const struct field {
	const char *name;
	size_t offset;
} fields[] = {
#define FIELD(name)                                                                                \
	{                                                                                          \
#name, offsetof(struct plan, name)                                                 \
	}
	FIELD(nodes),		FIELD(vcpus),	      FIELD(moves),	     FIELD(interrupts),
	FIELD(devices),		FIELD(delay_ns),      FIELD(jitter_ns),	     FIELD(slow_percent),
	FIELD(step_ns),		FIELD(pause_percent), FIELD(pause_ns),	     FIELD(dwell_ns),
	FIELD(stay_ns),		FIELD(think_ns),      FIELD(refuse_percent), FIELD(unsaved_percent),
	FIELD(startup_percent), FIELD(many_percent),  FIELD(full_percent),   FIELD(full_ns),
	FIELD(core_broken),	FIELD(edge_broken),
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

static uint64_t *value_of(struct plan *plan, const struct field *field)
{
	return (uint64_t *)((char *)plan + field->offset);
}

void plan_make(struct plan *plan, uint64_t seed)
{
	struct rng rng = { seed };
	uint64_t dice = rng_below_64(&rng, 1000);

	*plan = (struct plan){ .seed = seed };
	plan->nodes = dice < 700   ? rng_range(&rng, 2, 4)
		      : dice < 985 ? rng_range(&rng, 5, 12)
		      : dice < 998 ? rng_range(&rng, 13, 64)
				   : rng_range(&rng, 65, NODES_MAX);
	plan->vcpus = plan->nodes > 64 ? 4 : rng_range(&rng, 1, 6);
	plan->moves = plan->nodes > 64 ? 20 : RNG_ONE_OF(&rng, 5, 20, 60);
	plan->interrupts = RNG_ONE_OF(&rng, 20, 60, 150);
	plan->devices = rng_range(&rng, 1, plan->nodes < 4 ? plan->nodes : 4);
	plan->delay_ns = rng_range(&rng, 2, 100) * US;
	plan->jitter_ns = RNG_ONE_OF(&rng, 0, 10 * US, 100 * US, 1 * MS);
	plan->slow_percent = RNG_ONE_OF(&rng, 0, 0, 20);
	plan->step_ns = RNG_ONE_OF(&rng, 1 * US, 10 * US, 50 * US);
	plan->pause_percent = RNG_ONE_OF(&rng, 0, 1, 10);
	plan->pause_ns = RNG_ONE_OF(&rng, 100 * US, 1 * MS, 5 * MS);
	plan->dwell_ns = RNG_ONE_OF(&rng, 0, 100 * US, 1 * MS, 100 * MS);
	plan->stay_ns = RNG_ONE_OF(&rng, 10 * US, 200 * US, 2 * MS);
	plan->think_ns = RNG_ONE_OF(&rng, 20 * US, 300 * US, 5 * MS);
	plan->refuse_percent = RNG_ONE_OF(&rng, 0, 10, 50);
	plan->unsaved_percent = RNG_ONE_OF(&rng, 0, 5, 50);
	plan->startup_percent = RNG_ONE_OF(&rng, 0, 5, 50);
	plan->many_percent = RNG_ONE_OF(&rng, 0, 20);
	plan->full_percent = RNG_ONE_OF(&rng, 0, 0, 10);
	plan->full_ns = RNG_ONE_OF(&rng, 50 * US, 1 * MS);
}

int plan_set(struct plan *plan, const char *setting)
{
	const char *equals = strchr(setting, '=');

	for (size_t i = 0; equals && i < FIELD_COUNT; i++) {
		size_t length = strlen(fields[i].name);
		char *end;
		uint64_t value;

		if (length != (size_t)(equals - setting) ||
		    strncmp(fields[i].name, setting, length))
			continue;
		value = strtoull(equals + 1, &end, 0);
		if (*end || end == equals + 1)
			return -EINVAL;
		*value_of(plan, &fields[i]) = value;
		return 0;
	}
	return -EINVAL;
}

void plan_print(const struct plan *plan, FILE *file)
{
	struct plan copy = *plan;

	for (size_t i = 0; i < FIELD_COUNT; i++)
		fprintf(file, "%s%s=%" PRIu64, i ? " " : "", fields[i].name,
			*value_of(&copy, &fields[i]));
	putc('\n', file);
}
