/* The sleeping engine and the parked lane (SYNC L5, L8): no entry stays unread.
 *
 * Two lanes with one client each; a client publishes ENTRIES entries. The engine polls the lanes that it did not park,
 * one entry per lane and turn, parks quiet lanes at any time, and sleeps until a doorbell. A lost doorbell is an engine
 * that sleeps for ever beside an unread entry: an invalid end state, since the model has no ticks.
 *
 *   client   s1 publish an entry                        SubmissionWriter::Publish (shm/lane_ring.h)
 *            s2 fence, look at `parked` and `asleep`    NeedsDoorbell (shm/sleep_wake.h)
 *            s3 one byte on the socket                  SendDoorbell
 *   engine   t1 poll the lanes in the order             EngineLoop::PollLanes (engine/serving/engine_loop.cc)
 *            t2 parked = 1 (several lanes), fence       TurnOrder::ParkSilent (engine/lanes/turn_order.h)
 *            t3 look at their rings once more: an entry takes the lane back, parked = 0
 *            t4 asleep = 1, fence, poll the lanes in the order, epoll   EngineLoop::Sleep
 *            t5 doorbell: parked = 0, the lane is in the order again    EngineLoop::HandleEvent
 *            t6 read the doorbell's bytes                               LaneTable::OnSocket (engine/lanes/lane_table.cc)
 *            t7 asleep = 0
 */
#ifndef ENTRIES
#define ENTRIES 2
#endif
#define RING 0    /* +lane: entries published */
#define PARKED 2  /* +lane */
#define ASLEEP 4
#define WORDS 5
#define ENGINE 2  /* its buffer; the clients' are 0 and 1 */
#define THREADS 3
#include "tso.pml"

byte doorbell[2];  /* bytes in the socket, at most one: a full socket has been rung */
byte taken[2];     /* the engine's own positions */
bool order[2];     /* the lanes that are polled */

#define ALL_TAKEN (taken[0] == ENTRIES && taken[1] == ENTRIES)
#define HasNext(lane) (LOAD(ENGINE, RING + lane) > taken[lane])

proctype Client(byte lane) {
  byte entry;
  bool parked, asleep;
  do
  :: entry < ENTRIES ->
#ifdef MUT_LOOK_BEFORE_PUBLISH
     parked = LOAD(lane, PARKED + lane);
     asleep = LOAD(lane, ASLEEP);
     Store(lane, RING + lane, entry + 1);
#else
     Store(lane, RING + lane, entry + 1);                                  /* s1 */
#ifndef MUT_NO_CLIENT_FENCE
     Fence(lane);                                                          /* s2 */
#endif
#ifndef MUT_LOOKS_AT_ASLEEP_ONLY
     parked = LOAD(lane, PARKED + lane);
#endif
#ifndef MUT_LOOKS_AT_PARKED_ONLY
     asleep = LOAD(lane, ASLEEP);
#endif
#endif
     if
     :: parked || asleep -> atomic { DRAINED(lane) -> doorbell[lane] = 1 } /* s3 */
     :: else
     fi;
     atomic { entry++; parked = false; asleep = false }
  :: else -> break
  od
}

inline PollLane(lane) {
  if
  :: atomic { order[lane] && HasNext(lane) -> taken[lane]++; worked = true }
  :: atomic { !order[lane] || !HasNext(lane) -> skip }
  fi
}

inline Poll() {                                                            /* t1 */
  worked = false;
  PollLane(0);
  PollLane(1)
}

inline LookAgain(lane) {
  if
  :: !parking[lane] -> skip
#ifdef MUT_NO_LOOK_AFTER_PARK
  :: parking[lane] -> order[lane] = false
#else
  :: atomic { parking[lane] && HasNext(lane) -> worked = true }; Store(ENGINE, PARKED + lane, 0)
  :: atomic { parking[lane] && !HasNext(lane) -> order[lane] = false }
#endif
  fi;
  parking[lane] = false
}

inline Park() {
  if                                                                       /* t2: any set of the lanes in the order */
  :: order[0] -> Store(ENGINE, PARKED, 1); parking[0] = true
  :: order[1] -> Store(ENGINE, PARKED + 1, 1); parking[1] = true
  :: order[0] && order[1] ->
     Store(ENGINE, PARKED, 1);
     Store(ENGINE, PARKED + 1, 1);
     atomic { parking[0] = true; parking[1] = true }
  :: else
  fi;
#ifndef MUT_NO_PARK_FENCE
  Fence(ENGINE);
#endif
  LookAgain(0);                                                            /* t3 */
  LookAgain(1)
}

inline Unpark(lane) {                                                      /* t5 */
  if
  :: !order[lane] ->
     Store(ENGINE, PARKED + lane, 0);
#ifdef MUT_SERVED_ONCE
     order[lane] = true;
     PollLane(lane);
     order[lane] = false
#else
     order[lane] = true
#endif
  :: else
  fi
}

inline OnDoorbell(lane) {
  if
  :: doorbell[lane] != 0 ->
#if defined(DRAIN_FIRST)
     atomic { DRAINED(ENGINE) -> doorbell[lane] = 0 };
     Unpark(lane)
#elif defined(DRAIN_LAST)
     Unpark(lane);
     PollLane(lane);
     atomic { DRAINED(ENGINE) -> doorbell[lane] = 0 }
#elif defined(MUT_DRAINED_BUT_PARKED)
     if
     :: HasNext(lane) -> Unpark(lane)
     :: else
     fi;
     atomic { DRAINED(ENGINE) -> doorbell[lane] = 0 }
#else
     Unpark(lane);
     atomic { DRAINED(ENGINE) -> doorbell[lane] = 0 }                      /* t6 */
#endif
  :: else
  fi
}

proctype Engine() {
  bool worked;
  bool parking[2];
  do
  :: ALL_TAKEN -> break
  :: else ->
     Poll();
     if
     :: worked -> skip
     :: !worked -> Park()
     :: !worked -> OnDoorbell(0); OnDoorbell(1)                            /* events of an engine that spins */
     :: !worked ->
        Store(ENGINE, ASLEEP, 1);                                          /* t4 */
#ifndef MUT_NO_SLEEP_FENCE
        Fence(ENGINE);
#endif
#ifdef MUT_NO_POLL_AFTER_ASLEEP
        worked = false;
#else
        Poll();
#endif
        if
        :: worked || ALL_TAKEN -> skip
        :: else ->
           (doorbell[0] != 0 || doorbell[1] != 0) && DRAINED(ENGINE);
           OnDoorbell(0);
           OnDoorbell(1)
        fi;
        Store(ENGINE, ASLEEP, 0)                                           /* t7 */
     fi
  od
}

init {
  atomic {
    order[0] = true;
    order[1] = true;
    run Memory(0);
    run Memory(1);
    run Memory(ENGINE);
    run Client(0);
    run Client(1);
    run Engine()
  }
}
