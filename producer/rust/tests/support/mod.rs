//! A real engine for a test, and the smallest executor and reactor that can run futures.
#![allow(dead_code)] // every test file uses its part

pub mod fake;

use std::fs;
use std::future::Future;
use std::os::raw::{c_int, c_ulong};
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use sutra_embed::{AttachOptions, Client, Error, Events, FailedTexts, RequestOptions, Status};

pub const WIDTH: usize = 384;
pub const SIGKILL: c_int = 9;
pub const SIGTERM: c_int = 15;
pub const SIGCONT: c_int = 18;
pub const SIGSTOP: c_int = 19;
const PR_SET_PDEATHSIG: c_int = 1;
const EPOLL_CTL_ADD: c_int = 1;
const EPOLLIN: u32 = 1;
const EPOLLET: u32 = 1 << 31;

#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(packed))]
#[derive(Clone, Copy)]
struct EpollEvent {
    events: u32,
    data: u64,
}

extern "C" {
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn prctl(option: c_int, value: c_ulong) -> c_int;
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(code: c_int) -> !;
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut EpollEvent) -> c_int;
    fn epoll_wait(epoll: c_int, events: *mut EpollEvent, count: c_int, timeout_ms: c_int) -> c_int;
}

/// A `sutra-engine` with the fake model, its own directory, socket and data. Everything goes with it.
pub struct Engine {
    program: PathBuf,
    directory: PathBuf,
    pub arguments: Vec<String>,
    child: Option<Child>,
}

impl Engine {
    pub fn start() -> Engine {
        Engine::start_with(&[])
    }

    pub fn start_with(arguments: &[&str]) -> Engine {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let program = std::env::var_os("SUTRA_TEST_ENGINE")
            .expect("these tests need a real engine: set SUTRA_TEST_ENGINE to the path of sutra-engine");
        let name = format!("sutra-rust-{}-{}", process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        fs::create_dir(directory.join("data")).unwrap();
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        let mut engine = Engine { program: program.into(), directory, arguments, child: None };
        engine.start_again();
        engine
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("embed.sock")
    }

    /// Starts it and waits until it serves.
    pub fn start_again(&mut self) {
        self.launch();
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = Client::attach(self.socket(), &AttachOptions::default()) {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "the engine does not serve: {error}\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts it, and does not wait.
    pub fn launch(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["--backend", "fake", "--threads", "1", "--wal-segment-bytes", "1048576"]);
        command.args(["--wal-bytes-max", "67108864"]);
        command.arg("--socket").arg(self.socket()).arg("--data").arg(self.directory.join("data"));
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // An engine must not outlive a test that was killed.
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                prctl(PR_SET_PDEATHSIG, SIGKILL as c_ulong);
                Ok(())
            });
        }
        self.child = Some(command.spawn().unwrap());
    }

    pub fn signal(&self, signal: c_int) {
        let pid = self.child.as_ref().expect("the engine runs").id();
        // SAFETY: our child, which was not waited for.
        assert_eq!(unsafe { kill(pid as c_int, signal) }, 0);
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Without the list of options that every start prints.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        log.lines().filter(|line| line.starts_with("20")).map(|line| format!("{line}\n")).collect()
    }

    pub fn attach(&self) -> Client {
        self.attach_with(&AttachOptions::default())
    }

    pub fn attach_with(&self, options: &AttachOptions) -> Client {
        Client::attach(self.socket(), options).unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
        // The statistics of an engine stay by design.
        let stat = self.program.with_file_name("sutra-stat");
        let remove = Command::new(stat).arg("--socket").arg(self.socket()).arg("--remove").output();
        if thread::panicking() {
            eprintln!("log of the engine:\n{}", self.log());
        }
        drop((remove, fs::remove_dir_all(&self.directory)));
    }
}

pub fn expect_none(failed: &FailedTexts) {
    assert!(failed.texts.is_empty(), "{} texts failed, first {:?}", failed.texts.len(), failed.texts[0]);
}

/// Of a random test: SUTRA_SEED or the same each time; printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let seed = std::env::var("SUTRA_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_240_229);
    println!("SUTRA_SEED={seed}");
    seed
}

pub fn within(milliseconds: u64) -> RequestOptions {
    RequestOptions { timeout: Duration::from_millis(milliseconds), ..RequestOptions::default() }
}

pub fn few_slots(slots: u32) -> AttachOptions {
    AttachOptions { slots, lanes_max: 1, ..AttachOptions::default() }
}

pub fn texts(count: usize, what: &str) -> Vec<String> {
    (0..count).map(|index| format!("{what} {index}")).collect()
}

pub fn status_of<T>(result: Result<T, Error>) -> Status {
    result.map_or_else(|error| error.status(), |_| Status::Ok)
}

/// Runs `child` in a forked process. RETURNS its exit code; a signal is a panic.
pub fn in_a_forked_child(child: impl FnOnce() -> u8) -> u8 {
    // SAFETY: the child calls what the header allows after a fork, and leaves without unwinding.
    let pid = unsafe { fork() };
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(255);
        // SAFETY: always.
        unsafe { _exit(code.into()) }
    }
    let mut status = 0;
    // SAFETY: our child.
    assert_eq!(unsafe { waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status & 0x7f, 0, "the child ended by signal {}", status & 0x7f);
    (status >> 8) as u8
}

struct Unpark(Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::Release);
        self.0.unpark();
    }
}

/// An executor for one future on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(false)));
    let waker = Waker::from(unpark.clone());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while !unpark.1.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(thread::current(), AtomicBool::new(false))));
    match Pin::new(future).poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// All of them, in order.
pub async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs = Vec::new();
    for future in futures {
        outputs.push(future.await);
    }
    outputs
}

/// A reactor written by hand: a thread in epoll_wait. Counts its wake-ups.
pub struct Reactor {
    stop: Arc<AtomicBool>,
    wakes: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Reactor {
    pub fn start(events: &Events, edge_triggered: bool) -> Reactor {
        // SAFETY: no pointers.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll_create1(0o2000000)) };
        add(epoll.as_raw_fd(), events.as_raw_fd(), if edge_triggered { EPOLLIN | EPOLLET } else { EPOLLIN });
        let (stop, wakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, counted, events) = (stop.clone(), wakes.clone(), events.clone());
        let thread = thread::spawn(move || {
            let mut event = EpollEvent { events: 0, data: 0 };
            while !stopped.load(Ordering::Relaxed) {
                // SAFETY: room for one event. The time is for the stop alone: no poll comes of it.
                if unsafe { epoll_wait(epoll.as_raw_fd(), &mut event, 1, 20) } == 1 {
                    counted.fetch_add(1, Ordering::Relaxed);
                    events.poll();
                }
            }
        });
        Reactor { stop, wakes, thread: Some(thread) }
    }

    pub fn wakes(&self) -> u32 {
        self.wakes.load(Ordering::Relaxed)
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn add(epoll: RawFd, fd: RawFd, events: u32) {
    let mut event = EpollEvent { events, data: 0 };
    // SAFETY: the event is read during the call.
    assert_eq!(unsafe { epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &mut event) }, 0);
}
