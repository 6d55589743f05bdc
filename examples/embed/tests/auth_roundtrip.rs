//! Runs the example of the same name.

#[path = "../examples/auth_roundtrip.rs"]
mod example;

#[test]
fn auth_roundtrip_runs() {
    example::main().unwrap();
}
