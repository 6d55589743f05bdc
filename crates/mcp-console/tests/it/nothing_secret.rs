//! The database and the snapshot together authenticate as nothing.

use crate::common;
use crate::common::World;
use mcp_tunnel_auth::{ApiKey, CallerKey, TunnelToken};
use serde_json::Value;

#[tokio::test]
async fn a_read_of_the_database_and_the_snapshot_gives_no_credential() {
    let world = World::new().await;
    let secrets = common::secrets(&world).await;
    let mut seen = serde_json::to_vec(&**world.console.snapshots().borrow()).unwrap();
    for name in ["console.db", "console.db-wal"] {
        seen.extend(std::fs::read(world.file.with_file_name(name)).unwrap());
    }
    let text = String::from_utf8_lossy(&seen);
    for secret in &secrets {
        assert!(!text.contains(secret.as_str()));
        assert!(
            !text.contains(&secret[4..]),
            "not without its prefix either"
        );
        for bytes in raw(secret) {
            let found = seen.windows(bytes.len()).any(|window| window == bytes);
            assert!(!found, "the bytes behind {} are there", &secret[..4]);
        }
    }
    // What is there instead opens nothing.
    for hash in text.split('"').filter(|word| word.len() == 43) {
        for header in [hash.to_owned(), format!("mca_{hash}")] {
            let answer = world
                .call("GET", "/v1/tunnels", &header, &Value::Null)
                .await;
            assert_eq!(answer.status, 401);
        }
    }
}

/// The secret bytes of a credential.
fn raw(secret: &str) -> Vec<Vec<u8>> {
    const DIGITS: &str = "0123456789abcdefghjkmnpqrstvwxyz";
    if let Ok(token) = TunnelToken::parse(secret) {
        // Its encoding holds the seed behind version, tunnel id and token id.
        use base64::Engine as _;
        let encoded = &secret[4..];
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(encoded)
            .expect("a test value");
        drop(token);
        return vec![bytes[33..65].to_vec()];
    }
    assert!(ApiKey::parse(secret).is_ok() || CallerKey::parse(secret).is_ok());
    let half = |digits: &str| {
        let number = digits.chars().fold(0_u128, |number, digit| {
            (number << 5) | DIGITS.find(digit).expect("a test value") as u128
        });
        number.to_be_bytes().to_vec()
    };
    vec![half(&secret[4..30]), half(&secret[30..])]
}
