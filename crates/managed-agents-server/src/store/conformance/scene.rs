//! What the cases share: a store, a clock and ids that only go forward.

use std::collections::BTreeMap;
use std::fmt::Debug;

use jiff::{SignedDuration, Timestamp};
use mcp_tunnel_auth::{
    AgentId, EnvironmentId, EnvironmentKeyHash, EnvironmentKeyId, EventId, SessionId, ThreadId,
    WorkId, WorkspaceId,
};

use crate::store::{
    Acting, Append, Appended, Authority, Beaten, Change, Claim, Denial, EnvironmentKind, Expected,
    ItemPath, NewEnvironment, NewEnvironmentKey, NewEvent, NewSession, Polled, Refusal,
    SessionRecord, SessionStatus, SessionStore, StopOrder, StoreError, WorkRecord, Writer,
};

pub(super) struct Scene<'a> {
    pub(super) store: &'a dyn SessionStore,
    /// Milliseconds since 1970; also what ids are made from.
    pub(super) now_ms: i64,
    pub(super) environment: EnvironmentId,
    pub(super) key: EnvironmentKeyId,
}

impl<'a> Scene<'a> {
    pub(super) async fn new(store: &'a dyn SessionStore) -> Self {
        let mut scene = Self {
            store,
            now_ms: 1_790_000_000_000,
            environment: EnvironmentId::new(0, &[0; 10]),
            key: EnvironmentKeyId::new(0, &[0; 10]),
        };
        scene.environment = scene
            .new_environment(HOME, EnvironmentKind::SelfHosted)
            .await;
        scene.key = scene.new_key(scene.environment).await;
        scene
    }

    /// A later moment, as the time of new ids.
    pub(super) fn tick(&mut self) -> u64 {
        self.now_ms += 1;
        u64::try_from(self.now_ms).unwrap_or(0)
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.now_ms += seconds * 1000;
    }

    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn change(&mut self) -> Change {
        let id = self.tick();
        Change::new(
            format!("audit_{id:020}"),
            workspace(HOME),
            "tester",
            self.at(),
        )
    }

    pub(super) async fn new_environment(
        &mut self,
        workspace: &str,
        kind: EnvironmentKind,
    ) -> EnvironmentId {
        let mut change = self.change();
        change.workspace = self::workspace(workspace);
        let new = NewEnvironment {
            id: EnvironmentId::new(self.tick(), &[0; 10]),
            name: "build".to_owned(),
            description: None,
            kind,
            config: format!(r#"{{"type":"{}"}}"#, kind.as_str()),
            metadata: BTreeMap::new(),
        };
        ok(self.store.create_environment(&change, new, 1000).await).id
    }

    pub(super) async fn new_key(&mut self, environment: EnvironmentId) -> EnvironmentKeyId {
        let change = self.change();
        let id = EnvironmentKeyId::new(self.tick(), &[0; 10]);
        let mut hash = [0; 32];
        for (byte, value) in hash.iter_mut().zip(id.to_bytes()) {
            *byte = value;
        }
        let new = NewEnvironmentKey {
            id,
            environment,
            hash: EnvironmentKeyHash::from_bytes(hash),
            name: "worker".to_owned(),
        };
        ok(self.store.create_environment_key(&change, new, 100).await).id
    }

    pub(super) async fn revoke(&mut self, key: EnvironmentKeyId) {
        let change = self.change();
        let environment = self.environment;
        ok(self
            .store
            .revoke_environment_key(&change, environment, key)
            .await);
    }

    pub(super) fn operator(&self) -> Acting {
        self.acting(Authority::Operator {
            actor: "tester".to_owned(),
        })
    }

    pub(super) fn worker(&self) -> Acting {
        let (key, environment) = (self.key, self.environment);
        self.acting(Authority::EnvironmentKey { key, environment })
    }

    pub(super) fn holder(&self, item: &WorkRecord) -> Acting {
        let (work, epoch) = (item.id, item.epoch);
        self.acting(Authority::Item { work, epoch })
    }

    pub(super) fn acting(&self, authority: Authority) -> Acting {
        let (workspace, now) = (workspace(HOME), self.at());
        Acting {
            workspace,
            authority,
            now,
        }
    }

    pub(super) fn new_session(&mut self) -> NewSession {
        let at = self.tick();
        NewSession {
            id: SessionId::new(at, &[0; 10]),
            thread: ThreadId::new(at, &[0; 10]),
            environment: self.environment,
            agent: r#"{"id":"agent_1"}"#.to_owned(),
            agent_id: AgentId::new(1, &[0; 10]),
            agent_version: 1,
            title: Some("a title".to_owned()),
            metadata: BTreeMap::new(),
            resources: "[]".to_owned(),
            events: Vec::new(),
            work: WorkId::new(at, &[0; 10]),
        }
    }

    pub(super) async fn session(&mut self) -> SessionRecord {
        let new = self.new_session();
        ok(self
            .store
            .create_session(&workspace(HOME), self.at(), new)
            .await)
    }

    pub(super) async fn found(&self, session: SessionId) -> SessionRecord {
        ok(self.store.session(&self.operator(), session).await)
    }

    pub(super) fn event(&mut self, kind: &str, body: &str) -> NewEvent {
        NewEvent {
            id: EventId::new(self.tick(), &[0; 10]),
            kind: kind.to_owned(),
            processed: true,
            answers: None,
            body: body.to_owned(),
        }
    }

    pub(super) fn result(&mut self, call: EventId, body: &str) -> NewEvent {
        let mut event = self.event("user.tool_result", body);
        event.answers = Some(call.to_string());
        event
    }

    pub(super) async fn append(
        &mut self,
        session: &SessionRecord,
        writer: Writer,
        events: Vec<NewEvent>,
        state: (SessionStatus, bool),
    ) -> Result<Appended, StoreError> {
        let position = ok(self.store.session(&self.operator(), session.id).await).position;
        let append = Append {
            session: session.id,
            writer,
            position,
            taken_up: Vec::new(),
            events,
            status: state.0,
            needs_worker: state.1,
            due: None,
            work: WorkId::new(self.tick(), &[0; 10]),
        };
        self.store.append(append).await
    }

    /// A call that waits for a worker.
    pub(super) async fn call(&mut self, session: &SessionRecord) -> EventId {
        let event = self.event("agent.tool_use", r#"{"type":"agent.tool_use"}"#);
        let id = event.id;
        let writer = Writer::Loop { now: self.at() };
        ok(self
            .append(session, writer, vec![event], (SessionStatus::Idle, true))
            .await);
        id
    }

    pub(super) async fn answer(
        &mut self,
        session: &SessionRecord,
        acting: Acting,
        call: EventId,
    ) -> Result<Appended, StoreError> {
        let event = self.result(call, r#"{"type":"user.tool_result"}"#);
        let writer = Writer::Client(acting);
        self.append(
            session,
            writer,
            vec![event],
            (SessionStatus::Running, false),
        )
        .await
    }

    pub(super) async fn poll(&self) -> Option<WorkRecord> {
        match ok(self.store.poll(&self.claim()).await) {
            Polled::Item(item) => Some(*item),
            Polled::Empty { .. } => None,
        }
    }

    pub(super) fn claim(&self) -> Claim {
        Claim {
            workspace: workspace(HOME),
            environment: self.environment,
            key: self.key,
            worker: Some("worker-1".to_owned()),
            now: self.at(),
            reclaim: SignedDuration::from_secs(5),
        }
    }

    /// An item that was polled and acknowledged.
    pub(super) async fn claimed(&self) -> WorkRecord {
        let item = self.poll().await.unwrap_or_else(|| panic!("an item waits"));
        ok(self
            .store
            .acknowledge(&self.worker(), path(&item), LEASE)
            .await)
    }

    pub(super) async fn beat(
        &self,
        acting: Acting,
        item: &WorkRecord,
        expected: Expected,
    ) -> Result<Beaten, StoreError> {
        self.store
            .heartbeat(&acting, path(item), expected, LEASE)
            .await
    }

    pub(super) async fn stop(
        &mut self,
        acting: Acting,
        item: &WorkRecord,
        force: bool,
    ) -> Result<WorkRecord, StoreError> {
        let stop = StopOrder {
            force,
            reason: None,
            grace: LEASE,
            successor: WorkId::new(self.tick(), &[0; 10]),
        };
        self.store.stop(&acting, path(item), stop).await
    }

    pub(super) async fn expire(&mut self) -> Option<WorkRecord> {
        let successor = WorkId::new(self.tick(), &[0; 10]);
        ok(self.store.expire(self.at(), successor).await)
    }
}

pub(super) const HOME: &str = "wrkspc_home";
pub(super) const ABROAD: &str = "wrkspc_abroad";
pub(super) const LEASE: SignedDuration = SignedDuration::from_secs(60);

pub(super) const fn path(item: &WorkRecord) -> ItemPath {
    ItemPath {
        environment: item.environment,
        work: item.id,
    }
}

pub(super) fn workspace(text: &str) -> WorkspaceId {
    WorkspaceId::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
pub(super) fn ok<T>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|error| panic!("the store failed: {error:?}"))
}

#[track_caller]
pub(super) fn missing<T: Debug>(result: Result<T, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::NotFound)),
        "expected to be missing, got {result:?}"
    );
}

#[track_caller]
pub(super) fn refused<T: Debug>(result: Result<T, StoreError>, refusal: &Refusal) {
    assert!(
        matches!(&result, Err(StoreError::Refused(found)) if found == refusal),
        "expected {refusal:?}, got {result:?}"
    );
}

#[track_caller]
pub(super) fn denied<T: Debug>(result: Result<T, StoreError>, denial: Denial) {
    assert!(
        matches!(&result, Err(StoreError::Denied(found)) if *found == denial),
        "expected {denial:?}, got {result:?}"
    );
}

#[track_caller]
pub(super) fn mismatched<T: Debug>(result: Result<T, StoreError>) {
    assert!(
        matches!(&result, Err(StoreError::Beat(_))),
        "expected another heartbeat, got {result:?}"
    );
}
