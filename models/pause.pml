/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pauses between the vCPUs of a node: engine/soft/cache/pause.c. That a vCPU which is asked comes to its safe point is
 * kick.pml's part; here is what it does there, and what those see who wait for it.
 *
 * A vCPU that runs, works between its safe points, waits for a turn of its own and leaves; and two others, which pause
 * it in turns. Who waits sleeps, without a limit here: a wake-up that is lost leaves it there for ever.
 *
 * Judged: while one holds it, it does not work. (spin looks for states that nothing leads out of besides.)
 *
 * Defects, each of which must be found:
 *   BROKEN_PARK   who has been let go does not look whether it is held again: `parked`, which it takes back only then,
 *                 was seen by the next one to pause. As it was once
 *   BROKEN_BEGIN  the vCPU looks at `pause` first, then says that it runs
 *   BROKEN_QUEUE  the vCPU does not say that it stands still while it waits for its turn
 *   BROKEN_SLEEP  whose turn it is looks once more, then says that it sleeps
 *   BROKEN_TELL   the vCPU looks who sleeps, then says that it stands still
 *   BROKEN_TURN   the end of a turn looks who is in the queue, then gives the turn on
 */
#define RUNS   2
#define PAUSES 2

bool in_run, pause, parked, queued; /* the vCPU's */
bool working, held;
byte turn, tickets;
byte queue;	    /* pause_queue */
bool sleeper;	    /* pause_sleeper */
bool woken[4];	    /* a thread's sleep on pause_turn is over */

inline tell_sleeper() {
	if
	:: sleeper -> sleeper = false
	:: else
	fi
}

inline park() {
#ifdef BROKEN_TELL
	tell_sleeper();
	parked = true;
#else
	parked = true;
	tell_sleeper();
#endif
	!pause;
	parked = false;
	tell_sleeper()
}

inline safe_point() {
#ifdef BROKEN_PARK
	if
	:: pause -> park()
	:: else
	fi
#else
	do
	:: pause -> park()
	:: else -> break
	od
#endif
}

/* Whose turn it is, until `so`. A futex looks and sleeps in one step. */
inline wait_until(so) {
	do
#ifdef BROKEN_SLEEP
	:: !(so) -> sleeper = true; !sleeper
#else
	:: !(so) ->
		sleeper = true;
		if
		:: (so) -> sleeper = false
		:: else -> !sleeper
		fi
#endif
	:: else -> break
	od
}

inline sleep_on_turn(seen) {
	atomic {
		if
		:: turn == seen -> woken[_pid] = false
		:: else -> woken[_pid] = true
		fi
	}
	woken[_pid]
}

inline wait_for_turn() {
	do
	:: seen = turn;
		if
		:: seen == ticket -> break
		:: else -> queue++; sleep_on_turn(seen); queue--
		fi
	od
}

inline end_turn() {
#ifdef BROKEN_TURN
	byte sleeping = queue;
	turn++;
	if
	:: sleeping > 0
#else
	turn++;
	if
	:: queue > 0
#endif
		-> atomic { woken[0] = true; woken[1] = true; woken[2] = true }
	:: else
	fi
}

active proctype vcpu()
{
	byte left = RUNS, ticket, seen;
	do
	:: left > 0 ->
#ifdef BROKEN_BEGIN
		safe_point();
		in_run = true;
#else
		in_run = true;
		safe_point();
#endif
		working = true;
		working = false;
		safe_point();
		if
		:: left == 1 -> /* a turn of its own */
			atomic { ticket = tickets; tickets++ };
#ifndef BROKEN_QUEUE
			queued = true;
			tell_sleeper();
#endif
			wait_for_turn();
			queued = false;
			working = true;
			working = false;
			end_turn()
		:: else
		fi;
		working = true;
		working = false;
		in_run = false;
		tell_sleeper();
		left--
	:: left == 0 -> break
	od
}

active [2] proctype pauser()
{
	byte ticket, seen, left = PAUSES;
	do
	:: left > 0 ->
		atomic { ticket = tickets; tickets++ };
		wait_for_turn();
		wait_until(!parked); /* let_others_run() */
		pause = true;
		wait_until(!in_run || parked || queued);
		held = true;
		held = false;
		pause = false;
		end_turn();
		left--
	:: left == 0 -> break
	od
}

active proctype judge()
{
end:	atomic { held && working -> assert(false) }
}
