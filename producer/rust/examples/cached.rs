//! Time of a cached text through the crate: `cached SOCKET [CALLS [ROUNDS]]`.
//!
//! Each round makes CALLS blocking calls (default 20,000) with the same text and prints the nanoseconds per text, after a
//! warm-up round that is not printed. No call allocates. With `--in-place` the calls are submit, wait and drop, and the
//! vector is read where the engine wrote it.

use std::env;
use std::error::Error;
use std::time::{Duration, Instant};

use sutra_embed::{AttachOptions, Client, RequestOptions};

const TEXT: &str = "AAPL stock price";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let in_place = arguments.iter().any(|argument| argument == "--in-place");
    arguments.retain(|argument| argument != "--in-place");
    let socket = arguments.first().ok_or("usage: cached SOCKET [CALLS [ROUNDS]] [--in-place]")?;
    let number = |index: usize, default| arguments.get(index).map_or(Ok(default), |text| text.parse::<u32>());
    let (calls, rounds) = (number(1, 20_000)?, number(2, 5)?);
    if calls == 0 {
        return Err("at least one call".into());
    }

    let client = Client::attach(socket, &AttachOptions::default())?;
    let options = RequestOptions::default();
    let mut vector = vec![0.0; client.width()];
    let mut sum = 0.0;
    for round in 0..=rounds {
        let began = Instant::now();
        for _ in 0..calls {
            if in_place {
                let ticket = client.submit(TEXT, &options)?;
                sum += ticket.wait(Duration::from_secs(30))?.as_slice()?[0];
            } else {
                client.embed_into(TEXT, &options, &mut vector)?;
                sum += vector[0];
            }
        }
        let nanoseconds = began.elapsed().as_nanos() / u128::from(calls);
        if round > 0 {
            println!("{nanoseconds}");
        }
    }
    assert!(sum.is_finite());
    Ok(())
}
