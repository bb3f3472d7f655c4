//! The few calls of the operating system that the standard library does not have, for waiting in futures.

use std::convert::TryFrom;
use std::io;
use std::os::raw::{c_int, c_long, c_uint, c_ulong, c_void};
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

const CLOEXEC: c_int = 0o2000000; // of epoll, timerfd and eventfd alike
const NONBLOCK: c_int = 0o4000;
const CLOCK_MONOTONIC: c_int = 1;
const EPOLL_CTL_ADD: c_int = 1;
const EPOLLIN: u32 = 1;
const POLLIN: i16 = 1;

#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(packed))]
struct EpollEvent {
    events: u32,
    data: u64,
}

#[repr(C)]
struct TimeSpec {
    seconds: c_long, // 64 bits where this library runs
    nanoseconds: c_long,
}

#[repr(C)]
struct TimerSpec {
    interval: TimeSpec,
    value: TimeSpec,
}

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: i16,
    revents: i16,
}

extern "C" {
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut EpollEvent) -> c_int;
    fn timerfd_create(clock: c_int, flags: c_int) -> c_int;
    fn timerfd_settime(fd: c_int, flags: c_int, new: *const TimerSpec, old: *mut TimerSpec) -> c_int;
    fn eventfd(initial: c_uint, flags: c_int) -> c_int;
    fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout_ms: c_int) -> c_int;
}

fn owned(fd: c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor that is readable while any of `parts` is.
pub(crate) fn any_of(parts: &[RawFd]) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let epoll = owned(unsafe { epoll_create1(CLOEXEC) })?;
    for &part in parts {
        let mut event = EpollEvent { events: EPOLLIN, data: 0 };
        // SAFETY: the event is read during the call.
        if unsafe { epoll_ctl(epoll.as_raw_fd(), EPOLL_CTL_ADD, part, &mut event) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(epoll)
}

pub(crate) fn timer() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    owned(unsafe { timerfd_create(CLOCK_MONOTONIC, CLOEXEC | NONBLOCK) })
}

/// Readable once `after` has passed; `None`: not at all. Not readable before, also if it was.
pub(crate) fn set_timer(timer: &OwnedFd, after: Option<Duration>) {
    // A timer of zero would be off.
    let value = match after.map(|after| after.max(Duration::from_nanos(1))) {
        Some(after) => TimeSpec {
            seconds: c_long::try_from(after.as_secs()).unwrap_or(c_long::MAX),
            nanoseconds: after.subsec_nanos().into(),
        },
        None => TimeSpec { seconds: 0, nanoseconds: 0 },
    };
    let spec = TimerSpec { interval: TimeSpec { seconds: 0, nanoseconds: 0 }, value };
    // SAFETY: the specification is read during the call. It cannot fail with a valid descriptor and time.
    unsafe { timerfd_settime(timer.as_raw_fd(), 0, &spec, ptr::null_mut()) };
}

/// Readable from the first `signal` on.
pub(crate) fn signal_fd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    owned(unsafe { eventfd(0, CLOEXEC | NONBLOCK) })
}

pub(crate) fn signal(fd: &OwnedFd) {
    let one = 1_u64;
    // SAFETY: eight bytes are read during the call.
    unsafe { write(fd.as_raw_fd(), ptr::addr_of!(one).cast(), 8) };
}

/// Sleeps until one of the two is readable. RETURNS which are; neither after a signal.
pub(crate) fn wait_for(first: RawFd, second: RawFd) -> (bool, bool) {
    let mut fds = [PollFd { fd: first, events: POLLIN, revents: 0 }, PollFd { fd: second, events: POLLIN, revents: 0 }];
    // SAFETY: the array has two elements.
    unsafe { poll(fds.as_mut_ptr(), 2, -1) };
    (fds[0].revents != 0, fds[1].revents != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_of_several_is_readable_while_one_is() {
        let (first, second) = (signal_fd().unwrap(), timer().unwrap());
        let any = any_of(&[first.as_raw_fd(), second.as_raw_fd()]).unwrap();
        set_timer(&second, Some(Duration::ZERO));
        assert_eq!(wait_for(any.as_raw_fd(), second.as_raw_fd()), (true, true));
        set_timer(&second, None);
        signal(&first);
        assert_eq!(wait_for(any.as_raw_fd(), second.as_raw_fd()), (true, false));
    }
}
