//! The servers around the pipeline, and how the program chooses it.

use std::env;
use std::path::Path;
use std::sync::Arc;

use crate::learning_pipeline::{LearningPipeline, Storage};
use crate::shared_memory_provider::SharedMemoryProvider;
use crate::Result;

pub struct StorageServer {
    pub storage: Storage,
    pub pipeline: Arc<LearningPipeline>,
}

impl StorageServer {
    pub fn new_with_pipeline(storage: Storage, pipeline: LearningPipeline) -> StorageServer {
        StorageServer { storage, pipeline: Arc::new(pipeline) }
    }
}

pub struct ShardedStorageServer {
    pub shards: Vec<Storage>,
    pub pipeline: Arc<LearningPipeline>,
}

impl ShardedStorageServer {
    // EDIT 2: the sharded server takes a pipeline too, as the single one does.
    pub fn new_with_pipeline(shards: Vec<Storage>, pipeline: LearningPipeline) -> ShardedStorageServer {
        ShardedStorageServer { shards, pipeline: Arc::new(pipeline) }
    }
}

// EDIT 1: where the program builds its pipeline, SUTRA_EMBEDDING_SHM names the engine's socket. `None` without it: then
// everything stays as it was.
pub async fn pipeline_from_environment() -> Result<Option<(LearningPipeline, Arc<SharedMemoryProvider>)>> {
    let socket = match env::var_os("SUTRA_EMBEDDING_SHM") {
        Some(socket) => socket,
        None => return Ok(None),
    };
    let provider = Arc::new(SharedMemoryProvider::attach(Path::new(&socket))?);
    let pipeline = LearningPipeline::new_with_provider(provider.clone()).await;
    Ok(Some((pipeline, provider)))
}
