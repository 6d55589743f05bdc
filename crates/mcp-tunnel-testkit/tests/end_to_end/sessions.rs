//! Sessions on the real cloud with real workers.

use anyhow::Result;
use mcp_tunnel_testkit::soak::sessions::{SessionsSoak, sessions};
use std::time::{Duration, SystemTime};

/// The short form of `cargo xtask soak sessions`.
#[tokio::test]
async fn sessions_end_with_each_effect_once_whatever_is_killed() -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = u64::from(now.subsec_micros());
    println!("seed {seed}");
    let mut soak = SessionsSoak::new(24, 3, Duration::from_secs(3), seed);
    soak.pause = (Duration::from_millis(400), Duration::from_millis(900));
    let Some(report) = sessions(soak).await? else {
        return Ok(());
    };
    println!("{report}");
    // Sessions that nobody heard of have calls too.
    assert!(report.calls >= 24 * 6, "{report}");
    assert!(report.worker_kills + report.cloud_kills > 0, "{report}");
    Ok(())
}
