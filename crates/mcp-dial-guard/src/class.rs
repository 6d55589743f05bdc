//! What kind of address it is: the IANA special-purpose registries as two tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// This machine.
    Loopback,
    /// A private network: RFC 1918, or unique local in IPv6.
    Private,
    /// Between a provider and its customers (100.64.0.0/10, carrier-grade NAT); some VPNs use it too.
    Shared,
    /// The internet.
    Public,
    /// A cloud's service that hands credentials to whoever asks from inside.
    Metadata,
    /// One physical link.
    LinkLocal,
    /// A group of receivers.
    Multicast,
    /// All receivers of a network.
    Broadcast,
    /// Examples in documents; never in use.
    Documentation,
    /// No address at all; many systems take it for this machine.
    Unspecified,
    /// Protocols, benchmarks, deprecated or not given out.
    Reserved,
    /// An IPv4 address written as an IPv6 one.
    Disguised {
        /// By which scheme.
        scheme: Disguise,
        /// The address that it stands for.
        inner: Ipv4Addr,
    },
}

/// A way to write an IPv4 address inside an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Disguise {
    /// `::ffff:a.b.c.d`, RFC 4291.
    Mapped,
    /// `::a.b.c.d`, RFC 4291, deprecated.
    Compatible,
    /// `::ffff:0:a.b.c.d`, RFC 2765.
    Translated,
    /// `64:ff9b::a.b.c.d`, RFC 6052.
    Nat64,
    /// `64:ff9b:1::/48`, RFC 8215: the place of the IPv4 address is a local matter, the last 32 bits are shown.
    LocalNat64,
    /// `2002:AABB:CCDD::/48`, RFC 3056.
    SixToFour,
    /// `2001:0::/32`, RFC 4380: the client's address, inverted, in the last 32 bits.
    Teredo,
    /// Interface id `0:5efe:a.b.c.d` or `200:5efe:a.b.c.d` below any prefix, RFC 5214.
    Isatap,
}

impl Class {
    /// Tells what an address is for.
    ///
    /// ```
    /// use mcp_dial_guard::Class;
    /// assert_eq!(Class::of("fd00:ec2::254".parse().unwrap()), Class::Metadata);
    /// ```
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => match disguise(address) {
                Some((scheme, inner)) => Self::Disguised { scheme, inner },
                None => of_v6(address),
            },
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Class {
    V4.iter()
        .find(|(net, _)| net.contains(&address))
        .map_or(Class::Public, |(_, class)| *class)
}

fn of_v6(address: Ipv6Addr) -> Class {
    V6.iter()
        .find(|(net, _)| net.contains(&address))
        .map_or(Class::Reserved, |(_, class)| *class)
}

/// The IPv4 address that an IPv6 one stands for.
fn disguise(address: Ipv6Addr) -> Option<(Disguise, Ipv4Addr)> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let last = v4(g, h);
    let scheme = match (a, b, c, d, e, f) {
        // `::` and `::1` are addresses of their own.
        (0, 0, 0, 0, 0, 0) if g == 0 && h <= 1 => return None,
        (0, 0, 0, 0, 0, 0) => Disguise::Compatible,
        (0, 0, 0, 0, 0, 0xffff) => Disguise::Mapped,
        (0, 0, 0, 0, 0xffff, 0) => Disguise::Translated,
        (0x64, 0xff9b, 0, 0, 0, 0) => Disguise::Nat64,
        (0x64, 0xff9b, 1, ..) => Disguise::LocalNat64,
        (0x2002, ..) => return Some((Disguise::SixToFour, v4(b, c))),
        (0x2001, 0, ..) => return Some((Disguise::Teredo, v4(!g, !h))),
        (.., 0 | 0x200, 0x5efe) => Disguise::Isatap,
        _ => return None,
    };
    Some((scheme, last))
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
}

const fn net4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn net6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// The first match decides; what is in none is public.
const V4: [(Ipv4Net, Class); 24] = [
    // Clouds: most (link-local), Alibaba (in the shared range), Azure's host channel (in a public one), Oracle.
    (net4([169, 254, 169, 254], 32), Class::Metadata),
    (net4([169, 254, 170, 2], 32), Class::Metadata),
    (net4([169, 254, 170, 23], 32), Class::Metadata),
    (net4([100, 100, 100, 200], 32), Class::Metadata),
    (net4([168, 63, 129, 16], 32), Class::Metadata),
    (net4([192, 0, 0, 192], 32), Class::Metadata),
    (net4([0, 0, 0, 0], 8), Class::Unspecified),
    (net4([10, 0, 0, 0], 8), Class::Private),
    (net4([100, 64, 0, 0], 10), Class::Shared),
    (net4([127, 0, 0, 0], 8), Class::Loopback),
    (net4([169, 254, 0, 0], 16), Class::LinkLocal),
    (net4([172, 16, 0, 0], 12), Class::Private),
    (net4([192, 0, 0, 0], 24), Class::Reserved),
    (net4([192, 0, 2, 0], 24), Class::Documentation),
    (net4([192, 88, 99, 0], 24), Class::Reserved),
    (net4([192, 168, 0, 0], 16), Class::Private),
    (net4([198, 18, 0, 0], 15), Class::Reserved),
    (net4([198, 51, 100, 0], 24), Class::Documentation),
    (net4([203, 0, 113, 0], 24), Class::Documentation),
    (net4([224, 0, 0, 0], 4), Class::Multicast),
    (net4([255, 255, 255, 255], 32), Class::Broadcast),
    (net4([240, 0, 0, 0], 4), Class::Reserved),
    // Not routed to anybody: the sink of the reverse zones of private addresses, and multicast tunnelling.
    (net4([192, 31, 196, 0], 24), Class::Reserved),
    (net4([192, 52, 193, 0], 24), Class::Reserved),
];

/// The first match decides; what is in none was given to nobody.
const V6: [(Ipv6Net, Class); 14] = [
    // Clouds: Amazon (all its local services), Google, Scaleway.
    (net6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), Class::Metadata),
    (
        net6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
        Class::Metadata,
    ),
    (
        net6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128),
        Class::Metadata,
    ),
    (net6([0, 0, 0, 0, 0, 0, 0, 0], 128), Class::Unspecified),
    (net6([0, 0, 0, 0, 0, 0, 0, 1], 128), Class::Loopback),
    (net6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), Class::Reserved),
    (
        net6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
        Class::Documentation,
    ),
    (
        net6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
        Class::Documentation,
    ),
    (
        net6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48),
        Class::Reserved,
    ),
    (net6([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16), Class::Reserved),
    (net6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3), Class::Public),
    (net6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Class::Private),
    (net6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Class::LinkLocal),
    (net6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Class::Multicast),
];

#[cfg(test)]
mod tests;
