/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPUs that move: core/vcpu_place.h, core/vcpu_startup.h and what the node's threads do around them.
 *
 * One vCPU and three nodes, each with a seat's thread and a control thread; a channel for each pair of nodes, in
 * order, of any delay. The vCPU moves at any time, to anywhere; a state may not be saved now, a target may refuse. On
 * node 0 and node 1 there is who has interrupts for it. All of them may stop between any two steps. What the lock of a
 * vCPU guards is one step. The vCPU runs until it is kicked: it does not look by itself.
 *
 * Interrupts are bits, each sent once; a state is the set of those that its LAPIC has ever got. Judged:
 *   - no state gets a bit twice, and when nothing moves any more, exactly one node has the vCPU, and it has got all
 *   - two nodes never have it
 *   - no message comes that a node takes for a lie
 *   - each forward is by a higher epoch than the one before
 *   - (STARTUP) a SIPI comes behind its INIT
 *
 *   MOVES=n   moves in all, refusals included
 *   STARTUP   node 0 has an INIT and a SIPI; the others are left out
 *   BROKEN_*  a deliberate defect each, named at its place below
 */
#define N 3
#ifndef START
#define START 0
#endif
#ifndef SOURCES
#define SOURCES 2
#endif
#ifndef MOVES
#define MOVES 3
#endif
#define LINK_BOUND 7

mtype = { HERE, LEAVING, SENT, AWAY, ARRIVING };
mtype = { MOVE, PLACE, REFUSED, INTERRUPT, TAKEN };

chan net[N * N] = [LINK_BOUND] of { mtype, byte, byte }; /* type, epoch, bits */
#define LINK(from, to) net[(from) * N + (to)]

#define INIT 1 /* STARTUP: node 0's, in turn */
#define SIPI 2
#define BIT(source) (4 << (source)) /* each source's */
#ifdef STARTUP
#define ALL (INIT | SIPI | OTHER)
#ifdef BROKEN_STEAL
#define OTHER BIT(1)
#else
#define OTHER 0
#endif
#else
#if SOURCES == 2
#define ALL (BIT(0) | BIT(1))
#else
#define ALL BIT(0)
#endif
#endif

/* The word of each node. */
mtype state[N] = AWAY;
byte node[N], epoch[N];

byte inbox[N];
bool pending[N];
bool kicked[N];
bool owes[N];	/* PLACE, which the control thread says, or the seat's before it leaves */
byte lapic[N];	/* the seat's state: what its LAPIC has got. While it is SENT: what is kept */
byte left = MOVES;
byte posting;	/* interrupts that are not sent yet */

/* STARTUP */
bool owed[N];
bool out, hub_taken;
byte hub_sends;
byte waiting;

inline send(src, dst, what_type, what_epoch, what_bits)
{
	assert(nfull(LINK(src, dst)));
	LINK(src, dst)!what_type, what_epoch, what_bits
}

#define IS_AWAY(n) (state[n] == AWAY || state[n] == SENT)

#ifdef STARTUP
/* TAKEN has come to node 0, or to its turn. In the lock of node 0. */
inline hub_next()
{
	if
	:: !out && (waiting & INIT) ->
		out = true;
		waiting = waiting & ~INIT;
		hub_sends = INIT
	:: !out && !(waiting & INIT) && waiting ->
		out = true;
		waiting = 0;
		hub_sends = SIPI
	:: else -> hub_sends = 0
	fi
}

inline say_taken(n)
{
	if
	:: owed[n] ->
		owed[n] = false;
		if
		:: n == 0 ->
			/* node 0 to itself: its control thread goes on with it */
			hub_taken = true
		:: else -> send(n, 0, TAKEN, 0, 0)
		fi
	:: else
	fi
}
#endif

/* [lock] An INIT or SIPI that goes on is owed by the next node; one that is owed and not here is in the LAPIC. */
inline forward_inbox(n)
{
	if
	:: IS_AWAY(n) && pending[n] ->
		pending[n] = false;
		if
		:: inbox[n] -> send(n, node[n], INTERRUPT, epoch[n], inbox[n])
		:: else
		fi;
#ifdef STARTUP
		if
		:: inbox[n] & (INIT | SIPI) -> owed[n] = false
		:: else
		fi;
#endif
		inbox[n] = 0
	:: else
	fi;
#ifdef STARTUP
	if
	:: IS_AWAY(n) -> say_taken(n)
	:: else
	fi
#endif
}


/* Who has an interrupt, on node n. */
inline post(n, bits, wake, to, had)
{
#ifdef BROKEN_LOOK /* looks first, then posts */
	wake = state[n];
	inbox[n] = inbox[n] | bits;
	pending[n] = true;
#else
	d_step {
		inbox[n] = inbox[n] | bits;
		bits = 0;
		had = pending[n];
		pending[n] = true
	}
	d_step {
		if
		:: had -> wake = ARRIVING /* who put that there sees to it */
		:: else ->
			wake = state[n];
			to = node[n]
		fi;
		had = false
	}
#endif
	if
	:: wake == HERE -> atomic { kicked[n] = true; wake = 0; to = 0 }
	:: wake == AWAY || wake == SENT ->
		atomic { /* [lock] */
#ifdef BROKEN_STEAL /* goes by what it has read before */
			if
			:: pending[n] ->
				pending[n] = false;
				if
				:: inbox[n] & (INIT | SIPI) -> owed[n] = false
				:: else
				fi;
				if
				:: inbox[n] -> send(n, to, INTERRUPT, 0, inbox[n])
				:: else
				fi;
				inbox[n] = 0
			:: else
			fi;
#else
			forward_inbox(n);
#endif
			wake = 0;
			to = 0
		}
	:: else -> atomic { wake = 0; to = 0 }
	fi
}

/* [lock] An INIT or a SIPI has come to node n. */
inline post_startup(n, bits)
{
	owed[n] = true;
	inbox[n] = inbox[n] | bits;
	pending[n] = true;
#ifdef BROKEN_TAKEN /* TAKEN also while it comes or goes */
	if
	:: !IS_AWAY(n) -> say_taken(n)
	:: else
	fi;
#endif
	if
	:: state[n] == HERE ->
		say_taken(n);
		kicked[n] = true
	:: IS_AWAY(n) -> forward_inbox(n)
	:: else
	fi
}

/* The inbox into the LAPIC, by the seat's thread. */
inline drain(n)
{
	if
	:: pending[n] ->
		pending[n] = false;
		assert((lapic[n] & inbox[n]) == 0); /* twice */
#ifdef STARTUP
		assert(!(inbox[n] & SIPI) || ((lapic[n] | inbox[n]) & INIT));
#endif
		lapic[n] = lapic[n] | inbox[n];
		inbox[n] = 0
	:: else
	fi
}

/* [lock] */
inline say_place(n)
{
	if
	:: owes[n] ->
		owes[n] = false;
		send(n, (n + 1) % N, PLACE, epoch[n], 0);
		send(n, (n + 2) % N, PLACE, epoch[n], 0)
	:: else
	fi
}

/* [lock] Who has changed the place looks into the inbox. */
inline look(n)
{
#ifdef BROKEN_FORGET /* does not */
	skip
#else
	forward_inbox(n)
#endif
}

proctype seat(byte me)
{
	byte to;
parked:
end_parked:
	if
	:: state[me] == HERE -> goto again
	:: state[me] == ARRIVING
	fi;
#ifdef BROKEN_GATHER /* takes what has been gathered into a state that may be refused */
	d_step { drain(me) }
#endif
	if
	:: atomic { /* [lock] */
		node[me] != me && left > 0 ->
		left--;
		send(me, node[me], REFUSED, epoch[me] + 1, 0);
		epoch[me]++;
		state[me] = AWAY;
		lapic[me] = 0;
#ifdef BROKEN_REFUSE /* a refusal drops what was gathered */
		pending[me] = false;
		inbox[me] = 0
#else
		forward_inbox(me)
#endif
	   }
	   goto parked
	:: atomic {
		assert(state[(me + 1) % N] != HERE && state[(me + 2) % N] != HERE);
		state[me] = HERE;
		node[me] = me;
		owes[me] = true
	   }
	fi;
again:
	atomic { kicked[me] = false; drain(me) }
end_guest: /* a kick before it is in the guest is not lost: models/kick.pml */
	if
	:: kicked[me] -> goto again
	:: atomic { left > 0 -> left--; to = (me + 1) % N }
	:: atomic { left > 0 -> left--; to = (me + 2) % N }
	fi;
#ifdef BROKEN_DRAIN /* drains, then writes LEAVING */
	d_step { drain(me) }
	d_step { state[me] = LEAVING; node[me] = to; to = 0 }
#else
	d_step { state[me] = LEAVING; node[me] = to; to = 0 }
	d_step { kicked[me] = false; drain(me) }
#endif
	if
	:: true ->
		atomic { state[me] = HERE; node[me] = me }; /* cannot be saved now */
#ifdef STARTUP
		atomic { say_taken(me) }
#endif
		goto again
	:: true
	fi;
#ifdef BROKEN_EARLY /* what is forwarded goes before MOVE */
	atomic { say_place(me); state[me] = SENT; epoch[me]++; forward_inbox(me) }
	atomic { send(me, node[me], MOVE, epoch[me], lapic[me]) }
#else
#ifdef BROKEN_LOCK /* MOVE and SENT are two steps */
	atomic { say_place(me); send(me, node[me], MOVE, epoch[me] + 1, lapic[me]) }
	atomic { state[me] = SENT; epoch[me]++; forward_inbox(me) }
#else
	atomic { /* [lock] */
#ifndef BROKEN_OWED /* leaves before PLACE is said */
		say_place(me);
#endif
		send(me, node[me], MOVE, epoch[me] + 1, lapic[me]);
		state[me] = SENT;
		epoch[me]++;
		look(me)
	}
#endif
#endif
	goto parked
}

/* [lock] Judges a message that came from src. */
inline judge(me, src, type, e, bits)
{
	if
	:: type == MOVE ->
		assert(state[me] == AWAY && node[me] == src && epoch[me] + 1 == e);
		state[me] = ARRIVING;
		epoch[me] = e;
		lapic[me] = bits
	:: type == REFUSED ->
		assert(state[me] == SENT && node[me] == src && epoch[me] + 1 == e);
		state[me] = ARRIVING;
		node[me] = me;
		epoch[me] = e
	:: type == PLACE ->
		if
#ifdef BROKEN_OLD /* news that is older than what is known */
		:: e < epoch[me] && state[me] == AWAY ->
			epoch[me] = e;
			node[me] = src;
			forward_inbox(me)
		:: e < epoch[me] && state[me] != AWAY
#else
		:: e < epoch[me]
#endif
		:: e >= epoch[me] ->
			assert(IS_AWAY(me) && (e > epoch[me] || src == node[me]));
#ifdef BROKEN_RETURN /* only the target's own word is an answer */
			if
			:: state[me] == SENT && e > epoch[me]
			:: else ->
#endif
			if
			:: state[me] == SENT -> lapic[me] = 0
			:: else
			fi;
			state[me] = AWAY;
			node[me] = src;
			epoch[me] = e;
			look(me)
#ifdef BROKEN_RETURN
			fi
#endif
		fi
	:: type == INTERRUPT ->
		/* forwards go to higher epochs */
		assert(epoch[me] > e || (epoch[me] == e && !IS_AWAY(me)))
#ifdef STARTUP
	:: type == TAKEN ->
		assert(me == 0)
#endif
	fi
}

proctype control(byte me)
{
	byte src, e, bits, to;
	mtype type, wake;
	bool had;
end_idle:
	do
	:: atomic {
		owes[me] ->
		say_place(me);
#ifdef STARTUP
		if
#ifdef BROKEN_SETTLE /* also when it leaves */
		:: true -> say_taken(me)
#else
		:: state[me] == HERE -> say_taken(me)
		:: else
#endif
		fi
#endif
	   }
	:: atomic {
		if
		:: LINK((me + 1) % N, me)?type, e, bits -> src = (me + 1) % N
		:: LINK((me + 2) % N, me)?type, e, bits -> src = (me + 2) % N
#ifdef STARTUP
		:: me == 0 && hub_taken -> type = TAKEN; src = 0
#endif
		fi;
		judge(me, src, type, e, bits);
		if
		:: type != INTERRUPT -> bits = 0
		:: else
		fi;
		e = 0;
		src = 0;
		type = (type == INTERRUPT || type == TAKEN -> type : 0)
	   }
	   if
#ifdef STARTUP
	   :: type == TAKEN ->
		atomic {
			hub_taken = false;
			out = false;
			hub_next();
			if
			:: hub_sends -> post_startup(0, hub_sends)
			:: else
			fi;
			hub_sends = 0
		}
	   :: type == INTERRUPT && (bits & (INIT | SIPI)) ->
		atomic { post_startup(me, bits) }
#endif
	   :: type == INTERRUPT && !(bits & (INIT | SIPI)) -> post(me, bits, wake, to, had)
	   :: else
	   fi;
	   type = 0
	od
}

#ifdef STARTUP
proctype sender()
{
#ifdef BROKEN_HUB /* straight to the vCPU, both */
	atomic { post_startup(0, INIT) }
	atomic { post_startup(0, SIPI) }
#else
	atomic {
		waiting = waiting | INIT;
		hub_next();
		post_startup(0, hub_sends);
		hub_sends = 0
	}
	atomic {
		waiting = waiting | SIPI;
		hub_next();
		if
		:: hub_sends -> post_startup(0, hub_sends)
		:: else
		fi;
		hub_sends = 0
	}
#endif
	posting--
}
#endif

proctype source(byte me)
{
	mtype wake;
	byte to, e, bits = BIT(me);
	bool had;
	if
	:: post(me, bits, wake, to, had)
	:: atomic { /* nothing is gathered: straight on */
		IS_AWAY(me) && !pending[me] ->
		to = node[me];
		e = epoch[me]
	   }
	   atomic { send(me, to, INTERRUPT, e, bits) }
	fi;
	posting--
}

init {
	byte n, at;
	atomic {
		select(at : START .. START);
		n = 0;
		do
		:: n < N ->
			node[n] = at;
			n++
		:: else -> break
		od;
		state[at] = HERE;
#ifdef STARTUP
		posting = 1;
		run sender();
#ifdef BROKEN_STEAL
		posting = 2;
		run source(1);
#endif
#else
		posting = SOURCES;
		run source(0);
#if SOURCES == 2
		run source(1);
#endif
#endif
		n = 0;
		do
		:: n < N ->
			run seat(n);
			run control(n);
			n++
		:: else -> break
		od
	}
	/* nothing moves any more */
	atomic {
		timeout ->
		assert(posting == 0);
		assert((state[0] == HERE) + (state[1] == HERE) + (state[2] == HERE) == 1);
		n = 0;
		do
		:: n < N ->
			if
			:: state[n] == HERE -> assert(lapic[n] == ALL)
			:: else
			fi;
			n++
		:: else -> break
		od
	}
}
