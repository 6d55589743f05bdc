//! Who may hold a socket before it has proved anything.
//!
//! Until a gateway has shown its proof, or a caller its key, a socket costs memory that nobody has earned. [`Gate`]
//! bounds it: so many sockets from one source, so many in total, gateways and callers apart, and each only for a
//! while. It reads no store and keeps no state of any tunnel. A listener asks before the TLS handshake, and hands
//! the [`Ticket`] on; proof gives the place back at once, the end of the connection gives it back in any case.
//!
//! ```
//! use mcp_tunnel_edge::{Gate, GateConfig, Role};
//!
//! let gate = Gate::new(GateConfig::default().set_callers_per_source(2));
//! let source = "192.0.2.7".parse().unwrap();
//! let first = gate.admit(Role::Caller, source).unwrap();
//! let _second = gate.admit(Role::Caller, source).unwrap();
//! assert!(gate.admit(Role::Caller, source).is_err());
//! first.proven();
//! assert!(gate.admit(Role::Caller, source).is_ok());
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::measures;

/// What a socket is taken for before it has said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// A gateway that will send its HELLO.
    Gateway,
    /// A caller that will send a request. Also what a socket on a shared port is until ALPN tells.
    Caller,
}

impl Role {
    /// The label that metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Caller => "caller",
        }
    }
}

/// Limits on sockets that have not proved anything yet.
///
/// Worst case of the defaults: 12,288 sockets of about 40 KiB (TLS state and a request's head), 480 MiB, held for at
/// most ten seconds; a silent one costs a tenth of that. Raising a limit raises what such sockets can pin; raising the
/// limit of one source lets one host take a larger part of the total.
#[derive(Debug, Clone)]
pub struct GateConfig {
    gateways: Limits,
    callers: Limits,
}

#[derive(Debug, Clone)]
struct Limits {
    per_source: usize,
    total: usize,
    deadline: Duration,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            gateways: Limits {
                per_source: 64,
                total: 2_048,
                deadline: Duration::from_secs(5),
            },
            callers: Limits {
                per_source: 1_024,
                total: 10_240,
                deadline: Duration::from_secs(10),
            },
        }
    }
}

impl GateConfig {
    /// Unproven gateway sockets from one source (an IPv4 address, or a /64). Default 64; at least 1.
    #[must_use]
    pub fn set_gateways_per_source(mut self, sockets: usize) -> Self {
        self.gateways.per_source = sockets.max(1);
        self
    }

    /// Unproven gateway sockets in total. Default 2,048; at least 1.
    #[must_use]
    pub fn set_gateways_total(mut self, sockets: usize) -> Self {
        self.gateways.total = sockets.max(1);
        self
    }

    /// How long a gateway may take from accept to its HELLO. Default 5 s.
    #[must_use]
    pub fn set_gateway_deadline(mut self, deadline: Duration) -> Self {
        self.gateways.deadline = deadline;
        self
    }

    /// Unproven caller sockets from one source (an IPv4 address, or a /64). Default 1,024: many callers may share
    /// one address behind a NAT and come back all at once, and a proven one no longer counts; at least 1.
    #[must_use]
    pub fn set_callers_per_source(mut self, sockets: usize) -> Self {
        self.callers.per_source = sockets.max(1);
        self
    }

    /// Unproven caller sockets in total. Default 10,240, ten times the share of a source; at least 1.
    #[must_use]
    pub fn set_callers_total(mut self, sockets: usize) -> Self {
        self.callers.total = sockets.max(1);
        self
    }

    /// How long a caller may take from accept to its first admitted request. Default 10 s.
    #[must_use]
    pub fn set_caller_deadline(mut self, deadline: Duration) -> Self {
        self.callers.deadline = deadline;
        self
    }
}

/// Why a socket is not let in. The right answer is to close it without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GateFull {
    /// This source already holds its share.
    #[error("too many unproven sockets from this source")]
    Source,
    /// All places of this role are taken.
    #[error("too many unproven sockets")]
    Total,
}

/// The admission gate of one edge; clones share their counts.
#[derive(Debug, Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: GateConfig,
    gateways: Mutex<Counts>,
    callers: Mutex<Counts>,
}

/// Never larger than the total limit: a source without sockets has no entry.
#[derive(Debug, Default)]
struct Counts {
    total: usize,
    sources: HashMap<IpAddr, usize>,
}

impl Gate {
    /// An empty gate.
    pub fn new(config: GateConfig) -> Self {
        let shared = Shared {
            config,
            gateways: Mutex::default(),
            callers: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Takes a place for a socket just accepted from `source`.
    ///
    /// # Errors
    /// [`GateFull`]: drop the socket.
    pub fn admit(&self, role: Role, source: IpAddr) -> Result<Ticket, GateFull> {
        let source = network_of(source);
        if let Err(full) = self.shared.take(role, source) {
            measures::gate_refused(role);
            return Err(full);
        }
        let place = Place {
            shared: Arc::clone(&self.shared),
            role,
            source,
        };
        Ok(Ticket {
            held: Arc::new(Held {
                place: Mutex::new(Some(place)),
                proven: CancellationToken::new(),
            }),
        })
    }

    /// How many unproven sockets of `role` there are now.
    pub fn unproven(&self, role: Role) -> usize {
        lock(self.shared.counts(role)).total
    }

    /// How long a socket of `role` may stay unproven.
    pub fn deadline(&self, role: Role) -> Duration {
        self.shared.limits(role).deadline
    }
}

impl Shared {
    fn take(&self, role: Role, source: IpAddr) -> Result<(), GateFull> {
        let limits = self.limits(role);
        let mut counts = lock(self.counts(role));
        if counts.total >= limits.total {
            return Err(GateFull::Total);
        }
        let held = counts.sources.entry(source).or_insert(0);
        if *held >= limits.per_source {
            return Err(GateFull::Source);
        }
        *held += 1;
        counts.total += 1;
        Ok(())
    }

    fn give_back(&self, role: Role, source: IpAddr) {
        let mut counts = lock(self.counts(role));
        counts.total = counts.total.saturating_sub(1);
        if let Entry::Occupied(mut held) = counts.sources.entry(source) {
            if *held.get() <= 1 {
                held.remove();
            } else {
                *held.get_mut() -= 1;
            }
        }
    }

    fn limits(&self, role: Role) -> &Limits {
        match role {
            Role::Gateway => &self.config.gateways,
            Role::Caller => &self.config.callers,
        }
    }

    fn counts(&self, role: Role) -> &Mutex<Counts> {
        match role {
            Role::Gateway => &self.gateways,
            Role::Caller => &self.callers,
        }
    }
}

/// A place at the [`Gate`]. Clones stand for the same place; it is given back by [`Ticket::proven`] or with the last
/// clone.
#[derive(Debug, Clone)]
pub struct Ticket {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    place: Mutex<Option<Place>>,
    proven: CancellationToken,
}

#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    role: Role,
    source: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.give_back(self.role, self.source);
    }
}

impl Ticket {
    /// Says that the other side has proved who it is: the place is free again. Calling it twice changes nothing.
    pub fn proven(&self) {
        if !self.held.proven.is_cancelled() {
            drop(lock(&self.held.place).take());
            self.held.proven.cancel();
        }
    }

    /// Moves the place to another role, once ALPN has told what the socket is.
    ///
    /// # Errors
    /// [`GateFull`] when the other role has no place; the old one is given back.
    pub fn change_role(&self, role: Role) -> Result<(), GateFull> {
        let mut place = lock(&self.held.place);
        if let Some(old) = place.take() {
            if old.role == role {
                *place = Some(old);
                return Ok(());
            }
            old.shared.take(role, old.source)?;
            *place = Some(Place {
                shared: Arc::clone(&old.shared),
                role,
                source: old.source,
            });
        }
        Ok(())
    }

    /// Ends when the place has been given back because of proof.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn until_proven(&self) {
        self.held.proven.cancelled().await;
    }
}

/// The unit that counts as one source: an IPv4 address (also in its mapped form), or a /64.
fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

/// A poisoned lock means that a panic interrupted straight-line counting; the counts are still usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_gets_its_share_and_no_more() {
        let gate = Gate::new(GateConfig::default().set_callers_per_source(2));
        let _a = gate.admit(Role::Caller, ip("127.0.0.2")).unwrap();
        let b = gate.admit(Role::Caller, ip("127.0.0.2")).unwrap();
        assert_eq!(
            gate.admit(Role::Caller, ip("127.0.0.2")).unwrap_err(),
            GateFull::Source
        );
        assert_eq!(
            gate.admit(Role::Caller, ip("::ffff:127.0.0.2"))
                .unwrap_err(),
            GateFull::Source
        );
        assert!(gate.admit(Role::Caller, ip("127.0.0.1")).is_ok());
        drop(b);
        assert!(gate.admit(Role::Caller, ip("127.0.0.2")).is_ok());
    }

    #[test]
    fn a_slash_64_is_one_source() {
        let gate = Gate::new(GateConfig::default().set_gateways_per_source(1));
        let _a = gate.admit(Role::Gateway, ip("2001:db8:1:2::1")).unwrap();
        assert_eq!(
            gate.admit(Role::Gateway, ip("2001:db8:1:2:ffff::9"))
                .unwrap_err(),
            GateFull::Source
        );
        assert!(gate.admit(Role::Gateway, ip("2001:db8:1:3::1")).is_ok());
    }

    #[test]
    fn callers_do_not_take_the_places_of_gateways() {
        let gate = Gate::new(GateConfig::default().set_callers_total(1));
        let _a = gate.admit(Role::Caller, ip("10.0.0.1")).unwrap();
        assert_eq!(
            gate.admit(Role::Caller, ip("10.0.0.2")).unwrap_err(),
            GateFull::Total
        );
        assert!(gate.admit(Role::Gateway, ip("10.0.0.1")).is_ok());
    }

    #[test]
    fn proof_gives_the_place_back_once() {
        let gate = Gate::new(GateConfig::default());
        let ticket = gate.admit(Role::Gateway, ip("10.0.0.1")).unwrap();
        let clone = ticket.clone();
        ticket.proven();
        clone.proven();
        assert_eq!(gate.unproven(Role::Gateway), 0);
        drop((ticket, clone));
        assert_eq!(gate.unproven(Role::Gateway), 0);
        assert!(lock(&gate.shared.gateways).sources.is_empty());
    }

    #[test]
    fn a_shared_port_moves_the_place_when_alpn_tells() {
        let gate = Gate::new(GateConfig::default().set_gateways_total(1));
        let first = gate.admit(Role::Caller, ip("10.0.0.1")).unwrap();
        first.change_role(Role::Gateway).unwrap();
        assert_eq!(
            (gate.unproven(Role::Caller), gate.unproven(Role::Gateway)),
            (0, 1)
        );
        let second = gate.admit(Role::Caller, ip("10.0.0.2")).unwrap();
        assert_eq!(second.change_role(Role::Gateway), Err(GateFull::Total));
        assert_eq!(
            (gate.unproven(Role::Caller), gate.unproven(Role::Gateway)),
            (0, 1)
        );
    }
}
