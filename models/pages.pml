/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page protocol of docs/protocol.md for one page and three nodes, for spin. models/run explores it.
 *
 * Node 0 is the page's home. Every node has one actor that reads and writes whenever it likes. A link
 * is a channel per ordered pair of nodes: in order, any delay. What the core does in one call is one
 * atomic step here: a message of the home to itself is handled in the step that sends it.
 *
 * What is judged:
 *   safety    at a write nobody else has access; every copy that is installed holds the last written
 *             value; no message comes that its receiver cannot explain; no queue or link overflows;
 *             no invalid end state (a deadlock).
 *   liveness  (FAIR) every request is granted, if no link, actor or hold stops for ever.
 *
 * Pieces, each switched on by -D:
 *   PUSH      eviction: silent drops of copies that are not kept, pushes of kept and owned pages
 *   HOLD      takings are deferred until the actor has run; older episodes and NUDGE end that at once
 *   OWN       reads that ask to own what nobody shares (KEEPER)
 *   FREE      the last node says now and then that the page is needed no more: it becomes untouched again
 *   FAIR=n    the LTL property `granted` for node n; checked with pan -a -f
 *             (the value stays the same then: how it travels is judged without FAIR)
 *   STILL     the value stays the same, for a smaller state space
 *   BROKEN_*  a deliberate defect each; the checks must find it (models/run demands that)
 *
 * Left out: homes and their chunks (HOME_GET, HOME_IS, NOT_HOME, HOME_MOVE, HOME_SET: no transaction meets
 * a change of home), room (ROOM_GET, ROOM_IS, ROOM_PUT: any target may be taken here), read-ahead (AHEAD,
 * GRANT_NONE), a second actor on a node (HURRY), the length of a hold. The simulator covers those.
 *
 * There is one page, but an instruction needs several. So a hold here does not run out while its actor waits,
 * even if for this very page: as if it waited for another one. The code is milder (a hold falls when its actor
 * stalls on the page itself); what is granted here under stricter holds is granted there.
 */

#define N    3
#define HOME 0

mtype = { UNTOUCHED, SHARED, OWNED };
mtype = { NONE, READ, WRITE };
mtype = { READ_REQ, WRITE_REQ, FWD_READ, FWD_WRITE, INVALIDATE, INVALIDATE_ACK, GRANT_READ,
	  GRANT_WRITE, DONE, NUDGE, PUSH_REQ, PUSH_GO, PUSH_NO, PUSH_DATA, FREE_REQ, DROP, DROPPED, FREED };

/*
 * type; node: the requester, or the target of a push; age: the node whose episode's age is meant;
 * acks; has: the requester has a copy, or the message has data (PUSH_DATA: the role of owner; DROP: that of
 * owner or keeper; DROPPED, FREED: it is gone); data.
 */
#ifdef HOLD
#define LINK_BOUND 6
#else
#define LINK_BOUND 4
#endif
chan net[N * N] = [LINK_BOUND] of { mtype, byte, byte, byte, bool, bit };
#define LINK(from, to) net[(from) * N + (to)]

/* A node's state of the page. */
mtype access[N] = NONE;
mtype wanted[N] = NONE;	  /* the outstanding request */
mtype deferred[N] = NONE; /* FWD_READ, FWD_WRITE or INVALIDATE, put off by the hold */
byte deferred_node[N], deferred_acks[N];
byte acks_due[N], acks_got[N];
bool keeper[N];	 /* owner or keeper: must not lose the page */
bit value[N];	 /* the copy's content */
bool pushing[N]; /* PUSH_REQ is out */
bool granted[N]; /* GRANT_WRITE has come, acks may be missing */
bool hold[N];	 /* a fresh grant whose actor has not run its hold yet */

/* The home's directory entry. */
mtype dir = UNTOUCHED;
byte dir_owner; /* owner or keeper */
byte sharers;	/* a set, a bit a node; the keeper is in it */
bool busy;
byte asked; /* whom the running transaction takes the page from: a set */
byte told;  /* the oldest age that they were told of */
#define NOBODY N
byte push_target = NOBODY; /* the running transaction is a push to this node */
#ifdef FREE
byte dropping; /* the running transaction makes the page untouched: who has not answered yet, a set */
bool freeing;  /* the last node has asked for that */
#define FREER (N - 1)
#endif
#define QUEUE_BOUND N
chan queue = [QUEUE_BOUND] of { mtype, byte, bool }; /* type, from, has */

/* Only for judging: the value written last. */
bit latest;

/* Episodes by age; rank 0 is the oldest. An episode lasts from a first stall to the end of a hold. */
byte rank[N];
bool episode[N];

#define BIT(n)	     (1 << (n))
#define IN(set, n)   (((set) >> (n)) & 1)
#define COUNT(set)   (((set) & 1) + (((set) >> 1) & 1) + (((set) >> 2) & 1))
#define ALONE(i)     (access[((i) + 1) % N] == NONE && access[((i) + 2) % N] == NONE)
#define OLDER(a, i)  (rank[a] <= rank[i]) /* the same episode never waits for its own hold */

inline send(src, dst, what_type, what_node, what_age, what_acks, what_has, what_data)
{
	assert(nfull(LINK(src, dst)));
	LINK(src, dst)!what_type, what_node, what_age, what_acks, what_has, what_data
}

/* Nodes without an episode come after all others, by number: one order, so fewer states. */
inline rank_idle()
{
	r = episode[0] + episode[1] + episode[2];
	if
	:: !episode[0] ->
		rank[0] = r;
		r++
	:: else
	fi;
	if
	:: !episode[1] ->
		rank[1] = r;
		r++
	:: else
	fi;
	if
	:: !episode[2] -> rank[2] = r
	:: else
	fi;
	r = 0
}

inline episode_begin(i)
{
	rank[i] = episode[0] + episode[1] + episode[2];
	episode[i] = true;
	rank_idle()
}

inline episode_end(i)
{
	r = rank[i];
	episode[i] = false;
	rank[0] = (rank[0] > r -> rank[0] - 1 : rank[0]);
	rank[1] = (rank[1] > r -> rank[1] - 1 : rank[1]);
	rank[2] = (rank[2] > r -> rank[2] - 1 : rank[2]);
	rank_idle()
}

/* The access that a node's memory gets with content that came. */
inline install(i, what, content)
{
	value[i] = content;
	access[i] = what;
	assert(content == latest)
}

/* ---- the holder: a taking, at once or when its hold is over ---- */

inline take(i, type, requester, acks)
{
	if
	:: type == FWD_READ ->
		assert(keeper[i] && access[i] != NONE);
		access[i] = READ;
		send(i, requester, GRANT_READ, requester, 0, 0, true, value[i])
	:: type == FWD_WRITE ->
		assert(keeper[i] && access[i] != NONE);
		send(i, requester, GRANT_WRITE, requester, 0, acks, true, value[i]);
		access[i] = NONE;
		keeper[i] = false;
		value[i] = 0
	:: type == INVALIDATE ->
		assert(access[i] != WRITE);
		access[i] = NONE;
		keeper[i] = false;
		value[i] = 0;
		send(i, requester, INVALIDATE_ACK, requester, 0, 0, false, 0)
	fi;
	hold[i] = false
}

inline take_deferred(i)
{
	if
	:: deferred[i] != NONE ->
		take(i, deferred[i], deferred_node[i], deferred_acks[i]);
		deferred[i] = NONE;
		deferred_node[i] = 0;
		deferred_acks[i] = 0
	:: else
	fi
}

inline on_taking(i, type, requester, age, acks)
{
	if
#ifndef BROKEN_AGE
	:: hold[i] && access[i] != NONE && !OLDER(age, i) ->
#else
	:: hold[i] && access[i] != NONE ->
#endif
		assert(deferred[i] == NONE);
		deferred[i] = type;
		deferred_node[i] = requester;
		deferred_acks[i] = acks
	:: else -> take(i, type, requester, acks)
	fi
}

/* ---- the requester ---- */

inline finish(i, what)
{
	if
	:: what == WRITE ->
		access[i] = WRITE;
		keeper[i] = true
	:: else
	fi;
	wanted[i] = NONE;
	granted[i] = false;
	acks_due[i] = 0;
	acks_got[i] = 0;
#ifdef HOLD
	hold[i] = true;
#endif
	send(i, HOME, DONE, i, 0, 0, false, 0)
}

inline finish_if_acked(i)
{
	if
#ifndef BROKEN_ACK
	:: granted[i] && acks_got[i] == acks_due[i] -> finish(i, WRITE)
#else
	:: granted[i] -> finish(i, WRITE)
#endif
	:: else
	fi
}

inline on_grant_read(i, has, content)
{
	assert(wanted[i] == READ);
	if
	:: has -> install(i, READ, content)
	:: else -> assert(access[i] != NONE)
	fi;
	finish(i, READ)
}

/* Data comes before the last ack: until then it may be read, not written. */
inline on_grant_write(i, acks, has, zero, content)
{
	assert(wanted[i] != NONE && !granted[i]);
	if
	:: has || zero -> install(i, READ, content)
	:: else -> assert(access[i] != NONE)
	fi;
	granted[i] = true;
	acks_due[i] = acks;
	finish_if_acked(i)
}

/* ---- the home ---- */

inline grant_kept(from)
{
	if
	:: dir == OWNED -> send(HOME, from, GRANT_WRITE, from, 0, 0, false, 0)
	:: else -> send(HOME, from, GRANT_READ, from, 0, 0, false, 0)
	fi
}

inline serve_read(from)
{
	if
	:: dir_owner == from -> grant_kept(from)
	:: dir_owner != from && dir == SHARED && access[HOME] != NONE && from != HOME ->
		send(HOME, from, GRANT_READ, from, 0, 0, true, value[HOME]);
		sharers = sharers | BIT(from)
	:: else ->
		sharers = (dir == OWNED -> BIT(dir_owner) : sharers) | BIT(from);
		asked = BIT(dir_owner);
		dir = SHARED;
		send(HOME, dir_owner, FWD_READ, from, oldest, 0, false, 0)
	fi
}

inline invalidate(set, from)
{
	if
	:: IN(set, 0) -> send(HOME, 0, INVALIDATE, from, oldest, 0, false, 0)
	:: else
	fi;
	if
	:: IN(set, 1) -> send(HOME, 1, INVALIDATE, from, oldest, 0, false, 0)
	:: else
	fi;
	if
	:: IN(set, 2) -> send(HOME, 2, INVALIDATE, from, oldest, 0, false, 0)
	:: else
	fi
}

inline serve_write(from, has)
{
	if
	:: dir == OWNED && dir_owner == from -> send(HOME, from, GRANT_WRITE, from, 0, 0, false, 0)
	:: dir == OWNED && dir_owner != from ->
		asked = BIT(dir_owner);
		send(HOME, dir_owner, FWD_WRITE, from, oldest, 0, false, 0)
#ifndef BROKEN_UPGRADE
	:: dir == SHARED && (dir_owner == from || (has && IN(sharers, from))) ->
#else
	:: dir == SHARED && (dir_owner == from || has) ->
#endif
		asked = sharers & ~BIT(from);
		send(HOME, from, GRANT_WRITE, from, 0, COUNT(asked), false, 0);
		invalidate(asked, from)
	:: else ->
		asked = sharers & ~BIT(from) & ~BIT(dir_owner);
		send(HOME, dir_owner, FWD_WRITE, from, oldest, COUNT(asked), false, 0);
		invalidate(asked, from);
		asked = asked | BIT(dir_owner)
	fi;
	dir = OWNED;
	dir_owner = from;
	sharers = 0
}

/* At once or not at all: a page that is busy is wanted elsewhere. */
inline on_push_req(from, target)
{
	if
#ifndef BROKEN_PUSH
	:: !busy && dir_owner == from ->
#else
	:: !busy ->
#endif
		busy = true;
		push_target = target;
		send(HOME, from, PUSH_GO, target, 0, 0, false, 0)
	:: else -> send(HOME, from, PUSH_NO, target, 0, 0, false, 0)
	fi
}

/* The transaction is over. A push was refused, or the target is in the place of the pusher. */
inline on_done(refused)
{
	assert(busy);
	if
	:: push_target != NOBODY && !refused ->
		sharers = (dir == SHARED -> (sharers & ~BIT(dir_owner)) | BIT(push_target) : 0);
		dir_owner = push_target
	:: else
	fi;
	push_target = NOBODY;
	busy = false;
	asked = 0;
	told = 0
}

/* A taking carries the oldest age of its requester and of those who wait behind it. */
inline find_oldest(from)
{
	oldest = from;
#ifdef HOLD
	r = 0;
	do
	:: r < N && (queue??[READ_REQ, eval(r)] || queue??[WRITE_REQ, eval(r)]) && rank[r] < rank[oldest] ->
		oldest = r;
		r++
	:: r < N && !((queue??[READ_REQ, eval(r)] || queue??[WRITE_REQ, eval(r)]) &&
		      rank[r] < rank[oldest]) -> r++
	:: r == N -> break
	od;
	r = 0
#endif
}

inline serve(type, from, has)
{
	asked = 0;
	busy = true;
	if
	:: dir == UNTOUCHED ->
		dir = OWNED;
		dir_owner = from;
		/* age 1 stands for ZERO: nobody had the page. */
		send(HOME, from, GRANT_WRITE, from, 1, 0, false, 0)
#ifndef BROKEN_OWN
	:: type == READ_REQ && dir != UNTOUCHED && !(has && dir == OWNED) ->
#else
	:: type == READ_REQ && dir != UNTOUCHED && !(has && dir_owner != from) ->
#endif
		find_oldest(from);
		serve_read(from)
	/* KEEPER: to own, if nobody shares it. */
#ifndef BROKEN_OWN
	:: type == READ_REQ && has && dir == OWNED ->
		find_oldest(from);
		serve_write(from, false)
#else
	:: type == READ_REQ && has && dir != UNTOUCHED && dir_owner != from ->
		find_oldest(from);
		asked = BIT(dir_owner);
		send(HOME, dir_owner, FWD_WRITE, from, oldest, 0, false, 0);
		dir = OWNED;
		dir_owner = from;
		sharers = 0
#endif
	:: type == WRITE_REQ && dir != UNTOUCHED ->
		find_oldest(from);
		serve_write(from, has)
	fi;
	told = (asked -> oldest : 0);
	oldest = 0
}

inline nudge(n, age)
{
	if
	:: IN(asked, n) -> send(HOME, n, NUDGE, age, age, 0, false, 0)
	:: else
	fi
}

/* The oldest episode's request comes to the head of the queue. */
inline oldest_first()
{
#ifdef HOLD
	oldest = NOBODY;
	r = len(queue);
	do
	:: r > 0 ->
		queue?qtype, qfrom, qhas;
		queue!qtype, qfrom, qhas;
		oldest = (oldest == NOBODY || rank[qfrom] < rank[oldest % N] -> qfrom : oldest);
		r--
	:: else -> break
	od;
	queue?qtype, qfrom, qhas;
	do
	:: qfrom != oldest ->
		queue!qtype, qfrom, qhas;
		queue?qtype, qfrom, qhas
	:: else -> break
	od;
	oldest = 0
#else
	queue?qtype, qfrom, qhas
#endif
}

inline serve_queue()
{
	do
	:: !busy && len(queue) > 0 ->
		oldest_first();
		serve(qtype, qfrom, qhas);
		qtype = 0;
		qfrom = 0;
		qhas = false
	:: else -> break
	od
}

inline on_request(type, from, has)
{
	assert(nfull(queue));
	queue!type, from, has;
#if defined(HOLD) && !defined(BROKEN_NUDGE)
	if
	:: busy && asked != 0 && rank[from] < rank[told] ->
		told = from;
		nudge(0, from);
		nudge(1, from);
		nudge(2, from)
	:: else
	fi;
#endif
#ifdef BROKEN_BUSY
	busy = false
#endif
}

/* ---- a push ---- */

inline on_push_go(i, target)
{
	assert(pushing[i] && keeper[i] && access[i] != NONE && deferred[i] == NONE);
	pushing[i] = false;
	if
	:: wanted[i] != NONE -> send(i, HOME, DONE, i, 0, 0, true, 0) /* REFUSED: it is wanted here */
	:: else ->
		send(i, target, PUSH_DATA, target, 0, 0, access[i] == WRITE, value[i]);
		access[i] = NONE;
		keeper[i] = false;
		value[i] = 0
	fi
}

inline on_push_data(i, owner, content)
{
	assert(!keeper[i] && access[i] != WRITE);
	install(i, (owner -> WRITE : READ), content);
	keeper[i] = true;
	send(i, HOME, DONE, i, 0, 0, false, 0)
}

/* ---- the page becomes untouched again ---- */

#ifdef FREE
inline drop_ask(set)
{
	dropping = set;
	if
	:: IN(set, 0) -> send(HOME, 0, DROP, 0, 0, 0, (dir_owner == 0), 0)
	:: else
	fi;
	if
	:: IN(set, 1) -> send(HOME, 1, DROP, 0, 0, 0, (dir_owner == 1), 0)
	:: else
	fi;
	if
	:: IN(set, 2) -> send(HOME, 2, DROP, 0, 0, 0, (dir_owner == 2), 0)
	:: else
	fi
}

/* The keeper is asked when nobody else has a copy. */
inline on_free()
{
	if
	:: busy || len(queue) > 0 || dir == UNTOUCHED -> send(HOME, FREER, FREED, 0, 0, 0, false, 0)
#ifdef BROKEN_UNASKED
	:: else -> untouched()
#endif
#ifndef BROKEN_UNASKED
	:: else ->
		busy = true;
#ifdef BROKEN_TOGETHER
		drop_ask(sharers | BIT(dir_owner))
#endif
#ifndef BROKEN_TOGETHER
		if
		:: dir == SHARED && (sharers & ~BIT(dir_owner)) != 0 ->
			drop_ask(sharers & ~BIT(dir_owner))
		:: else -> drop_ask(BIT(dir_owner))
		fi
#endif
#endif
	fi
}

inline on_drop(i, keeps)
{
	assert(keeps == keeper[i] && deferred[i] == NONE);
	if
	:: access[i] != NONE && (hold[i] || wanted[i] != NONE) ->
		send(i, HOME, DROPPED, i, 0, 0, false, 0)
	:: else ->
		access[i] = NONE;
		keeper[i] = false;
		value[i] = 0;
		send(i, HOME, DROPPED, i, 0, 0, true, 0)
	fi
}

inline untouched()
{
	dir = UNTOUCHED;
	dir_owner = 0;
	sharers = 0;
	dropping = 0;
	busy = false;
	latest = 0;
	assert(access[0] == NONE && access[1] == NONE && access[2] == NONE);
	send(HOME, FREER, FREED, 0, 0, 0, true, 0)
}

inline stays()
{
	busy = false;
	send(HOME, FREER, FREED, 0, 0, 0, false, 0)
}

inline on_dropped(from, dropped)
{
	assert(busy && IN(dropping, from));
	dropping = dropping & ~BIT(from);
	if
	:: from == dir_owner && dropped -> untouched()
	:: from == dir_owner && !dropped -> stays()
	:: from != dir_owner ->
		sharers = (dropped -> sharers & ~BIT(from) : sharers);
		if
#ifndef BROKEN_TOGETHER
		:: dropping == 0 && sharers == BIT(dir_owner) -> drop_ask(BIT(dir_owner))
		:: dropping == 0 && sharers != BIT(dir_owner) -> stays()
#endif
		:: else
		fi
	fi
}
#endif

inline handle_one(i, type, node, age, acks, has, data)
{
	if
	:: type == READ_REQ || type == WRITE_REQ -> on_request(type, node, has)
	:: type == PUSH_REQ -> on_push_req(acks, node)
	:: type == FWD_READ || type == FWD_WRITE || type == INVALIDATE ->
		on_taking(i, type, node, age, acks)
	:: type == INVALIDATE_ACK ->
		assert(wanted[i] != NONE);
		acks_got[i]++;
		finish_if_acked(i)
	:: type == GRANT_READ -> on_grant_read(i, has, data)
	:: type == GRANT_WRITE -> on_grant_write(i, acks, has, age == 1, data)
	:: type == DONE -> on_done(has)
	:: type == NUDGE ->
		if
		:: OLDER(age, i) -> take_deferred(i)
		:: else
		fi
	:: type == PUSH_GO -> on_push_go(i, node)
	:: type == PUSH_NO ->
		assert(pushing[i]);
		pushing[i] = false
	:: type == PUSH_DATA -> on_push_data(i, has, data)
#ifdef FREE
	:: type == FREE_REQ -> on_free()
	:: type == DROP -> on_drop(i, has)
	:: type == DROPPED -> on_dropped(node, has)
	:: type == FREED ->
		assert(freeing);
		freeing = false
#endif
	fi;
	serve_queue()
}

/* The message in the variables, and then what the home has sent to itself, until there is nothing more. */
inline handle(i)
{
	at = i;
	do
	:: type != 0 ->
		handle_one(at, type, node, age, acks, has, data);
		type = 0;
		if
		:: len(LINK(HOME, HOME)) > 0 ->
			at = HOME;
			LINK(HOME, HOME)?type, node, age, acks, has, data
		:: else
		fi
	:: else -> break
	od;
	at = 0;
	node = 0;
	age = 0;
	acks = 0;
	has = false;
	data = 0
}

inline handle_here()
{
	if
	:: len(LINK(HOME, HOME)) > 0 ->
		LINK(HOME, HOME)?type, node, age, acks, has, data;
		handle(HOME)
	:: else
	fi
}

/* ---- processes: a link each, an actor a node, a hold a node ---- */

#define LOCALS                                        \
	mtype type, qtype;                            \
	byte at, node, age, acks, oldest, r, qfrom;  \
	bool has, qhas;                               \
	bit data

proctype link(byte from; byte to)
{
	LOCALS;
end:
	do
	:: atomic {
		LINK(from, to)?type, node, age, acks, has, data;
		d_step {
			handle(to)
		}
	}
	od
}

inline request_with(i, what_req, what, flag)
{
#ifdef HOLD
	if
	:: !episode[i] -> episode_begin(i)
	:: else
	fi;
#endif
	wanted[i] = what;
	send(i, HOME, what_req, i, 0, 0, flag, 0)
}

inline request(i, what_req, what)
{
	request_with(i, what_req, what, access[i] == READ)
}

/* A read, and KEEPER with it, in the place of COPY: the actor is believed to write next. */
inline request_to_own(i)
{
	request_with(i, READ_REQ, READ, true)
}

inline push(i, target)
{
	pushing[i] = true;
	send(i, HOME, PUSH_REQ, target, 0, i, false, 0)
}

/* A request may go out while a push is asked for; the push is refused then. */
#define IDLE(i) (wanted[i] == NONE)

proctype actor(byte i)
{
	LOCALS;
end:
	do
	:: atomic {
		if
		:: d_step { IDLE(i) && access[i] == NONE -> request(i, READ_REQ, READ) }
#ifdef OWN
		:: d_step { IDLE(i) && access[i] == NONE -> request_to_own(i) }
#endif
		:: d_step { IDLE(i) && access[i] != WRITE -> request(i, WRITE_REQ, WRITE) }
		:: d_step { access[i] == WRITE ->
			assert(ALONE(i) && value[i] == latest);
#if !defined(FAIR) && !defined(STILL)
			value[i] = 1 - value[i];
			latest = value[i]
#endif
		}
#ifdef FREE
		:: d_step { i == FREER && !freeing ->
			freeing = true;
			send(i, HOME, FREE_REQ, i, 0, 0, false, 0)
		}
#endif
#ifdef PUSH
#ifndef BROKEN_DROP
		:: d_step { IDLE(i) && access[i] == READ && !keeper[i] && !hold[i] && deferred[i] == NONE ->
#else
		:: d_step { IDLE(i) && access[i] == READ && !hold[i] && deferred[i] == NONE ->
#endif
			access[i] = NONE;
			value[i] = 0
		}
		:: d_step { IDLE(i) && keeper[i] && !pushing[i] && !hold[i] && deferred[i] == NONE -> push(i, (i + 1) % N) }
		:: d_step { IDLE(i) && keeper[i] && !pushing[i] && !hold[i] && deferred[i] == NONE -> push(i, (i + 2) % N) }
#endif
		fi;
		d_step { handle_here() }
	}
	od
}

/* The actor has run for as long as its hold: it runs only while it waits for nothing. */
proctype hold_over(byte i)
{
	LOCALS;
end:
	do
	:: d_step { hold[i] && wanted[i] == NONE ->
		hold[i] = false;
		episode_end(i);
		take_deferred(i);
		handle_here()
	}
	od
}

init
{
	byte i;
	atomic {
		rank[1] = 1;
		rank[2] = 2;
		for (i : 0 .. N * N - 1) {
			if
			:: i / N != i % N -> run link(i / N, i % N)
			:: else
			fi
		}
		for (i : 0 .. N - 1) {
			run actor(i);
#ifdef HOLD
			run hold_over(i)
#endif
		}
		i = 0
	}
}

#ifdef FAIR
ltl granted { [] (wanted[FAIR] != NONE -> <> (wanted[FAIR] == NONE)) }
#endif
