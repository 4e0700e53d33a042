/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kicks of a vCPU: node/vcpu.c (who posts, and the timer), engine/kick.h, engine/soft/run/vcpu.c.
 *
 * A vCPU's thread with its two signal handlers, a timer, two threads that post interrupts, and another vCPU that wants it
 * to stand still. Signals are pending once, and taken between any two steps of the thread. The guest never leaves by
 * itself once it loops, and a page that is waited for may never come.
 *
 * Judged: never is there something to take, while the thread is in the guest or waits for a page, nobody is in the middle
 * of a kick, and no signal is pending. (models/run also has spin look for states that nothing leads out of.)
 *
 * Defects, each of which must be found:
 *   BROKEN_NEST   the kick's handler may run inside the timer's
 *   BROKEN_EARLY  with that, the kick blocked once the timer's handler kicks, and a kick that has been noted already
 *                 not being signalled: as it was once
 *   BROKEN_ORDER  the signal first, then `stop`
 *   BROKEN_TAKE   the thread takes `kicked` first, then clears `stop`
 *   BROKEN_LOOK   C's accesses do not look at `stop`
 *   BROKEN_ANNOUNCE   the thread looks whether something was posted, then announces that it enters the guest
 */
#define POSTS 1

mtype = { OUTSIDE, TURN, ACCESS, GUEST };

mtype at = OUTSIDE;	/* the thread: in C, in C's access (signals break it off), in the guest */
bool inside;		/* it has looked at stop on its way in */
bool announced, in_run, parked;
bool work, timer_work, kicked, stop, pause;
bool pending_kick, pending_timer, blocked; /* signals; the kick's is blocked by the timer's handler itself */
byte handlers;		/* that are running, one inside the other */
bool in_kick, in_timer;
byte kicking;		/* threads in the middle of a kick or a pause request */

/* The main line runs while no handler does. Each step is one of the thread's. */
#define STEP(what)		atomic { handlers == 0 -> what }
#define WHEN(condition, what)	atomic { handlers == 0 && (condition) -> what }

inline signal_thread() {
	if
	:: in_run -> pending_kick = true
	:: else
	fi
}

inline kick() {
#ifdef BROKEN_EARLY
	atomic {
		if
		:: kicked -> goto kicked_already
		:: else -> kicked = true
		fi
	}
#else
	kicked = true;
#endif
#ifdef BROKEN_ORDER
	signal_thread();
	stop = true;
#else
	stop = true;
	signal_thread();
#endif
#ifdef BROKEN_EARLY
kicked_already:
	skip
#endif
}

active proctype thread()
{
	bool was;
outside:
	STEP(at = OUTSIDE; work = false; timer_work = false);
#ifdef BROKEN_ANNOUNCE
	STEP(if :: work -> goto outside :: else fi);
	STEP(announced = true);
#else
	STEP(announced = true);
	STEP(if :: work -> announced = false; goto outside :: else fi);
#endif
	STEP(in_run = true);
turn:
	STEP(at = TURN);
	STEP(if :: stop -> goto obey :: else fi);
middle:	/* C, on its way to an access, to the guest, or out */
	STEP(
		if
		:: goto access
		:: goto guest
		:: in_run = false; announced = false; goto outside
		fi
	);
obey:
#ifdef BROKEN_TAKE
	STEP(was = kicked; kicked = false);
	STEP(stop = false);
#else
	STEP(stop = false);
#endif
	STEP(
		if
		:: pause -> parked = true
		:: else -> goto awake
		fi
	);
	WHEN(!pause, parked = false);
awake:
#ifndef BROKEN_TAKE
	STEP(was = kicked; kicked = false);
#endif
	STEP(
		if
		:: was -> in_run = false; announced = false; goto outside
		:: else
		fi
	);
	goto middle;
access:	/* a look at stop, inside what a signal breaks off */
	STEP(at = ACCESS);
#ifndef BROKEN_LOOK
	STEP(
		if
		:: at != ACCESS || stop -> goto turn
		:: else
		fi
	);
#endif
	STEP(inside = true);
	do
	:: WHEN(at != ACCESS, inside = false; goto turn) /* broken off */
	:: WHEN(at == ACCESS, at = TURN; inside = false; goto middle) /* the page has come: if ever */
	od;
guest:	/* the stub looks at stop */
	STEP(at = GUEST);
	STEP(
		if
		:: at != GUEST || stop -> goto turn
		:: else
		fi
	);
	STEP(inside = true);
end:	WHEN(at != GUEST, inside = false);
	goto turn
}

active proctype kick_handler()
{
	bool nested;
end:	do
	:: atomic {
#if defined(BROKEN_NEST) || defined(BROKEN_EARLY)
		pending_kick && !in_kick && !blocked ->
#else
		pending_kick && !in_kick && !in_timer ->
#endif
		pending_kick = false; in_kick = true; nested = handlers > 0; handlers++
	   }
	   atomic {
		if
		:: !nested && stop && (at == GUEST || at == ACCESS) -> at = TURN
		:: else
		fi;
	   }
	   atomic { in_kick = false; handlers--; nested = false }
	od
}

active proctype timer_handler()
{
end:	do
	:: atomic { pending_timer && !in_timer && handlers == 0 -> pending_timer = false; in_timer = true; handlers++ }
	   timer_work = true;
#ifdef BROKEN_EARLY
	   blocked = true;
#endif
	   kick();
	   atomic { in_timer = false; blocked = false; handlers-- }
	od
}

active proctype timer()
{
	byte left = POSTS;
	do
	:: left > 0 -> pending_timer = true; left--
	:: left == 0 -> break
	od
}

active [2] proctype poster()
{
	byte left = POSTS;
	do
	:: left > 0 ->
		atomic { kicking++; work = true }
		if
		:: announced -> kick()
		:: else
		fi;
		atomic { kicking--; left-- }
	:: left == 0 -> break
	od
}

active proctype pauser()
{
	atomic { kicking++; pause = true }
	stop = true;
	signal_thread();
	kicking--;
	!in_run || parked;
	pause = false
}

#define due	((announced && (work || timer_work)) || (pause && in_run && !parked))
active proctype judge()
{
end:	atomic {
		inside && (at == GUEST || at == ACCESS) && handlers == 0 && kicking == 0 && !pending_kick && due ->
		assert(false)
	}
}
