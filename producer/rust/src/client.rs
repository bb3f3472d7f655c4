//! A connection to an engine, and the calls that wait for their answer.

use std::ffi::CStr;
use std::os::raw::c_char;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process;
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use crate::ffi;
use crate::options::{c_string, milliseconds, AttachOptions, RequestOptions};
use crate::status::{Error, Source, Status};
use crate::ticket::Ticket;

/// The client of the C library; it is detached when its last owner (a [`Client`], a ticket, a future) is dropped.
pub(crate) struct Handle {
    pub(crate) raw: *mut ffi::sutra_client,
    pub(crate) width: usize,
    /// Events of a client are reported once, so one object has them.
    pub(crate) has_events: AtomicBool,
    process: u32,
}

// SAFETY: the header says that any number of threads may use a client at once.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// For what has locks of its own, which another thread of the parent may have held at the fork.
    pub(crate) fn is_forked(&self) -> bool {
        process::id() != self.process
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: attached once, and nobody else has it: every user of `raw` owns the handle. The same in a child.
        unsafe { ffi::sutra_detach(self.raw) }
    }
}

/// What the engine and this client are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Floats per vector.
    pub width: usize,
    /// Of one text, special tokens included.
    pub tokens_max: u32,
    /// Of one text.
    pub text_bytes_max: u32,
    /// Per lane.
    pub slots: u32,
    /// Whether vectors have unit length by default.
    pub normalizes: bool,
    /// For display.
    pub engine_pid: u32,
    /// Another number for every engine.
    pub engine_generation: u64,
    /// The model's name.
    pub model: String,
    /// 64 hex digits: weights, tokenizer, configuration, precision, device class.
    pub identity: String,
    /// Open now; 0 = there is no engine now.
    pub lanes: u32,
    /// Engines that this client was attached to, one after another.
    pub engines: u32,
    /// Requests that went on at the next engine.
    pub resubmitted: u64,
}

/// What came with a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Floats in the vector.
    pub width: usize,
    /// The cache, or the model.
    pub source: Source,
    /// Of the text.
    pub token_count: u32,
    /// Only the first tokens were used.
    pub truncated: bool,
    /// The request's.
    pub tag: u64,
    /// Submitted, taken, tokenised, batched, computed, published: nanoseconds of a monotonic clock; 0 = not passed.
    pub stage_ns: [u64; 6],
}

impl Answer {
    pub(crate) fn of_result(result: &ffi::sutra_result) -> Answer {
        Answer {
            width: result.width as usize,
            source: Source::from_number(result.source),
            token_count: result.token_count,
            truncated: result.truncated != 0,
            tag: result.tag,
            stage_ns: result.stage_ns,
        }
    }
}

/// A connection to an engine. Cloning it shares it; any number of threads may use it at once.
///
/// What happens when the engine dies, stops or is replaced is the header's contract: calls that wait go on at the next
/// engine until their deadline, unless [`RequestOptions::fail_fast`] is set.
///
/// In a forked child every call fails with [`Status::Forked`]: attach there.
#[derive(Clone)]
pub struct Client {
    pub(crate) handle: Arc<Handle>,
}

impl Client {
    /// Attaches to the engine at the Unix socket `path`.
    ///
    /// # Errors
    /// [`Status::EngineGone`] when nothing listens there, [`Status::Refused`], [`Status::Overloaded`],
    /// [`Status::ShuttingDown`], [`Status::OutOfMemory`], [`Status::DeadlineExceeded`], [`Status::BadOption`];
    /// [`Status::BadArgument`] for a path or a name with a zero byte.
    pub fn attach(path: impl AsRef<Path>, options: &AttachOptions) -> Result<Client, Error> {
        let path = c_string(path.as_ref().as_os_str().as_bytes(), "the socket's path")?;
        let arguments = options.to_c()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the strings live until the call is over, and `raw` is ours.
        let status = unsafe { ffi::sutra_attach(path.as_ptr(), &arguments.options, &mut raw) };
        if status != 0 {
            return Err(Error::of_call(status));
        }
        let mut handle = Handle { raw, width: 0, has_events: AtomicBool::new(false), process: process::id() };
        let mut info = ffi::sutra_info::sized();
        // SAFETY: just attached.
        let status = unsafe { ffi::sutra_get_info(raw, &mut info) };
        if status != 0 {
            return Err(Error::of_call(status));
        }
        handle.width = info.width as usize;
        Ok(Client { handle: Arc::new(handle) })
    }

    /// Floats per vector; never changes, also over engines.
    pub fn width(&self) -> usize {
        self.handle.width
    }

    /// Of the engine that was attached last.
    ///
    /// # Errors
    /// [`Status::Forked`].
    pub fn info(&self) -> Result<Info, Error> {
        let mut info = ffi::sutra_info::sized();
        // SAFETY: the handle is attached.
        let status = unsafe { ffi::sutra_get_info(self.handle.raw, &mut info) };
        if status != 0 {
            return Err(Error::of_call(status));
        }
        Ok(Info {
            width: info.width as usize,
            tokens_max: info.tokens_max,
            text_bytes_max: info.text_bytes_max,
            slots: info.slots,
            normalizes: info.normalizes != 0,
            engine_pid: info.engine_pid,
            engine_generation: info.engine_generation,
            model: text_of(&info.model),
            identity: text_of(&info.identity),
            lanes: info.lanes,
            engines: info.engines,
            resubmitted: info.resubmitted,
        })
    }

    /// Submits, waits and copies the vector out.
    ///
    /// # Errors
    /// The request's end, at its deadline at the latest.
    pub fn embed(&self, text: &str, options: &RequestOptions) -> Result<Vec<f32>, Error> {
        let mut vector = vec![0.0; self.width_of(options)];
        self.embed_into(text, options, &mut vector)?;
        Ok(vector)
    }

    /// The same into memory of the caller, without any allocation. REQUIRES: room for the vector.
    ///
    /// # Errors
    /// As [`Client::embed`]; [`Status::BadArgument`] if `vector` is too short.
    pub fn embed_into(&self, text: &str, options: &RequestOptions, vector: &mut [f32]) -> Result<Answer, Error> {
        if vector.len() < self.width_of(options) {
            return Err(too_short(vector.len(), self.width_of(options)));
        }
        let options = options.to_c();
        let mut result = ffi::sutra_result::sized();
        // SAFETY: the text and the vector are borrowed for the call, and there is room for what it writes.
        let status = unsafe {
            ffi::sutra_embed(
                self.handle.raw,
                text.as_ptr().cast(),
                text.len(),
                &options,
                vector.as_mut_ptr(),
                &mut result,
            )
        };
        if status != 0 {
            return Err(Error::of_result(status, &result));
        }
        Ok(Answer::of_result(&result))
    }

    /// Submits a text, which is copied; never waits.
    ///
    /// # Errors
    /// [`Status::Full`] (drop tickets, or wait for one), [`Status::EngineGone`] and [`Status::ShuttingDown`] while
    /// there is no engine, [`Status::EmptyText`], [`Status::TextTooLong`], [`Status::BadOption`],
    /// [`Status::OutOfMemory`], [`Status::Forked`].
    pub fn submit(&self, text: &str, options: &RequestOptions) -> Result<Ticket, Error> {
        let options = options.to_c();
        let mut number = 0;
        // SAFETY: the text is borrowed for the call.
        let status =
            unsafe { ffi::sutra_submit(self.handle.raw, text.as_ptr().cast(), text.len(), &options, &mut number) };
        if status != 0 {
            return Err(Error::of_call(status));
        }
        Ok(Ticket::new(self.handle.clone(), number))
    }

    /// Submits as many of the texts as there are free slots, with one doorbell. RETURNS their tickets, in order, and why
    /// the next one was not taken, if it was not.
    pub fn submit_many<T: AsRef<str>>(&self, texts: &[T], options: &RequestOptions) -> (Vec<Ticket>, Option<Error>) {
        let (pointers, lengths) = parts_of(texts);
        let options = options.to_c();
        let mut numbers = vec![0; texts.len()];
        let mut submitted = 0;
        // SAFETY: the three arrays have as many elements as there are texts.
        let status = unsafe {
            ffi::sutra_submit_many(
                self.handle.raw,
                pointers.as_ptr(),
                lengths.as_ptr(),
                texts.len(),
                &options,
                numbers.as_mut_ptr(),
                &mut submitted,
            )
        };
        let error = (status != 0).then(|| Error::of_call(status));
        let tickets = numbers[..submitted].iter().map(|&number| Ticket::new(self.handle.clone(), number)).collect();
        (tickets, error)
    }

    /// Waits until one of the tickets is done. RETURNS which: a wait for it ends at once.
    ///
    /// # Errors
    /// [`Status::NotReady`] when the time is over; [`Status::BadArgument`] without tickets or with one of another
    /// client.
    pub fn wait_any(&self, tickets: &[Ticket], timeout: Duration) -> Result<usize, Error> {
        let numbers: Vec<u64> = tickets.iter().map(Ticket::number).collect();
        let mut index = 0;
        // SAFETY: the array has as many elements as are said.
        let status = unsafe {
            ffi::sutra_wait_any(
                self.handle.raw,
                numbers.as_ptr(),
                numbers.len(),
                milliseconds(timeout),
                &mut index,
                ptr::null_mut(),
            )
        };
        if status != 0 {
            return Err(Error::of_call(status));
        }
        Ok(index)
    }

    /// How many short texts a submit would take now; 0 while there is no engine.
    pub fn free_slots(&self) -> usize {
        // SAFETY: the handle is attached.
        unsafe { ffi::sutra_free_slots(self.handle.raw) }
    }

    /// Ends with [`Status::Cancelled`] every ticket that is not done and every call under way. From any thread, also
    /// from a signal handler: it takes no lock and allocates nothing.
    pub fn cancel_all(&self) {
        // SAFETY: the handle is attached.
        unsafe { ffi::sutra_cancel_all(self.handle.raw) }
    }

    pub(crate) fn width_of(&self, options: &RequestOptions) -> usize {
        match options.width {
            0 => self.handle.width,
            width => width as usize,
        }
    }
}

/// `sutra_abi_version` of the library that runs.
pub fn abi_version() -> u32 {
    // SAFETY: always.
    unsafe { ffi::sutra_abi_version() }
}

pub(crate) fn parts_of<T: AsRef<str>>(texts: &[T]) -> (Vec<*const c_char>, Vec<usize>) {
    texts.iter().map(|text| (text.as_ref().as_ptr().cast::<c_char>(), text.as_ref().len())).unzip()
}

pub(crate) fn too_short(floats: usize, width: usize) -> Error {
    Error::new(Status::BadArgument, format!("room for {floats} floats: a vector has {width}"))
}

fn text_of(bytes: &[c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|&byte| byte.to_ne_bytes()[0]).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// REQUIRES: a zero byte within `bytes`.
pub(crate) fn c_text(bytes: &[c_char]) -> &CStr {
    assert!(bytes.contains(&0));
    // SAFETY: it ends within the slice.
    unsafe { CStr::from_ptr(bytes.as_ptr()) }
}
