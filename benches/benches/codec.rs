//! The frame codec and the session over it: time and allocations per frame, counted in the steady state.
//!
//! `cargo bench -p benches --bench codec`; with `-- --criterion` criterion's statistics instead of the tables.

use std::{
    alloc::System,
    time::{Duration, Instant},
};

use benches::{
    ends::{Ends, decode_all, frames},
    options::Options,
    table::{Table, Unit, finish, median},
};
use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use mcp_tunnel_proto::QUANTUM;
use stats_alloc::{Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

/// The last is a frame that fills a TLS record with its head.
const SIZES: [usize; 3] = [64, 1024, QUANTUM];
const COLUMNS: [&str; 3] = ["64 B", "1 KiB", "16 KiB"];

/// What is measured: one frame a time, but for decoding, which takes a read's worth.
#[derive(Clone, Copy)]
enum Work {
    Decode,
    Transmit,
    Exchange,
    Resumable,
}

const WORKS: [(Work, &str); 4] = [
    (Work::Decode, "decode"),
    (Work::Transmit, "transmit"),
    (Work::Exchange, "application to application"),
    (Work::Resumable, "the same, resumable"),
];

fn main() -> std::io::Result<()> {
    let options = Options::of_process();
    if let Some((name, count)) = &options.once {
        once(name, *count);
        return Ok(());
    }
    if options.rest.iter().any(|word| word == "--criterion") {
        let mut criterion = Criterion::default();
        statistics(&mut criterion);
        criterion.final_summary();
        return Ok(());
    }
    let rounds = if options.quick { 3 } else { 25 };
    let mut times = Table::new("codec, per frame", &COLUMNS, 0);
    let mut allocations = Table::new("allocations per frame", &COLUMNS, 0);
    for (work, name) in WORKS.into_iter().filter(|(_, name)| options.wants(name)) {
        let nanos = SIZES.map(|size| time(work, size, rounds));
        let texts = SIZES.iter().zip(&nanos).map(|(size, nanos)| {
            let rate = nanos.map_or(0.0, |nanos| *size as f64 / nanos);
            format!("{:.0} ns, {rate:.2} GB/s", nanos.unwrap_or_default())
        });
        times.push_shown(name, Unit::Nanoseconds, nanos.to_vec(), texts.collect());
        let made = SIZES.map(|size| Some(allocated(work, size)));
        allocations.push(name, Unit::Count, made.to_vec());
    }
    finish(&[times, allocations], options.json.as_deref())
}

/// Something to do again and again.
type Worker = Box<dyn FnMut(&mut BytesMut)>;

/// The worker, and how many frames it moves each time.
fn worker(work: Work, size: usize) -> (Worker, usize) {
    match work {
        Work::Decode => (Box::new(decode_all), frames(size).1),
        Work::Transmit => {
            let mut ends = Ends::new(size);
            (Box::new(move |_| ends.transmit()), 1)
        }
        Work::Exchange => {
            let mut ends = Ends::new(size);
            (Box::new(move |_| ends.exchange()), 1)
        }
        Work::Resumable => {
            let mut ends = Ends::resumable(size);
            (Box::new(move |_| ends.exchange()), 1)
        }
    }
}

/// Nanoseconds per frame, the median of `rounds`.
fn time(work: Work, size: usize, rounds: usize) -> Option<f64> {
    let (mut run, count) = worker(work, size);
    let (wire, _) = frames(size);
    // About as many frames a round, whatever one call moves.
    let calls = (4096 / count).max(4);
    let figures = (0..rounds).map(|_| {
        let mut inputs = vec![BytesMut::new(); calls];
        if matches!(work, Work::Decode) {
            inputs.fill_with(|| wire.clone());
        }
        let begun = Instant::now();
        for input in &mut inputs {
            run(input);
        }
        begun.elapsed().as_secs_f64() * 1e9 / (calls * count) as f64
    });
    median(figures.collect())
}

fn allocated(work: Work, size: usize) -> f64 {
    const CALLS: usize = 1000;
    let (mut run, count) = worker(work, size);
    let (wire, _) = frames(size);
    let mut inputs = vec![BytesMut::new(); 2 * CALLS];
    if matches!(work, Work::Decode) {
        inputs.fill_with(|| wire.clone());
    }
    let (first, second) = inputs.split_at_mut(CALLS);
    first.iter_mut().for_each(&mut run);
    let region = Region::new(&ALLOCATOR);
    second.iter_mut().for_each(&mut run);
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / (CALLS * count) as f64
}

/// `NAME:SIZE`, so many frames and nothing else.
fn once(name: &str, count: usize) {
    let (name, size) = name.split_once(':').unwrap_or((name, "64"));
    let size = size.parse().unwrap_or(64);
    let known = WORKS.iter().find(|(_, known)| *known == name);
    let Some((work, _)) = known else { return };
    let (mut run, per_call) = worker(*work, size);
    let input = match work {
        Work::Decode => frames(size).0,
        _ => BytesMut::new(),
    };
    for _ in 0..count.div_ceil(per_call) {
        run(&mut input.clone());
    }
}

fn statistics(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.measurement_time(Duration::from_secs(2));
    for size in SIZES {
        for (work, name) in WORKS {
            let (mut run, count) = worker(work, size);
            let (wire, _) = frames(size);
            group.throughput(Throughput::Bytes((size * count) as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter_batched_ref(|| wire.clone(), &mut run, BatchSize::LargeInput);
            });
        }
    }
    group.finish();
}
