//! Runs the example of the same name.

#[path = "../examples/proto_threads.rs"]
mod example;

#[test]
fn proto_threads_runs() {
    example::main().unwrap();
}
