//! Multiplexers side by side over loopback TCP and TLS 1.3: ours, yamux, h2, and TLS with nothing above it.
//!
//! Every peer does the same work through its own natural interface: a call sends a request that names a length, and
//! reads a reply of that length to its end. Client and server each have a thread and a single-threaded runtime, as
//! edge and gateway have. `bulk` is bytes per second of large replies over 1 and 64 concurrent calls on one
//! connection, `calls` is small calls per second (300 bytes out, 600 back, a new stream each) at 1, 16 and 64 at once.

mod h2_peer;
mod ours;
mod raw;
mod scene;
mod yamux_peer;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use crate::scene::{Mux, Scene};

/// Bytes of all replies of one round of `bulk`.
const BULK: usize = 64 * 1024 * 1024;
/// Calls of one round of `calls`.
const CALLS: usize = 2048;
const SMALL_REQUEST: usize = 300;
const SMALL_REPLY: usize = 600;

fn bulk(criterion: &mut Criterion) {
    for streams in [1, 64] {
        let mut group = criterion.benchmark_group(format!("bulk/{streams}"));
        group.throughput(Throughput::Bytes(BULK as u64));
        measure::<ours::Ours>(&mut group, streams, streams, BULK / streams);
        measure::<yamux_peer::Yamux>(&mut group, streams, streams, BULK / streams);
        measure::<h2_peer::H2>(&mut group, streams, streams, BULK / streams);
        if streams == 1 {
            measure::<raw::Raw>(&mut group, 1, 1, BULK);
        }
    }
}

fn calls(criterion: &mut Criterion) {
    for at_once in [1, 16, 64] {
        let mut group = criterion.benchmark_group(format!("calls/{at_once}"));
        group.throughput(Throughput::Elements(CALLS as u64));
        measure::<ours::Ours>(&mut group, CALLS, at_once, SMALL_REPLY);
        measure::<yamux_peer::Yamux>(&mut group, CALLS, at_once, SMALL_REPLY);
        measure::<h2_peer::H2>(&mut group, CALLS, at_once, SMALL_REPLY);
        if at_once == 1 {
            measure::<raw::Raw>(&mut group, CALLS, 1, SMALL_REPLY);
        }
    }
}

fn measure<M: Mux>(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    calls: usize,
    at_once: usize,
    reply: usize,
) {
    let mut scene: Option<Scene<M>> = None;
    group.bench_function(M::NAME, |bencher| {
        let scene = scene.get_or_insert_with(Scene::set);
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| scene.play(calls, at_once, SMALL_REQUEST, reply))
                .sum()
        });
    });
}

criterion_group! {
    name = mux;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4));
    targets = bulk, calls
}
criterion_main!(mux);
