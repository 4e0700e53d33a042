/* SPDX-License-Identifier: Apache-2.0 */
/* See apart.h. Messages are of one binary's two processes, and structs as they are. */
#include "tests/engine/apart.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/vcpu_image.h"

#define DATA_MAX 4096u /* of an exit */

enum what {
	CREATE,
	DESTROY,
	PAGE_LOST,
	VCPU_CREATE,
	VCPU_DESTROY,
	VCPU_BIND,
	VCPU_LOAD,
	VCPU_SAVE,
	VCPU_SET_TSC,
	VCPU_RUN,
	VCPU_CAN_INTERRUPT,
	VCPU_INTERRUPT,
	VCPU_NMI,
	VCPU_WANT_WINDOW,
	VCPU_RIP,
	VCPU_CR3,
};

/* A question, and its answer. */
struct message {
	enum what what;
	int result;
	uint64_t value; /* a vector, whether a window is wanted, a register */
	uint64_t gpa, bytes;
	struct engine_config config;
	struct cpuid_set cpuid;
	struct tsc_line line;
	bool answers; /* exit and data answer the last exit */
	struct engine_exit exit;
	size_t data_size, image_size;
	uint8_t data[DATA_MAX];
	uint8_t image[VCPU_IMAGE_BYTES_MAX];
	char why[256];
};

static const struct engine_ops *real;
static struct engine_ops ops;
static void *memory;
static uint64_t memory_bytes;

__attribute__((noreturn)) static void die(const char *what)
{
	printf("FAILED: the other process: %s\n", what);
	exit(1);
}

/* Data of an exit is in its own struct here, and somewhere in the engine there. */
static uint8_t *data_of(const struct engine_exit *exit, size_t *ret_size)
{
	if (exit->kind == EXIT_IO) {
		*ret_size = (size_t)exit->io.size * exit->io.count;
		return exit->io.data;
	}
	*ret_size = exit->kind == EXIT_MMIO ? exit->mmio.size : 0;
	return exit->kind == EXIT_MMIO ? exit->mmio.data : NULL;
}

/* False: the other side has gone. */
static bool receive(int fd, struct message *m)
{
	ssize_t size;

	do
		size = recv(fd, m, sizeof(*m), 0);
	while (size < 0 && errno == EINTR);
	return size == (ssize_t)sizeof(*m);
}

static bool transmit(int fd, const struct message *m)
{
	ssize_t size;

	do
		size = send(fd, m, sizeof(*m), MSG_NOSIGNAL);
	while (size < 0 && errno == EINTR);
	return size == (ssize_t)sizeof(*m);
}

/* ---- the other process ----------------------------------------------------------------------- */

static struct there {
	int fd, kick_fd;
	struct engine *engine;
	struct cpuid_set cpuid;
	struct engine_exit exit;

	pthread_mutex_t lock;
	struct engine_vcpu *vcpu; /* its thread changes it under lock */
} there = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *kicks(void *arg)
{
	sigset_t all;
	char byte;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	while (recv(there.kick_fd, &byte, 1, 0) == 1) {
		pthread_mutex_lock(&there.lock);
		if (there.vcpu)
			real->vcpu_kick(there.vcpu);
		pthread_mutex_unlock(&there.lock);
	}
	return arg;
}

static int create(struct message *m)
{
	int r;

	there.cpuid = m->cpuid;
	m->config.cpuid = &there.cpuid;
	r = real->create(&m->config, &there.engine, m->why, sizeof(m->why));
	return r ? r : real->add_memory(there.engine, 0, memory, memory_bytes);
}

static int change_vcpu(bool exists)
{
	int r = 0;

	pthread_mutex_lock(&there.lock);
	if (exists)
		r = real->vcpu_create(there.engine, 0, &there.vcpu);
	else
		real->vcpu_destroy(there.vcpu);
	if (!exists || r)
		there.vcpu = NULL;
	pthread_mutex_unlock(&there.lock);
	memset(&there.exit, 0, sizeof(there.exit));
	return r;
}

static int load(const struct message *m)
{
	static struct vcpu_state state;
	int r = vcpu_image_decode(m->image, m->image_size, &state);

	return r ? r : real->vcpu_load(there.vcpu, &state);
}

static int save(struct message *m)
{
	static struct vcpu_state state;
	int r;

	vcpu_state_reset(&state, 0);
	r = real->vcpu_save(there.vcpu, &state);
	return r ? r : vcpu_image_encode(&state, m->image, sizeof(m->image), &m->image_size);
}

static void take_answers(const struct message *m)
{
	size_t size;
	uint8_t *data = data_of(&there.exit, &size);

	if (!m->answers)
		return;
	if (data)
		memcpy(data, m->data, size);
	else if (there.exit.kind == EXIT_MSR_READ || there.exit.kind == EXIT_MSR_WRITE)
		there.exit.msr = m->exit.msr;
}

static int run(struct message *m)
{
	int r = real->vcpu_run(there.vcpu, &there.exit);
	const uint8_t *data = data_of(&there.exit, &m->data_size);

	if (m->data_size > DATA_MAX)
		return -E2BIG;
	if (data)
		memcpy(m->data, data, m->data_size);
	m->exit = there.exit;
	return r;
}

static int obey(struct message *m)
{
	take_answers(m);
	switch (m->what) {
	case CREATE:
		return create(m);
	case DESTROY:
		real->destroy(there.engine);
		return 0;
	case PAGE_LOST:
		real->page_lost(there.engine, m->gpa, m->bytes);
		return 0;
	case VCPU_CREATE:
		return change_vcpu(true);
	case VCPU_DESTROY:
		return change_vcpu(false);
	case VCPU_BIND:
		return real->vcpu_bind(there.vcpu);
	case VCPU_LOAD:
		return load(m);
	case VCPU_SAVE:
		return save(m);
	case VCPU_SET_TSC:
		return real->vcpu_set_tsc(there.vcpu, &m->line);
	case VCPU_RUN:
		return run(m);
	case VCPU_CAN_INTERRUPT:
		m->value = real->vcpu_can_interrupt(there.vcpu);
		return 0;
	case VCPU_INTERRUPT:
		return real->vcpu_interrupt(there.vcpu, (uint8_t)m->value);
	case VCPU_NMI:
		return real->vcpu_nmi(there.vcpu);
	case VCPU_WANT_WINDOW:
		real->vcpu_want_window(there.vcpu, m->value);
		return 0;
	case VCPU_RIP:
		m->value = real->vcpu_rip(there.vcpu);
		return 0;
	case VCPU_CR3:
		m->value = real->vcpu_cr3(there.vcpu);
		return 0;
	}
	return -EINVAL;
}

__attribute__((noreturn)) static void live_there(void)
{
	static struct message m;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pthread_create(&thread, NULL, kicks, NULL))
		_exit(1);
	while (receive(there.fd, &m)) {
		m.result = obey(&m);
		if (!transmit(there.fd, &m))
			break;
	}
	_exit(0);
}

/* ---- this one -------------------------------------------------------------------------------- */

static int fd, kick_fd;
static struct message message;	  /* one at a time: the thread that runs the vCPU */
static struct engine_exit *asked; /* the last exit since the load */
static uint8_t asked_data[DATA_MAX];
static uint64_t image_count, run_count;
static char here_engine, here_vcpu; /* what the pointers point to */

static int say(enum what what)
{
	size_t size = 0;

	message.what = what;
	message.answers = asked && (what == VCPU_RUN || what == VCPU_SAVE);
	if (message.answers) {
		message.exit = *asked;
		data_of(asked, &size);
		memcpy(message.data, asked_data, size);
	}
	if (!transmit(fd, &message) || !receive(fd, &message))
		die("it has gone");
	return message.result;
}

static int ops_create(const struct engine_config *config, struct engine **ret_engine, char *why,
		      size_t why_size)
{
	int r;

	message.config = *config;
	message.cpuid = *config->cpuid;
	message.why[0] = 0;
	r = say(CREATE);
	snprintf(why, why_size, "%s", message.why);
	*ret_engine = (struct engine *)(void *)&here_engine;
	return r;
}

static void ops_destroy(struct engine *engine)
{
	say(DESTROY);
}

static int ops_add_memory(struct engine *engine, uint64_t gpa, void *hva, uint64_t bytes)
{
	return gpa == 0 && hva == memory && bytes == memory_bytes ? 0 : -EINVAL;
}

static void ops_page_lost(struct engine *engine, uint64_t gpa, uint64_t bytes)
{
	message.gpa = gpa;
	message.bytes = bytes;
	say(PAGE_LOST);
}

static int ops_vcpu_create(struct engine *engine, uint32_t number, struct engine_vcpu **ret_vcpu)
{
	if (number)
		return -EINVAL;
	asked = NULL;
	*ret_vcpu = (struct engine_vcpu *)(void *)&here_vcpu;
	return say(VCPU_CREATE);
}

static void ops_vcpu_destroy(struct engine_vcpu *vcpu)
{
	asked = NULL;
	if (vcpu)
		say(VCPU_DESTROY);
}

static int ops_vcpu_bind(struct engine_vcpu *vcpu)
{
	return say(VCPU_BIND);
}

static int ops_vcpu_load(struct engine_vcpu *vcpu, const struct vcpu_state *state)
{
	int r = vcpu_image_encode(state, message.image, sizeof(message.image), &message.image_size);

	asked = NULL;
	image_count++;
	return r ? r : say(VCPU_LOAD);
}

static int ops_vcpu_save(struct engine_vcpu *vcpu, struct vcpu_state *state)
{
	static struct vcpu_state saved;
	int r = say(VCPU_SAVE);

	if (!r)
		r = vcpu_image_decode(message.image, message.image_size, &saved);
	if (r)
		return r;
	image_count++;
	saved.lapic = state->lapic;
	saved.run_state = state->run_state;
	*state = saved;
	return 0;
}

static int ops_vcpu_set_tsc(struct engine_vcpu *vcpu, const struct tsc_line *line)
{
	message.line = *line;
	return say(VCPU_SET_TSC);
}

static int ops_vcpu_run(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	int r = say(VCPU_RUN);

	run_count++;
	*exit = message.exit;
	memcpy(asked_data, message.data, message.data_size);
	if (exit->kind == EXIT_IO)
		exit->io.data = asked_data;
	else if (exit->kind == EXIT_MMIO)
		exit->mmio.data = asked_data;
	asked = exit;
	return r;
}

/* One that has no room behind others is one of them. */
static void ops_vcpu_kick(struct engine_vcpu *vcpu)
{
	(void)!send(kick_fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static bool ops_vcpu_can_interrupt(struct engine_vcpu *vcpu)
{
	say(VCPU_CAN_INTERRUPT);
	return message.value;
}

static int ops_vcpu_interrupt(struct engine_vcpu *vcpu, uint8_t vector)
{
	message.value = vector;
	return say(VCPU_INTERRUPT);
}

static int ops_vcpu_nmi(struct engine_vcpu *vcpu)
{
	return say(VCPU_NMI);
}

static void ops_vcpu_want_window(struct engine_vcpu *vcpu, bool want)
{
	message.value = want;
	say(VCPU_WANT_WINDOW);
}

static uint64_t ops_vcpu_rip(struct engine_vcpu *vcpu)
{
	say(VCPU_RIP);
	return message.value;
}

static uint64_t ops_vcpu_cr3(struct engine_vcpu *vcpu)
{
	say(VCPU_CR3);
	return message.value;
}

const struct engine_ops *apart_begin(const struct engine_ops *of, void *hva, uint64_t bytes)
{
	static char name[64];
	int pair[2], kick_pair[2];

	real = of;
	memory = hva;
	memory_bytes = bytes;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, kick_pair))
		die("no sockets");
	switch (fork()) {
	case -1:
		die("no process");
	case 0:
		close(pair[0]);
		close(kick_pair[0]);
		there.fd = pair[1];
		there.kick_fd = kick_pair[1];
		live_there();
	}
	close(pair[1]);
	close(kick_pair[1]);
	fd = pair[0];
	kick_fd = kick_pair[0];
	snprintf(name, sizeof(name), "%s in another process", of->name);
	ops = (struct engine_ops){ .name = name,
				   .translates = of->translates,
				   .probe = of->probe,
				   .create = ops_create,
				   .destroy = ops_destroy,
				   .add_memory = ops_add_memory,
				   .page_lost = of->page_lost ? ops_page_lost : NULL,
				   .vcpu_create = ops_vcpu_create,
				   .vcpu_destroy = ops_vcpu_destroy,
				   .vcpu_bind = ops_vcpu_bind,
				   .vcpu_load = ops_vcpu_load,
				   .vcpu_save = ops_vcpu_save,
				   .vcpu_set_tsc = ops_vcpu_set_tsc,
				   .vcpu_run = ops_vcpu_run,
				   .vcpu_kick = ops_vcpu_kick,
				   .vcpu_can_interrupt = ops_vcpu_can_interrupt,
				   .vcpu_interrupt = ops_vcpu_interrupt,
				   .vcpu_nmi = ops_vcpu_nmi,
				   .vcpu_want_window = ops_vcpu_want_window,
				   .vcpu_rip = ops_vcpu_rip,
				   .vcpu_cr3 = ops_vcpu_cr3 };
	return &ops;
}

void apart_counts(uint64_t *ret_images, uint64_t *ret_runs)
{
	*ret_images = image_count;
	*ret_runs = run_count;
}
