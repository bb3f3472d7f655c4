//! Blocking calls and tickets at a real engine.

mod support;

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::*;
use sutra_embed::{AttachOptions, BatchOptions, Client, Normalize, RequestOptions, Source, Status};

#[test]
fn a_text_becomes_a_vector_of_the_engine_s_width() {
    let engine = Engine::start();
    let client = engine.attach();
    assert_eq!(client.width(), WIDTH);
    let vector = client.embed("Paris is the capital of France", &RequestOptions::default()).unwrap();
    let mut again = vec![0.0; WIDTH];
    let answer = client.embed_into("Paris is the capital of France", &RequestOptions::default(), &mut again).unwrap();
    assert_eq!(vector, again);
    assert_ne!(answer.source, Source::Model, "it was cached");
    assert!(answer.token_count > 0 && !answer.truncated);
    assert_ne!(vector, client.embed("another text", &RequestOptions::default()).unwrap());
    let info = client.info().unwrap();
    assert_eq!((info.width, info.lanes), (WIDTH, 1));
    assert_eq!(info.identity.len(), 64);
}

#[test]
fn unit_and_raw_vectors_differ_by_a_factor() {
    let engine = Engine::start();
    let client = engine.attach();
    let length = |normalize| {
        let options = RequestOptions { normalize, ..RequestOptions::default() };
        let vector = client.embed("NVDA weekly analysis", &options).unwrap();
        vector.iter().map(|float| f64::from(*float).powi(2)).sum::<f64>().sqrt()
    };
    assert!((length(Normalize::Unit) - 1.0).abs() < 1e-5);
    assert!(length(Normalize::Raw) > 0.0);
}

#[test]
fn a_ticket_shows_its_vector_in_place_and_frees_its_slot_when_dropped() {
    let engine = Engine::start();
    let client = engine.attach_with(&few_slots(2));
    let options = RequestOptions { tag: 7, ..RequestOptions::default() };
    let first = client.submit("one", &options).unwrap();
    let second = client.submit("two", &options).unwrap();
    assert_eq!(status_of(client.submit("three", &options)), Status::Full);
    {
        let vector = first.wait(Duration::from_secs(20)).unwrap();
        assert_eq!(vector.answer().tag, 7);
        assert_eq!(vector.as_slice().unwrap().len(), WIDTH);
        assert_eq!(vector.as_slice().unwrap().as_ptr() as usize % 64, 0);
    }
    let copy = first.wait(Duration::ZERO).unwrap().as_slice().unwrap().to_vec();
    assert!(first.is_done());
    drop(first);
    let third = client.submit("three", &options).unwrap();
    assert_eq!(second.take().unwrap().len(), WIDTH);
    assert_eq!(third.take().unwrap(), client.embed("three", &options).unwrap());
    assert_eq!(copy, client.embed("one", &options).unwrap());
    assert_eq!(client.free_slots(), 2);
}

#[test]
fn tickets_outlive_the_name_of_their_client_and_go_to_other_threads() {
    let engine = Engine::start();
    let client = engine.attach();
    let expected = client.embed("elsewhere", &RequestOptions::default()).unwrap();
    let ticket = client.submit("elsewhere", &RequestOptions::default()).unwrap();
    drop(client);
    assert_eq!(thread::spawn(move || ticket.take()).join().unwrap().unwrap(), expected);
}

#[test]
fn several_tickets_are_waited_for_at_once() {
    let engine = Engine::start();
    let client = engine.attach_with(&few_slots(4));
    let (tickets, why) = client.submit_many(&texts(6, "text"), &RequestOptions::default());
    assert_eq!(tickets.len(), 4);
    assert_eq!(why.unwrap().status(), Status::Full);
    let index = client.wait_any(&tickets, Duration::from_secs(20)).unwrap();
    assert!(tickets[index].is_done());
    assert_eq!(status_of(client.wait_any(&[], Duration::ZERO)), Status::BadArgument);
}

#[test]
fn a_batch_has_one_answer_per_text_in_order_also_where_some_fail() {
    let engine = Engine::start();
    let client = engine.attach_with(&few_slots(8));
    let long = "x".repeat(client.info().unwrap().text_bytes_max as usize + 1);
    let mut mixed = texts(1500, "fragment");
    for (index, text) in mixed.iter_mut().enumerate() {
        match index % 100 {
            17 => text.clear(),
            18 if index < 300 => *text = long.clone(),
            19 => *text = "the same each time".into(),
            20 => *text = format!("日本語 \u{0} 🦀 {index}"),
            _ => {}
        }
    }
    let batch = client.embed_batch(&mixed, &RequestOptions::default(), BatchOptions::default());
    assert_eq!(batch.len(), mixed.len());
    for (text, answer) in mixed.iter().zip(batch.iter()) {
        match (text.len(), answer) {
            (0, answer) => {
                let error = answer.unwrap_err();
                assert_eq!(error.status(), Status::EmptyText);
                assert!(error.text().contains("zero bytes"), "{error}");
            }
            (length, answer) if length == long.len() => {
                let error = answer.unwrap_err();
                assert_eq!(error.status(), Status::TextTooLong);
                assert!(error.text().contains(&length.to_string()), "{error}");
            }
            (_, answer) => assert_eq!(answer.unwrap(), client.embed(text, &RequestOptions::default()).unwrap()),
        }
    }
    assert!(client.embed_batch::<String>(&[], &RequestOptions::default(), BatchOptions::default()).is_empty());
}

#[test]
fn an_option_that_does_not_exist_fails_every_text_of_a_batch() {
    let engine = Engine::start();
    let client = engine.attach();
    let wide = RequestOptions { width: WIDTH as u32 * 2, ..RequestOptions::default() };
    let batch = client.embed_batch(&texts(3, "text"), &wide, BatchOptions::default());
    assert_eq!(batch.len(), 3);
    for answer in batch.iter() {
        assert_eq!(answer.unwrap_err().status(), Status::BadOption);
    }
}

#[test]
fn progress_can_stop_a_batch_and_may_panic() {
    let engine = Engine::start();
    let client = engine.attach_with(&few_slots(2));
    engine.signal(SIGSTOP);
    let mut stop = |_: usize, _: usize| ControlFlow::Break(());
    let options = BatchOptions { progress: Some(&mut stop), ..BatchOptions::default() };
    let batch = client.embed_batch(&texts(50, "stopped"), &RequestOptions::default(), options);
    assert!(batch.iter().all(|answer| answer.unwrap_err().status() == Status::Cancelled));
    let mut calls = 0;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut panic = |_: usize, _: usize| {
            calls += 1;
            panic!("of the progress function")
        };
        let options = BatchOptions { progress: Some(&mut panic), ..BatchOptions::default() };
        client.embed_batch(&texts(50, "panicked"), &RequestOptions::default(), options);
    }));
    assert!(panicked.is_err());
    assert_eq!(calls, 1);
    engine.signal(SIGCONT);
    assert!(client.embed("afterwards", &RequestOptions::default()).is_ok());
}

#[test]
fn another_thread_can_cancel_calls_under_way() {
    let engine = Engine::start();
    let client = engine.attach();
    engine.signal(SIGSTOP);
    let (waits, at_work) = mpsc::channel();
    let ticket = client.submit("a ticket", &RequestOptions::default()).unwrap();
    let other = client.clone();
    let blocked = thread::spawn(move || {
        waits.send(()).unwrap();
        status_of(other.embed("a call", &RequestOptions::default()))
    });
    at_work.recv().unwrap();
    while !blocked.is_finished() {
        client.cancel_all(); // at most one is too early
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(blocked.join().unwrap(), Status::Cancelled);
    assert_eq!(status_of(ticket.wait(Duration::ZERO)), Status::Cancelled);
    engine.signal(SIGCONT);
}

#[test]
fn a_stopped_engine_costs_no_more_than_the_deadline() {
    let engine = Engine::start();
    let client = engine.attach();
    engine.signal(SIGSTOP);
    assert_eq!(status_of(client.embed("stopped", &within(100))), Status::DeadlineExceeded);
    let ticket = client.submit("a ticket", &within(200)).unwrap();
    assert_eq!(status_of(ticket.wait(Duration::from_millis(1))), Status::NotReady);
    assert_eq!(status_of(ticket.take()), Status::DeadlineExceeded);
    let batch = client.embed_batch(
        &texts(1000, "stopped"),
        &RequestOptions::default(),
        BatchOptions { timeout: Duration::from_millis(200), ..BatchOptions::default() },
    );
    assert!(batch.iter().all(|answer| answer.is_err()));
    engine.signal(SIGCONT);
    assert!(client.embed("goes on", &RequestOptions::default()).is_ok());
}

#[test]
fn eight_threads_share_a_client_and_get_their_own_vectors() {
    let engine = Engine::start();
    let client = engine.attach_with(&AttachOptions { slots: 8, ..AttachOptions::default() });
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let client = client.clone();
            thread::spawn(move || {
                let texts = texts(60, &format!("thread {number} text"));
                let batch = client.embed_batch(&texts, &RequestOptions::default(), BatchOptions::default());
                for (index, text) in texts.iter().enumerate() {
                    let alone = client.embed(text, &RequestOptions::default()).unwrap();
                    let ticket = loop {
                        match client.submit(text, &RequestOptions::default()) {
                            Ok(ticket) => break ticket,
                            Err(error) => assert_eq!(error.status(), Status::Full),
                        }
                        thread::yield_now();
                    };
                    assert_eq!(batch.vector(index).unwrap(), alone);
                    assert_eq!(ticket.take().unwrap(), alone);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn failures_say_what_and_why() {
    let engine = Engine::start();
    let client = engine.attach();
    let error = client.embed("", &RequestOptions::default()).unwrap_err();
    assert_eq!((error.status(), error.text()), (Status::EmptyText, "the text has zero bytes"));
    let error = client.embed_into("short", &RequestOptions::default(), &mut [0.0; 3]).unwrap_err();
    assert_eq!((error.status(), error.text()), (Status::BadArgument, "room for 3 floats: a vector has 384"));
    let none = Client::attach(engine.socket().with_file_name("none"), &AttachOptions::default());
    let error = none.err().unwrap();
    assert_eq!(error.status(), Status::EngineGone);
    assert!(error.text().contains("nothing listens"), "{error}");
    let zero = Client::attach("a\0b", &AttachOptions::default());
    assert_eq!(status_of(zero), Status::BadArgument);
    let wide = AttachOptions { width: 768, ..AttachOptions::default() };
    assert_eq!(status_of(Client::attach(engine.socket(), &wide)), Status::Refused);
}
