//! The example runs to its end.

#[path = "../examples/proto_pair.rs"]
mod example;

#[test]
fn a_download_over_a_virtual_link_arrives() {
    example::main().unwrap();
}
