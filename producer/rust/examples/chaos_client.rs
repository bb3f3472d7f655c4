//! A client for the chaos over real processes (`tests/crash`): embeds its own texts through any number of engine deaths
//! until SIGTERM, in blocking batches and in futures on the same client. Speaks as the clients in C++ do:
//!   chaos_client chaos --socket S --prefix P --oracle FILE [--seed N] [--texts N] [--corrupt N] [--corrupt-polled N]
//! It says `attached`, writes to FILE what it is about to send (`I id`) and what was answered (`A id generation`), and says
//! `right` at the end; exit code 3 for a wrong vector, 4 for a status that must not be.

#[path = "../tests/support/fake.rs"]
mod fake;

use std::collections::HashMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Write};
use std::os::raw::c_int;
use std::pin::Pin;
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use fake::{is_right, Random};
use sutra_embed::{AttachOptions, BatchOptions, Client, Embedding, Error, Events, RequestOptions, Status};

const SIGTERM: c_int = 15;
const DEADLINE: Duration = Duration::from_secs(5);
static STOP: AtomicBool = AtomicBool::new(false);

extern "C" {
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
}

extern "C" fn on_signal(_: c_int) {
    STOP.store(true, Ordering::Relaxed);
}

fn complain(code: i32, what: &str) -> ! {
    eprintln!("chaos client in Rust: {what}");
    exit(code)
}

fn text_of(prefix: &str, id: u64) -> String {
    format!("{prefix} {id}{}", "x".repeat((id * 37 % 900) as usize))
}

/// Whether the answer is right; whether there is none because engines died.
fn check(text: &str, answer: Result<&[f32], &Error>, corrupt: bool) -> bool {
    match answer {
        Ok(vector) => {
            let mut vector = vector.to_vec();
            vector[0] += if corrupt { 0.01 } else { 0.0 };
            if !is_right(text, &vector) {
                complain(3, &format!("the vector of another text, or of none: {text}"));
            }
            true
        }
        Err(error) => {
            use Status::{DeadlineExceeded, EngineGone, Full, Overloaded, ShuttingDown};
            if ![EngineGone, ShuttingDown, DeadlineExceeded, Overloaded, Full].contains(&error.status()) {
                complain(4, &format!("{text}: {error}"));
            }
            false
        }
    }
}

struct Every(u64, AtomicU64);

impl Every {
    fn now(&self) -> bool {
        self.0 != 0 && (self.1.fetch_add(1, Ordering::Relaxed) + 1) % self.0 == 0
    }
}

struct Oracle {
    file: File,
    next: u64,
}

impl Oracle {
    fn open(path: &str) -> io::Result<Oracle> {
        let old = fs::read_to_string(path).unwrap_or_default();
        let ids = old.lines().filter_map(|line| line.strip_prefix("I ")?.parse::<u64>().ok());
        let next = ids.max().map_or(0, |id| id + 1);
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        // A line that an earlier life left unfinished must not swallow ours.
        file.write_all(if next == 0 { "" } else { "\n" }.as_bytes())?;
        Ok(Oracle { file, next })
    }

    fn intend(&mut self) -> u64 {
        drop(self.file.write_all(format!("I {}\n", self.next).as_bytes()));
        self.next += 1;
        self.next - 1
    }

    fn acknowledge(&mut self, id: u64, generation: u64) {
        drop(self.file.write_all(format!("A {id} {generation}\n").as_bytes()));
    }
}

struct Ignore;

impl Wake for Ignore {
    fn wake(self: Arc<Self>) {}
}

/// Up to eight futures at a time; some are dropped early. The crate's own thread polls.
fn run_futures(events: &Events, prefix: &str, mut random: Random, corrupt: &Every) {
    let waker = Waker::from(Arc::new(Ignore));
    let mut pending: Vec<(String, Embedding)> = Vec::new();
    while !STOP.load(Ordering::Relaxed) {
        let options = RequestOptions { skip_store: true, timeout: DEADLINE, ..RequestOptions::default() };
        if pending.len() < 8 {
            let text = text_of(prefix, random.below(1000));
            let embedding = events.embed(&text, &options);
            pending.push((text, embedding));
        }
        if random.below(8) == 0 {
            drop(pending.swap_remove(0));
        }
        pending.retain_mut(|(text, embedding)| match Pin::new(embedding).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => {
                check(text, answer.as_deref(), corrupt.now());
                false
            }
            Poll::Pending => true,
        });
        thread::sleep(Duration::from_millis(1));
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(2).collect();
    let values: HashMap<&str, &str> =
        arguments.chunks(2).filter_map(|pair| Some((pair[0].strip_prefix("--")?, pair.get(1)?.as_str()))).collect();
    let text = |name| values.get(name).copied().unwrap_or_default();
    let number = |name, default| values.get(name).map_or(default, |value| value.parse().unwrap_or(default));
    // SAFETY: the handler stores one word.
    unsafe { signal(SIGTERM, on_signal) };

    let (prefix, texts_max) = (text("prefix"), number("texts", u64::MAX));
    let mut oracle = Oracle::open(text("oracle")).unwrap_or_else(|_| complain(2, "cannot open the oracle file"));
    let mut random = Random(number("seed", 1).wrapping_add(oracle.next));
    let (corrupt, corrupt_polled) =
        (Every(number("corrupt", 0), AtomicU64::new(0)), Every(number("corrupt-polled", 0), AtomicU64::new(0)));
    let client = loop {
        match Client::attach(text("socket"), &AttachOptions::default()) {
            Ok(client) => break client,
            Err(_) if STOP.load(Ordering::Relaxed) => return,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    println!("attached");
    let events = Events::new(&client).unwrap_or_else(|error| complain(4, &error.to_string()));
    let _thread = events.spawn_thread().unwrap_or_else(|error| complain(4, &error.to_string()));
    thread::scope(|scope| {
        let polled = format!("{prefix} polled");
        let (events, corrupt_polled) = (&events, &corrupt_polled);
        let seed = Random(random.below(u64::MAX));
        scope.spawn(move || run_futures(events, &polled, seed, corrupt_polled));
        run_batches(&client, prefix, texts_max, &mut oracle, &mut random, &corrupt);
    });
    println!("right");
}

fn run_batches(
    client: &Client,
    prefix: &str,
    texts_max: u64,
    oracle: &mut Oracle,
    random: &mut Random,
    corrupt: &Every,
) {
    let generation = || client.info().map_or(0, |info| info.engine_generation);
    while !STOP.load(Ordering::Relaxed) {
        let anew = texts_max != u64::MAX && random.below(2) == 0;
        let size = 1 + random.below(12);
        let ids: Vec<u64> = (0..size)
            .map(|_| {
                let again = oracle.next != 0 && (oracle.next >= texts_max || random.below(3) == 0);
                match again {
                    true if anew => random.below(oracle.next) & !1,
                    true => random.below(oracle.next),
                    false => oracle.intend(),
                }
            })
            .collect();
        let texts: Vec<String> = ids.iter().map(|id| text_of(prefix, *id)).collect();
        let options = RequestOptions { skip_lookup: anew, timeout: DEADLINE, ..RequestOptions::default() };
        let before = generation();
        let batch = client.embed_batch(&texts, &options, BatchOptions::default());
        let answered_by = if generation() == before { before } else { 0 }; // 0: either engine
        let mut gone = false;
        for ((text, id), answer) in texts.iter().zip(ids).zip(batch.iter()) {
            match check(text, answer, corrupt.now()) {
                true => oracle.acknowledge(id, answered_by),
                false => gone = true,
            }
        }
        // Leaves the other processes of a small machine their share.
        thread::sleep(Duration::from_millis(if gone { 5 } else { 1 }));
    }
}
