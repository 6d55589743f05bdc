//! The loads: bytes, turns and calls per second, and how long a small call takes beside bulk.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    task::{JoinError, JoinSet},
    time::sleep,
};

use crate::{
    clock::Clock,
    conduit::{Ask, Conduit, ECHO, Mux, zeros},
};

/// What is asked of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Endless replies over so many streams, in bytes per second.
    Bulk(usize),
    /// [`ECHO`] bytes there and back, one after another on each of so many streams, in turns per second.
    Turns(usize),
    /// A new stream with 300 bytes out and 600 back, so many at once, per second.
    Calls(usize),
}

/// How long a load runs.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Not counted.
    pub warm_up: Duration,
    /// Counted.
    pub counted: Duration,
}

const REQUEST: usize = 300;
const REPLY: usize = 600;

/// Runs `load` and says how much of it went through per second of `clock`; `None` if it failed.
pub async fn rate<M: Mux>(
    client: &M::Client,
    threads: &[PathBuf],
    load: Load,
    span: Span,
    clock: Clock,
) -> Option<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    let (Load::Bulk(at_once) | Load::Turns(at_once) | Load::Calls(at_once)) = load;
    for _ in 0..at_once {
        let (client, done) = (client.clone(), Arc::clone(&done));
        workers.spawn(async move {
            let count = |amount: u64| {
                done.fetch_add(amount, Ordering::Relaxed);
            };
            match load {
                Load::Bulk(_) => bulk::<M>(&client, count).await,
                Load::Turns(_) => turns::<M>(&client, count).await,
                Load::Calls(_) => loop {
                    call::<M>(&client).await;
                    count(1);
                },
            }
        });
    }
    sleep(span.warm_up).await;
    let before = done.load(Ordering::Relaxed);
    let running = clock.start(threads);
    sleep(span.counted).await;
    let (after, elapsed) = (done.load(Ordering::Relaxed), running.elapsed());
    // None ends of its own accord.
    let failed = workers.try_join_next().is_some();
    workers.shutdown().await;
    (!failed).then(|| (after - before) as f64 / elapsed.as_secs_f64())
}

/// How small calls fare while a bulk stream takes what it can get.
#[derive(Debug, Clone, Copy)]
pub struct Beside {
    /// Of the small calls.
    pub median: Duration,
    /// Of the small calls.
    pub p99: Duration,
    /// Of the bulk stream, in bytes per second.
    pub bulk: f64,
}

/// Makes one small call after another while a bulk stream runs.
pub async fn beside_bulk<M: Mux>(client: &M::Client, span: Span) -> Option<Beside> {
    let done = Arc::new(AtomicU64::new(0));
    let mut bulk_task = JoinSet::new();
    let (bulk_client, counted) = (client.clone(), Arc::clone(&done));
    bulk_task.spawn(async move {
        bulk::<M>(&bulk_client, |amount| {
            counted.fetch_add(amount, Ordering::Relaxed);
        })
        .await;
    });
    sleep(span.warm_up).await;
    let before = done.load(Ordering::Relaxed);
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    let client = client.clone();
    calls.spawn(async move {
        let mut times = Vec::new();
        while begun.elapsed() < span.counted {
            let start = Instant::now();
            call::<M>(&client).await;
            times.push(start.elapsed());
        }
        times
    });
    let times: Result<Vec<Duration>, JoinError> = calls.join_next().await?;
    let elapsed = begun.elapsed().as_secs_f64();
    let bytes = done.load(Ordering::Relaxed) - before;
    let bulk = bytes as f64 / elapsed;
    let mut times = times.ok()?;
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1));
    Some(Beside {
        median: *at(50)?,
        p99: *at(99)?,
        bulk,
    })
}

/// Exactly `count` calls or turns, or as many KiB of bulk, so many at once as `load` says: for counting instructions.
pub async fn exactly<M: Mux>(client: &M::Client, load: Load, count: usize) {
    let (Load::Bulk(at_once) | Load::Turns(at_once) | Load::Calls(at_once)) = load;
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let client = client.clone();
        workers.spawn(async move { exactly_one::<M>(&client, load, count / at_once).await });
    }
    while let Some(done) = workers.join_next().await {
        done.expect("a load that ends");
    }
}

async fn exactly_one<M: Mux>(client: &M::Client, load: Load, count: usize) {
    match load {
        Load::Bulk(_) => {
            let mut left = count as u64 * ECHO as u64;
            let mut stream = M::open(client, Ask::Bulk.encode(REQUEST), false)
                .await
                .expect("a stream");
            while left > 0 {
                let received = stream.recv().await.expect("bytes").length as u64;
                left = left.saturating_sub(received);
            }
        }
        Load::Turns(_) => {
            let mut stream = M::open(client, Ask::Echo.encode(ECHO), false)
                .await
                .expect("a stream");
            for _ in 0..count {
                turn(&mut stream).await;
            }
        }
        Load::Calls(_) => {
            for _ in 0..count {
                call::<M>(client).await;
            }
        }
    }
}

async fn bulk<M: Mux>(client: &M::Client, count: impl Fn(u64)) {
    let mut stream = M::open(client, Ask::Bulk.encode(REQUEST), false)
        .await
        .expect("a stream");
    loop {
        let received = stream.recv().await.expect("bytes").length;
        assert!(received > 0, "bulk has no end");
        count(received as u64);
    }
}

async fn turns<M: Mux>(client: &M::Client, count: impl Fn(u64)) {
    let mut stream = M::open(client, Ask::Echo.encode(ECHO), false)
        .await
        .expect("a stream");
    loop {
        turn(&mut stream).await;
        count(1);
    }
}

/// Takes the answer to the last turn, and begins the next.
async fn turn<C: Conduit>(stream: &mut C) {
    let mut left = ECHO;
    while left > 0 {
        let received = stream.recv().await.expect("an echo").length;
        assert!(received > 0, "an echo has no end");
        left = left.saturating_sub(received);
    }
    stream.send(zeros(ECHO), false).await.expect("room");
}

async fn call<M: Mux>(client: &M::Client) {
    let request: Bytes = Ask::Call(REPLY).encode(REQUEST);
    let mut stream = M::open(client, request, true).await.expect("a stream");
    let mut received = 0;
    loop {
        match stream.recv().await.expect("a reply").length {
            0 => break,
            more => received += more,
        }
    }
    assert_eq!(received, REPLY);
}
