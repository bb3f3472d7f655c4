//! The shape of Sutra's `EmbeddingProvider`: one text or a list, an answer per text, in order.

use std::collections::VecDeque;
use std::env;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::batch::BatchOptions;
use crate::client::Client;
use crate::options::{AttachOptions, Normalize, RequestOptions};
use crate::status::{Error, Priority, Status};

/// Texts in, vectors out: what Sutra's learning pipeline asks of whatever embeds for it, in blocking calls.
/// [`AsyncProvider`](crate::AsyncProvider) has the same two calls as futures.
pub trait EmbeddingProvider: Send + Sync {
    /// One text. `normalize`: unit length; otherwise the pooled vector as it is.
    ///
    /// # Errors
    /// Why it could not be embedded.
    fn generate(&self, text: &str, normalize: bool) -> Result<Vec<f32>, Error>;

    /// Any number of texts. RETURNS one entry per text, in order; `None` for those that could not be embedded.
    fn generate_batch(&self, texts: &[String], normalize: bool) -> Vec<Option<Vec<f32>>>;
}

/// How a provider attaches and asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderOptions {
    /// Of the client.
    pub attach: AttachOptions,
    /// Of every text; `normalize` and `tag` are set by the calls. Its timeout is that of a text.
    pub request: RequestOptions,
    /// Floats per vector in the storage (Sutra's `VECTOR_DIMENSION`), which the engine must have; 0 = any.
    pub dimension: usize,
    /// How many failed texts are remembered.
    pub failed_texts_max: usize,
    /// Bytes of failed texts that are remembered.
    pub failed_bytes_max: usize,
}

impl Default for ProviderOptions {
    fn default() -> ProviderOptions {
        ProviderOptions {
            attach: AttachOptions::default(),
            request: RequestOptions::default(),
            dimension: 0,
            failed_texts_max: 10_000,
            failed_bytes_max: 64 << 20,
        }
    }
}

/// `VECTOR_DIMENSION` of the environment, or `default` (Sutra's engine has 384, its memory server 768).
///
/// # Errors
/// [`Status::BadArgument`] if it is set to something else than a number from 1 on.
pub fn dimension_from_environment(default: usize) -> Result<usize, Error> {
    let value = match env::var_os("VECTOR_DIMENSION") {
        Some(value) => value,
        None => return Ok(default),
    };
    match value.to_str().and_then(|text| text.trim().parse().ok()) {
        Some(dimension) if dimension > 0 => Ok(dimension),
        _ => Err(Error::new(Status::BadArgument, format!("VECTOR_DIMENSION is {value:?}: set it to a number, or not"))),
    }
}

/// A text that could not be embedded: what is stored of it has no vector, until it is embedded again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedText {
    /// The text.
    pub text: String,
    /// As it was asked for.
    pub normalize: bool,
    /// Why; [`Error::is_transient`] says whether another try can succeed.
    pub error: Error,
}

/// What failed since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedTexts {
    /// The latest, oldest first.
    pub texts: Vec<FailedText>,
    /// Older ones that there was no room for.
    pub forgotten: u64,
}

/// The bounded list behind [`FailedTexts`].
pub(crate) struct FailureList {
    texts_max: usize,
    bytes_max: usize,
    state: Mutex<FailureState>,
}

#[derive(Default)]
struct FailureState {
    texts: VecDeque<FailedText>,
    bytes: usize,
    forgotten: u64,
}

impl FailureList {
    pub(crate) fn new(options: &ProviderOptions) -> FailureList {
        FailureList {
            texts_max: options.failed_texts_max,
            bytes_max: options.failed_bytes_max,
            state: Mutex::new(FailureState::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, FailureState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, text: &str, normalize: bool, error: &Error) {
        if error.status() == Status::Forked {
            return; // a fault of the program; and another thread may have held the lock at the fork
        }
        let mut state = self.lock();
        if self.texts_max == 0 || text.len() > self.bytes_max {
            state.forgotten += 1;
            return;
        }
        while state.texts.len() >= self.texts_max || state.bytes > self.bytes_max - text.len() {
            match state.texts.pop_front() {
                Some(oldest) => state.bytes -= oldest.text.len(),
                None => break,
            }
            state.forgotten += 1;
        }
        state.bytes += text.len();
        state.texts.push_back(FailedText { text: text.into(), normalize, error: error.clone() });
    }

    pub(crate) fn take(&self) -> FailedTexts {
        let state = std::mem::take(&mut *self.lock());
        FailedTexts { texts: state.texts.into(), forgotten: state.forgotten }
    }
}

/// Attaches and compares the widths.
pub(crate) fn attach(path: &Path, options: &ProviderOptions) -> Result<Client, Error> {
    let client = Client::attach(path, &options.attach)?;
    let (width, dimension) = (client.width(), options.dimension);
    if dimension != 0 && dimension != width {
        let model = client.info().map_or_else(|_| String::from("its model"), |info| info.model);
        return Err(Error::new(
            Status::Refused,
            format!(
                "VECTOR_DIMENSION is {dimension}, but the engine at {} serves {model} with {width} floats per vector, \
                 which this storage would not index: set VECTOR_DIMENSION={width} for a new storage, or start the \
                 engine with a model of {dimension} floats",
                path.display()
            ),
        ));
    }
    Ok(client)
}

/// The options of one call. A vector that is not normalised is asked for by searches only: those go first.
pub(crate) fn request_for(base: &RequestOptions, normalize: bool) -> RequestOptions {
    let searches = !normalize && base.priority == Priority::Normal;
    RequestOptions {
        normalize: if normalize { Normalize::Unit } else { Normalize::Raw },
        priority: if searches { Priority::Query } else { base.priority },
        ..*base
    }
}

/// A provider over an engine, in blocking calls that wait through the engine's restarts until the texts' deadlines.
///
/// Any number of threads may use it at once. Nothing is retried here: while an engine can come back, the client
/// library goes on with it, and what failed at last is remembered for [`Provider::take_failed`].
pub struct Provider {
    client: Client,
    request: RequestOptions,
    failures: FailureList,
}

impl Provider {
    /// Attaches to the engine at the Unix socket `path`.
    ///
    /// # Errors
    /// [`Status::Refused`] with both numbers if the engine's vectors are not `dimension` wide; else as
    /// [`Client::attach`].
    pub fn attach(path: impl AsRef<Path>, options: &ProviderOptions) -> Result<Provider, Error> {
        let client = attach(path.as_ref(), options)?;
        Ok(Provider { client, request: options.request, failures: FailureList::new(options) })
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The texts that failed since the last call, for embedding them again.
    pub fn take_failed(&self) -> FailedTexts {
        self.failures.take()
    }
}

impl EmbeddingProvider for Provider {
    fn generate(&self, text: &str, normalize: bool) -> Result<Vec<f32>, Error> {
        let result = self.client.embed(text, &request_for(&self.request, normalize));
        if let Err(error) = &result {
            self.failures.add(text, normalize, error);
        }
        result
    }

    fn generate_batch(&self, texts: &[String], normalize: bool) -> Vec<Option<Vec<f32>>> {
        let mut request = request_for(&self.request, normalize);
        request.priority = self.request.priority; // a list is nobody's search
        let batch = self.client.embed_batch(texts, &request, BatchOptions::default());
        let vector_of = |(text, answer): (&String, Result<&[f32], &Error>)| match answer {
            Ok(vector) => Some(vector.to_vec()),
            Err(error) => {
                self.failures.add(text, normalize, error);
                None
            }
        };
        texts.iter().zip(batch.iter()).map(vector_of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: usize, bytes: usize) -> FailureList {
        let options =
            ProviderOptions { failed_texts_max: texts, failed_bytes_max: bytes, ..ProviderOptions::default() };
        FailureList::new(&options)
    }

    fn gone() -> Error {
        Error::new(Status::EngineGone, "it died")
    }

    #[test]
    fn the_list_keeps_the_latest_and_counts_the_rest() {
        let list = list(2, 100);
        for text in ["one", "two", "three"] {
            list.add(text, true, &gone());
        }
        let failed = list.take();
        assert_eq!(failed.texts.iter().map(|failed| &failed.text[..]).collect::<Vec<_>>(), ["two", "three"]);
        assert_eq!(failed.forgotten, 1);
        assert_eq!(list.take(), FailedTexts::default());
    }

    #[test]
    fn the_list_is_bounded_in_bytes() {
        let list = list(100, 10);
        list.add("12345", true, &gone());
        list.add("123456", true, &gone());
        list.add("12345678901", true, &gone());
        let failed = list.take();
        assert_eq!(failed.texts.len(), 1);
        assert_eq!(failed.texts[0].text, "123456");
        assert_eq!(failed.forgotten, 2);
    }

    #[test]
    fn a_list_of_nothing_only_counts() {
        let list = list(0, 10);
        list.add("a", true, &gone());
        assert_eq!(list.take().forgotten, 1);
    }

    #[test]
    fn only_single_raw_vectors_are_searches() {
        let base = RequestOptions::default();
        assert_eq!(request_for(&base, false).priority, Priority::Query);
        assert_eq!(request_for(&base, true).priority, Priority::Normal);
        let bulk = RequestOptions { priority: Priority::Bulk, ..base };
        assert_eq!(request_for(&bulk, false).priority, Priority::Bulk);
    }
}
