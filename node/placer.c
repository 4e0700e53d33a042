/* SPDX-License-Identifier: Apache-2.0 */
/* The policy at work in a node (placer.h). */
#include "node/placer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "node/deadline.h"

/* Looks of a shard's thread at the lock, which is held for less than a microsecond as a rule. */
#define LOCK_TRIES 64u

/* The thread's turn while no vCPU here has run for QUIET_TURNS: still below the 100 ms in which
 * vCPUs are to spread when there is work. */
#define QUIET_TICK_NS (12ull * PLACEMENT_TICK_NS)
#define QUIET_TURNS   8u

/* Of QUIET_TURNS, behind a rest: it looks for the others. */
#define REST_TURNS 4u

/*
 * Loads are said no more often than this, so that what flickers is no stream of messages. And once
 * more so long after a move, even if nothing has changed here: the other nodes have counted the vCPU
 * as one that is awake, from here or to here, and it may be asleep.
 */
#define LOAD_NS (2ull * PLACEMENT_TICK_NS)
/* A newcomer, until those who hear later that it is a member have, too: for 200 ms. */
#define SAYS_AGAIN 25u

/* What the thread saw of a vCPU at its last turn. */
struct seen {
	bool here, slept;
	uint64_t slept_ns;
	uint64_t ahead_ns; /* of the sleep that is not over, told already */
	uint64_t waited_ns;
};

struct placer {
	struct placer_config config;
	_Atomic uint32_t policy;	/* enum placement_policy; changed under the lock */
	_Atomic uint32_t shadow_policy; /* likewise; PLACEMENT_POLICIES: none */
	atomic_bool tracing;		/* likewise */
	_Atomic uint64_t missed_count;
	_Atomic uint64_t moved_ns; /* when a vCPU last left or came; 0: never */
	atomic_bool pinned[VCPUS_MAX];
	_Atomic uint64_t awake_ns[VCPUS_MAX];  /* since when; 0: it sleeps, or is elsewhere */
	_Atomic uint64_t asleep_ns[VCPUS_MAX]; /* since when; 0: it is awake, or elsewhere */
	_Atomic uint64_t slept_ns[VCPUS_MAX];  /* in all sleeps that are over */
	atomic_uint awake_count;
	atomic_bool rests; /* the thread: who has news wakes it */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	struct placement *placement;
	bool stop, stirred;
	bool learner_off;		   /* as last said */
	struct placement_load load;	   /* as last told to the placement */
	uint64_t told_slept_ns[VCPUS_MAX]; /* of slept_ns, with a stall */
	uint64_t outcomes_ns[NODES_MAX];   /* when a node's outcomes were learned; 0: never */
	uint64_t heard_count;
	struct placement *shadow;	 /* or NULL */
	uint16_t shadow_wish[VCPUS_MAX]; /* where it wants a vCPU to go, NODE_NONE: nowhere */
	uint64_t shadow_wishes, shadow_agreed;
	struct placer_trace *trace; /* or NULL */
	uint64_t traced_ns;	    /* when somebody last took it */
	struct placement_trace_seen traced;
	struct placement_load traced_load;

	/* The thread's own. */
	pthread_t thread;
	bool started;
	struct seen seen[VCPUS_MAX];
	uint64_t turn_ns, said_ns;   /* when it was, and when the load was said; 0: not yet */
	_Atomic uint32_t says_again; /* so often the load, also if it is known */
	uint64_t told_ns;	     /* when outcomes were said */
	struct placement_load said;
	uint32_t quiet_turns;
};

static uint64_t now_of(const struct placer *p)
{
	return p->config.ops->now_ns(p->config.ctx);
}

static bool moves_any(enum placement_policy policy)
{
	return policy != PLACEMENT_PAGES && policy != PLACEMENT_PINNED &&
	       policy != PLACEMENT_POLICIES;
}

int placer_create(const struct placer_config *config, const uint16_t *first,
		  struct placer **ret_placer)
{
	struct placer *p = calloc(1, sizeof(*p));
	int r = p ? 0 : -ENOMEM;
	if (!r)
		r = placement_create(&config->placement, &p->placement);
	if (r) {
		free(p);
		return r;
	}
	p->config = *config;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	atomic_init(&p->policy, (uint32_t)config->placement.policy);
	atomic_init(&p->shadow_policy, PLACEMENT_POLICIES);
	p->load.cores = config->cores;
	placement_load(p->placement, config->placement.self, &p->load);
	for (uint32_t v = 0; v < config->placement.vcpu_count; v++)
		placement_placed(p->placement, v, first[v], now_of(p));
	for (uint32_t v = 0; v < config->placement.vcpu_count; v++)
		if (first[v] == config->placement.self)
			placer_slept(p, v, false);
	*ret_placer = p;
	return 0;
}

/* With the lock: there is something to look at. */
static void stir(struct placer *p)
{
	p->stirred = true;
	if (atomic_load(&p->rests))
		pthread_cond_signal(&p->changed);
}

static void stir_locking(struct placer *p)
{
	pthread_mutex_lock(&p->lock);
	stir(p);
	pthread_mutex_unlock(&p->lock);
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Both hear the same. `call` names `placement`. */
#define TELL(p, call)                                                                              \
	do {                                                                                       \
		struct placement *placement = (p)->shadow;                                         \
		if (placement)                                                                     \
			(void)(call);                                                              \
		placement = (p)->placement;                                                        \
		(void)(call);                                                                      \
	} while (0)

/* How much of the time since the last turn the vCPU has slept. */
static uint64_t slept_of(struct seen *seen, const struct placer_vcpu *now, uint64_t turn_ns)
{
	uint64_t over_ns = now->slept_ns - seen->slept_ns, ns = 0;
	if (!seen->here || now->slept_ns < seen->slept_ns) {
		*seen = (struct seen){ .here = true,
				       .slept = now->sleeps,
				       .slept_ns = now->slept_ns,
				       .waited_ns = now->waited_ns };
		return now->sleeps ? turn_ns : 0;
	}
	if (over_ns) {
		ns = over_ns > seen->ahead_ns ? over_ns - seen->ahead_ns : 0;
		seen->ahead_ns = 0;
	} else if (now->sleeps && seen->slept) {
		ns = turn_ns;
		seen->ahead_ns += ns;
	}
	seen->slept = now->sleeps;
	seen->slept_ns = now->slept_ns;
	return ns < turn_ns ? ns : turn_ns;
}

/* How long it was ready since the last turn, and had no core. */
static uint64_t waited_of(struct seen *seen, const struct placer_vcpu *now, uint64_t turn_ns)
{
	uint64_t ns = now->waited_ns > seen->waited_ns ? now->waited_ns - seen->waited_ns : 0;
	seen->waited_ns = now->waited_ns;
	return ns < turn_ns ? ns : turn_ns;
}

/* Looks at all vCPUs; how many are awake. */
static uint16_t look_at_all(struct placer *p, uint64_t turn_ns)
{
	uint16_t awake = 0;
	for (uint32_t v = 0; v < p->config.placement.vcpu_count; v++) {
		struct placer_vcpu now;
		struct placement_time time = { .now_ns = p->turn_ns };
		if (!p->config.ops->look(p->config.ctx, v, &now)) {
			p->seen[v].here = false;
			continue;
		}
		time.halted_ns = slept_of(&p->seen[v], &now, turn_ns);
		time.waited_ns = waited_of(&p->seen[v], &now, turn_ns);
		awake += time.halted_ns <= turn_ns / 2 && !(turn_ns == 0 && now.sleeps);
		pthread_mutex_lock(&p->lock);
		TELL(p, placement_time(placement, v, &time));
		pthread_mutex_unlock(&p->lock);
	}
	return awake;
}

static void say_load(struct placer *p, const struct placement_load *load, uint64_t now_ns)
{
	uint64_t moved_ns = atomic_load(&p->moved_ns);
	bool known = load->awake == p->said.awake && load->cores == p->said.cores &&
		     (!moved_ns || p->said_ns >= moved_ns + LOAD_NS);
	uint32_t again = atomic_load(&p->says_again);
	bool early = p->said_ns && now_ns - p->said_ns < LOAD_NS;
	if (p->said_ns && (early || (known && !again)))
		return;
	if (again)
		atomic_store(&p->says_again, again - 1);
	p->said = *load;
	p->said_ns = now_ns;
	p->config.ops->say_load(p->config.ctx, load);
}

static void say_outcomes(struct placer *p, uint64_t now_ns)
{
	struct placement_outcome outcome[PLACEMENT_OUTCOMES];
	uint32_t count = 0;
	if (now_ns - p->told_ns < PLACER_OUTCOMES_NS)
		return;
	pthread_mutex_lock(&p->lock);
	while (count < PLACEMENT_OUTCOMES &&
	       placement_outcome_take(p->placement, &outcome[count]) == 0) {
		if (p->shadow)
			placement_outcome_learn(p->shadow, &outcome[count]);
		count++;
	}
	pthread_mutex_unlock(&p->lock);
	if (!count)
		return;
	p->told_ns = now_ns;
	p->config.ops->say_outcomes(p->config.ctx, outcome, count);
}

/* Whoever thinks that it learns should hear of it when it does not. */
static void say_learner(struct placer *p)
{
	struct placement_stats stats;
	bool news;
	pthread_mutex_lock(&p->lock);
	placement_stats_get(p->placement, &stats);
	news = stats.learner_off != p->learner_off;
	p->learner_off = stats.learner_off;
	pthread_mutex_unlock(&p->lock);
	if (news)
		p->config.ops->say_learner(p->config.ctx, &stats);
}

/* The shadow wants a vCPU to go; nobody does anything about it, as if that node had refused. */
static void shadow_wants(struct placer *p, const struct placement_advice *advice, uint16_t also,
			 uint64_t now_ns)
{
	uint16_t *wish = &p->shadow_wish[advice->vcpu];
	if (advice->to == NODE_NONE) {
		if (advice->why == PLACEMENT_WHY_CREDIT)
			*wish = NODE_NONE;
		return;
	}
	if (*wish != advice->to) {
		p->shadow_wishes++;
		p->shadow_agreed += also == advice->to;
	}
	*wish = advice->to;
	placement_refused(p->shadow, advice->vcpu, advice->to, now_ns);
}

static void shadow_tick(struct placer *p, uint64_t now_ns)
{
	struct placement_advice advice[PLACEMENT_TICK_ADVICE];
	uint32_t count =
		p->shadow ? placement_tick(p->shadow, now_ns, advice, PLACEMENT_TICK_ADVICE) : 0;
	for (uint32_t i = 0; i < count; i++)
		shadow_wants(p, &advice[i], NODE_NONE, now_ns);
}

static void drop_trace(struct placer *p)
{
	free(p->trace);
	p->trace = NULL;
	atomic_store(&p->tracing, false);
}

static void forget_trace(struct placer *p, uint64_t now_ns)
{
	if (p->trace && now_ns > p->traced_ns && now_ns - p->traced_ns > PLACER_TRACE_NS)
		drop_trace(p);
}

static void trace(struct placer *p, const struct placement_trace_event *event)
{
	struct placer_trace *t = p->trace;
	if (!t)
		return;
	if (t->count < PLACER_TRACE_EVENTS)
		t->event[t->count++] = *event;
	else
		t->lost++;
}

/* What has been decided since, and what has come of what was. */
static void trace_decisions(struct placer *p)
{
	struct placer_trace *t = p->trace;
	struct placement_trace_event event;
	struct placement_record record;
	if (!t)
		return;
	while (placement_trace_next(p->placement, &p->traced, &event, &record)) {
		if (event.record && t->decision_count == PLACER_TRACE_DECISIONS) {
			t->lost++;
			continue;
		}
		if (event.record) {
			t->decision[t->decision_count] = record;
			event.record = &t->decision[t->decision_count++];
		}
		trace(p, &event);
	}
	t->lost += p->traced.lost;
	p->traced.lost = 0;
}

static void trace_load(struct placer *p, uint64_t now_ns)
{
	if (p->traced_load.cores == p->load.cores && p->traced_load.awake == p->load.awake)
		return;
	p->traced_load = p->load;
	trace(p, &(struct placement_trace_event){ .what = PLACEMENT_TRACE_LOAD,
						  .at_ns = now_ns,
						  .node = p->config.placement.self,
						  .cores = p->load.cores,
						  .awake = p->load.awake });
}

static void trace_pin(struct placer *p, uint32_t vcpu, bool pinned, uint64_t now_ns)
{
	if (p->config.traces_pins)
		trace(p, &(struct placement_trace_event){ .what = PLACEMENT_TRACE_PIN,
							  .at_ns = now_ns,
							  .vcpu = vcpu,
							  .pinned = pinned });
}

/* What is so already when it begins. */
static void trace_begins(struct placer *p, uint64_t now_ns)
{
	placement_trace_skip(p->placement, &p->traced);
	p->traced.lost = 0;
	p->traced_load = (struct placement_load){ 0 };
	trace_load(p, now_ns);
	for (uint32_t v = 0; v < p->config.placement.vcpu_count; v++)
		if (atomic_load(&p->pinned[v]))
			trace_pin(p, v, true, now_ns);
}

static void turn(struct placer *p)
{
	struct placement_advice advice[PLACEMENT_TICK_ADVICE];
	uint64_t now_ns = now_of(p);
	uint64_t turn_ns = p->turn_ns && now_ns > p->turn_ns ? now_ns - p->turn_ns : 0;
	struct placement_load load = { .cores = p->config.cores };
	uint32_t count;
	p->turn_ns = now_ns;
	load.awake = look_at_all(p, turn_ns);
	p->quiet_turns = load.awake ? 0 : p->quiet_turns + 1;
	pthread_mutex_lock(&p->lock);
	p->load = load;
	TELL(p, placement_load(placement, p->config.placement.self, &load));
	shadow_tick(p, now_ns);
	forget_trace(p, now_ns);
	trace_load(p, now_ns);
	count = placement_tick(p->placement, now_ns, advice, PLACEMENT_TICK_ADVICE);
	trace_decisions(p);
	pthread_mutex_unlock(&p->lock);
	for (uint32_t i = 0; i < count; i++)
		p->config.ops->go(p->config.ctx, advice[i].vcpu, advice[i].to);
	say_load(p, &load, now_ns);
	say_outcomes(p, now_ns);
	say_learner(p);
}

/* Nobody here is awake, all that was to be said is said, and who sleeps is where it would go. */
static bool may_rest(const struct placer *p)
{
	uint64_t moved_ns = atomic_load(&p->moved_ns);
	if (p->trace || p->quiet_turns < QUIET_TURNS || atomic_load(&p->says_again) ||
	    p->said_ns < moved_ns + LOAD_NS || p->turn_ns - p->told_ns < PLACER_OUTCOMES_NS)
		return false;
	for (uint32_t v = 0; v < p->config.placement.vcpu_count; v++)
		if (p->seen[v].here && p->config.placement.gather_node != p->config.placement.self)
			return false;
	return true;
}

/*
 * With the lock: nobody looks until there is news. Who counts himself awake looks at `rests`
 * afterwards, so one of the two sees the other. False: there is a crowd by now.
 */
static bool rest_begin(struct placer *p)
{
	atomic_store(&p->rests, true);
	return atomic_load(&p->awake_count) <= p->config.cores;
}

static void rest_end(struct placer *p)
{
	if (!atomic_load(&p->rests))
		return;
	atomic_store(&p->rests, false);
	/* What the vCPUs did meanwhile is over: what each does now is looked at. */
	memset(p->seen, 0, sizeof(p->seen));
	p->quiet_turns = QUIET_TURNS - REST_TURNS;
}

bool placer_is_wanted(const struct placer *p)
{
	return moves_any(placer_policy(p)) || moves_any(placer_shadow(p)) ||
	       atomic_load_explicit(&p->tracing, memory_order_relaxed);
}

/* With the lock: how long until the next turn. */
static uint64_t next_turn_ns(struct placer *p)
{
	if (!placer_is_wanted(p))
		return PLACER_NEWS;
	if (!p->stirred && may_rest(p))
		return rest_begin(p) ? PLACER_NEWS : 0;
	return p->quiet_turns >= QUIET_TURNS ? QUIET_TICK_NS : PLACEMENT_TICK_NS;
}

uint64_t placer_turn(struct placer *p)
{
	uint64_t next_ns;
	bool wanted;
	pthread_mutex_lock(&p->lock);
	rest_end(p);
	p->stirred = false;
	wanted = placer_is_wanted(p);
	pthread_mutex_unlock(&p->lock);
	if (wanted)
		turn(p);
	else
		p->turn_ns = p->said_ns = p->quiet_turns = 0;
	pthread_mutex_lock(&p->lock);
	next_ns = next_turn_ns(p);
	pthread_mutex_unlock(&p->lock);
	return next_ns;
}

/* With the lock: who waits for news has some. */
static bool has_news(const struct placer *p)
{
	return atomic_load(&p->rests) ? p->stirred : placer_is_wanted(p);
}

/* Until the next turn. False: the thread is to end. */
static bool wait_for_turn(struct placer *p, uint64_t ns)
{
	struct timespec until = deadline_after_ns(ns == PLACER_NEWS ? 0 : ns);
	pthread_mutex_lock(&p->lock);
	while (!p->stop && ns == PLACER_NEWS && !has_news(p))
		pthread_cond_wait(&p->changed, &p->lock);
	if (!p->stop && ns != PLACER_NEWS)
		deadline_wait(&p->changed, &p->lock, &until);
	bool go_on = !p->stop;
	pthread_mutex_unlock(&p->lock);
	return go_on;
}

static void *placer_main(void *arg)
{
	struct placer *p = arg;
	uint64_t next_ns = PLACEMENT_TICK_NS;
	pthread_setname_np(pthread_self(), "placer");
	while (wait_for_turn(p, next_ns))
		next_ns = placer_turn(p);
	return NULL;
}

int placer_start(struct placer *p)
{
	if (!p)
		return 0;
	int r = -pthread_create(&p->thread, NULL, placer_main, p);
	p->started = !r;
	return r;
}

void placer_destroy(struct placer *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	if (p->started)
		pthread_join(p->thread, NULL);
	placement_destroy(p->placement);
	placement_destroy(p->shadow);
	free(p->trace);
	free(p);
}

/* ---- what others tell ------------------------------------------------------------------------ */

enum placement_policy placer_policy(const struct placer *p)
{
	return p ? (enum placement_policy)atomic_load_explicit(&p->policy, memory_order_relaxed)
		 : PLACEMENT_PAGES;
}

void placer_set_policy(struct placer *p, enum placement_policy policy)
{
	if (!p)
		return;
	say_learner(p); /* if it is off, that comes before its return */
	pthread_mutex_lock(&p->lock);
	placement_set_policy(p->placement, policy, now_of(p));
	atomic_store(&p->policy, (uint32_t)policy);
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	say_learner(p);
}

enum placement_policy placer_shadow(const struct placer *p)
{
	return p ? (enum placement_policy)atomic_load_explicit(&p->shadow_policy,
							       memory_order_relaxed)
		 : PLACEMENT_POLICIES;
}

int placer_set_shadow(struct placer *p, enum placement_policy policy)
{
	struct placement *shadow = NULL, *old;
	int r = 0;
	if (!p)
		return 0;
	struct placement_config config = p->config.placement;
	config.policy = policy;
	config.shadow = true;
	if (policy != PLACEMENT_POLICIES)
		r = placement_create(&config, &shadow);
	if (r)
		return r;
	pthread_mutex_lock(&p->lock);
	/* It begins with what is known now. */
	if (shadow)
		placement_copy(p->placement, shadow, now_of(p));
	old = p->shadow;
	p->shadow = shadow;
	p->shadow_wishes = p->shadow_agreed = 0;
	for (uint32_t v = 0; v < VCPUS_MAX; v++)
		p->shadow_wish[v] = NODE_NONE;
	atomic_store(&p->shadow_policy, (uint32_t)policy);
	stir(p);
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	placement_destroy(old);
	return 0;
}

bool placer_pinned(const struct placer *p, uint32_t vcpu)
{
	return p && atomic_load(&p->pinned[vcpu]);
}

void placer_pin(struct placer *p, uint32_t vcpu, bool pinned)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	TELL(p, placement_pin(placement, vcpu, pinned));
	if (vcpu < p->config.placement.vcpu_count) {
		atomic_store(&p->pinned[vcpu], pinned);
		trace_pin(p, vcpu, pinned, now_of(p));
	}
	pthread_mutex_unlock(&p->lock);
}

void placer_slept(struct placer *p, uint32_t vcpu, bool sleeps)
{
	if (!p)
		return;
	uint64_t now_ns = now_of(p);
	uint64_t was_ns = atomic_exchange(&p->awake_ns[vcpu], sleeps ? 0 : now_ns ? now_ns : 1);
	uint64_t since_ns = atomic_exchange(&p->asleep_ns[vcpu], sleeps ? now_ns : 0);
	if (!sleeps && since_ns && now_ns > since_ns)
		atomic_fetch_add(&p->slept_ns[vcpu], now_ns - since_ns);
	if (sleeps) {
		if (was_ns)
			atomic_fetch_sub(&p->awake_count, 1);
		return;
	}
	if (was_ns)
		return;
	uint32_t count = atomic_fetch_add(&p->awake_count, 1) + 1;
	if (atomic_load(&p->rests) && count > p->config.cores)
		stir_locking(p);
}

/* Awake for a turn. Who wakes up for a moment, and stalls on a page of the kernel's meanwhile, is none
 * to look at: each such look would end a rest, and be one of several until the next. */
static bool has_work(struct placer *p, uint32_t vcpu)
{
	uint64_t since_ns = atomic_load(&p->awake_ns[vcpu]), now_ns = now_of(p);
	return since_ns && now_ns > since_ns && now_ns - since_ns >= PLACEMENT_TICK_NS;
}

void placer_awake(struct placer *p, uint32_t vcpu)
{
	if (!p || !atomic_load_explicit(&p->rests, memory_order_relaxed))
		return;
	if (has_work(p, vcpu))
		stir_locking(p);
}

/* Who holds the lock may have lost its core: a shard's thread does not wait for that. */
static bool lock_soon(struct placer *p)
{
	for (uint32_t i = 0; i < LOCK_TRIES; i++) {
		if (pthread_mutex_trylock(&p->lock) == 0)
			return true;
		__builtin_ia32_pause();
	}
	atomic_fetch_add_explicit(&p->missed_count, 1, memory_order_relaxed);
	return false;
}

static uint64_t slept_since_told(struct placer *p, uint32_t vcpu)
{
	uint64_t slept_ns = atomic_load(&p->slept_ns[vcpu]);
	uint64_t told_ns = p->told_slept_ns[vcpu];
	p->told_slept_ns[vcpu] = slept_ns;
	return slept_ns - told_ns;
}

static void hear_stall(struct placer *p, const struct placement_stall *stall,
		       struct placement_advice *ret_advice)
{
	struct placement_advice shadow;
	/* A vCPU that has left meanwhile is none of ours. */
	if (placement_stall(p->placement, stall, ret_advice) < 0)
		return;
	if (p->shadow && placement_stall(p->shadow, stall, &shadow) == 0)
		shadow_wants(p, &shadow, ret_advice->to, stall->end_ns);
	if (p->trace)
		trace(p,
		      &(struct placement_trace_event){ .at_ns = stall->end_ns,
						       .took_ns = stall->end_ns - stall->begin_ns,
						       .vcpu = stall->vcpu,
						       .node = stall->owner,
						       .kind = stall->kind,
						       .gpn = stall->gpn,
						       .slept_ns = stall->slept_ns,
						       .program = stall->program,
						       .sharers = stall->sharers });
	trace_decisions(p);
}

void placer_stalled(struct placer *p, uint32_t vcpu, const struct pager_stall *stall)
{
	struct placement_advice advice = { .to = NODE_NONE };
	if (!p || !placer_is_wanted(p) || !lock_soon(p))
		return;
	uint64_t now_ns = now_of(p);
	struct placement_stall told = { .vcpu = vcpu,
					.kind = stall->kind,
					.owner = stall->from,
					.sharers = stall->sharers,
					.gpn = stall->gpn,
					.begin_ns = now_ns > stall->took_ns
							    ? now_ns - stall->took_ns
							    : 0,
					.end_ns = now_ns,
					.program = p->config.ops->program(p->config.ctx, vcpu),
					.slept_ns = slept_since_told(p, vcpu) };
	hear_stall(p, &told, &advice);
	if (has_work(p, vcpu))
		stir(p);
	pthread_mutex_unlock(&p->lock);
	if (advice.to != NODE_NONE)
		p->config.ops->go(p->config.ctx, vcpu, advice.to);
}

void placer_load(struct placer *p, uint16_t node, const struct placement_load *load)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	TELL(p, placement_load(placement, node, load));
	pthread_mutex_unlock(&p->lock);
}

void placer_members(struct placer *p, const struct member_set *members, uint16_t gather_node,
		    bool newcomer)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	TELL(p, placement_members(placement, members, gather_node));
	p->config.placement.members = *members;
	p->config.placement.gather_node = gather_node;
	atomic_store(&p->says_again, newcomer ? SAYS_AGAIN : 1);
	stir(p);
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

/* The lock is let go between them: each takes a microsecond, and a shard's thread looks no longer. */
void placer_outcomes(struct placer *p, uint16_t node, const struct placement_outcome *outcome,
		     uint32_t count)
{
	uint64_t now_ns;
	bool soon;
	if (!p)
		return;
	now_ns = now_of(p);
	pthread_mutex_lock(&p->lock);
	/* Messages of a node may come closer to each other than they were sent. */
	soon = p->outcomes_ns[node] && now_ns < p->outcomes_ns[node] + PLACER_OUTCOMES_NS / 2;
	if (!soon)
		p->outcomes_ns[node] = now_ns;
	pthread_mutex_unlock(&p->lock);
	for (uint32_t i = 0; i < count && !soon; i++) {
		pthread_mutex_lock(&p->lock);
		TELL(p, placement_outcome_learn(placement, &outcome[i]));
		p->heard_count += placement_outcome_valid(&outcome[i]);
		pthread_mutex_unlock(&p->lock);
	}
}

bool placer_left(struct placer *p, uint32_t vcpu, uint16_t to, uint8_t carry[PLACEMENT_CARRY_BYTES])
{
	if (!p)
		return false;
	pthread_mutex_lock(&p->lock);
	uint64_t now_ns = now_of(p);
	uint8_t shadows[PLACEMENT_CARRY_BYTES]; /* which nobody takes along */
	if (p->shadow)
		placement_left(p->shadow, vcpu, to, now_ns, shadows);
	int r = placement_left(p->placement, vcpu, to, now_ns, carry);
	trace_decisions(p);
	atomic_store(&p->moved_ns, now_ns);
	stir(p);
	pthread_mutex_unlock(&p->lock);
	return r == 0;
}

void placer_arrived(struct placer *p, uint32_t vcpu, uint16_t from, uint64_t stopped_ns,
		    const uint8_t carry[PLACEMENT_CARRY_BYTES])
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	uint64_t now_ns = now_of(p);
	TELL(p, placement_arrived(placement, vcpu, from, stopped_ns, now_ns, carry));
	p->shadow_wish[vcpu] = NODE_NONE;
	trace(p, &(struct placement_trace_event){
			 .what = PLACEMENT_TRACE_MOVE,
			 .at_ns = now_ns,
			 .took_ns = now_ns > stopped_ns ? now_ns - stopped_ns : 0,
			 .vcpu = vcpu,
			 .node = p->config.placement.self });
	atomic_store(&p->moved_ns, now_ns);
	stir(p);
	pthread_mutex_unlock(&p->lock);
}

void placer_placed(struct placer *p, uint32_t vcpu, uint16_t node)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	uint64_t now_ns = now_of(p);
	TELL(p, placement_placed(placement, vcpu, node, now_ns));
	pthread_mutex_unlock(&p->lock);
}

void placer_refused(struct placer *p, uint32_t vcpu, uint16_t node)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	uint64_t now_ns = now_of(p);
	TELL(p, placement_refused(placement, vcpu, node, now_ns));
	stir(p);
	pthread_mutex_unlock(&p->lock);
}

/* ---- what it tells --------------------------------------------------------------------------- */

void placer_stats(struct placer *p, struct placer_stats *ret_stats)
{
	*ret_stats = (struct placer_stats){ .shadow = PLACEMENT_POLICIES };
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	ret_stats->cores = p->load.cores;
	ret_stats->awake = p->load.awake;
	ret_stats->rests = atomic_load(&p->rests) && !p->stirred;
	ret_stats->heard_count = p->heard_count;
	placement_stats_get(p->placement, &ret_stats->placement);
	ret_stats->shadow = placer_shadow(p);
	ret_stats->shadow_wishes = p->shadow_wishes;
	ret_stats->shadow_agreed = p->shadow_agreed;
	if (p->shadow)
		placement_stats_get(p->shadow, &ret_stats->shadow_placement);
	pthread_mutex_unlock(&p->lock);
	ret_stats->policy = placer_policy(p);
	ret_stats->missed_count = atomic_load(&p->missed_count);
}

uint32_t placer_records(struct placer *p, bool shadow, struct placement_record *ret_record,
			uint32_t max)
{
	const struct placement *of;
	uint32_t count = 0;
	if (!p)
		return 0;
	pthread_mutex_lock(&p->lock);
	of = shadow ? p->shadow : p->placement;
	for (uint64_t n = of ? placement_record_newest(of) : 0; n && count < max; n--) {
		if (placement_record_get(of, n, &ret_record[count]) < 0)
			break;
		count += ret_record[count].move;
	}
	pthread_mutex_unlock(&p->lock);
	return count;
}

uint32_t placer_choices(struct placer *p, bool shadow, struct placement_record *ret_record,
			uint32_t max)
{
	uint8_t of_vcpu[VCPUS_MAX] = { 0 };
	const struct placement *of;
	uint32_t count = 0;
	if (!p)
		return 0;
	pthread_mutex_lock(&p->lock);
	of = shadow ? p->shadow : p->placement;
	for (uint64_t n = of ? placement_record_newest(of) : 0; n && count < max; n--) {
		struct placement_record *record = &ret_record[count];
		if (placement_record_get(of, n, record) < 0)
			break;
		if (record->move || of_vcpu[record->vcpu] == PLACER_CHOICES)
			continue;
		of_vcpu[record->vcpu]++;
		count++;
	}
	pthread_mutex_unlock(&p->lock);
	return count;
}

int placer_save(struct placer *p, char *text, size_t size)
{
	struct placement_learner learner;
	pthread_mutex_lock(&p->lock);
	placement_learner_get(p->placement, &learner);
	pthread_mutex_unlock(&p->lock);
	return placement_learner_save(&learner, text, size);
}

int placer_load_state(struct placer *p, const char *text, size_t length, const char **ret_reason)
{
	pthread_mutex_lock(&p->lock);
	int r = placement_load_state(p->placement, text, length, ret_reason);
	pthread_mutex_unlock(&p->lock);
	return r;
}

/* ---- traces ---------------------------------------------------------------------------------- */

static uint64_t move_ns_of(const struct placer *p)
{
	uint16_t self = p->config.placement.self, count = p->config.placement.node_count;
	struct placement_stats stats;
	uint64_t sum = 0;
	placement_stats_get(p->placement, &stats);
	for (uint16_t n = 0; n < count; n++)
		sum += n == self ? 0 : placement_move_ns(p->placement, n);
	sum /= count > 1 ? count - 1u : 1;
	return sum > stats.refault_ns ? sum - stats.refault_ns : PLACEMENT_MOVE_NS_MIN;
}

int placer_trace(struct placer *p, struct placer_trace **ret_trace)
{
	if (!p)
		return -ENOENT;
	struct placer_trace *next = calloc(1, sizeof(*next));
	if (!next)
		return -ENOMEM;
	pthread_mutex_lock(&p->lock);
	p->traced_ns = now_of(p);
	struct placer_trace *trace = p->trace;
	p->trace = next;
	if (!trace)
		trace_begins(p, p->traced_ns);
	uint64_t move_ns = move_ns_of(p);
	atomic_store(&p->tracing, true);
	stir(p);
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	if (!trace) {
		trace = calloc(1, sizeof(*trace));
		if (!trace)
			return -ENOMEM;
		trace->begun = true;
	}
	trace->move_ns = move_ns;
	*ret_trace = trace;
	return 0;
}
