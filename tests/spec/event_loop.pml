/* The application's event loop (SYNC L6): it never sleeps while an answer was not reported to it.
 *
 * Two answerers publish into the completion ring of one lane; POLLERS threads of the application sleep on the client's
 * descriptor, which is readable while the engine's pipe or the library's reminder is, and poll once per wake-up, with
 * room for ROOM tickets. A lost event is a thread that sleeps beside an unreported answer: an invalid end state.
 *
 *   answerer a1 store the entry                    CompletionWriter::Publish (shm/lane_ring.h)
 *            a2 fence, look at event_armed         LookForSleepers (shm/sleep_wake.h)
 *            a3 one byte into the pipe             Lane::Wake (engine/lanes/lane.cc)
 *   poll     p1 under the lane's mutex: read entries while there is room   PollLocked (producer/lane_poll.cc)
 *            p2 the first one: event_armed = 0     DisarmLocked (producer/lane_attachments.cc)
 *            p3 the array is full, or the caller had better poll on: remind   PollClient, Remind
 *            p4 otherwise p1 again; none left: drain the pipe                 DrainEvents
 *            p5 event_armed = 1, fence, p1 again   ArmLocked
 *            p6 the array is full: remind; otherwise take the reminder, and if there was one p4   TakeReminder
 */
#ifndef ROOM
#define ROOM 1
#endif
#ifndef POLLERS
#define POLLERS 1
#endif
#define ANSWERS 3 /* two by the loop, one by the worker */
#define ARMED 0
#define ENTRY 1   /* +position */
#define WORDS (ENTRY + ANSWERS)
#define LOOP 0
#define WORKER 1
#define CLIENT 2  /* +poller */
#define THREADS (CLIENT + POLLERS)
#include "tso.pml"

byte position;  /* of the engine, under the lane's mutex there or with one holder */
bool engine_locked, locked;
bool pipe, reminder;
bool is_armed;  /* ClientLane::armed, under the lane's mutex */
byte next;      /* CompletionReader::position_, under the lane's mutex */

inline Answer(me) {
#ifdef MUT_LOOK_BEFORE_PUBLISH
  armed = LOAD(me, ARMED);
#endif
  atomic { !engine_locked -> engine_locked = true };
  Store(me, ENTRY + position, 1);                                          /* a1 */
  atomic { position++; engine_locked = false };                            /* a plain unlock: not a fence */
#ifndef MUT_NO_ENGINE_FENCE
  Fence(me);                                                               /* a2 */
#endif
#ifndef MUT_LOOK_BEFORE_PUBLISH
  armed = LOAD(me, ARMED);
#endif
  if
  :: armed -> atomic { DRAINED(me) -> pipe = true }                        /* a3 */
  :: else
  fi;
  armed = false
}

proctype Loop() {
  bool armed;
  Answer(LOOP);
  Answer(LOOP)
}

proctype Worker() {
  bool armed;
  Answer(WORKER)
}

#define HasNext(me) (next < ANSWERS && LOAD(me, ENTRY + next))

inline Drain(me) { atomic { DRAINED(me) -> pipe = false } }

inline PollLocked(me, arm) {
  atomic { !locked -> locked = true };
  looked_armed = !arm;
  do
  :: found == ROOM -> break
  :: found < ROOM ->
     if
#ifdef MUT_DISARMED_AFTER_LAST_LOOK
     :: atomic { HasNext(me) -> next++; found++ };
#else
     :: atomic { HasNext(me) -> next++; found++; looked_armed = !arm };    /* p1 */
#endif
#ifndef NEVER_CLEARED
        if
        :: is_armed -> is_armed = false; Store(me, ARMED, 0)               /* p2 */
        :: else
        fi
#endif
     :: atomic { !HasNext(me) && looked_armed -> break }
     :: atomic { !HasNext(me) && !looked_armed };
#ifndef MUT_DRAIN_AFTER_LOOK
        Drain(me);                                                         /* p4 */
#endif
        is_armed = true;
        Store(me, ARMED, 1);                                               /* p5 */
#ifndef MUT_NO_CLIENT_FENCE
        Fence(me);
#endif
        looked_armed = true
#ifdef MUT_NO_LOOK_AFTER_ARM
        ; break
#endif
     fi
  od;
#ifdef MUT_DRAIN_AFTER_LOOK
  if
  :: arm -> Drain(me)
  :: else
  fi;
#endif
#ifdef PLAIN_UNLOCK
  locked = false
#else
  atomic { DRAINED(me) -> locked = false }
#endif
}

inline Remind(me) { atomic { DRAINED(me) -> reminder = true } }

proctype Application(byte me) {
  byte found;
  bool looked_armed;
  do
  :: next == ANSWERS -> break
  :: (pipe || reminder) && next < ANSWERS ->
     PollLocked(me, false);
     if                                                                    /* p3 */
#ifdef MUT_NO_REMINDER
     :: found == ROOM -> skip
#else
     :: found == ROOM -> Remind(me)
#endif
#ifdef MUT_POLLS_ON_UNREMINDED
     :: found < ROOM -> skip
#else
     :: found < ROOM -> Remind(me)
#endif
     :: found < ROOM ->
again:
        PollLocked(me, true);
        if                                                                 /* p6 */
#ifdef MUT_NO_REMINDER
        :: found == ROOM -> skip
#else
        :: found == ROOM -> Remind(me)
#endif
        :: found < ROOM ->
           if
           :: atomic { reminder && DRAINED(me) -> reminder = false };
#ifndef MUT_REMINDER_TAKEN_LAST
              goto again
#else
              skip
#endif
           :: !reminder -> skip
           fi
        fi
     fi;
     found = 0
  od
}

init {
  atomic {
    mem[ARMED] = 1;  /* WatchPipeLocked: armed before whatever the caller submits next */
    is_armed = true;
    run Memory(LOOP);
    run Memory(WORKER);
    run Memory(CLIENT);
    run Loop();
    run Worker();
    run Application(CLIENT);
    if
    :: POLLERS == 2 -> run Memory(CLIENT + 1); run Application(CLIENT + 1)
    :: else
    fi
  }
}
