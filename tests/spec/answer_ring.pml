/* Answering without the lane's mutex (SYNC E1, E2, L2, L3): one writer at a time, and each answered ticket is reported.
 *
 * The loop takes requests and answers some itself, without the mutex while the slot that it answers is the only one
 * held; the worker answers the others under the mutex. Two slots, a ring of two entries, ROUNDS requests of slot 0 and
 * ROUNDS_OF_1 of slot 1. A slot's owner either polls (it needs the ring's index) or waits for its result word alone and
 * submits again at once, so the poller may be lapped. An answered ticket that no poll reports leaves its owner waiting:
 * an invalid end state.
 * Sequentially consistent: on x86 stores reach memory in order, and only release/acquire pairs are used here.
 *
 *   loop     t1 take: the slot must be free, taken += 1    Lane::Hold (engine/lanes/lane.cc)
 *            t2 taken - answered == 1: answer              Lane::OnlyHolder, Lane::Publish
 *            t3 otherwise lock, answer, count, unlock      Lane::PublishLocked
 *   worker   k0 forget the request                         DeviceWorker::Finish (engine/serving/device_worker.cc)
 *            k1 lock, answer, count, unlock                Lane::PublishLocked
 *   answer   a1 the slot is free                           Lane::WriteAnswer
 *            a2 store the result word                      CompletionWriter::Publish (shm/lane_ring.h)
 *            a3 store the entry, position += 1
 *   poll     p1 read the cell at the own position          CompletionReader::Next
 *            p2 its slot's result word decides             TakeReport (producer/lane_poll.cc)
 *            p3 a later entry is a gap: look at every slot SweepLocked
 *   death    d1 the engine is killed between any two steps; the client sweeps   CheckAlive, SweepLocked
 *
 * -DMUT_CLAIM is the other way to have two writers, a position claimed by fetch_add: a writer that is lapped between its
 * claim and its store overwrites a newer entry, which is never read.
 */
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef ROUNDS_OF_1
#define ROUNDS_OF_1 1
#endif
#define SLOTS 2
#define ENTRY(at, slot) (((at) + 1) * SLOTS + (slot))
#define POSITION(entry) ((entry) / SLOTS) /* plus 1; 0: no entry */

byte word[SLOTS];     /* result words: the sequence of the last answer */
byte cell[SLOTS];     /* the completion ring */
byte position;        /* CompletionWriter::position_ */
byte sequence[SLOTS]; /* what each slot was submitted with */
bool submitted[SLOTS];
bool held[SLOTS];     /* the engine's slot table */
bool work[SLOTS];     /* handed to the worker */
bool polled[SLOTS];   /* a ticket that waits for sutra_poll */
byte taken, by_loop, by_worker;
byte writers;         /* threads inside WriteAnswer */
bool locked, dead;

inline Lock() { atomic { !locked -> locked = true } }

inline WriteAnswer() {
#ifndef MUT_CLAIM
  atomic { writers++; assert(writers == 1) };
#endif
#ifndef MUT_HELD_LATE
  held[slot] = false;                                                      /* a1 */
#endif
#ifndef MUT_ENTRY_BEFORE_WORD
  word[slot] = answer;                                                     /* a2 */
#endif
#ifdef MUT_CLAIM
  atomic { at = position; position++ };
  cell[at % SLOTS] = ENTRY(at, slot);
#else
  at = position;                                                           /* a3 */
  cell[at % SLOTS] = ENTRY(at, slot);
  position = at + 1;
#endif
#ifdef MUT_ENTRY_BEFORE_WORD
  word[slot] = answer;
#endif
#ifdef MUT_HELD_LATE
  held[slot] = false;
#endif
#ifndef MUT_CLAIM
  writers--
#endif
}

#if defined(MUT_ALWAYS_UNLOCKED) || defined(MUT_CLAIM)
#define ONLY_HOLDER true
#else
#define ONLY_HOLDER (taken - by_loop - by_worker == 1)
#endif

proctype Loop() {
  byte slot, answer, at;
  {
end:
    do
    :: atomic {                                                            /* t1 */
         submitted[0] || submitted[1];
         if
         :: submitted[0] -> slot = 0
         :: submitted[1] -> slot = 1
         fi;
         submitted[slot] = false;
         answer = sequence[slot];
         assert(!held[slot]);
         held[slot] = true;
         taken++
       };
       if
       :: work[slot] = true
       :: ONLY_HOLDER -> WriteAnswer(); by_loop++                          /* t2 */
       :: !ONLY_HOLDER -> Lock(); WriteAnswer(); by_loop++; locked = false /* t3 */
       fi;
       atomic { slot = 0; answer = 0; at = 0 }
    od
  } unless { dead }                                                        /* d1 */
}

proctype Worker() {
  byte slot, answer, at;
  {
end:
    do
    :: atomic {
         work[0] || work[1];
         if
         :: work[0] -> slot = 0
         :: work[1] -> slot = 1
         fi;
#ifndef MUT_FORGET_LATE
         work[slot] = false;                                               /* k0 */
#endif
         answer = sequence[slot]
       };
#ifdef MUT_CLAIM
       WriteAnswer();
#else
       Lock();                                                             /* k1 */
#ifdef MUT_COUNT_BEFORE_ANSWER
       by_worker++;
       WriteAnswer();
#else
       WriteAnswer();
       by_worker++;
#endif
       locked = false;
#endif
#ifdef MUT_FORGET_LATE
       work[slot] = false;
#endif
       atomic { slot = 0; answer = 0; at = 0 }
    od
  } unless { dead }
}

inline Report(which) {                                                     /* p2 */
  atomic {
    if
    :: polled[which] && (word[which] == sequence[which] || dead) -> polled[which] = false
    :: else
    fi
  }
}

proctype Poller() {
  byte next, entry;
end:
  do
  :: atomic { POSITION(cell[next % SLOTS]) > next -> entry = cell[next % SLOTS] };  /* p1 */
     if
     :: POSITION(entry) == next + 1 -> Report(entry % SLOTS)
#ifdef MUT_NO_SWEEP
     :: POSITION(entry) > next + 1 -> Report(entry % SLOTS)
#else
     :: POSITION(entry) > next + 1 -> Report(0); Report(1)                 /* p3 */
#endif
     fi;
     atomic { next = POSITION(entry); entry = 0 }
#ifndef MUT_DEATH_UNSEEN
  :: dead && (polled[0] || polled[1]) -> Report(0); Report(1)              /* d1 */
#endif
  od
}

proctype Owner(byte slot; byte rounds) {
  do
  :: rounds == 0 || dead -> break
  :: rounds > 0 ->
     atomic {
       sequence[slot]++;
       submitted[slot] = true;
       rounds--;
       if
       :: polled[slot] = true
       :: skip
       fi
     };
     if
     :: atomic { polled[slot] -> !polled[slot] }
     :: atomic { !polled[slot] -> word[slot] == sequence[slot] || dead }
     fi;
     assert(word[slot] == sequence[slot] || dead)
  od
}

#ifdef CRASH
proctype Killer() { dead = true }
#endif

init {
  atomic {
    run Loop();
    run Worker();
    run Poller();
    run Owner(0, ROUNDS);
    run Owner(1, ROUNDS_OF_1);
#ifdef CRASH
    run Killer()
#endif
  }
}
