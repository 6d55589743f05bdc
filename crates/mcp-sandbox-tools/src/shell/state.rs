//! What lasts from call to call: read as data, written anew.

use std::collections::{BTreeMap, BTreeSet};

use super::quote::{single, word};

/// The state of a shell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    directory: String,
    /// Names that the sandbox itself sets, seen when the first call ended.
    given: BTreeSet<String>,
    variables: BTreeMap<String, Variable>,
    functions: BTreeMap<String, Function>,
    /// Of `set -o`; `None` before the first call has ended.
    options: Option<BTreeSet<String>>,
    shopt: Option<String>,
    umask: Option<String>,
}

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    /// Letters of `declare`, without `-`.
    attributes: String,
    value: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    /// Index or key, and value.
    Array(Vec<(String, String)>),
}

/// A function: its body as bash prints it, and whether it is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Function {
    body: String,
    exported: bool,
}

/// What bash sets by itself, or what is ours.
const OWN: &[&str] = &[
    "BASH",
    "BASHOPTS",
    "BASHPID",
    "BASH_ALIASES",
    "BASH_ARGC",
    "BASH_ARGV",
    "BASH_ARGV0",
    "BASH_CMDS",
    "BASH_COMMAND",
    "BASH_EXECUTION_STRING",
    "BASH_LINENO",
    "BASH_LOADABLES_PATH",
    "BASH_MONOSECONDS",
    "BASH_SOURCE",
    "BASH_SUBSHELL",
    "BASH_TRAPSIG",
    "BASH_XTRACEFD",
    "BASH_VERSINFO",
    "BASH_VERSION",
    "COMP_WORDBREAKS",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "FUNCNAME",
    "FUNCNEST",
    "GROUPS",
    "HISTCMD",
    "HOSTTYPE",
    "LINENO",
    "MACHTYPE",
    "OPTERR",
    "OSTYPE",
    "PIPESTATUS",
    "POSIXLY_CORRECT",
    "PPID",
    "PWD",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "UID",
    "_",
];

/// Builtins that the prelude uses and that are no special ones.
const USED: &[&str] = &["declare", "printf", "shopt", "test", "umask"];

/// Options that are carried over; the others are about how bash was started.
const OPTIONS: &[&str] = &[
    "allexport",
    "errexit",
    "errtrace",
    "functrace",
    "keyword",
    "noclobber",
    "noglob",
    "nounset",
    "pipefail",
    "physical",
    "verbose",
    "xtrace",
];
/// Options that are on unless switched off.
const ON: &[&str] = &["braceexpand", "hashall", "interactive-comments"];

impl State {
    pub(super) fn new(directory: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn directory(&self) -> &str {
        &self.directory
    }

    pub(super) fn enter(&mut self, directory: &str) {
        directory.clone_into(&mut self.directory);
    }

    /// Takes over what a shell said at its end; false, and unchanged, when it makes
    /// no sense.
    pub(super) fn take_over(&mut self, said: &[u8]) -> bool {
        let Some(mut next) = std::str::from_utf8(said).ok().and_then(parse) else {
            return false;
        };
        next.given = if self.options.is_none() {
            next.variables.keys().cloned().collect()
        } else {
            std::mem::take(&mut self.given)
        };
        *self = next;
        true
    }

    /// Environment of the next bash: functions, which bash checks as it imports them,
    /// and what it must know before its first line.
    pub(super) fn env(&self) -> Vec<(String, String)> {
        let mut env = vec![
            ("PS1".to_owned(), String::new()),
            ("PS2".to_owned(), String::new()),
            ("PWD".to_owned(), self.directory.clone()),
            ("TERM".to_owned(), "dumb".to_owned()),
        ];
        env.extend(self.functions.iter().map(|(name, function)| {
            (
                format!("BASH_FUNC_{name}%%"),
                format!("() {}", function.body),
            )
        }));
        env
    }

    /// Lines that make a new bash have this state, all but the options.
    pub(super) fn prelude(&self) -> String {
        let mut lines = String::new();
        for name in self
            .given
            .iter()
            .filter(|name| !self.variables.contains_key(*name))
        {
            lines.push_str(&format!("unset {name}\n"));
        }
        // References last: what they refer to must be there.
        let (references, plain): (Vec<_>, Vec<_>) = self
            .variables
            .iter()
            .partition(|(_, variable)| variable.attributes.contains('n'));
        for (name, variable) in plain.into_iter().chain(references) {
            lines.push_str(&variable.declaration(name));
        }
        let unexported = self
            .functions
            .iter()
            .filter(|(_, function)| !function.exported);
        for (name, _) in unexported {
            lines.push_str(&format!("export -nf {name}\n"));
        }
        if let Some(umask) = &self.umask {
            lines.push_str(&format!("umask {umask}\n"));
        }
        lines
    }

    /// Lines that come right before the command, in the mode in which it runs.
    pub(super) fn last_options(&self) -> String {
        let mut lines = String::new();
        match &self.shopt {
            Some(on) => {
                for name in SHOPT {
                    let flag = if on.split(':').any(|o| o == *name) {
                        "-s"
                    } else {
                        "-u"
                    };
                    lines.push_str(&format!("shopt {flag} {name}\n"));
                }
            }
            // POSIX mode has switched these on.
            None => lines.push_str("shopt -u expand_aliases inherit_errexit\n"),
        }
        if !self.variables.contains_key("IFS") {
            lines.push_str("IFS=$' \\t\\n'\n");
        }
        let Some(options) = &self.options else {
            return lines;
        };
        for name in ON.iter().filter(|name| !options.contains(**name)) {
            lines.push_str(&format!("set +o {name}\n"));
        }
        for name in OPTIONS.iter().filter(|name| options.contains(**name)) {
            lines.push_str(&format!("set -o {name}\n"));
        }
        lines
    }
}

/// Options of `shopt` that scripts set.
const SHOPT: &[&str] = &[
    "autocd",
    "cdable_vars",
    "cdspell",
    "dotglob",
    "expand_aliases",
    "extglob",
    "failglob",
    "globasciiranges",
    "globskipdots",
    "globstar",
    "inherit_errexit",
    "lastpipe",
    "localvar_inherit",
    "nocaseglob",
    "nocasematch",
    "nullglob",
    "shift_verbose",
    "sourcepath",
    "xpg_echo",
];

impl Variable {
    /// A line that declares it; everything is quoted by us.
    fn declaration(&self, name: &str) -> String {
        let flags = if self.attributes.is_empty() {
            "--".to_owned()
        } else {
            format!("-{}", self.attributes)
        };
        match &self.value {
            None => format!("declare {flags} {name}\n"),
            Some(Value::Text(text)) => format!("declare {flags} {name}={}\n", single(text)),
            Some(Value::Array(items)) => {
                let items = items.iter().map(|(key, value)| {
                    let key = if self.attributes.contains('A') {
                        single(key)
                    } else {
                        key.clone()
                    };
                    format!("[{key}]={}", single(value))
                });
                format!(
                    "declare {flags} {name}=({})\n",
                    items.collect::<Vec<_>>().join(" ")
                )
            }
        }
    }
}

fn parse(said: &str) -> Option<State> {
    let mut parts = said.split('\0');
    let variables = parse_variables(parts.next()?)?;
    let names = parse_function_names(parts.next()?)?;
    let functions = split_functions(parts.next()?, &names);
    let (options, shopt, umask, directory) = (
        parts.next()?,
        parts.next()?,
        parts.next()?.trim_end(),
        parts.next()?,
    );
    let plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_lowercase() || b"_:-".contains(&b) || b.is_ascii_digit())
    };
    let octal =
        !umask.is_empty() && umask.len() <= 4 && umask.bytes().all(|b| (b'0'..=b'7').contains(&b));
    // Nothing may follow: a second statement would be somebody else's.
    if parts.next() != Some("") || parts.next().is_some() {
        return None;
    }
    if !plain(options) || !plain(shopt) || !octal || !directory.starts_with('/') {
        return None;
    }
    Some(State {
        directory: directory.to_owned(),
        given: BTreeSet::new(),
        variables,
        functions,
        options: Some(options.split(':').map(str::to_owned).collect()),
        shopt: Some(shopt.to_owned()),
        umask: Some(umask.to_owned()),
    })
}

/// Reads the output of `declare -p`.
fn parse_variables(mut text: &str) -> Option<BTreeMap<String, Variable>> {
    let mut variables = BTreeMap::new();
    while !text.is_empty() {
        text = text.strip_prefix("declare -")?;
        let (flags, after) = text.split_once(' ')?;
        let end = after.find(['=', '\n'])?;
        let name = &after[..end];
        let attributes = flags.trim_matches('-').to_owned();
        if !is_name(name) || !attributes.bytes().all(|b| b.is_ascii_alphabetic()) {
            return None;
        }
        let (value, rest) = match after[end..].strip_prefix('=') {
            None => (None, &after[end..]),
            Some(list) if attributes.contains(['a', 'A']) => {
                let (items, rest) = parse_array(list)?;
                (Some(Value::Array(items)), rest)
            }
            Some(value) => {
                let (text, rest) = word(value, &['\n'])?;
                (Some(Value::Text(text)), rest)
            }
        };
        text = rest.strip_prefix('\n')?;
        let own = OWN.contains(&name) || (attributes.contains('r') && name.starts_with("BASH"));
        if !own && !name.starts_with("__mcp_") {
            variables.insert(name.to_owned(), Variable { attributes, value });
        }
    }
    Some(variables)
}

fn parse_array(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut rest = text.strip_prefix('(')?;
    let mut items = Vec::new();
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(after) = rest.strip_prefix(')') {
            return Some((items, after));
        }
        let (key, after) = word(rest.strip_prefix('[')?, &[']'])?;
        let (value, after) = word(after.strip_prefix("]=")?, &[' ', ')'])?;
        items.push((key, value));
        rest = after;
    }
}

/// Reads the output of `declare -F`: names in the order of `declare -f`.
fn parse_function_names(text: &str) -> Option<Vec<(String, bool)>> {
    let line = |line: &str| {
        let (flags, name) = line.strip_prefix("declare -")?.split_once(' ')?;
        Some((name.to_owned(), flags.contains('x')))
    };
    text.lines().map(line).collect()
}

/// Cuts the output of `declare -f` into bodies. What does not fit is left out.
fn split_functions(text: &str, names: &[(String, bool)]) -> BTreeMap<String, Function> {
    let mut functions = BTreeMap::new();
    let mut rest = text;
    for (at, (name, exported)) in names.iter().enumerate() {
        let Some(body) = rest.strip_prefix(&format!("{name} () \n")) else {
            break;
        };
        let end = match names.get(at + 1) {
            Some((next, _)) => body.find(&format!("\n{next} () \n")).map(|at| at + 1),
            None => Some(body.len()),
        };
        let Some(end) = end else { break };
        rest = &body[end..];
        let body = body[..end].trim_end_matches('\n');
        // After a function with attributes bash says so on a line of its own.
        let body = match body.rsplit_once('\n') {
            Some((body, last)) if last.starts_with("declare -f") => body,
            _ => body,
        };
        let carried =
            is_function_name(name) && !USED.contains(&name.as_str()) && !name.starts_with("__mcp_");
        if carried && body.starts_with('{') && body.ends_with('}') {
            functions.insert(
                name.clone(),
                Function {
                    body: body.to_owned(),
                    exported: *exported,
                },
            );
        }
    }
    functions
}

fn is_name(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Names that need no quoting; bash allows more.
fn is_function_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.:+@,".contains(&b);
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &str, names: &str, bodies: &str) -> Vec<u8> {
        format!("{variables}\0{names}\0{bodies}\0braceexpand:hashall\0extglob\00022\0/work\0")
            .into_bytes()
    }

    #[test]
    fn a_state_is_read_and_written_anew() {
        let variables = "declare -x A=\"1 \\\"2\\\"\"\ndeclare -a L=([0]=\"x\" [3]=$'a\\nb')\n\
            declare -A M=([\"k ]\"]=\"v\" )\ndeclare -- U\ndeclare -ir N=\"5\"\ndeclare -r UID=\"7\"\n";
        let bodies = "a-b () \n{ \n    echo 1\n}\nf () \n{ \n    echo 2\n}\n";
        let mut state = State::new("/");
        assert!(state.take_over(&said(variables, "declare -f a-b\ndeclare -fx f\n", bodies)));
        let prelude = state.prelude();
        for line in [
            "declare -x A='1 \"2\"'\n",
            "declare -a L=([0]='x' [3]='a\nb')\n",
            "declare -A M=(['k ]']='v')\n",
            "declare -- U\n",
            "declare -ir N='5'\n",
            "export -nf a-b\n",
            "umask 0022\n",
        ] {
            assert!(prelude.contains(line), "{line} in {prelude}");
        }
        assert!(!prelude.contains("UID"));
        assert_eq!(state.directory(), "/work");
        let env = state.env();
        assert!(env.contains(&(
            "BASH_FUNC_f%%".to_owned(),
            "() { \n    echo 2\n}".to_owned()
        )));
    }

    #[track_caller]
    fn check_refused(text: &[u8]) {
        let mut state = State::new("/before");
        assert!(
            !state.take_over(text),
            "{:?}",
            String::from_utf8_lossy(text)
        );
        assert_eq!(state, State::new("/before"));
    }

    #[test]
    fn what_bash_would_not_say_is_refused() {
        check_refused(b"");
        check_refused(b"\xff");
        check_refused(&said("rm -rf /\n", "", ""));
        check_refused(&said("declare -x A=\"open\n", "", ""));
        check_refused(&said("declare -x A;B=\"1\"\n", "", ""));
        check_refused(&said("declare -a A=([0]=\"1\"; id)\n", "", ""));
        check_refused(b"\0\0\0x\0y\x000022\0relative\0");
        check_refused(b"\0\0\0x\0y\0$(id)\0/\0");
        check_refused(&[said("", "", ""), said("", "", "")].concat());
    }

    #[test]
    fn functions_named_as_builtins_of_the_prelude_are_not_carried_over() {
        let mut state = State::new("/");
        let bodies =
            "declare () \n{ \n    :\n}\nprintf () \n{ \n    :\n}\nsource () \n{ \n    :\n}\n";
        assert!(state.take_over(&said(
            "",
            "declare -f declare\ndeclare -f printf\ndeclare -f source\n",
            bodies
        )));
        assert_eq!(state.functions.keys().collect::<Vec<_>>(), ["source"]);
    }
}
