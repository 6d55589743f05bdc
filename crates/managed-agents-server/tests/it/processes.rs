//! Two servers on one file, as two processes are.

use serde_json::{Value, json};

use crate::common::{OPERATOR, World, bash, message};

/// The second one knows of the first one's environment.
async fn two(folder: &tempfile::TempDir) -> (World, World) {
    let file = folder.path().join("sessions.db");
    let mut one = World::at(&file, |config| config).await;
    let mut other = World::at(&file, |config| config).await;
    (one.environment, one.key) = one.environment("self_hosted").await;
    (other.environment, other.key) = (one.environment.clone(), one.key.clone());
    (one, other)
}

#[tokio::test]
async fn a_revoked_key_ends_its_streams_in_every_process() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = two(&folder).await;
    let session = one.session().await;
    let mut frames = other.stream(&session, &other.key).await;
    let keys = format!("/v1/environments/{}/keys", one.environment);
    let key = one.get(&keys).await.body["data"][0]["id"].clone();
    let revoke = format!("{keys}/{}/revoke", key.as_str().unwrap());
    assert_eq!(one.post(&revoke, Value::Null).await.status, 200);
    // No ping comes first, with which it would end anyhow.
    assert_eq!(frames.next().await, None);
}

#[tokio::test]
async fn what_one_process_writes_wakes_those_who_wait_in_another() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = two(&folder).await;
    let session = one.session().await;
    let mut frames = other.stream(&session, OPERATOR).await;
    one.send(&session, OPERATOR, message(&json!([bash("a")])))
        .await;
    let (kind, _) = frames.next().await.expect("it goes on");
    assert_eq!(kind, "user.message");
    // Whichever of the two has driven it, the worker of the other one is handed out the item, and both show the call.
    let held = other.held().await;
    assert_eq!(held.session, session);
    assert_eq!(one.calls(&session).await, other.calls(&session).await);
}
