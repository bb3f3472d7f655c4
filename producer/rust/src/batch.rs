//! Many texts in one call.

use std::any::Any;
use std::ops::ControlFlow;
use std::os::raw::{c_char, c_int, c_void};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::ptr;
use std::time::Duration;

use crate::client::{c_text, parts_of, Answer, Client};
use crate::ffi;
use crate::options::{milliseconds, RequestOptions};
use crate::status::Error;

const ERROR_TEXT_BYTES: usize = 192;

/// Of a whole batch. The default is no deadline but the texts' own, and no progress.
#[derive(Default)]
pub struct BatchOptions<'a> {
    /// Of the whole call; 0 = none.
    pub timeout: Duration,
    /// Called at most every 100 ms and once at the end, with how many texts of how many are done. `Break` stops the
    /// batch: the texts that are left end with [`Status::Cancelled`](crate::Status::Cancelled).
    pub progress: Option<&'a mut dyn FnMut(usize, usize) -> ControlFlow<()>>,
}

/// The answers to a batch, in the order of its texts.
pub struct Batch {
    vectors: Vec<f32>,
    width: usize,
    answers: Vec<Result<Answer, Error>>,
}

impl Batch {
    /// As many as there were texts.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether there were no texts.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The vector of a text, or why it failed.
    pub fn vector(&self, index: usize) -> Result<&[f32], &Error> {
        self.answers[index].as_ref().map(|answer| &self.vectors[index * self.width..][..answer.width])
    }

    /// Source, tokens, times of a text, or why it failed.
    pub fn answer(&self, index: usize) -> Result<&Answer, &Error> {
        self.answers[index].as_ref()
    }

    /// Every text's vector or error, in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<&[f32], &Error>> + '_ {
        (0..self.len()).map(move |index| self.vector(index))
    }
}

/// The caller's progress function behind the C callback, which no panic may leave.
struct Progress<'a, 'b> {
    call: &'a mut (dyn FnMut(usize, usize) -> ControlFlow<()> + 'b),
    panic: Option<Box<dyn Any + Send>>,
}

unsafe extern "C" fn on_progress(context: *mut c_void, done: usize, count: usize) -> c_int {
    // SAFETY: the batch below passes it, and lives until the call is over; the library calls on the same thread.
    let progress = unsafe { &mut *context.cast::<Progress<'_, '_>>() };
    if progress.panic.is_some() {
        return 1;
    }
    match catch_unwind(AssertUnwindSafe(|| (progress.call)(done, count))) {
        Ok(ControlFlow::Continue(())) => 0,
        Ok(ControlFlow::Break(())) => 1,
        Err(panic) => {
            progress.panic = Some(panic);
            1
        }
    }
}

impl Client {
    /// Any number of texts, pipelined through the slots: one answer per text, in their order.
    ///
    /// A panic of the progress function stops the batch and goes on when that is done.
    pub fn embed_batch<T: AsRef<str>>(&self, texts: &[T], options: &RequestOptions, batch: BatchOptions<'_>) -> Batch {
        let width = self.width_of(options);
        let (pointers, lengths) = parts_of(texts);
        let mut vectors = vec![0.0_f32; texts.len() * width];
        let mut results = vec![ffi::sutra_result::sized(); texts.len()];
        let mut error_texts: Vec<c_char> = vec![0; texts.len() * ERROR_TEXT_BYTES];
        let mut progress = batch.progress.map(|call| Progress { call, panic: None });
        let mut batch_options = ffi::sutra_batch_options::sized();
        batch_options.timeout_ms = milliseconds(batch.timeout);
        batch_options.error_texts = error_texts.as_mut_ptr();
        batch_options.error_text_bytes = ERROR_TEXT_BYTES;
        if let Some(progress) = progress.as_mut() {
            batch_options.progress = Some(on_progress);
            batch_options.context = ptr::addr_of_mut!(*progress).cast();
        }
        let request = options.to_c();
        // SAFETY: every array has an element per text, a vector `width` floats, as the library checked; what it calls
        // and writes to lives until it returns.
        let status = unsafe {
            ffi::sutra_embed_batch(
                self.handle.raw,
                pointers.as_ptr(),
                lengths.as_ptr(),
                texts.len(),
                &request,
                &batch_options,
                vectors.as_mut_ptr(),
                results.as_mut_ptr(),
                std::mem::size_of::<ffi::sutra_result>(),
            )
        };
        let whole = (status != 0).then(|| Error::of_call(status));
        if let Some(panic) = progress.and_then(|progress| progress.panic) {
            resume_unwind(panic);
        }
        let answer_of = |(index, result): (usize, &ffi::sutra_result)| {
            let text = c_text(&error_texts[index * ERROR_TEXT_BYTES..][..ERROR_TEXT_BYTES]);
            match (result.status, &whole) {
                // A call that failed before it looked at the texts (a forked child, a bad option) explains none.
                (0, Some(error)) if result.vector.is_null() => Err(error.clone()),
                (number, Some(error)) if number == error.status().number() && text.to_bytes().is_empty() => {
                    Err(error.clone())
                }
                (0, _) => Ok(Answer::of_result(result)),
                (number, _) => Err(Error::of_text(number, result, text)),
            }
        };
        let answers = results.iter().enumerate().map(answer_of).collect();
        Batch { vectors, width, answers }
    }
}
