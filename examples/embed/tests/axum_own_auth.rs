//! Runs the example of the same name.

#[path = "../examples/axum_own_auth.rs"]
mod example;

#[test]
fn axum_own_auth_runs() {
    example::main().unwrap();
}
