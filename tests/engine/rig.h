/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine for engine-test, on any engine: one VM with a few MiB of memory, vCPUs, and a loop that
 * records what the guest says. Everything fails by a message and -1; rig_close() takes a half-built
 * rig.
 */
#ifndef TESTS_ENGINE_RIG_H
#define TESTS_ENGINE_RIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/engine.h"

#define RIG_MEMORY_BYTES (4u << 20)
#define RIG_VCPUS	 4u
#define RIG_OUT_MAX	 1024u
#define RIG_LOAD	 0x1000u
#define RIG_PAGE_TABLES	 0x10000u /* identity: the first GiB, and the fourth for MMIO */
#define RIG_IDT		 0x20000u
#define RIG_GDT		 0x21000u
#define RIG_FS		 0x22000u
#define RIG_STACK	 0x80000u

/* Ports that the guests use. */
#define PORT_OUT 0x10
#define PORT_ASK 0x11
#define PORT_IN	 0x20

enum rig_mode { RIG_REAL, RIG_LONG };

struct rig {
	struct engine *engine;
	struct engine_vcpu *vcpu[RIG_VCPUS];
	struct engine_exit exit[RIG_VCPUS];
	uint8_t *memory;
	bool memory_shared;  /* another rig's */
	struct engine *with; /* of rig_with, while a guest is shaken: not where the vCPU is now */
	struct cpuid_set cpuid;
	uint32_t out[RIG_OUT_MAX];
	uint32_t out_count;
	const char *skip_reason; /* of skip() */
};

struct guest {
	const uint8_t *start, *end;
};
#define GUEST(name)                                                                                \
	({                                                                                         \
		extern const uint8_t guest_##name[], guest_##name##_end[];                         \
		(struct guest){ guest_##name, guest_##name##_end };                                \
	})

extern const struct engine_ops *rig_ops; /* the engine under test: the one that has the vCPU now */
/* Shaken guests go to and fro between rig_ops and a second engine of this kind; or NULL. */
extern const struct engine_ops *rig_with;
enum rig_host { RIG_HOST_REAL, RIG_HOST_QEMU, RIG_HOST_BOCHS };
extern enum rig_host rig_host; /* the CPU below kvm, where its known faults must be left out */
extern uint64_t rig_rounds;    /* of tests that go on as long as one likes; 0: their default */
/* The exits, but kicks, of these numbers (from 1) are told as shutdowns; 0: none. */
extern uint32_t rig_shutdown_first, rig_shutdown_last;
extern const char *rig_only;		    /* a system guest's case: run just this one, or NULL */
extern bool rig_marked;			    /* run those too that this host is known to fail */
extern struct engine_features rig_features; /* of this host; filled by main() */
extern bool rig_emulated;		    /* /dev/kvm only emulates */
extern struct engine_pages rig_pages;	    /* of the engines that are opened */
/* NULL, or the memory of rigs that have none of another's, one at a time. */
extern uint8_t *rig_memory;

#define CHECK(condition, ...)                                                                      \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			printf("  %s:%d: %s: ", __FILE_NAME__, __LINE__, #condition);              \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
			return -1;                                                                 \
		}                                                                                  \
	} while (0)

uint64_t rig_now_ns(void); /* CLOCK_MONOTONIC */
void rig_sleep_ms(unsigned int ms);

/*
 * Kicks the vCPU if it is still watched after so many seconds; NULL ends the watch. One at a time,
 * by the thread that runs it. rig_watch_barked(): has it kicked since the watch began?
 */
void rig_watch(struct engine_vcpu *vcpu, unsigned int seconds);
bool rig_watch_barked(void);

/* memory NULL: its own. */
int rig_open(struct rig *rig, uint8_t *memory);
void rig_close(struct rig *rig);

/* Creates vCPU `number`, binds it to this thread, loads guest and state. */
int rig_start(struct rig *rig, uint32_t number, struct guest guest, enum rig_mode mode);
/* An engine of these ops with the rig's memory and CPUID. */
int rig_create(struct rig *rig, const struct engine_ops *ops, struct engine **ret_engine);
/* The state rig_start() loads, to be changed before loading. */
void rig_state(struct rig *rig, uint32_t number, enum rig_mode mode, struct vcpu_state *ret_state);
void rig_set_handler(struct rig *rig, uint8_t vector, uint32_t address);

/*
 * Runs vCPU `number` until an exit that is not a write to PORT_OUT (recorded) nor an unasked kick.
 * 0 with the exit in rig->exit[number].
 */
int rig_run(struct rig *rig, uint32_t number);
/* rig_run(), and the exit must be this kind. */
int rig_expect(struct rig *rig, uint32_t number, enum engine_exit_kind kind);
/* What was recorded is exactly this? */
int rig_said(struct rig *rig, const uint32_t *values, uint32_t count);
#define SAID(rig, ...)                                                                             \
	CHECK(rig_said(rig, (const uint32_t[]){ __VA_ARGS__ },                                     \
		       sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t)) == 0,         \
	      "the guest said something else")
const char *rig_kind_name(enum engine_exit_kind kind);

#endif
