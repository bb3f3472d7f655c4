//! How a tokio program drives the futures of a client without a thread of its own.

use std::io;

use sutra_embed::Events;
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// Spawn this once per [`Events`]; it goes on until it is aborted.
pub async fn drive(events: Events) -> io::Result<()> {
    let descriptor = AsyncFd::with_interest(events, Interest::READABLE)?;
    loop {
        // Cleared before the poll: whatever happens from then on is a new edge.
        descriptor.readable().await?.clear_ready();
        descriptor.get_ref().poll();
    }
}
