//! Many sessions, one budget of memory.

use super::*;
use crate::{MemoryBudget, Stream};

const LINKS: usize = 10;
const READERS: usize = 100;
const MIB: u64 = 1 << 20;

/// A link between two drivers; answers its two ends.
async fn link(drivers: &mut JoinSet<CloseReason>, near: &LinkConfig) -> (Link, Link) {
    let (here, there) = tokio::io::duplex(256 * 1024);
    let far = config().set_keep(Duration::from_secs(60));
    let edge = async {
        let (link, driver) = edge(here, near).await.unwrap();
        drivers.spawn(driver.run());
        link
    };
    let (edge, gateway) = tokio::join!(edge, gateway(there, &far));
    let (gateway, driver) = gateway.unwrap();
    drivers.spawn(driver.run());
    (edge, gateway)
}

/// Answers every request with as much as is taken.
async fn pour(link: Link) {
    let mut streams = JoinSet::new();
    while let Some(mut incoming) = link.accept().await {
        streams.spawn(async move {
            let payload = Bytes::from_static(&[7; 64 * 1024]);
            while incoming.stream.write_chunk(payload.clone()).await.is_ok() {}
        });
    }
    streams.shutdown().await;
}

async fn read(stream: &mut Stream, length: usize) {
    let mut read = 0;
    while read < length {
        read += stream.read_chunk().await.unwrap().unwrap().len();
    }
}

/// A thousand readers on ten links read fast, so that their windows grow, and then no more. What all of them hold is
/// bounded, a reader on another link goes on as before, and nothing is left of it in the end.
#[tokio::test]
async fn a_thousand_slow_readers_share_one_budget() {
    let budget = MemoryBudget::new(8 * MIB);
    let near = config()
        .set_keep(Duration::from_secs(60))
        .set_memory(budget.clone());
    let (mut drivers, mut pouring) = (JoinSet::new(), JoinSet::new());
    let mut links = Vec::new();
    for _ in 0..=LINKS {
        let (edge, gateway) = link(&mut drivers, &near).await;
        pouring.spawn(pour(gateway));
        links.push(edge);
    }
    let other = links.pop().unwrap();
    let mut slow = Vec::new();
    for link in &links {
        for _ in 0..READERS {
            let request = Bytes::from_static(b"go");
            let mut stream = link.open(header(), request).await.unwrap();
            read(&mut stream, 40_000).await;
            slow.push(stream);
            assert!(budget.taken() <= budget.total());
        }
    }
    // How much depends on how fast they were read.
    assert!(budget.taken() > 0);
    // The other one is not kept waiting by any of them.
    let request = Bytes::from_static(b"go");
    let mut stream = other.open(header(), request).await.unwrap();
    read(&mut stream, 16 << 20).await;
    assert!(budget.taken() <= budget.total());
    // A reader that goes on finds all that was sent meanwhile.
    read(&mut slow[0], 1 << 20).await;
    drop((slow, stream));
    for link in links.into_iter().chain([other]) {
        link.close(CloseCode::NO_ERROR, "");
    }
    while drivers.join_next().await.is_some() {}
    while pouring.join_next().await.is_some() {}
    assert_eq!(budget.taken(), 0);
}

/// Told of a sleep, a link whose session is kept does not wait for silence.
#[tokio::test(start_paused = true)]
async fn a_long_sleep_ends_a_connection_at_once() {
    let mut drivers = JoinSet::new();
    let kept = config().set_keep(Duration::from_secs(60));
    let (edge, gateway) = link(&mut drivers, &kept).await;
    // Whatever was on the way when the machine fell asleep has come.
    tokio::time::sleep(Duration::from_secs(1)).await; // virtual
    let start = Instant::now();
    gateway.slept(Duration::from_secs(3600));
    let lost = timeout(Duration::from_secs(60), gateway.detached()).await;
    let lost = lost.unwrap();
    assert!(matches!(lost, Some(CloseReason::Silent { .. })), "{lost:?}");
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(edge);
}
