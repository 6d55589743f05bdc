//! The example passes the public suite.

#[path = "../examples/custom_executor.rs"]
mod example;

#[test]
fn an_executor_of_ones_own_passes_the_suite() {
    example::main();
}
