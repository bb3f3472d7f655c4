/* sutra_cancel_all: what was submitted before it ends, what is submitted after it does not, and nobody sleeps on.
 *
 * A call of it, from a thread or a signal handler, only adds to the client's epoch and asks the library's thread, which
 * ends the older requests and wakes whoever waits for them. The engine's futex word is the engine's: the library cannot
 * bump it. Two slots; one thread waits for a request that the engine may never answer; another calls cancel_all, then
 * submits and waits for an answer; with -DSIGNAL a signal handler calls it at any time.
 * Sequentially consistent: each of these words is changed by a locked instruction or under the mutex.
 *
 *   cancel   c1 epoch += 1   c2 asked = 1, wake the library's thread
 *   submit   s1 under the mutex: a free slot, its epoch, published
 *   wait     w1 the slot is waited for; read the futex word
 *            w2 look at the result word and at `ended`; the answer ends it by CAS
 *            w3 futex wait; the slot is not waited for
 *   helper   h1 asked = 0, then read the epoch
 *            h2 under the mutex: each older request that has not ended: `ended` 0 -> cancelled, by CAS
 *            h3 wake the futex word until nobody waits for one that was cancelled. Not until `sleepers` is 0: in a lane
 *               that lives others sleep on, and come back
 *   release  r1 under the mutex: free if it is answered
 */
#define SLOTS 2
#define ANSWERED 1
#define CANCELLED 2
#ifdef SIGNAL
#define CALLS 2
#else
#define CALLS 1
#endif
byte epoch;
bool asked, locked;
byte futex;
byte phase[SLOTS], number[SLOTS], slot_epoch[SLOTS], ended[SLOTS], word[SLOTS];
bool waited[SLOTS], sleeping[SLOTS];
bool later[SLOTS];  /* submitted after the last call of cancel_all: the engine answers it, and it is not cancelled */
byte last;
bool gave_up;        /* the engine answers older requests no more */

inline Lock() { atomic { !locked -> locked = true } }

inline CancelAll() {
#ifdef MUT_ASKED_BEFORE_EPOCH
  asked = true;
  epoch++
#else
  epoch++;                                                                 /* c1 */
  asked = true                                                             /* c2 */
#endif
}

inline End(slot, how) {
  atomic {
    if
    :: ended[slot] == 0 -> ended[slot] = how; assert(how != CANCELLED || !later[slot])
    :: else
    fi
  }
}

inline Submit(slot) {                                                      /* s1 */
  atomic {
    !locked && (phase[0] == 0 || phase[1] == 0) ->
    slot = (phase[0] == 0 -> 0 : 1);
    phase[slot] = 1;
    ended[slot] = 0;
    last++;
    number[slot] = last;
    slot_epoch[slot] = epoch;
    later[slot] = (epoch == CALLS)
  }
}

inline Wait(slot) {
  do
  ::
#ifndef MUT_WAITED_AFTER_LOOK
     waited[slot] = true;                                                  /* w1 */
#endif
     seen = futex;
     if                                                                    /* w2 */
     :: word[slot] == number[slot] -> End(slot, ANSWERED)
     :: else
     fi;
     if
     :: ended[slot] != 0 -> waited[slot] = false; break
     :: else
     fi;
#ifdef MUT_WAITED_AFTER_LOOK
     waited[slot] = true;
#endif
     atomic {                                                              /* w3 */
       if
       :: futex == seen -> sleeping[slot] = true
       :: else
       fi
     };
     !sleeping[slot];
     atomic { waited[slot] = false; seen = 0 }
  od;
  seen = 0
}

inline Release(slot) {                                                     /* r1 */
  atomic {
    !locked ->
    if
    :: word[slot] == number[slot] -> phase[slot] = 0; later[slot] = false
    :: else -> later[slot] = false
    fi
  }
}

proctype Waiter() {
  byte slot, seen;
  Submit(slot);
  Wait(slot);
  Release(slot)
}

proctype Caller() {
  byte slot, seen;
  CancelAll();
  Submit(slot);
  Wait(slot);
  Release(slot)
}

#ifdef SIGNAL
proctype Handler() { CancelAll() }
#endif

#ifdef MUT_SAME_EPOCH
#define OLDER(slot) (slot_epoch[slot] <= until)
#else
#define OLDER(slot) (slot_epoch[slot] < until)
#endif

inline Cancel(slot) {                                                      /* h2 */
  if
  :: phase[slot] != 0 && OLDER(slot) -> End(slot, CANCELLED)
  :: else
  fi
}

#define STILL_WAITED(slot) (waited[slot] && ended[slot] == CANCELLED)

inline WakeAll() { atomic { sleeping[0] = false; sleeping[1] = false } }

proctype Helper() {
  byte until;
end:
  do
  :: asked ->
#ifdef MUT_EPOCH_BEFORE_ASKED
     until = epoch;
     asked = false;
#else
     asked = false;                                                        /* h1 */
     until = epoch;
#endif
#ifndef MUT_NO_MUTEX
     Lock();
#endif
     Cancel(0);
     Cancel(1);
#ifndef MUT_NO_MUTEX
     locked = false;
#endif
#ifdef MUT_WAKE_ONCE
     WakeAll();
#else
     do                                                                    /* h3 */
     :: STILL_WAITED(0) || STILL_WAITED(1) -> WakeAll()
     :: !STILL_WAITED(0) && !STILL_WAITED(1) -> break
     od;
#endif
     until = 0
  od
}

/* Owes an answer to what was submitted last; may leave older requests unanswered. */
proctype Engine() {
end:
  do
  :: phase[0] != 0 && word[0] != number[0] && (later[0] || !gave_up) -> word[0] = number[0]; futex++; WakeAll()
  :: phase[1] != 0 && word[1] != number[1] && (later[1] || !gave_up) -> word[1] = number[1]; futex++; WakeAll()
  :: !gave_up -> gave_up = true
  od
}

init {
  atomic {
    run Waiter();
    run Caller();
    run Helper();
    run Engine();
#ifdef SIGNAL
    run Handler()
#endif
  }
}
