/* Waiting clients and the bounded wake (SYNC L4, L7): nobody sleeps on an answered request or on a closed lane.
 *
 * The loop and a worker publish answers of one lane and wake at most one waiter per call; a waiter that a wake reached
 * wakes all others that sleep. A lost wake-up is an invalid end state: the model has no timers. `passes` counts how
 * often one waiter woke the others: more often than there were bumps means that waiters wake each other for ever.
 *
 *   waiter   w1 sleepers += 1, fence              WaitUntil (producer/client_lane.h)
 *            w2 read the futex word
 *            w3 look at the result word
 *            w4 look at the lane's state
 *            w5 futex wait
 *            w6 sleepers -= 1
 *            w7 woken, others sleep, and the word has moved: wake them   WakeOtherSleepers (shm/sleep_wake.h)
 *   answerer a1 store the result words            Lane::Publish (engine/lanes/lane.cc), the loop's without the mutex
 *            a2 fence, look at sleepers           LookForSleepers (shm/sleep_wake.h)
 *            a3 lock, bump the futex word, unlock Lane::Wake, BumpFutexWord
 *            a4 wake one                          Lane::Wake, WakeFirstSleepers, outside the mutex
 *   close    c1 lock, closed, bump, unlock        Lane::Close
 *            c2 wake one                          also when nobody seems to sleep
 *
 * The kernel wakes the waiters of a word in the order in which they fell asleep, if their threads have the same
 * priority; it promises no order. -DANY_ORDER wakes any of them: then the one wake may reach a waiter that fell asleep
 * after the bump, finds the word unmoved and ends the chain before it began. -DBITSET needs no order: waiters wait, and
 * are woken, under a bit of the value that they sleep on (FUTEX_WAIT_BITSET).
 */
#ifndef WAITERS
#define WAITERS 3
#endif
#define FUTEX 0
#define SLEEPERS 1
#define CLOSED 2
#define RESULT 3
#define WORDS (RESULT + WAITERS)
#define LOOP 0
#define WORKER 1
#define THREADS 2
#include "tso.pml"

bool locked;
byte bumps;
chan asleep = [WAITERS] of { byte, byte };  /* the kernel's queue: the value slept on, the waiter */
bool sleeping[WAITERS];

inline WakeOne(value) {
  if
#ifdef BITSET
  :: asleep??[eval(value), _] -> asleep??eval(value), who; sleeping[who] = false
  :: !asleep??[eval(value), _] -> skip
#else
#ifdef ANY_ORDER
  :: sleeping[0] -> asleep??_, 0; sleeping[0] = false
  :: sleeping[1] -> asleep??_, 1; sleeping[1] = false
  :: WAITERS == 3 && sleeping[WAITERS - 1] -> asleep??_, 2; sleeping[WAITERS - 1] = false
#else
  :: nempty(asleep) -> asleep?_, who; sleeping[who] = false
#endif
  :: empty(asleep) -> skip
#endif
  fi;
  who = 0
}

inline WakeAll(value) {
  do
#ifdef BITSET
  :: asleep??[eval(value), _] -> asleep??eval(value), who; sleeping[who] = false
  :: !asleep??[eval(value), _] -> break
#else
  :: nempty(asleep) -> asleep?_, who; sleeping[who] = false
  :: empty(asleep) -> break
#endif
  od;
  who = 0
}

proctype Waiter(byte me) {
  byte word, passes, who;
  bool ready, closed, woken, others;
  do
  :: mem[SLEEPERS]++;                                                      /* w1: a locked instruction */
#ifdef MUT_WORD_AFTER_RESULT
     ready = mem[RESULT + me];
     word = mem[FUTEX];
#else
     word = mem[FUTEX];                                                    /* w2 */
     ready = mem[RESULT + me];                                             /* w3 */
#endif
#ifndef MUT_NO_LOOK_AT_STATE
     closed = mem[CLOSED];                                                 /* w4 */
#endif
#ifdef MUT_LOOK_BEFORE_SLEEP
     others = mem[SLEEPERS] > 1;
#endif
     if
     :: !ready && !closed ->
        atomic {                                                           /* w5 */
          if
          :: mem[FUTEX] == word -> asleep!word, me; sleeping[me] = true
          :: else -> goto awake
          fi
        };
        if
        :: atomic { !sleeping[me] -> woken = true }
#if defined(TIMEOUT) || defined(DEADLINE)
        :: atomic { me == 1 && sleeping[me] -> asleep??_, eval(me); sleeping[me] = false; ready = true }
#endif
        fi
     :: else
     fi;
awake:
     mem[SLEEPERS]--;                                                      /* w6 */
#ifdef MUT_FINISHED_PASSES_NOTHING
     woken = woken && !mem[RESULT + me];
#endif
#ifndef MUT_NO_CHAIN
     if
     :: woken ->                                                           /* w7 */
#ifndef MUT_LOOK_BEFORE_SLEEP
        others = mem[SLEEPERS] != 0;
#endif
        if
#ifdef MUT_PASSES_UNMOVED
        :: others ->
#elif defined(BITSET)
        :: others ->
#else
        :: others && mem[FUTEX] != word ->
#endif
           atomic { passes++; WakeAll(word); assert(passes <= bumps) }
        :: else
        fi
     :: else
     fi;
#endif
     if
     :: atomic { ready || closed || mem[RESULT + me] -> break }
     :: else
     fi;
     atomic { word = 0; woken = false; others = false }
  od
}

inline Bump(me) {
  word = LOAD(me, FUTEX);
  bumps++;
  Store(me, FUTEX, word + 1)
}

inline Wake(me) {
#ifndef MUT_NO_ENGINE_FENCE
  Fence(me);                                                               /* a2 */
#endif
  if
  :: LOAD(me, SLEEPERS) != 0 ->
#ifdef MUT_BUMP_UNLOCKED
     Bump(me);
#else
     atomic { !locked -> locked = true };                                  /* a3 */
     Bump(me);
     atomic { DRAINED(me) -> locked = false };
#endif
     atomic { DRAINED(me) -> WakeOne(word) }                               /* a4 */
  :: else
  fi
}

proctype Loop() {
  byte word, who;
#ifdef MUT_WAKE_BEFORE_PUBLISH
  Wake(LOOP);
  Store(LOOP, RESULT, 1);
#else
#ifndef CLOSE_ONLY
  Store(LOOP, RESULT, 1);                                                  /* a1 */
#ifndef CLOSE
  Store(LOOP, RESULT + WAITERS - 1, 1);
#endif
  Wake(LOOP);
#endif
#endif
#ifdef CLOSE
#ifdef MUT_CLOSE_UNLOCKED
  Store(LOOP, CLOSED, 1);
  Bump(LOOP);
#else
  atomic { !locked -> locked = true };                                     /* c1 */
  Store(LOOP, CLOSED, 1);
#ifdef MUT_CLOSE_BUMPS_NOTHING
  word = LOAD(LOOP, FUTEX);
#else
  Bump(LOOP);
#endif
  atomic { DRAINED(LOOP) -> locked = false };
#endif
#ifndef MUT_CLOSE_WAKES_NOBODY
  atomic { DRAINED(LOOP) -> WakeOne(word) }                                /* c2 */
#endif
#endif
}

proctype Worker() {
  byte word, who;
#ifndef DEADLINE
  Store(WORKER, RESULT + 1, 1);                                            /* a1 */
  Wake(WORKER)
#endif
}

init {
  atomic {
    run Memory(LOOP);
    run Memory(WORKER);
    run Loop();
    run Worker();
    run Waiter(0);
    run Waiter(1);
    if
    :: WAITERS == 3 -> run Waiter(2)
    :: else
    fi
  }
}
