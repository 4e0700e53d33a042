/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue that moves: core/queue_place.h and what the node's threads do around it (node/queues.c, node/io_queues.c).
 *
 * One queue of one device, and on each node a control thread and an io thread with a front half; a channel for each pair
 * of nodes, in order, of any delay. One driver adds chains, rings from any node as a driver with event index does, and
 * resets the device at any time; the registers on node 0 tell all nodes. The queue moves at any time to anywhere. All of
 * them may stop between any two steps. The rings are numbers in memory that all share: the page protocol is pages.pml's.
 *
 * Judged:
 *   - when nothing moves any more, every chain of the last generation has been served, and one node has the queue
 *   - two nodes never have it, and nobody touches rings whose reset the driver has seen the end of
 *   - no message comes that a node takes for a lie
 *   - each doorbell is sent on by newer news than it came with
 *
 *   MOVES=n, CHAINS=n (in a generation), RESETS=n
 *   BROKEN_*  a deliberate defect each, named at its place below
 */
#ifndef N
#define N 2
#endif
#ifndef MOVES
#define MOVES 2
#endif
#ifndef CHAINS
#define CHAINS 2
#endif
#ifndef RESETS
#define RESETS 1
#endif
#define LINK_BOUND 8

mtype = { AWAY, ARRIVING, HERE, LEAVING };
mtype = { PUBLISHED, STOPPED, QUEUE, PLACE, BELL };

/* type, generation, epoch (BELL: how new the word was), popped (PUBLISHED: running) */
chan net[N * N] = [LINK_BOUND] of { mtype, byte, byte, byte };
#define LINK(from, to) net[(from) * N + (to)]

inline send(src, dst, what, s_gen, s_epoch, s_at)
{
	assert(nfull(LINK(src, dst)));
	LINK(src, dst)!what, s_gen, s_epoch, s_at
}

/* The words of each node, and its lock. */
mtype state[N] = AWAY;
byte node[N], epoch[N], gen[N];
bool lock[N];
byte stopped; /* node 0: who has, of its generation */
#define ALL ((1 << N) - 1)

/* What is left for an io thread: a doorbell (how new its word was; 0: none), a publication, a queue. */
byte rung[N];
bool posted[N], post_running[N];
byte post_gen[N];
bool mail[N];
byte mail_gen[N], mail_at[N];

/* Front halves. */
byte front_gen[N]; /* 0: it has heard of none */
bool running[N], started[N], has[N], look[N], armed[N], leaving[N], at_disk[N], owes[N];
byte popped[N];
byte orphan[N]; /* the generation of a chain that the disk has still; 0: none */

/* The driver's: what is in the rings, and of which generation they are. */
byte avail, event, served, generation = 1, clean = 1;
bool stopping;
byte left = MOVES;

/* How new a word is; a doorbell of a vCPU of the node's own is older than all. */
#define OWN 1
#define NEWS(n) (2 + gen[n] * 16 + epoch[n])

/* [lock] */
inline begin(n, b_gen)
{
	if
	:: b_gen > gen[n] ->
		gen[n] = b_gen;
		epoch[n] = 0;
		node[n] = 0;
		state[n] = (n == 0 -> HERE : AWAY);
		if
		:: n == 0 -> stopped = 0
		:: else
		fi
	:: else -> assert(b_gen == gen[n])
	fi
}

#ifdef BROKEN_ONE /* node 0 waits for nobody but itself */
#define ENOUGH stopped && (stopped & 1)
#else
#define ENOUGH ALL
#endif

/* [lock of node 0] */
inline on_stopped(src, s_gen)
{
	assert(s_gen <= gen[0]);
	if
	:: s_gen == gen[0] -> stopped = stopped | (1 << (src))
	:: else
	fi;
	if
	:: s_gen == gen[0] && stopped == ENOUGH && stopping && s_gen == generation -> stopping = false
	:: else
	fi
}

/* Who has a doorbell on node n: the word is read, then acted on. */
inline doorbell(n, came, what, to, news)
{
	d_step { what = state[n]; to = node[n]; news = NEWS(n) }
	atomic {
		if
#ifdef BROKEN_DROP /* one that comes for a queue that has gone is dropped */
		:: what == AWAY && came != OWN
		:: what == AWAY && came == OWN ->
#else
		:: what == AWAY ->
#endif
			assert(news > came);
			send(n, to, BELL, 0, news, 0)
		:: what != AWAY -> rung[n] = (came > rung[n] -> came : rung[n])
		fi;
		what = 0;
		to = 0;
		news = 0
	}
}

/* ---- control threads ---- */

#define NEXT(n, i) (((n) + (i)) % N)

/* A word of another node's, judged in the lock. */
inline judge(n)
{
	if
	:: what == PUBLISHED -> begin(n, m_gen)
	:: what == STOPPED -> on_stopped(src, m_gen)
	:: what == QUEUE ->
		assert(m_gen <= gen[n]);
		if
		:: m_gen == gen[n] ->
			assert(state[n] == AWAY && node[n] == src && m_epoch == epoch[n] + 1);
			state[n] = ARRIVING;
			node[n] = n;
			epoch[n] = m_epoch;
			send(n, NEXT(n, 1), PLACE, m_gen, m_epoch, 0);
			if
			:: N == 3 -> send(n, NEXT(n, 2), PLACE, m_gen, m_epoch, 0)
			:: else
			fi
		:: else -> what = 0
		fi
	:: what == PLACE ->
		assert(m_gen <= gen[n]);
		if
		:: m_gen < gen[n] || m_epoch < epoch[n]
		:: else ->
			assert(state[n] == AWAY && (m_epoch > epoch[n] || src == node[n]));
			node[n] = src;
			epoch[n] = m_epoch
		fi
	:: what == BELL
	fi
}

#define MAY_HEAR(from, n) (nempty(LINK(from, n)) && (!lock[n] || LINK(from, n)?[BELL, _, _, _]))

proctype control(byte n)
{
	mtype what, word;
	byte src, m_gen, m_epoch, m_at, to, news;

end:
	do
	:: atomic {
		if
		:: MAY_HEAR(NEXT(n, 1), n) -> src = NEXT(n, 1)
#if N == 3
		:: MAY_HEAR(NEXT(n, 2), n) -> src = NEXT(n, 2)
#endif
		fi;
		LINK(src, n)?what, m_gen, m_epoch, m_at;
		judge(n)
	   };
	   if
	   :: what == PUBLISHED -> d_step {
			posted[n] = true;
			post_gen[n] = m_gen;
			post_running[n] = m_at
		}
	   :: what == QUEUE -> d_step {
			mail[n] = true;
			mail_gen[n] = m_gen;
			mail_at[n] = m_at
		}
	   :: what == BELL -> doorbell(n, m_epoch, word, to, news)
	   :: else
	   fi;
	   d_step { what = 0; m_gen = 0; m_epoch = 0; m_at = 0; src = 0 }
	od
}

/* ---- io threads ---- */

/* Nothing of earlier generations is under way. [lock of node 0], if it is that */
inline say_stopped(n)
{
	owes[n] = false;
	if
	:: n == 0 -> on_stopped(0, front_gen[0])
	:: else -> send(n, 0, STOPPED, front_gen[n], 0, 0)
	fi
}

inline queue_begins(n, at)
{
	assert(front_gen[n] >= clean);
	assert(!has[NEXT(n, 1)] || front_gen[NEXT(n, 1)] != front_gen[n]);
	assert(!has[NEXT(n, 2)] || front_gen[NEXT(n, 2)] != front_gen[n] || N == 2);
	has[n] = true;
	popped[n] = at;
	armed[n] = false;
#ifdef BROKEN_LOOK /* who takes a queue waits for a doorbell */
	look[n] = (n == 0)
#else
	look[n] = true
#endif
}

inline take_publication(n)
{
	posted[n] = false;
	if
	:: post_gen[n] != front_gen[n] ->
		if
		:: at_disk[n] -> orphan[n] = front_gen[n]
		:: else
		fi;
		front_gen[n] = post_gen[n];
		at_disk[n] = false;
		started[n] = false;
		has[n] = false;
		look[n] = false;
		armed[n] = false;
		leaving[n] = false;
		popped[n] = 0;
		owes[n] = true;
		if
#ifdef BROKEN_STOPPED /* STOPPED is said while the disk has chains */
		:: true -> say_stopped(n)
#else
		:: !orphan[n] -> say_stopped(n)
		:: orphan[n]
#endif
		fi
	:: else
	fi;
	running[n] = post_running[n];
	if
	:: running[n] && !started[n] ->
		started[n] = true;
		has[n] = false;
		if
		:: n == 0 -> queue_begins(0, 0)
		:: else
		fi
	:: else -> look[n] = has[n] && running[n]
	fi
}

/* A doorbell that was left, for a queue that is here, or has been given since. */
inline take_bell(n)
{
	if
#ifndef BROKEN_LEFT /* the latter is dropped */
	:: state[n] == AWAY ->
		assert(NEWS(n) > rung[n]);
		send(n, node[n], BELL, 0, NEWS(n), 0)
	:: state[n] != AWAY -> look[n] = has[n]
#else
	:: look[n] = has[n]
#endif
	fi;
	rung[n] = 0
}

#ifdef BROKEN_START /* QUEUE is taken before the front half has started */
#define STARTED(n) true
#else
#define STARTED(n) started[n]
#endif

/* [lock] */
inline take_queue(n)
{
	mail[n] = false;
	if
	:: mail_gen[n] == front_gen[n] ->
		queue_begins(n, mail_at[n]);
		if
		:: gen[n] == front_gen[n] ->
			assert(state[n] == ARRIVING);
			state[n] = HERE
		:: else
		fi
	:: else
	fi;
	mail_gen[n] = 0;
	mail_at[n] = 0
}

/* A chain that is begun, or the driver's word that it is to ring; and another look. */
inline work(n)
{
	assert(front_gen[n] >= clean);
	if
	:: avail > popped[n] ->
		at_disk[n] = true;
		armed[n] = false;
		popped[n]++
	:: avail == popped[n] && !armed[n] ->
		event = popped[n];
		armed[n] = true
	:: avail == popped[n] && armed[n] -> look[n] = false
	fi
}

#ifdef BROKEN_EARLY /* a queue leaves node 0 before all have stopped */
#define MAY_LEAVE(n) true
#else
#define MAY_LEAVE(n) (n != 0 || stopped == ALL)
#endif
#ifdef BROKEN_UNDER_WAY /* a queue is given while the disk has some of its chains */
#define MAY_GIVE(n) true
#else
#define MAY_GIVE(n) !at_disk[n]
#endif

#define WORKS(n) (has[n] && running[n] && !leaving[n])

proctype io(byte n)
{
	byte to;

end:
	do
	:: atomic { posted[n] && (n > 0 || !lock[0] || post_gen[0] == front_gen[0]) -> take_publication(n) }
	:: atomic { rung[n] -> take_bell(n) }
	:: atomic { mail[n] && !lock[n] && (mail_gen[n] < front_gen[n] ||
					    (mail_gen[n] == front_gen[n] && STARTED(n))) -> take_queue(n) }
	:: atomic { WORKS(n) && look[n] && !at_disk[n] -> work(n) }
	:: atomic { at_disk[n] && has[n] ->
		assert(front_gen[n] >= clean);
		at_disk[n] = false;
		served++
	   }
	:: atomic { orphan[n] && (n > 0 || !lock[0]) ->
		assert(orphan[n] >= clean);
		orphan[n] = 0;
		if
		:: owes[n] -> say_stopped(n)
		:: else
		fi
	   }
	:: atomic { WORKS(n) && left && !lock[n] && gen[n] == front_gen[n] && state[n] == HERE && MAY_LEAVE(n) ->
		if
		:: to = NEXT(n, 1)
#if N == 3
		:: to = NEXT(n, 2)
#endif
		fi;
		left--;
		node[n] = to;
		to = 0;
		state[n] = LEAVING;
		leaving[n] = true
	   }
	:: atomic { leaving[n] && running[n] && !lock[n] && MAY_GIVE(n) ->
		leaving[n] = false;
		has[n] = false;
		if
		:: gen[n] == front_gen[n] -> lock[n] = true
		:: else -> goto end /* all of it is forgotten */
		fi;
#ifdef BROKEN_WORD /* AWAY is written before QUEUE is in the channel */
		state[n] = AWAY;
		epoch[n]++
#else
		send(n, node[n], QUEUE, gen[n], epoch[n] + 1, popped[n])
#endif
	   };
	   atomic {
#ifdef BROKEN_WORD
		send(n, node[n], QUEUE, gen[n], epoch[n], popped[n]);
#else
		state[n] = AWAY;
		epoch[n]++;
#endif
		look[n] = false;
		armed[n] = false;
		popped[n] = 0;
		lock[n] = false
	   }
	od
}

/* ---- the driver, and the registers ---- */

inline publish(is_running)
{
	atomic { !lock[0] ->
		lock[0] = true;
		begin(0, generation);
		posted[0] = true;
		post_gen[0] = generation;
		post_running[0] = is_running
	}
	atomic {
		send(0, 1, PUBLISHED, generation, 0, is_running);
		if
		:: N == 3 -> send(0, N - 1, PUBLISHED, generation, 0, is_running)
		:: else
		fi;
		lock[0] = false
	}
}

proctype driver()
{
	mtype what;
	byte at, to, news, chains = CHAINS, resets = RESETS;

	publish(true);
	do
	:: chains ->
		atomic {
			chains--;
			avail++
		}
		atomic {
			if
			:: event == avail - 1 ->
				if
				:: at = 0
				:: at = 1
#if N == 3
				:: at = 2
#endif
				fi
			:: else -> at = N
			fi
		}
		if
		:: at < N -> doorbell(at, OWN, what, to, news)
		:: else
		fi;
		at = 0
	:: resets ->
		resets--;
		atomic {
			generation++;
			stopping = true
		}
		publish(false);
		/* Its rings are new memory then. */
		atomic { !stopping ->
			clean = generation;
			avail = 0;
			event = 0;
			served = 0;
			chains = CHAINS
		}
		publish(true)
	:: !chains && !resets -> break
	od
}

init {
	byte n;

	atomic {
		state[0] = HERE;
		for (n : 0 .. N - 1) {
			run control(n);
			run io(n)
		}
		run driver()
	}
	/* Nothing moves any more. */
	timeout ->
	assert(!stopping && served == avail && avail == CHAINS);
	assert(has[0] + has[1] + (N == 3 -> has[N - 1] : 0) == 1)
}
