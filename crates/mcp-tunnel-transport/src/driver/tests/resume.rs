//! Sessions whose connection fails at every byte, and that go on over another.
//!
//! What the two handshakes do over TLS is done by hand here: claims and answers go from one side to the other as
//! values, and each new connection carries the session alone.

use bytes::BytesMut;
use mcp_tunnel_proto::{Position, Resume};

use super::*;
use crate::{ClaimError, Exporter, StreamError, outbox::Outbox, resume::Replacement};

const KEEP: Duration = Duration::from_secs(60);
const EXPORTER: Exporter = Exporter::for_test([9; 32]);

fn kept() -> LinkConfig {
    config().set_keep(KEEP)
}

fn faulty(io: DuplexStream, fault: Fault) -> Faulty {
    Faulty {
        io,
        fault,
        read: 0,
        written: 0,
    }
}

/// Two sides of a kept session over one connection, which carries `fault`; `None` if it came in the handshake.
struct Kept {
    gateway: Link,
    edge: Link,
    drivers: JoinSet<CloseReason>,
}

impl Kept {
    async fn start(fault: Fault) -> Option<Self> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let config = kept();
        let mut drivers = JoinSet::new();
        let (edge_side, far_config) = (edge(near, &config), kept());
        let far = faulty(far, fault);
        let gateway_side = gateway(far, &far_config);
        let mut gateway_side = std::pin::pin!(gateway_side);
        let admitted = tokio::select! {
            admitted = edge_side => admitted.ok()?,
            _ = &mut gateway_side => return None,
        };
        let (edge, driver) = admitted;
        drivers.spawn(driver.run());
        let (gateway, driver) = gateway_side.await.ok()?;
        drivers.spawn(driver.run());
        Some(Self {
            gateway,
            edge,
            drivers,
        })
    }

    /// What the gateway says on its next connection.
    fn claim(&self) -> Resume {
        self.gateway.shared().claim(&EXPORTER).unwrap().1
    }

    fn admit(&self, claim: &Resume) -> Result<Resume, ClaimError> {
        let session = self.gateway.session().unwrap();
        self.edge.shared().admit_claim(session, claim, &EXPORTER)
    }

    /// A new connection for both sides, with a fault in it.
    fn resume(&self, fault: Fault) {
        let claim = self.claim();
        let answer = self.admit(&claim).unwrap();
        assert!(self.gateway.shared().is_answered(&EXPORTER, &answer));
        let (near, far) = tokio::io::duplex(64 * 1024);
        replace(&self.edge, faulty(near, Fault::None), &claim);
        replace(&self.gateway, faulty(far, fault), &answer);
    }

    /// Goes on over new connections with these faults, and then over good ones.
    async fn keep_up(&self, mut faults: impl Iterator<Item = Fault>) {
        while self.gateway.detached().await.is_some() {
            if self.edge.is_alive() {
                self.resume(faults.next().unwrap_or(Fault::None));
            }
            self.gateway.attached().await;
        }
    }
}

fn replace(link: &Link, io: Faulty, said: &Resume) {
    let replacement = Replacement {
        io: Box::new(io),
        input: BytesMut::new(),
        outbox: Outbox::new(),
        peer: Position::new(said.position),
    };
    link.shared().replace(replacement).unwrap();
}

/// Sends back what comes, on every stream; counts streams.
async fn echo(link: Link) -> usize {
    let mut streams = JoinSet::new();
    let mut count = 0;
    while let Some(incoming) = link.accept().await {
        count += 1;
        streams.spawn(async move {
            let mut stream = incoming.stream;
            while let Some(chunk) = stream.read_chunk().await.unwrap() {
                stream.write_chunk(chunk).await.unwrap();
            }
            stream.finish().unwrap();
        });
    }
    while let Some(ended) = streams.join_next().await {
        ended.unwrap();
    }
    count
}

/// Writes `length` bytes of a pattern and wants them back.
async fn round_trip(link: &Link, length: usize) {
    let sent: Vec<u8> = (0..length)
        .map(|n| (n / 7).to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    let (mut send, mut recv) = link.open(header(), Bytes::new()).await.unwrap().split();
    let write = async {
        for chunk in sent.chunks(5000) {
            send.write_chunk(Bytes::copy_from_slice(chunk))
                .await
                .unwrap();
        }
        send.finish().unwrap();
    };
    let mut received = Vec::new();
    let read = recv.read_to_end(&mut received);
    let ((), read) = tokio::join!(write, read);
    read.unwrap();
    assert!(received == sent, "other bytes than were sent");
}

/// `streams` of `length` bytes each way over connections with these faults; `false` if no session came about.
async fn survives(
    first: Fault,
    faults: impl Iterator<Item = Fault>,
    streams: usize,
    length: usize,
) -> bool {
    let Some(mut kept) = Kept::start(first).await else {
        return false;
    };
    let calls = async {
        let calls = (0..streams).map(|_| round_trip(&kept.edge, length));
        futures_util::future::join_all(calls).await;
        kept.edge.close(CloseCode::NO_ERROR, "");
    };
    let keep_up = async {
        tokio::select! {
            () = kept.keep_up(faults) => {}
            // The farewell may be lost with its connection.
            _ = kept.edge.closed() => {}
        }
        kept.gateway.give_up();
    };
    let (count, (), ()) = tokio::join!(echo(kept.gateway.clone()), calls, keep_up);
    assert_eq!(count, streams, "a call ran twice, or never");
    kept.drivers.abort_all();
    true
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_doubled_whatever_fails_at_whichever_byte() {
    let mut outcomes = BTreeSet::new();
    for at in 0..1000 {
        for fault in [
            Fault::EofAt(at),
            Fault::ReadErrorAt(at),
            Fault::WriteErrorAt(at),
            Fault::StallAt(at),
            Fault::SilenceAt(at),
        ] {
            let run = survives(fault, std::iter::empty(), 1, 600);
            let survived = timeout(2 * KEEP, run).await;
            outcomes.insert(survived.unwrap_or_else(|_| panic!("{fault:?} hangs")));
        }
    }
    assert_eq!(outcomes.len(), 2, "some faults come before the session");
}

/// A number of a sequence that a seed determines.
fn draw(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 40).unwrap()
}

#[tokio::test(start_paused = true)]
async fn streams_survive_any_sequence_of_bad_connections() {
    for seed in 0..150_u64 {
        let mut state = seed;
        let faults = std::iter::repeat_with(move || {
            let at = draw(&mut state) % 40_000;
            match draw(&mut state) % 8 {
                0 => Fault::EofAt(at),
                1 => Fault::ReadErrorAt(at),
                2 => Fault::WriteErrorAt(at),
                3 => Fault::StallAt(at),
                4 => Fault::SilenceAt(at),
                5 => Fault::FlushErrorAt(at),
                6 => Fault::FlushStallAt(at),
                _ => Fault::EofAt(at % 100),
            }
        });
        let run = survives(Fault::EofAt(3000), faults.take(10), 4, 30_000);
        let survived = timeout(20 * KEEP, run).await;
        assert!(
            survived.unwrap_or_else(|_| panic!("seed {seed} hangs")),
            "seed {seed}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_comes_back_to_ends_with_its_time() {
    let mut kept = Kept::start(Fault::EofAt(400)).await.unwrap();
    let mut near = kept
        .edge
        .open(header(), Bytes::from(vec![0; 2000]))
        .await
        .unwrap();
    assert!(kept.gateway.detached().await.is_some() && !kept.gateway.is_open());
    assert!(kept.edge.detached().await.is_some() && kept.edge.is_alive());
    let start = Instant::now();
    // Whoever waits goes on waiting.
    let (reason, accepted, read) =
        tokio::join!(kept.edge.closed(), kept.gateway.accept(), near.read_chunk());
    assert_eq!(start.elapsed(), KEEP);
    assert!(
        matches!(&reason, CloseReason::Expired { after, .. } if *after == KEEP),
        "{reason}"
    );
    assert!(accepted.is_none());
    let error = read.unwrap_err();
    assert!(matches!(
        StreamError::of(&error),
        Some(StreamError::LinkLost(CloseReason::Expired { .. }))
    ));
    while let Some(reason) = kept.drivers.join_next().await {
        assert!(matches!(reason.unwrap(), CloseReason::Expired { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_counts_once_and_never_after_a_later_one() {
    let kept = Kept::start(Fault::EofAt(400)).await.unwrap();
    let _stream = kept.edge.open(header(), Bytes::from(vec![0; 2000])).await;
    assert!(kept.gateway.detached().await.is_some());
    let (first, second, third) = (kept.claim(), kept.claim(), kept.claim());
    assert_eq!((first.epoch, second.epoch, third.epoch), (1, 2, 3));
    kept.admit(&second).unwrap();
    assert_eq!(kept.admit(&first), Err(ClaimError::Stale));
    assert_eq!(kept.admit(&second), Err(ClaimError::Stale));
    kept.admit(&third).unwrap();
    kept.edge.close(CloseCode::NO_ERROR, "");
    assert_eq!(kept.admit(&kept.claim()), Err(ClaimError::Ended));
}

/// RESUME-3
#[tokio::test(start_paused = true)]
async fn a_claim_without_proof_moves_nothing() {
    let kept = Kept::start(Fault::None).await.unwrap();
    let session = kept.edge.session().unwrap();
    let edge = kept.edge.shared();
    for proof in [[0; 32], [0xff; 32]] {
        let claim = Resume::new(1, 0, proof);
        let refused = edge.admit_claim(session, &claim, &EXPORTER);
        assert_eq!(refused, Err(ClaimError::NotProven));
        assert!(!kept.gateway.shared().is_answered(&EXPORTER, &claim));
    }
    // The right proof over another connection, of the other side, or for another session.
    let key = ResumeKey::for_test([7; 32]);
    let made = |side| Resume::new(1, 0, key.proof(&EXPORTER, side, 1, 0));
    let (ours, theirs) = (
        made(mcp_tunnel_proto::Side::Gateway),
        made(mcp_tunnel_proto::Side::Edge),
    );
    let elsewhere = Exporter::for_test([8; 32]);
    assert_eq!(
        edge.admit_claim(session, &ours, &elsewhere),
        Err(ClaimError::NotProven)
    );
    assert_eq!(
        edge.admit_claim(session, &theirs, &EXPORTER),
        Err(ClaimError::NotProven)
    );
    let other = SessionId::new([2; 16]);
    assert_eq!(
        edge.admit_claim(other, &ours, &EXPORTER),
        Err(ClaimError::OtherSession)
    );
    assert!(kept.edge.is_attached(), "a bad claim took the link away");
    edge.admit_claim(session, &ours, &EXPORTER).unwrap();
    assert!(!kept.edge.is_attached());
}

/// ABUSE-1
#[tokio::test(start_paused = true)]
async fn a_peer_that_changes_links_all_the_time_loses_its_session() {
    let kept = Kept::start(Fault::EofAt(400)).await.unwrap();
    let _stream = kept.edge.open(header(), Bytes::from(vec![0; 2000])).await;
    assert!(kept.gateway.detached().await.is_some());
    for _ in 0..64 {
        kept.admit(&kept.claim()).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await; // virtual
    for _ in 0..2 {
        kept.admit(&kept.claim()).unwrap();
    }
    assert_eq!(kept.admit(&kept.claim()), Err(ClaimError::TooMany));
    let reason = kept.edge.closed().await;
    let code = CloseCode::FLOOD_RESUMES;
    assert!(
        matches!(reason, CloseReason::Local { code: said } if said == code),
        "{reason}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_impossible_position_ends_the_session_and_is_said() {
    let kept = Kept::start(Fault::EofAt(400)).await.unwrap();
    let _stream = kept.edge.open(header(), Bytes::from(vec![0; 2000])).await;
    assert!(kept.gateway.detached().await.is_some());
    let claim = kept.claim();
    let answer = kept.admit(&claim).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut beyond = claim;
    beyond.position += 1_000_000;
    replace(&kept.edge, faulty(near, Fault::None), &beyond);
    replace(&kept.gateway, faulty(far, Fault::None), &answer);
    let (here, there) = tokio::join!(kept.edge.closed(), kept.gateway.closed());
    assert!(matches!(here, CloseReason::Violation(_)), "{here}");
    assert!(
        matches!(
            there,
            CloseReason::Peer {
                code: CloseCode::POSITION,
                ..
            }
        ),
        "{there}"
    );
}

/// RESUME-7
#[tokio::test(start_paused = true)]
async fn a_half_open_connection_loses_to_the_new_one_and_is_told() {
    let mut kept = Kept::start(Fault::SilenceAt(400)).await.unwrap();
    let (mut near, mut far) = {
        let opened = kept.edge.open(header(), Bytes::from_static(b"!")).await;
        (opened.unwrap(), kept.gateway.accept().await.unwrap().stream)
    };
    // The gateway hears nothing any more, the edge does: a path that broke in one direction.
    near.write_chunk(Bytes::from(vec![1; 3000])).await.unwrap();
    assert!(matches!(
        kept.gateway.detached().await,
        Some(CloseReason::Silent { .. })
    ));
    kept.resume(Fault::None);
    near.write_chunk(Bytes::from(vec![2; 3000])).await.unwrap();
    near.finish().unwrap();
    let mut received = Vec::new();
    far.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), 1 + 6000);
    assert!(received[1..3001].iter().all(|byte| *byte == 1));
    kept.edge.close(CloseCode::NO_ERROR, "");
    while kept.drivers.join_next().await.is_some() {}
}

/// RESUME-7: a connection that was handed over, and that the driver has not taken up yet, loses to a later claim too.
#[tokio::test(start_paused = true)]
async fn a_connection_that_waits_for_the_driver_loses_to_a_later_claim() {
    let kept = Kept::start(Fault::EofAt(400)).await.unwrap();
    let opened = kept.edge.open(header(), Bytes::from(vec![0; 2000])).await;
    opened.unwrap().finish().unwrap();
    assert!(kept.gateway.detached().await.is_some() && kept.edge.detached().await.is_some());
    let first = kept.claim();
    kept.admit(&first).unwrap();
    let (near, _gone) = tokio::io::duplex(64 * 1024);
    replace(&kept.edge, faulty(near, Fault::None), &first);
    let second = kept.claim();
    let answer = kept.admit(&second).unwrap();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(
        !kept.edge.is_attached(),
        "the first took the second's place"
    );
    let (near, far) = tokio::io::duplex(64 * 1024);
    replace(&kept.edge, faulty(near, Fault::None), &second);
    replace(&kept.gateway, faulty(far, Fault::None), &answer);
    let mut request = Vec::new();
    let mut stream = kept.gateway.accept().await.unwrap().stream;
    stream.read_to_end(&mut request).await.unwrap();
    assert_eq!(request.len(), 2000);
}

#[tokio::test(start_paused = true)]
async fn close_and_drain_in_the_gap_behave() {
    // Closed on one side: its streams fail at once, the other side's with the time.
    let kept = Kept::start(Fault::EofAt(400)).await.unwrap();
    let _stream = kept.edge.open(header(), Bytes::from(vec![0; 2000])).await;
    assert!(kept.gateway.detached().await.is_some());
    kept.gateway.close(CloseCode::SHUTDOWN, "");
    assert!(matches!(
        kept.gateway.closed().await,
        CloseReason::Local { .. }
    ));
    assert!(matches!(
        kept.edge.closed().await,
        CloseReason::Expired { .. }
    ));

    // Drained: what was under way ends over the next connection.
    let kept = Kept::start(Fault::EofAt(400)).await.unwrap();
    let mut near = kept
        .edge
        .open(header(), Bytes::from(vec![0; 2000]))
        .await
        .unwrap();
    assert!(kept.gateway.detached().await.is_some());
    near.finish().unwrap();
    kept.gateway.go_away(CloseCode::SHUTDOWN, None);
    kept.resume(Fault::None);
    let mut far = kept.gateway.accept().await.unwrap().stream;
    let mut request = Vec::new();
    far.read_to_end(&mut request).await.unwrap();
    far.finish().unwrap();
    assert_eq!(near.read_chunk().await.unwrap(), None);
    tokio::join!(kept.gateway.drained(), kept.edge.drained());
    assert_eq!(kept.edge.going_away().await, Some(CloseCode::SHUTDOWN));
}
