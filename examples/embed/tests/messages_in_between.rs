//! Runs the example of the same name.

#[path = "../examples/messages_in_between.rs"]
mod example;

#[test]
fn messages_in_between_runs() {
    example::main().unwrap();
}
