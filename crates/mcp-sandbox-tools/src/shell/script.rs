//! What is typed into a shell.
//!
//! A shell is asked for nothing whose meaning a command could have changed:
//!
//! - The status is printed by syntax alone (see [`marks`](super::marks)).
//! - The function that ends a call is read-only, so that no command can replace it, and it is traced, so that a DEBUG trap is
//!   seen and cleared by it.
//! - With `FUNCNEST=1` the shell refuses to call a function from it: a builtin that a function hides is an error, not a lie.
//!   `set`, `trap` and `eval` must then show that they have changed this shell, which no program on the search path can.
//! - The descriptors that commands come from and output goes to must be the ones from the beginning.
//!
//! Then the shell says what its state is, on a stream of its own, and that it is ready. If it says anything else, or nothing
//! while it waits for a command, it is replaced by a new one with the state from before.

use super::quote::single;
use super::state::State;

/// Before what a shell says about itself; no variable can hold it.
pub(super) const SAID: &[u8] = b"\0\0state\0\0";

/// What a shell says about itself.
const SAY: &str = "{ printf '\\0\\0state\\0\\0'; declare -p; printf '\\0'; declare -F; printf '\\0'; declare -f; \
    printf '\\0%s\\0%s\\0' \"$SHELLOPTS\" \"$BASHOPTS\"; umask; printf '\\0%s\\0' \"$PWD\"; } >&63 2>/dev/null";

/// The program.
pub(super) const ARGV: [&str; 3] = ["/bin/bash", "--noprofile", "--norc"];

/// Signals that a trap may be set for, apart from EXIT, which lasts.
fn signals() -> String {
    let numbers = (1..32).chain(34..65).map(|number| number.to_string());
    numbers.collect::<Vec<_>>().join(" ")
}

/// The first lines: POSIX mode, in which special builtins come before functions; output kept at 61 and the state's stream
/// at 63; then who the shell is.
pub(super) fn hello(nonce: &str) -> String {
    format!(
        "POSIXLY_CORRECT=1\n\
         exec 61>&1 63>&2 >/dev/null 2>&1\n\
         __mcp_in=$(</proc/self/fdinfo/0) __mcp_out=$(</proc/self/fdinfo/61)\n\
         ! [[ \"@{nonce}:s$$,${{__mcp_in##*ino:}},${{__mcp_out##*ino:}}:\" -eq 0 ]] 2>&61\n\
         ! [[ \"@{nonce}:r:\" -eq 0 ]] 2>&61\n"
    )
}

/// Who a shell is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pid: u32,
    /// Inode of the pipe that commands come from, where the kernel says so.
    pub(super) input: Option<u64>,
    /// Inode of the pipe that output goes to.
    pub(super) output: Option<u64>,
}

impl Identity {
    pub(super) fn parse(status: &str) -> Option<Self> {
        let mut parts = status.split(',').map(str::trim);
        Some(Self {
            pid: parts.next()?.parse().ok()?,
            input: parts.next()?.parse().ok(),
            output: parts.next()?.parse().ok(),
        })
    }
}

/// The lines that make the shell ours, and give it a state.
///
/// A child that is killed before it has become a program may still run the EXIT trap: that is why it looks who it is, by syntax,
/// since a command there makes bash complain. (With any EXIT trap, bash now and then takes such a child for one that succeeded.)
pub(super) fn set_up(identity: &Identity, state: &State, nonce: &str) -> String {
    let same = |descriptor: u8, inode: Option<u64>| match inode {
        Some(inode) => {
            format!("&& $(</proc/self/fdinfo/{descriptor}) == *ino:*[!0-9]{inode} ")
        }
        None => String::new(),
    };
    let (input, output) = (same(0, identity.input), same(61, identity.output));
    let signals = signals();
    format!(
        "__mcp_end() {{ ! [[ \"@$1:s$2:\" -eq 0 ]] 2>&61; \
         [[ -R FUNCNEST ]] || {{ FUNCNEST=1; set +x -- \"$1\"; \
         trap 'set -- \"$@\" t' DEBUG; ((1)); trap - DEBUG RETURN {signals}; \
         eval 'set -- \"$@\" e'; \
         [[ $2${{!#}} == te && $- != *x* {input}{output}]] && {SAY} && FUNCNEST=0 && ! [[ \"@$1:r:\" -eq 0 ]] 2>&61 \
         || ! [[ \"@$1:b:\" -eq 0 ]] 2>&61; }}; }}\n\
         __mcp_exit() {{ FUNCNEST=1; set +xeu; {SAY}; }}\n\
         declare -ft __mcp_end\n\
         readonly -f __mcp_end __mcp_exit\n\
         trap '[[ $BASHPID == $$ ]] && \\__mcp_exit' EXIT\n\
         unset __mcp_in __mcp_out\n\
         eval {prelude}\n\
         unset POSIXLY_CORRECT\n\
         {options}\
         \\__mcp_end {nonce} 0\n",
        prelude = single(&state.prelude()),
        options = state.last_options(),
    )
}

/// One command. It is one line to the parser, so that nothing of it remains to be read while the command runs. An ERR trap is
/// hidden from the function, so that it ends here, where `trap` has just been shown to be the builtin.
pub(super) fn call(command: &str, nonce: &str) -> String {
    format!(
        "LINENO=0;\\eval {} </dev/null >&61 2>&61 61>&-;\\__mcp_end {nonce} \"$?\";\\trap - ERR\n",
        single(command)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_with_and_without_inodes() {
        let identity = |input, output| Identity {
            pid: 7,
            input,
            output,
        };
        assert_eq!(
            Identity::parse("7,\t12,\t34"),
            Some(identity(Some(12), Some(34)))
        );
        assert_eq!(Identity::parse("7,pos"), None);
        assert_eq!(Identity::parse("7,,"), Some(identity(None, None)));
        assert_eq!(Identity::parse("x,1,2"), None);
    }

    #[test]
    fn a_command_is_quoted_as_a_whole() {
        assert_eq!(
            call("echo 'a'\n", "N"),
            "LINENO=0;\\eval 'echo '\\''a'\\''\n' </dev/null >&61 2>&61 61>&-;\\__mcp_end N \"$?\";\\trap - ERR\n"
        );
    }
}
