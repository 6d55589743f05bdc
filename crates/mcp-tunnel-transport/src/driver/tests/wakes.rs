//! Nobody waits for a wake-up that was lost: handles and drivers on several threads at once, and no timer that would heal it.

use std::{sync::mpsc, thread};

use mcp_tunnel_proto::{Config, ResetCode};

use super::*;
use crate::StreamError;

/// Calls of one thread.
const CALLS: u64 = 250;
const THREADS: u64 = 4;
/// More than the streams that there may be: some wait for others to end.
const STREAMS: u32 = 3;
/// Beyond every time that something here takes on a machine with much to do.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Small limits, so that everybody waits for everybody all the time, and no deadline that would help.
fn narrow(keep: Duration) -> LinkConfig {
    let protocol = Config::default()
        .set_max_streams(STREAMS)
        .set_stream_window(4096)
        .set_wide_stream_window(8192)
        .set_session_window(64 * 1024)
        .set_retained(128 * 1024)
        .set_session_send_buffer(32 * 1024)
        .set_ping_interval(FOR_EVER)
        .set_silence(2 * FOR_EVER);
    LinkConfig::default()
        .set_protocol(protocol)
        .set_keep(keep)
        .set_write_stall(FOR_EVER)
        .set_open_timeout(FOR_EVER)
}

/// The numbers that one thread follows.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn length(&mut self) -> usize {
        let most = [64, 2000, 30_000][usize::try_from(self.below(3)).unwrap()];
        usize::try_from(self.below(most)).unwrap() + 1
    }
}

/// Sends back what comes.
async fn echo(link: Link) {
    let mut calls = JoinSet::new();
    while let Some(mut incoming) = link.accept().await {
        calls.spawn(async move {
            while let Ok(Some(chunk)) = incoming.stream.read_chunk().await {
                if incoming.stream.write_chunk(chunk).await.is_err() {
                    return;
                }
            }
            let _ = incoming.stream.shutdown().await;
        });
        while calls.try_join_next().is_some() {}
    }
    while calls.join_next().await.is_some() {}
}

/// One call of any kind: whole, or given up by its caller.
async fn any_call(link: &Link, dice: &mut Dice) {
    // Nobody reads the echo before the stream is open.
    let first = vec![1; usize::try_from(dice.below(4096)).unwrap()];
    let first = Bytes::from(first);
    let (begun, length) = (first.len(), dice.length());
    let stream = link.open(header(), first).await.unwrap();
    let (mut send, mut recv) = stream.split();
    if dice.below(8) == 0 {
        if dice.below(2) == 0 {
            let _ = recv.read_chunk().await;
        }
        send.reset(ResetCode::CANCELLED);
        recv.stop(ResetCode::CANCELLED);
        return;
    }
    let pieces = dice.below(4) + 1;
    let write = async {
        for _ in 0..pieces {
            send.write_chunk(Bytes::from(vec![2; length])).await?;
        }
        send.finish()
    };
    let read = async {
        let (mut answer, mut buffer) = (0, vec![0; 3000]);
        loop {
            match recv.read(&mut buffer).await? {
                0 => return io::Result::Ok(answer),
                count => answer += count,
            }
        }
    };
    let (written, answer) = tokio::join!(write, read);
    written.unwrap();
    let pieces = usize::try_from(pieces).unwrap();
    assert_eq!(answer.unwrap(), begun + pieces * length);
}

/// A link whose drivers run on the runtime's threads, and an echo at its far end.
async fn echoed(keep: Duration, buffer: usize) -> (Link, JoinSet<()>) {
    let (near, far) = tokio::io::duplex(buffer);
    let (config, mut tasks) = (narrow(keep), JoinSet::new());
    let admit = async {
        let (link, driver) = edge(near, &config).await.unwrap();
        tasks.spawn(async move { drop(driver.run().await) });
        link
    };
    let (link, far) = tokio::join!(admit, gateway(far, &config));
    let (far, driver) = far.unwrap();
    tasks.spawn(async move { drop(driver.run().await) });
    tasks.spawn(echo(far));
    (link, tasks)
}

/// Calls from several threads at once over one link, none of which may stand still.
#[test]
fn no_wake_up_is_lost_between_threads() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_time().build().unwrap();
    for (keep, buffer) in [(0, 1000), (60, 100_000), (60, 3000)] {
        let (link, mut tasks) = runtime.block_on(echoed(Duration::from_secs(keep), buffer));
        let (done, finished) = mpsc::channel();
        for seed in 1..=THREADS {
            let (link, done, runtime) = (link.clone(), done.clone(), runtime.handle().clone());
            thread::spawn(move || {
                let mut dice = Dice(seed * 0x9e37_79b9);
                for _ in 0..CALLS {
                    runtime.block_on(any_call(&link, &mut dice));
                }
                done.send(seed).unwrap();
            });
        }
        drop((done, link));
        for _ in 0..THREADS {
            let ended = finished.recv_timeout(Duration::from_secs(120));
            ended.expect("every thread ends");
        }
        runtime.block_on(async { while tasks.join_next().await.is_some() {} });
    }
}

/// Who waits for an abort of a stream that ends in order is told so, and nothing of the wait is left.
#[tokio::test]
async fn a_watch_ends_with_its_stream() {
    let (mut gateway, mut edge) = by_hand().await;
    for _ in 0..3 {
        let mut stream = edge
            .link
            .open(header(), Bytes::from_static(b"!"))
            .await
            .unwrap();
        edge.turn().await;
        gateway.turn().await;
        let mut far = gateway.link.accept().await.unwrap().stream;
        stream.finish().unwrap();
        far.finish().unwrap();
        edge.turn().await;
        gateway.turn().await;
        edge.turn().await;
        let wakes = Arc::new(CountWakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let (mut send, mut recv) = stream.split();
        assert!(send.poll_stopped(&mut cx).is_pending());
        assert_eq!(recv.read_chunk().await.unwrap(), None);
        while far.read_chunk().await.unwrap().is_some() {}
        gateway.turn().await;
        edge.turn().await;
        assert!(wakes.0.load(Ordering::Relaxed) > 0, "the watch is woken");
        let ended = send.poll_stopped(&mut cx);
        assert!(
            matches!(ended, Poll::Ready(StreamError::Ended)),
            "{ended:?}"
        );
        let ended = recv.poll_reset_received(&mut cx);
        assert!(
            matches!(ended, Poll::Ready(StreamError::Ended)),
            "{ended:?}"
        );
        assert!(matches!(far.aborted().await, StreamError::Ended));
        assert_eq!(edge.link.shared().lock().watched(), 0);
        assert_eq!(gateway.link.shared().lock().watched(), 0);
    }
}
