/* Requests that outlive their engine (SYNC C1, C3): the library's thread moves them to the next one.
 *
 * One lane of two slots and LANES attachments to engines, one after another; the last engine stays. An earlier one is
 * killed between any two steps, however slow it is before, hands over (-DDRAIN), closes the lane under a busy worker and
 * lives on (-DCLOSE), or is stopped for ever (-DSTOPPED). A thread that waits (-DWAITER), one with an event loop
 * (-DPOLLER), or both submit REQUESTS requests each and release them when they are done, or before. Texts and vectors
 * have two halves, so that tearing shows.
 * Shown: a ticket ends once, and with the vector of its own text; every one ends, and every thread comes to its end; no
 * engine is given a slot that it holds; no answered request moves; no slot is lost; no memory is read that is unmapped.
 * Sequentially consistent: who sleeps and who wakes is in move_wake.pml and event_loop.pml, so here a wake is one step.
 * "Engine e" stands for its attachment too.
 *
 *   submit   s1 in one hold of the mutex: not gone, a free slot, text, home, pin, entry
 *   wait     w1 read the futex word and the counter of moves, then home, then its result word, `ended`, `gone`
 *            w2 sleep: on the engine's futex word, or, in a lane that is gone, on the counter of moves
 *   end      n1 whoever sees the answer or the deadline: `ended` 0 -> answered in this attachment, or a status, by CAS
 *   release  r1 under the mutex: free if answered at home or home is gone, else abandoned
 *            release.unpinned  no attachment is kept for it any more
 *   poll     p1 read the completion ring of the attachment, sweep if due
 *   move     move.evidence   the state is closed, or the engine's lock is free and then the state once more
 *            move.gone       from here on no submit enters
 *            move.woken      everybody who sleeps on it, and the event loop
 *            move.attached   the next engine that can be reached
 *            move.settled    slot by slot, under the mutex: answered or ended ones stay; abandoned ones are free
 *            move.copied     the text of any other, from its home
 *            move.home       pin the new attachment, home = new
 *            move.published  the entry in the new ring
 *            move.opened     submits enter again; the completion ring is read from its start, and a sweep is due
 *            move.bumped     the counter of moves, and the event loop
 *            move.rung       the doorbell of the new engine
 *   engine   t1 take an entry: the slot must be free; copy the text
 *            a1 forget the request, write the vector, then under the lane's mutex, if it is open: the slot is free,
 *            a2 result word, a3 completion entry, a4 wake
 *   drain    drain.stopped_reading, drain.answered (nothing is held), drain.closed (under the mutex), exit
 */
#ifndef LANES
#define LANES 2
#endif
#ifndef REQUESTS
#define REQUESTS 3
#endif
#define SLOTS 2
#define ENTRIES 8 /* of a ring; lane.pml has rings that wrap */
#define LAST (LANES - 1)
#define NONE 255
#define AT(lane, slot) ((lane) * SLOTS + (slot))
#define ENTRY(lane, at) ((lane) * ENTRIES + (at))

#define FREE 0
#define HELD 1
#define ABANDONED 2

#define ANSWERED 1 /* + attachment */
#define LATE 10
#define CANCELLED 11
#define FAILED 12 /* SUTRA_FAIL_FAST */

/* The memory of the attachments. The text of request n is n in each half, and so is its vector. */
byte text0[LANES * SLOTS], text1[LANES * SLOTS], vector0[LANES * SLOTS], vector1[LANES * SLOTS];
byte sequence[LANES * SLOTS], word[LANES * SLOTS];
byte ring[LANES * ENTRIES], cell[LANES * ENTRIES]; /* slot + 1 */
bool closed[LANES];

/* The engines. */
bool killed[LANES], dead[LANES], serving[LANES], stopped[LANES], drains[LANES];
bool engine_locked[LANES];
bool held[LANES * SLOTS];
byte work[LANES * SLOTS], work_text[LANES * SLOTS];

/* The client. */
bool locked;
byte cur, tail, next; /* the attachment, and its writer's and its reader's positions */
bool gone[LANES], told[LANES], mapped[LANES];
byte pin_old = NONE, pin_new = NONE; /* the helper's */
bool pin[LANES * SLOTS];
byte phase[SLOTS], number[SLOTS], home[SLOTS], ended[SLOTS];
bool reported[SLOTS], expired[SLOTS];
byte last_number;
/* The futex word, the counter of moves are not what the waiter read: it does not sleep. */
bool answers = true, moved = true;
bool event, sweep_due;

#define ANSWERED_AT_HOME(slot) (word[AT(home[slot], slot)] == number[slot])
#define SEEN(lane) (closed[lane] || dead[lane])

inline Lock() { atomic { !locked -> locked = true } }
inline Unlock() { locked = false }

inline Touch(lane) { assert(mapped[lane]) }

#ifdef POLLER
#define TELL_EVENT_LOOP event = true
#else
#define TELL_EVENT_LOOP skip
#endif

inline Clear(index) { /* what nobody reads any more need not tell states apart */
  text0[index] = 0;
  text1[index] = 0;
  vector0[index] = 0;
  vector1[index] = 0;
  sequence[index] = 0;
  word[index] = 0
}

inline RetireOne(lane) {
  if
  :: gone[lane] && mapped[lane] && pin_old != lane && pin_new != lane && !pin[AT(lane, 0)] && !pin[AT(lane, 1)] ->
     mapped[lane] = false;
     if
     :: dead[lane] -> Clear(AT(lane, 0)); Clear(AT(lane, 1))
     :: else
     fi
  :: else
  fi
}
#if LANES == 3
#define RETIRE RetireOne(0); RetireOne(1); RetireOne(2)
#else
#define RETIRE RetireOne(0); RetireOne(1)
#endif

/* n1. The result is ended[slot]. */
inline End(slot, how) {
#ifdef MUT_NO_CAS
  if
  :: ended[slot] == 0 -> atomic { assert(ended[slot] == 0 || ended[slot] == how); ended[slot] = how }
  :: else
  fi
#else
  atomic {
    if
    :: ended[slot] == 0 -> ended[slot] = how
    :: else
    fi
  }
#endif
}

inline Settle(slot, lane) {
  if
  :: ended[slot] == 0 ->
#ifdef FAIL_FAST
#ifdef MUT_WORD_BEFORE_GONE
     answered = (word[AT(lane, slot)] == number[slot]);
     was_gone = gone[lane];
#else
     was_gone = gone[lane];
     answered = (word[AT(lane, slot)] == number[slot]);
#endif
     Touch(lane);
     if
     :: answered -> End(slot, ANSWERED + lane)
     :: !answered && was_gone ->
#ifndef HINT
        assert(!ANSWERED_AT_HOME(slot));
#endif
        End(slot, FAILED)
#else
     Touch(lane);
     if
     :: word[AT(lane, slot)] == number[slot] -> End(slot, ANSWERED + lane)
#endif
     :: else ->
        if
        :: expired[slot] -> End(slot, LATE)
        :: else
        fi
     fi
  :: else
  fi
}

inline Verify(slot) { /* what the caller is given */
  if
  :: ended[slot] == LATE -> assert(expired[slot])
  :: ended[slot] == CANCELLED || ended[slot] == FAILED -> skip
  :: else ->
#ifdef MUT_VECTOR_OF_HOME
     from = home[slot];
#else
     from = ended[slot] - ANSWERED;
#endif
     atomic { Touch(from); assert(vector0[AT(from, slot)] == number[slot]) };
     atomic { assert(mapped[from] && vector1[AT(from, slot)] == number[slot]); from = 0 }
  fi
}

inline ReapOne(slot) {
  if
  :: phase[slot] == ABANDONED && ANSWERED_AT_HOME(slot) -> phase[slot] = FREE
  :: else
  fi
}

/* `mine` is the slot, or NONE and then `was_gone` says why. */
inline TrySubmit(mine) {
#ifdef MUT_SUBMIT_UNCHECKED
  Lock();
  was_gone = gone[cur];
  lane = cur;
  Unlock();
  Lock();
#define INTO lane
#else
#define INTO cur
  Lock();                                                                  /* s1 */
  was_gone = gone[cur];
#endif
  if
  :: was_gone -> mine = NONE
  :: else ->
     atomic {
       ReapOne(0);
       ReapOne(1);
       if
       :: phase[0] == FREE -> mine = 0
       :: phase[0] != FREE && phase[1] == FREE -> mine = 1
       :: else -> mine = NONE
       fi;
       if
       :: mine != NONE ->
          last_number++;
          number[mine] = last_number;
          Touch(cur);
          text0[AT(INTO, mine)] = last_number
       :: else
       fi
     };
     if
     :: mine != NONE ->
        atomic {
          text1[AT(INTO, mine)] = number[mine];
          sequence[AT(INTO, mine)] = number[mine];
          ended[mine] = 0;
          reported[mine] = false;
          expired[mine] = false;
          phase[mine] = HELD;
          home[mine] = INTO;
          pin[AT(INTO, mine)] = true;
          if
          :: INTO == cur -> ring[ENTRY(cur, tail)] = mine + 1; tail++
          :: else
          fi
        }
     :: else
     fi
  fi;
  Unlock()
}

inline Release(slot) {
  Lock();
  atomic {                                                                 /* r1 */
    if
#ifdef MUT_RELEASE_BY_ANSWER
    :: ended[slot] >= ANSWERED && ended[slot] < LATE -> phase[slot] = FREE
#elif defined(MUT_RELEASE_ASKS_NOT_GONE)
    :: ANSWERED_AT_HOME(slot) -> phase[slot] = FREE
#else
    :: gone[home[slot]] || ANSWERED_AT_HOME(slot) -> phase[slot] = FREE
#endif
    :: else -> phase[slot] = ABANDONED
    fi;
    pin[AT(0, slot)] = false;                                              /* release.unpinned */
    pin[AT(1, slot)] = false;
#if LANES == 3
    pin[AT(2, slot)] = false;
#endif
    RETIRE
  };
  Unlock()
}

/* w1, w2: until it has ended. */
inline Wait(slot) {
  do
  ::
#ifdef MUT_COUNTERS_AFTER_LOOK
     lane = home[slot];
     Settle(slot, lane);
     atomic { answers = false; moved = false };
#else
     atomic { answers = false; moved = false };
     lane = home[slot];
     Settle(slot, lane);
#endif
     if
     :: ended[slot] != 0 -> break
     :: else
     fi;
     if
     :: SEEN(lane) -> gone[lane] = true /* any thread may ask the lock */
     :: skip
     fi;
     if
     :: atomic { !gone[lane] -> was_gone = false }
     :: atomic { gone[lane] -> was_gone = true }
     fi;
     if
     :: !was_gone -> answers || told[lane] || expired[slot]
#ifdef MUT_WAITS_FOR_HOME
     :: was_gone -> home[slot] != lane || expired[slot]
#elif defined(FAIL_FAST)
     :: was_gone -> skip
#else
     :: was_gone -> moved || expired[slot]
#endif
     fi;
     atomic { Touch(lane); was_gone = false }
  od;
  atomic { lane = 0; answers = true; moved = true }
}

inline CancelHint(slot) { /* where nobody will answer, the ticket ends here */
#ifdef CANCEL
  if
  :: gone[home[slot]] -> End(slot, CANCELLED)
  :: skip
  fi
#else
  skip
#endif
}

#ifdef STOPPED
#define SLOT_CAME_BACK(slot) true /* it stays owed until the engine goes on or dies */
#else
#define SLOT_CAME_BACK(slot) (phase[slot] != ABANDONED || ANSWERED_AT_HOME(slot))
#endif

#ifdef WAITER
proctype Waiter() {
  byte mine[2];
  byte lane, from, left, first;
  bool was_gone, answered;
  atomic { mine[0] = NONE; mine[1] = NONE; left = REQUESTS };
  do
  :: left > 0 && mine[1] == NONE ->
     atomic { answers = false; moved = false };
     TrySubmit(mine[1]);
     if
     :: mine[1] != NONE ->
        left--;
        CancelHint(mine[1]);
        if
        :: mine[0] == NONE -> mine[0] = mine[1]; mine[1] = NONE
        :: else
        fi
     :: mine[1] == NONE && was_gone -> moved
     :: mine[1] == NONE && !was_gone -> moved || answers || told[cur]
     fi;
     atomic { was_gone = false; answers = true; moved = true }
  :: mine[0] != NONE ->
     if
     :: Wait(mine[0]); Verify(mine[0])
#ifndef KEEPS
     :: skip /* released before it is answered */
#endif
     fi;
     Release(mine[0]);
     atomic { mine[0] = mine[1]; mine[1] = NONE }
  :: left == 0 && mine[0] == NONE -> break
  od;
  SLOT_CAME_BACK(0) && SLOT_CAME_BACK(1)
}
#endif

#ifdef POLLER
inline Report(slot) {
  ReapOne(slot);
  if
  :: phase[slot] == HELD && !reported[slot] ->
     lane = home[slot];
     Settle(slot, lane);
     if
     :: ended[slot] != 0 -> atomic { assert(!reported[slot]); reported[slot] = true; found = true }
     :: else
     fi;
     lane = 0
  :: else
  fi
}

/* Both slots may be the other thread's: what it reports of those, that thread learns from `ended`. */
inline FinishOwn(slot) {
  if
  :: own[slot] && reported[slot] -> Verify(slot); own[slot] = false; Release(slot); found = true
  :: else
  fi
}

proctype Poller() {
  bool own[2];
  byte lane, from, left, slot;
  bool was_gone, answered, found;
  left = REQUESTS;
  do
  :: left == 0 && !own[0] && !own[1] -> break
  :: else ->
     event = false;
     found = false;
     if
     :: left > 0 ->
        TrySubmit(slot);
        was_gone = false;
        if
        :: slot != NONE ->
           atomic { left--; own[slot] = true; found = true };
           CancelHint(slot);
           if
           :: skip
#ifndef KEEPS
           :: own[slot] = false; Release(slot)
#endif
           fi
        :: else
        fi;
        slot = 0
     :: else
     fi;
     Lock();                                                               /* p1 */
     do
     :: cell[ENTRY(cur, next)] != 0 ->
        slot = cell[ENTRY(cur, next)] - 1;
        next++;
        Report(slot);
        slot = 0
     :: else -> break
     od;
     if
     :: sweep_due || expired[0] || expired[1] || gone[cur] ->
        sweep_due = false;
        Report(0);
        Report(1)
     :: else
     fi;
     Unlock();
     FinishOwn(0);
     FinishOwn(1);
     if
     :: found
     :: !found && (left > 0 || own[0] || own[1]) -> event
     :: else
     fi
  od;
  SLOT_CAME_BACK(0) && SLOT_CAME_BACK(1)
}
#endif

#if defined(HINT) || defined(MUT_HINT) /* a hang-up of a living engine is taken for its death, once */
#define EVIDENCE (SEEN(cur) || cur == 0)
#else
#define EVIDENCE (SEEN(cur) || gone[cur])
#endif

#ifdef MUT_KEEP_ABANDONED
#define LEAVE_ABANDONED skip
#else
#define LEAVE_ABANDONED phase[slot] = FREE
#endif

#ifdef MUT_SWAP_TEXT
#define SOURCE AT(home[slot], 1 - slot)
#elif defined(MUT_SOURCE_IS_LAST)
#define SOURCE AT(cur, slot)
#else
#define SOURCE AT(home[slot], slot)
#endif

#ifdef MUT_ONLY_LAST_HOME
#define LEFT_BEHIND(slot) (home[slot] == cur)
#elif defined(MUT_OPEN_FIRST)
#define LEFT_BEHIND(slot) true
#else
#define LEFT_BEHIND(slot) (gone[home[slot]])
#endif

inline CopyText() {
  Touch(home[slot]);
  text0[AT(to, slot)] = text0[SOURCE];
  atomic { text1[AT(to, slot)] = text1[SOURCE]; sequence[AT(to, slot)] = number[slot] }  /* move.copied */
}

inline MoveSlot() {
  if
  :: phase[slot] == ABANDONED -> LEAVE_ABANDONED                           /* move.settled */
  :: phase[slot] == HELD && ended[slot] == 0 && LEFT_BEHIND(slot) ->
#ifdef FAIL_FAST
     answered = ANSWERED_AT_HOME(slot);
     if
     :: answered
     :: !answered -> End(slot, FAILED)
     fi;
     answered = false
#else
     if
     :: ANSWERED_AT_HOME(slot)
     :: else ->
#ifdef MUT_ENTRY_BEFORE_TEXT
        atomic { ring[ENTRY(to, to_tail)] = slot + 1; to_tail++ };
        CopyText();
#else
        CopyText();
#endif
        copied = true;
#ifdef HOME_AFTER_ENTRY
        atomic { ring[ENTRY(to, to_tail)] = slot + 1; to_tail++ };
#endif
        atomic {                                                           /* move.home */
          pin[AT(to, slot)] = true;
#ifdef MUT_UNPIN_AT_COPY
          pin[AT(home[slot], slot)] = false;
#endif
          home[slot] = to
        };
#if !defined(HOME_AFTER_ENTRY) && !defined(MUT_ENTRY_BEFORE_TEXT)
        atomic { ring[ENTRY(to, to_tail)] = slot + 1; to_tail++ }          /* move.published */
#endif
     fi
#endif
  :: else
  fi
}

inline Bump() { atomic { moved = true; TELL_EVENT_LOOP } }

#ifdef MUT_READER_KEPT
#define READ_FROM_START skip
#else
#define READ_FROM_START next = 0
#endif
#ifdef MUT_NO_SWEEP
#define SWEEP false
#else
#define SWEEP true
#endif

proctype Helper() {
  byte to, to_tail, slot;
  bool orderly, copied, answered;
  do
  :: orderly = closed[cur];                                                /* move.evidence */
end_idle:
     EVIDENCE;
     if
     :: closed[cur] && !dead[cur] -> orderly = true
#ifndef MUT_ONE_LOOK
     :: dead[cur] -> orderly = closed[cur]
#endif
     :: else
     fi;
     assert(orderly || !closed[cur]);
     atomic { gone[cur] = true; pin_old = cur };                           /* move.gone */
     atomic { told[cur] = true; TELL_EVENT_LOOP };                            /* move.woken */
     to = cur + 1;
     do                                                                    /* move.attached */
     :: serving[to] -> break
     :: dead[to] && to < LAST -> to++
     od;
     Lock();
     atomic { mapped[to] = true; pin_new = to };
#ifdef MUT_BUMP_BEFORE_HOME
     Bump();
#endif
#ifdef MUT_OPEN_FIRST
     atomic { cur = to; tail = 0; READ_FROM_START; sweep_due = SWEEP };
     Unlock();
     Lock();
     to_tail = tail;
#endif
     do
     :: slot < SLOTS ->
        MoveSlot();
        slot++
#ifdef GIVES_UP
     :: slot == 1 && dead[to] && to < LAST -> break /* and moves on from there */
#endif
     :: slot == SLOTS -> break
     od;
#ifdef MUT_OPEN_FIRST
     tail = to_tail;
#else
     atomic { cur = to; tail = to_tail; READ_FROM_START; sweep_due = SWEEP };  /* move.opened */
#endif
#ifdef GIVES_UP
     gone[to] = (slot < SLOTS);
#endif
#ifdef MUT_UNMAP_EARLY
     mapped[pin_old] = false;
#endif
     atomic { pin_old = NONE; RETIRE };
#ifdef MUT_RING_UNPINNED
     atomic { pin_new = NONE; RETIRE };
#endif
     Unlock();
#ifdef MUT_BUMP_IF_COPIED
     if
     :: copied -> Bump()
     :: else -> TELL_EVENT_LOOP
     fi;
#elif defined(MUT_NO_EVENT)
     moved = true;
#elif !defined(MUT_BUMP_BEFORE_HOME)
     Bump();                                                               /* move.bumped */
#endif
     Touch(to);                                                            /* move.rung */
     Lock();
     atomic { pin_new = NONE; RETIRE; to = 0; to_tail = 0; slot = 0; orderly = false; copied = false };
     Unlock()
  od
}

#ifdef CLOSE /* otherwise nobody competes for it */
inline LockEngine() { atomic { !engine_locked[e] -> engine_locked[e] = true } }
inline UnlockEngine() { engine_locked[e] = false }
#else
inline LockEngine() { skip }
inline UnlockEngine() { skip }
#endif

inline Publish() {
#ifdef MUT_DRAIN_REFUSES
  vector0[AT(e, slot)] = (reading || e == LAST -> text : 0);
#else
  vector0[AT(e, slot)] = text;                                             /* a1 */
#endif
  vector1[AT(e, slot)] = text;
  LockEngine();
  if
#ifndef MUT_ANSWER_AFTER_CLOSE
  :: closed[e] -> skip
#endif
  :: else ->
     held[AT(e, slot)] = false;
#if !defined(HINT) && !defined(HOME_AFTER_ENTRY)
     /* Otherwise it was answered here, and moved or failed. */
     assert(number[slot] != got || (home[slot] == e && ended[slot] != FAILED));
#endif
     word[AT(e, slot)] = got;                                              /* a2 */
#ifdef POLLER
     atomic { cell[ENTRY(e, position)] = slot + 1; position++ }            /* a3 */
#endif
  fi;
  UnlockEngine();
  atomic { answers = true; TELL_EVENT_LOOP }                                  /* a4 */
}

inline TakeWork() {
  got = work[AT(e, slot)];
  text = work_text[AT(e, slot)];
  work[AT(e, slot)] = 0;
  work_text[AT(e, slot)] = 0
}

#define HOLDS(e) (held[AT(e, 0)] || held[AT(e, 1)])
#if defined(CLOSE) || defined(HINT) || defined(MUT_HINT) /* the next attachment may be to the same engine */
#define NEXT_MAY_SERVE(e) (dead[e] || closed[e] || gone[e])
#else
#define NEXT_MAY_SERVE(e) dead[e]
#endif
#ifdef MUT_DRAIN_REFUSES
#define READS true
#else
#define READS reading
#endif
#ifdef MUT_CLOSE_BEFORE_ANSWERS
#define ALL_ANSWERED true
#else
#define ALL_ANSWERED (!HOLDS(e))
#endif

proctype Engine(byte e) {
  byte slot, got, text, taken, position;
  bool reading;
  {
    if
    :: e == 0
    :: e > 0 ->
end_waits:
       NEXT_MAY_SERVE(e - 1)
    fi;
    atomic { reading = true; serving[e] = true };
end:
    do
    :: atomic {                                                            /* t1 */
         READS && !closed[e] && ring[ENTRY(e, taken)] != 0 ->
         slot = ring[ENTRY(e, taken)] - 1;
         taken++;
         assert(!held[AT(e, slot)]);
         held[AT(e, slot)] = true;
         got = sequence[AT(e, slot)];
         text = text0[AT(e, slot)]
       };
       atomic {
         assert(text1[AT(e, slot)] == text);
         work[AT(e, slot)] = got;
         work_text[AT(e, slot)] = text;
         got = 0;
         text = 0;
         slot = 0
       }
    :: atomic {
         work[AT(e, 0)] != 0 || work[AT(e, 1)] != 0;
         if
         :: work[AT(e, 0)] != 0 -> slot = 0
         :: work[AT(e, 1)] != 0 -> slot = 1
         fi;
         TakeWork()
       };
       Publish();
       atomic { got = 0; text = 0; slot = 0 }
    :: drains[e] && reading -> reading = false                             /* drain.stopped_reading */
    :: drains[e] && !reading && ALL_ANSWERED ->                            /* drain.answered */
       LockEngine();
       closed[e] = true;                                                   /* drain.closed */
       UnlockEngine();
       atomic { answers = true; TELL_EVENT_LOOP };
#ifdef MUT_CLOSE_BEFORE_ANSWERS
       do
       :: atomic { work[AT(e, 0)] != 0 -> slot = 0; TakeWork() }; Publish()
       :: atomic { work[AT(e, 1)] != 0 -> slot = 1; TakeWork() }; Publish()
       :: else -> break
       od;
#endif
       break
    od
  } unless { killed[e] || stopped[e] };
  if
  :: killed[e]
  :: stopped[e] && !killed[e] ->
end_stopped:
     killed[e]
  :: else
  fi;
  atomic {
    held[AT(e, 0)] = false;
    held[AT(e, 1)] = false;
    work[AT(e, 0)] = 0;
    work[AT(e, 1)] = 0;
    work_text[AT(e, 0)] = 0;
    work_text[AT(e, 1)] = 0;
    if
    :: gone[e] && !mapped[e] -> Clear(AT(e, 0)); Clear(AT(e, 1))
    :: else
    fi;
    dead[e] = true /* the kernel frees its lock */
  }
}

/* What happens to an engine, at any step. */
proctype Fate(byte e) {
#if defined(CLOSE)
  if
  :: e == 0 -> LockEngine(); closed[0] = true; UnlockEngine(); answers = true; TELL_EVENT_LOOP
  :: e > 0
  fi
#elif defined(STOPPED)
  stopped[e] = true
#elif defined(DRAIN)
  if
  :: drains[e] = true
  :: drains[e] = true; killed[e] = true
  :: e > 0
  fi
#elif defined(HINT) || defined(MUT_HINT) || defined(NO_DEATH)
  skip
#elif defined(DEAD_FIRST)
  killed[e] = true
#else
  if
  :: killed[e] = true
  :: e > 0
  fi
#endif
}

#define Expire(slot) \
  atomic { phase[slot] == HELD && !expired[slot] && ended[slot] == 0 -> expired[slot] = true; TELL_EVENT_LOOP }

proctype Clock() {
#ifdef STOPPED
end:
  do
  :: Expire(0)
  :: Expire(1)
  od
#else
  if
  :: Expire(0)
  :: Expire(1)
  :: skip
  fi
#endif
}

init {
  atomic {
    mapped[0] = true;
#ifdef DEAD_FIRST /* engine 0 takes nothing: a smaller search for what is about later ones */
    killed[0] = true;
#endif
    run Engine(0);
    run Engine(1);
    run Fate(0);
#if LANES == 3
    run Engine(2);
    run Fate(1);
#endif
    run Helper();
#ifdef WAITER
    run Waiter();
#endif
#ifdef POLLER
    run Poller();
#endif
#if defined(DEADLINE) || defined(STOPPED)
    run Clock()
#endif
  }
}
