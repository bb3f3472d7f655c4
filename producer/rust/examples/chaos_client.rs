//! A client for the chaos over real processes (`tests/crash/survival.h`): blocking calls on the main thread, and futures
//! on the same client. The same options, signals and counts as the clients in C and C++ (`tests/crash/survivor.c`):
//!   chaos_client --socket S --tally FILE --prefix P --seed N --deadline-ms N [--lanes N] [--slots N] [--corrupt N]
//!                [--fail-fast 1]
//! SIGUSR1: ends its calls, begins no more and keeps the client attached. SIGTERM: detaches and exits.

#[path = "../tests/support/fake.rs"]
mod fake;

use std::collections::HashMap;
use std::convert::TryInto;
use std::env;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::mem;
use std::os::raw::{c_int, c_long};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::process::{exit, id};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use fake::{is_right, Random};
use sutra_embed::{AttachOptions, BatchOptions, Client, Embedding, Error, Events, RequestOptions};

const SIGUSR1: c_int = 10;
const SIGTERM: c_int = 15;
const TEXTS: u64 = 3000;
static STOP: AtomicBool = AtomicBool::new(false);
static QUIET: AtomicBool = AtomicBool::new(false);

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

extern "C" {
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn clock_gettime(clock: c_int, now: *mut Timespec) -> c_int;
}

extern "C" fn on_signal(number: c_int) {
    STOP.fetch_or(number == SIGTERM, Ordering::Relaxed);
    QUIET.store(true, Ordering::Relaxed);
}

/// `CLOCK_MONOTONIC`, which the driver compares with its own.
fn now_ns() -> u64 {
    // SAFETY: an all-zero structure of two integers is one, and the call writes only that.
    let mut now: Timespec = unsafe { mem::zeroed() };
    unsafe { clock_gettime(1, &mut now) };
    now.seconds as u64 * 1_000_000_000 + now.nanoseconds as u64
}

fn text_of(prefix: &str, id: u64) -> String {
    format!("{prefix} {id} {}", "x".repeat((id * 37 % if id % 32 == 31 { 7000 } else { 300 }) as usize))
}

/// Half are computed and leave the log in peace, some are written into it again, the rest are hits before long.
fn options_of(options: &RequestOptions, drawn: u64) -> RequestOptions {
    RequestOptions { skip_lookup: drawn <= 8, skip_store: drawn < 8, ..*options }
}

/// The words of `tests/crash/survivor.h`, written at each change, so that a SIGKILL loses none.
#[derive(Clone, Copy)]
enum Word {
    Answers,
    Lost,
    Wrong,
    Overdue,
    BlockingNs,
    LoopNs,
    Phase,
    Resubmitted,
    Engines,
}

struct Tally {
    file: File,
    words: Mutex<[u64; 9]>,
    deadline: Duration,
    corrupt_every: u64,
    checked: AtomicU64,
}

impl Tally {
    fn change(&self, word: Word, change: impl FnOnce(u64) -> u64) {
        let mut words = self.words.lock().unwrap();
        words[word as usize] = change(words[word as usize]);
        drop(self.file.write_all_at(&words[word as usize].to_ne_bytes(), word as u64 * 8));
    }

    fn set(&self, word: Word, value: u64) {
        self.change(word, |_| value);
    }

    fn complain(&self, word: Word, text: &str, what: &str) {
        self.change(word, |count| count + 1);
        eprintln!("survivor in Rust {}: {}: {what}", id(), &text[..text.len().min(60)]);
    }

    fn check(&self, text: &str, answer: Result<&[f32], &Error>, began: Instant) {
        if began.elapsed() > self.deadline + Duration::from_secs(5) {
            self.complain(Word::Overdue, text, "beyond its deadline");
        }
        match answer {
            Ok(vector) => {
                let mut vector = vector.to_vec();
                let number = self.checked.fetch_add(1, Ordering::Relaxed) + 1;
                if self.corrupt_every != 0 && number % self.corrupt_every == 0 {
                    vector[0] += 0.01;
                }
                match is_right(text, &vector) {
                    true => self.change(Word::Answers, |count| count + 1),
                    false => self.complain(Word::Wrong, text, "the vector of another text, or of none"),
                }
            }
            Err(error) => self.complain(Word::Lost, text, &error.to_string()),
        }
    }
}

struct Ignore;

impl Wake for Ignore {
    fn wake(self: Arc<Self>) {}
}

/// Up to eight futures at a time; some are dropped early. The crate's own thread polls.
fn run_futures(events: &Events, tally: &Tally, prefix: &str, mut random: Random, options: &RequestOptions) {
    let waker = Waker::from(Arc::new(Ignore));
    let mut pending: Vec<(String, Instant, Embedding)> = Vec::new();
    while !QUIET.load(Ordering::Relaxed) || !pending.is_empty() {
        if pending.len() < 8 && !QUIET.load(Ordering::Relaxed) {
            let text = text_of(prefix, random.below(TEXTS));
            let embedding = events.embed(&text, &options_of(options, random.below(16)));
            pending.push((text, Instant::now(), embedding));
        }
        if random.below(16) == 0 && !pending.is_empty() {
            drop(pending.swap_remove(0));
        }
        pending.retain_mut(|(text, began, embedding)| {
            match Pin::new(embedding).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(answer) => {
                    tally.check(text, answer.as_deref(), *began);
                    tally.set(Word::LoopNs, now_ns());
                    false
                }
                Poll::Pending => true,
            }
        });
        thread::sleep(Duration::from_millis(1));
    }
}

fn run_calls(client: &Client, tally: &Tally, prefix: &str, random: &mut Random, options: &RequestOptions) {
    while !QUIET.load(Ordering::Relaxed) {
        let texts: Vec<String> = (0..=random.below(12)).map(|_| text_of(prefix, random.below(TEXTS))).collect();
        let options = options_of(options, random.below(16));
        let began = Instant::now();
        let batch = client.embed_batch(&texts, &options, BatchOptions::default());
        for (text, answer) in texts.iter().zip(batch.iter()) {
            tally.check(text, answer, began);
        }
        tally.set(Word::BlockingNs, now_ns());
        if let Ok(info) = client.info() {
            tally.set(Word::Resubmitted, info.resubmitted);
            tally.set(Word::Engines, info.engines.into());
        }
        // Leaves the other processes of a small machine their share.
        thread::sleep(Duration::from_millis(1));
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let values: HashMap<&str, &str> =
        arguments.chunks(2).filter_map(|pair| Some((pair[0].as_str(), pair.get(1)?.as_str()))).collect();
    let text = |name| values.get(name).copied().unwrap_or_default();
    let number = |name: &str, default: u64| values.get(name).map_or(default, |value| value.parse().unwrap_or(default));
    for number in [SIGTERM, SIGUSR1] {
        // SAFETY: the handler stores two words.
        unsafe { signal(number, on_signal) };
    }

    let deadline = Duration::from_millis(number("--deadline-ms", 30_000));
    let file = OpenOptions::new().create(true).write(true).open(text("--tally")).unwrap_or_else(|_| exit(2));
    let (words, checked) = (Mutex::new([0; 9]), AtomicU64::new(0));
    let tally = Tally { file, words, deadline, corrupt_every: number("--corrupt", 0), checked };
    tally.set(Word::Engines, 0); // the file's length
    let attach = AttachOptions {
        lanes_max: number("--lanes", 0).try_into().unwrap_or(0),
        slots: number("--slots", 0).try_into().unwrap_or(0),
        ..AttachOptions::default()
    };
    let client = loop {
        match Client::attach(text("--socket"), &attach) {
            Ok(client) => break client,
            Err(_) if STOP.load(Ordering::Relaxed) => return,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    tally.set(Word::Phase, 1);
    let options =
        RequestOptions { timeout: deadline, fail_fast: number("--fail-fast", 0) != 0, ..RequestOptions::default() };
    let mut random = Random(number("--seed", 1));
    let seed = Random(random.below(u64::MAX));
    let events = Events::new(&client).unwrap_or_else(|_| exit(2));
    let poller = events.spawn_thread().unwrap_or_else(|_| exit(2));
    thread::scope(|scope| {
        scope.spawn(|| run_futures(&events, &tally, text("--prefix"), seed, &options));
        run_calls(&client, &tally, text("--prefix"), &mut random, &options);
    });
    if !STOP.load(Ordering::Relaxed) {
        tally.set(Word::Phase, 2);
    }
    while !STOP.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
    }
    drop(poller);
}
