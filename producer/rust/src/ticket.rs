//! A request under way, and its vector where the engine wrote it.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{Answer, Handle};
use crate::ffi;
use crate::options::milliseconds;
use crate::status::{Error, Status};

/// A request under way. It holds its slot until it is dropped; dropping it earlier than its end cancels it.
///
/// Any thread may have it, one at a time: it is `Send` and not `Sync`. It keeps its client attached.
///
/// In a forked child every call fails with [`Status::Forked`], and dropping it takes nothing from the parent.
pub struct Ticket {
    handle: Arc<Handle>,
    number: ffi::sutra_ticket,
    one_thread_at_a_time: PhantomData<Cell<()>>,
}

impl Ticket {
    pub(crate) fn new(handle: Arc<Handle>, number: ffi::sutra_ticket) -> Ticket {
        Ticket { handle, number, one_thread_at_a_time: PhantomData }
    }

    pub(crate) fn number(&self) -> ffi::sutra_ticket {
        self.number
    }

    /// Whether a wait would end at once.
    pub fn is_done(&self) -> bool {
        self.look() != Status::NotReady
    }

    /// Waits for the end of the request, at most for `timeout`. RETURNS its vector, in place.
    ///
    /// # Errors
    /// [`Status::NotReady`] when the time is over: the ticket stays valid. Else how the request ended.
    pub fn wait(&self, timeout: Duration) -> Result<Vector<'_>, Error> {
        let mut result = ffi::sutra_result::sized();
        // SAFETY: the ticket is this client's.
        let status = unsafe { ffi::sutra_wait(self.handle.raw, self.number, milliseconds(timeout), &mut result) };
        if status != 0 {
            return Err(Error::of_result(status, &result));
        }
        Ok(Vector { ticket: self, data: result.vector, answer: Answer::of_result(&result) })
    }

    /// Waits for the end of the request, copies its vector out and ends the ticket.
    ///
    /// # Errors
    /// How the request ended, at its deadline at the latest.
    pub fn take(self) -> Result<Vec<f32>, Error> {
        loop {
            let mut result = ffi::sutra_result::sized();
            // SAFETY: the ticket is this client's.
            let status = unsafe { ffi::sutra_wait(self.handle.raw, self.number, u32::MAX, &mut result) };
            match Status::from_number(status) {
                Status::Ok => return self.take_now(result.width as usize),
                Status::NotReady => continue, // 49 days
                _ => return Err(Error::of_result(status, &result)),
            }
        }
    }

    /// REQUIRES: the request is done.
    pub(crate) fn take_now(mut self, width: usize) -> Result<Vec<f32>, Error> {
        let mut vector = vec![0.0; width];
        let mut result = ffi::sutra_result::sized();
        // SAFETY: the ticket is this client's, and the vector has as many floats as are said.
        let status =
            unsafe { ffi::sutra_take(self.handle.raw, self.number, vector.as_mut_ptr(), vector.len(), &mut result) };
        if status != 0 {
            return Err(Error::of_result(status, &result)); // dropping the ticket releases it, if that is not done
        }
        self.number = 0; // released
        vector.truncate(result.width as usize);
        Ok(vector)
    }

    /// A hint to the engine, which may still answer.
    ///
    /// # Errors
    /// [`Status::Forked`].
    pub fn cancel(&self) -> Result<(), Error> {
        // SAFETY: the ticket is this client's.
        match unsafe { ffi::sutra_cancel(self.handle.raw, self.number) } {
            0 => Ok(()),
            status => Err(Error::of_call(status)),
        }
    }

    fn look(&self) -> Status {
        // SAFETY: the ticket is this client's, and the call writes no result.
        Status::from_number(unsafe { ffi::sutra_wait(self.handle.raw, self.number, 0, ptr::null_mut()) })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // SAFETY: a ticket that was taken is 0, which the call ignores; in a forked child it does nothing.
        unsafe { ffi::sutra_release(self.handle.raw, self.number) }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Ticket({:#x})", self.number)
    }
}

/// A vector in the memory that the engine wrote it to. It lives no longer than its ticket, which keeps the slot, and so
/// the engine writes nothing else there meanwhile.
///
/// ```compile_fail,E0505
/// # use sutra_embed::*;
/// fn view_outlives_its_ticket(client: &Client) -> Result<(), Error> {
///     let ticket = client.submit("text", &RequestOptions::default())?;
///     let vector = ticket.wait(std::time::Duration::from_secs(1))?;
///     drop(ticket);
///     println!("{:?}", vector.as_slice()?);
///     Ok(())
/// }
/// ```
/// ```compile_fail,E0515
/// # use sutra_embed::*;
/// fn floats_outlive_their_ticket(client: &Client) -> Result<&[f32], Error> {
///     let ticket = client.submit("text", &RequestOptions::default())?;
///     let vector = ticket.wait(std::time::Duration::from_secs(1))?;
///     vector.as_slice()
/// }
/// ```
/// ```compile_fail,E0505
/// # use sutra_embed::*;
/// fn view_outlives_the_taking(ticket: Ticket) -> Result<(), Error> {
///     let vector = ticket.wait(std::time::Duration::from_secs(1))?;
///     let copy = ticket.take()?;
///     println!("{} {:?}", copy.len(), vector.as_slice()?);
///     Ok(())
/// }
/// ```
/// ```compile_fail,E0277
/// # use sutra_embed::*;
/// fn a_ticket_is_one_thread_s_at_a_time(ticket: &Ticket) {
///     std::thread::scope(|scope| {
///         scope.spawn(|| ticket.is_done());
///     });
/// }
/// ```
/// A ticket outlives the client's name, since it keeps the client attached, and goes to other threads:
/// ```no_run
/// # use sutra_embed::*;
/// fn elsewhere(client: Client) -> Result<Vec<f32>, Error> {
///     let ticket = client.submit("text", &RequestOptions::default())?;
///     drop(client);
///     std::thread::spawn(move || ticket.take()).join().unwrap()
/// }
/// ```
pub struct Vector<'ticket> {
    ticket: &'ticket Ticket,
    data: *const f32,
    answer: Answer,
}

impl<'ticket> Vector<'ticket> {
    /// The floats. In a forked child that memory is not mapped; therefore this looks in which process it is, and the
    /// slice must not be carried over a fork.
    ///
    /// # Errors
    /// [`Status::Forked`].
    pub fn as_slice(&self) -> Result<&'ticket [f32], Error> {
        match self.ticket.look() {
            // SAFETY: this process has the mapping, the engine wrote so many floats there before it published the
            // answer, and writes there again only after the release, for which nobody may borrow the ticket.
            Status::Ok => Ok(unsafe { slice::from_raw_parts(self.data, self.answer.width) }),
            status => Err(Error::of_call(status.number())),
        }
    }

    /// Source, tokens, times.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }
}
