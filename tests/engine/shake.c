/* SPDX-License-Identifier: Apache-2.0 */
/* See shake.h. */
#include "tests/engine/shake.h"

#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "wire/vcpu_image.h"

/* Between two kicks: about as long as a vCPU takes to be moved, so that it comes some way. */
#define PAUSE_NS_MIN 5000
#define PAUSE_NS_MAX 150000

static void *kicker(void *arg)
{
	struct shake *shake = arg;
	unsigned int seed = 1;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_TIMERSLACK, 1);
	while (!atomic_load(&shake->stop)) {
		struct timespec pause = { .tv_nsec = PAUSE_NS_MIN };

		pause.tv_nsec += rand_r(&seed) % (PAUSE_NS_MAX - PAUSE_NS_MIN);
		nanosleep(&pause, NULL);
		pthread_mutex_lock(&shake->lock);
		if (shake->vcpu)
			rig_ops->vcpu_kick(shake->vcpu);
		pthread_mutex_unlock(&shake->lock);
	}
	return NULL;
}

static void set_vcpu(struct shake *shake, struct engine_vcpu *vcpu)
{
	pthread_mutex_lock(&shake->lock);
	shake->vcpu = vcpu;
	pthread_mutex_unlock(&shake->lock);
}

/* The guest's TSC is the host's, and what the guest has added. */
static int set_tsc(struct rig *rig)
{
	static const struct tsc_line line = { .ratio = TSC_RATIO_ONE };

	return rig_ops->vcpu_set_tsc(rig->vcpu[0], &line);
}

int shake_begin(struct shake *shake, struct rig *rig)
{
	*shake = (struct shake){ .vcpu = rig->vcpu[0], .lock = PTHREAD_MUTEX_INITIALIZER };
	if (rig_with && rig_create(rig, rig_with, &rig->with))
		return -1;
	CHECK(set_tsc(rig) == 0, "TSC");
	CHECK(pthread_create(&shake->thread, NULL, kicker, shake) == 0, "thread");
	return 0;
}

/* No vCPU is there, and nobody kicks. */
static void change_engines(struct rig *rig)
{
	const struct engine_ops *ops = rig_ops;
	struct engine *engine = rig->engine;

	if (ops->page_lost)
		ops->page_lost(engine, 0, RIG_MEMORY_BYTES);
	rig->engine = rig->with;
	rig_ops = rig_with;
	rig->with = engine;
	rig_with = ops;
}

void shake_end(struct shake *shake, struct rig *rig)
{
	atomic_store(&shake->stop, 1);
	pthread_join(shake->thread, NULL);
	if (!rig->with)
		return;
	if (shake->moves % 2) {
		rig_ops->vcpu_destroy(rig->vcpu[0]);
		rig->vcpu[0] = NULL;
		change_engines(rig);
	}
	rig_with->destroy(rig->with);
	rig->with = NULL;
}

int shake_move(struct shake *shake, struct rig *rig)
{
	static struct vcpu_state state, arrived;
	uint8_t image[VCPU_IMAGE_BYTES_MAX];
	size_t size;
	int err;

	vcpu_state_reset(&state, 0);
	err = rig_ops->vcpu_save(rig->vcpu[0], &state);
	if (err == -EAGAIN)
		return 0;
	CHECK(err == 0, "save: %d", err);
	CHECK(vcpu_image_encode(&state, image, sizeof(image), &size) == 0, "encode");
	CHECK(vcpu_image_decode(image, size, &arrived) == 0, "decode");
	set_vcpu(shake, NULL);
	rig_watch(NULL, 0);
	rig_ops->vcpu_destroy(rig->vcpu[0]);
	rig->vcpu[0] = NULL;
	if (rig->with)
		change_engines(rig);
	CHECK(rig_ops->vcpu_create(rig->engine, 0, &rig->vcpu[0]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[0]) == 0, "bind");
	err = rig_ops->vcpu_load(rig->vcpu[0], &arrived);
	CHECK(err == 0, "%s loads what %s has saved: %d", rig_ops->name,
	      (rig_with ? rig_with : rig_ops)->name, err);
	CHECK(set_tsc(rig) == 0, "TSC");
	set_vcpu(shake, rig->vcpu[0]);
	shake->moves++;
	return 0;
}
