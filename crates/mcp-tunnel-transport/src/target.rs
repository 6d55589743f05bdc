//! Where an uplink dials, and as whom the edge must identify itself.

use std::{fmt, net::IpAddr, str::FromStr};

use rustls_pki_types::ServerName;

/// Port of an edge when none is named.
pub const DEFAULT_PORT: u16 = 443;

/// The edge of an uplink: where to dial, and the name that its certificate must carry.
///
/// The two are separate because a token's name decides whom to trust, whatever address an operator dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    address: EdgeAddress,
    server_name: ServerName<'static>,
}

/// `host:port` of an edge: a DNS name or an IP address, IPv6 in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeAddress {
    host: EdgeHost,
    port: u16,
}

/// The host of an [`EdgeAddress`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum EdgeHost {
    /// To be resolved; lower case, without a final dot.
    Name(String),
    /// To be dialled as it is.
    Ip(IpAddr),
}

/// Why a text is not the address or the name of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Nothing stands before the port.
    #[error("the edge address has no host")]
    NoHost,
    /// The host is neither a DNS name nor an IP address.
    #[error("the edge's host is neither a DNS name nor an IP address")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the edge's port is not a number from 1 to 65535")]
    Port,
    /// An IPv6 address with colons outside brackets.
    #[error("an IPv6 address needs brackets, as in [::1]:443")]
    Brackets,
    /// A URL, where `host:port` belongs.
    #[error("the edge is given as host:port, not as a URL")]
    Url,
}

impl Target {
    /// An edge that is dialled by the name it identifies itself with.
    ///
    /// # Errors
    ///
    /// `edge_name` is neither a DNS name nor an IP address, or the port is 0.
    pub fn new(edge_name: &str, port: u16) -> Result<Self, TargetError> {
        let host = EdgeHost::parse(edge_name)?;
        let server_name = host.server_name()?;
        let address = EdgeAddress::new(host, port)?;
        Ok(Self {
            address,
            server_name,
        })
    }

    /// The same edge, dialled elsewhere; the certificate is still judged by the edge's name.
    #[must_use]
    pub fn dialled_at(self, address: EdgeAddress) -> Self {
        Self { address, ..self }
    }

    /// Where to dial.
    pub fn address(&self) -> &EdgeAddress {
        &self.address
    }

    /// The name that the certificate must carry, and the SNI.
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }
}

impl EdgeAddress {
    /// An address of its two parts.
    ///
    /// # Errors
    ///
    /// The port is 0.
    pub fn new(host: EdgeHost, port: u16) -> Result<Self, TargetError> {
        if port == 0 {
            return Err(TargetError::Port);
        }
        Ok(Self { host, port })
    }

    /// The host.
    pub fn host(&self) -> &EdgeHost {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for EdgeAddress {
    type Err = TargetError;

    /// Parses `host`, `host:port`, `a.b.c.d:port`, `[v6]` or `[v6]:port`; the port defaults to 443.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.contains("://") || text.contains('/') {
            return Err(TargetError::Url);
        }
        let (host, port) = split(text)?;
        if host.is_empty() {
            return Err(TargetError::NoHost);
        }
        let port = port.map_or(Ok(DEFAULT_PORT), parse_port)?;
        Self::new(EdgeHost::parse(host)?, port)
    }
}

impl fmt::Display for EdgeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl EdgeHost {
    /// Parses a DNS name or an IP address (IPv6 without brackets).
    ///
    /// # Errors
    ///
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let host = Self::Name(name);
        host.server_name()?;
        Ok(host)
    }

    fn server_name(&self) -> Result<ServerName<'static>, TargetError> {
        match self {
            Self::Name(name) => ServerName::try_from(name.clone()).map_err(|_| TargetError::Host),
            Self::Ip(ip) => Ok(ServerName::from(*ip)),
        }
    }
}

impl fmt::Display for EdgeHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// Splits off the port; the host comes back without brackets.
fn split(text: &str) -> Result<(&str, Option<&str>), TargetError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(TargetError::Brackets)?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(TargetError::Host);
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(TargetError::Port),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Err(TargetError::Brackets),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| digits && *port != 0)
        .ok_or(TargetError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<&str, TargetError>) {
        let parsed = text
            .parse::<EdgeAddress>()
            .map(|address| address.to_string());
        assert_eq!(parsed.as_deref(), expect.as_deref(), "{text}");
        if let Ok(shown) = parsed {
            assert_eq!(shown.parse::<EdgeAddress>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn addresses_parse_and_print_alike() {
        check("edge.example.com", Ok("edge.example.com:443"));
        check("Edge.Example.COM.:8443", Ok("edge.example.com:8443"));
        check("localhost:7443", Ok("localhost:7443"));
        check("127.0.0.1:7443", Ok("127.0.0.1:7443"));
        check("10.0.0.1", Ok("10.0.0.1:443"));
        check("[::1]:7443", Ok("[::1]:7443"));
        check("[2001:DB8::1]", Ok("[2001:db8::1]:443"));
    }

    #[test]
    fn what_is_no_address_says_why() {
        check("", Err(TargetError::NoHost));
        check(":443", Err(TargetError::NoHost));
        check("edge:0", Err(TargetError::Port));
        check("edge:65536", Err(TargetError::Port));
        check("edge:+443", Err(TargetError::Port));
        check("edge:", Err(TargetError::Port));
        check("::1", Err(TargetError::Brackets));
        check("::1:443", Err(TargetError::Brackets));
        check("[::1", Err(TargetError::Brackets));
        check("[::1]443", Err(TargetError::Port));
        check("[edge]:443", Err(TargetError::Host));
        check("https://edge:443", Err(TargetError::Url));
        check("edge/path", Err(TargetError::Url));
        check("an edge:443", Err(TargetError::Host));
        check("ed\u{fc}ge:443", Err(TargetError::Host));
    }

    #[test]
    fn the_name_stays_when_the_address_changes() {
        let target = Target::new("edge.example.com", 443).unwrap();
        let moved = target.dialled_at("127.0.0.1:7443".parse().unwrap());
        assert_eq!(moved.address().to_string(), "127.0.0.1:7443");
        assert_eq!(moved.server_name().to_str(), "edge.example.com");
    }
}
