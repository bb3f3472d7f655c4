/* A wait for one of several tickets in two lanes (SYNC L4): bounded wakes, and a waiter that sleeps on both words.
 *
 * One thread waits for its tickets in both lanes at once (sutra_wait_any), one waits in each lane alone. Each lane's
 * engine publishes its answers and wakes at most one waiter (kWakesPerCall is more in the code; one is harder); whom a
 * wake reached wakes all others in the lane. A wait for several words (futex_waitv) takes no bits, so any wake of
 * either lane reaches it; the kernel takes it from both queues one after the other, so that two wakes may be spent on
 * it, of which it is told one. Whoever waits for one word does so under the bit of its value, of BITS. A sleeper beside an
 * answer is an invalid end state.
 *
 *   any      w1 sleepers += 1 in each lane, fence
 *            w2 read both futex words, then look at both results
 *            w3 sleep on both words: if either moved, it does not sleep
 *            w4 sleepers -= 1 in each lane
 *            w5 woken: wake all others of both lanes, under any bit, whichever lane's word it is said to be
 *   one      the same in one lane, wake_chain.pml's waiter
 *   engine   a1 result words, fence; a2 sleepers != 0: bump; a3 wake one
 */
#ifndef BITS
#define BITS 1
#endif
#define LANES 2
#define FUTEX 0                  /* + lane */
#define SLEEPERS LANES           /* + lane */
#define RESULT (2 * LANES)       /* + lane: of the waiter for any */
#define ALONE (3 * LANES)        /* + lane: of the waiter in that lane */
#define WORDS (4 * LANES)
#define THREADS LANES            /* the engines */
#include "tso.pml"

/* In the kernel's queue of a lane: QUEUE(lane, 0) the lane's own waiter, 1 the other. */
bool queued[LANES * 2];
#define QUEUE(lane, any) ((lane) * 2 + (any))
byte slept[LANES];               /* the value that the lane's own waiter sleeps on */
byte spent;                      /* the lanes whose wakes took the waiter for any from their queues: bits */

#define BIT(value) ((value) % BITS)
#define REACHES(lane, value) (queued[QUEUE(lane, 0)] && BIT(slept[lane]) == BIT(value))

inline WakeOne(lane, value) {
  if
  :: REACHES(lane, value) -> queued[QUEUE(lane, 0)] = false; slept[lane] = 0
  :: queued[QUEUE(lane, 1)] -> queued[QUEUE(lane, 1)] = false; spent = spent | (1 << lane)
  :: else
  fi
}

/* As WakeOtherSleepers: again for the same value only if the word has moved, or waiters wake each other for ever. */
inline WakeOthers(lane, word, passed) {
  if
  :: mem[SLEEPERS + lane] != 0 && (passed != word + 1 || mem[FUTEX + lane] != word) ->
     atomic {
       passed = word + 1;
       passes++;
       assert(passes <= 2 * (mem[FUTEX] + mem[FUTEX + 1]) + 2);
       if
       :: queued[QUEUE(lane, 1)] -> queued[QUEUE(lane, 1)] = false; spent = spent | (1 << lane)
       :: else
       fi;
#ifdef MUT_PASSES_UNDER_ITS_BIT
       if
       :: REACHES(lane, word) -> queued[QUEUE(lane, 0)] = false; slept[lane] = 0
       :: else
       fi
#else
       queued[QUEUE(lane, 0)] = false;
       slept[lane] = 0
#endif
     }
  :: else
  fi
}

proctype Engine(byte lane) {
  byte value;
#ifdef ANY_ONCE
  if
  :: lane == 1 -> Store(lane, RESULT + lane, 1)
  :: else
  fi;
#else
  Store(lane, RESULT + lane, 1);                                           /* a1 */
#endif
  Store(lane, ALONE + lane, 1);
  Fence(lane);
  if
  :: LOAD(lane, SLEEPERS + lane) != 0 ->                                   /* a2 */
     atomic { DRAINED(lane) -> value = mem[FUTEX + lane]; mem[FUTEX + lane]++ };
     atomic { DRAINED(lane) -> WakeOne(lane, value) }                             /* a3 */
  :: else
  fi
}

proctype One(byte lane) {
  byte word, passed, passes;
  bool ready, woken;
  do
  :: mem[SLEEPERS + lane]++;
     word = mem[FUTEX + lane];
     ready = mem[ALONE + lane];
     if
     :: !ready ->
        atomic {
          if
          :: mem[FUTEX + lane] == word -> slept[lane] = word; queued[QUEUE(lane, 0)] = true
          :: else -> goto awake
          fi
        };
        atomic { !queued[QUEUE(lane, 0)] -> woken = true }
     :: else
     fi;
awake:
     mem[SLEEPERS + lane]--;
     if
     :: woken -> WakeOthers(lane, word, passed)
     :: else
     fi;
     if
     :: atomic { ready -> break }
     :: else
     fi;
     atomic { word = 0; woken = false }
  od
}

proctype Any() {
  byte word[LANES], passed[LANES];
  byte took, passes;
  bool ready, woken;
  do
  :: mem[SLEEPERS]++;                                                      /* w1 */
#ifndef MUT_SLEEPS_UNCOUNTED
     mem[SLEEPERS + 1]++;
#endif
#ifdef MUT_WORD_AFTER_RESULT
     ready = mem[RESULT] || mem[RESULT + 1];
     word[0] = mem[FUTEX];
     word[1] = mem[FUTEX + 1];
#else
     word[0] = mem[FUTEX];                                                 /* w2 */
     word[1] = mem[FUTEX + 1];
     ready = mem[RESULT];
     ready = ready || mem[RESULT + 1];
#endif
     if
     :: !ready ->
        atomic {                                                           /* w3 */
          spent = 0;
          if
          :: mem[FUTEX] == word[0] && mem[FUTEX + 1] == word[1] ->
             queued[QUEUE(0, 1)] = true;
             queued[QUEUE(1, 1)] = true
          :: else -> goto awake
          fi
        };
        spent != 0; /* it runs, and leaves the other queue later: */
        atomic { queued[QUEUE(0, 1)] = false; queued[QUEUE(1, 1)] = false; woken = true; took = spent; spent = 0 }
     :: else
     fi;
awake:
     mem[SLEEPERS]--;                                                      /* w4 */
#ifndef MUT_SLEEPS_UNCOUNTED
     mem[SLEEPERS + 1]--;
#endif
     if
     :: woken ->                                                           /* w5 */
#ifdef MUT_PASSES_TO_THE_TOLD_LANE
        if /* the kernel tells the last one that it finds */
        :: took & 2 -> WakeOthers(1, word[1], passed[1])
        :: else -> WakeOthers(0, word[0], passed[0])
        fi
#elif defined(MUT_NO_CHAIN)
        skip
#elif defined(MUT_READY_PASSES_NOTHING)
        if
        :: mem[RESULT] || mem[RESULT + 1]
        :: else -> WakeOthers(0, word[0], passed[0]); WakeOthers(1, word[1], passed[1])
        fi
#else
        WakeOthers(0, word[0], passed[0]);
        WakeOthers(1, word[1], passed[1])
#endif
     :: else
     fi;
     if
     :: atomic { ready || mem[RESULT] || mem[RESULT + 1] -> break }
     :: else
     fi;
     atomic { word[0] = 0; word[1] = 0; woken = false; took = 0 }
  od
}

init {
  atomic {
    run Memory(0);
    run Memory(1);
    run Engine(0);
    run Engine(1);
    run One(0);
    run One(1);
    run Any()
  }
}
