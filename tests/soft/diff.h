/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differential tests of an engine against the CPU it runs on.
 *
 *   seed -> state + instructions --+--> native.c: a process of its own, state taken in signal
 * handlers
 *                                  +--> guest.c:  a guest in long mode, state taken after its HLT
 *                                  both outcomes -> compare.c: equal, or a difference in words
 *
 * Both sides see the same virtual addresses (below), the same bytes there, the same registers, and
 * go until something faults: an int3 ends each sequence. Everything follows from the seed and the
 * code, so that (seed, address, bytes) is a complete reproducer: a line of tests/soft/regressions.
 *
 * What a sequence can write is compared when it has ended, and is as it was when the next begins,
 * even if it was cut off, or ran on one side only, or twice. So no sequence depends on those before
 * it. Of the code's pages it therefore sees a window, and all else there is a hole.
 *
 *   DIFF_CODE_VA   code, readable, writable and executable: the window, which is the page that a
 *                  sequence begins in and the next; every 16th page is always a hole
 *   DIFF_ARENA_VA  data:  -- RW RW RO -- RW RO RW --     (-- is a hole), below 2^31
 *   DIFF_FAR_VA    data:  -- RW RW --                    beyond the reach of a displacement
 */
#ifndef TESTS_SOFT_DIFF_H
#define TESTS_SOFT_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/rng.h"

#define DIFF_PAGE	     4096u
#define DIFF_CODE_VA	     0x20000000ull
#define DIFF_CODE_PAGES	     512u
#define DIFF_CODE_HOLE(page) ((page) % 16 == 15)
#define DIFF_ARENA_VA	     0x30000000ull
#define DIFF_FAR_VA	     0x5a0000000000ull
#define DIFF_DATA_PAGES	     8u
#define DIFF_IMAGES	     64u /* different contents of the data pages */

#define DIFF_CODE_MAX	 1024u		 /* bytes of a sequence */
#define DIFF_INSN_MAX	 96u		 /* instructions of a sequence */
#define DIFF_WINDOW	 (2 * DIFF_PAGE) /* bytes; around the sequence there is int3 */
#define DIFF_XSAVE_BYTES 832u		 /* standard format: x87, SSE, header, AVX */
#define DIFF_BATCH	 64u

#define DIFF_CS32 0x07u /* 32-bit code, in an LDT: not every Linux has such a segment */
#define DIFF_CS	  0x33u /* as Linux has them, so that they can be compared */
#define DIFF_SS	  0x2bu

#define FLAG_CF		 0x001u
#define FLAG_PF		 0x004u
#define FLAG_AF		 0x010u
#define FLAG_ZF		 0x040u
#define FLAG_SF		 0x080u
#define FLAG_TF		 0x100u
#define FLAG_IF		 0x200u
#define FLAG_DF		 0x400u
#define FLAG_OF		 0x800u
#define FLAG_NT		 0x4000u
#define FLAG_RF		 0x10000u
#define FLAG_AC		 0x40000u
#define FLAG_ID		 0x200000u
#define FLAGS_ARITHMETIC (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

enum {
	VECTOR_DE = 0,
	VECTOR_DB = 1,
	VECTOR_BP = 3,
	VECTOR_UD = 6,
	VECTOR_SS = 12,
	VECTOR_GP = 13,
	VECTOR_PF = 14,
	VECTOR_AC = 17,
	VECTOR_XM = 19
};

/* Where each data page is mapped, in the order of diff_outcome.memory. */
struct diff_page {
	uint64_t va;
	bool writable;
};
extern const struct diff_page diff_pages[DIFF_DATA_PAGES];

struct diff_state {
	uint64_t gpr[16]; /* in the encoding's order */
	uint64_t rip, rflags, fs_base, gs_base;
	uint16_t cs, ss, ds, es;
	_Alignas(64) uint8_t xsave[DIFF_XSAVE_BYTES];
};

/* Where a sequence runs. MODE_SYSTEM: at CPL 0 in the guest, natively as MODE_USER. */
enum diff_mode { MODE_USER, MODE_SYSTEM, MODE_COMPAT, MODE_COUNT };
extern const char diff_mode_letter[MODE_COUNT];

/* What must be the same: diff_opcodes.c. */
enum diff_judge { JUDGE_ALL, JUDGE_FRAME, JUDGE_UNDEFINED, JUDGE_ENGINE };

struct diff_case {
	uint64_t seed;
	uint64_t code_va;
	uint32_t code_bytes; /* without the int3 around it */
	uint32_t insn_count;
	uint32_t image; /* contents of the data pages: diff_image() */
	enum diff_mode mode;
	bool single;  /* one instruction of diff_opcodes.c: AC and TF may be set */
	bool exact;   /* flags that nobody will read are to be right at a fault, too */
	bool strings; /* a repeated string instruction may write over itself: then CPUs differ */
	bool tainted; /* an instruction may read an undefined flag: not comparable */
	uint16_t offset[DIFF_INSN_MAX + 1];    /* of each instruction, and of the end */
	uint16_t undefined[DIFF_INSN_MAX + 1]; /* flags that may be undefined before each */
	uint8_t code[DIFF_CODE_MAX];
	struct diff_state start;
};

struct diff_outcome {
	int status; /* 0; -ETIME: did not end; -ENOTSUP: the engine cannot (detail); -EPROTO */
	uint32_t vector;
	uint32_t error;
	uint64_t cr2;
	char detail[96];
	struct diff_state state;
	uint8_t memory[DIFF_DATA_PAGES][DIFF_PAGE];
	uint8_t code[DIFF_WINDOW]; /* as the sequence left it */
};

/* diff_state.c: all of it a function of the seed. */
void diff_state_random(struct diff_case *c);
const uint8_t (*diff_image(uint32_t number))[DIFF_PAGE];
/* An address that a memory operand of `bytes` may go to; mostly a good one. */
struct diff_wish {
	uint32_t bytes, align;
	bool write, low;      /* low: below 4 GiB */
	uint32_t bad_percent; /* how often it shall fault or cross pages */
};
uint64_t diff_target(struct rng *rng, const struct diff_wish *wish);
uint64_t diff_number(struct rng *rng);
/* Zeroed, and aligned as the structs here need it. */
void *diff_allocate(size_t bytes);
/* Bytes from code_va to the next hole; 0: in one. */
uint32_t diff_code_room(uint64_t code_va);
/* Where the code's window begins, and what it begins with: the number of bytes, a page's or two's. */
uint64_t diff_window(const struct diff_case *c);
uint32_t diff_window_fill(const struct diff_case *c, uint8_t ret_window[DIFF_WINDOW]);
uint32_t diff_window_bytes(const struct diff_case *c);
/* The sequence in its window, as far as that is not a hole. */
uint32_t diff_window_at(const struct diff_case *c);
uint32_t diff_code_seen(const struct diff_case *c);

/* diff_forms.c: what there is to choose from. */
enum diff_class {
	CLASS_ALU,
	CLASS_SHIFT,
	CLASS_BIT,
	CLASS_MULDIV,
	CLASS_MOV,
	CLASS_STACK,
	CLASS_STRING,
	CLASS_FLAGS,
	CLASS_ATOMIC,
	CLASS_BMI,
	CLASS_SSE,
	CLASS_AVX,
	CLASS_CRYPTO,
	CLASS_X87,
	CLASS_MMX,
	CLASS_STATE,
	CLASS_MISC,
	CLASS_SYSTEM,
	CLASS_WALK, /* these are made by templates: diff_template.c */
	CLASS_BRANCH,
	CLASS_SMC,
	CLASS_STEP,
	CLASS_COUNT
};
extern const char *const diff_class_name[CLASS_COUNT];

struct diff_form {
	uint16_t mnemonic; /* ZydisMnemonic */
	uint8_t class;
	uint8_t map;	 /* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A */
	uint8_t vex, pp; /* pp: 0, 0x66 (VEX only), 0xf3, 0xf2 */
	uint8_t prefix_66, w, l;
	uint8_t opcode;
	uint8_t reg, rm; /* fixed bits of ModRM, or FORM_ANY */
	uint8_t imm_bytes, align;
	uint16_t mem_bytes;
	bool modrm, memory; /* memory: ModRM.mod is not 3 */
	bool vvvv_used, moffs, mem_write, mem_agen;
	bool lockable, string;
	bool bit_offset; /* bt and the like with a register: the address depends on it */
};
#define FORM_ANY 8

struct diff_forms;
/* avx: whether VEX forms are wanted. NULL: no memory. */
struct diff_forms *diff_forms_create(bool avx, bool compat);
void diff_forms_destroy(struct diff_forms *forms);
/* A form of that class, mnemonics being equally likely; NULL: the class has none. */
const struct diff_form *diff_forms_pick(const struct diff_forms *forms, enum diff_class class,
					struct rng *rng);
void diff_forms_list(const struct diff_forms *forms);

/* diff_generate.c */
struct diff_plan {
	const struct diff_forms *forms;
	uint32_t weight[CLASS_COUNT];
	uint32_t insn_max; /* about so many, at most */
	bool avx;
};
/* Fills all of c from its seed, code_va and mode. */
void diff_generate(const struct diff_plan *plan, struct diff_case *c);

/* diff_opcodes.c: one of all instructions that there may be, from c's seed, code_va and mode. */
uint32_t diff_opcodes_count(void);
void diff_opcode(uint32_t index, struct diff_case *c);
/* XSAVE and its like ask for no part that the host may have (AVX-512, AMX) and a guest has not: natively
 * the image would be larger. */
void diff_opcode_settle(struct diff_case *c);
enum diff_judge diff_judge_of(const struct diff_case *c);

/* diff_flags.c */
/*
 * offset, undefined, insn_count, tainted from the code. Bytes that do not decode are one
 * instruction, the last.
 */
void diff_analyse(struct diff_case *c);

/* diff_native.c: a child that executes cases itself. */
struct diff_native;
int diff_native_create(struct diff_native **ret_native);
void diff_native_destroy(struct diff_native *native);
/* count <= DIFF_BATCH. -EIO: the child ended; *ret_at is the case that did it. It is restarted. */
int diff_native_run(struct diff_native *native, const struct diff_case *cases, uint32_t count,
		    struct diff_outcome *outcomes, uint32_t *ret_at);

/* diff_guest.c: the same on an engine. */
struct engine_ops;
struct diff_guest;
/* kicks: kicked all the time, its state saved and loaded again after each kick. */
int diff_guest_create(const struct engine_ops *ops, bool kicks, struct diff_guest **ret_guest,
		      char *why, size_t why_size);
uint64_t diff_guest_reloads(const struct diff_guest *guest);
void diff_guest_destroy(struct diff_guest *guest);
bool diff_guest_has_avx(const struct diff_guest *guest);
bool diff_guest_has_fsgsbase(const struct diff_guest *guest);
int diff_guest_run(struct diff_guest *guest, const struct diff_case *c,
		   struct diff_outcome *outcome);
/* An engine of its own: as if nothing had run. */
int diff_guest_forget(struct diff_guest *guest);

/* diff_host.c: habits, a bit each, in which this CPU is not like those that the engine was made for; and
 * whether one of them concerns that case. */
int diff_host_probe(struct diff_native *native, uint32_t *ret_unusual);
bool diff_host_concerns(uint32_t unusual, const struct diff_case *c);
/* Whether an outcome may be the host's, which could not return to that stack pointer. */
bool diff_host_refused(uint32_t unusual, const struct diff_outcome *native);
/* Whether what it does once may be a hypervisor's mistake. */
bool diff_host_is_unsteady(uint32_t unusual);
/* Whether this host executes such code at all. */
bool diff_host_runs(uint32_t unusual, enum diff_mode mode);

/* diff_compare.c: false, and why in words, if they differ. */
bool diff_equal(const struct diff_case *c, const struct diff_outcome *native,
		const struct diff_outcome *guest, char *why, size_t why_size);
/* The instruction at which the outcome ended, or insn_count. */
uint32_t diff_ended_at(const struct diff_case *c, const struct diff_outcome *outcome);

/* diff_shrink.c */
struct diff_sides {
	struct diff_native *native;
	struct diff_guest *guest;
	struct diff_outcome by_native, by_guest;
	char why[4096]; /* of the last difference */
};
/*
 * Runs c on both sides, as code that the engine has not seen, and once more there. 1: they differ;
 * 0; -errno.
 */
int diff_try(struct diff_sides *sides, const struct diff_case *c);
/*
 * Cuts the failing case c to the shortest prefix that fails, and then replaces by nops what is not
 * needed for it. The last instruction is the one to blame, mostly. 0: it does not fail by itself.
 */
int diff_shrink(struct diff_sides *sides, struct diff_case *c);
/*
 * c differs, but not by itself. Says whether it ends as it did natively, and, of the `count` before
 * it (the last one first in `past`), which have to run for it to differ.
 */
int diff_explain(struct diff_sides *sides, const struct diff_case *c,
		 const struct diff_outcome *native, const struct diff_case *const past[],
		 uint32_t count);
void diff_print_code(const struct diff_case *c);
/* "seed address u|s|c bytes" (upper case: one of diff_opcodes.c): a line of tests/soft/regressions,
 * and back (-EINVAL). */
void diff_print_line(const struct diff_case *c);
int diff_read_line(const char *line, struct diff_case *ret_case);
const char *diff_mnemonic(const struct diff_case *c, uint32_t insn);

#endif
