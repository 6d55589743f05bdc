//! The agent toolset in a real sandbox.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with a main of its own"
)]

#[path = "support/holdings.rs"]
#[expect(dead_code, reason = "only the lock is of use here")]
mod holdings;
#[path = "support/left_behind.rs"]
mod left_behind;
mod support;
#[path = "support/user.rs"]
mod user;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_sandbox_executor::{Executor as _, FileHelper, Sandbox, SandboxSpec};
use mcp_sandbox_linux::{Config, LinuxExecutor};
use mcp_sandbox_tools::{Block, ToolResult, Toolset};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use left_behind::a_process_left_behind_cannot_answer_for_a_later_call;

fn main() {
    mcp_sandbox_linux::enter_helper();
    if user::is_second_run() {
        return support::main(support::cases![
            a_process_left_behind_cannot_answer_for_a_later_call,
        ]);
    }
    let _alone = holdings::alone();
    support::main(support::cases![
        state_lasts_from_call_to_call,
        output_and_status_are_as_agreed,
        no_output_comes_after_its_status,
        a_call_that_ends_the_shell_does_not_end_the_session,
        time_outs_kill_and_the_session_goes_on,
        background_processes_go_on,
        a_script_cannot_lie_for_a_later_call,
        a_script_cannot_hang_a_call,
        a_process_left_behind_cannot_answer_for_a_later_call,
        odd_state_is_carried_over,
        large_scripts_and_states_work,
        files_are_read_written_and_edited,
        images_and_documents_are_read_as_such,
        paths_outside_are_refused,
        files_are_found,
        text_is_found,
        the_helper_is_uploaded_where_there_is_none,
        and_as_an_ordinary_user,
    ]);
}

/// Where the commands' user is who makes their pipes.
async fn and_as_an_ordinary_user() {
    user::run_again(None);
}

/// One launcher for all cases.
static EXECUTOR: OnceCell<LinuxExecutor> = OnceCell::const_new();

struct Agent {
    tools: Toolset,
    sandbox: Arc<dyn Sandbox>,
}

impl Agent {
    async fn new() -> Self {
        let start = || async { LinuxExecutor::start(Config::new()).await.unwrap() };
        let executor = EXECUTOR.get_or_init(start).await;
        let sandbox: Arc<dyn Sandbox> = executor.create(SandboxSpec::new()).await.unwrap().into();
        let tools = Toolset::new(Arc::clone(&sandbox), FileHelper::BuiltIn);
        Self { tools, sandbox }
    }

    async fn call(&self, tool: &str, input: Value) -> ToolResult {
        self.tools.call(tool, &input).await.unwrap()
    }

    async fn bash(&self, command: &str) -> ToolResult {
        self.call("bash", json!({ "command": command, "timeout_ms": 10_000 }))
            .await
    }

    #[track_caller]
    fn good(result: ToolResult) -> String {
        assert!(!result.is_error, "{result:?}");
        result.as_text()
    }

    #[track_caller]
    fn bad(result: ToolResult) -> String {
        assert!(result.is_error, "{result:?}");
        result.as_text()
    }
}

async fn state_lasts_from_call_to_call() {
    let agent = Agent::new().await;
    let bash = |command| agent.bash(command);
    Agent::good(bash("mkdir -p a/b; cd a/b; X='it'\\''s \"x\"'; export Y=$'1\\n2'; f() { echo \"f $1\"; }; umask 027").await);
    assert_eq!(
        Agent::good(bash("pwd; echo \"$X|$Y\"; f 1; umask").await),
        "/workspace/a/b\nit's \"x\"|1\n2\nf 1\n0027"
    );
    assert_eq!(Agent::good(bash("sh -c 'echo \"$X-$Y\"'").await), "-1\n2");
    Agent::good(bash("cd ..; unset X HOME; unset -f f; set -o pipefail; shopt -s globstar; A=(1 'b c'); declare -A M=([k]=v)").await);
    let got = Agent::good(bash("pwd; cd - ; echo ${X-none} ${HOME-none} $(type -t f) ${A[1]} ${M[k]}; false | true || echo pipefail; shopt -q globstar && echo globstar").await);
    assert_eq!(
        got,
        "/workspace/a\n/workspace/a/b\nnone none b c v\npipefail\nglobstar"
    );
    assert_eq!(
        Agent::good(agent.call("bash", json!({"restart": true})).await),
        "bash session restarted"
    );
    assert_eq!(
        Agent::good(bash("pwd; echo ${A-none} $HOME").await),
        "/workspace\nnone /home/agent"
    );
    assert!(Agent::bad(agent.call("bash", json!({})).await).contains("command is required"));
}

/// Output and status come on two streams: whichever the runtime hears of first, the output is the call's.
async fn no_output_comes_after_its_status() {
    let mut agents = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let agent = Agent::new().await;
        agents.spawn(async move {
            for number in 0..60 {
                let said = Agent::good(agent.bash(&format!("echo {number}")).await);
                assert_eq!(said, number.to_string());
            }
        });
    }
    while let Some(done) = agents.join_next().await {
        done.unwrap();
    }
}

async fn output_and_status_are_as_agreed() {
    let agent = Agent::new().await;
    let bash = |command| agent.bash(command);
    assert_eq!(Agent::good(bash("true").await), "(no output)");
    assert_eq!(
        Agent::good(bash("echo a; echo b >&2; echo c; echo; echo").await),
        "a\nb\nc"
    );
    assert_eq!(Agent::bad(bash("echo oops >&2; (exit 3)").await), "oops");
    assert_eq!(
        Agent::bad(bash("(exit 3)").await),
        "(no output; exit status 3)"
    );
    let text = Agent::bad(bash("exit 3").await);
    assert!(text.contains("exited with status 3"), "{text}");
    assert_eq!(
        Agent::good(bash("printf '\\033[31mred\\033[0m \\377'").await),
        "red \u{fffd}"
    );
    assert_eq!(
        Agent::good(bash("cat; read x; echo \"<$x>\"; echo $TERM$PS1").await),
        "<>\ndumb"
    );
    let long = Agent::good(bash("seq 1 100000").await);
    assert!(long.starts_with("[output truncated]\n") && long.ends_with("\n100000"));
    assert!(long.len() <= 100 * 1024 + 30);
    assert_eq!(Agent::good(bash("cat <<X\nhere\nX").await), "here");
    assert_eq!(
        Agent::good(bash("env | grep -c ANTHROPIC || true").await),
        "0"
    );
    assert!(Agent::bad(bash("no-such-command").await).contains("command not found"));
}

async fn a_call_that_ends_the_shell_does_not_end_the_session() {
    let agent = Agent::new().await;
    let bash = |command| agent.bash(command);
    Agent::good(bash("X=1; cd /tmp").await);
    Agent::bad(bash("X=2; exit 4").await);
    assert_eq!(Agent::good(bash("echo $X $PWD").await), "2 /tmp");
    Agent::bad(bash("set -e; X=3; false; X=4").await);
    assert_eq!(Agent::good(bash("set +e; echo $X").await), "3");
    assert!(Agent::bad(bash("X=5; kill -9 $$").await).contains("signal 9"));
    assert!(Agent::good(bash("X=6; exec true").await).contains("restarted"));
    assert_eq!(Agent::good(bash("echo $X").await), "3");
    assert!(Agent::bad(bash("echo 'open").await).contains("unexpected EOF"));
    assert_eq!(
        Agent::good(
            bash("echo $X; rm -rf /tmp/gone; mkdir /tmp/gone; cd /tmp/gone; rmdir /tmp/gone").await
        ),
        "3"
    );
    Agent::bad(bash("kill -9 $$").await);
    assert_eq!(Agent::good(bash("pwd").await), "/workspace");
}

async fn time_outs_kill_and_the_session_goes_on() {
    let agent = Agent::new().await;
    Agent::good(agent.bash("X=1").await);
    let started = Instant::now();
    let input = json!({"command": "X=2; echo begun; sleep 741 & trap '' TERM; sleep 742", "timeout_ms": 300});
    let text = Agent::bad(agent.call("bash", input).await);
    assert!(
        text.starts_with("begun\n") && text.contains("timed out after 0.3s"),
        "{text}"
    );
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(
        Agent::good(
            agent
                .bash("echo $X; pgrep -f 'sleep 74[12]' || echo none")
                .await
        ),
        "1\nnone"
    );
}

async fn background_processes_go_on() {
    let agent = Agent::new().await;
    let started = Instant::now();
    let pid = Agent::good(agent.bash("sleep 743 & echo $!").await);
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(
        Agent::good(agent.bash(&format!("kill -0 {pid} && echo lives")).await),
        "lives"
    );
    Agent::good(agent.bash(&format!("kill {pid}")).await);
}

/// Security 22, first half.
async fn a_script_cannot_lie_for_a_later_call() {
    let hostile = [
        "printf() { builtin printf '%s' forged; }",
        "source() { return 0; }",
        ".() { return 0; }",
        "builtin() { return 0; }",
        "eval() { return 0; }",
        "exit() { return 0; }",
        "exec() { return 0; }",
        "trap() { return 0; }",
        "declare() { echo 'declare -- X=\"$(touch /tmp/forged)\"'; }",
        "declare() { echo 'exit 0'; }; export -f declare",
        "command() { return 0; }; unset() { return 0; }; set() { return 0; }; export() { return 0; }; test() { return 0; }",
        "trap 'exit 0' DEBUG",
        "trap 'exit 0' EXIT",
        "trap 'exit 0' ERR RETURN",
        "trap 'builtin printf 0 >&63; exit 0' DEBUG; set -T",
        "shopt -s extdebug; trap 'false' DEBUG",
        "set -n",
        "enable -n printf eval trap exit exec declare unset export",
        "shopt -s expand_aliases; alias false=true exit=true eval=true",
        "PS4='$(exit 0)'; set -x",
        "BASH_ENV=/tmp/env; export BASH_ENV; echo 'exit 0' > /tmp/env",
        "export LD_PRELOAD=/tmp/none.so",
        "export SHELLOPTS; set -o noexec",
        "export POSIXLY_CORRECT=1; readonly POSIXLY_CORRECT",
        "readonly IFS; readonly __mcp_status=0 __mcp_said=1 __mcp_say=true",
        "PROMPT_COMMAND='exit 0'",
        "exec 63>&-; exec 0<&- 1>&- 2>&-",
        "for fd in $(ls /proc/self/fd); do eval \"exec $fd>&-\" 2>/dev/null; done; true",
        "exec 5>&63; builtin printf 'declare -- X=1\\0\\0\\0a\\0b\\00022\\0/tmp\\0' >&5",
        "exec bash -c 'while :; do :; done' </dev/null >/dev/null & disown",
        "PATH=/nowhere; hash -r",
        "exec bash --norc -c 'exit 0'",
        "(while :; do builtin printf 'x\\0' > /proc/$$/fd/63; done) 2>/dev/null & true",
        "enable -f /nowhere/evil.so evil; cd /; ulimit -f 0; umask 777",
    ];
    for script in hostile {
        let agent = Agent::new().await;
        agent.bash(script).await;
        // Absolute paths: a changed PATH or an alias is the model's own doing.
        let failed = agent.bash("/bin/false").await;
        assert!(failed.is_error, "after {script}: {failed:?}");
        let worked = agent.bash("/bin/true").await;
        assert!(!worked.is_error, "after {script}: {worked:?}");
        let said = agent.bash("/bin/echo alive").await.as_text();
        assert!(said.contains("alive"), "after {script}: {said}");
        let forged = agent.bash("/bin/ls /tmp/forged").await;
        assert!(forged.is_error, "after {script}: a state was executed");
        agent.sandbox.destroy().await.unwrap();
    }
}

/// Security 22, second half.
async fn a_script_cannot_hang_a_call() {
    for script in [
        "set -n",
        "kill -STOP $$",
        "exec 1>&- 2>&- 63>&-",
        "trap '' EXIT TERM HUP; exec sleep 744",
        "while :; do :; done",
        "enable -n exit; exit() { while :; do :; done; }; exit",
        "trap 'while :; do :; done' EXIT",
        "exec cat /dev/zero",
        "read x < /dev/zero",
        "cat <<X",
        "echo \"$(",
        "f() {",
    ] {
        let agent = Agent::new().await;
        let started = Instant::now();
        agent
            .call("bash", json!({"command": script, "timeout_ms": 500}))
            .await;
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "{script} took {:?}",
            started.elapsed()
        );
        assert_eq!(
            Agent::good(agent.bash("echo on").await),
            "on",
            "after {script}"
        );
        agent.sandbox.destroy().await.unwrap();
    }
}

async fn odd_state_is_carried_over() {
    let agent = Agent::new().await;
    let script = "declare -i N=5; declare -r R='fixed'; declare -n REF=N; declare -u UP=abc; IFS=:; \
        my-func() { cat <<'E'\nlocal () \n{ \nE\n}; g() { (echo sub) | cat; }; export -f g; OLD=\"a\\\\b\n'c'\tü\"; \
        cd /tmp; ln -sfn /workspace here; cd here; E=; declare UNSET";
    Agent::good(agent.bash(script).await);
    let got = Agent::good(agent.bash("N=N+1; echo $N $REF $UP; x=a:b; echo $x; my-func; g; bash -c g; pwd; printf '%s' \"$OLD\"; \
        echo \"[${E-unset}][${UNSET-unset}]\"; (R=2) 2>/dev/null || echo readonly").await);
    let expect =
        "6 6 ABC\na b\nlocal () \n{ \nsub\nsub\n/tmp/here\na\\b\n'c'\tü[][unset]\nreadonly";
    assert_eq!(got, expect);
    // Options that make trouble for whoever writes shell scripts.
    Agent::good(agent.bash("set -u -f -C; set -o physical").await);
    assert_eq!(
        Agent::good(agent.bash("echo $-").await)
            .chars()
            .filter(|c| "ufC".contains(*c))
            .count(),
        3
    );
    assert!(Agent::bad(agent.bash("echo $NOT_SET").await).contains("unbound"));
    assert_eq!(Agent::good(agent.bash("set +u; echo on").await), "on");
}

async fn large_scripts_and_states_work() {
    let agent = Agent::new().await;
    let script = format!("X='{}'; echo ${{#X}}", "é".repeat(150_000));
    assert_eq!(Agent::good(agent.bash(&script).await), "150000");
    assert_eq!(Agent::good(agent.bash("echo ${#X}").await), "150000");
    // More than is kept: a new bash has the last state that was.
    Agent::good(
        agent
            .bash("Y=$(head -c 3000000 /dev/zero | tr '\\0' y)")
            .await,
    );
    assert_eq!(Agent::good(agent.bash("X=1; echo ${#Y}").await), "3000000");
    Agent::bad(agent.bash("kill -9 $$").await);
    assert_eq!(Agent::good(agent.bash("echo ${#Y}").await), "0");
}

async fn files_are_read_written_and_edited() {
    let agent = Agent::new().await;
    let call = |tool, input| agent.call(tool, input);
    let write = json!({"file_path": "a/b.txt", "content": "one\ntwo\nthree\n"});
    assert_eq!(
        Agent::good(call("write", write).await),
        "wrote 14 bytes to a/b.txt"
    );
    assert_eq!(
        Agent::good(call("read", json!({"file_path": "a/b.txt"})).await),
        "one\ntwo\nthree\n"
    );
    for (range, expect) in [
        (json!([2, 3]), "two\nthree"),
        (json!([2, -1]), "two\nthree\n"),
        (json!([0, 1]), "one"),
        (json!([9, 10]), "(no output)"),
        (json!([3, 2]), "(no output)"),
    ] {
        let input = json!({"file_path": "/workspace/a/b.txt", "view_range": range});
        assert_eq!(Agent::good(call("read", input).await), expect, "{range}");
    }
    let edit = json!({"file_path": "a/b.txt", "old_string": "two", "new_string": "2"});
    assert_eq!(
        Agent::good(call("edit", edit.clone()).await),
        "edited a/b.txt (1 replacement(s))"
    );
    assert_eq!(
        Agent::bad(call("edit", edit).await),
        "edit: old_string not found in a/b.txt"
    );
    let twice = json!({"file_path": "a/b.txt", "old_string": "e", "new_string": "E"});
    assert_eq!(
        Agent::bad(call("edit", twice).await),
        "edit: old_string appears 3 times in a/b.txt (must be unique)"
    );
    let all =
        json!({"file_path": "a/b.txt", "old_string": "e", "new_string": "E", "replace_all": true});
    assert_eq!(
        Agent::good(call("edit", all).await),
        "edited a/b.txt (3 replacement(s))"
    );
    assert_eq!(
        Agent::good(agent.bash("cat a/b.txt; stat -c %a a/b.txt").await),
        "onE\n2\nthrEE\n644"
    );
    Agent::good(agent.bash("head -c 300000 /dev/zero | tr '\\0' x > big; seq 1 200000 > lines; printf '\\377' > bin; mkfifo pipe").await);
    assert!(
        Agent::bad(call("read", json!({"file_path": "big"})).await)
            .contains("is 300000 bytes, exceeds 262144-byte limit")
    );
    assert_eq!(
        Agent::good(
            call(
                "read",
                json!({"file_path": "lines", "view_range": [150_000, 150_001]})
            )
            .await
        ),
        "150000\n150001"
    );
    assert!(
        Agent::bad(call("read", json!({"file_path": "big", "view_range": [1, 1]})).await)
            .contains("exceed")
    );
    assert!(
        Agent::bad(call("read", json!({"file_path": "bin"})).await).contains("not valid UTF-8")
    );
    assert!(
        Agent::bad(call("read", json!({"file_path": "pipe"})).await).contains("not a regular file")
    );
    assert!(
        Agent::bad(call("read", json!({"file_path": "none"})).await)
            .contains("no such file or directory")
    );
    assert!(
        Agent::bad(call("write", json!({"file_path": "pipe", "content": "x"})).await)
            .contains("write: pipe")
    );
    assert!(
        Agent::bad(call("read", json!({"path": "none"})).await)
            .contains("invalid arguments for read")
    );
    assert!(Agent::bad(call("view", json!({})).await).contains("unknown tool"));
}

async fn images_and_documents_are_read_as_such() {
    let agent = Agent::new().await;
    for (name, media) in [
        ("a.PNG", "image/png"),
        ("b.jpeg", "image/jpeg"),
        ("c.pdf", "application/pdf"),
    ] {
        agent
            .sandbox
            .put(name, Bytes::from_static(b"\x89PNG"), false)
            .await
            .unwrap();
        let result = agent.call("read", json!({ "file_path": name })).await;
        let shown = serde_json::to_value(&result.content).unwrap();
        let kind = if media == "application/pdf" {
            "document"
        } else {
            "image"
        };
        assert_eq!(
            shown,
            json!([{"type": kind, "source": {"type": "base64", "media_type": media, "data": "iVBORw=="}}])
        );
        assert!(matches!(
            result.content[0],
            Block::Image { .. } | Block::Document { .. }
        ));
        let ranged = agent
            .call("read", json!({"file_path": name, "view_range": [1, 2]}))
            .await;
        assert!(ranged.is_error);
    }
    Agent::good(agent.bash("truncate -s 4M big.png").await);
    assert!(
        Agent::bad(agent.call("read", json!({"file_path": "big.png"})).await)
            .contains("limit for image/PDF")
    );
}

async fn paths_outside_are_refused() {
    let agent = Agent::new().await;
    Agent::good(
        agent
            .bash("ln -s /etc/passwd link; ln -s /tmp/new dangling; ln -s / root; ln -s loop loop")
            .await,
    );
    for path in [
        "/etc/passwd",
        "../etc/passwd",
        "a/b/../../../etc/passwd",
        "link",
        "dangling",
        "root/etc/passwd",
        "loop",
        "/proc/self/environ",
    ] {
        for (tool, input) in [
            ("read", json!({ "file_path": path })),
            ("write", json!({"file_path": path, "content": "x"})),
            (
                "edit",
                json!({"file_path": path, "old_string": "a", "new_string": "b"}),
            ),
            ("grep", json!({"pattern": "x", "path": path})),
            ("glob", json!({"pattern": "*", "path": path})),
        ] {
            let text = Agent::bad(agent.call(tool, input).await);
            assert!(
                text.contains("outside the session's working directory")
                    || text.contains("symbolic links"),
                "{tool} {path}: {text}"
            );
        }
    }
    assert_eq!(
        Agent::good(agent.bash("ls /tmp/new 2>/dev/null || echo none").await),
        "none"
    );
}

async fn files_are_found() {
    let agent = Agent::new().await;
    Agent::good(agent.bash("mkdir -p src/deep .git node_modules; touch -d @1000 src/a.rs; touch -d @3000 src/deep/b.rs; touch -d @2000 c.rs; touch .git/x .hidden.rs; ln -s /etc away").await);
    let glob = |pattern: &'static str| agent.call("glob", json!({ "pattern": pattern }));
    assert_eq!(
        Agent::good(glob("**/?.rs").await),
        "/workspace/src/deep/b.rs\n/workspace/c.rs\n/workspace/src/a.rs"
    );
    assert_eq!(Agent::good(glob("src/*.rs").await), "/workspace/src/a.rs");
    assert_eq!(Agent::good(glob("*.py").await), "no matches");
    assert!(!Agent::good(glob("*").await).contains("away"));
    assert!(Agent::good(glob(".hidden*").await).contains(".hidden.rs"));
    assert!(Agent::bad(glob("/etc/*").await).contains("absolute pattern"));
    assert!(Agent::bad(glob("../*").await).contains("'..'"));
    let below = agent
        .call("glob", json!({"pattern": "*.rs", "path": "src/deep"}))
        .await;
    assert_eq!(Agent::good(below), "/workspace/src/deep/b.rs");
    Agent::good(agent.bash("mkdir many; cd many; touch $(seq 1 300)").await);
    assert_eq!(Agent::good(glob("many/*").await).lines().count(), 200);
}

async fn text_is_found() {
    let agent = Agent::new().await;
    Agent::good(agent.bash("mkdir -p d .git node_modules/m; echo 'needle one' > d/a; printf 'x\\nneedle two\\n' > b; echo needle > .git/c; \
        echo needle > node_modules/m/d; printf 'needle\\0' > bin; ln -s /etc/passwd link; mkfifo pipe").await);
    let grep = |input| agent.call("grep", input);
    assert_eq!(
        Agent::good(grep(json!({"pattern": "needle \\w+"})).await),
        "/workspace/b:2:needle two\n/workspace/d/a:1:needle one"
    );
    assert_eq!(
        Agent::good(grep(json!({"pattern": "needle", "path": "d"})).await),
        "/workspace/d/a:1:needle one"
    );
    assert_eq!(
        Agent::good(grep(json!({"pattern": "needle", "path": "b"})).await),
        "/workspace/b:2:needle two"
    );
    assert_eq!(
        Agent::good(grep(json!({"pattern": "absent"})).await),
        "no matches"
    );
    assert!(Agent::bad(grep(json!({"pattern": "("})).await).starts_with("grep: invalid regex:"));
    assert!(
        Agent::bad(grep(json!({"pattern": "x", "path": "none"})).await).contains("no such file")
    );
    let started = Instant::now();
    Agent::good(agent.bash("head -c 200000 /dev/zero | tr '\\0' a > evil; for i in $(seq 1 5000); do echo needle $i; done > hits; head -c 5000 /dev/zero | tr '\\0' q > long").await);
    assert_eq!(
        Agent::good(grep(json!({"pattern": "(a+)+b", "path": "evil"})).await),
        "no matches"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(
        Agent::good(grep(json!({"pattern": "needle", "path": "hits"})).await)
            .ends_with("[output truncated at 102400 bytes]")
    );
    assert_eq!(
        Agent::good(grep(json!({"pattern": "q", "path": "long"})).await).len(),
        "/workspace/long:1:".len() + 2000 + " [line cut]".len()
    );
}

async fn the_helper_is_uploaded_where_there_is_none() {
    let agent = Agent::new().await;
    let none = Toolset::new(Arc::clone(&agent.sandbox), FileHelper::Upload);
    assert!(none.call("read", &json!({"file_path": "x"})).await.is_err());
    // Stands for the static program: says what it was asked.
    let script = "#!/bin/sh\nread line; test \"$1\" = files && echo '{\"content\":[{\"type\":\"text\",\"text\":\"helped\"}],\"is_error\":false}'\n";
    let tools = Toolset::new(Arc::clone(&agent.sandbox), FileHelper::Upload)
        .with_helper(Bytes::from_static(script.as_bytes()));
    let result = tools
        .call("read", &json!({"file_path": "x"}))
        .await
        .unwrap();
    assert_eq!(Agent::good(result), "helped");
}
