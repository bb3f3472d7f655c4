//! How requests end: the numbers of the C interface as enumerations, and the error that carries them.

use std::borrow::Cow;
use std::error;
use std::ffi::CStr;
use std::fmt;
use std::time::Duration;

use crate::ffi;

macro_rules! c_enum {
    ($(#[$doc:meta])* $name:ident, unknown: $unknown:ident,
     $( $(#[$variant_doc:meta])* $variant:ident = $number:literal is $c_name:literal, )*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $( $(#[$variant_doc])* $variant = $number, )* }

        impl $name {
            /// Every value with its name in C.
            pub const ALL: &'static [($name, &'static str)] = &[ $( ($name::$variant, $c_name), )* ];

            /// A number that this version does not know is what the header says it is to be treated as.
            pub fn from_number(number: u32) -> $name {
                match number { $( $number => $name::$variant, )* _ => $name::$unknown }
            }

            /// As in C.
            pub fn number(self) -> u32 {
                self as u32
            }
        }
    };
}

c_enum! {
    /// How a call or a request ended. An unknown number is `ModelError`.
    Status, unknown: ModelError,
    /// It succeeded; never in an [`Error`].
    Ok = 0 is "SUTRA_OK",
    /// The wait timed out; the ticket stays valid.
    NotReady = 1 is "SUTRA_NOT_READY",
    /// No free slot: drop tickets, or attach with more slots.
    Full = 2 is "SUTRA_FULL",
    /// The engine refuses work for now: submit again after [`Error::retry_after`].
    Overloaded = 3 is "SUTRA_OVERLOADED",
    /// Zero bytes.
    EmptyText = 4 is "SUTRA_EMPTY_TEXT",
    /// Not possible with `&str`.
    InvalidUtf8 = 5 is "SUTRA_INVALID_UTF8",
    /// Over [`Info::text_bytes_max`](crate::Info), or over the model's tokens where those are rejected.
    TextTooLong = 6 is "SUTRA_TEXT_TOO_LONG",
    /// An option that the library, the engine or the model does not have.
    BadOption = 7 is "SUTRA_BAD_OPTION",
    /// The request's time was over.
    DeadlineExceeded = 8 is "SUTRA_DEADLINE_EXCEEDED",
    /// By the caller.
    Cancelled = 9 is "SUTRA_CANCELLED",
    /// It died, or came back as another one: [`Error::reason`].
    EngineGone = 10 is "SUTRA_ENGINE_GONE",
    /// It drains.
    ShuttingDown = 11 is "SUTRA_SHUTTING_DOWN",
    /// The model failed on this text.
    ModelError = 12 is "SUTRA_MODEL_ERROR",
    /// The engine's cache failed.
    StorageError = 13 is "SUTRA_STORAGE_ERROR",
    /// Permission, quota or version.
    Refused = 14 is "SUTRA_REFUSED",
    /// The other side broke the protocol.
    ProtocolViolation = 15 is "SUTRA_PROTOCOL_VIOLATION",
    /// No memory or no descriptors.
    OutOfMemory = 16 is "SUTRA_OUT_OF_MEMORY",
    /// The client belongs to the parent of this process.
    Forked = 17 is "SUTRA_FORKED",
    /// An argument that cannot be: a path with a zero byte, a buffer that is too small.
    BadArgument = 18 is "SUTRA_BAD_ARGUMENT",
}

c_enum! {
    /// Where a vector came from.
    Source, unknown: None,
    /// Unknown.
    None = 0 is "SUTRA_SOURCE_NONE",
    /// The shared cache in memory.
    HotTable = 1 is "SUTRA_SOURCE_HOT_TABLE",
    /// The cache shard.
    Shard = 2 is "SUTRA_SOURCE_SHARD",
    /// The computation of another request.
    Joined = 3 is "SUTRA_SOURCE_JOINED",
    /// It was computed.
    Model = 4 is "SUTRA_SOURCE_MODEL",
}

c_enum! {
    /// Why an engine is gone for good.
    Reason, unknown: None,
    /// Not an end of an engine.
    None = 0 is "SUTRA_REASON_NONE",
    /// It died, and the request was not to wait for another one, or none came.
    Died = 1 is "SUTRA_REASON_DIED",
    /// The next engine needs another client library.
    OtherLayout = 2 is "SUTRA_REASON_OTHER_LAYOUT",
    /// The next engine serves another model: attach again to accept it.
    OtherIdentity = 3 is "SUTRA_REASON_OTHER_IDENTITY",
}

c_enum! {
    /// Which requests the engine serves first.
    #[derive(Default)]
    Priority, unknown: Normal,
    /// The default.
    #[default]
    Normal = 0 is "SUTRA_PRIORITY_NORMAL",
    /// Served first.
    Query = 1 is "SUTRA_PRIORITY_QUERY",
    /// Served last.
    Bulk = 2 is "SUTRA_PRIORITY_BULK",
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: any number is allowed; the text is a constant of the library.
        let text = unsafe { CStr::from_ptr(ffi::sutra_status_text(self.number())) };
        formatter.write_str(&text.to_string_lossy())
    }
}

/// Why a call or a request failed: the status, and a text with cause and fix that was captured when it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: Status,
    reason: Reason,
    retry_after_ms: u32,
    text: Cow<'static, str>,
}

impl Error {
    pub(crate) fn new(status: Status, text: impl Into<Cow<'static, str>>) -> Error {
        Error { status, reason: Reason::None, retry_after_ms: 0, text: text.into() }
    }

    /// REQUIRES: `number` is what the last call of this thread returned, so that the library's text explains it.
    pub(crate) fn of_call(number: ffi::sutra_status) -> Error {
        let status = Status::from_number(number);
        if status == Status::NotReady {
            return Error::new(status, "no answer yet"); // no failure: polled for, so without a copy
        }
        // SAFETY: never NULL, and this thread's until its next call.
        let text = unsafe { CStr::from_ptr(ffi::sutra_error_text()) };
        Error::new(status, text.to_string_lossy().into_owned())
    }

    pub(crate) fn of_result(number: ffi::sutra_status, result: &ffi::sutra_result) -> Error {
        let mut error = Error::of_call(number);
        error.note(result);
        error
    }

    pub(crate) fn of_text(number: ffi::sutra_status, result: &ffi::sutra_result, text: &CStr) -> Error {
        let status = Status::from_number(number);
        let text = if text.to_bytes().is_empty() { status.to_string() } else { text.to_string_lossy().into_owned() };
        let mut error = Error::new(status, text);
        error.note(result);
        error
    }

    fn note(&mut self, result: &ffi::sutra_result) {
        self.reason = Reason::from_number(result.reason);
        self.retry_after_ms = result.retry_after_ms;
    }

    /// What happened.
    pub fn status(&self) -> Status {
        self.status
    }

    /// With [`Status::EngineGone`]: why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// With [`Status::Overloaded`]: when to submit again; `None` = unknown.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.retry_after_ms > 0).then(|| Duration::from_millis(self.retry_after_ms.into()))
    }

    /// Cause and fix.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the same text can succeed later: the failure was the engine's, the machine's or the clock's.
    pub fn is_transient(&self) -> bool {
        use Status::*;
        let passes = matches!(
            self.status,
            NotReady
                | Full
                | Overloaded
                | DeadlineExceeded
                | Cancelled
                | EngineGone
                | ShuttingDown
                | ModelError
                | StorageError
                | OutOfMemory
        );
        passes && self.reason != Reason::OtherLayout
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.status, self.text)
    }
}

impl error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_values_and_back() {
        for (status, name) in Status::ALL {
            assert_eq!(Status::from_number(status.number()), *status, "{name}");
        }
    }

    #[test]
    fn unknown_numbers_are_treated_as_the_header_says() {
        assert_eq!(Status::from_number(4_000_000_000), Status::ModelError);
        assert_eq!(Source::from_number(77), Source::None);
        assert_eq!(Reason::from_number(77), Reason::None);
    }

    #[test]
    fn an_error_says_what_and_why() {
        let error = Error::new(Status::EmptyText, "the text has zero bytes");
        assert_eq!(error.to_string(), "empty text: the text has zero bytes");
        assert!(!error.is_transient());
        assert!(Error::new(Status::EngineGone, "").is_transient());
    }
}
