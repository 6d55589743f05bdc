//! Whether an address may be dialled, why not, and what the operator can do about it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::class::Class;

/// Whether the bytes are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// http and the like.
    Plain,
    /// https and the like, with the certificate checked.
    Tls,
}

/// How the operator named the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Naming {
    /// By this very address.
    Literal,
    /// By a name that was resolved.
    Resolved,
}

/// How an address is about to be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dial {
    /// Whether the bytes are encrypted.
    pub scheme: Scheme,
    /// How the operator named it.
    pub naming: Naming,
}

impl Dial {
    /// Puts both together.
    #[must_use]
    pub const fn new(scheme: Scheme, naming: Naming) -> Self {
        Self { scheme, naming }
    }

    /// A name, without encryption.
    #[must_use]
    pub const fn resolved_plain() -> Self {
        Self::new(Scheme::Plain, Naming::Resolved)
    }

    /// A name, encrypted.
    #[must_use]
    pub const fn resolved_tls() -> Self {
        Self::new(Scheme::Tls, Naming::Resolved)
    }
}

/// Which addresses may be dialled.
///
/// Denied networks win over everything. Allowed networks, once there is one, are the only ones; they never admit what
/// the base refuses for its class, but for shared addresses, which they name as literally as an address does.
#[derive(Debug, Clone)]
pub struct Policy {
    base: Base,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    McpServer,
    Internet,
}

impl Policy {
    /// For servers that an operator lists by hand: loopback and private networks, and public addresses over TLS.
    #[must_use]
    pub const fn mcp_server() -> Self {
        Self {
            base: Base::McpServer,
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }

    /// For targets that others name, such as webhooks: public addresses over TLS only.
    #[must_use]
    pub const fn internet() -> Self {
        Self {
            base: Base::Internet,
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }

    /// Narrows to this network and any other that is allowed.
    #[must_use]
    pub fn allow(mut self, net: IpNet) -> Self {
        self.allow.push(net);
        self
    }

    /// Refuses this network.
    #[must_use]
    pub fn deny(mut self, net: IpNet) -> Self {
        self.deny.push(net);
        self
    }

    /// Judges one resolved address; the caller dials this very address.
    ///
    /// # Errors
    /// [`Refusal`] says why, and what the operator can do.
    pub fn judge(&self, address: IpAddr, dial: Dial) -> Result<Class, Refusal> {
        let class = Class::of(address);
        let listed = self.allow.iter().any(|net| net.contains(&address));
        let refuse = |reason| {
            Err(Refusal {
                address,
                class,
                reason,
            })
        };
        if self.deny.iter().any(|net| net.contains(&address)) {
            return refuse(Reason::Denied);
        }
        if let Some(reason) = self.objection(class, dial, listed) {
            return refuse(reason);
        }
        if !listed && !self.allow.is_empty() {
            return refuse(Reason::NotListed);
        }
        Ok(class)
    }

    fn objection(&self, class: Class, dial: Dial, listed: bool) -> Option<Reason> {
        match (class, self.base) {
            (Class::Loopback | Class::Private, Base::McpServer) => None,
            (Class::Shared, Base::McpServer) if listed || dial.naming == Naming::Literal => None,
            (Class::Shared, Base::McpServer) => Some(Reason::NotLiteral),
            (Class::Public, _) if dial.scheme == Scheme::Tls => None,
            (Class::Public, _) => Some(Reason::NotEncrypted),
            (Class::Loopback | Class::Private | Class::Shared, Base::Internet) => {
                Some(Reason::NotPublic)
            }
            _ => Some(Reason::Class),
        }
    }
}

/// Why an address may not be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Addresses of its class are never dialled.
    Class,
    /// A public address, without encryption.
    NotEncrypted,
    /// An address of carrier NAT that a name resolved to.
    NotLiteral,
    /// An inner address, where only public ones are dialled.
    NotPublic,
    /// It is in a denied network.
    Denied,
    /// It is in none of the allowed networks.
    NotListed,
}

/// An address that may not be dialled. Prints in one line why; [`Self::cure`] says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Refusal {
    /// The address.
    pub address: IpAddr,
    /// What it is for.
    pub class: Class,
    /// Why it is refused.
    pub reason: Reason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            class,
            reason,
        } = self;
        match reason {
            Reason::Class => write!(f, "{address} is {class}"),
            Reason::NotEncrypted => write!(
                f,
                "{address} is {class}, and the connection would not be encrypted"
            ),
            Reason::NotLiteral => write!(f, "{address} is {class}, and a name led to it"),
            Reason::NotPublic => write!(
                f,
                "{address} is {class}, and only public addresses are dialled here"
            ),
            Reason::Denied => write!(f, "{address} is in a denied network"),
            Reason::NotListed => write!(f, "{address} is in none of the allowed networks"),
        }
    }
}

impl Refusal {
    /// What the operator can do about it.
    #[must_use]
    pub const fn cure(&self) -> &'static str {
        match (self.reason, self.class) {
            (Reason::NotEncrypted, _) => "use https, or reach the server by a private address",
            (Reason::NotLiteral, _) => {
                "give the address itself in place of the name, or allow its network"
            }
            (Reason::NotPublic, _) => "use an https URL of a public host",
            (Reason::Denied, _) => "take the network off the denied ones, if that is meant",
            (Reason::NotListed, _) => "add the network to the allowed ones, if that is meant",
            (Reason::Class, Class::Unspecified) => {
                "use localhost, 127.0.0.1 or ::1 for a server on this machine"
            }
            (Reason::Class, Class::Disguised { .. }) => "give the IPv4 address itself",
            (Reason::Class, Class::Metadata) => {
                "no setting opens it: it would hand the cloud's credentials to callers; check what the name resolves to"
            }
            (Reason::Class, Class::LinkLocal) => {
                "give the server an address that is routed, or use localhost"
            }
            (Reason::Class, _) => "no server has such an address; check what the name resolves to",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::Shared => "a carrier NAT address",
            Self::Public => "a public address",
            Self::Metadata => "a cloud metadata service",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "a broadcast address",
            Self::Documentation => "a documentation address",
            Self::Unspecified => "no address of a machine",
            Self::Reserved => "a reserved address",
            Self::Disguised { inner, .. } => {
                return write!(f, "the IPv4 address {inner} in disguise");
            }
        })
    }
}

/// The text is neither an address nor a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network is written as 10.0.0.0/8 or fd00::/8, a single address without the slash")]
#[non_exhaustive]
pub struct NetError;

/// Reads a network, or a single address as a network of one.
///
/// ```
/// use mcp_dial_guard::{Policy, parse_net};
/// let policy = Policy::mcp_server().allow(parse_net("10.20.0.0/16")?).deny(parse_net("10.20.0.1")?);
/// # Ok::<(), mcp_dial_guard::NetError>(())
/// ```
///
/// # Errors
/// [`NetError`] for any other text.
pub fn parse_net(text: &str) -> Result<IpNet, NetError> {
    let text = text.trim();
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => text
            .parse::<IpNet>()
            .map(|net| net.trunc())
            .map_err(|_| NetError),
    }
}

#[cfg(test)]
mod tests;
