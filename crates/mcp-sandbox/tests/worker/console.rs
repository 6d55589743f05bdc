//! Our own console, the real one: a session from the message to the closing answer, workers and console killed in between.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use managed_agents_api::serve::{self, ApiError, Authenticate, Permissions, Principal};
use managed_agents_client::{Client, ClientConfig, api};
use managed_agents_server::store::{SqliteConfig, SqliteStore};
use managed_agents_server::{Config, Server};
use mcp_tunnel_auth::MasterKey;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::program::{Program, bare, possible, workdir};

/// A console on its own address and file; it can be killed and started again.
pub(crate) struct Console {
    listener: TcpListener,
    file: PathBuf,
    _folder: tempfile::TempDir,
    running: JoinSet<()>,
    client: Client,
    environment: String,
    key: String,
    key_id: String,
}

struct Anybody;

#[async_trait::async_trait]
impl Authenticate for Anybody {
    async fn authenticate(&self, head: &Parts, _: Option<IpAddr>) -> Result<Principal, ApiError> {
        let token = serve::bearer(head).ok_or_else(|| ApiError::unauthenticated("who?"))?;
        Ok(Principal::new(
            token.expose_secret(),
            "wrkspc_home".to_owned(),
            Permissions::all(),
        ))
    }
}

impl Console {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut console = Self {
            file: folder.path().join("sessions.db"),
            listener,
            _folder: folder,
            running: JoinSet::new(),
            client: Client::new(ClientConfig::new(url, "operator".into())).unwrap(),
            environment: String::new(),
            key: String::new(),
            key_id: String::new(),
        };
        console.run().await;
        let made = json!({"name": "build", "config": {"type": "self_hosted"}});
        let made = serde_json::from_value(made).unwrap();
        console.environment = console
            .client
            .environments()
            .create(&made)
            .await
            .unwrap()
            .id;
        let keys = console.client.environment_keys(&console.environment);
        let key = keys.create("worker").await.unwrap();
        console.key_id = key.environment_key.id.clone();
        console.key = key.key.expose_secret().to_owned();
        console
    }

    /// Serves what is in the file.
    async fn run(&mut self) {
        let store = SqliteStore::open(&SqliteConfig::new(&self.file))
            .await
            .unwrap();
        let store = Arc::new(store);
        let config = Config::new(MasterKey::from_bytes([7; 32]))
            .with_lease(jiff::SignedDuration::from_secs(5));
        let library = Arc::<SqliteStore>::clone(&store);
        let server = Server::new(store, library, config, Arc::new(Anybody));
        let listener =
            tokio::net::TcpListener::from_std(self.listener.try_clone().unwrap()).unwrap();
        let router = server.router();
        self.running
            .spawn(async move { axum::serve(listener, router).await.unwrap() });
        self.running
            .spawn(async move { server.run(CancellationToken::new()).await });
    }

    /// Ends it in the middle of whatever it does, and starts another over the same file.
    async fn crash(&mut self) {
        self.running.shutdown().await;
        self.run().await;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    fn worker(&self, workdir: &Path, options: &[&str]) -> Program {
        let mut command: Command = bare();
        command.arg("worker").args(options);
        command.env("ANTHROPIC_ENVIRONMENT_ID", &self.environment);
        command.env("ANTHROPIC_ENVIRONMENT_KEY", &self.key);
        command.env(
            "ANTHROPIC_BASE_URL",
            format!("http://{}", self.listener.local_addr().unwrap()),
        );
        Program::spawn(command, workdir)
    }

    /// A session whose agent makes these calls, one turn each.
    async fn session(&self, calls: &Value) -> String {
        self.session_of(json!({"type": "agent_toolset_20260401"}), calls)
            .await
    }

    /// The same with another toolset.
    async fn session_of(&self, tools: Value, calls: &Value) -> String {
        let agent = json!({"name": "tester", "model": "scripted", "tools": [tools]});
        let agent = self
            .client
            .agents()
            .create(&serde_json::from_value(agent).unwrap())
            .await
            .unwrap();
        let session = api::CreateSession::new(agent.id, &self.environment);
        let session = self.client.sessions().create(&session).await.unwrap().id;
        self.say(&session, calls).await;
        session
    }

    async fn say(&self, session: &str, calls: &Value) {
        let text = format!("```json\n{calls}\n```");
        let message = json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
        self.send(session, &message).await;
    }

    async fn send(&self, session: &str, event: &Value) {
        let events = api::SendEvents {
            events: vec![api::RawJson::of(event).unwrap()],
        };
        self.client.events(session).send_raw(&events).await.unwrap();
    }

    async fn events(&self, session: &str) -> Vec<Value> {
        let filter = api::EventFilter {
            limit: Some(1000),
            ..api::EventFilter::default()
        };
        let page = self.client.events(session).page(&filter).await.unwrap();
        page.data
            .iter()
            .map(|event| event.raw().parse().unwrap())
            .collect()
    }

    /// Waits for a call that nobody has decided about; its id.
    async fn asked(&self, session: &str) -> String {
        let waited = tokio::time::timeout(Duration::from_secs(90), async {
            loop {
                let events = self.events(session).await;
                let decided = |id: &Value| events.iter().any(|event| event["tool_use_id"] == *id);
                let last = events
                    .last()
                    .map_or(&Value::Null, |event| &event["stop_reason"]);
                if let Some(id) = last["event_ids"].get(0).filter(|id| !decided(id)) {
                    return id.as_str().unwrap().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.expect("it asks")
    }

    /// Waits until the turn has ended so often.
    async fn ended(&self, session: &str, turns: usize) -> Vec<Value> {
        let over = |event: &&Value| event["stop_reason"]["type"] == "end_turn";
        let waited = tokio::time::timeout(Duration::from_secs(90), async {
            loop {
                let events = self.events(session).await;
                if events.iter().filter(over).count() >= turns {
                    return events;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        match waited.await {
            Ok(events) => events,
            Err(_) => panic!("{session} does not end: {:#?}", self.events(session).await),
        }
    }
}

fn bash(command: &str) -> Value {
    json!({"name": "bash", "input": {"command": command}})
}

/// Text and whether it is an error, of each result in the order of the calls; exactly one each.
fn results(events: &[Value]) -> Vec<(String, bool)> {
    let calls = events
        .iter()
        .filter(|event| event["type"] == "agent.tool_use");
    let results = calls.map(|call| {
        let answers = |event: &&Value| {
            event["type"] == "user.tool_result" && event["tool_use_id"] == call["id"]
        };
        let answers = events.iter().filter(answers).collect::<Vec<_>>();
        assert_eq!(answers.len(), 1, "{call}: {answers:#?}");
        crate::platform::text_of(answers[0])
    });
    results.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_on_our_console_is_served_and_goes_on_after_the_idle_stop() {
    if !possible("a_session_on_our_console_is_served_and_goes_on_after_the_idle_stop").await {
        return;
    }
    let (console, workdir) = (Console::start().await, workdir());
    let worker = console.worker(
        workdir.path(),
        &["--max-idle", "100ms", "--sandbox-idle", "0s"],
    );
    let calls = json!([
        bash("echo one > file; pwd"),
        {"name": "read", "input": {"file_path": "file"}},
        [bash("echo a"), bash("exit 7")],
        {"name": "write", "input": {"file_path": "x/y", "content": "z"}},
        {"name": "glob", "input": {"pattern": "**/y"}},
        {"name": "grep", "input": {"pattern": "on."}},
        {"name": "edit", "input": {"file_path": "file", "old_string": "one", "new_string": "two"}}
    ]);
    let session = console.session(&calls).await;
    let first = results(&console.ended(&session, 1).await);
    let texts = first
        .iter()
        .map(|(text, _)| text.trim_end())
        .collect::<Vec<_>>();
    assert_eq!(&texts[..3], ["/workspace", "one", "a"]);
    assert_eq!(
        first.iter().filter(|(_, is_error)| *is_error).count(),
        1,
        "{first:?}"
    );
    // The item has ended by itself, the sandbox with it.
    tokio::time::sleep(Duration::from_millis(600)).await;
    console.say(&session, &json!([bash("cat file x/y")])).await;
    let all = results(&console.ended(&session, 2).await);
    assert_eq!(all.last().unwrap().0, "two\nz");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_waits_for_a_confirmation_leaves_its_slot_to_others() {
    if !possible("a_session_that_waits_for_a_confirmation_leaves_its_slot_to_others").await {
        return;
    }
    let (console, workdir) = (Console::start().await, workdir());
    let options = ["--max-sessions", "1", "--max-idle", "100ms"];
    let worker = console.worker(workdir.path(), &options);
    let policy = json!({"permission_policy": {"type": "always_ask"}});
    let asking = json!({"type": "agent_toolset_20260401", "default_config": policy});
    let calls = json!([bash("echo one > file"), bash("cat file")]);
    let waiting = console.session_of(asking, &calls).await;
    let free = console.session(&json!([bash("echo free")])).await;
    console.ended(&free, 1).await;
    for _ in 0..2 {
        let call = console.asked(&waiting).await;
        let allow =
            json!({"type": "user.tool_confirmation", "tool_use_id": call, "result": "allow"});
        console.send(&waiting, &allow).await;
    }
    let done = results(&console.ended(&waiting, 1).await);
    assert_eq!(done[1], ("one".to_owned(), false), "{done:?}");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_console_killed_at_random_lose_and_double_nothing() {
    if !possible("workers_and_console_killed_at_random_lose_and_double_nothing").await {
        return;
    }
    let number = |name: &str, usual| {
        std::env::var(name)
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(usual)
    };
    // More by hand: each round costs a lease of 5 s.
    let (rounds, sessions) = (number("WORKER_ROUNDS", 2_u64), number("WORKER_SESSIONS", 4));
    let (mut console, first, second) = (Console::start().await, workdir(), workdir());
    let mut ids = Vec::new();
    let effects = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        // A folder of root's may be mounted for reading only.
        std::os::unix::fs::chown(effects.path(), Some(1000), Some(1000)).unwrap();
    }
    let mount = format!("{}:/effects", effects.path().display());
    for session in 0..sessions {
        let calls = (0..8).map(|call| {
            // Each effect is a new file; a second time would show.
            bash(&format!("f=/effects/{session}-{call}; ls $f 2>/dev/null && touch $f-twice; touch $f; sleep 0.1; echo done"))
        });
        ids.push(console.session(&Value::from_iter(calls)).await);
    }
    let options = ["--mount", &mount];
    let mut workers = [
        console.worker(first.path(), &options),
        console.worker(second.path(), &options),
    ];
    for round in 0..rounds {
        // Another instant each time, and never the same by design of the machine.
        tokio::time::sleep(Duration::from_millis(400 + round * 173 % 700)).await;
        if round % 2 == 1 {
            console.crash().await;
        }
        let [one, two] = workers;
        one.kill().await;
        two.kill().await;
        workers = [
            console.worker(first.path(), &options),
            console.worker(second.path(), &options),
        ];
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let mut outcomes = BTreeMap::new();
    for (session, id) in ids.iter().enumerate() {
        for (call, (text, is_error)) in results(&console.ended(id, 1).await).into_iter().enumerate()
        {
            let ran = effects.path().join(format!("{session}-{call}")).exists();
            let twice = effects
                .path()
                .join(format!("{session}-{call}-twice"))
                .exists();
            assert!(!twice, "{session}-{call} ran twice");
            assert!(
                is_error || ran,
                "{session}-{call} did not run, and says {text}"
            );
            assert!(
                !is_error || text.contains("interrupted, may have run"),
                "{text}"
            );
            *outcomes.entry(is_error).or_insert(0) += 1;
        }
    }
    eprintln!("calls by whether they were interrupted: {outcomes:?}");
    for worker in workers {
        worker.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_ends_the_worker_and_the_call_that_runs() {
    if !possible("a_revoked_key_ends_the_worker_and_the_call_that_runs").await {
        return;
    }
    let (console, workdir) = (Console::start().await, workdir());
    let worker = console.worker(workdir.path(), &[]);
    let session = console.session(&json!([bash("echo up")])).await;
    console.ended(&session, 1).await;
    let keys = console.client.environment_keys(&console.environment);
    keys.revoke(&console.key_id).await.unwrap();
    let (code, log) = worker.end().await;
    assert_eq!(code, Some(3), "{log}");
}
