//! The engine dies and comes back, under blocking calls and under futures.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use support::fake::{is_right, Random};
use support::*;
use sutra_embed::{AsyncProvider, AttachOptions, BatchOptions, EmbeddingProvider, Error, Events, Provider};
use sutra_embed::{ProviderOptions, Reason, RequestOptions, Status};

fn no_lookup() -> RequestOptions {
    RequestOptions { skip_lookup: true, ..RequestOptions::default() }
}

fn expect_right(texts: &[String], vectors: &[Result<Vec<f32>, Error>]) {
    for (text, vector) in texts.iter().zip(vectors) {
        assert!(is_right(text, vector.as_ref().unwrap()), "{text} has another's vector");
    }
}

#[test]
fn two_hundred_futures_go_on_at_the_next_engine() {
    let mut engine = Engine::start();
    let client = engine.attach_with(&few_slots(64));
    let events = Events::new(&client).unwrap();
    let _reactor = Reactor::start(&events, true);
    for round in 0..3 {
        let texts = texts(200, &format!("round {round} future"));
        engine.signal(SIGSTOP); // so that all are under way or wait for a slot
        let futures = texts.iter().map(|text| events.embed(text, &no_lookup())).collect();
        engine.kill();
        let late = events.embed("without an engine", &no_lookup());
        engine.start_again();
        expect_right(&texts, &block_on(all(futures)));
        assert!(block_on(late).is_ok());
    }
    let info = client.info().unwrap();
    assert_eq!(info.engines, 4);
    assert!(info.resubmitted >= 3 * 60, "{} requests were resubmitted", info.resubmitted);
}

#[test]
fn blocking_calls_wait_through_a_restart() {
    let mut engine = Engine::start();
    let client = engine.attach_with(&AttachOptions { slots: 16, ..AttachOptions::default() });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|number| {
                let (client, stop) = (client.clone(), &stop);
                scope.spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let text = format!("thread {number} text {count}");
                        assert_eq!(status_of(client.embed(&text, &no_lookup())), Status::Ok);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(50));
            engine.kill();
            engine.start_again();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(callers.into_iter().all(|caller| caller.join().unwrap() > 0));
    });
    assert!(client.info().unwrap().engines > 1);
}

#[test]
fn a_provider_loses_no_text_of_a_batch_over_a_kill() {
    let mut engine = Engine::start();
    let options = ProviderOptions { request: no_lookup(), ..ProviderOptions::default() };
    let provider = Provider::attach(engine.socket(), &options).unwrap();
    let texts = texts(1500, "fragment");
    let vectors = thread::scope(|scope| {
        let batch = scope.spawn(|| provider.generate_batch(&texts, true));
        thread::sleep(Duration::from_millis(5));
        engine.kill();
        engine.start_again();
        batch.join().unwrap()
    });
    expect_none(&provider.take_failed());
    for (text, vector) in texts.iter().zip(&vectors) {
        assert!(is_right(text, vector.as_ref().unwrap()), "{text} has another's vector");
    }
}

#[test]
fn random_kills_under_calls_batches_and_futures_lose_nothing_and_mix_nothing_up() {
    let mut random = Random(seed());
    let mut engine = Engine::start();
    let client = engine.attach_with(&AttachOptions { slots: 16, ..AttachOptions::default() });
    let provider = AsyncProvider::attach(engine.socket(), &ProviderOptions::default()).unwrap();
    let _reactor = Reactor::start(provider.events(), true);
    let stop = AtomicBool::new(false);
    let until_the_end = |work: &dyn Fn(usize)| {
        (0..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(work);
    };
    let right = |text: &str, vector: Option<&[f32]>| {
        assert!(is_right(text, vector.unwrap_or_else(|| panic!("{text} was lost"))), "{text} has another's vector");
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            until_the_end(&|count| {
                let text = format!("a call {count}");
                right(&text, client.embed(&text, &no_lookup()).ok().as_deref());
            });
        });
        scope.spawn(|| {
            until_the_end(&|count| {
                let texts = texts(40, &format!("batch {count} text"));
                let batch = client.embed_batch(&texts, &no_lookup(), BatchOptions::default());
                texts.iter().zip(batch.iter()).for_each(|(text, vector)| right(text, vector.ok()));
            });
        });
        scope.spawn(|| {
            until_the_end(&|count| {
                let texts = texts(300, &format!("future {count} text"));
                let vectors = block_on(provider.generate_batch(&texts, true));
                texts.iter().zip(&vectors).for_each(|(text, vector)| right(text, vector.as_deref()));
            });
        });
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(random.below(60)));
            engine.kill();
            engine.start_again();
        }
        stop.store(true, Ordering::Relaxed);
    });
    expect_none(&provider.take_failed());
    assert!(client.info().unwrap().engines > 2); // an engine's life may be too short to be noticed
}

#[test]
fn an_engine_of_another_model_ends_what_is_under_way_with_the_reason() {
    let mut engine = Engine::start();
    let client = engine.attach();
    let events = Events::new(&client).unwrap();
    let _reactor = Reactor::start(&events, true);
    engine.signal(SIGSTOP);
    let future = events.embed("a future", &RequestOptions::default());
    let ticket = client.submit("a ticket", &RequestOptions::default()).unwrap();
    engine.kill();
    let queued = events.embed("queued", &RequestOptions::default());
    engine.arguments = vec!["--fake-width".into(), "256".into()];
    engine.start_again();
    let later = events.embed("later", &RequestOptions::default());
    let ends = [block_on(future), ticket.take(), block_on(queued), block_on(later)];
    for error in ends.into_iter().map(Result::unwrap_err) {
        assert_eq!((error.status(), error.reason()), (Status::EngineGone, Reason::OtherIdentity), "{error}");
        assert!(error.text().contains("attach again"), "{error}");
    }
    assert_eq!(status_of(client.embed("a call", &RequestOptions::default())), Status::EngineGone);
    assert_eq!(client.width(), WIDTH);
    assert!(engine.attach().embed("attached anew", &RequestOptions::default()).is_ok());
}

#[test]
fn fail_fast_ends_with_the_engine() {
    let mut engine = Engine::start();
    let client = engine.attach();
    let events = Events::new(&client).unwrap();
    let _reactor = Reactor::start(&events, false);
    let fast = RequestOptions { fail_fast: true, ..RequestOptions::default() };
    engine.signal(SIGSTOP);
    let under_way = events.embed("under way", &fast);
    let ticket = client.submit("a ticket", &fast).unwrap();
    engine.kill();
    assert_eq!(status_of(block_on(under_way)), Status::EngineGone);
    assert_eq!(status_of(ticket.take()), Status::EngineGone);
    assert_eq!(status_of(block_on(events.embed("after it", &fast))), Status::EngineGone);
    assert_eq!(status_of(client.embed("after it", &fast)), Status::EngineGone);
}

#[test]
fn without_an_engine_futures_end_at_their_deadline_with_the_cause() {
    let mut engine = Engine::start();
    let client = engine.attach();
    let events = Events::new(&client).unwrap();
    let _reactor = Reactor::start(&events, true);
    engine.kill();
    let error = block_on(events.embed("nobody answers", &within(200))).unwrap_err();
    assert!([Status::EngineGone, Status::DeadlineExceeded].contains(&error.status()), "{error}");
    assert!(error.is_transient());
    assert!(!error.text().is_empty());
}

#[test]
fn vectors_in_place_stay_valid_after_the_engine() {
    let mut engine = Engine::start();
    let client = engine.attach();
    let ticket = client.submit("kept", &RequestOptions::default()).unwrap();
    let copy = ticket.wait(Duration::from_secs(20)).unwrap().as_slice().unwrap().to_vec();
    engine.kill();
    assert_eq!(ticket.wait(Duration::ZERO).unwrap().as_slice().unwrap(), copy);
    engine.start_again();
    assert_eq!(ticket.wait(Duration::ZERO).unwrap().as_slice().unwrap(), copy);
}
