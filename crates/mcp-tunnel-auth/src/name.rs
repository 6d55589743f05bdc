//! Names in URLs: routes, tunnel labels, and the host names made of them.
//!
//! ```text
//! search--k3v9d2xq.tunnels.example.com      one wildcard certificate covers
//! └─┬──┘  └──┬───┘ └────────┬────────┘      *.tunnels.example.com
//!  route    label         domain
//! ```
//!
//! Two hyphens separate route and label, so neither may contain them. A route of exactly two characters would put them
//! at the third and fourth place, as in `xn--`, and some clients then take the whole name for invalid.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Longest route, in characters: with a label of [`MAX_LABEL`] the joined DNS label stays below its limit of 63.
pub const MAX_ROUTE: usize = 40;

/// Longest tunnel label, in characters.
pub const MAX_LABEL: usize = 20;

/// Why a text is no name of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It has no characters.
    #[error("a name has at least one character")]
    Empty,
    /// It is longer than its place in a host name allows.
    #[error("the name is longer than {limit} characters")]
    TooLong {
        /// The longest that is accepted.
        limit: usize,
    },
    /// It has a character other than a lower-case letter, a digit or a hyphen.
    #[error("a name has lower-case letters, digits and hyphens only")]
    Character,
    /// It starts or ends with a hyphen.
    #[error("a name neither starts nor ends with a hyphen")]
    Hyphen,
    /// It contains `--`, which separates a route from a tunnel.
    #[error("a name does not contain two hyphens in a row")]
    DoubleHyphen,
    /// A route of two characters makes host names that some clients refuse.
    #[error(
        "a route does not have exactly two characters: some clients refuse host names like ab--tunnel"
    )]
    TwoCharacters,
    /// The label is kept for the edge itself.
    #[error("the label {0} is reserved")]
    Reserved(&'static str),
    /// It is no DNS name, nor (where one may stand) an IP address.
    #[error("not a valid host name")]
    Host,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks the text against the rules of this kind of name.
            ///
            /// # Errors
            /// [`NameError`] says which rule it breaks.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<Box<str>, NameError> = $check;
                check(text).map(Self)
            }

            /// Reads a name out of a format of ours, where each name has one spelling.
            pub(crate) fn parse_canonical(text: &str) -> Option<Self> {
                Self::parse(text).ok().filter(|name| name.as_str() == text)
            }

            /// The name, in lower case.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}

name! {
    /// The name of one private server behind a tunnel: 1 or 3 to 40 of `a-z 0-9 -`.
    RouteName, |text| {
        check_label(text, MAX_ROUTE)?;
        if text.len() == 2 { Err(NameError::TwoCharacters) } else { Ok(text.into()) }
    }
}

name! {
    /// A tunnel's own part of its host names: 1 to 20 of `a-z 0-9 -`, never `edge`.
    DomainLabel, |text| {
        check_label(text, MAX_LABEL)?;
        if text == EDGE_LABEL { Err(NameError::Reserved(EDGE_LABEL)) } else { Ok(text.into()) }
    }
}

name! {
    /// The domain that all tunnels of an edge share, such as `tunnels.example.com`; case is folded.
    DomainName, |text| dns_name(text)
}

name! {
    /// A DNS name or an IP address without brackets; case is folded.
    HostName, |text| match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string().into()),
        Err(_) => dns_name(text),
    }
}

/// The label that names the edge itself below the domain.
const EDGE_LABEL: &str = "edge";

impl Default for RouteName {
    /// The route of a single unnamed server, which the bare tunnel name reaches as well: `mcp`.
    fn default() -> Self {
        Self("mcp".into())
    }
}

impl DomainName {
    /// The reserved name of the edge of this domain, `edge.DOMAIN`.
    #[must_use]
    pub fn edge(&self) -> HostName {
        HostName(format!("{EDGE_LABEL}.{self}").into())
    }
}

/// A host name that callers use: a tunnel, and the route where one is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PublicHost {
    /// The route; without one the tunnel's default route is meant.
    pub route: Option<RouteName>,
    /// The tunnel's label.
    pub label: DomainLabel,
}

impl PublicHost {
    /// Names a tunnel, or one route of it.
    #[must_use]
    pub const fn new(route: Option<RouteName>, label: DomainLabel) -> Self {
        Self { route, label }
    }

    /// Reads a host without port, in any case, with or without a final dot; `None` when it is not directly below `domain`.
    #[must_use]
    pub fn parse(host: &str, domain: &DomainName) -> Option<Self> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let joined = host.strip_suffix(domain.as_str())?.strip_suffix('.')?;
        let (route, label) = match joined.split_once("--") {
            Some((route, label)) => (Some(RouteName::parse(route).ok()?), label),
            None => (None, joined),
        };
        Some(Self {
            route,
            label: DomainLabel::parse(label).ok()?,
        })
    }

    /// The full host name below `domain`.
    #[must_use]
    pub fn under(&self, domain: &DomainName) -> String {
        match &self.route {
            Some(route) => format!("{route}--{}.{domain}", self.label),
            None => format!("{}.{domain}", self.label),
        }
    }
}

fn check_label(text: &str, limit: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > limit {
        return Err(NameError::TooLong { limit });
    }
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        return Err(NameError::Character);
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Hyphen);
    }
    if text.contains("--") {
        return Err(NameError::DoubleHyphen);
    }
    Ok(())
}

fn dns_name(text: &str) -> Result<Box<str>, NameError> {
    let lower = text.to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let numeric = lower
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if lower.len() > 253 || numeric || !lower.split('.').all(label) {
        return Err(NameError::Host);
    }
    Ok(lower.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_route(text: &str, expect: Result<(), NameError>) {
        assert_eq!(RouteName::parse(text).map(|_| ()), expect, "{text:?}");
    }

    #[test]
    fn routes() {
        check_route("mcp", Ok(()));
        check_route("a", Ok(()));
        check_route("search-2", Ok(()));
        check_route(&"a".repeat(40), Ok(()));
        check_route("ab", Err(NameError::TwoCharacters));
        check_route("xn", Err(NameError::TwoCharacters));
        check_route("", Err(NameError::Empty));
        check_route(&"a".repeat(41), Err(NameError::TooLong { limit: 40 }));
        check_route("Search", Err(NameError::Character));
        check_route("a.b", Err(NameError::Character));
        check_route("a_b", Err(NameError::Character));
        check_route("-ab", Err(NameError::Hyphen));
        check_route("abc-", Err(NameError::Hyphen));
        check_route("xn--80ak6aa92e", Err(NameError::DoubleHyphen));
    }

    #[test]
    fn labels() {
        assert!(DomainLabel::parse("k3v9d2xq").is_ok());
        assert_eq!(DomainLabel::parse("edge"), Err(NameError::Reserved("edge")));
        assert_eq!(DomainLabel::parse("a--b"), Err(NameError::DoubleHyphen));
        assert_eq!(
            DomainLabel::parse(&"a".repeat(21)),
            Err(NameError::TooLong { limit: 20 })
        );
    }

    #[test]
    fn hosts() {
        for (text, expect) in [
            ("Edge.Example.COM", Some("edge.example.com")),
            ("localhost", Some("localhost")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("1.2.3", None),
            ("a..b", None),
            ("host:80", None),
            ("[::1]", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(
                HostName::parse(text).ok().as_ref().map(HostName::as_str),
                expect,
                "{text:?}"
            );
        }
        assert!(DomainName::parse("127.0.0.1").is_err());
    }

    #[test]
    fn public_hosts() {
        let domain = DomainName::parse("t.example.com").unwrap();
        let read =
            |host: &str| PublicHost::parse(host, &domain).map(|public| public.under(&domain));
        assert_eq!(
            read("Search--abc.T.example.com.").as_deref(),
            Some("search--abc.t.example.com")
        );
        assert_eq!(
            read("abc.t.example.com").as_deref(),
            Some("abc.t.example.com")
        );
        for foreign in [
            "edge.t.example.com",
            "t.example.com",
            "x.abc.t.example.com",
            "abc.example.com",
            "abct.example.com",
            "xn--abc.t.example.com",
        ] {
            assert_eq!(read(foreign), None, "{foreign}");
        }
        assert_eq!(domain.edge().as_str(), "edge.t.example.com");
    }

    proptest! {
        #[test]
        fn a_public_host_reads_back(route in "[a-z]([a-z0-9]{2,39})?", label in "[a-z0-9]{5,20}") {
            let domain = DomainName::parse("t.example.com").unwrap();
            let public = PublicHost::new(Some(RouteName::parse(&route).unwrap()), DomainLabel::parse(&label).unwrap());
            let host = public.under(&domain);
            prop_assert!(host.split('.').all(|label| label.len() <= 63));
            prop_assert_eq!(PublicHost::parse(&host, &domain), Some(public));
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".{0,80}") {
            let domain = DomainName::parse("d").unwrap();
            let _ = (RouteName::parse(&text), DomainLabel::parse(&text), HostName::parse(&text), PublicHost::parse(&text, &domain));
        }
    }
}
