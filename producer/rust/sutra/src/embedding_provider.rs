//! The seam. In Sutra it is `#[async_trait] pub trait EmbeddingProvider` with two `async fn`s; these are the signatures
//! that the attribute makes of them.

use std::future::Future;
use std::pin::Pin;

use crate::Result;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub trait EmbeddingProvider: Send + Sync {
    fn generate<'a>(&'a self, text: &'a str, normalize: bool) -> BoxFuture<'a, Result<Vec<f32>>>;

    fn generate_batch<'a>(&'a self, texts: &'a [String], normalize: bool) -> BoxFuture<'a, Vec<Option<Vec<f32>>>>;
}
