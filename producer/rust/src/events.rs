//! Futures without a runtime: one descriptor says when to look, and one call looks.
//!
//! Life of a request: queued -> submitted -> done -> taken; it is submitted at once where there is room and nobody waits
//! for it. Queued are those that the client was told `Full` or that there is no engine for; whoever polls submits
//! them, in order, as room comes.
//!
//! Locks: the table, then one entry's state; never the other way round. An entry is in the table before it is submitted
//! and its state is locked meanwhile, so that a poll on another thread, which may see the answer before the submit
//! returned, finds it and waits for the ticket. No waker is woken or dropped under a lock: it may own a task, and that
//! other futures of the same table.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::mem::size_of;
use std::os::unix::io::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::options::RequestOptions;
use crate::status::{Error, Priority, Reason, Status};
use crate::ticket::Ticket;
use crate::{ffi, os};

const RESULTS_PER_POLL: usize = 64;
const POLLS_MAX: usize = 16; // then the executor has its turn; the descriptor stays readable
/// The library tells of room until the thread that was told `Full` submits something else, which a caller may do with
/// the same client; so whoever is queued looks again after so long, told or not.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Who goes first: by priority, then fairly (the first text of a request before the second of another), then by age.
type Place = (u8, u64, u64);

enum Step {
    Queued { text: Box<str>, why: Error },
    Submitted { ticket: Ticket },
    Done(Result<Vec<f32>, Error>),
    Over,
}

struct State {
    step: Step,
    waker: Option<Waker>,
}

struct Entry {
    place: Place,
    deadline: Instant,
    options: RequestOptions,
    state: Mutex<State>,
}

impl Entry {
    fn id(&self) -> u64 {
        self.options.tag
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Table {
    queue: BTreeMap<Place, Arc<Entry>>,
    submitted: HashMap<u64, Arc<Entry>>,
    turn: u64,                 // of the last that left the queue
    earliest: Option<Instant>, // no deadline in the queue is earlier
    timer_is_set: bool,
}

impl Table {
    fn enqueue(&mut self, entry: Arc<Entry>) {
        let earliest = self.earliest.map_or(entry.deadline, |earliest| earliest.min(entry.deadline));
        self.earliest = Some(earliest);
        self.queue.insert(entry.place, entry);
    }

    /// Ends what has waited too long. RETURNS whom to wake.
    fn end_overdue(&mut self, now: Instant) -> Vec<Waker> {
        if self.earliest.map_or(true, |earliest| now < earliest) {
            return Vec::new();
        }
        let overdue: Vec<Place> =
            self.queue.values().filter(|entry| entry.deadline <= now).map(|entry| entry.place).collect();
        let ended = overdue.iter().filter_map(|place| self.queue.remove(place));
        let wakers = ended.filter_map(|entry| entry.lock().give_up()).collect();
        self.earliest = self.queue.values().map(|entry| entry.deadline).min();
        wakers
    }
}

struct Shared {
    client: Client,
    descriptor: OwnedFd,
    timer: OwnedFd,
    table: Mutex<Table>,
    next_id: AtomicU64,
}

/// A client's futures, and the descriptor that says when they may have got further. Cloning it shares it.
///
/// Wait until the descriptor ([`AsRawFd`]) is readable, in whatever loop there is (epoll, mio, tokio's `AsyncFd`), then
/// call [`Events::poll`]; or let [`Events::spawn_thread`] do both. The descriptor is the same one for life, over engines
/// too. Futures go on at the next engine until their deadline. [`Client::cancel_all`] ends those that are submitted.
///
/// In a forked child futures end with [`Status::Forked`].
#[derive(Clone)]
pub struct Events {
    shared: Arc<Shared>,
}

impl Events {
    /// # Errors
    /// [`Status::BadArgument`] if the client has events already (answers are reported once: clone those);
    /// [`Status::OutOfMemory`] without descriptors; [`Status::Forked`].
    pub fn new(client: &Client) -> Result<Events, Error> {
        // SAFETY: the handle is attached.
        let library = unsafe { ffi::sutra_event_fd(client.handle.raw) };
        if library < 0 {
            let forked = client.handle.is_forked();
            return Err(Error::of_call(if forked { Status::Forked } else { Status::OutOfMemory }.number()));
        }
        let no_descriptor = |error: io::Error| Error::new(Status::OutOfMemory, format!("a descriptor: {error}"));
        let timer = os::timer().map_err(no_descriptor)?;
        let descriptor = os::any_of(&[library, timer.as_raw_fd()]).map_err(no_descriptor)?;
        if client.handle.has_events.swap(true, Ordering::Relaxed) {
            return Err(Error::new(Status::BadArgument, "this client has events already: clone those"));
        }
        let events = Events {
            shared: Arc::new(Shared {
                client: client.clone(),
                descriptor,
                timer,
                table: Mutex::new(Table::default()),
                next_id: AtomicU64::new(1),
            }),
        };
        events.poll(); // arms the descriptor
        Ok(events)
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Starts a request: submits it, or queues it where there is no room or no engine now. Never waits. The answer
    /// comes by [`Events::poll`], whoever calls that.
    ///
    /// Dropping the future cancels the request.
    pub fn embed(&self, text: &str, options: &RequestOptions) -> Embedding {
        self.embed_as(0, text, options)
    }

    /// The same for the text number `position` of a list, which waits behind others' first ones where there is no room.
    pub(crate) fn embed_as(&self, position: u64, text: &str, options: &RequestOptions) -> Embedding {
        let shared = &self.shared;
        // Relaxed: only a number.
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let mut entry = Entry {
            place: (rank(options.priority), position, id),
            deadline: Instant::now() + options.timeout_or_default(),
            options: RequestOptions { tag: id, ..*options },
            state: Mutex::new(State { step: Step::Over, waker: None }),
        };
        if shared.client.handle.is_forked() {
            let forked = Error::new(Status::Forked, "this client belongs to the parent process: attach in the child");
            entry.state = Mutex::new(State { step: Step::Done(Err(forked)), waker: None });
            return Embedding { shared: shared.clone(), entry: Arc::new(entry) };
        }
        let mut table = shared.lock();
        entry.place.1 = table.turn.saturating_add(position);
        let entry = Arc::new(entry);
        if table.queue.is_empty() {
            let mut state = entry.lock();
            table.submitted.insert(id, entry.clone());
            drop(table);
            state.step = shared.first_step(text, &entry.options);
            let submitted = matches!(state.step, Step::Submitted { .. });
            let queued = matches!(state.step, Step::Queued { .. });
            drop(state);
            if !submitted {
                table = shared.lock();
                table.submitted.remove(&id);
                if queued {
                    table.enqueue(entry.clone());
                    // Room that came between the submit and the queue was told to nobody who is in it.
                    shared.pump(table);
                }
            }
        } else {
            let why = Error::new(Status::Full, "others wait for a free slot before it");
            entry.lock().step = Step::Queued { text: text.into(), why };
            table.enqueue(entry.clone());
        }
        Embedding { shared: shared.clone(), entry }
    }

    /// Looks once what happened: completes futures, submits those that wait for room or an engine. Never waits. From any
    /// thread. After it the descriptor is armed for what happens next, or is still readable.
    pub fn poll(&self) {
        let shared = &self.shared;
        if shared.client.handle.is_forked() {
            return;
        }
        let mut results = [ffi::sutra_result::sized(); RESULTS_PER_POLL];
        for _ in 0..POLLS_MAX {
            // SAFETY: the array has as many elements as are said, each of its size.
            let count = unsafe {
                ffi::sutra_poll(
                    shared.client.handle.raw,
                    results.as_mut_ptr(),
                    size_of::<ffi::sutra_result>(),
                    results.len(),
                )
            };
            for result in &results[..count] {
                shared.complete(result);
            }
            if count < results.len() {
                break;
            }
        }
        shared.pump(shared.lock());
    }

    /// A thread that waits for the descriptor and polls, for programs without a loop of their own. It ends when what this
    /// returns is dropped.
    ///
    /// # Errors
    /// Of the operating system: no thread, no descriptor.
    pub fn spawn_thread(&self) -> io::Result<EventThread> {
        let stop = os::signal_fd()?;
        let stopped = stop.as_raw_fd(); // open until the thread was joined
        let events = self.clone();
        let thread = Builder::new().name("sutra-events".into()).spawn(move || loop {
            match os::wait_for(events.as_raw_fd(), stopped) {
                (_, true) => break,
                (true, _) => events.poll(),
                _ => {}
            }
        })?;
        Ok(EventThread { stop, thread: Some(thread), process: process::id() })
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.descriptor.as_raw_fd()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.client.handle.has_events.store(false, Ordering::Relaxed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A submit cannot say whether the engine that is gone will have a successor; a call that does not wait for one can.
    fn submit(&self, text: &str, options: &RequestOptions) -> Result<Ticket, Error> {
        let error = match self.client.submit(text, options) {
            Err(error) if error.status() == Status::EngineGone => error,
            other => return other,
        };
        let at_once = RequestOptions { fail_fast: true, timeout: Duration::from_millis(1), ..*options };
        match self.client.embed(text, &at_once) {
            Err(why) if why.status() == Status::EngineGone => Err(why),
            _ => Err(error), // it is back: the next submit finds it
        }
    }

    fn first_step(&self, text: &str, options: &RequestOptions) -> Step {
        match self.submit(text, options) {
            Ok(ticket) => Step::Submitted { ticket },
            Err(why) if waits(&why, options) => Step::Queued { text: text.into(), why },
            Err(error) => Step::Done(Err(error)),
        }
    }

    /// A ticket that was reported: if it is a future's, the future has its vector now.
    fn complete(&self, result: &ffi::sutra_result) {
        let entry = match self.lock().submitted.get(&result.tag) {
            Some(entry) => entry.clone(),
            None => return, // the caller's own ticket, or one of a dropped future
        };
        let mut state = entry.lock();
        match &state.step {
            // The caller's own tickets may have any tag.
            Step::Submitted { ticket } if ticket.number() == result.ticket => {}
            _ => return,
        }
        let waker = match std::mem::replace(&mut state.step, Step::Over) {
            Step::Submitted { ticket } => state.finish(ticket.take_now(result.width as usize)),
            _ => None,
        };
        drop(state);
        self.lock().submitted.remove(&result.tag);
        wake(waker);
    }

    /// Submits from the queue what finds room, and ends what has waited too long.
    fn pump(&self, mut table: MutexGuard<'_, Table>) {
        if table.queue.is_empty() {
            self.rest(&mut table);
            return;
        }
        let now = Instant::now();
        let mut wakers = table.end_overdue(now);
        loop {
            let entry = match table.queue.values().next() {
                Some(entry) => entry.clone(),
                None => break,
            };
            let mut state = entry.lock();
            let text = match std::mem::replace(&mut state.step, Step::Over) {
                Step::Queued { text, .. } => text,
                other => {
                    state.step = other;
                    table.queue.remove(&entry.place); // its future was dropped
                    continue;
                }
            };
            let options = RequestOptions { timeout: entry.deadline.saturating_duration_since(now), ..entry.options };
            table.submitted.insert(entry.id(), entry.clone());
            match self.submit(&text, &options) {
                Ok(ticket) => state.step = Step::Submitted { ticket },
                Err(why) if waits(&why, &options) => {
                    state.step = Step::Queued { text, why };
                    table.submitted.remove(&entry.id());
                    break;
                }
                Err(error) => {
                    table.submitted.remove(&entry.id());
                    wakers.extend(state.finish(Err(error)));
                }
            }
            table.queue.remove(&entry.place);
            table.turn = table.turn.max(entry.place.1);
        }
        self.rest(&mut table);
        drop(table);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Before the table is let go: the timer, and the end of a wish for room that nobody has any more.
    fn rest(&self, table: &mut Table) {
        if !table.queue.is_empty() {
            let now = Instant::now();
            let left = table.earliest.map_or(LOOK_AGAIN, |earliest| earliest.saturating_duration_since(now));
            os::set_timer(&self.timer, Some(LOOK_AGAIN.min(left)));
            table.timer_is_set = true;
            return;
        }
        table.earliest = None;
        if table.timer_is_set {
            os::set_timer(&self.timer, None);
            table.timer_is_set = false;
        }
        // Under the lock: whoever is told `Full` from now on queues, looks again, and is told so anew.
        self.client.submit_many::<&str>(&[], &RequestOptions::default());
    }
}

impl State {
    /// RETURNS whom to wake, without the locks.
    fn finish(&mut self, result: Result<Vec<f32>, Error>) -> Option<Waker> {
        self.step = Step::Done(result);
        self.waker.take()
    }

    fn give_up(&mut self) -> Option<Waker> {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Queued { why, .. } => self.finish(Err(why)),
            other => {
                self.step = other;
                None
            }
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn rank(priority: Priority) -> u8 {
    match priority {
        Priority::Query => 0,
        Priority::Normal => 1,
        Priority::Bulk => 2,
    }
}

/// Whether a submit that failed so is to be tried again until the request's deadline, as the blocking calls do.
fn waits(error: &Error, options: &RequestOptions) -> bool {
    match error.status() {
        Status::Full => true,
        Status::EngineGone | Status::ShuttingDown => {
            !options.fail_fast && ![Reason::OtherIdentity, Reason::OtherLayout].contains(&error.reason())
        }
        _ => false,
    }
}

/// A request under way; resolves to its vector or to why it failed. Dropping it cancels the request and frees its slot.
#[must_use = "dropping it cancels the request"]
pub struct Embedding {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
}

impl Future for Embedding {
    type Output = Result<Vec<f32>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = context.waker().clone();
        let mut state = self.entry.lock();
        match std::mem::replace(&mut state.step, Step::Over) {
            Step::Done(result) => Poll::Ready(result),
            Step::Over => panic!("an Embedding was polled after it was ready"),
            under_way => {
                state.step = under_way;
                let former = state.waker.replace(waker);
                drop(state);
                drop(former);
                Poll::Pending
            }
        }
    }
}

impl Drop for Embedding {
    fn drop(&mut self) {
        if self.shared.client.handle.is_forked() {
            return; // another thread may have held a lock at the fork
        }
        // The ticket is released and the waker dropped at the end, without a lock.
        let was = std::mem::replace(&mut *self.entry.lock(), State { step: Step::Over, waker: None });
        match was.step {
            Step::Queued { .. } => drop(self.shared.lock().queue.remove(&self.entry.place)),
            Step::Submitted { .. } => drop(self.shared.lock().submitted.remove(&self.entry.id())),
            Step::Done(_) | Step::Over => {}
        }
    }
}

/// The thread of [`Events::spawn_thread`].
pub struct EventThread {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

impl Drop for EventThread {
    fn drop(&mut self) {
        if self.process != process::id() {
            return; // a forked child has no such thread
        }
        os::signal(&self.stop);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
