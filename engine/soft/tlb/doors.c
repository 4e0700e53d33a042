/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doors that are open, or were and are asleep, are in lists by the page that they lead to, so that
 * what happens to a page, or to all of them, costs what is in use. A door that is in no list is
 * shut, and nothing is known of it.
 *
 * A node has a seat for each of the pod's vCPUs, and most may never run there. They have no doors, so
 * that a door costs no time and memory for them.
 */
#include "engine/soft/tlb/doors.h"

static uint64_t page_of(uint64_t linear)
{
	return linear & ~(uint64_t)(PAGE_BYTES - 1);
}

static uint32_t list_of(uint64_t rip)
{
	return (uint32_t)(rip / PAGE_BYTES % DOOR_LISTS);
}

static void shut(struct engine_vcpu *vcpu, uint32_t door)
{
	vcpu->door[door] = vcpu->engine->door_way_out[door];
}

void soft_door_make(struct engine *engine, const uint8_t *way_out)
{
	uint32_t door = engine->door_count++;

	engine->door_way_out[door] = (uintptr_t)way_out;
	for (uint32_t i = 0; i < VCPUS_MAX; i++)
		if (engine->vcpu[i] && engine->vcpu[i]->has_doors)
			shut(engine->vcpu[i], door);
}

void soft_door_create(struct engine_vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->engine->lock);
	for (uint32_t door = 0; door < vcpu->engine->door_count; door++)
		shut(vcpu, door);
	vcpu->has_doors = true;
	pthread_mutex_unlock(&vcpu->engine->lock);
}

static void push(struct engine_vcpu *vcpu, uint32_t *list, uint32_t door)
{
	vcpu->door_to[door].next = *list;
	*list = door;
}

static void take_out(struct engine_vcpu *vcpu, uint32_t *list, uint32_t door)
{
	for (; *list; list = &vcpu->door_to[*list].next) {
		if (*list != door)
			continue;
		*list = vcpu->door_to[door].next;
		return;
	}
}

/* Every door of a list that leads to the page is taken out of it; then: shut, or open. */
static void take_out_page(struct engine_vcpu *vcpu, struct soft_door_list *lists, uint32_t *list,
			  uint64_t page, bool wake)
{
	while (*list) {
		uint32_t door = *list;
		struct soft_door *to = &vcpu->door_to[door];

		if (page_of(to->rip) != page) {
			list = &to->next;
			continue;
		}
		*list = to->next;
		if (wake) {
			vcpu->door[door] = to->code;
			push(vcpu, &lists->awake, door);
		} else {
			shut(vcpu, door);
		}
	}
}

static void note_awake(struct engine_vcpu *vcpu, enum soft_view view, uint32_t list)
{
	vcpu->door_used[view][list / 64] |= BIT64(list % 64);
}

void soft_door_open(struct engine_vcpu *vcpu, uint32_t door, uint64_t rip, const uint8_t *code)
{
	struct soft_door_list *lists = &vcpu->door_list[vcpu->view][list_of(rip)];

	take_out(vcpu, &lists->awake, door);
	take_out(vcpu, &lists->asleep, door);
	vcpu->door_to[door] = (struct soft_door){ .rip = rip, .code = (uintptr_t)code };
	vcpu->door[door] = (uintptr_t)code;
	push(vcpu, &lists->awake, door);
	note_awake(vcpu, (enum soft_view)vcpu->view, list_of(rip));
}

void soft_door_shut(struct engine_vcpu *vcpu, uint64_t rip)
{
	uint32_t *list = &vcpu->door_list[vcpu->view][list_of(rip)].awake;

	while (*list) {
		struct soft_door *to = &vcpu->door_to[*list];

		if (to->rip != rip) {
			list = &to->next;
			continue;
		}
		shut(vcpu, *list);
		*list = to->next;
	}
}

static void shut_all(struct engine_vcpu *vcpu, uint32_t list)
{
	for (; list; list = vcpu->door_to[list].next)
		shut(vcpu, list);
}

void soft_door_flush(struct engine_vcpu *vcpu, enum soft_view view)
{
	for (uint32_t l = 0; l < DOOR_LISTS; l++) {
		shut_all(vcpu, vcpu->door_list[view][l].awake);
		vcpu->door_list[view][l] = (struct soft_door_list){ 0 };
	}
	for (uint32_t w = 0; w < DOOR_LISTS / 64; w++)
		vcpu->door_used[view][w] = 0;
}

static void sleep_list(struct engine_vcpu *vcpu, struct soft_door_list *lists)
{
	uint32_t *end = &lists->awake;

	if (!*end)
		return;
	for (; *end; end = &vcpu->door_to[*end].next)
		shut(vcpu, *end);
	*end = lists->asleep;
	lists->asleep = lists->awake;
	lists->awake = 0;
}

void soft_door_sleep(struct engine_vcpu *vcpu, enum soft_view view)
{
	for (uint32_t w = 0; w < DOOR_LISTS / 64; w++) {
		for (uint64_t bits = vcpu->door_used[view][w]; bits; bits &= bits - 1)
			sleep_list(
				vcpu,
				&vcpu->door_list[view][w * 64 + (uint32_t)__builtin_ctzll(bits)]);
		vcpu->door_used[view][w] = 0;
	}
}

static void sleep_some_of(struct engine_vcpu *vcpu, struct soft_door_list *lists, uint64_t linear,
			  uint64_t bytes)
{
	uint32_t *list = &lists->awake;

	while (*list) {
		uint32_t door = *list;

		if (vcpu->door_to[door].rip - linear >= bytes) {
			list = &vcpu->door_to[door].next;
			continue;
		}
		*list = vcpu->door_to[door].next;
		shut(vcpu, door);
		push(vcpu, &lists->asleep, door);
	}
}

/* The pages of a range have lists of their own, until there are as many as lists. */
void soft_door_sleep_some(struct engine_vcpu *vcpu, enum soft_view view, uint64_t linear,
			  uint64_t bytes)
{
	uint64_t pages = bytes / PAGE_BYTES;

	if (pages > DOOR_LISTS)
		pages = DOOR_LISTS;
	for (uint64_t i = 0; i < pages; i++) {
		uint32_t list = list_of(linear + i * PAGE_BYTES);

		if (vcpu->door_used[view][list / 64] >> list % 64 & 1)
			sleep_some_of(vcpu, &vcpu->door_list[view][list], linear, bytes);
	}
}

void soft_door_fetched(struct engine_vcpu *vcpu, enum soft_view view, uint64_t page, bool same)
{
	struct soft_door_list *lists = &vcpu->door_list[view][list_of(page)];

	if (!same)
		take_out_page(vcpu, lists, &lists->awake, page, false);
	take_out_page(vcpu, lists, &lists->asleep, page, same);
	if (lists->awake)
		note_awake(vcpu, view, list_of(page));
}
