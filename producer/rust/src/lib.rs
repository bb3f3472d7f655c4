//! Text embeddings through shared memory: the Rust binding of the Sutra embedding client.
//!
//! ```no_run
//! use sutra_embed::{AttachOptions, Client, RequestOptions};
//!
//! # fn main() -> Result<(), sutra_embed::Error> {
//! let client = Client::attach("/run/sutra/embed.sock", &AttachOptions::default())?;
//! let vector = client.embed("Paris is the capital of France", &RequestOptions::default())?;
//! assert_eq!(vector.len(), client.width());
//! # Ok(())
//! # }
//! ```
//!
//! * [`Client`]: a connection; blocking calls, one text or many. `Send`, `Sync`, shared by cloning.
//! * [`Ticket`], [`Vector`]: requests under way, and their vectors where the engine wrote them.
//! * [`Events`], [`Embedding`]: futures for any executor; one descriptor to wait for, or a thread that does.
//! * [`Provider`], [`AsyncProvider`]: the shape of Sutra's `EmbeddingProvider`.
//! * [`ffi`]: the C interface itself.
//!
//! The standard library alone, Rust 1.63 or later, Linux. The C header is the contract for what happens when an engine
//! dies, a process forks, or time runs out.
#![warn(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

mod batch;
mod client;
mod events;
pub mod ffi;
mod options;
mod os;
mod provider;
mod provider_async;
mod status;
mod ticket;

pub use batch::{Batch, BatchOptions};
pub use client::{abi_version, Answer, Client, Info};
pub use events::{Embedding, EventThread, Events};
pub use options::{AttachOptions, Normalize, RequestOptions};
pub use provider::{dimension_from_environment, EmbeddingProvider, FailedText, FailedTexts, Provider, ProviderOptions};
pub use provider_async::{AsyncProvider, Generate, GenerateBatch};
pub use status::{Error, Priority, Reason, Source, Status};
pub use ticket::{Ticket, Vector};
