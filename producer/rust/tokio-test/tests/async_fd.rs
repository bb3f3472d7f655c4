//! Futures under tokio's reactor, at a real engine.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use support::{expect_none, few_slots, status_of, texts, within, Engine, SIGCONT, SIGSTOP};
use sutra_embed::{AsyncProvider, AttachOptions, Events, ProviderOptions, RequestOptions, Status};
use sutra_embed_tokio_test::drive;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn run_a_thousand_tasks(attach: &AttachOptions) {
    let engine = Engine::start();
    let events = Events::new(&engine.attach_with(attach)).unwrap();
    let runtime = runtime();
    runtime.spawn(drive(events.clone()));
    let tasks: Vec<_> = texts(1000, "task")
        .into_iter()
        .map(|text| {
            let events = events.clone();
            runtime.spawn(async move {
                let first = events.embed(&text, &RequestOptions::default()).await.unwrap();
                assert_eq!(first, events.embed(&text, &RequestOptions::default()).await.unwrap(), "{text}");
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn a_thousand_tasks_share_the_descriptor() {
    run_a_thousand_tasks(&AttachOptions::default());
}

#[test]
fn a_thousand_tasks_share_two_slots() {
    run_a_thousand_tasks(&few_slots(2));
}

#[test]
fn a_future_that_times_out_in_tokio_is_cancelled() {
    let engine = Engine::start();
    let client = engine.attach_with(&few_slots(2));
    let events = Events::new(&client).unwrap();
    let runtime = runtime();
    runtime.spawn(drive(events.clone()));
    engine.signal(SIGSTOP);
    runtime.block_on(async {
        for _ in 0..5 {
            let late = events.embed("late", &RequestOptions::default());
            assert!(timeout(Duration::from_millis(20), late).await.is_err());
        }
        let deadline = events.embed("deadline", &within(100)).await;
        assert!([Status::DeadlineExceeded, Status::Full].contains(&status_of(deadline)));
        engine.signal(SIGCONT);
        assert!(events.embed("in time", &RequestOptions::default()).await.is_ok());
    });
}

#[test]
fn a_provider_loses_no_text_over_a_kill() {
    let mut engine = Engine::start();
    let request = RequestOptions { skip_lookup: true, ..RequestOptions::default() };
    let provider =
        AsyncProvider::attach(engine.socket(), &ProviderOptions { request, ..ProviderOptions::default() }).unwrap();
    let runtime = runtime();
    runtime.spawn(drive(provider.events().clone()));
    let texts = texts(1200, "fragment");
    engine.signal(SIGSTOP);
    let batch = runtime.spawn(provider.generate_batch(&texts, true));
    engine.kill();
    engine.start_again();
    let vectors = runtime.block_on(batch).unwrap();
    expect_none(&provider.take_failed());
    assert!(vectors.iter().all(|vector| vector.is_some()));
    for (text, vector) in texts.iter().zip(&vectors).step_by(31) {
        assert_eq!(vector, &runtime.block_on(provider.generate(text, true)).ok(), "{text}");
    }
}
