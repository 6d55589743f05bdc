//! A server on a fresh SQLite file, and requests to it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt as _;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use managed_agents_api::serve::{self, ApiError, Authenticate, Permissions, Principal};
use managed_agents_server::store::{SqliteConfig, SqliteStore};
use managed_agents_server::{Config, Server};
use mcp_tunnel_auth::MasterKey;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A server with somebody at home and somebody abroad, and one environment.
pub(crate) struct World {
    pub(crate) environment: String,
    /// The environment key.
    pub(crate) key: String,
    /// Revokes the guest's key.
    pub(crate) closed: Arc<AtomicBool>,
    router: Router,
    _driver: JoinSet<()>,
    _folder: Option<tempfile::TempDir>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// An item that a worker took over.
pub(crate) struct Held {
    pub(crate) work: String,
    /// The item token.
    pub(crate) token: String,
    pub(crate) session: String,
}

pub(crate) const OPERATOR: &str = "home";
pub(crate) const FOREIGNER: &str = "abroad";
/// Somebody at home whose key may be revoked.
pub(crate) const GUEST: &str = "guest";

/// Everybody is known by name; the guest only until the door is closed.
struct Users(Arc<AtomicBool>);

#[async_trait::async_trait]
impl Authenticate for Users {
    async fn authenticate(&self, head: &Parts, _: Option<IpAddr>) -> Result<Principal, ApiError> {
        let token = serve::bearer(head).ok_or_else(|| ApiError::unauthenticated("who?"))?;
        match token.expose_secret() {
            user @ (OPERATOR | FOREIGNER) => Ok(Principal::new(
                user,
                format!("wrkspc_{user}"),
                Permissions::all(),
            )),
            GUEST if !self.0.load(Ordering::Relaxed) => Ok(Principal::new(
                GUEST,
                format!("wrkspc_{OPERATOR}"),
                Permissions::all(),
            )),
            _ => Err(ApiError::unauthenticated("who?")),
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|config| config).await
    }

    pub(crate) async fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = Self::at(&folder.path().join("sessions.db"), change).await;
        world._folder = Some(folder);
        (world.environment, world.key) = world.environment("self_hosted").await;
        world
    }

    /// A server on this file, without an environment of the test's.
    pub(crate) async fn at(file: &Path, change: impl FnOnce(Config) -> Config) -> Self {
        let file = SqliteConfig::new(file);
        let store = Arc::new(SqliteStore::open(&file).await.expect("a store"));
        let config = change(Config::new(MasterKey::from_bytes([7; 32])));
        let library = Arc::clone(&store);
        let closed = Arc::<AtomicBool>::default();
        let users = Arc::new(Users(Arc::clone(&closed)));
        let server = Server::new(store, library, config, users);
        let mut driver = JoinSet::new();
        let running = server.clone();
        driver.spawn(async move { running.run(CancellationToken::new()).await });
        Self {
            environment: String::new(),
            key: String::new(),
            closed,
            router: server.router(),
            _driver: driver,
            _folder: None,
        }
    }

    /// Another environment, and a key of it.
    pub(crate) async fn environment(&self, kind: &str) -> (String, String) {
        let body = json!({"name": "build", "config": {"type": kind}});
        let made = self.post("/v1/environments", body).await;
        let environment = text(&made.body, "id");
        let path = format!("/v1/environments/{environment}/keys");
        let made = self.post(&path, json!({"name": "worker"})).await;
        (environment, text(&made.body, "key"))
    }

    pub(crate) async fn agent(&self) -> String {
        let body = json!({"name": "tester", "model": "scripted",
            "tools": [{"type": "agent_toolset_20260401"}]});
        text(&self.post("/v1/agents", body).await.body, "id")
    }

    pub(crate) async fn session(&self) -> String {
        let body = json!({"agent": self.agent().await, "environment_id": self.environment});
        text(&self.post("/v1/sessions", body).await.body, "id")
    }

    /// A session whose agent makes these calls, one turn each.
    pub(crate) async fn calling(&self, calls: &Value) -> String {
        let session = self.session().await;
        self.send(&session, OPERATOR, message(calls)).await;
        session
    }

    /// The same, where each call must be confirmed first.
    pub(crate) async fn asking(&self, calls: &Value) -> String {
        let policy = json!({"permission_policy": {"type": "always_ask"}});
        let body = json!({"name": "tester", "model": "scripted",
            "tools": [{"type": "agent_toolset_20260401", "default_config": policy}]});
        let agent = text(&self.post("/v1/agents", body).await.body, "id");
        let body = json!({"agent": agent, "environment_id": self.environment,
            "initial_events": [message(calls)]});
        text(&self.post("/v1/sessions", body).await.body, "id")
    }

    pub(crate) async fn send(&self, session: &str, who: &str, event: Value) -> Answer {
        let path = format!("/v1/sessions/{session}/events");
        self.call("POST", &path, who, &json!({"events": [event]}))
            .await
    }

    /// All events of a session.
    pub(crate) async fn events(&self, session: &str) -> Vec<Value> {
        let answer = self
            .get(&format!("/v1/sessions/{session}/events?limit=1000"))
            .await;
        answer.body["data"].as_array().expect("a page").clone()
    }

    /// Waits until the last event of a session is `wanted`.
    pub(crate) async fn until(&self, session: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let looking = async {
            loop {
                let events = self.events(session).await;
                if let Some(last) = events.last().filter(|last| wanted(last)) {
                    return last.clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(30), looking).await;
        match found {
            Ok(found) => found,
            Err(_) => panic!(
                "the session went elsewhere: {:?}",
                self.events(session).await
            ),
        }
    }

    /// Waits for the calls that a session waits for.
    pub(crate) async fn calls(&self, session: &str) -> Vec<String> {
        let reason = |last: &Value| last["stop_reason"]["type"] == "requires_action";
        let last = self.until(session, reason).await;
        let ids = last["stop_reason"]["event_ids"]
            .as_array()
            .expect("ids")
            .iter();
        ids.map(|id| id.as_str().expect("an id").to_owned())
            .collect()
    }

    pub(crate) async fn finished(&self, session: &str) {
        self.until(session, |last| last["stop_reason"]["type"] == "end_turn")
            .await;
    }

    pub(crate) fn queue(&self, rest: &str) -> String {
        format!("/v1/environments/{}/work{rest}", self.environment)
    }

    pub(crate) async fn poll(&self) -> Option<Value> {
        let answer = self
            .call(
                "GET",
                &self.queue("/poll?block_ms=999"),
                &self.key,
                &Value::Null,
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        Some(answer.body).filter(|body| !body.is_null())
    }

    /// A poll of the worker that calls itself `name`.
    pub(crate) async fn poll_as(&self, name: &str) {
        let mut request = request("GET", &self.queue("/poll"), &self.key, &Value::Null);
        let name = name.parse().expect("a name");
        request.headers_mut().insert("anthropic-worker-id", name);
        let response = self.router.clone().oneshot(request).await;
        assert_eq!(response.expect("a router never fails").status(), 200);
    }

    /// Takes an item over, as a worker does.
    pub(crate) async fn held(&self) -> Held {
        let mut polled = None;
        for _ in 0..20 {
            polled = self.poll().await;
            if polled.is_some() {
                break;
            }
        }
        let item = polled.expect("an item waits");
        let held = Held {
            work: text(&item, "id"),
            token: token(&item),
            session: text(&item["data"], "id"),
        };
        let acked = self.work(&held, "ack", &self.key, Value::Null).await;
        assert_eq!(acked.status, 200, "{}", acked.body);
        held
    }

    /// One of the writes to an item.
    pub(crate) async fn work(&self, held: &Held, what: &str, who: &str, body: Value) -> Answer {
        let path = self.queue(&format!("/{}/{what}", held.work));
        self.call("POST", &path, who, &body).await
    }

    pub(crate) async fn stream(&self, session: &str, who: &str) -> Frames {
        let path = format!("/v1/sessions/{session}/events/stream");
        let request = request("GET", &path, who, &Value::Null);
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("a router never fails");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Frames {
            body: response.into_body().into_data_stream(),
            rest: String::new(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, OPERATOR, &Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, OPERATOR, &body).await
    }

    /// The text of an answer to the text of a request.
    pub(crate) async fn raw(&self, method: &str, path: &str, who: &str, body: String) -> String {
        let mut request = request(method, path, who, &Value::Null);
        *request.body_mut() = Body::from(body);
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("a router never fails");
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }

    pub(crate) async fn call(&self, method: &str, path: &str, who: &str, body: &Value) -> Answer {
        let request = request(method, path, who, body);
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("a router never fails");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body: serde_json::from_slice(&body)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body))),
        }
    }
}

/// Frames of an event stream.
pub(crate) struct Frames {
    body: BodyDataStream,
    rest: String,
}

impl Frames {
    /// The next one: its name and its data; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((frame, rest)) = self.rest.split_once("\n\n") {
                let name = frame.lines().find_map(|line| line.strip_prefix("event: "));
                let data: String = frame
                    .lines()
                    .filter_map(|line| line.strip_prefix("data: "))
                    .collect();
                let found = (name.expect("a name").to_owned(), data);
                self.rest = rest.to_owned();
                return Some((found.0, serde_json::from_str(&found.1).expect("JSON")));
            }
            let next = tokio::time::timeout(Duration::from_secs(60), self.body.next()).await;
            let chunk = next.expect("a frame or a ping")?.expect("a chunk");
            self.rest
                .push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }
}

/// A message that makes the scripted agent do `calls`.
pub(crate) fn message(calls: &Value) -> Value {
    let text = format!("```json\n{calls}\n```");
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}

pub(crate) fn bash(command: &str) -> Value {
    json!({"name": "bash", "input": {"command": command}})
}

pub(crate) fn result(call: &str, text: &str) -> Value {
    json!({"type": "user.tool_result", "tool_use_id": call, "is_error": false,
        "content": [{"type": "text", "text": text}]})
}

pub(crate) fn token(item: &Value) -> String {
    let secret = text(item, "secret").into();
    let secret = managed_agents_api::WorkSecret::decode(&secret).expect("a secret");
    secret.sessions_token.expose_secret().to_owned()
}

pub(crate) fn request(method: &str, path: &str, who: &str, body: &Value) -> Request<Body> {
    let body = match body {
        Value::Null => Body::empty(),
        body => Body::from(body.to_string()),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {who}"))
        .body(body)
        .expect("a request")
}

#[track_caller]
pub(crate) fn text(body: &Value, member: &str) -> String {
    body[member]
        .as_str()
        .unwrap_or_else(|| panic!("{member} in {body}"))
        .to_owned()
}

pub(crate) fn kinds(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["type"].as_str().expect("a type"))
        .collect()
}
