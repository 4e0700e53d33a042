/* SPDX-License-Identifier: Apache-2.0 */
/* See shake.h. */
#include "tests/engine/shake.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "wire/vcpu_image.h"

/*
 * Between two kicks, at random: at first about as long as a vCPU takes to be moved, so that it comes
 * some way. But until its guest goes on, page tables are walked and code is translated anew, and a
 * slow host, or a build with sanitizers, may take longer for that than any of these pauses. Who is
 * kicked again and again before he has begun gets nowhere, whatever the engine. So the longest pause
 * doubles with every so many kicks: a guest that ends if it is let run ends under kicks, too.
 */
#define PAUSE_NS_MIN  5000u
#define PAUSE_NS_MAX  150000u
#define KICKS_ALIKE   2000u
#define DOUBLINGS_MAX 8u

#define XSAVE_POINTERS	8
#define XSAVE_MXCSR	24
#define XSAVE_REGISTERS 32
#define XSAVE_XMM	160
#define XSAVE_YMM	576 /* their upper halves */
#define RFLAGS_DF	0x400u
#define CR4_TSD		4u

const char *const shake_items[] = {
	"gpr",		 "rflags",	"cr2",	       "cr4",	     "cr8",	     "xcr0",
	"dr3",		 "dr6",		"dr7",	       "fs",	     "ldtr",	     "tr",
	"gdt",		 "idt",		"star",	       "lstar",	     "sfmask",	     "kernel_gs",
	"sysenter",	 "pat",		"tsc_aux",     "tsc_adjust", "mtrr_type",    "mtrr_fixed",
	"mtrr_variable", "x87",		"x87_control", "mxcsr",	     "xmm",	     "trap",
	"nmi_masked",	 "nmi_pending", "avx",	       "x87_cs",     "x87_pointers", NULL,
};

static const char *lost; /* of them, or NULL */
static uint64_t late_ns;

bool shake_lose(const char *item)
{
	for (size_t i = 0; shake_items[i]; i++)
		if (!strcmp(shake_items[i], item))
			lost = shake_items[i];
	return lost != NULL;
}

void shake_come_late(uint32_t us)
{
	late_ns = us * 1000ull;
}

static bool is_lost(const char *item)
{
	return !strcmp(lost, item);
}

static void lose_registers(struct vcpu_state *state)
{
	if (is_lost("gpr"))
		state->gpr[15] = 0;
	else if (is_lost("rflags"))
		state->rflags &= ~(uint64_t)RFLAGS_DF;
	else if (is_lost("cr2"))
		state->cr2 = 0;
	else if (is_lost("cr4"))
		state->cr4 &= ~(uint64_t)CR4_TSD;
	else if (is_lost("cr8"))
		state->cr8 = 0;
	else if (is_lost("xcr0"))
		state->xcr0 = 1;
	else if (is_lost("dr3"))
		state->dr[3] = 0;
	else if (is_lost("dr6"))
		state->dr6 = 0xffff0ff0;
	else if (is_lost("dr7"))
		state->dr7 = 0x400;
	else if (is_lost("fs"))
		state->segment[SEG_FS].base = 0;
	else if (is_lost("ldtr"))
		state->segment[SEG_LDTR].limit = 0;
	else if (is_lost("tr"))
		state->segment[SEG_TR].base = 0x23000;
	else if (is_lost("gdt"))
		state->gdt.limit = 0xa7;
	else if (is_lost("idt"))
		state->idt.limit = 0xfff;
}

static void lose_msrs(struct vcpu_state *state)
{
	static const struct {
		const char *item;
		enum vcpu_msr msr;
	} items[] = {
		{ "star", MSR_STAR },
		{ "lstar", MSR_LSTAR },
		{ "sfmask", MSR_SFMASK },
		{ "kernel_gs", MSR_KERNEL_GS_BASE },
		{ "sysenter", MSR_SYSENTER_EIP },
		{ "pat", MSR_PAT },
		{ "tsc_aux", MSR_TSC_AUX },
		{ "tsc_adjust", MSR_TSC_ADJUST },
		{ "mtrr_type", MSR_MTRR_DEF_TYPE },
		{ "mtrr_fixed", MSR_MTRR_FIXED + 10 },
		{ "mtrr_variable", MSR_MTRR_VARIABLE + 15 },
	};
	uint64_t reset[VCPU_MSR_COUNT];

	vcpu_msr_reset(reset);
	for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++)
		if (is_lost(items[i].item))
			state->msr[items[i].msr] = reset[items[i].msr];
}

static void lose_extended(struct vcpu_state *state)
{
	static const uint8_t mxcsr[] = { 0x80, 0x1f };

	if (is_lost("x87"))
		memset(state->xsave + XSAVE_REGISTERS, 0, XSAVE_XMM - XSAVE_REGISTERS);
	else if (is_lost("x87_control"))
		state->xsave[1] |= 1;
	else if (is_lost("mxcsr"))
		memcpy(state->xsave + XSAVE_MXCSR, mxcsr, sizeof(mxcsr));
	else if (is_lost("xmm"))
		memset(state->xsave + XSAVE_XMM + 240, 0, 16);
	else if (is_lost("avx"))
		memset(state->xsave + XSAVE_YMM + 240, 0, 16);
	else if (is_lost("x87_cs"))
		state->x87_cs = 0;
	else if (is_lost("x87_pointers"))
		memset(state->xsave + XSAVE_POINTERS, 0, XSAVE_MXCSR - XSAVE_POINTERS);
}

static void lose_events(struct vcpu_state *state)
{
	if (is_lost("trap"))
		state->exception_pending = state->exception_has_payload = 0;
	else if (is_lost("nmi_masked"))
		state->nmi_masked = 0;
	else if (is_lost("nmi_pending"))
		state->nmi_pending = 0;
}

static void lose(struct vcpu_state *state)
{
	if (!lost)
		return;
	lose_registers(state);
	lose_msrs(state);
	lose_extended(state);
	lose_events(state);
}

/* Lock held. */
static uint32_t next_pause_ns(const struct shake *shake, unsigned int *seed)
{
	uint32_t doublings = shake->kicks / KICKS_ALIKE;
	uint32_t most = PAUSE_NS_MAX << (doublings < DOUBLINGS_MAX ? doublings : DOUBLINGS_MAX);

	return PAUSE_NS_MIN + (uint32_t)rand_r(seed) % (most - PAUSE_NS_MIN);
}

/* Lock held. */
static void kick(struct shake *shake)
{
	rig_ops->vcpu_kick(shake->vcpu);
	shake->kicks++;
}

static void *kicker(void *arg)
{
	struct shake *shake = arg;
	unsigned int seed = 1;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_TIMERSLACK, 1);
	/* What is lost must be so behind the place where a guest has put it: exits alone. */
	while (!atomic_load(&shake->stop) && !lost) {
		struct timespec pause = { 0 };

		pthread_mutex_lock(&shake->lock);
		pause.tv_nsec = next_pause_ns(shake, &seed);
		pthread_mutex_unlock(&shake->lock);
		nanosleep(&pause, NULL);
		pthread_mutex_lock(&shake->lock);
		if (shake->vcpu)
			kick(shake);
		pthread_mutex_unlock(&shake->lock);
	}
	return NULL;
}

/* A kick that is due before the guest could go on comes before it does. */
static void come_late(struct shake *shake)
{
	pthread_mutex_lock(&shake->lock);
	if (next_pause_ns(shake, &shake->late_seed) < late_ns)
		kick(shake);
	pthread_mutex_unlock(&shake->lock);
}

static void set_vcpu(struct shake *shake, struct engine_vcpu *vcpu)
{
	pthread_mutex_lock(&shake->lock);
	shake->vcpu = vcpu;
	pthread_mutex_unlock(&shake->lock);
}

int shake_set_tsc(struct rig *rig)
{
	static const struct tsc_line line = { .ratio = TSC_RATIO_ONE };

	return rig_ops->vcpu_set_tsc(rig->vcpu[0], &line);
}

int shake_begin(struct shake *shake, struct rig *rig)
{
	*shake = (struct shake){ .vcpu = rig->vcpu[0], .lock = PTHREAD_MUTEX_INITIALIZER };
	if (rig_with && rig_create(rig, rig_with, &rig->with))
		return -1;
	CHECK(shake_set_tsc(rig) == 0, "TSC");
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

int shake_move(struct shake *shake, struct rig *rig, struct vcpu_state *ret_loaded)
{
	static struct vcpu_state state;
	struct vcpu_state *arrived = ret_loaded;
	uint8_t image[VCPU_IMAGE_BYTES_MAX];
	size_t size;
	int err;

	vcpu_state_reset(&state, 0);
	err = rig_ops->vcpu_save(rig->vcpu[0], &state);
	if (err == -EAGAIN)
		return 0;
	CHECK(err == 0, "save: %d", err);
	CHECK(vcpu_image_encode(&state, image, sizeof(image), &size) == 0, "encode");
	CHECK(vcpu_image_decode(image, size, arrived) == 0, "decode");
	lose(arrived);
	set_vcpu(shake, NULL);
	rig_watch(NULL, 0);
	rig_ops->vcpu_destroy(rig->vcpu[0]);
	rig->vcpu[0] = NULL;
	if (rig->with)
		change_engines(rig);
	CHECK(rig_ops->vcpu_create(rig->engine, 0, &rig->vcpu[0]) == 0, "create");
	CHECK(rig_ops->vcpu_bind(rig->vcpu[0]) == 0, "bind");
	err = rig_ops->vcpu_load(rig->vcpu[0], arrived);
	CHECK(err == 0, "%s loads what %s has saved: %d", rig_ops->name,
	      (rig_with ? rig_with : rig_ops)->name, err);
	CHECK(shake_set_tsc(rig) == 0, "TSC");
	set_vcpu(shake, rig->vcpu[0]);
	shake->moves++;
	come_late(shake);
	return 0;
}
