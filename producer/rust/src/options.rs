//! What a caller asks for when it attaches and with each text.

use std::convert::TryFrom;
use std::ffi::CString;
use std::time::Duration;

use crate::ffi;
use crate::status::{Error, Priority, Status};

/// How a client attaches. Zero and `None` are the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Requests under way per lane, a power of two; default: the engine's (256).
    pub slots: u32,
    /// Lanes that the client may open as its threads need them; default 4.
    pub lanes_max: u32,
    /// Refuse an engine whose vectors have another width.
    pub width: u32,
    /// Of one text; default: the engine's.
    pub text_bytes_max: u32,
    /// Of the attach; default 5 s.
    pub timeout: Duration,
    /// Spin for so long before sleeping in a wait; `Some(ZERO)` = never. Default 30 microseconds.
    pub spin: Option<Duration>,
    /// Refuse an engine that serves another model (name or identity prefix).
    pub model: Option<String>,
    /// Shown to the operator.
    pub client_name: Option<String>,
}

/// The C structure with the strings that it points to.
pub(crate) struct AttachArguments {
    pub(crate) options: ffi::sutra_attach_options,
    _model: Option<CString>,
    _client_name: Option<CString>,
}

impl AttachOptions {
    pub(crate) fn to_c(&self) -> Result<AttachArguments, Error> {
        let model = self.model.as_deref().map(|name| c_string(name, "the model's name")).transpose()?;
        let client_name = self.client_name.as_deref().map(|name| c_string(name, "the client's name")).transpose()?;
        let mut options = ffi::sutra_attach_options::sized();
        options.slots = self.slots;
        options.lanes_max = self.lanes_max;
        options.width = self.width;
        options.text_bytes_max = self.text_bytes_max;
        options.timeout_ms = milliseconds(self.timeout);
        options.spin_us = match self.spin {
            Some(spin) => u32::try_from(spin.as_micros()).unwrap_or(u32::MAX),
            None => ffi::SUTRA_SPIN_US_DEFAULT,
        };
        // The strings' bytes do not move with their owners.
        options.model = model.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
        options.client_name = client_name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
        Ok(AttachArguments { options, _model: model, _client_name: client_name })
    }
}

/// Whether vectors have unit length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalize {
    /// As the model's card says.
    #[default]
    Model,
    /// Unit length.
    Unit,
    /// Pooled, not normalised.
    Raw,
}

/// What is asked for with a text. Zero is the default.
///
/// The C interface reserves more (other models, prompts, data types, near answers), which no engine serves yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestOptions {
    /// Unit length or not; a part of the cache's key.
    pub normalize: Normalize,
    /// Fail with [`Status::TextTooLong`] instead of cutting off what the model's tokens do not reach.
    pub reject_long: bool,
    /// Compute even if cached.
    pub skip_lookup: bool,
    /// Do not cache.
    pub skip_store: bool,
    /// End with the engine instead of going on at the next one.
    pub fail_fast: bool,
    /// Floats per vector; 0 = the model's.
    pub width: u32,
    /// Of the cache's entry, in whole seconds; 0 = the engine's default (24 h).
    pub ttl: Duration,
    /// Served first or last.
    pub priority: Priority,
    /// The request's deadline from now; 0 = 30 s.
    pub timeout: Duration,
    /// The caller's, returned in the answer. Futures have one of their own.
    pub tag: u64,
}

impl RequestOptions {
    pub(crate) fn to_c(self) -> ffi::sutra_options {
        let mut options = ffi::sutra_options::sized();
        options.flags = match self.normalize {
            Normalize::Model => 0,
            Normalize::Unit => ffi::SUTRA_NORMALIZE,
            Normalize::Raw => ffi::SUTRA_RAW,
        };
        for (wanted, flag) in [
            (self.reject_long, ffi::SUTRA_REJECT),
            (self.skip_lookup, ffi::SUTRA_CACHE_SKIP_LOOKUP),
            (self.skip_store, ffi::SUTRA_CACHE_SKIP_STORE),
            (self.fail_fast, ffi::SUTRA_FAIL_FAST),
        ] {
            if wanted {
                options.flags |= flag;
            }
        }
        options.width = self.width;
        options.ttl_s = u32::try_from(self.ttl.as_secs()).unwrap_or(u32::MAX);
        options.priority = self.priority.number();
        options.timeout_ms = milliseconds(self.timeout);
        options.tag = self.tag;
        options
    }

    /// The deadline as a duration also where it is the default.
    pub(crate) fn timeout_or_default(&self) -> Duration {
        match milliseconds(self.timeout) {
            0 => Duration::from_secs(30),
            milliseconds => Duration::from_millis(milliseconds.into()),
        }
    }
}

/// Rounded up, so that a wait never ends early, and nonzero for what is.
pub(crate) fn milliseconds(duration: Duration) -> u32 {
    let rounded = (duration.as_nanos() + 999_999) / 1_000_000;
    u32::try_from(rounded).unwrap_or(u32::MAX)
}

pub(crate) fn c_string(text: impl Into<Vec<u8>>, what: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::new(Status::BadArgument, format!("{what} has a zero byte in it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(7)), 7);
        assert_eq!(milliseconds(Duration::MAX), u32::MAX);
    }

    #[test]
    fn every_option_has_its_bit() {
        let all = RequestOptions {
            normalize: Normalize::Raw,
            reject_long: true,
            skip_lookup: true,
            skip_store: true,
            fail_fast: true,
            ..RequestOptions::default()
        };
        assert_eq!(all.to_c().flags, 0x3e);
        assert_eq!(RequestOptions { normalize: Normalize::Unit, ..Default::default() }.to_c().flags, 1);
        assert_eq!(RequestOptions::default().to_c().flags, 0);
    }

    #[test]
    fn the_default_spin_is_the_header_s() {
        assert_eq!(AttachOptions::default().to_c().unwrap().options.spin_us, 30);
        let never = AttachOptions { spin: Some(Duration::ZERO), ..Default::default() };
        assert_eq!(never.to_c().unwrap().options.spin_us, 0);
    }
}
