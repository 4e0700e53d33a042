/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard's stalls: who waits for which page since when, and what is told of it when that ends.
 *
 * Problem: a stall ends in the middle of a pass, where time is short. Idea: what has ended is noted,
 * and is counted and told when its frames and wake-ups are on their way.
 * Tested in tests/memory/test_pager_vcpu.c, test_stall_time.c.
 */
#include "pager/shard_inside.h"

void shard_wait_begin(struct shard *shard, uint32_t actor, const struct guest_fault *fault,
		      enum coh_access want)
{
	uint64_t now_ns = local_now_ns();

	if (actor < shard->pager->actors.vcpu_count)
		stall_time_begin(&shard->pager->actors.stalled[actor], now_ns);
	shard->wait[actor] = (struct shard_wait){ .waiting = true,
						  .wp = fault->wp,
						  .want = want,
						  .gpn = fault->gpn,
						  .offset = fault->offset,
						  .since_ns = now_ns };
}

/* What ended the stalls on a page, seen from the actions of the same call. */
static enum coh_stall_kind kind_of(const struct coh_action *action, uint32_t count, uint64_t gpn,
				   const struct shard_wait *wait)
{
	for (uint32_t i = 0; i < count; i++) {
		if (action[i].gpn != gpn)
			continue;
		if (action[i].kind == COH_INSTALL_ZERO)
			return COH_STALL_ZERO;
		if (action[i].kind == COH_INSTALL_DATA)
			return wait->want == COH_WRITE ? COH_STALL_WRITE : COH_STALL_READ;
		if (action[i].kind == COH_PROTECT && action[i].access == COH_WRITE)
			return wait->wp ? COH_STALL_UPGRADE : COH_STALL_WRITE;
	}
	return COH_STALL_KINDS;
}

/* A shard's thread waits for nobody: who has the lock may have lost its core. */
static void note_hint(struct pager *pager, const struct shard_woken *woken)
{
	struct pager_hints *hints = &pager->actors.hints[woken->actor];

	if (pthread_mutex_trylock(&hints->lock) != 0)
		return;
	page_hints_stalled(&hints->list, woken->gpn, woken->kind);
	pager_hints_unlock(pager, woken->actor);
}

/* For who decides where vCPUs should be, and for the hints. */
static void tell_stall(const struct shard *shard, const struct shard_woken *woken, uint64_t now_ns)
{
	struct pager *pager = shard->pager;
	struct pager_stall stall = { .actor = woken->actor,
				     .kind = woken->kind,
				     .from = woken->kind == COH_STALL_ZERO ? NODE_NONE
									   : woken->from,
				     .sharers = woken->sharers,
				     .gpn = woken->gpn,
				     .took_ns = now_ns - woken->since_ns };

	if (woken->kind == COH_STALL_KINDS || woken->actor >= pager->actors.vcpu_count)
		return;
	note_hint(pager, woken);
	if (pager->config.stalled)
		pager->config.stalled(pager->config.arg, &stall);
}

void shard_count_woken(struct shard *shard)
{
	uint64_t now_ns;

	if (shard->woken_count == 0)
		return;
	now_ns = local_now_ns();
	for (uint32_t i = 0; i < shard->woken_count; i++) {
		const struct shard_woken *woken = &shard->woken[i];

		if (woken->actor < shard->pager->actors.vcpu_count)
			stall_time_end(&shard->pager->actors.stalled[woken->actor], woken->since_ns,
				       now_ns);

		if (woken->kind == COH_STALL_KINDS)
			stat_add(&shard->stats.spurious_count, 1);
		else
			shard_stats_stall(&shard->stats, woken->kind, now_ns - woken->since_ns);
		/* First touches are as many as there are pages; each is no more than that. */
		if (woken->kind != COH_STALL_KINDS && woken->kind != COH_STALL_ZERO)
			shard_stats_hot(&shard->stats, woken->gpn, woken->offset);
		tell_stall(shard, woken, now_ns);
	}
	shard->woken_count = 0;
}

/* COH_WAKE: whoever waited on the page is done, as soon as the run is carried out. */
void shard_wait_end(struct shard *shard, const struct coh_action *wake,
		    const struct coh_action *action, uint32_t count)
{
	const struct pager_actors *actors = &shard->pager->actors;
	uint32_t actor_count =
		actors->vcpu_count + actors->port_count + actors->asker_count + NAMELESS_ACTORS;

	for (uint32_t i = 0; i < actor_count; i++) {
		struct shard_wait *wait = &shard->wait[i];

		if (!wait->waiting || wait->gpn != wake->gpn || wait->want > wake->access)
			continue;
		wait->waiting = false;
		shard->ended = true;
		shard_window_woken(shard, i);
		/* Any number may end in a pass: faults queue up for the few nameless actors. */
		if (shard->woken_count == SHARD_WOKEN)
			shard_count_woken(shard);
		shard->woken[shard->woken_count++] =
			(struct shard_woken){ .kind = kind_of(action, count, wake->gpn, wait),
					      .actor = i,
					      .gpn = wait->gpn,
					      .offset = wait->offset,
					      .from = shard->from,
					      .sharers = (uint16_t)wake->msg.acks,
					      .since_ns = wait->since_ns };
	}
}
