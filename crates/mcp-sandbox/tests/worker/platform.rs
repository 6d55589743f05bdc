//! A stand-in of the vendor's platform, which answers as its specification says that the platform does, faults included.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(crate) const KEY: &str = "sk-ant-oat01-environment-canary";
pub(crate) const ENVIRONMENT: &str = "env_01";

/// The stand-in; its server ends with it.
pub(crate) struct Platform {
    shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    _server: JoinSet<()>,
}

struct Shared {
    address: SocketAddr,
    state: Mutex<Inside>,
}

/// What it knows, and how it misbehaves.
#[derive(Default)]
pub(crate) struct Inside {
    queue: VecDeque<String>,
    items: BTreeMap<String, Item>,
    sessions: BTreeMap<String, Session>,
    next: u64,
    /// Answers to give instead of the true ones.
    faults: Vec<Fault>,
    /// Method and path of every request, with the last letters of the credential.
    pub(crate) requests: Vec<String>,
    /// Items come without a secret.
    pub(crate) no_secret: bool,
    /// Another value of `api_base_url` in secrets.
    pub(crate) api_base_url: Option<String>,
    /// Empty polls answer 204, and so does stop.
    pub(crate) no_content: bool,
    /// `ttl_seconds` of heartbeats.
    pub(crate) ttl: u64,
    /// Our own console: no pause between polls, and `begun`.
    pub(crate) immediate: bool,
    /// Calls that were begun, with the claim under which.
    pub(crate) begun: BTreeMap<String, u64>,
    /// Bytes of streams come one by one.
    pub(crate) slow_streams: bool,
    /// Skill archives by skill id.
    pub(crate) skills: BTreeMap<String, Vec<u8>>,
}

struct Item {
    session: String,
    data: Value,
    state: &'static str,
    beat: Option<String>,
    claim: u64,
}

#[derive(Default)]
struct Session {
    events: Vec<Value>,
    streams: Vec<mpsc::Sender<String>>,
    status: &'static str,
    resources: Value,
    skills: Value,
}

struct Fault {
    method: Method,
    end: String,
    status: u16,
    body: Value,
    times: usize,
    /// The request is carried out; only its answer is lost.
    is_late: bool,
}

impl Platform {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Inside {
            ttl: 30,
            ..Inside::default()
        };
        let shared = Arc::new(Shared {
            address,
            state: Mutex::new(inside),
        });
        let router = Router::new()
            .fallback(answer)
            .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
            .with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            shared,
            address,
            _server: server,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it knows; not to be held across an await.
    pub(crate) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.shared.state.lock().unwrap()
    }

    /// Waits until `look` finds something.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&mut Inside) -> Option<T>,
    ) -> T {
        let found = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                if let Some(found) = look(&mut self.inside()) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not happen: {:#?}", self.inside().requests),
        }
    }

    /// The result of a call, once it is there.
    pub(crate) async fn result(&self, session: &str, call: &str) -> Value {
        self.until("the result", |inside| inside.result(session, call))
            .await
    }

    /// Text and whether it is an error, of the result of a new call.
    pub(crate) async fn call(&self, session: &str, name: &str, input: Value) -> (String, bool) {
        let call = self.inside().tool_use(session, name, input);
        text_of(&self.result(session, &call).await)
    }
}

/// Text and whether it is an error.
pub(crate) fn text_of(result: &Value) -> (String, bool) {
    let blocks = result["content"].as_array().unwrap();
    let texts = blocks.iter().filter_map(|block| block["text"].as_str());
    (
        texts.collect::<Vec<_>>().join("\n"),
        result["is_error"] == true,
    )
}

impl Inside {
    /// A session and its first item.
    pub(crate) fn session(&mut self, id: &str) {
        let session = Session {
            status: "idle",
            resources: json!([]),
            skills: json!([]),
            ..Session::default()
        };
        self.sessions.insert(id.to_owned(), session);
        self.enqueue(id);
    }

    pub(crate) fn with_resources(&mut self, session: &str, resources: Value) {
        self.sessions.get_mut(session).unwrap().resources = resources;
    }

    pub(crate) fn with_skills(&mut self, session: &str, skills: Value) {
        self.sessions.get_mut(session).unwrap().skills = skills;
    }

    /// Another item for a session.
    pub(crate) fn enqueue(&mut self, session: &str) -> String {
        self.enqueue_data(session, json!({"type": "session", "id": session}))
    }

    pub(crate) fn enqueue_data(&mut self, session: &str, data: Value) -> String {
        let id = self.id("work");
        let item = Item {
            session: session.to_owned(),
            data,
            state: "queued",
            beat: None,
            claim: 0,
        };
        self.items.insert(id.clone(), item);
        self.queue.push_back(id.clone());
        id
    }

    /// Deletes a session.
    pub(crate) fn forget(&mut self, session: &str) {
        self.sessions.remove(session);
    }

    /// Gives an item to the queue again, as after an expired lease.
    pub(crate) fn requeue(&mut self, work: &str) {
        let item = self.items.get_mut(work).unwrap();
        item.state = "queued";
        item.beat = None;
        self.queue.push_back(work.to_owned());
    }

    pub(crate) fn item_state(&self, work: &str) -> &'static str {
        self.items[work].state
    }

    pub(crate) fn set_item_state(&mut self, work: &str, state: &'static str) {
        self.items.get_mut(work).unwrap().state = state;
    }

    /// The newest item of a session.
    pub(crate) fn item_of(&self, session: &str) -> String {
        let mut items = self
            .items
            .iter()
            .filter(|(_, item)| item.session == session);
        items.next_back().unwrap().0.clone()
    }

    /// Whether every item of a session is over.
    pub(crate) fn is_over(&self, session: &str) -> bool {
        let mut items = self.items.values().filter(|item| item.session == session);
        items.all(|item| item.state == "stopped")
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.queue.is_empty()
    }

    /// The agent calls a tool, and the session waits for its result.
    pub(crate) fn tool_use(&mut self, session: &str, name: &str, input: Value) -> String {
        self.tool_use_with(session, name, input, "allow")
    }

    pub(crate) fn tool_use_with(
        &mut self,
        session: &str,
        name: &str,
        input: Value,
        permission: &str,
    ) -> String {
        let event = json!({"type": "agent.tool_use", "name": name, "input": input, "evaluated_permission": permission});
        let id = self.event(session, event);
        self.sessions.get_mut(session).unwrap().status = "idle";
        let stop = json!({"type": "requires_action", "event_ids": [id]});
        self.event(
            session,
            json!({"type": "session.status_idle", "stop_reason": stop}),
        );
        id
    }

    /// The turn is over.
    pub(crate) fn end_turn(&mut self, session: &str) {
        let stop = json!({"type": "end_turn"});
        self.event(
            session,
            json!({"type": "session.status_idle", "stop_reason": stop}),
        );
    }

    /// Adds an event to the history and to the streams.
    pub(crate) fn event(&mut self, session: &str, mut event: Value) -> String {
        let id = self.id("sevt");
        event["id"] = json!(id);
        let second = self.next % 60;
        let minute = self.next / 60 % 60;
        event["processed_at"] = json!(format!("2026-11-24T07:{minute:02}:{second:02}Z"));
        let frame = format!("event: message\ndata: {event}\n\n");
        let session = self.sessions.get_mut(session).unwrap();
        session.events.push(event);
        session
            .streams
            .retain(|stream| stream.try_send(frame.clone()).is_ok());
        id
    }

    /// Cuts every stream of a session.
    pub(crate) fn drop_streams(&mut self, session: &str) {
        self.sessions.get_mut(session).unwrap().streams.clear();
    }

    pub(crate) fn streams(&self, session: &str) -> usize {
        let open = self.sessions[session].streams.iter();
        open.filter(|stream| !stream.is_closed()).count()
    }

    pub(crate) fn result(&self, session: &str, call: &str) -> Option<Value> {
        self.results(session, call).into_iter().next()
    }

    pub(crate) fn results(&self, session: &str, call: &str) -> Vec<Value> {
        let events = self.sessions[session].events.iter();
        let results = events
            .filter(|event| event["type"] == "user.tool_result" && event["tool_use_id"] == call);
        results.cloned().collect()
    }

    /// Carries out the next requests of this kind, and loses the answers.
    pub(crate) fn fail_late(&mut self, method: Method, end: &str, times: usize) {
        self.fail(method, end, 502, times);
        if let Some(fault) = self.faults.last_mut() {
            fault.is_late = true;
        }
    }

    /// Answers the next requests of this kind otherwise.
    pub(crate) fn fail(&mut self, method: Method, end: &str, status: u16, times: usize) {
        let kind = match status {
            401 => "authentication_error",
            403 => "permission_error",
            412 => "invalid_request_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        };
        self.faults.push(Fault {
            method,
            end: end.to_owned(),
            status,
            body: json!({"type": "error", "error": {"type": kind, "message": "as the test asked"}, "request_id": "req_1"}),
            times,
            is_late: false,
        });
    }

    /// Whether every fault that was asked for has happened.
    pub(crate) fn faults_are_over(&self) -> bool {
        self.faults.iter().all(|fault| fault.times == 0)
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self) {
        self.faults.clear();
    }

    /// How many requests had this method and end of their path.
    pub(crate) fn count(&self, method: &str, end: &str) -> usize {
        let fits = |line: &&String| {
            let mut parts = line.split(' ');
            parts.next() == Some(method) && parts.next().is_some_and(|path| path.ends_with(end))
        };
        self.requests.iter().filter(fits).count()
    }

    fn id(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}_{:06}", self.next)
    }

    fn work(&self, id: &str, secret: Option<String>) -> Value {
        let item = &self.items[id];
        json!({"type": "work", "id": id, "environment_id": ENVIRONMENT, "data": item.data, "metadata": {}, "state": item.state,
            "created_at": "2026-11-24T07:00:00Z", "acknowledged_at": null, "started_at": null, "latest_heartbeat_at": null,
            "stop_requested_at": null, "stopped_at": null, "secret": secret})
    }

    /// What is answered instead of the truth, and whether the request is carried out all the same.
    fn fault(&mut self, method: &Method, path: &str) -> Option<(Response, bool)> {
        let fits = |fault: &Fault| {
            fault.method == *method && path.ends_with(&fault.end) && fault.times > 0
        };
        let fault = self.faults.iter_mut().find(|fault| fits(fault))?;
        fault.times -= 1;
        let status = StatusCode::from_u16(fault.status).unwrap();
        let response = (status, axum::Json(fault.body.clone())).into_response();
        Some((response, fault.is_late))
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let credential = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.to_str().unwrap());
    let credential = credential
        .unwrap_or("none")
        .trim_start_matches("Bearer ")
        .to_owned();
    let fault = {
        let mut inside = shared.state.lock().unwrap();
        let short = credential.split('-').next_back().unwrap_or_default();
        let line = format!("{method} {} {short}", uri.path());
        inside.requests.push(line);
        inside.fault(&method, uri.path())
    };
    match fault {
        Some((response, false)) => response,
        Some((response, true)) => {
            serve(&shared, &method, &uri, &credential, &body).await;
            response
        }
        None => serve(&shared, &method, &uri, &credential, &body).await,
    }
}

async fn serve(
    shared: &Shared,
    method: &Method,
    uri: &Uri,
    credential: &str,
    body: &[u8],
) -> Response {
    let path = uri.path().trim_start_matches("/v1/").to_owned();
    let parts = path.split('/').collect::<Vec<_>>();
    let query = uri.query().unwrap_or_default();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["environments", ENVIRONMENT, "work", "poll"]) => {
            poll(shared, credential, query).await
        }
        ("GET", ["environments", ENVIRONMENT, "work", "stats"]) => {
            let depth = shared.state.lock().unwrap().queue.len();
            json_of(
                json!({"type": "work_queue_stats", "depth": depth, "pending": 0, "oldest_queued_at": null, "workers_polling": 1}),
            )
        }
        ("POST", ["environments", ENVIRONMENT, "work", id, what]) => {
            let mut inside = shared.state.lock().unwrap();
            work(&mut inside, id, what, query, body)
        }
        ("GET", ["sessions", id]) => {
            let inside = shared.state.lock().unwrap();
            inside
                .sessions
                .get(*id)
                .map_or_else(missing, |session| json_of(session_json(id, session)))
        }
        ("GET", ["sessions", id, "events"]) => list(&shared.state.lock().unwrap(), id, query),
        ("GET", ["sessions", id, "events", "stream"]) => {
            stream(&mut shared.state.lock().unwrap(), id)
        }
        ("POST", ["sessions", id, "events"]) => send(&mut shared.state.lock().unwrap(), id, body),
        ("GET", ["skills", skill, "versions", version]) => json_of(
            json!({"id": format!("skver_{version}"), "type": "skill_version", "skill_id": skill, "name": skill,
                "description": "", "created_at": "2026-11-24T07:00:00Z"}),
        ),
        ("GET", ["skills", skill, "versions", _, "content"]) => {
            let inside = shared.state.lock().unwrap();
            inside
                .skills
                .get(*skill)
                .map_or_else(missing, |bytes| bytes.clone().into_response())
        }
        _ => missing(),
    }
}

async fn poll(shared: &Shared, credential: &str, query: &str) -> Response {
    if credential != KEY {
        return error(401, "authentication_error");
    }
    if !shared.state.lock().unwrap().is_waiting() {
    } else if query.contains("block_ms") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut inside = shared.state.lock().unwrap();
    let found = inside.queue.pop_front();
    let immediate = inside.immediate;
    let mut response = match found {
        None if inside.no_content => StatusCode::NO_CONTENT.into_response(),
        None => json_of(Value::Null),
        Some(id) => {
            let claim = {
                let item = inside.items.get_mut(&id).unwrap();
                item.claim += 1;
                item.claim
            };
            let base = inside.api_base_url.clone();
            let base = base.unwrap_or_else(|| format!("http://{}", shared.address));
            let secret = json!({"sessions_token": format!("sk-ant-req-item{claim}"), "api_base_url": base, "session_ingress_token": "x"});
            let secret =
                (!inside.no_secret).then(|| BASE64_URL_SAFE_NO_PAD.encode(secret.to_string()));
            json_of(inside.work(&id, secret))
        }
    };
    if immediate {
        response
            .headers_mut()
            .insert("mcp-sandbox-poll", "immediate".parse().unwrap());
    }
    response
}

fn work(inside: &mut Inside, id: &str, what: &str, query: &str, body: &[u8]) -> Response {
    let (ttl, no_content) = (inside.ttl, inside.no_content);
    let next = inside.id("beat");
    let Some(item) = inside.items.get_mut(id) else {
        return missing();
    };
    match what {
        "ack" => {
            item.state = "starting";
            json_of(inside.work(id, None))
        }
        "heartbeat" => {
            let beat = |state: &str, last: &str, extended: bool| {
                json_of(
                    json!({"type": "work_heartbeat", "last_heartbeat": last, "lease_extended": extended, "state": state, "ttl_seconds": ttl}),
                )
            };
            if matches!(item.state, "stopping" | "stopped") {
                return beat(item.state, item.beat.as_deref().unwrap_or_default(), false);
            }
            let expected = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("expected_last_heartbeat="));
            let actual = item.beat.as_deref().unwrap_or("NO_HEARTBEAT");
            if item.state == "queued" || expected.is_some_and(|expected| expected != actual) {
                return error(412, "invalid_request_error");
            }
            item.state = "active";
            item.beat = Some(next.clone());
            beat("active", &next, true)
        }
        "stop" => {
            let force =
                serde_json::from_slice::<Value>(body).is_ok_and(|body| body["force"] == true);
            item.state = if force { "stopped" } else { "stopping" };
            if no_content {
                return StatusCode::NO_CONTENT.into_response();
            }
            json_of(inside.work(id, None))
        }
        "begun" if inside.immediate => {
            let claim = inside.items[id].claim;
            let body: Value = serde_json::from_slice(body).unwrap();
            let ids = body["tool_use_ids"].as_array().unwrap();
            let ids = ids.iter().map(|id| id.as_str().unwrap().to_owned());
            let before = ids.filter(|id| *inside.begun.entry(id.clone()).or_insert(claim) != claim);
            json_of(json!({"begun_before": before.collect::<Vec<_>>()}))
        }
        _ => missing(),
    }
}

fn session_json(id: &str, session: &Session) -> Value {
    json!({"id": id, "type": "session", "environment_id": ENVIRONMENT, "status": session.status, "title": null, "metadata": {},
        "agent": {"id": "agent_01", "type": "agent", "version": 1, "name": "a", "description": null, "system": null,
            "model": {"id": "m"}, "tools": [], "mcp_servers": [], "skills": session.skills},
        "resources": session.resources, "vault_ids": [], "outcome_evaluations": [], "stats": {}, "usage": {},
        "created_at": "2026-11-24T07:00:00Z", "updated_at": "2026-11-24T07:00:00Z", "archived_at": null})
}

/// Pages of two, so that every listing has several.
fn list(inside: &Inside, id: &str, query: &str) -> Response {
    let Some(session) = inside.sessions.get(id) else {
        return missing();
    };
    let page = query.split('&').find_map(|pair| pair.strip_prefix("page="));
    let from = page.and_then(|page| page.parse().ok()).unwrap_or(0);
    let data = session
        .events
        .iter()
        .skip(from)
        .take(2)
        .cloned()
        .collect::<Vec<_>>();
    let next = (from + 2 < session.events.len()).then(|| (from + 2).to_string());
    json_of(json!({"data": data, "next_page": next}))
}

fn stream(inside: &mut Inside, id: &str) -> Response {
    let slow = inside.slow_streams;
    let Some(session) = inside.sessions.get_mut(id) else {
        return missing();
    };
    let (sender, receiver) = mpsc::channel::<String>(1000);
    session.streams.push(sender);
    let frames = futures_util::stream::unfold(
        (receiver, VecDeque::new()),
        move |(mut receiver, mut rest)| async move {
            if rest.is_empty() {
                let frame: String = receiver.recv().await?;
                let size = if slow { 7 } else { frame.len() };
                rest = frame
                    .into_bytes()
                    .chunks(size)
                    .map(Bytes::copy_from_slice)
                    .collect();
            }
            if slow {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let chunk: Bytes = rest.pop_front()?;
            Some((Ok::<_, std::convert::Infallible>(chunk), (receiver, rest)))
        },
    );
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(frames),
    )
        .into_response()
}

fn send(inside: &mut Inside, id: &str, body: &[u8]) -> Response {
    let body: Value = serde_json::from_slice(body).unwrap();
    let [event] = body["events"].as_array().unwrap().as_slice() else {
        return error(400, "invalid_request_error");
    };
    let event = event.clone();
    let empty = |block: &Value| block["type"] == "text" && block["text"] == "";
    if event["content"]
        .as_array()
        .is_none_or(|blocks| blocks.is_empty() || blocks.iter().any(empty))
    {
        return error(400, "invalid_request_error");
    }
    if event["type"] == "user.tool_result" {
        let call = event["tool_use_id"].as_str().unwrap().to_owned();
        if inside.result(id, &call).is_some() {
            return error(400, "invalid_request_error");
        }
    }
    inside.event(id, event.clone());
    inside.event(id, json!({"type": "session.status_running"}));
    json_of(json!({"data": [event]}))
}

fn json_of(value: Value) -> Response {
    axum::Json(value).into_response()
}

fn missing() -> Response {
    error(404, "not_found_error")
}

fn error(status: u16, kind: &str) -> Response {
    let body =
        json!({"type": "error", "error": {"type": kind, "message": "no"}, "request_id": "req_1"});
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}
