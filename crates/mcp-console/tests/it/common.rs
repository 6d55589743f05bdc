//! A console on a fresh SQLite file, and requests to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use managed_agents_api::serve::Permissions;
use mcp_console::store::{AuditRecord, Listing, SqliteConfig, SqliteStore};
use mcp_console::{ApiKeys, Config, Console};
use mcp_tunnel_auth::{ApiKey, DomainName, HostName, MasterKey, WorkspaceId};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tower::ServiceExt as _;

pub(crate) const HOME: &str = "wrkspc_home";
pub(crate) const ABROAD: &str = "wrkspc_abroad";

/// A console with one key that may do everything at home, and one abroad.
pub(crate) struct World {
    pub(crate) console: Console,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) home: String,
    pub(crate) abroad: String,
    pub(crate) file: PathBuf,
    router: Router,
    keys: ApiKeys,
    drawn: u8,
    _folder: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

pub(crate) fn config() -> Config {
    Config::new(
        MasterKey::from_bytes([7; 32]),
        DomainName::parse("tunnel.example").expect("a domain"),
        (HostName::parse("edge.example").expect("a host"), 7844),
    )
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(config(), |config| config).await
    }

    pub(crate) async fn with(
        config: Config,
        sqlite: impl FnOnce(SqliteConfig) -> SqliteConfig,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("console.db");
        let sqlite = sqlite(SqliteConfig::new(&file));
        let store = Arc::new(SqliteStore::open(&sqlite).await.expect("a store"));
        let console = Console::new(Arc::clone(&store) as _, config)
            .await
            .expect("a console");
        let mut world = Self {
            router: console.router(),
            console,
            keys: ApiKeys::new(Arc::clone(&store) as _),
            store,
            home: String::new(),
            abroad: String::new(),
            file,
            drawn: 0,
            _folder: folder,
        };
        world.home = world.key(HOME, Permissions::all()).await;
        world.abroad = world.key(ABROAD, Permissions::all()).await;
        world
    }

    /// Another console on the same store, as after a new start.
    pub(crate) async fn again(&self, config: Config) -> Self {
        self.on(Arc::clone(&self.store), config).await
    }

    /// Another console on a copy of the file.
    pub(crate) async fn restored(&self, backup: &Path) -> Self {
        let store = SqliteStore::open(&SqliteConfig::new(backup)).await;
        self.on(Arc::new(store.expect("a store")), config()).await
    }

    async fn on(&self, store: Arc<SqliteStore>, config: Config) -> Self {
        let console = Console::new(Arc::clone(&store) as _, config)
            .await
            .expect("a console");
        Self {
            router: console.router(),
            console,
            keys: ApiKeys::new(Arc::clone(&store) as _),
            store,
            home: self.home.clone(),
            abroad: self.abroad.clone(),
            file: self.file.clone(),
            drawn: self.drawn,
            _folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// A new API key.
    pub(crate) async fn key(&mut self, workspace: &str, permissions: Permissions) -> String {
        self.drawn += 1;
        let key = ApiKey::from_entropy([self.drawn; 32]);
        let workspace = WorkspaceId::parse(workspace).expect("a workspace");
        self.keys
            .adopt(&key, &workspace, "test", permissions)
            .await
            .expect("a key");
        key.encode().expose_secret().to_owned()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
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

    pub(crate) async fn call(&self, method: &str, path: &str, key: &str, body: &Value) -> Answer {
        self.send(request(method, path, &[("x-api-key", key)], body))
            .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &self.home, &Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, &self.home, &body).await
    }

    /// The id of a new tunnel.
    pub(crate) async fn tunnel(&self, name: &str) -> String {
        let made = self
            .post("/v1/tunnels", serde_json::json!({"display_name": name}))
            .await;
        assert_eq!(made.status, 200, "{}", made.body);
        text(&made.body, "id")
    }

    /// The audit of the home workspace, newest first.
    pub(crate) async fn audit(&self) -> Vec<AuditRecord> {
        let home = WorkspaceId::parse(HOME).expect("a workspace");
        self.console
            .audit(&home, &Listing::newest(1000))
            .await
            .expect("the audit")
            .rows
    }
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Request<Body> {
    let peer: SocketAddr = ([192, 0, 2, 1], 4711).into();
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .extension(ConnectInfo(peer));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = match body {
        Value::Null => Body::empty(),
        body => Body::from(body.to_string()),
    };
    request.body(body).expect("a request")
}

#[track_caller]
pub(crate) fn text(body: &Value, member: &str) -> String {
    body[member]
        .as_str()
        .unwrap_or_else(|| panic!("{member} in {body}"))
        .to_owned()
}

pub(crate) fn certificate() -> String {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
    let mut params = CertificateParams::new(vec![]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate").pem()
}

/// Every secret that a full round of the API shows.
pub(crate) async fn secrets(world: &World) -> Vec<String> {
    let tunnel = world.tunnel("a").await;
    let path = |action: &str| format!("/v1/tunnels/{tunnel}/{action}");
    let first = world.post(&path("reveal_token"), Value::Null).await;
    let second = world.post(&path("rotate_token"), Value::Null).await;
    let caller = world
        .post("/v1/caller_keys", serde_json::json!({"name": "x"}))
        .await;
    vec![
        text(&first.body, "tunnel_token"),
        text(&second.body, "tunnel_token"),
        text(&caller.body, "key"),
        world.home.clone(),
        world.abroad.clone(),
    ]
}
