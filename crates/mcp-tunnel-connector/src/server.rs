//! One private MCP server: how it is named, where it is, what of it is exposed.

mod set;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderValue;
use http::uri::PathAndQuery;
use mcp_tunnel_auth::{HostName, NameError, RouteName};

pub use self::set::{ServerSet, ServerSetError};

/// One private MCP server: its route, where it is, and how its Host is treated.
///
/// ```
/// use mcp_tunnel_connector::McpServer;
///
/// let server: McpServer = "docs=http://10.1.2.3:3000/mcp".parse()?;
/// assert_eq!(server.route().unwrap().as_str(), "docs");
/// assert_eq!(server.target().authority(), "10.1.2.3:3000");
/// # Ok::<(), mcp_tunnel_connector::ServerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpServer {
    route: Option<RouteName>,
    target: Target,
    preserve_host: bool,
}

impl McpServer {
    /// A server without a route of its own; alone, it is the route `mcp`.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            route: None,
            target,
            preserve_host: false,
        }
    }

    /// Gives the server a route.
    #[must_use]
    pub fn with_route(mut self, route: RouteName) -> Self {
        self.route = Some(route);
        self
    }

    /// Whether the server sees the public Host and Origin instead of its own; off unless set.
    ///
    /// For servers that know their public name, as OAuth needs.
    #[must_use]
    pub fn with_preserved_host(mut self, preserve: bool) -> Self {
        self.preserve_host = preserve;
        self
    }

    /// The route it was given, if any.
    #[must_use]
    pub fn route(&self) -> Option<&RouteName> {
        self.route.as_ref()
    }

    /// Where it is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether it sees the public Host and Origin.
    #[must_use]
    pub fn preserves_host(&self) -> bool {
        self.preserve_host
    }
}

impl FromStr for McpServer {
    type Err = ServerError;

    /// Reads `PORT`, `host:port`, `http(s)://host[:port][/path]`, or `NAME=` and one of these.
    fn from_str(text: &str) -> Result<Self, ServerError> {
        // An '=' inside of a URL's path is not the separator.
        match text
            .split_once('=')
            .filter(|(name, _)| !name.contains([':', '/']))
        {
            Some((name, rest)) => {
                let route = RouteName::parse(name).map_err(|source| ServerError::Name {
                    name: name.to_owned(),
                    source,
                })?;
                Ok(Self::new(rest.parse()?).with_route(route))
            }
            None => Ok(Self::new(text.parse()?)),
        }
    }
}

/// Where an MCP server is: scheme, host, port, and the one path that it exposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    scheme: Scheme,
    host: HostName,
    port: u16,
    path: Option<Box<str>>,
}

impl Target {
    /// Whether it is reached by TLS.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The only path that is exposed, beside the well-known documents; `None` exposes all.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Host and port as a Host header has them: as a client that dialled the server itself would write them.
    ///
    /// The port is there unless it is the scheme's own. MCP servers compare Host with `localhost:PORT`, so that a Host
    /// without its port is refused.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match self.address() {
            Some(IpAddr::V6(v6)) => format!("[{v6}]"),
            _ => self.host.to_string(),
        };
        if self.port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// Scheme and authority as an Origin header has them.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority())
    }

    /// The address, if the operator named one instead of a name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.as_str().parse().ok()
    }

    pub(crate) fn host_header(&self) -> HeaderValue {
        header(&self.authority())
    }

    pub(crate) fn origin_header(&self) -> HeaderValue {
        header(&self.origin())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.origin(),
            self.path.as_deref().unwrap_or_default()
        )
    }
}

impl FromStr for Target {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some((other, _)) => {
                return Err(ServerError::Scheme {
                    scheme: other.to_owned(),
                });
            }
            None if text.starts_with("stdio:") => return Err(ServerError::Stdio),
            None => (None, text),
        };
        let Some(scheme) = scheme else {
            let local = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
            let (host, port) = if local {
                (LOCALHOST, Some(rest))
            } else {
                split_authority(rest)?
            };
            let port = port.ok_or_else(|| ServerError::PortMissing {
                host: host.to_owned(),
            })?;
            return Self::from_parts(Scheme::Http, host, parse_port(port)?, None);
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = split_authority(authority)?;
        let port = port.map_or_else(|| Ok(scheme.default_port()), parse_port)?;
        Self::from_parts(scheme, host, port, parse_path(path)?)
    }
}

impl Target {
    fn from_parts(
        scheme: Scheme,
        host: &str,
        port: u16,
        path: Option<Box<str>>,
    ) -> Result<Self, ServerError> {
        let host = HostName::parse(host).map_err(|source| ServerError::Host {
            host: host.to_owned(),
            source,
        })?;
        Ok(Self {
            scheme,
            host,
            port,
            path,
        })
    }
}

/// How an MCP server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum Scheme {
    /// Without TLS, inside the private network.
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// Why a text names no MCP server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// What stands before `=` is no route.
    #[error("{name:?} cannot be a route")]
    Name {
        /// What was given.
        name: String,
        /// Which rule it breaks.
        #[source]
        source: NameError,
    },
    /// Neither `http` nor `https`.
    #[error("scheme {scheme:?} is not supported: use http:// or https://")]
    Scheme {
        /// What was given.
        scheme: String,
    },
    /// A command instead of an address.
    #[error("stdio servers are not supported yet: give the address of a Streamable HTTP server")]
    Stdio,
    /// A host alone.
    #[error("the port is missing: write {host}:PORT")]
    PortMissing {
        /// What was given.
        host: String,
    },
    /// Not a number from 1 to 65535.
    #[error("{port:?} is no port: use a number from 1 to 65535")]
    Port {
        /// What was given.
        port: String,
    },
    /// An IPv6 address without its brackets.
    #[error("an IPv6 address needs brackets: write [{address}]:PORT")]
    Brackets {
        /// What was given.
        address: String,
    },
    /// User name or password before the host.
    #[error("credentials do not belong into the address of a server")]
    Credentials,
    /// The host is neither a name nor an address.
    #[error("{host:?} is no host")]
    Host {
        /// What was given.
        host: String,
        /// Which rule it breaks.
        #[source]
        source: NameError,
    },
    /// A query, a fragment, or a path that is not in its plainest form.
    #[error(
        "{path:?} cannot be exposed: write a plain path such as /mcp, without query, escapes or dots"
    )]
    Path {
        /// What was given.
        path: String,
    },
}

/// `host[:port]`, the host without the brackets of an IPv6 address.
fn split_authority(text: &str) -> Result<(&str, Option<&str>), ServerError> {
    if text.contains('@') {
        return Err(ServerError::Credentials);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| ServerError::Brackets {
            address: rest.to_owned(),
        })?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(ServerError::Port {
                port: after.to_owned(),
            }),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(ServerError::Brackets {
            address: text.to_owned(),
        }),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, ServerError> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(ServerError::Port {
            port: text.to_owned(),
        }),
    }
}

/// A path in its plainest form, so that comparing bytes compares paths; `/` alone stands for the whole server.
fn parse_path(text: &str) -> Result<Option<Box<str>>, ServerError> {
    if text.is_empty() || text == "/" {
        return Ok(None);
    }
    let plain = is_plain_path(text)
        && text
            .parse::<PathAndQuery>()
            .is_ok_and(|parsed| parsed.as_str() == text);
    if plain {
        Ok(Some(text.into()))
    } else {
        Err(ServerError::Path {
            path: text.to_owned(),
        })
    }
}

/// Whether no server can read the path as another one: no escapes, dot segments, empty segments or parameters.
pub(crate) fn is_plain_path(path: &str) -> bool {
    let segment = |segment: &str| !matches!(segment, "" | "." | "..");
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    rest.bytes()
        .all(|b| b.is_ascii_graphic() && !b"%\\;?#".contains(&b))
        && rest.split('/').all(segment)
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a parsed host has no character that a header refuses")
}

const LOCALHOST: &str = "localhost";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<(Option<&str>, &str), &str>) {
        let parsed = text.parse::<McpServer>();
        let got = parsed
            .as_ref()
            .map(|s| (s.route().map(RouteName::as_str), s.target().to_string()));
        match expect {
            Ok((route, target)) => assert_eq!(got, Ok((route, target.to_owned())), "{text}"),
            Err(part) => {
                let error = got.expect_err(text).to_string();
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }

    #[test]
    fn each_form_names_a_server() {
        check("50051", Ok((None, "http://localhost:50051")));
        check("localhost:3000", Ok((None, "http://localhost:3000")));
        check("10.0.0.7:80", Ok((None, "http://10.0.0.7")));
        check("[::1]:3000", Ok((None, "http://[::1]:3000")));
        check(
            "Files.Corp.example:8080",
            Ok((None, "http://files.corp.example:8080")),
        );
        check("http://localhost:3000", Ok((None, "http://localhost:3000")));
        check(
            "http://localhost:3000/",
            Ok((None, "http://localhost:3000")),
        );
        check(
            "https://mcp.corp.example",
            Ok((None, "https://mcp.corp.example")),
        );
        check(
            "https://mcp.corp.example:8443/mcp",
            Ok((None, "https://mcp.corp.example:8443/mcp")),
        );
        check("http://host/a=b", Ok((None, "http://host/a=b")));
        check("docs=3000", Ok((Some("docs"), "http://localhost:3000")));
        check(
            "docs=localhost:3000",
            Ok((Some("docs"), "http://localhost:3000")),
        );
        check(
            "docs=http://[fd00::7]:3000/v1/mcp/",
            Ok((Some("docs"), "http://[fd00::7]:3000/v1/mcp/")),
        );
    }

    #[test]
    fn each_mistake_names_its_cure() {
        check("", Err("the port is missing"));
        check("localhost", Err("write localhost:PORT"));
        check("0", Err("number from 1 to 65535"));
        check("70000", Err("number from 1 to 65535"));
        check("localhost:+80", Err("number from 1 to 65535"));
        check("localhost:", Err("number from 1 to 65535"));
        check("localhost:3000/mcp", Err("number from 1 to 65535"));
        check("::1:3000", Err("needs brackets"));
        check("[::1", Err("needs brackets"));
        check("[::1]x", Err("is no port"));
        check(
            "http://user:secret@host:80/",
            Err("credentials do not belong"),
        );
        check("ftp://host:21", Err("use http:// or https://"));
        check(
            "files=stdio:npx server",
            Err("stdio servers are not supported yet"),
        );
        check(
            "stdio:npx server",
            Err("stdio servers are not supported yet"),
        );
        check("Docs=3000", Err("cannot be a route"));
        check("ab=3000", Err("cannot be a route"));
        check("a--b=3000", Err("cannot be a route"));
        check("=3000", Err("cannot be a route"));
        check("ho st:80", Err("is no host"));
        check("1.2.3:80", Err("is no host"));
        for path in [
            "/mcp?x=1",
            "/mcp#f",
            "?x",
            "/a/../b",
            "/%2e%2e/b",
            "/a//b",
            "/a;b",
            "/\\b",
            "/ö",
        ] {
            check(&format!("http://host:80{path}"), Err("cannot be exposed"));
        }
    }

    #[test]
    fn credentials_in_an_address_are_not_echoed() {
        let error = "http://user:hunter2@host:80/"
            .parse::<McpServer>()
            .unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn a_server_reads_back_what_it_shows(text in "[a-z=:/.0-9\\[\\]@?#%-]{0,40}") {
            if let Ok(server) = text.parse::<McpServer>() {
                let shown = server.target().to_string();
                prop_assert_eq!(&shown.parse::<Target>().unwrap(), server.target(), "{}", shown);
            }
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".{0,60}") {
            let _ = text.parse::<McpServer>();
        }
    }
}
