/* Sleeping through an engine's death and the move to the next one (SYNC L4, L7, C1): nobody sleeps for ever.
 *
 * Two waiters, one request each, and two engines. Engine 0 answers waiter 0's request and is killed between any two
 * steps; from then on nobody bumps its futex word. The library's thread marks the lane, wakes until nobody is left in
 * it, moves what was not answered and bumps its own counter of moves, on which waiters of a lane that is gone sleep.
 * Engine 1 answers what it was given. With -DKILL_BOTH engine 0 is dead from the
 * start and engine 1 is killed too. A
 * waiter that sleeps on is an invalid end state: the model has no timers.
 *
 *   waiter   w1 read the counter of moves, then home
 *            w2 not gone: sleepers += 1, fence; read the futex word; look at the result word and at `gone`;
 *               futex wait on the engine's word; sleepers -= 1; home, result word and `gone` again
 *            w3 gone: look at home and its result word; futex wait on the counter of moves
 *   helper   move.evidence  the engine's lock is free: its stores have reached memory
 *            move.gone      `gone`, full fence
 *            move.woken     wake the futex word, until `sleepers` is 0
 *            move.home      home of each request that was not answered
 *            move.bumped    the counter of moves, after the homes, in every pass; wake all
 *   engine   e1 store the result word; e2 fence, look at sleepers; bump in one step; wake
 */
#define WAITERS 2
#ifdef KILL_BOTH
#define ENGINES 3
#else
#define ENGINES 2
#endif
#define FUTEX 0                   /* + engine */
#define SLEEPERS (FUTEX + ENGINES)
#define GONE (SLEEPERS + ENGINES)
#define RESULT (GONE + ENGINES)   /* + AT(engine, waiter) */
#define HOME (RESULT + ENGINES * WAITERS)
#define MOVES (HOME + WAITERS)
#define WORDS (MOVES + 1)
#define AT(engine, waiter) ((engine) * WAITERS + (waiter))
#define LAST (ENGINES - 1)
#define HELPER ENGINES            /* its buffer, behind the engines' */
#define THREADS (ENGINES + 1)
#include "tso.pml"

#define AWAKE 0
#define ON_ENGINE 1               /* + engine */
#define ON_MOVES 10
byte sleeping[WAITERS];
bool killed[ENGINES], dead[ENGINES];
bool given[ENGINES * WAITERS];    /* to the engine, in its ring */

inline WakeAll(what) {
  if
  :: sleeping[0] == what -> sleeping[0] = AWAKE
  :: else
  fi;
  if
  :: sleeping[1] == what -> sleeping[1] = AWAKE
  :: else
  fi
}

inline Answer(e, w) {
  given[AT(e, w)] = false;
  Store(e, RESULT + AT(e, w), 1);                                          /* e1 */
  Fence(e);                                                                /* e2 */
  if
  :: LOAD(e, SLEEPERS + e) != 0 ->
     atomic { DRAINED(e) -> mem[FUTEX + e]++ };
     atomic { DRAINED(e) -> WakeAll(ON_ENGINE + e) }
  :: else
  fi
}

proctype Engine(byte e) {
  {
end:
    do
    :: given[AT(e, 0)] -> Answer(e, 0)
    :: given[AT(e, 1)] && e > 0 -> Answer(e, 1) /* engine 0 never comes to that */
    od
  } unless { killed[e] };
  atomic { DRAINED(e) -> dead[e] = true }
}

proctype Killer(byte e) { killed[e] = true }

inline MoveOne(w) {
  if
  :: LOAD(HELPER, HOME + w) == from && !mem[RESULT + AT(from, w)] ->
     Store(HELPER, HOME + w, from + 1);                                    /* move.home */
     given[AT(from + 1, w)] = true
  :: else
  fi
}

inline BumpMoves() {
  atomic { DRAINED(HELPER) -> mem[MOVES]++ };                              /* move.bumped */
#ifndef MUT_MOVES_WAKE_NOBODY
  atomic { WakeAll(ON_MOVES) }
#endif
}

proctype Helper() {
  byte from;
  do
  :: from < LAST ->
end:
     dead[from];                                                           /* move.evidence */
#ifdef MUT_GONE_AFTER_WAKES
     do
     :: LOAD(HELPER, SLEEPERS + from) == 0 -> break
     :: LOAD(HELPER, SLEEPERS + from) != 0 -> atomic { DRAINED(HELPER) -> WakeAll(ON_ENGINE + from) }
     od;
#endif
     Store(HELPER, GONE + from, 1);                                        /* move.gone */
#ifndef MUT_NO_HELPER_FENCE
     Fence(HELPER);
#endif
#if defined(MUT_GONE_AFTER_WAKES)
     skip;
#elif defined(MUT_WAKE_ONCE)
     atomic { DRAINED(HELPER) -> WakeAll(ON_ENGINE + from) };
#else
     do                                                                    /* move.woken */
     :: LOAD(HELPER, SLEEPERS + from) == 0 -> break
     :: LOAD(HELPER, SLEEPERS + from) != 0 -> atomic { DRAINED(HELPER) -> WakeAll(ON_ENGINE + from) }
     od;
#endif
#ifdef MUT_BUMP_BEFORE_HOME
     BumpMoves();
#endif
     MoveOne(0);
     MoveOne(1);
#ifndef MUT_BUMP_BEFORE_HOME
     BumpMoves();
#endif
     from++
  :: from == LAST -> break
  od
}

proctype Waiter(byte me) {
  byte home, moves, word;
  bool ready, gone;
  do
  ::
#ifdef MUT_MOVES_AFTER_HOME
     home = mem[HOME + me];
     moves = mem[MOVES];
#else
     moves = mem[MOVES];                                                   /* w1 */
     home = mem[HOME + me];
#endif
     gone = mem[GONE + home];
     if
     :: !gone ->                                                           /* w2 */
        mem[SLEEPERS + home]++;
        word = mem[FUTEX + home];
        ready = mem[RESULT + AT(home, me)];
#ifndef MUT_GONE_BEFORE_SLEEPERS
        gone = mem[GONE + home];
#endif
        if
        :: !ready && !gone ->
           atomic {
             if
             :: mem[FUTEX + home] == word -> sleeping[me] = ON_ENGINE + home
             :: else
             fi
           };
           sleeping[me] == AWAKE
        :: else
        fi;
        mem[SLEEPERS + home]--
     :: gone ->                                                            /* w3 */
#ifdef MUT_MOVES_READ_LATE
        ready = mem[RESULT + AT(home, me)];
        moves = mem[MOVES];
#else
        ready = mem[RESULT + AT(home, me)];
#endif
        if
        :: !ready ->
           atomic {
             if
             :: mem[MOVES] == moves -> sleeping[me] = ON_MOVES
             :: else
             fi
           };
           sleeping[me] == AWAKE
        :: else
        fi
     fi;
     if
     :: ready -> break
     :: else
     fi;
     atomic { home = 0; moves = 0; word = 0; gone = false }
  od
}

init {
  atomic {
#ifdef KILL_BOTH /* engine 0 does nothing */
    dead[0] = true;
#else
    given[AT(0, 0)] = true;
    run Engine(0);
    run Killer(0);
#endif
    run Memory(0);
    run Memory(1);
    run Memory(HELPER);
    run Engine(1);
#ifdef KILL_BOTH
    run Memory(2);
    run Engine(2);
    run Killer(1);
#endif
    run Helper();
    run Waiter(0);
    run Waiter(1)
  }
}
