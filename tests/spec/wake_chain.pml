/* Waiting clients and the bounded wake (SYNC L4, L7): nobody sleeps on an answered request or on a closed lane.
 *
 * The loop and a worker publish answers of one lane and wake at most one waiter per call; a waiter that a wake reached
 * wakes all others that sleep. A lost wake-up is an invalid end state: the model has no timers. `passes` counts how
 * often one waiter woke the others: more than two for each value of the word means that waiters wake each other for
 * ever.
 *
 *   waiter   w1 sleepers += 1, fence              WaitUntil (producer/client_lane.h)
 *            w2 read the futex word
 *            w3 look at the result word
 *            w4 look at the lane's state
 *            w5 futex wait
 *            w6 sleepers -= 1
 *            w7 woken, others sleep, and the word moved or this is the first time for its value:
 *               wake those under the same bit      WakeOtherSleepers (shm/sleep_wake.h)
 *   answerer a1 store the result words            Lane::Publish (engine/lanes/lane.cc), the loop's without the mutex
 *            a2 fence, look at sleepers           LookForSleepers (shm/sleep_wake.h)
 *            a3 bump the futex word in one step   Lane::Wake, BumpFutexWord, without the mutex
 *            a4 wake one                          Lane::Wake, WakeFirstSleepers
 *   close    c1 closed, bump                      Lane::Close
 *            c2 wake one                          also when nobody seems to sleep
 *
 * The kernel may wake any waiter that waits under the bit of the wake, in whatever order (FUTEX_WAIT_BITSET): of the
 * value that it sleeps on; the engine wakes the bit of the value that it replaced. Values that are BITS apart share a
 * bit, 32 in the code: fewer are harder, since a late wake reaches waiters on newer values sooner. With one bit all
 * waiters are alike.
 */
#ifndef WAITERS
#define WAITERS 3
#endif
#ifndef BITS
#define BITS 1
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

byte bumps;
bool sleeping[WAITERS];
byte slept[WAITERS]; /* on this value */

#define BIT(value) ((value) % BITS)
#define REACHES(value, w) (sleeping[w] && BIT(slept[w]) == BIT(value))

inline WakeUp(w) { sleeping[w] = false; slept[w] = 0 }

inline WakeOne(value) { /* any of them */
  if
  :: REACHES(value, 0) -> WakeUp(0)
  :: REACHES(value, 1) -> WakeUp(1)
  :: WAITERS == 3 && REACHES(value, WAITERS - 1) -> WakeUp(WAITERS - 1)
  :: else -> skip
  fi
}

inline WakeAll(value) {
  do
  :: REACHES(value, 0) -> WakeUp(0)
  :: REACHES(value, 1) -> WakeUp(1)
  :: WAITERS == 3 && REACHES(value, WAITERS - 1) -> WakeUp(WAITERS - 1)
  :: else -> break
  od
}

proctype Waiter(byte me) {
  byte word, passes;
  byte passed; /* for this value + 1 */
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
          :: mem[FUTEX] == word -> slept[me] = word; sleeping[me] = true
          :: else -> goto awake
          fi
        };
        if
        :: atomic { !sleeping[me] -> woken = true }
#if defined(TIMEOUT) || defined(DEADLINE)
        :: atomic { me == 1 && sleeping[me] -> WakeUp(me); ready = true }
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
#ifdef MUT_PASSES_EVERY_TIME
        :: others ->
#elif defined(MUT_PASSES_IF_MOVED)
        :: others && mem[FUTEX] != word ->
#elif defined(MUT_PASSES_ONCE)
        :: others && passed != word + 1 ->
#else
        :: others && (passed != word + 1 || mem[FUTEX] != word) ->
#endif
           atomic {
             passed = word + 1;
             passes++;
#ifdef MUT_PASSES_TO_NEW_VALUE
             WakeAll(mem[FUTEX]);
#else
             WakeAll(word);
#endif
             assert(passes <= 2 * bumps + 1)
           }
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
#ifdef MUT_BUMP_IN_TWO_STEPS
  word = LOAD(me, FUTEX);
  bumps++;
  Store(me, FUTEX, word + 1)
#else
  atomic {                                                                 /* a3: a locked instruction */
    DRAINED(me) ->
    word = mem[FUTEX];
    mem[FUTEX]++;
    bumps++
  }
#endif
}

inline Wake(me) {
#ifndef MUT_NO_ENGINE_FENCE
  Fence(me);                                                               /* a2 */
#endif
  if
  :: LOAD(me, SLEEPERS) != 0 ->
     Bump(me);
#ifdef MUT_WAKES_NEW_VALUE
     atomic { DRAINED(me) -> WakeOne(word + 1) }
#else
     atomic { DRAINED(me) -> WakeOne(word) }                               /* a4 */
#endif
  :: else
  fi
}

proctype Loop() {
  byte word;
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
#ifdef MUT_CLOSE_BUMPS_NOTHING
  Store(LOOP, CLOSED, 1);
  word = LOAD(LOOP, FUTEX);
#elif defined(MUT_CLOSE_AFTER_BUMP)
  Bump(LOOP);
  Store(LOOP, CLOSED, 1);
#else
  Store(LOOP, CLOSED, 1);                                                  /* c1 */
  Bump(LOOP);
#endif
#ifndef MUT_CLOSE_WAKES_NOBODY
  atomic { DRAINED(LOOP) -> WakeOne(word) }                                /* c2 */
#endif
#endif
}

proctype Worker() {
  byte word;
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
