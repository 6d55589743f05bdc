//! Runs the example of the same name.

#[path = "../examples/dial_guard.rs"]
mod example;

#[test]
fn dial_guard_runs() {
    example::main().unwrap();
}
