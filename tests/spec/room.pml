/* Room after SUTRA_FULL: an event loop that was told `full` and sleeps on its descriptor wakes once a slot is free;
 * and one that was told that there is no engine, once there is one (-DREVIVE).
 *
 * One lane of two slots: a ticket that another thread releases at any time (-DRELEASE), and a request whose ticket was
 * released before its answer: its slot is free once the engine has answered it (-DABANDONED). The event loop submits,
 * is told `full`, may poll, sleeps, polls, and submits again; with -DRIVAL another thread submits too, releases what it
 * got, and sleeps on nothing; with -DKEEPS both slots are abandoned ones, and it keeps the one that it gets. With
 * -DREVIVE the lane is lost at first, and the helper thread opens it at any time, with one slot. A lost event is a loop
 * that sleeps beside a free slot: an invalid end state. Sequentially consistent: the lane's mutex orders
 * everything but the pipe, which event_loop.pml covers.
 *
 *   submit   s0 end this thread's part of the wish        EndRoomWish (producer/client_signals.h)
 *            s1 a free slot, or an abandoned one that is answered; else room_asked = 1   HasRoomLocked
 *            s2 wish; what was told is forgotten          WishForRoom, in AcquireLane (producer/lane_pool.cc)
 *            s3 s1 again
 *            s4 found after all: take the wish back, and tell the others that wish       TakeWishBack;
 *               lost: the wish stays, as for a full lane
 *   free     f1 asked and wished: the descriptor is readable until s0 or s2     FreeSlotLocked, RoomFreed
 *   release  r1 the slot is free, f1                      ReleaseLocked
 *   open     o1 the lane is not lost, its slot is free     OpenLocked, in MoveLane (producer/resubmission.cc)
 *            o2 a reminder; wished: the descriptor is readable until s0 or s2    LanesChanged
 *   engine   e1 result word, entry, one byte into the pipe while armed     Lane::Publish, Lane::Wake
 *   poll     p1 read entries, drain the pipe, take the reminder, arm, read again   PollLocked (producer/lane_poll.cc)
 *            p2 the entry of an abandoned slot frees it, f1                ReapSlotLocked
 *            p3 room that was told stays: no poll can use it; this thread learns of the wish   LearnRoomWish
 */
#ifdef KEEPS
#define SLOTS 2
#else
#define SLOTS 1
#endif
#define LOOP 0
#define OTHER 1
#ifdef REVIVE
bool lost = true;
#else
bool lost;
#endif
bool reminded;
bool locked, room_asked;
bool pipe, room_told;
byte wish, last_wish, wishers;
byte joined[2], learned[2];               /* of each thread: numbers of wishes */
bool answered, entry, entry_read, reaped; /* of the abandoned slot */
byte free_slots;

inline Lock() { atomic { !locked -> locked = true } }

inline EndWish() { wish = 0; wishers = 0; room_told = false }

inline LeaveWish(me) {
  if
  :: wish != 0 && joined[me] == wish ->
     joined[me] = 0;
     wishers--;
     if
     :: wishers == 0 -> EndWish()
     :: else
     fi
  :: else
  fi
}

inline TellRoom() {                                                        /* f1 */
  atomic {
    if
    :: room_asked && wish != 0 -> room_told = true
    :: else
    fi;
    room_asked = false
  }
}

inline Look(me) {                                                          /* s1 */
  Lock();
  gone = lost;
  if
  :: !gone && free_slots == 0 && answered && !reaped ->
     reaped = true;
#ifndef MUT_REAP_TELLS_NOBODY
     TellRoom();
#endif
     free_slots = free_slots + SLOTS
  :: else
  fi;
  if
  :: !gone && free_slots > 0 -> atomic { free_slots--; found = true }
  :: !gone && free_slots == 0 -> room_asked = true
  :: gone
  fi;
  locked = false
}

inline Submit(me) {
  atomic {                                                                 /* s0 */
#ifdef MUT_EVERY_SUBMIT_ENDS_THE_WISH
    EndWish();
#endif
    if
    :: wish != 0 && learned[me] == wish -> EndWish()
    :: else -> LeaveWish(me)
    fi
  };
  Look(me);
  if
  :: found
  :: else ->
     atomic {                                                              /* s2 */
       if
       :: wish == 0 -> last_wish++; wish = last_wish
       :: else
       fi;
       wishers++;
       joined[me] = wish;
       room_told = false
     }
#ifndef MUT_NO_SECOND_LOOK
     ; Look(me);                                                           /* s3 */
     if
     :: found ->
        atomic {                                                           /* s4 */
#ifdef MUT_TAKEN_BACK_UNTOLD
          LeaveWish(me)
#else
          LeaveWish(me);
          room_told = (wish != 0)
#endif
        }
#ifdef MUT_GONE_TAKES_THE_WISH_BACK
     :: !found && gone ->
        atomic {
          LeaveWish(me);
          room_told = (wish != 0)
        }
#endif
     :: else
     fi
#endif
  fi
}

inline Read() {
  if
  :: entry && !entry_read ->
     entry_read = true;
     if
#ifndef MUT_ABANDONED_TELLS_NOBODY
     :: !reaped ->                                                         /* p2 */
        reaped = true;
        free_slots = free_slots + SLOTS;
        TellRoom()
#endif
     :: else
     fi
  :: else
  fi
}

inline Poll() {                                                            /* p1 */
  Lock();
  Read();
  pipe = false;
  reminded = false;
  Read();
  locked = false;
#ifdef MUT_POLL_TAKES_ROOM
  room_told = false;
#endif
  atomic {                                                                 /* p3 */
    if
    :: room_told -> learned[LOOP] = wish
    :: else
    fi
  }
}

proctype EventLoop() {
  bool found, gone;
  do
  :: Submit(LOOP);
     if
     :: found -> break
     :: else
     fi;
     if
     :: Poll()
     :: skip
     fi;
     pipe || room_told || reminded;
     Poll()
  od
}

inline Release() {                                                         /* r1 */
  Lock();
  free_slots++;
  TellRoom();
  locked = false
}

proctype Releaser() { Release() }

proctype Rival() {
  bool found, gone;
  byte tries;
  do
  :: tries < 2 ->
     tries++;
     found = false;
     Submit(OTHER);
     if
#ifdef KEEPS
     :: found -> break
#else
     :: found -> Release()
#endif
     :: else
     fi
  :: tries == 2 -> break
  od
}

inline Open() {                                                            /* o1 */
  Lock();
  lost = false;
  free_slots++;
  locked = false
}

inline LanesChanged() {                                                    /* o2 */
  atomic {
    reminded = true;
#ifndef MUT_OPEN_TELLS_NO_ROOM
    if
    :: wish != 0 -> room_told = true
    :: else
    fi
#endif
  }
}

proctype Helper() {
#ifdef MUT_TOLD_BEFORE_OPEN
  LanesChanged();
  Open()
#else
  Open();
  LanesChanged()
#endif
}

proctype Engine() {                                                        /* e1 */
  answered = true;
  entry = true;
  pipe = true
}

init {
  atomic {
    run EventLoop();
#ifdef RIVAL
    run Rival();
#endif
#ifdef RELEASE
    run Releaser();
#endif
#ifdef REVIVE
    run Helper();
#endif
#ifdef ABANDONED
    run Engine()
#endif
  }
}
