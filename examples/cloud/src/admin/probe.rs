//! `mcp-cloud probe`: the whole way from the caller's side, hop by hop.

mod caller;

use std::time::{Duration, Instant};

use http::StatusCode;
use jiff::Timestamp;
use managed_agents_api::{ConnectionStatus, CreateCallerKey, Tunnel, TunnelConnection};
use mcp_diagnostics::report::{Colour, Line, Report};
use mcp_messages::probe::{self, ClientName, ErrorObject, ServerCard, ToolPage};
use mcp_messages::{Era, Message};
use secrecy::SecretString;

use super::table::visible;
use super::{Cloud, name_of};
use crate::failure::Failure;
use crate::out::say;

use caller::{Answer, Caller, CallerError};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Id, name or domain
    pub(crate) tunnel: String,
}

/// Prints the report; the exit code is that of its first failure.
pub(crate) async fn run(cloud: &Cloud, arguments: Arguments) -> Result<u8, Failure> {
    let tunnel = cloud.tunnel(&arguments.tunnel).await?;
    let report = report(cloud, &tunnel).await?;
    cloud.answer(&report.to_json(), || {
        say!("{}", report.table(Colour::Auto).to_string().trim_end())
    })?;
    Ok(report.exit_code())
}

async fn report(cloud: &Cloud, tunnel: &Tunnel) -> Result<Report, Failure> {
    let mut report = Report::new();
    let about = format!("{}, {}", visible(name_of(tunnel)), tunnel.domain);
    report.push(Line::ok("tunnel", about));
    let began = Instant::now();
    let gateways = cloud.client.connections(&tunnel.id).list().await?;
    report.push(attached(cloud, tunnel, &gateways).took(began.elapsed()));
    if !report.is_ok() {
        return Ok(report);
    }
    let began = Instant::now();
    let made = cloud
        .client
        .caller_keys()
        .create(&CreateCallerKey {
            name: "probe".to_owned(),
            tunnel_ids: Some(vec![tunnel.id.clone()]),
            routes: None,
            expires_at: Some(Timestamp::now() + KEY_LIFE),
        })
        .await?;
    let line = Line::ok("caller key", "made for one minute");
    report.push(line.took(began.elapsed()));
    for route in routes(&gateways) {
        report.extend(walk(cloud, tunnel, &route, &made.key).await);
    }
    cloud
        .client
        .caller_keys()
        .revoke(&made.caller_key.id)
        .await?;
    Ok(report)
}

/// Whether anybody is there to answer, and if not, what to do about it.
fn attached(cloud: &Cloud, tunnel: &Tunnel, gateways: &[TunnelConnection]) -> Line {
    let active = |gateway: &&TunnelConnection| gateway.status == ConnectionStatus::Active;
    let count = gateways.iter().filter(active).count();
    if count > 0 {
        let links: u32 = gateways.iter().map(|gateway| gateway.live_links).sum();
        return Line::ok("gateways", format!("active: {count}, live links: {links}"));
    }
    let waits = |gateway: &&TunnelConnection| gateway.status == ConnectionStatus::Pending;
    match gateways
        .iter()
        .find(waits)
        .and_then(|gateway| gateway.approval_code.as_ref())
    {
        Some(code) => Line::fail(
            "gateways",
            "one waits for approval",
            format!("{} connection approve {code}", cloud.called_as),
        ),
        None => Line::fail(
            "gateways",
            "none is connected",
            format!("start one: {} tunnel token {}", cloud.called_as, tunnel.id),
        ),
    }
}

fn routes(gateways: &[TunnelConnection]) -> Vec<String> {
    let active = gateways
        .iter()
        .filter(|gateway| gateway.status == ConnectionStatus::Active);
    let mut names: Vec<String> = active.flat_map(|gateway| gateway.routes.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// One server: the way to it, then what it says of itself.
async fn walk(cloud: &Cloud, tunnel: &Tunnel, route: &str, key: &SecretString) -> Vec<Line> {
    let mut lines = Vec::new();
    let began = Instant::now();
    let mut caller = match Caller::connect(cloud, tunnel, route, key).await {
        Ok(caller) => caller,
        Err(error) => {
            let line = Line::fail(format!("{route} ingress"), error.told(), error.cure());
            return vec![line.took(began.elapsed())];
        }
    };
    let text = format!(
        "{}, certificate good for {}",
        caller.address(),
        caller.host()
    );
    lines.push(Line::ok(format!("{route} ingress"), text).took(began.elapsed()));
    let began = Instant::now();
    let asked = interview(&mut caller).await;
    let took = began.elapsed();
    let timings = caller.take_timings();
    for (hop, text, time) in timings {
        lines.push(Line::ok(format!("{route} {hop}"), text).took(time));
    }
    lines.push(verdict(route, asked).took(took));
    lines
}

/// What a server said of itself, or why it did not.
enum Trouble {
    Caller(CallerError),
    /// The edge or the gateway says what is wrong.
    Refused {
        status: StatusCode,
        message: String,
    },
    Odd(StatusCode),
}

impl From<CallerError> for Trouble {
    fn from(error: CallerError) -> Self {
        Self::Caller(error)
    }
}

/// Modern first; whatever is no modern answer means `initialize`.
async fn interview(caller: &mut Caller) -> Result<(ServerCard, Option<usize>), Trouble> {
    let answer = caller.ask(probe::discover(1, CLIENT)).await?;
    if let Ok(result) = result_of(&answer)
        && let Ok(card) = ServerCard::from_discover(result)
        && card.era() == Era::Modern
    {
        let tools = count_tools(caller, Era::Modern).await;
        return Ok((card, tools));
    }
    if answer.status.is_server_error() || answer.status == StatusCode::FORBIDDEN {
        return Err(refusal(&answer));
    }
    let answer = caller.ask(probe::initialize(2, CLIENT)).await?;
    let result = result_of(&answer).map_err(|()| refusal(&answer))?;
    let card = ServerCard::from_initialize(result).map_err(|_| Trouble::Odd(answer.status))?;
    caller.ask(probe::initialized()).await?;
    let tools = count_tools(caller, Era::Legacy).await;
    Ok((card, tools))
}

async fn count_tools(caller: &mut Caller, era: Era) -> Option<usize> {
    let (mut tools, mut cursor) = (0, None);
    for id in 3..3 + PAGES_MOST {
        let question = probe::list_tools(id, era, CLIENT, cursor.as_deref());
        let answer = caller.ask(question).await.ok()?;
        let page = ToolPage::from_result(result_of(&answer).ok()?).ok()?;
        tools += page.tools;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Some(tools)
}

fn result_of(answer: &Answer) -> Result<&serde_json::value::RawValue, ()> {
    match Message::parse(&answer.body) {
        Ok(Message::Response { result, .. }) => Ok(result),
        _ => Err(()),
    }
}

fn refusal(answer: &Answer) -> Trouble {
    match Message::parse(&answer.body) {
        Ok(Message::Error { error, .. }) => Trouble::Refused {
            status: answer.status,
            message: ErrorObject::read(error).message,
        },
        _ => Trouble::Odd(answer.status),
    }
}

fn verdict(route: &str, asked: Result<(ServerCard, Option<usize>), Trouble>) -> Line {
    let hop = route.to_owned();
    match asked {
        Ok((card, tools)) => introduce(hop, &card, tools),
        Err(Trouble::Caller(error)) => Line::fail(hop, error.told(), error.cure()),
        Err(Trouble::Refused { status, message }) => Line::fail(
            hop,
            format!("{status}: {}", visible(&message)),
            "see what it says, and `mcp-tunnel-gateway check` on the gateway's machine",
        ),
        Err(Trouble::Odd(status)) if status == StatusCode::UNAUTHORIZED => {
            Line::ok(hop, "alive, and asks for credentials of its own")
        }
        Err(Trouble::Odd(status)) => Line::fail(
            hop,
            format!("the answer ({status}) is not MCP"),
            "let the gateway name the server's path: --mcp-server http://HOST:PORT/PATH",
        ),
    }
}

fn introduce(hop: String, card: &ServerCard, tools: Option<usize>) -> Line {
    let name = card
        .name
        .as_deref()
        .unwrap_or("an MCP server without a name");
    let version = card.version.as_deref().unwrap_or("");
    let era = match card.era() {
        Era::Modern => "modern",
        Era::Legacy => "legacy",
    };
    let about = format!("{name} {version}, MCP {} ({era})", card.protocol_version);
    let about = visible(&about);
    match tools {
        Some(tools) => Line::ok(hop, format!("{about}, {tools} tools")),
        None => Line::warn(
            hop,
            format!("{about}, tools not listed"),
            "see the MCP server's log",
        ),
    }
}

const CLIENT: ClientName<'static> = ClientName::new("mcp-cloud-probe", env!("CARGO_PKG_VERSION"));

const KEY_LIFE: Duration = Duration::from_secs(60);

/// Pages of tools that are counted at most.
const PAGES_MOST: u64 = 64;
