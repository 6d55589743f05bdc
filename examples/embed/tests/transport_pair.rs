//! Runs the example of the same name.

#[path = "../examples/transport_pair.rs"]
mod example;

#[test]
fn transport_pair_runs() {
    example::main().unwrap();
}
