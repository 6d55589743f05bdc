//! A main for tests that need the helper: runs named cases one after the other.

use std::env;
use std::future::Future;
use std::pin::Pin;

use mcp_sandbox_linux::{Config, LinuxExecutor};

/// A case: its name and what it does.
pub(crate) type Case = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// Lists async functions as cases.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => { &[$((stringify!($name), || Box::pin($name()))),+] };
}
pub(crate) use cases;

/// The main function of such a test.
pub(crate) fn main(cases: &[Case]) {
    mcp_sandbox_linux::enter_helper();
    if env::args().any(|argument| argument == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let filter = env::args()
        .nth(1)
        .filter(|argument| !argument.starts_with('-'));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    if let Err(error) = runtime.block_on(LinuxExecutor::start(Config::new())) {
        // Where everything is required a skip is a failure.
        assert!(
            env::var_os("CI_REQUIRE_ALL").is_none(),
            "no sandbox can be made here: {error}"
        );
        println!(
            "SKIPPED {} cases: no sandbox can be made here: {error}",
            cases.len()
        );
        return;
    }
    for (name, case) in cases {
        if filter
            .as_ref()
            .is_none_or(|text| name.contains(text.as_str()))
        {
            let started = std::time::Instant::now();
            runtime.block_on(case());
            println!("test {name} ... ok ({} ms)", started.elapsed().as_millis());
        }
    }
}
