//! The excerpt with both edits at a real engine: what the storage server does all day.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::env;
use std::thread;
use std::time::Duration;

use support::*;
use sutra_storage_excerpt::learning_pipeline::{split_sentences, Storage};
use sutra_storage_excerpt::storage_server::{pipeline_from_environment, ShardedStorageServer, StorageServer};

const CONTENT: &str =
    "Apple Inc. (AAPL) Financial Data - 2025-11-05. The stock opened at $178.28, and closed at $180.99. \
                       Trading volume was near average! Is the sentiment bullish with moderate trading activity?";

/// One test, since the environment is the process's.
#[test]
fn the_storage_server_learns_and_finds_through_the_engine_also_over_its_restart() {
    env::remove_var("SUTRA_EMBEDDING_SHM");
    assert!(block_on(pipeline_from_environment()).unwrap().is_none());

    let mut engine = Engine::start();
    env::set_var("SUTRA_EMBEDDING_SHM", engine.socket());
    env::set_var("VECTOR_DIMENSION", "768");
    let error = block_on(pipeline_from_environment()).err().unwrap().to_string();
    assert!(error.contains("VECTOR_DIMENSION is 768") && error.contains("384 floats"), "{error}");
    env::remove_var("VECTOR_DIMENSION");

    let (pipeline, provider) = block_on(pipeline_from_environment()).unwrap().unwrap();
    let server = StorageServer::new_with_pipeline(Storage::default(), pipeline);
    block_on(server.pipeline.learn_concept(&server.storage, CONTENT)).unwrap();
    assert_eq!(server.storage.vector_of(CONTENT).unwrap().len(), 384);
    assert_eq!(server.storage.associations(), split_sentences(CONTENT).len());
    assert_eq!(block_on(server.pipeline.search(&server.storage, CONTENT)).unwrap().unwrap(), CONTENT);

    // A thousand contents over a crash of the engine: every one has its vector.
    let contents: Vec<String> = (0..1000).map(|day| format!("{day} AAPL stock market data. {CONTENT}")).collect();
    thread::scope(|scope| {
        let learning = scope.spawn(|| block_on(server.pipeline.learn_batch(&server.storage, &contents)).is_ok());
        thread::sleep(Duration::from_millis(20));
        engine.kill();
        engine.start_again();
        assert!(learning.join().unwrap());
    });
    assert_eq!(server.storage.concepts(), 1001);
    assert!(contents.iter().all(|content| server.storage.vector_of(content).is_some()));
    expect_none(&provider.take_failed());

    // The sharded server takes a pipeline too; and what fails is a concept without a vector and a text on the list.
    let (pipeline, provider) = block_on(pipeline_from_environment()).unwrap().unwrap();
    let sharded = ShardedStorageServer::new_with_pipeline(vec![Storage::default(), Storage::default()], pipeline);
    block_on(sharded.pipeline.learn_concept(&sharded.shards[1], "")).unwrap();
    assert_eq!(sharded.shards[1].vector_of(""), None);
    assert_eq!(provider.take_failed().texts.len(), 1);
}
