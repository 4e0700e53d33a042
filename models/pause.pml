/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pauses between the vCPUs of a node: engine/soft/cache/pause.c. That a vCPU which is asked comes to its safe point is
 * kick.pml's part; here is what it does there, and what those see who wait for it.
 *
 * A vCPU that runs, works between its safe points and leaves; and two others, which pause it in turns.
 *
 * Judged: while one holds it, it does not work. (spin looks for states that nothing leads out of besides.)
 *
 * Defects, each of which must be found:
 *   BROKEN_PARK   who has been let go does not look whether it is held again: `parked`, which it takes back only then,
 *                 was seen by the next one to pause. As it was once
 *   BROKEN_BEGIN  the vCPU looks at `pause` first, then says that it runs
 */
#define RUNS   2
#define PAUSES 2

bool in_run, pause, parked; /* the vCPU's */
bool working, held;
byte turn;

inline safe_point() {
#ifdef BROKEN_PARK
	if
	:: pause -> parked = true; !pause; parked = false
	:: else
	fi
#else
	do
	:: pause -> parked = true; !pause; parked = false
	:: else -> break
	od
#endif
}

active proctype vcpu()
{
	byte left = RUNS;
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
		working = true;
		working = false;
		in_run = false;
		left--
	:: left == 0 -> break
	od
}

active [2] proctype pauser()
{
	byte ticket = _pid - 1, left = PAUSES;
	do
	:: left > 0 ->
		turn == ticket;
		!parked; /* let_others_run() */
		pause = true;
		!in_run || parked;
		held = true;
		held = false;
		pause = false;
		turn++;
		ticket = ticket + 2;
		left--
	:: left == 0 -> break
	od
}

active proctype judge()
{
end:	atomic { held && working -> assert(false) }
}
