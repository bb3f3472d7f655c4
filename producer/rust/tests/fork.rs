//! What a forked child may do: nothing but attach for itself. A file of its own, since it forks.

mod support;

use std::time::Duration;

use support::*;
use sutra_embed::{AsyncProvider, Client, Events, Provider, ProviderOptions, RequestOptions, Status};
use sutra_embed::{AttachOptions, BatchOptions, EmbeddingProvider};

#[test]
fn every_call_of_a_child_says_forked_and_the_parent_goes_on() {
    let engine = Engine::start();
    let client = engine.attach();
    let ticket = client.submit("parent's", &RequestOptions::default()).unwrap();
    let vector = ticket.wait(Duration::from_secs(20)).unwrap();
    let code = in_a_forked_child(|| {
        let request = RequestOptions::default();
        let statuses = [
            status_of(client.embed("child's", &request)),
            status_of(client.submit("child's", &request)),
            status_of(client.info()),
            status_of(vector.as_slice()),
            status_of(ticket.wait(Duration::ZERO)),
            status_of(ticket.cancel()),
            status_of(Events::new(&client)),
            status_of(
                client.embed_batch(&["a", "b"], &request, BatchOptions::default()).vector(1).map_err(Clone::clone),
            ),
        ];
        match statuses.iter().position(|status| *status != Status::Forked) {
            Some(index) => index as u8 + 1,
            None => u8::from(client.free_slots() != 0) * 100,
        }
    });
    assert_eq!(code, 0);
    assert_eq!(vector.as_slice().unwrap().len(), WIDTH);
}

#[test]
fn a_child_that_drops_everything_takes_nothing_from_its_parent() {
    let engine = Engine::start();
    let client = engine.attach();
    let ticket = client.submit("kept", &RequestOptions::default()).unwrap();
    let events = Events::new(&client).unwrap();
    let thread = events.spawn_thread().unwrap();
    engine.signal(SIGSTOP);
    let future = events.embed("a future", &RequestOptions::default());
    // The child's copies: what the closure owns is dropped in the child and stays here.
    let mut owned = Some((client.clone(), ticket, future, thread));
    let code = in_a_forked_child(|| {
        events.poll();
        let forked = status_of(block_on(events.embed("child's", &RequestOptions::default())));
        drop(owned.take());
        u8::from(forked != Status::Forked)
    });
    engine.signal(SIGCONT);
    assert_eq!(code, 0);
    let (client, ticket, future, _thread) = owned.take().unwrap();
    assert_eq!(block_on(future).unwrap().len(), WIDTH);
    assert_eq!(ticket.take().unwrap(), client.embed("kept", &RequestOptions::default()).unwrap());
}

#[test]
fn a_child_attaches_for_itself() {
    let engine = Engine::start();
    let client = engine.attach();
    let expected = client.embed("both", &RequestOptions::default()).unwrap();
    let code = in_a_forked_child(|| match Client::attach(engine.socket(), &AttachOptions::default()) {
        Ok(own) => u8::from(own.embed("both", &RequestOptions::default()).ok() != Some(expected)),
        Err(_) => 2,
    });
    assert_eq!(code, 0);
}

#[test]
fn providers_of_a_parent_fail_in_the_child_and_remember_nothing_of_it() {
    let engine = Engine::start();
    let blocking = Provider::attach(engine.socket(), &ProviderOptions::default()).unwrap();
    let futures = AsyncProvider::attach(engine.socket(), &ProviderOptions::default()).unwrap();
    let code = in_a_forked_child(|| {
        let one = status_of(blocking.generate("text", true)) == Status::Forked;
        let many = blocking.generate_batch(&texts(3, "text"), true) == [None, None, None];
        let later = status_of(block_on(futures.generate("text", true))) == Status::Forked;
        u8::from(!(one && many && later && blocking.take_failed().texts.is_empty()))
    });
    assert_eq!(code, 0);
}
