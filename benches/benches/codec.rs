//! The frame codec and the session over it: time, throughput and allocations per frame.
//!
//! `cargo bench -p benches --bench codec`. Before criterion's figures it prints allocations per frame, counted in the
//! steady state, for 64 B, 1 KiB and 16 KiB of payload.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{
    alloc::System,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use mcp_tunnel_proto::{
    Config, Connection, EdgeHandshake, Features, Frame, GatewayHandshake, OpenHeader, Resumable,
    RouteName, SessionId, StreamId, StreamKind, Transmit, decode,
};
use stats_alloc::{Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

const SIZES: [usize; 3] = [64, 1024, 16 * 1024];

/// What one read of the transport brings.
const BATCH: usize = 64 * 1024;

/// A read's worth of DATA frames with `size` bytes of payload each.
fn frames(size: usize) -> (BytesMut, usize) {
    let frame = data(size);
    let mut wire = BytesMut::new();
    let count = (BATCH / (size + 8)).max(1);
    for _ in 0..count {
        frame.encode(&mut wire).expect("the frame fits");
    }
    (wire, count)
}

fn data(size: usize) -> Frame {
    Frame::Data {
        id: StreamId::new(2).expect("an id"),
        payload: Bytes::from(vec![7; size]),
        fin: false,
    }
}

fn decode_all(input: &mut BytesMut) {
    while let Ok(Some(frame)) = decode(input, u16::MAX) {
        black_box(frame);
    }
}

/// Both ends of a session with one open stream and windows that never fill.
struct Ends {
    gateway: Connection,
    edge: Connection,
    stream: StreamId,
    out: Transmit,
    input: BytesMut,
    payload: Bytes,
    now: Instant,
}

impl Ends {
    fn new(size: usize) -> Self {
        Self::with(size, Features::NONE)
    }

    /// The same with a session that survives its link: frames are kept until acknowledged.
    fn resumable(size: usize) -> Self {
        Self::with(size, Features::RESUME)
    }

    fn with(size: usize, features: Features) -> Self {
        let now = Instant::now();
        let config = Arc::new(
            Config::default()
                .set_stream_window(1 << 60)
                .set_session_window(1 << 60)
                .set_send_buffer(1 << 20)
                .set_features(features),
        );
        let mut out = Transmit::new(BATCH);
        let mut gateway = GatewayHandshake::new(now, Arc::clone(&config), Bytes::new(), "bench")
            .expect("a short hello");
        let mut edge =
            EdgeHandshake::new(now, Arc::clone(&config), "bench").expect("a short hello");
        gateway.poll_transmit(now, &mut out);
        edge.handle_input(now, &mut carry(&mut out))
            .expect("a good hello");
        let resumable = Resumable::new(SessionId::new([1; 16]), Duration::from_secs(60));
        let mut edge = edge
            .admit_resumable(now, config, Some(resumable), &mut out)
            .expect("greeted");
        let mut input = carry(&mut out);
        while gateway
            .handle_input(now, &mut input)
            .expect("good")
            .is_some()
        {}
        let mut gateway = gateway.into_connection(now).expect("admitted");
        let header = OpenHeader::new(StreamKind::Http, RouteName::default_route());
        let stream = edge.open(header, &mut Bytes::new()).expect("a slot");
        edge.poll_transmit(now, &mut out);
        gateway
            .handle_input(now, &mut carry(&mut out))
            .expect("good");
        Self {
            gateway,
            edge,
            stream,
            out,
            input: BytesMut::with_capacity(2 * BATCH),
            payload: Bytes::from(vec![7; size]),
            now,
        }
    }

    /// The gateway sends one frame.
    fn send(&mut self) {
        let mut payload = self.payload.clone();
        let mut stream = self.gateway.send_stream(self.stream).expect("open");
        stream.write(&mut payload).expect("room");
        self.gateway.poll_transmit(self.now, &mut self.out);
    }

    /// A frame from application to application; the copy into the read buffer is the socket's.
    fn exchange(&mut self) {
        self.send();
        self.input.reserve(self.out.remaining());
        while self.out.has_remaining() {
            let chunk = self.out.chunk();
            self.input.extend_from_slice(chunk);
            let length = chunk.len();
            self.out.advance(length);
        }
        self.edge
            .handle_input(self.now, &mut self.input)
            .expect("good");
        while self.edge.poll_event().is_some() {}
        while self.gateway.poll_event().is_some() {}
        let mut stream = self.edge.recv_stream(self.stream).expect("open");
        while let Ok(Some(piece)) = stream.read(usize::MAX) {
            black_box(piece);
        }
        if self.edge.wants_transmit() {
            self.edge.poll_transmit(self.now, &mut self.out);
            self.gateway
                .handle_input(self.now, &mut carry(&mut self.out))
                .expect("good");
        }
    }
}

fn carry(out: &mut Transmit) -> BytesMut {
    BytesMut::from(out.copy_to_bytes(out.remaining()))
}

/// Allocations that `work` makes, per each of `count` frames.
fn allocations(count: usize, mut work: impl FnMut()) -> f64 {
    work();
    let region = Region::new(&ALLOCATOR);
    work();
    let change = region.change();
    let made = u32::try_from(change.allocations + change.reallocations).unwrap_or(u32::MAX);
    f64::from(made) / f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn print_allocations() {
    println!("allocations per frame    decode    transmit   end to end   resumable");
    for size in SIZES {
        let (wire, count) = frames(size);
        let mut inputs = vec![wire.clone(), wire];
        let decoded = allocations(count, || {
            let mut input = inputs.pop().expect("two rounds");
            decode_all(&mut input);
        });
        let mut ends = Ends::new(size);
        let sent = allocations(1000, || {
            for _ in 0..1000 {
                ends.send();
                let length = ends.out.remaining();
                ends.out.advance(length);
            }
        });
        let mut ends = Ends::new(size);
        let whole = allocations(1000, || (0..1000).for_each(|_| ends.exchange()));
        let mut ends = Ends::resumable(size);
        let kept = allocations(1000, || (0..1000).for_each(|_| ends.exchange()));
        println!("{size:>14} B {decoded:>14.3} {sent:>11.3} {whole:>12.3} {kept:>11.3}");
    }
}

fn benchmarks(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("transmit", size), |b| {
            let mut ends = Ends::new(size);
            b.iter(|| {
                ends.send();
                let length = ends.out.remaining();
                ends.out.advance(length);
            });
        });
        group.bench_function(BenchmarkId::new("end_to_end", size), |b| {
            let mut ends = Ends::new(size);
            b.iter(|| ends.exchange());
        });
        group.bench_function(BenchmarkId::new("end_to_end_resumable", size), |b| {
            let mut ends = Ends::resumable(size);
            b.iter(|| ends.exchange());
        });
        let (wire, count) = frames(size);
        group.throughput(Throughput::Bytes((size * count) as u64));
        group.bench_function(BenchmarkId::new(format!("decode_x{count}"), size), |b| {
            b.iter_batched_ref(|| wire.clone(), decode_all, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn main() {
    print_allocations();
    let mut criterion = Criterion::default().configure_from_args();
    benchmarks(&mut criterion);
    criterion.final_summary();
}
