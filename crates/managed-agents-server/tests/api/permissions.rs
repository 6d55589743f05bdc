//! Every route with every kind of credential, own and foreign. A route that is not in the
//! table below fails the test, and so does one that is gone.

use std::collections::BTreeSet;

use http::HeaderMap;
use managed_agents_api::serve::{Permission, Permissions};
use managed_agents_server::{Server, Takes};
use mcp_tunnel_auth::EnvironmentKey;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::common::{Answer, Stage, World, agent, named, request, session, skill, user};

/// What a route is called with, and who may call it.
struct Case {
    method: &'static str,
    path: &'static str,
    api: Option<Permission>,
    key: bool,
    item: bool,
    query: &'static str,
    body: Given,
    stage: Stage,
    /// Whether the present state is against it, whoever asks: 400.
    futile: bool,
}

/// A body.
enum Given {
    Nothing,
    Json(fn(&World) -> Value),
    Skill,
    /// A message of an application, a result of a worker.
    Words,
}

const fn api(method: &'static str, path: &'static str, permission: Permission) -> Case {
    Case {
        method,
        path,
        api: Some(permission),
        key: false,
        item: false,
        query: "",
        body: Given::Nothing,
        stage: Stage::Acknowledged,
        futile: false,
    }
}

const fn worker(method: &'static str, path: &'static str) -> Case {
    let mut case = api(method, path, Permission::SessionsRead);
    case.api = None;
    case
}

impl Case {
    const fn key(mut self) -> Self {
        self.key = true;
        self
    }

    const fn item(mut self) -> Self {
        self.item = true;
        self
    }

    const fn json(mut self, body: fn(&World) -> Value) -> Self {
        self.body = Given::Json(body);
        self
    }

    const fn skill(mut self) -> Self {
        self.body = Given::Skill;
        self
    }

    const fn words(mut self) -> Self {
        self.body = Given::Words;
        self
    }

    const fn futile(mut self) -> Self {
        self.futile = true;
        self
    }

    const fn query(mut self, query: &'static str) -> Self {
        self.query = query;
        self
    }

    const fn stage(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }
}

fn titled(_: &World) -> Value {
    json!({ "title": "another" })
}

fn message() -> Value {
    json!({ "events": [{ "type": "user.message", "content": [{ "type": "text", "text": "x" }] }] })
}

fn result() -> Value {
    json!({ "events": [{
        "type": "user.tool_result",
        "tool_use_id": "sevt_00000000000000000000000000",
        "content": [{ "type": "text", "text": "x" }],
    }] })
}

fn begun(_: &World) -> Value {
    json!({ "tool_use_ids": ["sevt_00000000000000000000000000"] })
}

fn words(_: &World) -> Value {
    json!({ "metadata": { "a": "b" } })
}

fn force(_: &World) -> Value {
    json!({ "force": true })
}

#[rustfmt::skip]
fn table() -> Vec<Case> {
    use Permission::{
        AgentsManage, AgentsRead, AuditRead, EnvironmentKeysManage, EnvironmentsManage, EnvironmentsRead,
        SessionsManage, SessionsRead, SkillsManage, SkillsRead,
    };
    vec![
        api("POST", "/v1/agents", AgentsManage).json(agent),
        api("GET", "/v1/agents", AgentsRead),
        api("GET", "/v1/agents/{agent}", AgentsRead),
        api("POST", "/v1/agents/{agent}", AgentsManage).json(named),
        api("POST", "/v1/agents/{agent}/archive", AgentsManage),
        api("GET", "/v1/agents/{agent}/versions", AgentsRead),
        api("POST", "/v1/environments", EnvironmentsManage).json(named),
        api("GET", "/v1/environments", EnvironmentsRead),
        api("GET", "/v1/environments/{environment}", EnvironmentsRead),
        api("POST", "/v1/environments/{environment}", EnvironmentsManage).json(named),
        api("POST", "/v1/environments/{environment}/archive", EnvironmentsManage),
        api("DELETE", "/v1/environments/{spare}", EnvironmentsManage),
        api("POST", "/v1/environments/{environment}/keys", EnvironmentKeysManage).json(named),
        api("GET", "/v1/environments/{environment}/keys", EnvironmentKeysManage),
        api("POST", "/v1/environments/{environment}/keys/{key}/revoke", EnvironmentKeysManage),
        api("POST", "/v1/skills", SkillsManage).skill(),
        api("GET", "/v1/skills", SkillsRead),
        api("GET", "/v1/skills/{skill}", SkillsRead).key().item(),
        api("DELETE", "/v1/skills/{skill}", SkillsManage),
        api("POST", "/v1/skills/{skill}/versions", SkillsManage).skill(),
        api("GET", "/v1/skills/{skill}/versions", SkillsRead).key().item(),
        api("GET", "/v1/skills/{skill}/versions/{version}", SkillsRead).key().item(),
        api("DELETE", "/v1/skills/{skill}/versions/{version}", SkillsManage),
        api("GET", "/v1/skills/{skill}/versions/{version}/content", SkillsRead).key().item(),
        api("GET", "/v1/audit/sessions", AuditRead),
        api("POST", "/v1/sessions", SessionsManage).json(session),
        api("GET", "/v1/sessions", SessionsRead),
        api("GET", "/v1/sessions/{session}", SessionsRead).key().item(),
        api("POST", "/v1/sessions/{session}", SessionsManage).json(titled),
        api("DELETE", "/v1/sessions/{session}", SessionsManage),
        api("POST", "/v1/sessions/{session}/archive", SessionsManage),
        api("GET", "/v1/sessions/{session}/resources", SessionsRead),
        api("GET", "/v1/sessions/{session}/events", SessionsRead).key().item(),
        api("POST", "/v1/sessions/{session}/events", SessionsManage).key().item().words(),
        api("GET", "/v1/sessions/{session}/events/stream", SessionsRead).key().item(),
        api("GET", "/v1/sessions/{session}/threads", SessionsRead),
        api("GET", "/v1/sessions/{session}/threads/{thread}", SessionsRead),
        api("GET", "/v1/sessions/{session}/threads/{thread}/events", SessionsRead),
        api("GET", "/v1/sessions/{session}/threads/{thread}/stream", SessionsRead),
        api("POST", "/v1/sessions/{session}/threads/{thread}/archive", SessionsManage).futile(),
        worker("GET", "/v1/environments/{environment}/work").key(),
        worker("GET", "/v1/environments/{environment}/work/poll").key(),
        worker("POST", "/v1/environments/{environment}/work/{work}/ack").key().stage(Stage::Polled),
        worker("POST", "/v1/environments/{environment}/work/{work}/heartbeat").key().item()
            .query("?expected_last_heartbeat=NO_HEARTBEAT"),
        worker("POST", "/v1/environments/{environment}/work/{work}/begun").item().json(begun).futile(),
        api("GET", "/v1/environments/{environment}/work/stats", EnvironmentsRead).key(),
        api("GET", "/v1/environments/{environment}/work/{work}", EnvironmentsRead),
        api("POST", "/v1/environments/{environment}/work/{work}", EnvironmentsManage).json(words),
        api("POST", "/v1/environments/{environment}/work/{work}/stop", EnvironmentsManage).key().item().json(force),
    ]
}

impl World {
    /// `case`, called with `credential` at `path`.
    async fn try_case(&self, case: &Case, path: &str, credential: &str) -> Answer {
        let path = format!("{path}{}", case.query);
        match case.body {
            Given::Nothing => {
                self.call(case.method, &path, credential, &Value::Null)
                    .await
            }
            Given::Json(body) => self.call(case.method, &path, credential, &body(self)).await,
            Given::Skill => self.send(skill(case.method, &path, credential)).await,
            Given::Words => {
                let body = match credential.contains('/') {
                    true => message(),
                    false => result(),
                };
                self.call(case.method, &path, credential, &body).await
            }
        }
    }
}

/// Ids of the same kinds that nothing has.
fn missing(path: &str) -> String {
    let nothing = "0".repeat(26);
    let kinds = [
        ("{environment}", "env"),
        ("{spare}", "env"),
        ("{agent}", "agent"),
        ("{key}", "ekey"),
        ("{skill}", "skill"),
        ("{version}", "skver"),
        ("{session}", "sesn"),
        ("{thread}", "sthr"),
        ("{work}", "work"),
    ];
    kinds.iter().fold(path.to_owned(), |path, (place, prefix)| {
        path.replace(place, &format!("{prefix}_{nothing}"))
    })
}

#[test]
fn the_table_has_every_route_and_what_it_takes() {
    let told = |method: &str, path: &str, takes: (Option<Permission>, bool, bool)| {
        format!("{method} {path} {takes:?}")
    };
    let table: BTreeSet<String> = table()
        .iter()
        .map(|case| {
            let path = case.path.replace("{spare}", "{environment}");
            told(case.method, &path, (case.api, case.key, case.item))
        })
        .collect();
    let declared: BTreeSet<String> = Server::routes()
        .map(|(method, path, takes): (_, _, Takes)| {
            let takes = (takes.api, takes.environment_key, takes.item_token);
            told(method.as_str(), path, takes)
        })
        .collect();
    assert_eq!(declared, table);
}

#[tokio::test]
async fn every_route_takes_the_credentials_that_it_declares_and_no_other() {
    for case in table() {
        let at = format!("{} {}", case.method, case.path);
        let world = World::new(case.stage).await;
        refuses_strangers(&world, &case, &at).await;
        treats_foreign_as_missing(&world, &case, &at).await;
        keeps_workers_at_home(&world, &case, &at).await;
        asks_for_what_it_takes(&world, &case, &at).await;
    }
}

/// What is no credential here.
const STRANGERS: [&str; 8] = [
    "hello",
    "mct_AQGiDIS5W-Vl31a5WROJxacBogyEuVs6lOaOe",
    "mck_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t7",
    "sk-ant-oat01-abcdefghijklmnop",
    "mce_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t7qz",
    "mce_short",
    "mci_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t7",
    "mci_short",
];

async fn refuses_strangers(world: &World, case: &Case, at: &str) {
    let path = world.path(case.path);
    let plain = request(case.method, &path, &[], &Value::Null);
    assert_eq!(world.send(plain).await.status, 401, "{at} without one");
    let unknown = EnvironmentKey::from_entropy([99; 32]).encode();
    // Another digit in the middle of the MAC: the same work and claim.
    let mut forged = world.token.clone();
    let middle = forged.len() - 20;
    let digit = if &forged[middle..=middle] == "0" {
        "1"
    } else {
        "0"
    };
    forged.replace_range(middle..=middle, digit);
    let more = [unknown.expose_secret(), &forged];
    for credential in STRANGERS.into_iter().chain(more) {
        let answer = world.try_case(case, &path, credential).await;
        assert_eq!(
            answer.status, 401,
            "{at} with {credential}: {}",
            answer.body
        );
        let told = answer.body.to_string();
        let value = credential.get(4..).filter(|value| value.len() > 8);
        assert!(
            value.is_none_or(|value| !told.contains(value)),
            "{at} echoes {told}"
        );
    }
}

async fn treats_foreign_as_missing(world: &World, case: &Case, at: &str) {
    if case.api.is_none() || !case.path.contains('{') {
        return;
    }
    let abroad = user("abroad", Permissions::all());
    let foreign = world.try_case(case, &world.path(case.path), &abroad).await;
    assert_eq!(foreign.status, 404, "{at} from abroad: {}", foreign.body);
    for path in [missing(case.path), case.path.replace(['{', '}'], "")] {
        let missing = world.try_case(case, &path, &abroad).await;
        assert_eq!(missing.status, 404, "{at}");
        let (a, b) = (&foreign.body["error"], &missing.body["error"]);
        assert_eq!(a, b, "{at}: foreign and missing differ");
        let names = |headers: &HeaderMap| -> BTreeSet<String> {
            headers.keys().map(ToString::to_string).collect()
        };
        assert_eq!(names(&foreign.headers), names(&missing.headers), "{at}");
    }
}

/// A key of another environment of the same workspace reaches nothing of this one.
async fn keeps_workers_at_home(world: &World, case: &Case, at: &str) {
    if !case.key || case.path.starts_with("/v1/skills") {
        return;
    }
    let made = world
        .post("/v1/environments/{spare}/keys", &named(world))
        .await;
    let other = made["key"].as_str().expect("a key");
    let foreign = world.try_case(case, &world.path(case.path), other).await;
    assert_eq!(foreign.status, 404, "{at} by another key: {}", foreign.body);
    let missing = world.try_case(case, &missing(case.path), other).await;
    assert_eq!(foreign.body["error"], missing.body["error"], "{at}");
}

async fn asks_for_what_it_takes(world: &World, case: &Case, at: &str) {
    let path = world.path(case.path);
    let refused = async |credential: &str, who: &str| {
        let answer = world.try_case(case, &path, credential).await;
        assert_eq!(answer.status, 403, "{at} by {who}: {}", answer.body);
        let told = answer.body.to_string();
        assert!(!told.contains(&credential[4..]), "{at} echoes {told}");
        told
    };
    match case.api {
        Some(needs) => {
            for lacking in [Permissions::all().without(needs), Permissions::none()] {
                let told = refused(&user("home", lacking), "somebody without").await;
                assert!(told.contains(needs.as_str()), "{at}: {told}");
            }
        }
        None => drop(refused(&world.admin(), "an API key").await),
    }
    if !case.key {
        refused(&world.key, "an environment key").await;
    }
    if !case.item {
        refused(&world.token, "an item token").await;
    }
    let operator = case
        .api
        .map(|needs| user("home", Permissions::none().with(needs)));
    // The operator last: it may end what the others need.
    let taken = [
        case.key.then(|| world.key.clone()),
        case.item.then(|| world.token.clone()),
        operator,
    ];
    for (number, credential) in taken.into_iter().flatten().enumerate() {
        let answer = world.try_case(case, &path, &credential).await;
        let status = answer.status.as_u16();
        // The second time the present state may be against it, but nothing else; and the
        // result of a worker is one of no call.
        let again = number > 0 && matches!(status, 401 | 409 | 412);
        let words = matches!(case.body, Given::Words) && status == 400;
        assert!(
            status == 200 || again || words || (case.futile && status == 400),
            "{at} by {}: {status} {}",
            &credential[..4],
            answer.body
        );
    }
}
