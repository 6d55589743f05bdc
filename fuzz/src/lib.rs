//! Fuzz targets and their corpora.
//!
//! A target is a function from bytes that must not panic; where it can, it also checks what the bytes were read as. The
//! program `fuzz` gives one of them, named by `FUZZ_TARGET`, to libFuzzer; plain `cargo test` replays `corpus/NAME/*`.

#![forbid(unsafe_code)]

mod auth;
mod messages;
mod proto;
mod sandbox;
mod sessions;

/// A name, which is also that of its folder below `corpus`, and what it does with some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by crate.
pub const TARGETS: &[Target] = &[
    ("auth_credential", auth::credential),
    ("auth_text", auth::text),
    ("auth_token", auth::token),
    ("messages_envelope", messages::envelope),
    ("messages_request_id", messages::request_id),
    ("messages_sse", messages::sse),
    ("proto_frame", proto::frame),
    ("proto_hello", proto::hello),
    ("proto_peer", proto::peer),
    ("proto_session", proto::session),
    ("sandbox_archive", sandbox::archive),
    ("sandbox_control_groups", sandbox::control_groups),
    ("sandbox_glob_pattern", sandbox::glob_pattern),
    ("sandbox_packet", sandbox::packet),
    ("sandbox_path", sandbox::path),
    ("sandbox_shell_output", sandbox::shell_output),
    ("sandbox_shell_state", sandbox::shell_state),
    ("sandbox_tool_input", sandbox::tool_input),
    ("sessions_event", sessions::event),
    ("sessions_history", sessions::history),
    ("sessions_stream", sessions::stream),
];

/// The target with this name.
#[must_use]
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, run)| *run)
}
