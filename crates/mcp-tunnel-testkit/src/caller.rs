//! A caller below any SDK: one modern JSON-RPC request at a time, every byte of the answer visible.

use crate::{rmcp_client::http_client, stack::Stack};
use anyhow::{Context, Result};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// How long an answer may take unless a test says otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// Calls one MCP endpoint.
#[derive(Clone, Debug)]
pub struct Caller {
    client: reqwest::Client,
    url: String,
    headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// Status of the answer.
    pub status: StatusCode,
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// Body of the answer.
    pub body: String,
}

impl Caller {
    /// Plain HTTP without a credential.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn plain(url: impl Into<String>) -> Result<Self> {
        let url = url.into();
        Ok(Self {
            client: http_client(None, None, &url)?,
            url,
            headers: Vec::new(),
        })
    }

    /// HTTPS under an authority of its own, without a credential.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn trusting(ca: &Path, url: impl Into<String>) -> Result<Self> {
        let url = url.into();
        Ok(Self {
            client: http_client(Some(ca), None, &url)?,
            url,
            headers: Vec::new(),
        })
    }

    /// The stack's first development ingress.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn dev(stack: &Stack) -> Result<Self> {
        Self::plain(stack.cloud.dev_url(0))
    }

    /// HTTPS, path form, with the stack's caller key.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn https(stack: &Stack, route: &str) -> Result<Self> {
        let url = stack.cloud.path_url(&stack.tunnel, route);
        Ok(Self {
            client: http_client(Some(&stack.cloud.ca()), None, &url)?,
            url,
            headers: vec![stack.caller_header()],
        })
    }

    /// HTTPS, host form, with the stack's caller key.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn host_form(stack: &Stack, route: &str) -> Result<Self> {
        let url = stack.cloud.host_url(&stack.tunnel, route, "/mcp");
        Ok(Self {
            client: http_client(Some(&stack.cloud.ca()), Some(&stack.tunnel.domain), &url)?,
            url,
            headers: vec![stack.caller_header()],
        })
    }

    /// The same caller with other headers of its own.
    #[must_use]
    pub fn with_headers(mut self, headers: &[(&str, &str)]) -> Self {
        self.headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self
    }

    /// The endpoint.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a `tools/call` and returns as soon as the head of the answer is there.
    ///
    /// # Errors
    /// No head arrives.
    pub async fn begin(
        &self,
        id: &Value,
        tool: &str,
        arguments: Value,
    ) -> Result<reqwest::Response> {
        let params = json!({ "name": tool, "arguments": arguments });
        let request = self.request(id, "tools/call", params);
        let request = request.header("mcp-name", tool).timeout(DEADLINE);
        request.send().await.context("calling a tool")
    }

    /// Opens a `subscriptions/listen` stream for changes of tools and prompts, without a deadline.
    ///
    /// # Errors
    /// No head arrives.
    pub async fn listen(&self, id: &Value) -> Result<reqwest::Response> {
        let wanted = json!({ "toolsListChanged": true, "promptsListChanged": true });
        let params = json!({ "notifications": wanted });
        let request = self.request(id, "subscriptions/listen", params);
        request.send().await.context("listening")
    }

    fn request(&self, id: &Value, method: &str, mut params: Value) -> reqwest::RequestBuilder {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "progressToken": "p"
        });
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let request = self
            .client
            .post(&self.url)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method)
            .json(&body);
        self.with_own_headers(request)
    }

    fn with_own_headers(&self, mut request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
    }

    /// Posts JSON of so many bytes, as it comes, to `path` at the endpoint's place.
    ///
    /// # Errors
    /// No head of an answer arrives.
    pub async fn post(
        &self,
        path: &str,
        length: usize,
        body: reqwest::Body,
    ) -> Result<reqwest::Response> {
        let request = self
            .client
            .post(self.at(path))
            .header("content-type", "application/json")
            .header("content-length", length)
            .body(body);
        let request = self.with_own_headers(request);
        request.send().await.context("posting")
    }

    fn at(&self, path: &str) -> String {
        let url = self.url.strip_suffix("/mcp").unwrap_or(&self.url);
        format!("{url}{path}")
    }

    /// Calls a tool and reads the whole answer.
    ///
    /// # Errors
    /// The answer does not arrive whole.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Answer> {
        let id = json!("call-7");
        let answer = self.begin(&id, tool, arguments).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok(Answer {
            status,
            headers,
            body: answer.text().await.context("reading the answer")?,
        })
    }

    /// Calls `echo` and checks what comes back.
    ///
    /// # Errors
    /// Anything but the text comes back.
    pub async fn echo(&self) -> Result<()> {
        let answer = self.call("echo", json!({ "text": "hello" })).await?;
        let message = answer.message()?;
        let text = &message["result"]["content"][0]["text"];
        anyhow::ensure!(text == "hello", "{} {}", answer.status, answer.body);
        Ok(())
    }

    /// Sends a GET for `path` at the endpoint's place and returns with the head.
    ///
    /// # Errors
    /// No head arrives.
    pub async fn get(&self, path: &str) -> Result<reqwest::Response> {
        let request = self.with_own_headers(self.client.get(self.at(path)));
        request.send().await.context("getting")
    }
}

impl Answer {
    /// The last JSON-RPC message of the answer, from JSON or from an event stream.
    ///
    /// # Errors
    /// There is none.
    pub fn message(&self) -> Result<Value> {
        let events = self
            .body
            .lines()
            .rev()
            .filter_map(|line| line.strip_prefix("data:"));
        let message = events.map(str::trim).find(|data| !data.is_empty());
        let message = message.unwrap_or(&self.body);
        serde_json::from_str(message).with_context(|| format!("{} {}", self.status, self.body))
    }

    /// Checks that this is a failure of the tunnel's own making: status, `Retry-After`, the echoed
    /// id, the kind of failure, the hop and the cure.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn assert_own_failure(&self, status: u16, kind: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert!(
            self.headers.contains_key("retry-after"),
            "{:?}",
            self.headers
        );
        assert!(
            !self.headers.contains_key("www-authenticate"),
            "{:?}",
            self.headers
        );
        let message: Value = serde_json::from_str(&self.body).expect("a JSON body");
        assert_eq!(message["id"], "call-7", "{}", self.body);
        let code = message["error"]["code"].as_i64().expect("a code");
        assert!(
            !(-32768..=-32000).contains(&code),
            "{code} is a code of JSON-RPC"
        );
        let told = &message["error"]["data"];
        assert_eq!(told["kind"], kind, "{}", self.body);
        let says = |field: &str| told[field].as_str().is_some_and(|text| !text.is_empty());
        assert!(says("hop") && says("cure"), "{}", self.body);
        assert!(message["error"]["message"].is_string(), "{}", self.body);
    }
}
