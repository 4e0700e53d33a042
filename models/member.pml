/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that joins and leaves: core/member_list.h, and what a node does around it.
 *
 * Nodes 0 and 1 are members for good, 0 is the steward. Number 2 is free at first: a host joins by it, may fail before it
 * is ready, takes part, is drained (which may be cancelled), leaves, and another host joins by the same number. Each pair
 * has a control and a page channel, in order each, with no order between the two.
 *
 * A link with a newcomer comes up at any time after JOIN, and its member's first word by it says so.
 *
 * What all have is one thing (a vCPU, a home): it is handed on (MOVE, TAKEN), told of (HINT), asked for (ASK, sent on by
 * what each knows; REPLY). An epoch counts its moves.
 *
 * Judged:
 *   - no step is ordered before all are done with the last one; and one that is over is over for all
 *   - nothing is begun at a host that leaves or is no more, and no word that names a number is heard by who knows no such,
 *     or of another host than was meant
 *   - when nothing moves any more, the list is at rest, one has the thing, and nobody waits for an answer
 * Left out: the steward's seat that moves, several joiners, loss of a member, which ends all (tests/sim/members has them).
 *
 *   HOSTS=n, MOVES=n, HINTS=n, ASKS=n, CANCELS=n
 *   BROKEN_*  a deliberate defect each, named at its place below
 */
#ifndef HOSTS
#define HOSTS 1
#endif
#ifndef MOVES
#define MOVES 2
#endif
#ifndef HINTS
#define HINTS 1
#endif
#ifndef ASKS
#define ASKS 0
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#define LINK_BOUND 6
#define NONE 3

mtype = { FREE, JOINING, ACTIVE, DRAINING, GONE };
mtype = { STEP, OVER, DONE, READY, FAILED, DRAINED, END };
mtype = { MOVE, TAKEN, HINT, ASK, REPLY, FLUSH, LINKED };

chan ctl[9] = [LINK_BOUND] of { mtype, mtype }; /* STEP: the state that 2 gets */
chan page[9] = [LINK_BOUND] of { mtype, byte, byte, byte };
#define CTL(from, to) ctl[(from) * 3 + (to)]
#define PAGE(from, to) page[(from) * 3 + (to)]

/* Each node's list: the state of number 2. */
mtype state[3] = FREE;
byte step[3];
bool done[3] = true, over[3] = true;
bool linked[2];	  /* with 2 */
byte flushed[9];  /* [src][dst]: the step */

/* The steward's. */
byte awaited;
bool ready, failed, drained, told;
byte hosts = HOSTS, cancels = CANCELS, moves = MOVES, hints = HINTS, asks = ASKS;

/* The host at 2, and which one it is. */
bool alive;
byte life[3]; /* of 2; the others are what they are */
bool said_ready, said_drained;
byte told_of; /* who has said that its link with it stands */

/* The thing. */
bool has[3], asking[3];
byte hint[3], hint_life[3], epoch[3], asked_at[3];
byte owed[3] = NONE;

inline say(s_from, s_to, s_what, s_how)
{
	assert(nfull(CTL(s_from, s_to)));
	CTL(s_from, s_to)!s_what, s_how
}

inline tell(t_from, t_to, t_what, t_a, t_b, t_c)
{
	if
	:: (t_to) == 2 && !alive
	:: else ->
		assert(nfull(PAGE(t_from, t_to)));
		PAGE(t_from, t_to)!t_what, (t_a), (t_b), (t_c)
	fi
}

/* ---- the steward ----------------------------------------------------------------------------- */

#ifdef BROKEN_ALL /* it waits for nobody but itself and number 2 */
#define ALL 1
#else
#define ALL 3
#endif

inline apply(p_n, p_what)
{
	state[p_n] = (p_what == FAILED -> GONE : p_what);
	step[p_n]++;
	over[p_n] = false;
	done[p_n] = (p_n == 2 && p_what == GONE);
	if
	:: p_what == FREE -> tell(p_n, 1 - p_n, FLUSH, step[p_n], 0, 0)
	:: p_what == FAILED -> /* with all that it has said */
		linked[p_n] = false;
		do
		:: nempty(CTL(2, p_n)) -> CTL(2, p_n)?_, _
		:: empty(CTL(2, p_n)) -> break
		od
	:: p_what == ACTIVE && p_n < 2 -> assert(linked[p_n])
	:: else
	fi
}

inline order(o_what)
{
	assert(over[0] && step[1] == step[0] && done[1]);
	assert(!alive || o_what == FREE || o_what == FAILED || (step[2] == step[0] && done[2]));
	if
	:: o_what == ACTIVE || o_what == DRAINING -> awaited = ALL | 4
	:: else -> awaited = ALL
	fi;
	say(0, 1, STEP, o_what);
	if
	:: o_what == ACTIVE || o_what == DRAINING || o_what == GONE -> told = true; say(0, 2, STEP, o_what)
	:: else -> told = false
	fi;
	apply(0, o_what);
	if
	:: o_what == JOINING -> ready = false; failed = false
	:: else
	fi;
	drained = false
}

inline end_step()
{
	over[0] = true;
	say(0, 1, OVER, 0);
	if
	:: state[0] == JOINING -> /* its sponsor tells it */
		alive = true;
		life[2]++;
		said_ready = false;
		said_drained = false;
		state[2] = JOINING;
		step[2] = step[0];
		done[2] = true;
		over[2] = true;
		told_of = 0;
		has[2] = false;
		epoch[2] = epoch[0];
		hint[2] = (has[0] -> 0 : hint[0]);
		hint_life[2] = hint_life[0]
	:: told -> say(0, 2, OVER, 0)
	:: else
	fi
}

inline answered(d_who)
{
	awaited = awaited & ~(1 << (d_who));
	if
	:: awaited == 0 -> end_step()
	:: else
	fi
}

active proctype steward()
{
end:
	do
	:: atomic { over[0] && state[0] == FREE && hosts > 0 -> hosts--; order(JOINING) }
	:: atomic { over[0] && state[0] == JOINING && failed -> order(FAILED) }
	:: atomic { over[0] && state[0] == JOINING && ready && !failed -> order(ACTIVE) }
	:: atomic { over[0] && state[0] == ACTIVE -> order(DRAINING) }
	:: atomic { over[0] && state[0] == DRAINING && cancels > 0 -> cancels--; order(ACTIVE) }
	:: atomic { over[0] && state[0] == DRAINING && drained -> order(GONE) }
	:: atomic { over[0] && state[0] == GONE -> order(FREE) }
	od
}

/* ---- every node ------------------------------------------------------------------------------ */

#define OTHER(n) (1 - (n))
#define NAMES(n) ((!has[n] && hint[n] == 2) || owed[n] == 2)

/* What a step asks of 0 and 1. */
#ifdef BROKEN_DRAIN /* DRAIN is done while an answer is owed */
#define DRAIN_DONE(n) true
#else
#define DRAIN_DONE(n) (owed[n] != 2)
#endif
#ifdef BROKEN_GONE /* GONE is done while something names it */
#define GONE_DONE(n) true
#else
#define GONE_DONE(n) (!linked[n] || (!NAMES(n) && !(asking[n] && asked_at[n] < step[n])))
#endif
#ifdef BROKEN_FLUSH /* FREE is done before the other has flushed */
#define FREE_DONE(n) !linked[n]
#else
#define FREE_DONE(n) (!linked[n] && flushed[OTHER(n) * 3 + n] == step[n])
#endif
#define STEP_DONE(n) (n == 2 || state[n] == JOINING || state[n] == ACTIVE || (state[n] == DRAINING && DRAIN_DONE(n)) || \
		      (state[n] == GONE && GONE_DONE(n)) || (state[n] == FREE && FREE_DONE(n)))

#ifdef BROKEN_BEGIN /* things are handed to who leaves */
#define MAY_BEGIN(n, to) ((to) < 2 || state[n] == ACTIVE || state[n] == DRAINING)
#else
#define MAY_BEGIN(n, to) ((to) < 2 || state[n] == ACTIVE)
#endif
#ifdef BROKEN_OVER /* DRAINED is said before DRAIN is over */
#define DRAIN_OVER true
#else
#define DRAIN_OVER over[2]
#endif
#ifdef BROKEN_LEAVE /* it ends when GONE is over, with words on their way to it */
#define MAY_LEAVE over[2]
#else
#define MAY_LEAVE (over[2] && flushed[0 * 3 + 2] == step[2] && flushed[1 * 3 + 2] == step[2])
#endif

#ifdef BROKEN_LINK /* it is READY before all have their links with it */
#define ALL_LINKED (told_of != 0)
#else
#define ALL_LINKED (told_of == 3)
#endif
#ifdef BROKEN_HEAR /* what it says is heard before it is a member here */
#define HEARS(n, src) true
#else
#define HEARS(n, src) ((src) < 2 || state[n] != JOINING)
#endif

#define TAKES_PART(n) ((n) < 2 || (alive && (state[2] == ACTIVE || (state[2] == DRAINING && !said_drained))))

inline named(m_n, m_who, m_life)
{
	assert(m_who != 2 || state[m_n] != FREE || !done[m_n]);
	assert(m_who != 2 || state[m_n] == GONE || state[m_n] == FREE || m_life == life[2])
}

inline believe(b_n, b_who, b_life, b_e)
{
	if
	:: !has[b_n] && owed[b_n] == NONE && b_e > epoch[b_n] && b_who != b_n &&
	   (b_who < 2 || state[b_n] == ACTIVE || state[b_n] == DRAINING || state[b_n] == JOINING) ->
		hint[b_n] = b_who;
		hint_life[b_n] = b_life;
		epoch[b_n] = b_e
	:: else
	fi
}

inline hand_on(h_n, h_to)
{
	has[h_n] = false;
	epoch[h_n]++;
	hint[h_n] = h_to;
	hint_life[h_n] = life[h_to];
	owed[h_n] = h_to;
	tell(h_n, h_to, MOVE, epoch[h_n], 0, 0)
}

inline hear_control(c_n, c_src, c_what, c_how)
{
	if
	:: c_what == STEP ->
		assert(done[c_n] && over[c_n]);
		apply(c_n, c_how);
		if
		:: c_n == 2 -> said_drained = false
		:: else
		fi
	:: c_what == OVER -> assert(done[c_n] && !over[c_n]); over[c_n] = true
	:: c_what == DONE -> assert(awaited & (1 << c_src)); answered(c_src)
	:: c_what == READY -> ready = (state[0] == JOINING)
	:: c_what == FAILED -> failed = (state[0] == JOINING)
	:: c_what == DRAINED -> drained = (state[0] == DRAINING)
	:: c_what == END && c_n < 2 ->
		/* The joiner is lost. */
		if
#ifndef BROKEN_FAILED /* nobody says so */
		:: state[c_n] == JOINING && c_n == 0 -> failed = true
		:: state[c_n] == JOINING && c_n == 1 -> say(1, 0, FAILED, 0)
#endif
		:: else
		fi
	:: c_what == END && c_n == 2
	fi
}

inline hear_page(g_n, g_src, g_what, g_a, g_b, g_c)
{
	if
	:: g_what == MOVE ->
		assert(g_n < 2 || (alive && state[2] != GONE));
		assert(g_src < 2 || state[g_n] == ACTIVE || state[g_n] == DRAINING);
		has[g_n] = true;
		epoch[g_n] = g_a;
		tell(g_n, g_src, TAKEN, 0, 0, 0)
	:: g_what == TAKEN -> owed[g_n] = NONE
	:: g_what == HINT ->
		named(g_n, g_a, g_b);
		believe(g_n, g_a, g_b, g_c)
	:: g_what == ASK ->
		named(g_n, g_a, g_b);
		if
		:: has[g_n] && g_a == g_n -> asking[g_n] = false
		:: has[g_n] && g_a != g_n -> tell(g_n, g_a, REPLY, g_n, life[g_n], epoch[g_n])
		:: !has[g_n] -> tell(g_n, hint[g_n], ASK, g_a, g_b, 0)
		fi
	:: g_what == REPLY ->
		asking[g_n] = false;
		believe(g_n, g_a, g_b, g_c)
	:: g_what == LINKED -> told_of = told_of | (1 << g_src)
	:: g_what == FLUSH -> flushed[g_src * 3 + g_n] = g_a
	:: g_what == END -> linked[g_n] = false
	fi
}

inline ask(a_n)
{
	asking[a_n] = true;
	asked_at[a_n] = step[a_n];
	tell(a_n, hint[a_n], ASK, a_n, life[a_n], 0)
}

proctype node(byte n)
{
	mtype what, how;
	byte a, b, c, src, to;

end:
	do
	/* What comes. */
	:: atomic { nempty(CTL((n + 1) % 3, n)) ->
		src = (n + 1) % 3; CTL(src, n)?what, how; hear_control(n, src, what, how); what = 0; how = 0; src = 0 }
	:: atomic { nempty(CTL((n + 2) % 3, n)) ->
		src = (n + 2) % 3; CTL(src, n)?what, how; hear_control(n, src, what, how); what = 0; how = 0; src = 0 }
	:: atomic { nempty(PAGE((n + 1) % 3, n)) && HEARS(n, (n + 1) % 3) ->
		src = (n + 1) % 3; PAGE(src, n)?what, a, b, c; hear_page(n, src, what, a, b, c);
		what = 0; a = 0; b = 0; c = 0; src = 0 }
	:: atomic { nempty(PAGE((n + 2) % 3, n)) && HEARS(n, (n + 2) % 3) ->
		src = (n + 2) % 3; PAGE(src, n)?what, a, b, c; hear_page(n, src, what, a, b, c);
		what = 0; a = 0; b = 0; c = 0; src = 0 }

	/* What it does of itself. */
	:: atomic { moves > 0 && has[n] && owed[n] == NONE && TAKES_PART(n) ->
		if
		:: n != 0 && MAY_BEGIN(n, 0) -> to = 0
		:: n != 1 && MAY_BEGIN(n, 1) -> to = 1
		:: n != 2 && MAY_BEGIN(n, 2) -> to = 2
		fi;
		moves--;
		hand_on(n, to);
		to = 0
	   }
	:: atomic { n < 2 && hints > 0 ->
		hints--;
		if
		:: has[n] -> tell(n, OTHER(n), HINT, n, life[n], epoch[n])
		:: else -> tell(n, OTHER(n), HINT, hint[n], hint_life[n], epoch[n])
		fi
	   }
	:: atomic { asks > 0 && !has[n] && !asking[n] && TAKES_PART(n) -> asks--; ask(n) }

	/* What the step asks. */
	:: atomic { n < 2 && !done[n] && state[n] == GONE && linked[n] && !has[n] && hint[n] == 2 && !asking[n] -> ask(n) }
	:: atomic { (n < 2 || alive) && !done[n] && STEP_DONE(n) ->
		done[n] = true;
		if
		:: n < 2 && state[n] == GONE && linked[n] -> tell(n, 2, FLUSH, step[n], 0, 0)
		:: else
		fi;
		if
		:: n == 0 -> answered(0)
		:: else -> say(n, 0, DONE, 0)
		fi
	   }

	/* A host comes and goes. */
	:: atomic { n < 2 && alive && state[n] == JOINING && !linked[n] -> linked[n] = true; tell(n, 2, LINKED, 0, 0, 0) }
	:: atomic { n == 2 && alive && state[2] == JOINING && !said_ready && ALL_LINKED ->
		said_ready = true; say(2, 0, READY, 0) }
	:: atomic { n == 2 && alive && state[2] == JOINING && !said_ready -> /* it dies */
		do
		:: nempty(PAGE(0, 2)) -> PAGE(0, 2)?_, _, _, _
		:: nempty(PAGE(1, 2)) -> PAGE(1, 2)?_, _, _, _
		:: empty(PAGE(0, 2)) && empty(PAGE(1, 2)) -> break
		od;
		alive = false;
		state[2] = FREE;
		say(2, 0, END, 0);
		say(2, 1, END, 0)
	   }
	:: atomic { n == 2 && alive && state[2] == DRAINING && has[2] && owed[2] == NONE ->
		if
		:: to = 0
		:: to = 1
		fi;
		hand_on(2, to);
		to = 0
	   }
	:: atomic { n == 2 && alive && state[2] == DRAINING && done[2] && !said_drained && DRAIN_OVER && !has[2] &&
		    owed[2] == NONE && !asking[2] ->
		said_drained = true;
		say(2, 0, DRAINED, 0)
	   }
	:: atomic { n == 2 && alive && state[2] == GONE && MAY_LEAVE ->
		assert(!has[2]);
		do /* what comes too late for it */
		:: nempty(PAGE(0, 2)) -> PAGE(0, 2)?what, a, b, c; assert(what == FLUSH)
		:: nempty(PAGE(1, 2)) -> PAGE(1, 2)?what, a, b, c; assert(what == FLUSH)
		:: empty(PAGE(0, 2)) && empty(PAGE(1, 2)) -> break
		od;
		what = 0; a = 0; b = 0; c = 0;
		tell(2, 0, END, 0, 0, 0);
		tell(2, 1, END, 0, 0, 0);
		alive = false;
		state[2] = FREE
	   }
	od
}

init {
	atomic {
		has[0] = true;
		hint[1] = 0;
		run node(0);
		run node(1);
		run node(2)
	}
	/* Nothing moves any more. */
	timeout ->
	assert(over[0] && over[1] && done[0] && done[1] && step[0] == step[1] && state[0] == state[1]);
	assert(state[0] == FREE && hosts == 0 && !alive);
	assert(has[0] + has[1] == 1 && !has[2]);
	assert(!asking[0] && !asking[1] && owed[0] == NONE && owed[1] == NONE)
}
