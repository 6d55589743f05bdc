//! Nothing that is secret reaches a log. Alone in its file: which callsites are watched is
//! decided once a process.

#[expect(dead_code, reason = "one test needs little of it")]
#[path = "it/common.rs"]
mod common;

use std::io;
use std::sync::{Arc, Mutex};

use common::World;
use serde_json::Value;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_reaches_the_log_at_any_level() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let world = World::new().await;
    let secrets = common::secrets(&world).await;
    let wrong = "mck_00041061050r3gg28a1c60t3gf0g4h48h24rb90p8gm2hj64t7";
    world.call("GET", "/v1/tunnels", wrong, &Value::Null).await;
    drop(guard);
    let log = log.0.lock().unwrap();
    let text = String::from_utf8_lossy(&log);
    assert!(text.contains("request admitted"), "the log was watched");
    assert!(
        text.contains("request{id=\"req_"),
        "by the id that the answer has"
    );
    for secret in secrets.iter().map(String::as_str).chain([wrong]) {
        assert!(
            !text.contains(&secret[4..]),
            "{} is in the log",
            &secret[..4]
        );
    }
}
