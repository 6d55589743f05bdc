//! Streams from outside: bytes both ways, each way ended on its own, aborts that never look like ends.

use std::{future::poll_fn, io::ErrorKind, task::Poll, time::Duration};

use bytes::Bytes;
use mcp_tunnel_proto::{Config, ResetCode};
use mcp_tunnel_transport::{CloseReason, LinkConfig, OpenError, StreamError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::{http, link_pair, stream_error};

#[tokio::test]
async fn both_sides_open_and_echo() {
    let pair = link_pair(&LinkConfig::default()).await;
    for (here, there) in [(&pair.edge, &pair.gateway), (&pair.gateway, &pair.edge)] {
        let mut near = here
            .open(http(), Bytes::from_static(b"ping"))
            .await
            .unwrap();
        let incoming = there.accept().await.unwrap();
        assert_eq!(incoming.header, http());
        let mut far = incoming.stream;
        assert_eq!(far.id(), near.id());
        assert_eq!(far.read_chunk().await.unwrap().unwrap(), "ping");
        far.write_all(b"pong").await.unwrap();
        far.shutdown().await.unwrap();
        near.finish().unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "pong");
        assert_eq!(far.read_chunk().await.unwrap(), None);
        assert_eq!(far.read_chunk().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_half_closed_stream_still_carries_the_answer() {
    let pair = link_pair(&LinkConfig::default()).await;
    let (mut near, mut far) = pair.stream().await;
    near.write_all(b"request").await.unwrap();
    near.shutdown().await.unwrap();
    near.shutdown().await.unwrap();
    let mut request = Vec::new();
    far.read_to_end(&mut request).await.unwrap();
    assert_eq!(request, b"request");
    for piece in [&b"an"[..], b"swer"] {
        far.write_all(piece).await.unwrap();
        let mut read = vec![0; piece.len()];
        near.read_exact(&mut read).await.unwrap();
        assert_eq!(read, piece);
    }
    let error = near.write_all(b"more").await;
    assert!(matches!(stream_error(error), StreamError::Ended));
}

#[tokio::test]
async fn megabytes_arrive_in_order_through_every_window() {
    let pair = link_pair(&LinkConfig::default()).await;
    let (mut near, far) = pair.stream().await;
    let sent: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (_far_send, mut far) = far.split();
    let write = async {
        for chunk in sent.chunks(70_001) {
            near.write_chunk(Bytes::copy_from_slice(chunk))
                .await
                .unwrap();
        }
        near.finish().unwrap();
    };
    let mut received = Vec::new();
    let ((), read) = tokio::join!(write, far.read_to_end(&mut received));
    read.unwrap();
    assert!(received == sent);
}

#[tokio::test]
async fn a_stream_without_first_bytes_is_announced_by_write_flush_or_read() {
    let pair = link_pair(&LinkConfig::default()).await;
    let open = async || pair.edge.open(http(), Bytes::new()).await.unwrap();

    let mut written = open().await;
    written.write_all(b"w").await.unwrap();
    pair.gateway.accept().await.unwrap();

    let mut flushed = open().await;
    flushed.flush().await.unwrap();
    pair.gateway.accept().await.unwrap();

    let mut read = open().await;
    let accepted = tokio::select! {
        _ = read.read_chunk() => panic!("nothing was sent"),
        incoming = pair.gateway.accept() => incoming,
    };
    let mut far = accepted.unwrap().stream;
    far.write_all(b"first word").await.unwrap();
    assert_eq!(read.read_chunk().await.unwrap().unwrap(), "first word");
}

#[tokio::test]
async fn reset_and_stop_carry_their_codes() {
    let pair = link_pair(&LinkConfig::default()).await;
    let (near, mut far) = pair.stream().await;
    let (mut send, mut recv) = near.split();

    send.reset(ResetCode::DEADLINE);
    let error = far.read_chunk().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(
        StreamError::of(&error),
        Some(StreamError::Reset(ResetCode::DEADLINE))
    ));

    recv.stop(ResetCode::OVERLOADED);
    let aborted = far.aborted().await;
    assert!(
        matches!(aborted, StreamError::Reset(ResetCode::DEADLINE)),
        "{aborted}"
    );
    let (mut far_send, mut far_recv) = far.split();
    let stopped = far_send.stopped().await;
    assert!(
        matches!(stopped, StreamError::Stopped(ResetCode::OVERLOADED)),
        "{stopped}"
    );
    let error = far_send.write_all(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(matches!(
        stream_error(far_recv.read_chunk().await),
        StreamError::Reset(_)
    ));
    assert!(matches!(
        stream_error(recv.read_chunk().await),
        StreamError::Ended
    ));
}

#[tokio::test]
async fn a_dropped_stream_is_cancelled_both_ways() {
    let pair = link_pair(&LinkConfig::default()).await;
    let (near, mut far) = pair.stream().await;
    drop(near);
    let error = stream_error(far.read_chunk().await);
    assert!(
        matches!(error, StreamError::Reset(ResetCode::CANCELLED)),
        "{error}"
    );
    let (mut send, _recv) = far.split();
    let error = send.stopped().await;
    assert!(
        matches!(error, StreamError::Stopped(ResetCode::CANCELLED)),
        "{error}"
    );
}

#[tokio::test]
async fn a_stream_dropped_after_its_end_still_delivers_it() {
    let pair = link_pair(&LinkConfig::default()).await;
    let (mut near, mut far) = pair.stream().await;
    near.write_all(b"all of it").await.unwrap();
    near.finish().unwrap();
    drop(near);
    let mut read = Vec::new();
    far.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"all of it");
}

#[tokio::test]
async fn a_stream_dropped_unannounced_leaves_no_trace() {
    let pair = link_pair(&LinkConfig::default()).await;
    drop(pair.edge.open(http(), Bytes::new()).await.unwrap());
    let (_near, _far) = pair.stream().await;
    assert_eq!(pair.edge.live_streams(), 1);
    assert_eq!(pair.gateway.live_streams(), 1);
}

#[tokio::test]
async fn a_lost_link_is_an_error_and_what_had_arrived_is_not_lost() {
    let mut pair = link_pair(&LinkConfig::default()).await;
    let (mut ended, mut far) = pair.stream().await;
    let (mut cut, mut far_cut) = pair.stream().await;
    far.write_all(b"whole").await.unwrap();
    far.finish().unwrap();
    far_cut.write_all(b"part").await.unwrap();
    let (mut witness, mut far_witness) = pair.stream().await;
    far_witness.write_all(b"!").await.unwrap();
    witness.read_u8().await.unwrap(); // the two above have arrived as well
    pair.drivers.shutdown().await;

    let mut read = Vec::new();
    ended.flush().await.unwrap(); // hyper does that before it reads
    ended.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"whole");

    assert_eq!(cut.read_chunk().await.unwrap().unwrap(), "part");
    let error = cut.read_chunk().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = StreamError::of(&error).cloned().unwrap();
    assert!(
        matches!(error, StreamError::LinkLost(CloseReason::Abandoned)),
        "{error}"
    );
    let error = cut.write_all(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(
        stream_error(Err::<(), _>(error)),
        StreamError::LinkLost(_)
    ));
    assert!(matches!(cut.aborted().await, StreamError::LinkLost(_)));
    let error = pair.edge.open(http(), Bytes::new()).await.unwrap_err();
    assert!(matches!(error, OpenError::Closed(_)), "{error}");
}

#[tokio::test]
async fn a_pending_reader_and_writer_hear_of_a_lost_link() {
    let mut pair = link_pair(&LinkConfig::default()).await;
    let (mut near, _far) = pair.stream().await;
    let (mut writer, _far_writer) = pair.stream().await;
    let read = near.read_chunk();
    let write = writer.write_chunk(Bytes::from(vec![0; 10_000_000]));
    let lose = pair.drivers.shutdown();
    let (read, write, ()) = tokio::join!(read, write, lose);
    assert!(matches!(stream_error(read), StreamError::LinkLost(_)));
    assert!(matches!(stream_error(write), StreamError::LinkLost(_)));
}

/// Writes to a stream until it takes no more, and says how much it took.
async fn fill(stream: &mut mcp_tunnel_transport::Stream) -> usize {
    let chunk = vec![0; 64 * 1024];
    let mut taken = 0;
    let mut blocked = 0;
    loop {
        let written = poll_fn(|cx| {
            let write = tokio::io::AsyncWrite::poll_write(std::pin::Pin::new(stream), cx, &chunk);
            Poll::Ready(write)
        })
        .await;
        match written {
            Poll::Ready(written) => taken += written.unwrap(),
            // The driver may still move some: it is full once nothing changes for a while.
            Poll::Pending if blocked == 100 => return taken,
            Poll::Pending => {
                blocked += 1;
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test]
async fn a_slow_reader_stalls_itself_only_and_memory_is_bounded() {
    let pair = link_pair(&LinkConfig::default()).await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let (mut near, far) = pair.stream().await;
        let taken = fill(&mut near).await;
        let window = usize::try_from(Config::default().stream_window()).unwrap();
        assert!(
            taken <= window,
            "{taken} bytes for a reader that never reads"
        );
        stalled.push((near, far));
    }
    let (mut near, mut far) = pair.stream().await;
    near.write_all(b"small call").await.unwrap();
    let mut read = [0; 10];
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"small call");
}

#[tokio::test]
async fn a_thousand_idle_streams_leave_room_for_a_call() {
    let config = Config::default()
        .set_max_streams(1100)
        .set_max_opened_streams(1100);
    let pair = link_pair(&LinkConfig::default().set_protocol(config)).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(pair.stream().await);
    }
    assert_eq!(pair.edge.live_streams(), 1000);
    let (mut near, mut far) = pair.stream().await;
    near.write_all(b"call").await.unwrap();
    let mut read = [0; 4];
    far.read_exact(&mut read).await.unwrap();
    drop((near, far));
    drop(idle);
    while pair.edge.live_streams() + pair.gateway.live_streams() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_link_lets_openers_in_as_soon_as_a_stream_ends() {
    let config = Config::default().set_max_streams(2);
    let pair = link_pair(&LinkConfig::default().set_protocol(config)).await;
    let start = tokio::time::Instant::now();
    let (first, far) = pair.stream().await;
    let (_second, _far) = pair.stream().await;
    let open = || pair.edge.open(http(), Bytes::from_static(b"!"));
    let free = async {
        tokio::task::yield_now().await;
        drop((first, far));
    };
    let (third, ()) = tokio::join!(open(), free);
    let mut third_far = pair.gateway.accept().await.unwrap().stream;
    third_far.reset(ResetCode::REFUSED);
    let error = third.unwrap().aborted().await;
    assert!(
        matches!(error, StreamError::Reset(ResetCode::REFUSED)),
        "{error}"
    );
    assert!(error.is_replay_safe());
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "the slot came with a ping only"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_link_does_not_keep_openers_for_ever() {
    let config = Config::default().set_max_streams(1);
    let pair = link_pair(&LinkConfig::default().set_protocol(config)).await;
    let _held = pair.stream().await;
    let start = tokio::time::Instant::now();
    let error = pair.edge.open(http(), Bytes::new()).await.unwrap_err();
    assert!(matches!(error, OpenError::NoRoom { .. }) && error.is_replay_safe());
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn an_open_whose_first_bytes_nobody_takes_is_not_safe_to_replay() {
    let pair = link_pair(&LinkConfig::default()).await;
    let first = Bytes::from(vec![0; 1_000_000]);
    let (opened, accepted) = tokio::join!(pair.edge.open(http(), first), pair.gateway.accept());
    let error = opened.unwrap_err();
    // The peer has the stream, and may have acted on what came.
    assert!(accepted.is_some());
    assert!(
        matches!(error, OpenError::Stalled { .. }) && !error.is_replay_safe(),
        "{error}"
    );
}

#[tokio::test]
async fn cancelled_reads_and_writes_lose_nothing() {
    let pair = link_pair(&LinkConfig::default()).await;
    let (mut near, mut far) = pair.stream().await;
    // Each of these is dropped while it waits.
    for _ in 0..3 {
        tokio::select! {
            biased;
            _ = far.read_chunk() => panic!("nothing was sent"),
            () = tokio::task::yield_now() => {}
        }
        tokio::select! {
            biased;
            _ = far.aborted() => panic!("nothing was aborted"),
            () = tokio::task::yield_now() => {}
        }
    }
    near.write_all(b"after").await.unwrap();
    assert_eq!(far.read_chunk().await.unwrap().unwrap(), "after");

    let filled = fill(&mut near).await;
    let mut chunk = Bytes::from(vec![1; 1000]);
    tokio::select! {
        biased;
        _ = poll_fn(|cx| {
            let (send, _) = (&mut near, ());
            tokio::io::AsyncWrite::poll_write(std::pin::Pin::new(send), cx, &chunk)
        }) => panic!("the window was full"),
        () = tokio::task::yield_now() => {}
    }
    let (mut send, _recv) = near.split();
    let finish = async {
        poll_fn(|cx| send.poll_write_chunk(cx, &mut chunk))
            .await
            .unwrap();
        send.finish().unwrap();
    };
    let mut read = Vec::new();
    let ((), outcome) = tokio::join!(finish, far.read_to_end(&mut read));
    outcome.unwrap();
    assert_eq!(read.len(), filled + 1000);
}
