//! One MCP server: its address, what it speaks, and who else can reach it.

use std::net::SocketAddr;

use http::{HeaderValue, StatusCode};
use mcp_diagnostics::report::Line;
use mcp_diagnostics::sockets;
use mcp_diagnostics::telemetry::chain;
use mcp_messages::probe::{self, ClientName, ErrorObject, ServerCard, ToolPage};
use mcp_messages::{Era, Message};
use mcp_tunnel_auth::RouteName;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::ask::{Answer, AskError, Speaks, ask, recognise};
use crate::server::{McpServer, Target};
use crate::upstream::dial::{DialError, Dialler};

pub(super) async fn check(route: &RouteName, server: &McpServer, dialler: &Dialler) -> Vec<Line> {
    let target = server.target();
    let address_hop = format!("{route} address");
    let began = Instant::now();
    let addresses = match dialler.permitted(target).await {
        Ok(addresses) => addresses,
        Err(error) => {
            let line = Line::fail(address_hop, chain(&error).to_string(), dial_cure(&error));
            return vec![
                line.took(began.elapsed()),
                Line::skip(route.to_string(), "no address to dial"),
            ];
        }
    };
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let text = format!("{target}: {}, allowed", shown.join(", "));
    let mut lines = vec![Line::ok(address_hop, text).took(began.elapsed())];
    let began = Instant::now();
    let asked = interview(dialler, target).await;
    lines.push(
        verdict(route, target, asked, dialler)
            .await
            .took(began.elapsed()),
    );
    lines.extend(exposure(route, &addresses));
    lines
}

/// What a server said about itself.
struct Interview {
    path: String,
    card: ServerCard,
    tools: Result<usize, Trouble>,
}

/// Why a server is not known to be an MCP server.
enum Trouble {
    Ask(AskError),
    /// It wants credentials: a sign of life.
    Login(StatusCode),
    Status {
        path: String,
        status: StatusCode,
    },
    Said(ErrorObject),
    NoJsonRpc {
        path: String,
    },
}

impl From<AskError> for Trouble {
    fn from(error: AskError) -> Self {
        Self::Ask(error)
    }
}

/// Asks at the server's own path, or where servers usually are.
async fn interview(dialler: &Dialler, target: &Target) -> Result<Interview, Trouble> {
    let Some(path) = target.path() else {
        return match interview_at(dialler, target, "/mcp").await {
            Err(missing @ (Trouble::Status { .. } | Trouble::NoJsonRpc { .. })) => {
                interview_at(dialler, target, "/")
                    .await
                    .map_err(|_| missing)
            }
            decided => decided,
        };
    };
    interview_at(dialler, target, path).await
}

/// Modern first, as dual-era clients do; whatever is no modern answer means `initialize`.
async fn interview_at(
    dialler: &Dialler,
    target: &Target,
    path: &str,
) -> Result<Interview, Trouble> {
    let answer = ask(dialler, target, path, probe::discover(1, CLIENT), None).await?;
    if let Ok(result) = result_of(path, &answer)
        && let Ok(card) = ServerCard::from_discover(result)
        && card.era() == Era::Modern
    {
        let tools = count_tools(dialler, target, path, Era::Modern, None).await;
        return Ok(Interview {
            path: path.to_owned(),
            card,
            tools,
        });
    }
    let answer = ask(dialler, target, path, probe::initialize(2, CLIENT), None).await?;
    let result = result_of(path, &answer)?;
    let card = ServerCard::from_initialize(result).map_err(|_| Trouble::NoJsonRpc {
        path: path.to_owned(),
    })?;
    let session = answer.headers.get("mcp-session-id");
    ask(dialler, target, path, probe::initialized(), session).await?;
    let tools = count_tools(dialler, target, path, Era::Legacy, session).await;
    Ok(Interview {
        path: path.to_owned(),
        card,
        tools,
    })
}

async fn count_tools(
    dialler: &Dialler,
    target: &Target,
    path: &str,
    era: Era,
    session: Option<&HeaderValue>,
) -> Result<usize, Trouble> {
    let (mut tools, mut cursor) = (0, None);
    for id in 3..3 + MAX_PAGES {
        let question = probe::list_tools(id, era, CLIENT, cursor.as_deref());
        let answer = ask(dialler, target, path, question, session).await?;
        let page =
            ToolPage::from_result(result_of(path, &answer)?).map_err(|_| Trouble::NoJsonRpc {
                path: path.to_owned(),
            })?;
        tools += page.tools;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(tools)
}

fn result_of<'a>(path: &str, answer: &'a Answer) -> Result<&'a RawValue, Trouble> {
    if matches!(
        answer.status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    ) {
        return Err(Trouble::Login(answer.status));
    }
    match Message::parse(&answer.body) {
        Ok(Message::Response { result, .. }) => Ok(result),
        Ok(Message::Error { error, .. }) => Err(Trouble::Said(ErrorObject::read(error))),
        _ if !answer.status.is_success() => Err(Trouble::Status {
            path: path.to_owned(),
            status: answer.status,
        }),
        _ => Err(Trouble::NoJsonRpc {
            path: path.to_owned(),
        }),
    }
}

async fn verdict(
    route: &RouteName,
    target: &Target,
    asked: Result<Interview, Trouble>,
    dialler: &Dialler,
) -> Line {
    let hop = route.to_string();
    match asked {
        Ok(interview) => introduce(hop, interview),
        Err(Trouble::Login(status)) => {
            Line::ok(hop, format!("alive, and asks for credentials ({status})"))
        }
        Err(Trouble::Ask(AskError::Http(error))) => {
            no_http(hop, &error, recognise(dialler, target).await)
        }
        Err(Trouble::Ask(AskError::Dial(error))) => {
            Line::fail(hop, chain(&error).to_string(), dial_cure(&error))
        }
        Err(Trouble::Ask(error)) => Line::fail(
            hop,
            chain(&error).to_string(),
            "see what the MCP server is busy with",
        ),
        Err(Trouble::Status { path, status }) => Line::fail(
            hop,
            format!("{path} answers {status} to initialize"),
            "name the server's path: --mcp-server http://HOST:PORT/PATH",
        ),
        Err(Trouble::Said(error)) => Line::fail(
            hop,
            format!(
                "answers initialize with error {}: {}",
                error.code, error.message
            ),
            "see the MCP server's log",
        ),
        Err(Trouble::NoJsonRpc { path }) => Line::fail(
            hop,
            format!("{path} speaks HTTP, but not MCP"),
            "correct the port, or name the path: --mcp-server http://HOST:PORT/PATH",
        ),
    }
}

fn introduce(hop: String, Interview { path, card, tools }: Interview) -> Line {
    let name = card
        .name
        .as_deref()
        .unwrap_or("an MCP server without a name");
    let version = card
        .version
        .as_ref()
        .map_or_else(String::new, |version| format!(" {version}"));
    let era = match card.era() {
        Era::Modern => "modern",
        Era::Legacy => "legacy",
    };
    let about = format!(
        "{name}{version} at {path}, MCP {} ({era})",
        card.protocol_version
    );
    match tools {
        Ok(1) => Line::ok(hop, format!("{about}, 1 tool")),
        Ok(tools) => Line::ok(hop, format!("{about}, {tools} tools")),
        Err(_) => Line::warn(
            hop,
            format!("{about}, tools not listed"),
            "see the MCP server's log for tools/list",
        ),
    }
}

fn no_http(hop: String, error: &hyper::Error, speaks: Speaks) -> Line {
    match speaks {
        Speaks::Grpc => Line::fail(
            hop,
            "this is a gRPC server (HTTP/2 without TLS), not an MCP server over Streamable HTTP",
            "give the port of an MCP server; gRPC needs an adapter that speaks MCP over HTTP/1.1",
        ),
        Speaks::H2c => Line::fail(
            hop,
            "this server speaks HTTP/2 without TLS (h2c) only, and the gateway speaks HTTP/1.1",
            "let the MCP server accept HTTP/1.1, as clients of Streamable HTTP use it",
        ),
        Speaks::Unknown => Line::fail(
            hop,
            format!("no HTTP/1.1 answer: {}", chain(error)),
            "check that an MCP server over Streamable HTTP listens there; use https:// if it wants TLS",
        ),
    }
}

/// A server meant for loopback that others on the network reach without the tunnel.
fn exposure(route: &RouteName, addresses: &[SocketAddr]) -> Option<Line> {
    if !addresses.iter().all(|address| address.ip().is_loopback()) {
        return None;
    }
    exposure_of(route, addresses.first()?.port())
}

/// The same by configuration alone, for a gateway that starts: no name is resolved, nothing is dialled.
pub(super) fn local_exposure(route: &RouteName, server: &McpServer) -> Option<Line> {
    let target = server.target();
    let local = target.address().map_or_else(
        || target.host().as_str() == "localhost",
        |ip| ip.is_loopback(),
    );
    local.then(|| exposure_of(route, target.port())).flatten()
}

fn exposure_of(route: &RouteName, port: u16) -> Option<Line> {
    let listeners = sockets::listeners_on(port).ok()?;
    let open = listeners
        .iter()
        .filter(|listener| !listener.ip().is_loopback());
    let open: Vec<String> = open.map(ToString::to_string).collect();
    (!open.is_empty()).then(|| {
        Line::warn(
            format!("{route} listens"),
            format!(
                "on {}: others on the network reach it without the tunnel",
                open.join(", ")
            ),
            "let the MCP server listen on 127.0.0.1 only",
        )
    })
}

fn dial_cure(error: &DialError) -> &'static str {
    match error {
        DialError::Resolve { .. } | DialError::NoAddress => {
            "correct the name in --mcp-server, or this machine's DNS"
        }
        DialError::Forbidden(refusal) => refusal.cure(),
        DialError::Connect(_) => "start the MCP server, or correct its address in --mcp-server",
        DialError::NoTlsName | DialError::Tls { .. } => {
            "name the server's authority by --mcp-server-ca, or use http://"
        }
        DialError::TimedOut { .. } => "see whether a firewall drops what this machine sends",
    }
}

const CLIENT: ClientName<'static> =
    ClientName::new("mcp-tunnel-gateway", env!("CARGO_PKG_VERSION"));

/// Pages of tools that are counted at most.
const MAX_PAGES: u64 = 64;
