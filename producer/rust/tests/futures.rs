//! Futures over the one descriptor, with a reactor written by hand.

mod support;

use std::os::unix::io::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use support::*;
use sutra_embed::{AttachOptions, Events, Priority, RequestOptions, Status};

fn run_a_thousand(edge_triggered: bool, attach: &AttachOptions) {
    let engine = Engine::start();
    let client = engine.attach_with(attach);
    let events = Events::new(&client).unwrap();
    let _reactor = Reactor::start(&events, edge_triggered);
    let texts = texts(1000, "future");
    for round in 0..2 {
        let futures = texts.iter().map(|text| events.embed(text, &RequestOptions::default())).collect();
        let vectors = block_on(all(futures));
        for (text, vector) in texts.iter().zip(&vectors).skip(round * 7).step_by(13) {
            assert_eq!(vector.as_ref().unwrap(), &client.embed(text, &RequestOptions::default()).unwrap(), "{text}");
        }
        assert!(vectors.iter().all(|vector| vector.is_ok()));
    }
}

#[test]
fn a_thousand_futures_share_one_client() {
    run_a_thousand(false, &AttachOptions::default());
}

#[test]
fn a_reactor_that_is_triggered_by_edges_misses_none() {
    run_a_thousand(true, &AttachOptions::default());
}

#[test]
fn futures_that_find_no_slot_wait_for_one_by_the_descriptor() {
    run_a_thousand(false, &few_slots(2));
}

#[test]
fn futures_that_find_no_slot_wait_for_one_by_edges_without_spinning() {
    run_a_thousand(true, &AttachOptions { spin: Some(Duration::ZERO), ..few_slots(2) });
}

#[test]
fn a_thread_of_its_own_drives_the_futures() {
    let engine = Engine::start();
    let events = Events::new(&engine.attach()).unwrap();
    let thread = events.spawn_thread().unwrap();
    let futures = texts(300, "driven").iter().map(|text| events.embed(text, &RequestOptions::default())).collect();
    assert!(block_on(all(futures)).iter().all(|vector| vector.is_ok()));
    drop(thread);
    assert_eq!(status_of(block_on(events.embed("", &RequestOptions::default()))), Status::EmptyText);
}

#[test]
fn eight_threads_submit_at_once_and_answers_that_overtake_the_submit_are_not_lost() {
    let engine = Engine::start();
    let client = engine.attach_with(&AttachOptions { slots: 16, ..AttachOptions::default() });
    let events = Events::new(&client).unwrap();
    let _reactor = Reactor::start(&events, false);
    let expected = client.embed("the same for all", &RequestOptions::default()).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let vector = block_on(events.embed("the same for all", &RequestOptions::default()));
                    assert_eq!(vector.unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn a_future_ends_at_its_deadline_while_the_engine_is_stopped() {
    let engine = Engine::start();
    let client = engine.attach_with(&few_slots(2));
    let events = Events::new(&client).unwrap();
    let _reactor = Reactor::start(&events, true);
    engine.signal(SIGSTOP);
    let began = Instant::now();
    let futures = (0..5).map(|_| events.embed("stopped", &within(300))).collect();
    let statuses: Vec<Status> = block_on(all(futures)).into_iter().map(status_of).collect();
    assert!(began.elapsed() >= Duration::from_millis(300));
    // Two had a slot, and the others waited for one.
    assert_eq!(statuses[..2], [Status::DeadlineExceeded; 2]);
    assert!(statuses[2..].iter().all(|s| [Status::Full, Status::DeadlineExceeded].contains(s)), "{statuses:?}");
    engine.signal(SIGCONT);
    assert!(block_on(events.embed("goes on", &RequestOptions::default())).is_ok());
}

#[test]
fn dropped_futures_are_cancelled_and_their_slots_come_back() {
    let engine = Engine::start();
    let client = engine.attach_with(&few_slots(64));
    let events = Events::new(&client).unwrap();
    let _reactor = Reactor::start(&events, false);
    engine.signal(SIGSTOP);
    let mut futures: Vec<_> =
        texts(200, "dropped").iter().map(|text| events.embed(text, &RequestOptions::default())).collect();
    assert!(futures.iter_mut().all(|future| poll_once(future).is_none()));
    drop(futures);
    let last = events.embed("not dropped", &RequestOptions::default());
    engine.signal(SIGCONT);
    let expected = client.embed("not dropped", &RequestOptions::default()).unwrap();
    assert_eq!(block_on(last).unwrap(), expected);
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.free_slots() < 64 {
        assert!(Instant::now() < deadline, "{} of 64 slots are free", client.free_slots());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_query_goes_before_a_list_that_waits_for_slots() {
    let engine = Engine::start();
    let client = engine.attach_with(&few_slots(2));
    let events = Events::new(&client).unwrap();
    engine.signal(SIGSTOP);
    let mut list: Vec<_> =
        texts(100, "list").iter().map(|text| Some(events.embed(text, &RequestOptions::default()))).collect();
    let urgent = RequestOptions { priority: Priority::Query, ..RequestOptions::default() };
    let mut query = events.embed("query", &urgent);
    engine.signal(SIGCONT);
    let vector = loop {
        events.poll();
        for place in &mut list {
            if place.as_mut().and_then(poll_once).is_some() {
                *place = None;
            }
        }
        if let Some(vector) = poll_once(&mut query) {
            break vector;
        }
        thread::yield_now();
    };
    assert!(vector.is_ok());
    let before = list.iter().filter(|place| place.is_none()).count();
    assert!(before <= 10, "{before} of the list were answered before the query");
}

#[test]
fn tickets_of_the_caller_s_own_are_left_alone_whatever_their_tags() {
    let engine = Engine::start();
    let client = engine.attach();
    let events = Events::new(&client).unwrap();
    let _reactor = Reactor::start(&events, false);
    for tag in 0..200 {
        let own = client.submit("own", &RequestOptions { tag, ..RequestOptions::default() }).unwrap();
        assert!(block_on(events.embed("future", &RequestOptions::default())).is_ok());
        assert_eq!(own.wait(Duration::from_secs(20)).unwrap().answer().tag, tag);
    }
}

#[test]
fn plain_submits_of_the_same_thread_do_not_stall_futures_that_wait_for_room() {
    let engine = Engine::start();
    let client = engine.attach_with(&few_slots(2));
    let events = Events::new(&client).unwrap();
    let _reactor = Reactor::start(&events, true);
    for round in 0..50 {
        let futures: Vec<_> = texts(6, &format!("round {round}"))
            .iter()
            .map(|text| events.embed(text, &RequestOptions::default()))
            .collect();
        drop(client.submit("in between", &RequestOptions::default()));
        drop(client.embed("in between", &RequestOptions::default()));
        assert!(block_on(all(futures)).iter().all(|vector| vector.is_ok()));
    }
}

#[test]
fn a_client_has_one_events_and_one_descriptor() {
    let engine = Engine::start();
    let client = engine.attach();
    let events = Events::new(&client).unwrap();
    assert_eq!(status_of(Events::new(&client)), Status::BadArgument);
    assert_eq!(events.as_raw_fd(), events.clone().as_raw_fd());
    assert!(events.as_raw_fd() > 2);
    drop(events);
    assert!(Events::new(&client).is_ok());
}

#[test]
fn the_descriptor_is_quiet_when_nothing_happens() {
    let engine = Engine::start();
    let client = engine.attach_with(&few_slots(2));
    let events = Events::new(&client).unwrap();
    let reactor = Reactor::start(&events, false);
    let futures = texts(20, "text").iter().map(|text| events.embed(text, &RequestOptions::default())).collect();
    assert!(block_on(all(futures)).iter().all(|vector| vector.is_ok()));
    thread::sleep(Duration::from_millis(100)); // what was under way may still wake it
    let before = reactor.wakes();
    thread::sleep(Duration::from_millis(300));
    assert!(reactor.wakes() - before < 5, "{} wake-ups of an idle client", reactor.wakes() - before);
}
