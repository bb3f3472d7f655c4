/* A dead engine's lane (SYNC C1, L4, L7): every waiter leaves, and an answer that was published is not lost.
 *
 * The engine answers one of the waiters and is killed between any two steps; from then on nobody bumps the futex word.
 * The library's helper thread learns of the death, marks the lane and wakes until no waiter is left. A waiter that
 * sleeps on is an invalid end state.
 *
 *   helper   m1 the engine's lock is free            CheckAlive (producer/lane_attachments.cc)
 *            m2 lane->gone = reason, full fence
 *            m3 wake the futex word, until `sleepers` is 0: a client may wake on its read-only mapping
 *   waiter   w1 sleepers += 1, fence                 WaitUntil (producer/client_lane.h)
 *            w2 read the futex word
 *            w3 look at the result word
 *            w4 look at `gone`, after w1
 *            w5 futex wait
 *            w6 sleepers -= 1
 *            w7 gone: look at the result word a last time
 *   engine   e1 store the result word                Lane::Publish (engine/lanes/lane.cc)
 *            e2 fence, look at sleepers; bump; wake  Lane::Wake
 *            e3 killed at any step; its stores reach memory before its lock is free
 */
#define WAITERS 2
#define FUTEX 0
#define SLEEPERS 1
#define GONE 2
#define RESULT 3
#define WORDS 4
#define ENGINE 0
#define HELPER 1
#define THREADS 2
#include "tso.pml"

bool killed, dead;
bool sleeping[WAITERS];

inline WakeAll() { atomic { sleeping[0] = false; sleeping[1] = false } }

proctype Engine() {
  byte word;
  {
    Store(ENGINE, RESULT, 1);                                              /* e1: for waiter 0 */
    Fence(ENGINE);                                                         /* e2 */
    if
    :: LOAD(ENGINE, SLEEPERS) != 0 ->
       word = LOAD(ENGINE, FUTEX);
       Store(ENGINE, FUTEX, word + 1);
       atomic { DRAINED(ENGINE) -> WakeAll() }
    :: else
    fi;
    killed
  } unless { killed };
  atomic { DRAINED(ENGINE) -> dead = true }                                /* e3 */
}

proctype Killer() { killed = true }

proctype Helper() {
  dead;                                                                    /* m1 */
#ifdef MUT_GONE_AFTER_WAKES
  do
  :: LOAD(HELPER, SLEEPERS) == 0 -> break
  :: LOAD(HELPER, SLEEPERS) != 0 -> atomic { DRAINED(HELPER) -> WakeAll() }
  od;
#endif
  Store(HELPER, GONE, 1);                                                  /* m2 */
#ifndef MUT_NO_HELPER_FENCE
  Fence(HELPER);
#endif
#if defined(MUT_GONE_AFTER_WAKES)
  skip
#elif defined(MUT_WAKE_ONCE)
  atomic { DRAINED(HELPER) -> WakeAll() }
#elif defined(MUT_LOOK_ONCE)
  if
  :: LOAD(HELPER, SLEEPERS) != 0 -> atomic { DRAINED(HELPER) -> WakeAll() }
  :: else
  fi
#else
  do                                                                       /* m3 */
  :: LOAD(HELPER, SLEEPERS) == 0 -> break
  :: LOAD(HELPER, SLEEPERS) != 0 -> atomic { DRAINED(HELPER) -> WakeAll() }
  od
#endif
}

#define DONE (me == 0 && mem[RESULT])

proctype Waiter(byte me) {
  byte word;
  bool ready, gone, answered;
  do
  ::
#ifdef MUT_GONE_BEFORE_SLEEPERS
     gone = mem[GONE];
#endif
     mem[SLEEPERS]++;                                                      /* w1: a locked instruction */
     word = mem[FUTEX];                                                    /* w2 */
     ready = DONE;                                                         /* w3 */
#ifndef MUT_GONE_BEFORE_SLEEPERS
     gone = mem[GONE];                                                     /* w4 */
#endif
     if
     :: !ready && !gone ->
        atomic {                                                           /* w5 */
          if
          :: mem[FUTEX] == word -> sleeping[me] = true
          :: else
          fi
        };
        !sleeping[me]
     :: else
     fi;
     mem[SLEEPERS]--;                                                      /* w6 */
     if
     :: ready -> answered = true; break
     :: !ready && gone ->
#ifndef MUT_RESULT_BEFORE_GONE
        answered = DONE;                                                   /* w7 */
#endif
        break
     :: !ready && !gone ->
        if
        :: atomic { DONE -> answered = true; break }
        :: else
        fi
     fi;
     word = 0
  od;
  assert(answered || !(me == 0 && mem[RESULT]))
}

init {
  atomic {
    run Memory(ENGINE);
    run Memory(HELPER);
    run Engine();
    run Killer();
    run Helper();
    run Waiter(0);
    run Waiter(1)
  }
}
