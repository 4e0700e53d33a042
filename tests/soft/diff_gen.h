/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence in the making. The generator follows the registers whose values it knows (from the
 * start state, or because it has just loaded them), so that memory operands mostly go where they
 * should: with a displacement that makes up the difference. What an instruction writes, as Zydis
 * has it, is no longer known.
 */
#ifndef TESTS_SOFT_DIFF_GEN_H
#define TESTS_SOFT_DIFF_GEN_H

#include "tests/soft/diff_decode.h"

struct diff_gen {
	const struct diff_plan *plan;
	struct diff_case *c;
	struct rng rng;
	uint32_t at, insns;
	uint16_t known;	  /* a bit per register: value[] is its value */
	uint16_t favored; /* mostly left alone: good as bases */
	uint16_t pinned;  /* must not be written: loop counters */
	bool segments_known;
	bool failed;	    /* to be thrown away */
	bool addr32_string; /* rcx has been loaded for one with 67h */
	uint32_t undefined, ever_undefined;
	uint64_t value[16];
};

/* A place to jump to, of which the use comes first. */
struct diff_label {
	uint16_t field, end; /* the relative field, and the end of its instruction */
	uint8_t bytes;	     /* of the field: 1, 4 */
	uint16_t known;
	uint64_t value[16];
};

#define EMIT(g, ...)                                                                               \
	diff_emit(g, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))
#define EMIT_TO(g, field, label, ...)                                                              \
	diff_emit_to(g, (const uint8_t[]){ __VA_ARGS__ },                                          \
		     sizeof((const uint8_t[]){ __VA_ARGS__ }), field, label)
#define B4(v) (uint8_t)(v), (uint8_t)((v) >> 8), (uint8_t)((v) >> 16), (uint8_t)((v) >> 24)

#define R_RAX 0
#define R_RCX 1
#define R_RDX 2
#define R_RBX 3
#define R_RSP 4
#define R_RBP 5
#define R_RSI 6
#define R_RDI 7

/* diff_generate.c: appends one instruction, unless it must not be there (false). */
bool diff_emit(struct diff_gen *g, const uint8_t *bytes, uint32_t count);
void diff_emit_load(struct diff_gen *g, uint32_t gpr, uint64_t value); /* mov gpr, value */
/* One instruction of these classes, with what it needs before it. */
void diff_emit_random(struct diff_gen *g);
void diff_emit_class(struct diff_gen *g, enum diff_class class);
/* An instruction that ends in a relative field of `bytes`, to be bound later. */
bool diff_emit_to(struct diff_gen *g, const uint8_t *bytes, uint32_t count, uint32_t field_bytes,
		  struct diff_label *ret_label);
/* The label is here, plus `beyond` bytes. */
void diff_bind(struct diff_gen *g, const struct diff_label *label, uint32_t beyond);
uint32_t diff_any_register(struct diff_gen *g);

/* diff_operand.c: one instruction of form f. Its bytes; 0: no way found. */
uint32_t diff_encode(struct diff_gen *g, const struct diff_form *f, uint8_t *bytes);
uint32_t diff_immediate(struct diff_gen *g, uint32_t size, uint8_t *to);

/* diff_walk.c */
bool diff_walk(struct diff_gen *g);

/* diff_template.c: several instructions that belong together. False: this class has none. */
bool diff_template(struct diff_gen *g, enum diff_class class);
/* A place below 2^31 for an image of `bytes`. */
uint32_t diff_image_target(struct diff_gen *g, uint32_t bytes, uint32_t align);
/* Loads what f finds in fixed registers: string addresses, counts, a stack, a dividend. */
void diff_prepare(struct diff_gen *g, const struct diff_form *f);

#endif
