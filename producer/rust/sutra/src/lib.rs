//! An excerpt of the interface of Sutra's storage server (`crates/storage`): the provider seam, the pipeline that calls
//! it, and the servers that are built around the pipeline, reduced to what the two edits touch. Written from what that
//! interface is, not copied from it; the storage itself is a stand-in.
//!
//! What the edits add is marked `EDIT 1` and `EDIT 2`; `shared_memory_provider.rs` is the file that they need.

pub mod embedding_provider;
pub mod learning_pipeline;
pub mod shared_memory_provider;
pub mod storage_server;

/// Stands for `anyhow::Result`.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
