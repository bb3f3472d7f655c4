//! The new file: Sutra's seam over the shared-memory engine.

use std::path::Path;

use sutra_embed::{dimension_from_environment, AsyncProvider, EventThread, FailedTexts, ProviderOptions};

use crate::embedding_provider::{BoxFuture, EmbeddingProvider};
use crate::Result;

/// What `VECTOR_DIMENSION` is in this server where nobody sets it.
const DIMENSION_DEFAULT: usize = 384;

pub struct SharedMemoryProvider {
    provider: AsyncProvider,
    _thread: EventThread, // wakes the futures; a task over tokio's AsyncFd does as well
}

impl SharedMemoryProvider {
    /// Refuses an engine whose vectors are not `VECTOR_DIMENSION` wide: the storage would not index them.
    pub fn attach(socket: &Path) -> Result<SharedMemoryProvider> {
        let dimension = dimension_from_environment(DIMENSION_DEFAULT)?;
        let provider = AsyncProvider::attach(socket, &ProviderOptions { dimension, ..ProviderOptions::default() })?;
        let thread = provider.events().spawn_thread()?;
        Ok(SharedMemoryProvider { provider, _thread: thread })
    }

    /// What has no vector yet, and why.
    pub fn take_failed(&self) -> FailedTexts {
        self.provider.take_failed()
    }
}

impl EmbeddingProvider for SharedMemoryProvider {
    fn generate<'a>(&'a self, text: &'a str, normalize: bool) -> BoxFuture<'a, Result<Vec<f32>>> {
        Box::pin(async move { Ok(self.provider.generate(text, normalize).await?) })
    }

    fn generate_batch<'a>(&'a self, texts: &'a [String], normalize: bool) -> BoxFuture<'a, Vec<Option<Vec<f32>>>> {
        Box::pin(self.provider.generate_batch(texts, normalize))
    }
}
