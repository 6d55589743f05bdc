//! The few typed messages with which a check asks a server who it is.
//!
//! ```text
//! modern:  server/discover ──► ServerCard        tools/list ──► ToolPage
//! legacy:  initialize ──► ServerCard, notifications/initialized, tools/list ──► ToolPage
//! ```

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::era::{Era, FIRST_MODERN_VERSION, LAST_LEGACY_VERSION, PROTOCOL_VERSION_HEADER};

/// A body to POST to a server's MCP endpoint, and the headers that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outgoing {
    /// Names in lower case, and values.
    pub headers: Vec<(&'static str, &'static str)>,
    /// One JSON-RPC message.
    pub body: Vec<u8>,
}

/// Who asks: shown in the server's records.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct ClientName<'a> {
    /// The program.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
}

impl<'a> ClientName<'a> {
    /// Names a program and its version.
    #[must_use]
    pub const fn new(name: &'a str, version: &'a str) -> Self {
        Self { name, version }
    }
}

/// `server/discover`: the first question to a server of the modern era.
#[must_use]
pub fn discover(id: u64, client: ClientName<'_>) -> Outgoing {
    let params = Params {
        meta: Some(Meta::new(client)),
        ..Params::default()
    };
    outgoing(
        Some(id),
        "server/discover",
        Some(params),
        Some(FIRST_MODERN_VERSION),
    )
}

/// `initialize`: the first question to a server of the legacy era. Its answer may carry `Mcp-Session-Id`, which all
/// later requests repeat.
#[must_use]
pub fn initialize(id: u64, client: ClientName<'_>) -> Outgoing {
    let params = Params {
        protocol_version: Some(LAST_LEGACY_VERSION),
        capabilities: Some(Nothing {}),
        client_info: Some(client),
        ..Params::default()
    };
    outgoing(Some(id), "initialize", Some(params), None)
}

/// `notifications/initialized`: what the legacy era wants after the answer to [`initialize`].
#[must_use]
pub fn initialized() -> Outgoing {
    outgoing(
        None,
        "notifications/initialized",
        None,
        Some(LAST_LEGACY_VERSION),
    )
}

/// `tools/list`, from the start or from a cursor of the page before.
#[must_use]
pub fn list_tools(id: u64, era: Era, client: ClientName<'_>, cursor: Option<&str>) -> Outgoing {
    let (meta, version) = match era {
        Era::Modern => (Some(Meta::new(client)), FIRST_MODERN_VERSION),
        Era::Legacy => (None, LAST_LEGACY_VERSION),
    };
    let params = Params {
        meta,
        cursor,
        ..Params::default()
    };
    outgoing(Some(id), "tools/list", Some(params), Some(version))
}

fn outgoing(
    id: Option<u64>,
    method: &'static str,
    params: Option<Params<'_>>,
    version: Option<&'static str>,
) -> Outgoing {
    let mut headers = vec![
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    if let Some(version) = version {
        headers.push((PROTOCOL_VERSION_HEADER, version));
        if Era::of_version(Some(version)) == Era::Modern {
            headers.push(("mcp-method", method));
        }
    }
    let body = serde_json::to_vec(&Request {
        jsonrpc: "2.0",
        id,
        method,
        params,
    })
    .unwrap_or_default();
    Outgoing { headers, body }
}

#[derive(Serialize)]
struct Request<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Params<'a>>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Nothing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_info: Option<ClientName<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Meta<'a> {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    protocol_version: &'a str,
    #[serde(rename = "io.modelcontextprotocol/clientInfo")]
    client_info: ClientName<'a>,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    client_capabilities: Nothing,
}

impl<'a> Meta<'a> {
    const fn new(client_info: ClientName<'a>) -> Self {
        Self {
            protocol_version: FIRST_MODERN_VERSION,
            client_info,
            client_capabilities: Nothing {},
        }
    }
}

/// Who a server says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerCard {
    /// Its name, if it says one.
    pub name: Option<String>,
    /// Its version, if it says one.
    pub version: Option<String>,
    /// The protocol revision to go on with.
    pub protocol_version: String,
}

/// The answer is not of the shape that the method asks for.
#[derive(Debug, thiserror::Error)]
#[error("the answer to {method} has another shape than the specification says")]
#[non_exhaustive]
pub struct AnswerError {
    method: &'static str,
    source: serde_json::Error,
}

impl ServerCard {
    /// Reads the result of [`initialize`].
    ///
    /// # Errors
    /// [`AnswerError`] when no revision is said.
    pub fn from_initialize(result: &RawValue) -> Result<Self, AnswerError> {
        let result: InitializeResult = answer("initialize", result)?;
        let server = result.server_info.unwrap_or_default();
        Ok(Self {
            name: server.name,
            version: server.version,
            protocol_version: result.protocol_version,
        })
    }

    /// Reads the result of [`discover`]; the newest revision counts.
    ///
    /// # Errors
    /// [`AnswerError`] when there is no list of revisions.
    pub fn from_discover(result: &RawValue) -> Result<Self, AnswerError> {
        let result: DiscoverResult = answer("server/discover", result)?;
        let server = result
            .meta
            .and_then(|meta| meta.server_info)
            .unwrap_or_default();
        let protocol_version = result
            .supported_versions
            .into_iter()
            .max()
            .unwrap_or_default();
        Ok(Self {
            name: server.name,
            version: server.version,
            protocol_version,
        })
    }

    /// The era of its revision.
    #[must_use]
    pub fn era(&self) -> Era {
        Era::of_version(Some(&self.protocol_version))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    protocol_version: String,
    #[serde(default)]
    server_info: Option<ServerInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiscoverResult {
    supported_versions: Vec<String>,
    #[serde(default, rename = "_meta")]
    meta: Option<DiscoverMeta>,
}

#[derive(Deserialize)]
struct DiscoverMeta {
    #[serde(default, rename = "io.modelcontextprotocol/serverInfo")]
    server_info: Option<ServerInfo>,
}

#[derive(Default, Deserialize)]
struct ServerInfo {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    version: Option<String>,
}

/// One page of a server's tools, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolPage {
    /// How many tools are on it.
    pub tools: usize,
    /// How to ask for the next page, if there is one.
    pub next_cursor: Option<String>,
}

impl ToolPage {
    /// Reads the result of [`list_tools`].
    ///
    /// # Errors
    /// [`AnswerError`] when there is no list of tools.
    pub fn from_result(result: &RawValue) -> Result<Self, AnswerError> {
        let result: ListToolsResult = answer("tools/list", result)?;
        Ok(Self {
            tools: result.tools.len(),
            next_cursor: result.next_cursor,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListToolsResult {
    tools: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    next_cursor: Option<String>,
}

/// What a JSON-RPC error says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ErrorObject {
    /// The code.
    #[serde(default)]
    pub code: i64,
    /// The message.
    #[serde(default)]
    pub message: String,
}

impl ErrorObject {
    /// Reads the `error` of an answer; what is missing is zero or empty.
    #[must_use]
    pub fn read(error: &RawValue) -> Self {
        serde_json::from_str(error.get()).unwrap_or_else(|_| Self {
            code: 0,
            message: String::new(),
        })
    }
}

fn answer<'a, T: Deserialize<'a>>(
    method: &'static str,
    result: &'a RawValue,
) -> Result<T, AnswerError> {
    serde_json::from_str(result.get()).map_err(|source| AnswerError { method, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    const CLIENT: ClientName<'_> = ClientName::new("check", "1");

    fn result(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn requests_are_as_the_specification_says() {
        let text = |outgoing: Outgoing| String::from_utf8(outgoing.body).unwrap();
        assert_eq!(
            text(discover(1, CLIENT)),
            r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"check","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#
        );
        assert_eq!(
            text(initialize(2, CLIENT)),
            r#"{"jsonrpc":"2.0","id":2,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"check","version":"1"}}}"#
        );
        assert_eq!(
            text(initialized()),
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#
        );
        assert_eq!(
            text(list_tools(3, Era::Legacy, CLIENT, Some("next"))),
            r#"{"jsonrpc":"2.0","id":3,"method":"tools/list","params":{"cursor":"next"}}"#
        );
        for outgoing in [
            discover(1, CLIENT),
            initialize(1, CLIENT),
            initialized(),
            list_tools(1, Era::Modern, CLIENT, None),
        ] {
            let message = Message::parse(&outgoing.body).unwrap();
            let header = |name| {
                outgoing
                    .headers
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| *value)
            };
            let modern = Era::of_version(header(PROTOCOL_VERSION_HEADER)) == Era::Modern;
            assert_eq!(header("mcp-method"), message.method().filter(|_| modern));
            let stated = message.peek().unwrap().protocol_version;
            assert_eq!(
                stated.as_deref(),
                header(PROTOCOL_VERSION_HEADER).filter(|_| modern)
            );
        }
    }

    #[test]
    fn servers_are_read_in_both_eras() {
        let legacy = ServerCard::from_initialize(result(
            r#"{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"s","version":"2"}}"#,
        ))
        .unwrap();
        assert_eq!(
            (legacy.name.as_deref(), legacy.era()),
            (Some("s"), Era::Legacy)
        );
        let modern = ServerCard::from_discover(result(
            r#"{"resultType":"complete","supportedVersions":["2025-11-25","2026-07-28"],"capabilities":{},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"3"}}}"#,
        ))
        .unwrap();
        assert_eq!(
            (modern.version.as_deref(), modern.era()),
            (Some("3"), Era::Modern)
        );
        assert!(ServerCard::from_initialize(result("{}")).is_err());
        assert!(ServerCard::from_discover(result("[]")).is_err());
    }

    #[test]
    fn tools_are_counted() {
        let page = ToolPage::from_result(result(
            r#"{"tools":[{"name":"a"},{"name":"b"}],"nextCursor":"c"}"#,
        ))
        .unwrap();
        assert_eq!((page.tools, page.next_cursor.as_deref()), (2, Some("c")));
        assert!(ToolPage::from_result(result(r#"{"prompts":[]}"#)).is_err());
        assert_eq!(
            ErrorObject::read(result(r#"{"code":-32601,"message":"no"}"#)).code,
            -32601
        );
        assert_eq!(ErrorObject::read(result("3")).code, 0);
    }
}
