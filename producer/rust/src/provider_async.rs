//! The same provider as futures.

use std::future::Future;
use std::mem;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::events::{Embedding, Events};
use crate::options::RequestOptions;
use crate::provider::{attach, request_for, FailedTexts, FailureList, ProviderOptions};
use crate::status::Error;

/// A provider whose calls are futures, for any executor: see [`Events`] for who wakes them.
///
/// Cloning it shares it. The futures own what they need; dropping one cancels its texts.
#[derive(Clone)]
pub struct AsyncProvider {
    events: Events,
    request: RequestOptions,
    failures: Arc<FailureList>,
}

impl AsyncProvider {
    /// Attaches to the engine at the Unix socket `path`.
    ///
    /// # Errors
    /// As [`Provider::attach`](crate::Provider::attach) and [`Events::new`].
    pub fn attach(path: impl AsRef<Path>, options: &ProviderOptions) -> Result<AsyncProvider, Error> {
        let events = Events::new(&attach(path.as_ref(), options)?)?;
        Ok(AsyncProvider { events, request: options.request, failures: Arc::new(FailureList::new(options)) })
    }

    /// What drives the futures.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// One text. `normalize`: unit length; otherwise the pooled vector as it is.
    pub fn generate(&self, text: &str, normalize: bool) -> Generate {
        let embedding = self.events.embed(text, &request_for(&self.request, normalize));
        Generate { embedding, text: text.into(), normalize, failures: self.failures.clone() }
    }

    /// Any number of texts: an entry per text, in order; `None` for those that could not be embedded.
    pub fn generate_batch(&self, texts: &[String], normalize: bool) -> GenerateBatch {
        let mut request = request_for(&self.request, normalize);
        request.priority = self.request.priority; // a list is nobody's search
        let start = |(position, text): (usize, &String)| self.events.embed_as(position as u64, text, &request);
        GenerateBatch {
            embeddings: texts.iter().enumerate().map(start).collect(),
            texts: texts.to_vec(),
            vectors: Vec::with_capacity(texts.len()),
            normalize,
            failures: self.failures.clone(),
        }
    }

    /// The texts that failed since the last call, for embedding them again. Dropped futures are not in it.
    pub fn take_failed(&self) -> FailedTexts {
        self.failures.take()
    }
}

/// Of [`AsyncProvider::generate`].
#[must_use = "dropping it cancels the request"]
pub struct Generate {
    embedding: Embedding,
    text: Box<str>,
    normalize: bool,
    failures: Arc<FailureList>,
}

impl Future for Generate {
    type Output = Result<Vec<f32>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = Pin::new(&mut self.embedding).poll(context);
        if let Poll::Ready(Err(error)) = &poll {
            self.failures.add(&self.text, self.normalize, error);
        }
        poll
    }
}

/// Of [`AsyncProvider::generate_batch`].
#[must_use = "dropping it cancels the requests"]
pub struct GenerateBatch {
    embeddings: Vec<Embedding>,
    texts: Vec<String>,
    vectors: Vec<Option<Vec<f32>>>,
    normalize: bool,
    failures: Arc<FailureList>,
}

impl Future for GenerateBatch {
    type Output = Vec<Option<Vec<f32>>>;

    /// One after the other: all are under way, so the wake-ups of those behind the first that is not ready would only
    /// cost time.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        while this.vectors.len() < this.embeddings.len() {
            let index = this.vectors.len();
            match Pin::new(&mut this.embeddings[index]).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(vector)) => this.vectors.push(Some(vector)),
                Poll::Ready(Err(error)) => {
                    this.failures.add(&this.texts[index], this.normalize, &error);
                    this.vectors.push(None);
                }
            }
        }
        Poll::Ready(mem::take(&mut this.vectors))
    }
}
