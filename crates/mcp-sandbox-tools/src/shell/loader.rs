//! The command line that takes over a state, runs a command and hands a state on.
//!
//! Imported functions exist before the first line runs and may have any name. So
//! the first line is an assignment, which no function can override: it switches
//! POSIX mode on, in which special builtins (`eval`, `exec`, `trap`, `export`,
//! `unset`, `set`) are found before functions. Functions named as the other
//! builtins that are used (`declare`, `shopt`, `umask`) are not carried over.

use super::quote::single;
use super::state::State;

/// A bash to run.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
}

/// The kernel takes at most 128 KiB in one argument.
const ARGUMENT_BYTES: usize = 96 * 1024;

/// Joins the arguments, which are the prelude and the command in pieces, and runs
/// them; then hands the state on, unless the shell has ended, in which case the trap
/// has done so.
const MAIN: &str = "POSIXLY_CORRECT=1 IFS=\n\
    exec 63>&2 2>&1\n\
    eval \"$*\"\n\
    { __mcp_status=$? __mcp_said=1 __mcp_options=$SHELLOPTS __mcp_shopt=$BASHOPTS POSIXLY_CORRECT=1; \
    eval \"$__mcp_say\"; exit $__mcp_status; } 2>/dev/null\n";

/// The trap of a shell that ends early.
const AT_EXIT: &str = "trap 'case $__mcp_said in \"\") \
    __mcp_options=$SHELLOPTS __mcp_shopt=$BASHOPTS POSIXLY_CORRECT=1; eval \"$__mcp_say\";; esac' EXIT\n";

/// What a shell says about itself at its end. Written for any options and `IFS`.
const SAY: &str = "{ set +xeu; declare -p; printf '\\0'; declare -F; printf '\\0'; declare -f; \
    printf '\\0%s\\0%s\\0' \"$__mcp_options\" \"$__mcp_shopt\"; umask; printf '\\0%s\\0' \"$PWD\"; } \
    >&63 2>/dev/null";

pub(super) fn load(state: &State, command: &str) -> Loaded {
    let mut text = String::from("set --\n");
    text.push_str(&format!("__mcp_said= __mcp_say={}\n", single(SAY)));
    text.push_str(&state.prelude());
    text.push_str(AT_EXIT);
    text.push_str("unset POSIXLY_CORRECT\n");
    text.push_str(&state.last_options());
    text.push_str(command);
    text.push('\n');
    let mut argv = ["bash", "--noprofile", "--norc", "-c", MAIN, "/bin/bash"]
        .map(str::to_owned)
        .to_vec();
    argv.extend(pieces(&text));
    Loaded {
        argv,
        env: state.env(),
    }
}

/// Cuts a text between characters.
fn pieces(text: &str) -> Vec<String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while rest.len() > ARGUMENT_BYTES {
        let at = rest.floor_char_boundary(ARGUMENT_BYTES);
        let (piece, other) = rest.split_at(at);
        pieces.push(piece.to_owned());
        rest = other;
    }
    pieces.push(rest.to_owned());
    pieces
}
