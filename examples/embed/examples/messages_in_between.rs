//! What a program between an MCP client and a server sees of their messages: an id to answer with, the name of a
//! tool, and where in an event stream something may be put in.
//!
//! Run it with `cargo run -p embed --example messages_in_between`.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::{Context, ensure};
use mcp_messages::{
    Body, Failure, FailureCode, Hop, Message, RequestIdFinder, SseReader, SseScanner,
};

pub(crate) fn main() -> anyhow::Result<()> {
    // A call on its way: 1e400 is no number that Rust has, and passes all the same, since nothing is written again.
    let call = br#"{"jsonrpc":"2.0","id":"a-7","method":"tools/call","params":{"name":"search","arguments":{"q":1e400}}}"#;
    let Body::Single(Message::Request { id, method, params }) = Body::parse(call)? else {
        anyhow::bail!("one request was sent");
    };
    println!("{method} with id {} and params {params:?}", id.as_json());

    // The upload breaks off. Its first bytes are enough for an answer that the client can match.
    let mut finder = RequestIdFinder::new(8192);
    finder.feed(call.get(..40).context("it is longer")?);
    let failure = Failure::new(
        Hop::Server,
        FailureCode::Broken,
        "the MCP server closed the connection",
        "see its log",
    );
    let failure = failure.with_id(finder.id().cloned());
    let answer = String::from_utf8(failure.to_json())?;
    println!("{} {answer}", failure.status());
    ensure!(failure.status() == 502 && answer.contains(r#""id":"a-7""#));

    // An event stream in chunks as the network cuts them: a comment fits between events only.
    let (mut scanner, mut reader) = (SseScanner::new(), SseReader::new(64 * 1024));
    for (chunk, free) in [("data: {\"half\"", false), (":1}\n", false), ("\n", true)] {
        scanner.feed(chunk.as_bytes());
        reader.feed(chunk.as_bytes())?;
        ensure!(scanner.is_between_events() == free, "after {chunk:?}");
    }
    let event = reader.next_event().context("one event came")?;
    println!("event {}", event.data);
    ensure!(event.data == r#"{"half":1}"#);
    Ok(())
}
