//! A server on a fresh SQLite file, with one of everything, and requests to it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use managed_agents_api::serve::{self, ApiError, Authenticate, Permissions, Principal};
use managed_agents_server::store::{SqliteConfig, SqliteStore};
use managed_agents_server::{Config, Server};
use mcp_tunnel_auth::MasterKey;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// How far the work item of the session is.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Stage {
    Polled,
    Acknowledged,
}

/// Somebody's token is a workspace and permissions: `home/agents:read sessions:read`.
struct Users;

#[async_trait::async_trait]
impl Authenticate for Users {
    async fn authenticate(&self, head: &Parts, _: Option<IpAddr>) -> Result<Principal, ApiError> {
        let stranger = || ApiError::unauthenticated("log in first");
        let token = serve::bearer(head).ok_or_else(stranger)?;
        let (workspace, permissions) =
            token.expose_secret().split_once('/').ok_or_else(stranger)?;
        let permissions = permissions.parse().unwrap_or_default();
        Ok(Principal::new(
            format!("user:{workspace}"),
            workspace,
            permissions,
        ))
    }
}

pub(crate) fn user(workspace: &str, permissions: Permissions) -> String {
    format!("{workspace}/{permissions}")
}

/// A server with one of everything at home.
pub(crate) struct World {
    router: Router,
    ids: Vec<(&'static str, String)>,
    pub(crate) key: String,
    /// The token of the item, once it was polled.
    pub(crate) token: String,
    _folder: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl World {
    pub(crate) async fn new(stage: Stage) -> Self {
        Self::with(stage, |config| config).await
    }

    pub(crate) async fn with(stage: Stage, change: impl FnOnce(Config) -> Config) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = SqliteConfig::new(folder.path().join("sessions.db"));
        let store = Arc::new(SqliteStore::open(&file).await.expect("a store"));
        let config = change(Config::new(MasterKey::from_bytes([7; 32])));
        let server = Server::new(
            Arc::clone(&store) as _,
            Arc::clone(&store) as _,
            config,
            Arc::new(Users),
        );
        let mut world = Self {
            router: server.router(),
            ids: Vec::new(),
            key: String::new(),
            token: String::new(),
            _folder: folder,
        };
        world.fill().await;
        world.advance(stage).await;
        world
    }

    async fn fill(&mut self) {
        let environment = json!({ "name": "e", "config": { "type": "self_hosted" } });
        for place in ["{environment}", "{spare}"] {
            let made = self.post("/v1/environments", &environment).await;
            self.note(place, &made);
        }
        let made = self
            .post("/v1/environments/{environment}/keys", &named(self))
            .await;
        self.note("{key}", &made);
        made["key"]
            .as_str()
            .expect("a key")
            .clone_into(&mut self.key);
        let made = self.post("/v1/agents", &agent(self)).await;
        self.note("{agent}", &made);
        for (place, path) in [
            ("{skill}", "/v1/skills"),
            ("{version}", "/v1/skills/{skill}/versions"),
        ] {
            let request = skill("POST", &self.path(path), &self.admin());
            let made = self.send(request).await.body;
            self.note(place, &made);
        }
        let made = self.post("/v1/sessions", &session(self)).await;
        self.note("{session}", &made);
        let threads = self.get("/v1/sessions/{session}/threads").await;
        self.note("{thread}", &threads["data"][0]);
    }

    /// Brings the session's work item to `stage`.
    async fn advance(&mut self, stage: Stage) {
        let path = self.path("/v1/environments/{environment}/work/poll");
        let polled = self.call("GET", &path, &self.key, &Value::Null).await.body;
        self.note("{work}", &polled);
        let secret = polled["secret"].as_str().expect("a secret");
        let secret = URL_SAFE_NO_PAD
            .decode(secret.trim_end_matches('='))
            .expect("base64");
        let secret: Value = serde_json::from_slice(&secret).expect("JSON");
        let token = secret["sessions_token"].as_str().expect("a token");
        token.clone_into(&mut self.token);
        if stage == Stage::Acknowledged {
            let path = self.path("/v1/environments/{environment}/work/{work}/ack");
            let answer = self.call("POST", &path, &self.key, &Value::Null).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }

    fn note(&mut self, place: &'static str, made: &Value) {
        let id = made["id"].as_str();
        let id = id.unwrap_or_else(|| panic!("{place}: {made}"));
        self.ids.push((place, id.to_owned()));
    }

    pub(crate) fn id(&self, place: &str) -> &str {
        let found = self.ids.iter().find(|(name, _)| *name == place);
        &found.unwrap_or_else(|| panic!("{place}")).1
    }

    pub(crate) fn path(&self, path: &str) -> String {
        self.ids
            .iter()
            .fold(path.to_owned(), |path, (name, id)| path.replace(name, id))
    }

    pub(crate) fn admin(&self) -> String {
        user("home", Permissions::all())
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let answered = self.router.clone().oneshot(request).await;
        let (head, body) = answered.expect("a router never fails").into_parts();
        let kind = head.headers.get("content-type");
        let body = match kind.and_then(|kind| kind.to_str().ok()) {
            Some("application/json") => {
                let body = body.collect().await.expect("a body").to_bytes();
                serde_json::from_slice(&body).expect("JSON")
            }
            // A stream does not end.
            _ => Value::Null,
        };
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        credential: &str,
        body: &Value,
    ) -> Answer {
        self.send(request(method, path, &[("x-api-key", credential)], body))
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self
            .call("POST", &self.path(path), &self.admin(), body)
            .await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let path = self.path(path);
        let answer = self.call("GET", &path, &self.admin(), &Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = match body {
        Value::Null => Body::empty(),
        body => Body::from(body.to_string()),
    };
    request.body(body).expect("a request")
}

pub(crate) fn skill(method: &str, path: &str, credential: &str) -> Request<Body> {
    let form = "--x\r\ncontent-disposition: form-data; name=\"files[]\"; \
                filename=\"a/SKILL.md\"\r\n\r\n---\nname: a\ndescription: b\n---\n\r\n--x--\r\n";
    Request::builder()
        .method(method)
        .uri(path)
        .header("x-api-key", credential)
        .header("content-type", "multipart/form-data; boundary=x")
        .body(Body::from(form))
        .expect("a request")
}

pub(crate) fn named(_: &World) -> Value {
    json!({ "name": "another" })
}

pub(crate) fn agent(_: &World) -> Value {
    json!({ "name": "another", "model": "scripted" })
}

pub(crate) fn session(world: &World) -> Value {
    json!({ "agent": world.id("{agent}"), "environment_id": world.id("{environment}") })
}
