/* Both rings of a lane and the life of a slot (SYNC L1, L2, L3, E1): submit, take, answer, report, release, reap.
 *
 * Two slots and rings of two entries; a client submits REQUESTS requests, so that both rings wrap. It waits for a
 * request by its result word, leaves it to polls, or releases it at any time; polls are few, so that the completion
 * ring laps them. Texts and vectors have two halves, so that tearing shows. The engine answers in any order. It is
 * killed between any two steps (-DENGINE_DIES), or the client is (-DCLIENT_DIES): then the engine closes the lane and
 * makes another, of new memory, for the next client, which is served.
 * Shown: each request is taken once, in order, with its own bytes, and no honest client is refused; a ticket ends once,
 * is reported once, and with its own vector, which stays until its release; no slot is lost; nobody waits for ever.
 * Sequentially consistent; two answering threads are in answer_ring.pml, sleep and wake in wake_chain.pml, and further
 * engines in resubmit.pml.
 *
 *   submit   s1 a free slot, or an abandoned one that is answered: reap it    SubmitLocked, ReapLocked (producer/)
 *            s2 text and descriptor                                           send.payload_half, send.payload_done
 *            s3 entry with its position, position += 1                        send.index_published
 *   engine   t1 the entry at the own position; the last lap's is none         SubmissionReader::Next
 *            t2 the slot must be free; hold it                                Lane::Hold
 *            t3 copy the text                                                 poll.payload_copied
 *            a1 vector; a2 the slot is free; a3 result word; a4 entry         Lane::WriteAnswer
 *   poll     p1 the entry at the own position, or a gap: then every slot      CompletionReader::Next, SweepLocked
 *            p2 its result word decides                                       TakeReport
 *   release  r1 free if it is answered, else abandoned                        ReleaseLocked
 *   death    d1 the result word once more, then the ticket fails              SettleSlot
 *            d2 the dead client's lane ends, the next one starts empty        Lane::Close
 */
#ifndef REQUESTS
#define REQUESTS 5
#endif
#ifndef REQUESTS_AFTER /* of the next client */
#define REQUESTS_AFTER 1
#endif
#define SLOTS 2
#define ENTRY(at, slot) (((at) + 1) * SLOTS + (slot))
#define POSITION(entry) ((entry) / SLOTS) /* plus 1; 0: no entry */
#ifdef CLIENT_DIES
#define LANES 2
#else
#define LANES 1
#endif
#define AT(slot) (lane * SLOTS + (slot))
#define FREE 0
#define TICKET 1
#define ABANDONED 2

/* The lane's memory. */
byte text0[LANES * SLOTS], text1[LANES * SLOTS], sequence[LANES * SLOTS], submission[LANES * SLOTS];
byte vector0[LANES * SLOTS], vector1[LANES * SLOTS], word[LANES * SLOTS], completion[LANES * SLOTS];
bool engine_dead, client_dead;

/* What must be so: requests are taken in the order of their numbers. */
byte last_taken;

proctype Engine() {
  byte lane, taken, position, slot, entry, number;
  bool held[SLOTS];
  byte work[SLOTS];
#ifdef CLIENT_DIES
  bool replaced;
#endif
  {
end:
    do
    :: atomic {                                                            /* t1 */
         POSITION(submission[AT(taken % SLOTS)]) > taken ->
         entry = submission[AT(taken % SLOTS)];
         assert(POSITION(entry) == taken + 1);
         slot = entry % SLOTS;
         taken++;
         assert(!held[slot]);                                              /* t2 */
         held[slot] = true;
         entry = 0;
         number = text0[AT(slot)]
       };
       atomic {                                                            /* t3 */
         assert(text1[AT(slot)] == number && sequence[AT(slot)] == number);
         assert(number == last_taken + 1);
         last_taken = number;
         work[slot] = number;
         number = 0;
         slot = 0
       }
    :: atomic {
         work[0] != 0 || work[1] != 0;
         if
         :: work[0] != 0 -> slot = 0
         :: work[1] != 0 -> slot = 1
         fi;
         number = work[slot];
         work[slot] = 0
       };
#ifdef MUT_WORD_BEFORE_VECTOR
       held[slot] = false;
       word[AT(slot)] = number;
       vector0[AT(slot)] = number;
       vector1[AT(slot)] = number;
#else
       vector0[AT(slot)] = number;                                         /* a1 */
       vector1[AT(slot)] = number;
       held[slot] = false;                                                 /* a2 */
       word[AT(slot)] = number;                                            /* a3 */
#endif
       atomic { completion[AT(position % SLOTS)] = ENTRY(position, slot); position++ };  /* a4 */
       atomic { number = 0; slot = 0 }
#ifdef CLIENT_DIES
    :: client_dead && !replaced ->                                        /* d2 */
       atomic {
#ifndef MUT_LANE_USED_AGAIN
         lane = 1;
#endif
         taken = 0;
         position = 0;
         held[0] = false;
         held[1] = false;
#ifndef MUT_ANSWERS_TO_NEXT_OWNER
         work[0] = 0;
         work[1] = 0;
#endif
         last_taken = 0;
         replaced = true;
         run Client(lane, false, REQUESTS_AFTER)
       }
#endif
    od
  } unless { engine_dead }
}

/* A request that ended: what the caller reads until its release. */
inline Read(slot) {
  if
  :: ended[slot] -> assert(vector0[AT(slot)] == number[slot]); assert(vector1[AT(slot)] == number[slot])
  :: failed[slot] -> assert(word[AT(slot)] != number[slot])
  :: else
  fi
}

inline Settle(slot) {
#ifdef MUT_WORD_BEFORE_DEATH
  answered = (word[AT(slot)] == number[slot]);
  dead = engine_dead;
#else
  dead = engine_dead;
  answered = (word[AT(slot)] == number[slot]);
#endif
  if
  :: ended[slot] || failed[slot]
  :: !ended[slot] && !failed[slot] && answered -> ended[slot] = true
  :: !ended[slot] && !failed[slot] && !answered && dead -> failed[slot] = true                    /* d1 */
  :: else
  fi;
  answered = false;
  dead = false
}

inline FreeSlot(slot) { atomic { phase[slot] = FREE; number[slot] = 0; ended[slot] = false; failed[slot] = false } }

inline ReleaseSlot(slot) {                                                 /* r1 */
  if
#ifdef MUT_FREE_UNANSWERED
  :: true -> FreeSlot(slot)
#else
  :: word[AT(slot)] == number[slot] || engine_dead -> FreeSlot(slot)
#endif
  :: else -> atomic { phase[slot] = ABANDONED; ended[slot] = false }
  fi
}

inline Reap(slot) {
  if
  :: phase[slot] == ABANDONED && (word[AT(slot)] == number[slot] || engine_dead) -> FreeSlot(slot)
  :: else
  fi
}

inline Report(slot) {                                                      /* p2 */
#ifndef MUT_NO_REAP
  Reap(slot);
#endif
  if
  :: phase[slot] == TICKET && polled[slot] ->
     Settle(slot);
     if
     :: ended[slot] || failed[slot] -> polled[slot] = false
     :: else
     fi
  :: else
  fi
}

inline Poll() {
  do
  :: POSITION(completion[AT(next % SLOTS)]) > next ->                      /* p1 */
     entry = completion[AT(next % SLOTS)];
     slot = entry % SLOTS;
     if
#ifdef MUT_GAP_UNSEEN
     :: POSITION(entry) > next -> Report(slot)
#else
     :: POSITION(entry) == next + 1 -> Report(slot)
     :: POSITION(entry) > next + 1 -> Report(0); Report(1)
#endif
     fi;
     atomic { next = POSITION(entry); entry = 0; slot = 0 }
  :: else -> break
  od;
  if
  :: engine_dead -> Report(0); Report(1)
  :: else
  fi
}

#define TO_POLL(slot) (phase[slot] == TICKET && polled[slot])
#define NEWS (POSITION(completion[AT(next % SLOTS)]) > next || engine_dead)

inline Submit() {
#ifndef MUT_NO_REAP
  Reap(0);
  Reap(1);
#endif
  if                                                                       /* s1 */
  :: phase[0] == FREE || phase[1] == FREE ->
     slot = (phase[0] == FREE -> 0 : 1);
     last++;
#ifdef MUT_ENTRY_BEFORE_TEXT
     atomic { submission[AT(tail % SLOTS)] = ENTRY(tail, slot); tail++ };
#endif
     text0[AT(slot)] = last;                                               /* s2 */
     atomic { text1[AT(slot)] = last; sequence[AT(slot)] = last; number[slot] = last; phase[slot] = TICKET };
#ifndef MUT_ENTRY_BEFORE_TEXT
     atomic { submission[AT(tail % SLOTS)] = ENTRY(tail, slot); tail++ };  /* s3 */
#endif
     if
     :: polled[slot] = true
     :: skip
     fi;
     slot = 0
  :: else
  fi
}

inline Finish(slot) {
  if
  :: phase[slot] == TICKET && !polled[slot] ->
     if
     :: true ->
        if
        :: ended[slot] || failed[slot]
        :: else -> word[AT(slot)] == number[slot] || engine_dead; Settle(slot)
        fi;
        Read(slot);
        Read(slot)
     :: skip
     fi;
     ReleaseSlot(slot)
  :: else
  fi
}

#define ALL_FREE (phase[0] == FREE && phase[1] == FREE)
#define MINE(slot) (phase[slot] == TICKET && !polled[slot])

proctype Client(byte lane; bool first; byte requests) {
  byte tail, next, last, slot, entry;
  byte phase[SLOTS], number[SLOTS];
  bool ended[SLOTS], failed[SLOTS], polled[SLOTS];
  bool answered, dead;
  {
    do
    :: last < requests && !engine_dead && (phase[0] != TICKET || phase[1] != TICKET) ->
       Submit();
       if
       :: phase[0] != TICKET && phase[1] != TICKET ->  /* both abandoned: until there is room */
          word[AT(0)] == number[0] || word[AT(1)] == number[1] || engine_dead
       :: else
       fi
    :: MINE(0) -> Finish(0)
    :: MINE(1) -> Finish(1)
    :: TO_POLL(0) || TO_POLL(1) -> NEWS; Poll()
    :: (last == requests || engine_dead) && phase[0] != TICKET && phase[1] != TICKET -> break
    od;
    do /* what is still owed */
    :: ALL_FREE -> break
    :: !ALL_FREE -> NEWS; Poll()
    od
  } unless { client_dead && first }
}

#ifdef ENGINE_DIES
proctype Killer() { engine_dead = true }
#elif defined(CLIENT_DIES)
proctype Killer() { client_dead = true }
#endif

init {
  atomic {
    run Engine();
    run Client(0, true, REQUESTS);
#if defined(ENGINE_DIES) || defined(CLIENT_DIES)
    run Killer()
#endif
  }
}
