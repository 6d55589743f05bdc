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
//! - Where the backend has shielded streams ([`Says::Apart`]), the shell's own words come on one on which the kernel tells who
//!   is speaking, and begin with the line that the shell has read. So a process that an earlier command has left behind, and
//!   that holds the shell's descriptors, can neither speak for it nor give it another line unnoticed.
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
pub(super) fn hello(nonce: &str, says: Says) -> String {
    let (errors, to) = match says {
        Says::OnOutput => (" 2>&1", TO_OUTPUT),
        Says::Apart => ("", ""),
    };
    format!(
        "POSIXLY_CORRECT=1\n\
         exec 61>&1 63>&2 >/dev/null{errors}\n\
         __mcp_in=$(</proc/self/fdinfo/0) __mcp_out=$(</proc/self/fdinfo/61)\n\
         __mcp_in=${{__mcp_in##*ino:}} __mcp_out=${{__mcp_out##*ino:}}\n\
         ! [[ \"@{nonce}:s$$,${{__mcp_in%%[!0-9\t]*}},${{__mcp_out%%[!0-9\t]*}}:\" -eq 0 ]]{to}\n\
         ! [[ \"@{nonce}:r:\" -eq 0 ]]{to}\n"
    )
}

/// Where a shell says how its commands ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// At the end of their output.
    OnOutput,
    /// On its standard error, where it alone is heard; there it also repeats each line that it has read (`set -v`), so that
    /// a line of which another process has taken a part is noticed.
    Apart,
}

const TO_OUTPUT: &str = " 2>&61";

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
pub(super) fn set_up(identity: &Identity, state: &State, nonce: &str, says: Says) -> String {
    let same = |descriptor: u8, inode: Option<u64>| match inode {
        Some(inode) => {
            // More lines may follow.
            format!("&& $(</proc/self/fdinfo/{descriptor}) == *ino:*[!0-9]{inode}?([!0-9]*) ")
        }
        None => String::new(),
    };
    let (input, output) = (same(0, identity.input), same(61, identity.output));
    let signals = signals();
    let (to, silent, repeat) = match says {
        Says::OnOutput => (TO_OUTPUT, "+x", ""),
        Says::Apart => ("", "+xv", "set -v && "),
    };
    format!(
        "__mcp_end() {{ ! [[ \"@$1:s$2:\" -eq 0 ]]{to}; \
         [[ -R FUNCNEST ]] || {{ FUNCNEST=1; set {silent} -- \"$1\"; \
         trap 'set -- \"$@\" t' DEBUG; ((1)); trap - DEBUG RETURN {signals}; \
         eval 'set -- \"$@\" e'; \
         [[ $2${{!#}} == te && $- != *x* {input}{output}]] && {SAY} && FUNCNEST=0 && {repeat}! [[ \"@$1:r:\" -eq 0 ]]{to} \
         || ! [[ \"@$1:b:\" -eq 0 ]]{to}; }}; }}\n\
         __mcp_exit() {{ FUNCNEST=1; set +xveu; {SAY}; }}\n\
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
pub(super) fn call(command: &str, nonce: &str, says: Says) -> String {
    let silent = match says {
        Says::OnOutput => "",
        Says::Apart => "\\set +v;",
    };
    format!(
        "{silent}LINENO=0;\\eval {} </dev/null >&61 2>&61 61>&-;\\__mcp_end {nonce} \"$?\";\\trap - ERR\n",
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
        let line = "LINENO=0;\\eval 'echo '\\''a'\\''\n' </dev/null >&61 2>&61 61>&-;\\__mcp_end N \"$?\";\\trap - ERR\n";
        assert_eq!(call("echo 'a'\n", "N", Says::OnOutput), line);
        assert_eq!(
            call("echo 'a'\n", "N", Says::Apart),
            format!("\\set +v;{line}")
        );
    }
}
