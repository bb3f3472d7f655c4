//! The providers at a real engine: one answer per text, in order, whatever happens to some of them.

mod support;

use std::env;

use support::*;
use sutra_embed::{
    dimension_from_environment, AsyncProvider, AttachOptions, EmbeddingProvider, Provider, ProviderOptions, Status,
};

fn options(dimension: usize) -> ProviderOptions {
    ProviderOptions { dimension, attach: few_slots(16), ..ProviderOptions::default() }
}

fn mixed(long: usize) -> Vec<String> {
    let mut texts = texts(1200, "sentence");
    texts[3].clear();
    texts[700] = "x".repeat(long);
    texts[1199].clear();
    texts
}

fn expect_answers(texts: &[String], vectors: &[Option<Vec<f32>>], one: impl Fn(&str) -> Option<Vec<f32>>) {
    assert_eq!(vectors.len(), texts.len());
    for (index, (text, vector)) in texts.iter().zip(vectors).enumerate() {
        assert_eq!(vector.is_none(), [3, 700, 1199].contains(&index), "text {index}");
        if index % 31 == 0 {
            assert_eq!(vector, &one(text), "text {index}");
        }
    }
}

#[test]
fn a_batch_over_a_thousand_texts_keeps_its_order_and_names_those_that_failed() {
    let engine = Engine::start();
    let provider = Provider::attach(engine.socket(), &options(WIDTH)).unwrap();
    let texts = mixed(provider.client().info().unwrap().text_bytes_max as usize + 1);
    let vectors = provider.generate_batch(&texts, true);
    let failed = provider.take_failed();
    let statuses: Vec<Status> = failed.texts.iter().map(|failed| failed.error.status()).collect();
    assert_eq!(statuses, [Status::EmptyText, Status::TextTooLong, Status::EmptyText]);
    assert!(failed.texts.iter().all(|failed| !failed.error.is_transient() && failed.normalize));
    expect_answers(&texts, &vectors, |text| provider.generate(text, true).ok());
    assert_eq!(provider.generate_batch(&[], true).len(), 0);
}

#[test]
fn futures_answer_as_the_blocking_calls_do() {
    let engine = Engine::start();
    let provider = AsyncProvider::attach(engine.socket(), &options(WIDTH)).unwrap();
    let blocking = Provider::attach(engine.socket(), &options(0)).unwrap();
    let _reactor = Reactor::start(provider.events(), false);
    let texts = mixed(blocking.client().info().unwrap().text_bytes_max as usize + 1);
    let (first, second) = (provider.generate_batch(&texts, true), provider.generate_batch(&texts, false));
    let unit = block_on(first);
    assert_eq!(provider.take_failed().texts.len(), 3);
    expect_answers(&texts, &unit, |text| blocking.generate(text, true).ok());
    expect_answers(&texts, &block_on(second), |text| blocking.generate(text, false).ok());
    assert_eq!(block_on(provider.generate("a query", false)).ok(), blocking.generate("a query", false).ok());
}

#[test]
fn a_single_text_overtakes_a_batch_that_waits_for_slots() {
    let engine = Engine::start();
    let attach = few_slots(2);
    let provider =
        AsyncProvider::attach(engine.socket(), &ProviderOptions { attach, ..ProviderOptions::default() }).unwrap();
    engine.signal(SIGSTOP);
    let mut batch = provider.generate_batch(&texts(5000, "of a list"), true);
    let single = provider.generate("alone", true);
    engine.signal(SIGCONT);
    let _reactor = Reactor::start(provider.events(), false);
    assert!(block_on(single).is_ok());
    assert!(poll_once(&mut batch).is_none(), "the list was done before the single text");
}

#[test]
fn a_dropped_batch_is_cancelled_and_not_reported_as_failed() {
    let engine = Engine::start();
    let provider = AsyncProvider::attach(engine.socket(), &options(0)).unwrap();
    let _reactor = Reactor::start(provider.events(), false);
    engine.signal(SIGSTOP);
    let mut batch = provider.generate_batch(&texts(1000, "dropped"), true);
    assert!(poll_once(&mut batch).is_none());
    drop(batch);
    engine.signal(SIGCONT);
    assert!(block_on(provider.generate("next", true)).is_ok());
    assert_eq!(provider.take_failed(), Default::default());
}

#[test]
fn what_failed_in_time_can_be_embedded_again() {
    let engine = Engine::start();
    let mut options = options(0);
    options.request = within(100);
    let provider = Provider::attach(engine.socket(), &options).unwrap();
    engine.signal(SIGSTOP);
    assert_eq!(status_of(provider.generate("later", true)), Status::DeadlineExceeded);
    engine.signal(SIGCONT);
    let failed = provider.take_failed().texts;
    assert_eq!(failed.len(), 1);
    assert!(failed[0].error.is_transient());
    let again = (0..50).find_map(|_| provider.generate(&failed[0].text, failed[0].normalize).ok());
    assert!(again.is_some());
}

#[test]
fn an_engine_of_another_width_is_refused_with_both_numbers_and_the_fix() {
    let engine = Engine::start();
    let error = Provider::attach(engine.socket(), &options(768)).err().unwrap();
    assert_eq!(error.status(), Status::Refused);
    for part in ["VECTOR_DIMENSION is 768", "384 floats", "set VECTOR_DIMENSION=384", "a model of 768"] {
        assert!(error.text().contains(part), "{error}");
    }
    assert_eq!(status_of(AsyncProvider::attach(engine.socket(), &options(768))), Status::Refused);
    assert!(Provider::attach(engine.socket(), &ProviderOptions::default()).is_ok());
}

#[test]
fn the_dimension_comes_from_the_environment() {
    // The only test of this process that looks at the variable.
    env::remove_var("VECTOR_DIMENSION");
    assert_eq!(dimension_from_environment(384).unwrap(), 384);
    env::set_var("VECTOR_DIMENSION", "768");
    assert_eq!(dimension_from_environment(384).unwrap(), 768);
    for nonsense in ["", "0", "wide", "-1"] {
        env::set_var("VECTOR_DIMENSION", nonsense);
        assert_eq!(status_of(dimension_from_environment(384)), Status::BadArgument, "{nonsense}");
    }
}

#[test]
fn providers_are_used_as_trait_objects_by_many_threads() {
    let engine = Engine::start();
    let attach = AttachOptions { client_name: Some("pipeline".into()), ..AttachOptions::default() };
    let options = ProviderOptions { attach, ..ProviderOptions::default() };
    let provider: Box<dyn EmbeddingProvider> = Box::new(Provider::attach(engine.socket(), &options).unwrap());
    std::thread::scope(|scope| {
        for number in 0..8 {
            let provider = &provider;
            scope.spawn(move || {
                let texts = texts(40, &format!("thread {number}"));
                assert!(provider.generate_batch(&texts, true).iter().all(|vector| vector.is_some()));
            });
        }
    });
}
