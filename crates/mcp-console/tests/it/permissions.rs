//! Every route with every kind of credential, own and foreign. A route that is not in the
//! table below fails the test, and so does one that is gone.

use std::collections::BTreeSet;

use crate::common;
use crate::common::{HOME, World, certificate, text};
use managed_agents_api::serve::{Permission, Permissions};
use mcp_console::Console;
use mcp_tunnel_auth::{Fingerprint, GatewayKey};
use serde_json::{Value, json};

struct Case {
    method: &'static str,
    path: &'static str,
    needs: Permission,
    body: fn() -> Value,
}

const fn case(
    method: &'static str,
    path: &'static str,
    needs: Permission,
    body: fn() -> Value,
) -> Case {
    Case {
        method,
        path,
        needs,
        body,
    }
}

fn nothing() -> Value {
    Value::Null
}

fn pem() -> Value {
    json!({ "ca_certificate_pem": certificate() })
}

fn fingerprint() -> Value {
    json!({ "gateway_key_fingerprint": key(2).to_string() })
}

fn name() -> Value {
    json!({ "name": "caller" })
}

fn key(number: u8) -> Fingerprint {
    GatewayKey::from_bytes([number; 32])
        .public_key()
        .fingerprint()
}

#[rustfmt::skip]
const OURS: [Case; 12] = {
    use Permission::{AuditRead, CallerKeysManage, ConnectionsApprove, TunnelsManage, TunnelsRead};
    [
        case("GET", "/v1/tunnels/{tunnel}/settings", TunnelsRead, nothing),
        case("POST", "/v1/tunnels/{tunnel}/settings", TunnelsManage, nothing),
        case("GET", "/v1/tunnels/{tunnel}/connections", TunnelsRead, nothing),
        case("POST", "/v1/tunnels/{tunnel}/connections", ConnectionsApprove, fingerprint),
        case("GET", "/v1/tunnels/{tunnel}/connections/{connection}", TunnelsRead, nothing),
        case("POST", "/v1/tunnels/{tunnel}/connections/{connection}/approve", ConnectionsApprove, nothing),
        case("POST", "/v1/tunnels/{tunnel}/connections/{connection}/refuse", ConnectionsApprove, nothing),
        case("POST", "/v1/tunnels/{tunnel}/connections/{connection}/disconnect", TunnelsManage, nothing),
        case("GET", "/v1/caller_keys", CallerKeysManage, nothing),
        case("POST", "/v1/caller_keys", CallerKeysManage, name),
        case("POST", "/v1/caller_keys/{key}/revoke", CallerKeysManage, nothing),
        case("GET", "/v1/audit", AuditRead, nothing),
    ]
};

#[rustfmt::skip]
const VENDORS: [Case; 20] = {
    use Permission::{TunnelsManage, TunnelsRead};
    [
        case("POST", "/v1/tunnels", TunnelsManage, nothing),
        case("GET", "/v1/tunnels", TunnelsRead, nothing),
        case("GET", "/v1/tunnels/{tunnel}", TunnelsRead, nothing),
        case("POST", "/v1/tunnels/{tunnel}/archive", TunnelsManage, nothing),
        case("POST", "/v1/tunnels/{tunnel}/reveal_token", TunnelsManage, nothing),
        case("POST", "/v1/tunnels/{tunnel}/rotate_token", TunnelsManage, nothing),
        case("POST", "/v1/tunnels/{tunnel}/certificates", TunnelsManage, pem),
        case("GET", "/v1/tunnels/{tunnel}/certificates", TunnelsRead, nothing),
        case("GET", "/v1/tunnels/{tunnel}/certificates/{certificate}", TunnelsRead, nothing),
        case("POST", "/v1/tunnels/{tunnel}/certificates/{certificate}/archive", TunnelsManage, nothing),
        case("POST", "/v1/organizations/tunnels", TunnelsManage, nothing),
        case("GET", "/v1/organizations/tunnels", TunnelsRead, nothing),
        case("GET", "/v1/organizations/tunnels/{tunnel}", TunnelsRead, nothing),
        case("POST", "/v1/organizations/tunnels/{tunnel}/archive", TunnelsManage, nothing),
        case("POST", "/v1/organizations/tunnels/{tunnel}/reveal_token", TunnelsManage, nothing),
        case("POST", "/v1/organizations/tunnels/{tunnel}/rotate_token", TunnelsManage, nothing),
        case("POST", "/v1/organizations/tunnels/{tunnel}/certificates", TunnelsManage, pem),
        case("GET", "/v1/organizations/tunnels/{tunnel}/certificates", TunnelsRead, nothing),
        case("GET", "/v1/organizations/tunnels/{tunnel}/certificates/{certificate}", TunnelsRead, nothing),
        case("POST", "/v1/organizations/tunnels/{tunnel}/certificates/{certificate}/archive", TunnelsManage, nothing),
    ]
};

/// What is presented where an API key belongs, and what the answer calls it.
#[rustfmt::skip]
const WRONG_KINDS: [(&str, &str); 8] = [
    ("mct_AQGiDIS5W-Vl31a5WROJxacBogyEuVs6lOaOe", "tunnel token"),
    ("mck_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t7", "caller key"),
    ("mce_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t7", "environment key"),
    ("mci_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t7", "item token"),
    ("mcg_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t7", "gateway's own key"),
    ("sk-ant-api03-abcdefghijklmnop", "Anthropic API key"),
    ("sk-ant-oat01-abcdefghijklmnop", "Anthropic access or environment key"),
    ("mca_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t", "incomplete or altered"),
];

/// The ids of a world, in the place of a path's parameters.
struct Places(Vec<(&'static str, String)>);

impl Places {
    async fn of(world: &World) -> Self {
        let tunnel = world.tunnel("mine").await;
        let made = world
            .post(&format!("/v1/tunnels/{tunnel}/certificates"), pem())
            .await;
        let certificate = text(&made.body, "id");
        let body = json!({ "gateway_key_fingerprint": key(1).to_string() });
        let made = world
            .post(&format!("/v1/tunnels/{tunnel}/connections"), body)
            .await;
        let connection = text(&made.body, "id");
        let made = world.post("/v1/caller_keys", name()).await;
        let key = text(&made.body, "id");
        Self(vec![
            ("{tunnel}", tunnel),
            ("{certificate}", certificate),
            ("{connection}", connection),
            ("{key}", key),
        ])
    }

    fn fill(&self, path: &str) -> String {
        self.0
            .iter()
            .fold(path.to_owned(), |path, (name, id)| path.replace(name, id))
    }

    /// Ids of the same kinds that nothing has.
    fn missing(path: &str) -> String {
        let nothing = "0".repeat(26);
        path.replace("{tunnel}", &format!("tnl_{nothing}"))
            .replace("{certificate}", &format!("tcrt_{nothing}"))
            .replace("{connection}", &format!("tcon_{nothing}"))
            .replace("{key}", &format!("ckey_{nothing}"))
    }
}

#[test]
fn the_table_has_every_route_and_its_permission() {
    let told = |method: &str, path: &str, needs: Permission| format!("{method} {path} {needs}");
    let table: BTreeSet<String> = OURS
        .iter()
        .chain(&VENDORS)
        .map(|case| told(case.method, case.path, case.needs))
        .collect();
    let declared: BTreeSet<String> = Console::routes()
        .map(|(method, path, needs)| told(method.as_str(), path, needs))
        .collect();
    assert_eq!(declared, table);
}

#[tokio::test]
async fn every_route_takes_the_credential_that_it_declares_and_no_other() {
    for case in OURS.iter().chain(&VENDORS) {
        let mut world = World::new().await;
        let places = Places::of(&world).await;
        let path = places.fill(case.path);
        let at = format!("{} {}", case.method, case.path);
        refuses_strangers(&world, case, &path, &at).await;
        treats_foreign_as_missing(&world, case, &path, &at).await;
        asks_for_its_permission(&mut world, case, &path, &at).await;
    }
}

async fn refuses_strangers(world: &World, case: &Case, path: &str, at: &str) {
    let request = common::request(case.method, path, &[], &(case.body)());
    let answer = world.send(request).await;
    assert_eq!(
        answer.status, 401,
        "{at} without a credential: {}",
        answer.body
    );
    for (credential, noun) in WRONG_KINDS {
        for header in [
            ("x-api-key", credential.to_owned()),
            ("authorization", format!("Bearer {credential}")),
        ] {
            let headers = [(header.0, header.1.as_str())];
            let request = common::request(case.method, path, &headers, &(case.body)());
            let answer = world.send(request).await;
            assert_eq!(answer.status, 401, "{at} with {noun}");
            let told = answer.body.to_string();
            assert!(told.contains(noun), "{at}: {told} does not name the {noun}");
            assert!(!told.contains(&credential[8..]), "{at} echoes the {noun}");
        }
    }
}

#[tokio::test]
async fn a_key_that_was_never_made_is_not_known() {
    let world = World::new().await;
    let key = mcp_tunnel_auth::ApiKey::from_entropy([99; 32]).encode();
    let key = secrecy::ExposeSecret::expose_secret(&key);
    let answer = world.call("GET", "/v1/tunnels", key, &Value::Null).await;
    assert_eq!(answer.status, 401);
    assert!(text(&answer.body["error"], "message").contains("not known here"));
}

async fn treats_foreign_as_missing(world: &World, case: &Case, path: &str, at: &str) {
    if !case.path.contains('{') {
        return;
    }
    let foreign = world
        .call(case.method, path, &world.abroad, &(case.body)())
        .await;
    assert_eq!(foreign.status, 404, "{at} from abroad: {}", foreign.body);
    for missing in [
        Places::missing(case.path),
        case.path.replace(['{', '}'], ""),
    ] {
        let missing = world
            .call(case.method, &missing, &world.abroad, &(case.body)())
            .await;
        assert_eq!(missing.status, 404, "{at}");
        let (a, b) = (&foreign.body["error"], &missing.body["error"]);
        assert_eq!(a, b, "{at}: foreign and missing differ");
        let names = |headers: &http::HeaderMap| -> BTreeSet<String> {
            headers.keys().map(ToString::to_string).collect()
        };
        assert_eq!(names(&foreign.headers), names(&missing.headers), "{at}");
    }
}

async fn asks_for_its_permission(world: &mut World, case: &Case, path: &str, at: &str) {
    let without = world
        .key(HOME, Permissions::all().without(case.needs))
        .await;
    let only = world.key(HOME, Permissions::none().with(case.needs)).await;
    let none = world.key(HOME, Permissions::none()).await;
    for lacking in [&without, &none] {
        let answer = world.call(case.method, path, lacking, &(case.body)()).await;
        assert_eq!(
            answer.status, 403,
            "{at} without {}: {}",
            case.needs, answer.body
        );
        assert!(answer.body.to_string().contains(case.needs.as_str()));
    }
    let answer = world.call(case.method, path, &only, &(case.body)()).await;
    assert_eq!(
        answer.status, 200,
        "{at} with {}: {}",
        case.needs, answer.body
    );
    // The second time the present state may be against it, but nothing else.
    let answer = world
        .call(case.method, path, &world.home, &(case.body)())
        .await;
    assert!(
        [200, 409].contains(&answer.status.as_u16()),
        "{at}: {}",
        answer.body
    );
}

#[tokio::test]
async fn letting_everybody_in_needs_the_permission_to_let_anybody_in() {
    let mut world = World::new().await;
    let path = format!("/v1/tunnels/{}/settings", world.tunnel("a").await);
    let manager = world
        .key(
            HOME,
            Permissions::all().without(Permission::ConnectionsApprove),
        )
        .await;
    let auto = json!({ "approval": "auto" });
    let manual = json!({ "approval": "manual" });
    assert_eq!(world.call("POST", &path, &manager, &auto).await.status, 403);
    assert_eq!(
        world.call("POST", &path, &manager, &manual).await.status,
        200
    );
    let manager = world
        .key(
            HOME,
            Permissions::all().without(Permission::CallerKeysManage),
        )
        .await;
    let open = json!({ "caller_auth": "upstream" });
    assert_eq!(world.call("POST", &path, &manager, &open).await.status, 403);
    let answer = world.call("POST", &path, &world.home, &open).await;
    assert_eq!(answer.body["open_to_any_caller"], true);
}

#[tokio::test]
async fn a_revoked_key_opens_nothing() {
    use mcp_console::store::{Change, KeyStore as _};
    use mcp_tunnel_auth::{ApiKey, WorkspaceId};
    let world = World::new().await;
    let hash = ApiKey::parse(&world.home).unwrap().hash();
    let record = world.store.api_key(hash).await.unwrap().unwrap();
    let home = WorkspaceId::parse(HOME).unwrap();
    let change = Change::new("audit_x", home, "test", jiff::Timestamp::now());
    world
        .store
        .revoke_api_key(&change, record.id)
        .await
        .unwrap();
    let answer = world.get("/v1/tunnels").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.body["error"]["type"], "authentication_error");
}
