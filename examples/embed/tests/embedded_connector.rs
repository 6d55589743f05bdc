//! Runs the example of the same name.

#[path = "../examples/embedded_connector.rs"]
mod example;

#[test]
fn embedded_connector_runs() {
    example::main().unwrap();
}
