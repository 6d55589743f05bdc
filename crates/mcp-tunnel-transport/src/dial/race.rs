//! Several addresses, one winner: staggered attempts.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use tokio::{task::JoinSet, time::timeout};

use super::DialError;

/// Head start of an attempt over the next one (RFC 8305 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// The first attempt to succeed; the others are aborted.
pub(super) async fn first<S, F>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, S), DialError>
where
    S: Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let mut waiting: VecDeque<SocketAddr> = addresses.iter().copied().collect();
    let mut attempts = JoinSet::new();
    let mut last = None;
    loop {
        if let Some(address) = waiting.pop_front() {
            let attempt = connect(address);
            attempts.spawn(async move { (address, attempt.await) });
        }
        let ended = if waiting.is_empty() {
            attempts.join_next().await
        } else {
            match timeout(STAGGER, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_elapsed) => continue,
            }
        };
        match ended {
            Some(Ok((address, Ok(stream)))) => return Ok((address, stream)),
            Some(Ok((address, Err(source)))) => last = Some((address, source)),
            Some(Err(_panicked_or_aborted)) => {}
            None => return Err(failure(last, addresses.len())),
        }
    }
}

fn failure(last: Option<(SocketAddr, io::Error)>, tried: usize) -> DialError {
    let unspecified = || SocketAddr::from(([0, 0, 0, 0], 0));
    let (address, source) =
        last.unwrap_or_else(|| (unspecified(), io::ErrorKind::AddrNotAvailable.into()));
    DialError::Connect {
        address,
        tried,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{Arc, Mutex},
    };

    use tokio::time::{Instant, sleep};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// How the simulated address with this last octet behaves.
    async fn simulated(address: SocketAddr) -> io::Result<u16> {
        match address.port() {
            1 => Err(io::ErrorKind::ConnectionRefused.into()),
            2 => pending().await,
            3 => {
                sleep(400 * MS).await;
                Ok(3)
            }
            port => Ok(port),
        }
    }

    fn ports(ports: &[u16]) -> Vec<SocketAddr> {
        ports
            .iter()
            .map(|port| SocketAddr::from(([192, 0, 2, 1], *port)))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_starts_the_next_at_once() {
        let start = Instant::now();
        let (_, won) = first(&ports(&[1, 1, 9]), simulated).await.unwrap();
        assert_eq!((won, start.elapsed()), (9, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_starts_the_next_after_the_head_start() {
        let start = Instant::now();
        let (_, won) = first(&ports(&[2, 2, 9]), simulated).await.unwrap();
        assert_eq!((won, start.elapsed()), (9, 2 * STAGGER));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_still_wins_over_silent_later_ones() {
        let start = Instant::now();
        let (_, won) = first(&ports(&[3, 2, 2, 2]), simulated).await.unwrap();
        assert_eq!((won, start.elapsed()), (3, 400 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_is_tried_before_giving_up() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let addresses = ports(&[1, 1, 1]);
        let outcome = first(&addresses, move |address| {
            log.lock().unwrap().push(address.port());
            simulated(address)
        });
        let error = outcome.await.unwrap_err();
        assert!(matches!(error, DialError::Connect { tried: 3, .. }));
        assert_eq!(seen.lock().unwrap().len(), 3);
        let none = first(&[], simulated).await;
        assert!(matches!(none, Err(DialError::Connect { tried: 0, .. })));
    }
}
