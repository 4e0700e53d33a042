/* SPDX-License-Identifier: Apache-2.0 */
/* Guest pages that hold translated code. See code_page.c. */
#ifndef ENGINE_SOFT_CODE_PAGE_H
#define ENGINE_SOFT_CODE_PAGE_H

#include "engine/soft/vcpu.h"

struct soft_block;

int soft_code_add_memory(struct engine *engine, uint32_t range);
void soft_code_remove_memory(struct engine *engine);
/* Bytes for so much guest memory. */
uint64_t soft_code_kept_bytes(uint64_t guest_bytes);
/* This vCPU has written there: translated code of these bytes is gone. */
void soft_code_written(struct engine_vcpu *vcpu, uint64_t gpa, uint64_t bytes);
/* The same for who does not know whether there is any. */
void soft_code_note_write(struct engine_vcpu *vcpu, uint64_t gpa, uint64_t bytes);
/* So has another node, or a device. Any thread. */
void soft_page_lost(struct engine *engine, uint64_t gpa, uint64_t bytes);
/* A vCPU is about to get a writable TLB entry: false if the page holds translated code. */
bool soft_code_allow_write(struct engine_vcpu *vcpu, uint64_t gpa);
/*
 * From now on no vCPU writes the page without asking; its version, to be given to insert. -EFAULT: no
 * memory. -EBUSY: another vCPU is about to do it, and may take long; step on meanwhile.
 */
int soft_code_begin(struct engine_vcpu *vcpu, uint64_t gpa, uint32_t *ret_version);
/* Lock held. Makes it known; false: the page has been written since. */
bool soft_code_insert(struct engine *engine, struct soft_block *block, const uint32_t version[2]);
/* Lock held. The block is about to go, and with it all others of its pages. */
void soft_code_forget(struct engine *engine, const struct soft_block *block);

#endif
