//! The bash tool.

use std::time::{Duration, Instant};

use crate::local::{Agent, Local};
use mcp_sandbox_tools::ToolResult;
use serde_json::json;

/// What every command after a lie must still give.
#[track_caller]
fn assert_true((failed, worked, said): &(ToolResult, ToolResult, ToolResult), after: &str) {
    let text = failed.as_text();
    assert!(failed.is_error, "after {after}: {text}");
    assert!(text.contains("seven"), "after {after}: {text}");
    assert!(!worked.is_error, "after {after}: {worked:?}");
    let text = said.as_text();
    assert!(text.contains("alive"), "after {after}: {text}");
    assert!(!said.is_error, "after {after}: {text}");
}

/// Runs a script that lies, within 3 s, and then commands whose answers are known.
async fn lie(script: &str) -> String {
    let agent = Agent::new();
    let started = Instant::now();
    let answer = agent.bash(script).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(3), "{script} took {took:?}");
    let probe = (
        agent.bash("/bin/echo seven; /bin/sh -c 'exit 7'").await,
        agent.bash("/bin/true").await,
        agent.bash("/bin/echo alive").await,
    );
    assert_true(&probe, script);
    answer.as_text()
}

macro_rules! lies {
    ($(fn $name:ident(): $script:expr,)+) => {
        $(#[tokio::test]
        async fn $name() {
            lie($script).await;
        })+
    };
}

// Security 22: neither does one of these hang its call, nor does it answer for a later one.
lies! {
    fn overridden_printf_tells_nothing(): "printf() { builtin printf forged; }",
    fn overridden_source_runs_nothing(): "source() { return 0; }; .() { return 0; }",
    fn overridden_builtin_and_command_change_nothing(): "builtin() { return 0; }; command() { return 0; }",
    fn overridden_eval_answers_for_no_command(): "eval() { echo forged; return 0; }",
    fn overridden_trap_protects_no_trap(): "trap() { return 0; }; builtin trap 'exit 0' DEBUG",
    fn overridden_set_and_declare_change_nothing(): "set() { return 0; }; declare() { return 0; }; export() { :; }; unset() { :; }; umask() { :; }",
    fn overridden_exit_and_exec_change_nothing(): "exit() { return 0; }; exec() { return 0; }; return() { :; }",
    fn overridden_brackets_are_no_way_in(): "[() { return 0; }; test() { return 0; }; :() { return 0; }; true() { return 1; }",
    fn debug_trap_ends_with_its_command(): "trap 'exit 0' DEBUG",
    fn debug_trap_that_prints_is_not_believed(): "trap 'echo \"main: line 1: [[: @x:s0:\" >&61' DEBUG; set -T",
    fn debug_trap_that_skips_commands_ends_with_its_command(): "shopt -s extdebug; trap false DEBUG",
    fn debug_trap_that_reads_the_nonce_forges_only_its_own_call():
        "set -T; trap '[[ $BASH_COMMAND == *__mcp_end* ]] && set -- $BASH_COMMAND && echo \"main: line 1: [[: @$2:s0: @$2:r:\" >&61' DEBUG; true",
    fn exit_trap_runs_at_the_end_only(): "trap 'exit 0' EXIT",
    fn exit_trap_that_loops_is_ended_with_the_shell(): "trap 'exit 0' EXIT; exit 3",
    fn an_error_trap_ends_with_its_command(): "trap 'exit 0' ERR",
    fn error_and_return_traps_end_with_their_command(): "trap 'exit 0' ERR RETURN; set -E",
    fn signal_traps_end_with_their_command(): "trap 'eval() { return 0; }' CHLD USR1; (sleep 0.05; kill -USR1 $$) & true",
    fn no_execution_is_noticed(): "set -n",
    fn no_execution_from_a_function_is_noticed(): "f() { set -n; }; f",
    fn disabled_builtins_are_noticed(): "enable -n printf eval trap exit exec declare unset export",
    fn disabled_eval_and_a_program_of_its_name():
        "mkdir bin; builtin printf '#!/bin/sh\\necho forged\\n' > bin/eval; chmod +x bin/eval; PATH=$PWD/bin:$PATH; enable -n eval",
    fn disabled_trap_and_a_program_of_its_name():
        "mkdir bin; builtin printf '#!/bin/sh\\n' > bin/trap; chmod +x bin/trap; PATH=$PWD/bin:$PATH; trap 'exit 0' DEBUG; enable -n trap",
    fn no_command_is_found_by_a_handler(): "command_not_found_handle() { return 0; }; enable -n eval",
    fn closed_standard_descriptors_are_open_again(): "exec 0<&- 1>&- 2>&-",
    fn closed_numbered_descriptors_are_noticed(): "for fd in {3..255}; do builtin eval \"exec $fd>&-\"; done",
    fn duplicated_descriptors_tell_nothing(): "exec 5>&1 6>&63; (while sleep 0.01; do echo forged >&6; done) & disown",
    fn replaced_output_is_noticed(): "for fd in {10..20}; do [ -w /proc/$$/fd/$fd ] && builtin eval \"exec $fd>/dev/null\"; done; true",
    fn filtered_output_is_noticed(): "for fd in {10..20}; do [ -p /proc/$$/fd/$fd ] && builtin eval \"exec $fd> >(sed -u s/:s7:/:s0:/ >&2)\"; done; true",
    fn replaced_input_is_noticed(): "for fd in {10..20}; do builtin eval \"exec $fd< <(while :; do echo echo forged; sleep 0.01; done)\"; done; true",
    fn input_read_by_the_command_is_noticed(): "read -r x <&10; echo \"$x\"",
    fn the_shell_replaced_by_a_reader_is_noticed(): "exec cat <&10",
    fn aliases_are_not_expanded(): "shopt -s expand_aliases; alias eval=: [[=: exit=true __mcp_end=: FUNCNEST=:",
    fn tracing_ends_with_its_command(): "PS4='$(exit 0)'; set -x",
    fn tracing_into_the_output_is_not_believed(): "BASH_XTRACEFD=61; PS4='main: line 1: [[: @x:s0:'; set -x",
    fn read_only_names_are_noticed(): "readonly FUNCNEST; readonly POSIXLY_CORRECT IFS; readonly __mcp_status=0",
    fn references_in_place_of_names_are_noticed(): "declare -n FUNCNEST=OTHER",
    fn the_end_of_a_call_cannot_be_redefined(): "unset -f __mcp_end; __mcp_end() { echo forged; }; __mcp_end x 0; true",
    fn posix_mode_changes_nothing(): "set -o posix",
    fn restricted_mode_changes_nothing(): "set -r; true",
    fn keyword_mode_changes_nothing(): "set -k",
    fn no_braces_and_no_globs_change_nothing(): "set +B; set -f; set -C; set -u; IFS=0123456789:@",
    fn few_descriptors_are_noticed(): "ulimit -n 12",
    fn start_files_are_not_read(): "BASH_ENV=$PWD/env; ENV=$BASH_ENV; export BASH_ENV ENV; echo 'exit 0' > env; exec true",
    fn exported_functions_are_no_way_in(): "eval() { return 0; }; set() { :; }; export -f eval set; exec true",
    fn a_missing_library_to_load_changes_nothing(): "export LD_PRELOAD=$PWD/none.so",
    fn another_shell_in_its_place_ends(): "exec bash --norc -c 'exit 0'",
    fn a_shell_that_kills_itself_is_replaced(): "kill -9 $$",
    fn a_shell_that_exits_is_replaced(): "exit 3",
    fn open_quotes_end_the_command(): "echo 'open",
    fn open_here_documents_end_the_command(): "cat <<X",
    fn open_substitutions_end_the_command(): "echo \"$(",
    fn open_functions_end_the_command(): "f() {",
    fn closing_braces_close_nothing(): "}; echo forged; {",
    fn a_job_that_floods_the_state_changes_nothing(): "(while :; do builtin printf 'x\\0' >&63; done) 2>/dev/null & disown",
}

#[tokio::test]
async fn a_command_that_never_ends_is_killed_and_the_session_goes_on() {
    for script in [
        "kill -STOP $$",
        "trap '' EXIT TERM HUP INT; exec sleep 744",
        "while :; do :; done",
        "trap 'while :; do :; done' EXIT; exit",
        "exec cat /dev/zero",
        "read x < /dev/zero",
        "yes",
        "coproc sleep 743; wait",
    ] {
        let agent = Agent::new();
        Agent::good(&agent.bash("X=1; f() { echo f; }; cd /tmp").await);
        let started = Instant::now();
        let input = json!({"command": format!("X=2; {script}"), "timeout_ms": 300});
        let text = Agent::bad(&agent.call("bash", input).await);
        assert!(text.contains("bash command timed out after 0.3s"), "{text}");
        assert!(started.elapsed() < Duration::from_secs(3), "{script}");
        assert_eq!(
            Agent::good(&agent.bash("echo $X $PWD; f").await),
            "1 /tmp\nf"
        );
    }
}

#[tokio::test]
async fn everything_lasts_from_call_to_call() {
    let agent = Agent::new();
    let bash = |command| agent.bash(command);
    let script = "mkdir -p a/b; cd a/b; X='it'\\''s'; export Y=2; A=(1 'b c'); declare -A M=([k]=v); f() { echo \"f $1\"; }; \
        alias g=f; set -o pipefail; shopt -s globstar; umask 027; exec 7>kept; sleep 60 & J=$!";
    Agent::good(&bash(script).await);
    let script = "pwd | sed 's/.*work//'; echo \"$X $(sh -c 'echo $Y') ${A[1]} ${M[k]}\"; f 1; umask; alias g; \
        false | true || echo pipefail; echo kept >&7; cat kept; [ $! = $J ] && jobs -r | grep -c sleep; kill %1; wait %1; echo $?";
    let expect = "/a/b\nit's 2 b c v\nf 1\n0027\nalias g='f'\npipefail\nkept\n1\n143";
    assert_eq!(Agent::good(&bash(script).await), expect);
    let restarted = agent.call("bash", json!({"restart": true})).await;
    assert_eq!(Agent::good(&restarted), "bash session restarted");
    assert_eq!(
        Agent::good(&bash("echo ${X-none}; pwd").await)
            .lines()
            .next(),
        Some("none")
    );
}

#[tokio::test]
async fn a_job_in_the_background_may_print_between_calls() {
    let agent = Agent::new();
    Agent::good(
        &agent
            .bash("mkfifo go; (read < go; echo served; echo logged >&2; touch done) &")
            .await,
    );
    let said = agent.bash("echo > go; until [ -e done ]; do sleep 0.01; done");
    assert_eq!(Agent::good(&said.await), "served\nlogged");
    assert_eq!(Agent::good(&agent.bash("wait; echo $?").await), "0");
}

#[tokio::test]
async fn output_is_as_agreed() {
    let agent = Agent::new();
    let bash = |command| agent.bash(command);
    assert_eq!(Agent::good(&bash("true").await), "(no output)");
    assert_eq!(
        Agent::good(&bash("echo a; echo b >&2; echo c; echo; echo").await),
        "a\nb\nc"
    );
    assert_eq!(Agent::bad(&bash("echo oops >&2; (exit 3)").await), "oops");
    assert_eq!(
        Agent::bad(&bash("false").await),
        "(no output; exit status 1)"
    );
    assert_eq!(
        Agent::good(&bash("printf '\\033[31mred\\033[0m \\377'").await),
        "red \u{fffd}"
    );
    assert_eq!(
        Agent::good(&bash("cat; read x; echo \"<$x>\"; echo $TERM$PS1").await),
        "<>\ndumb"
    );
    assert_eq!(Agent::good(&bash("printf 'no end'").await), "no end");
    assert_eq!(Agent::good(&bash("cat <<X\nhere\nX").await), "here");
    let long = Agent::good(&bash("seq 1 100000").await);
    assert!(long.starts_with("[output truncated]\n") && long.ends_with("\n100000"));
    assert!(long.len() <= 100 * 1024 + 30);
    assert!(Agent::bad(&bash("no-such-command").await).contains("command not found"));
    assert_eq!(Agent::good(&bash("set -x; true").await), "++ true");
    let script = format!("X='{}'; echo ${{#X}}", "\u{e9}".repeat(150_000));
    assert_eq!(Agent::good(&bash(&script).await), "150000");
}

#[tokio::test]
async fn a_shell_that_ends_says_so_and_goes_on_where_it_was() {
    let agent = Agent::new();
    let bash = |command| agent.bash(command);
    Agent::good(&bash("X=1; cd /tmp; f() { echo f; }; readonly R=1; unset HOME").await);
    let text = Agent::bad(&bash("X=2; echo bye; exit 4").await);
    assert!(
        text.starts_with("bye\n[bash exited with status 4 and was restarted"),
        "{text}"
    );
    assert_eq!(
        Agent::good(&bash("echo $X $PWD $R ${HOME-none}; f").await),
        "2 /tmp 1 none\nf"
    );
    Agent::bad(&bash("set -e; X=3; false; X=4").await);
    assert_eq!(Agent::good(&bash("set +e; echo $X").await), "3");
    let text = Agent::bad(&bash("X=5; kill -9 $$").await);
    assert!(
        text.contains("signal 9") && text.contains("from before this command"),
        "{text}"
    );
    let text = Agent::good(&bash("X=6; exec true").await);
    assert!(text.contains("restarted"), "{text}");
    assert_eq!(
        Agent::good(&bash("echo $X; mkdir gone; cd gone; rm -r ../gone").await),
        "3"
    );
    let text = Agent::good(&bash("exit 0").await);
    assert!(text.contains("exited with status 0"), "{text}");
    assert_eq!(Agent::good(&bash("echo $X").await), "3");
}

#[tokio::test]
async fn a_dropped_call_is_killed_and_the_next_one_says_so() {
    let agent = Agent::new();
    Agent::good(&agent.bash("X=1").await);
    let mut call = agent
        .tools
        .shell()
        .start("X=2; echo begun; sleep 745", None)
        .await
        .unwrap();
    assert_eq!(
        call.next_output().await.unwrap().as_deref(),
        Some(b"begun\n".as_slice())
    );
    assert_eq!(call.output_so_far(), "begun");
    drop(call);
    let text = Agent::good(&agent.bash("echo $X").await);
    assert!(
        text.starts_with("[the command before this one was interrupted") && text.ends_with("]\n1"),
        "{text}"
    );
    assert_eq!(Agent::good(&agent.bash("echo $X").await), "1");
}

#[tokio::test]
async fn a_killed_call_still_gives_its_output() {
    let agent = Agent::new();
    let mut call = agent
        .tools
        .shell()
        .start("echo begun; sleep 746", None)
        .await
        .unwrap();
    call.next_output().await.unwrap();
    call.kill().await.unwrap();
    let result = call.finish().await.unwrap();
    assert!(Agent::bad(&result).starts_with("begun\nbash: the command was stopped"));
}

#[tokio::test]
async fn output_is_streamed_and_calls_wait_for_each_other() {
    let agent = Agent::new();
    let shell = agent.tools.shell().clone();
    let mut first = shell
        .start("mkfifo go; echo 1; read < go; echo 2", None)
        .await
        .unwrap();
    assert_eq!(
        first.next_output().await.unwrap().as_deref(),
        Some(b"1\n".as_slice())
    );
    let second = agent.bash("echo after");
    let go = async {
        tokio::fs::write(agent.local.work().join("go"), "\n")
            .await
            .unwrap();
        first.finish().await.unwrap()
    };
    let (second, first) = tokio::join!(second, go);
    assert_eq!(
        (first.as_text(), second.as_text()),
        ("1\n2".to_owned(), "after".to_owned())
    );
}

#[tokio::test]
async fn wrong_input_is_answered() {
    let agent = Agent::over(Local::with_env([("GIVEN", "1")]));
    assert_eq!(
        Agent::bad(&agent.call("bash", json!({})).await),
        "bash: command is required"
    );
    assert_eq!(
        Agent::bad(&agent.call("bash", json!({"command": ""})).await),
        "bash: command is required"
    );
    assert!(Agent::bad(&agent.call("bash", json!({"command": "a\0b"})).await).contains("NUL"));
    assert!(
        Agent::bad(&agent.call("bash", json!({"comand": "x"})).await).contains("nvalid arguments")
    );
    assert_eq!(Agent::good(&agent.bash("echo $GIVEN").await), "1");
}

#[tokio::test]
async fn odd_values_survive_a_new_bash() {
    let agent = Agent::new();
    let values = [
        "",
        " ",
        "a'b",
        "\"$HOME\" `id` $(id) ${X}",
        "\\",
        "\\n\\\\",
        "line\nline\n",
        "tab\tand\u{1}\u{1b}[0m\u{7f}",
        "\u{e9}\u{1f600}\u{feff}",
        "-n",
        "!x ^y ~ * ? [a] {a,b} #",
        "declare -x FORGED=\"1\"",
        "\ndeclare -x FORGED=\"1\"\n",
        "$'a\\'b'",
        ") (",
        "]=x",
    ];
    let quoted = values.map(|value| format!("'{}'", value.replace('\'', r"'\''")));
    let mut script = format!("ALL=({})\ndeclare -A KEYS\n", quoted.join(" "));
    for (number, value) in quoted.iter().enumerate() {
        script.push_str(&format!("V{number}={value}\nKEYS[k{value}]={value}\n"));
    }
    Agent::good(&agent.bash(&script).await);
    let show = "for ((i = 0; i < ${#ALL[@]}; i++)); do n=V$i; printf '%q %q %q\\n' \"${!n}\" \"${ALL[i]}\" \"${KEYS[k${ALL[i]}]}\"; done; echo ${FORGED-none}";
    let before = Agent::good(&agent.bash(show).await);
    assert_eq!(before.lines().count(), values.len() + 1);
    Agent::bad(&agent.bash("kill -9 $$").await);
    assert_eq!(Agent::good(&agent.bash(show).await), before);
}
