/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What executes vCPUs: `kvm` or `soft` behind one small interface. An engine knows nothing of
 * nodes, devices or the APIC: it runs a vCPU until something outside it is needed, and says what.
 *
 *   create VM, add memory, create vCPUs, load state -> { run -> exit -> answer }* -> save state
 *
 * engine_vcpu_run() is called by the thread that owns the vCPU; engine_vcpu_kick() by any thread or
 * a signal handler. Everything else before the vCPU runs or while it is stopped. Errors: 0 or
 * negative errno; `why` (where given) is one line for the user, naming the remedy.
 *
 * An exit is a question, and struct engine_exit holds its answer too: the next run (or save) reads
 * it there. So each vCPU has one struct engine_exit, zeroed at first, passed to every run and alive
 * between.
 *
 * Kicks are never lost and may come twice: a kick makes the present run, or else the next one, end
 * with EXIT_KICKED. A vCPU that waits for a page inside the kernel (userfaultfd) is kicked out as
 * well, mostly: when the kernel itself reads guest memory it waits for the page whatever happens.
 * Running again is always harmless: the instruction starts anew and waits for its page again.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/tsc_line.h"
#include "vcpu/cpuid.h"
#include "vcpu/vcpu_state.h"

enum engine_exit_kind {
	EXIT_IO,       /* port access: io; for reads the caller fills io.data before the next run */
	EXIT_MMIO,     /* physical address outside guest memory: mmio, likewise */
	EXIT_MSR_READ, /* APIC or TSC deadline: set msr.value, or msr.fault to inject #GP */
	EXIT_MSR_WRITE, /* likewise: set msr.fault, or leave it 0 */
	EXIT_HLT,
	EXIT_WINDOW,   /* the vCPU can take an interrupt now (engine_vcpu_want_window()) */
	EXIT_KICKED,   /* a kick, a signal, or TPR lowered: look at pending work again, then run */
	EXIT_SHUTDOWN, /* triple fault */
	EXIT_FAILED,   /* cannot be run any more: fail.reason, a static string; fail.detail */
};

struct engine_exit {
	enum engine_exit_kind kind;
	union {
		struct {
			uint16_t port;
			uint8_t size; /* 1, 2, 4 */
			uint8_t write;
			uint32_t count; /* string I/O: this many items in data, size bytes each */
			uint8_t *data;
		} io;
		struct {
			uint64_t gpa;
			uint8_t size; /* 1..8 */
			uint8_t write;
			uint8_t *data;
		} mmio;
		struct {
			uint32_t index;
			uint8_t fault;
			uint64_t value;
			uint64_t
				tsc_adjust; /* of a TSC deadline: as it was when that was written */
		} msr;
		struct {
			const char *reason;
			uint64_t detail;
		} fail;
	};
};

struct engine_features {
	bool tsc_deadline; /* writes of MSR 0x6e0 have been seen to exit */
	bool tsc_scaling;  /* engine_config.tsc_khz may differ from the host's */
	/* ... and by at least so much, for the guest's TSC to run at any slope: tsc_ratio() */
	uint32_t tsc_margin_ppm;
	bool walks_write; /* guest page-table walks count as writes (AMD, or Intel with eptad=1) */
	uint32_t tsc_khz; /* of the host, by its own clock (engine/tsc_rate.h) */
	const char *tsc_source; /* how that is known; static */
	const char *advice; /* one line for pods of several nodes (eptad=1, say), or NULL; static */
	struct cpuid_set offer; /* CPUID this host can offer (cpuid_offer()) */
};

/*
 * How an engine keeps pages here while it does in several steps what must be one to everybody else:
 * a locked instruction across two pages.
 *
 * keep: `count` (1 or 2) pages of guest memory are here, writable, and stay until release(). It
 * never waits for another node: 0; -EAGAIN: one is not here now, and none is kept: touch them all
 * for writing, as guest code would, and ask again. Other errors: the node is ending. One thread at
 * a time, and it must not touch any other guest memory before release().
 */
#define ENGINE_PAGES_MAX 2u
struct engine_pages {
	int (*keep)(void *arg, const uint64_t *gpa, uint32_t count);
	void (*release)(void *arg);
	void *arg;
};

struct engine_config {
	uint32_t vcpu_max; /* vCPUs created on this node at most */
	uint32_t tsc_khz;  /* frequency of the guest's TSC */
	/* Of the pod (cpuid_finish()). Copied; the engine patches APIC ids in per vCPU. */
	const struct cpuid_set *cpuid;
	struct engine_pages pages; /* keep NULL: only this engine uses guest memory */
};

/*
 * The signal that kicks. Do not block it in threads that run vCPUs, but in every handler that may
 * run on such a thread (sa_mask): what an engine does at a kick depends on what it interrupts, and
 * another handler is nothing that it could get the vCPU out of.
 *
 * A signal that does not queue: one that is sent is pending once, and sending it never fails for
 * want of room. By default it is ignored, so one that comes too late does no harm.
 */
#define ENGINE_KICK_SIGNAL SIGURG

struct engine;	    /* one VM */
struct engine_vcpu; /* one vCPU of it */

struct engine_ops {
	const char *name; /* "kvm", "soft" */
	bool translates; /* guest code is rewritten: its own guards against the CPU protect nothing */
	/*
	 * Can this host run it, and with what? -ENODEV, -EACCES, -ENOTSUP with `why`. Creates
	 * nothing lasting.
	 */
	int (*probe)(struct engine_features *ret_features, char *why, size_t why_size);
	int (*create)(const struct engine_config *config, struct engine **ret_engine, char *why,
		      size_t why_size);
	void (*destroy)(struct engine *engine);
	/*
	 * What an engine keeps resident at most, with so many vCPUs and guest memory of so many bytes,
	 * besides that memory. Needs no engine.
	 */
	uint64_t (*kept_bytes)(uint32_t vcpu_count, uint64_t guest_bytes);
	/* Guest memory at gpa is host memory at hva. Ranges never overlap; stay until destroy. */
	int (*add_memory)(struct engine *engine, uint64_t gpa, void *hva, uint64_t bytes);

	/*
	 * The node no longer has these pages in the way it had: another node, or a device of this
	 * one, is about to write them. What the engine has made of their contents is void. After
	 * this node's access has been taken away (or before the device's write is announced as
	 * done), before anyone is told that it has. Any thread; never waits for guest memory. NULL:
	 * this engine makes nothing of contents.
	 */
	void (*page_lost)(struct engine *engine, uint64_t gpa, uint64_t bytes);

	/*
	 * The ratio of guest TSC to host TSC that vCPUs will run at if asked for `wanted`: the
	 * nearest one that the hardware has, and not above it. Any thread.
	 */
	uint64_t (*tsc_ratio)(const struct engine *engine, uint64_t wanted);

	int (*vcpu_create)(struct engine *engine, uint32_t number, struct engine_vcpu **ret_vcpu);
	void (*vcpu_destroy)(struct engine_vcpu *vcpu);
	/* Before the first run, by the thread that will run it: kicks go to that thread. */
	int (*vcpu_bind)(struct engine_vcpu *vcpu);
	/*
	 * -EINVAL: the state asks for what the pod's CPUID does not offer, or is no x86 state.
	 * -ENOTSUP: another engine may have it, this one cannot.
	 */
	int (*vcpu_load)(struct engine_vcpu *vcpu, const struct vcpu_state *state);
	/*
	 * First finishes the instruction of the last exit with its answer. state->lapic and
	 * run_state it leaves alone: they are the caller's. -EAGAIN: that instruction has another
	 * question, or is not at its end: run on, and save after the next exit, which a kick brings.
	 */
	int (*vcpu_save)(struct engine_vcpu *vcpu, struct vcpu_state *state);
	/*
	 * Its state has been saved, and goes on elsewhere: a load, if ever, is the next that it
	 * gets. For work that would else be the load's. Owner thread; NULL: there is none.
	 */
	void (*vcpu_parked)(struct engine_vcpu *vcpu);
	/*
	 * Guest TSC := line, plus what the guest itself has added through TSC_ADJUST. A line, so
	 * that no delay between computing and setting it matters; its ratio is one that tsc_ratio()
	 * gave. Owner thread, between runs; after vcpu_load(), as often as the pod clock wants (a
	 * few microseconds). Backwards steps are the caller's to avoid.
	 */
	int (*vcpu_set_tsc)(struct engine_vcpu *vcpu, const struct tsc_line *line);
	int (*vcpu_run)(struct engine_vcpu *vcpu, struct engine_exit *exit);
	/*
	 * Any thread or signal handler. The present or the next run ends soon with EXIT_KICKED; the
	 * guest need not have come any way since the last one.
	 */
	void (*vcpu_kick)(struct engine_vcpu *vcpu);
	/*
	 * Any thread: another number each time that vcpu_run() has done a piece of what is long, has an
	 * end, and is not broken off by a kick. Who looks for lost kicks does not count the time of
	 * that. NULL: nothing is long.
	 */
	uint64_t (*vcpu_work)(const struct engine_vcpu *vcpu);

	/* The rest: between runs, owner thread. */
	/* IF set, no shadow, nothing in injection. */
	bool (*vcpu_can_interrupt)(struct engine_vcpu *vcpu);
	/* Only after vcpu_can_interrupt() said yes, one per run. */
	int (*vcpu_interrupt)(struct engine_vcpu *vcpu, uint8_t vector);
	int (*vcpu_nmi)(struct engine_vcpu *vcpu);
	void (*vcpu_want_window)(struct engine_vcpu *vcpu, bool want);
	uint8_t (*vcpu_tpr)(struct engine_vcpu *vcpu); /* CR8 as the guest has it */
	void (*vcpu_set_tpr)(struct engine_vcpu *vcpu, uint8_t cr8);
	/* For reports, and to tell what runs: each may take a call of the kernel's. */
	uint64_t (*vcpu_rip)(struct engine_vcpu *vcpu);
	uint64_t (*vcpu_cr3)(struct engine_vcpu *vcpu);
};

extern const struct engine_ops engine_kvm, engine_soft;

#endif
