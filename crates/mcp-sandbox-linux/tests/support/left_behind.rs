//! Security 22, for processes: one that a call leaves behind holds what the shell had, opens what it can through `/proc`, and
//! reads, writes and stops what it likes. It answers for no later call, and hangs none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_sandbox_executor::{Executor as _, FileHelper, Sandbox, SandboxSpec};
use mcp_sandbox_linux::{Config, LinuxExecutor, Tier};
use mcp_sandbox_tools::Toolset;
use serde_json::json;

/// Gives the shell's own input, which bash has put away, and its error stream to a process that stays.
const LEAVE: &str = "for fd in {10..20}; do [ -S /proc/$$/fd/$fd ] || [ -p /proc/$$/fd/$fd ] && break; done; \
    python3 /tmp/left.py $$ MODE <&$fd";

/// `steal`: takes the next command and answers it. `peek`: looks at it, and answers before it has run. `trim`: takes the command
/// out and leaves what comes after it, while the shell is stopped. `drain`: takes the output and writes another one.
const LEFT: &str = r#"
import fcntl, os, re, signal, socket, stat, sys, threading, time
shell, mode = int(sys.argv[1]), sys.argv[2]
ready, quit = os.pipe()
if os.fork():
    os.close(quit)
    os.read(ready, 1)
    os._exit(0)
os.setsid()
held = [os.dup(0), os.dup(1)] + [fd for fd in range(30, 70) if os.path.exists("/proc/self/fd/%d" % fd)]
os.dup2(os.open("/tmp/left.err", os.O_RDWR | os.O_CREAT), 2)
for name in range(256):
    for flags in (os.O_RDONLY | os.O_NONBLOCK, os.O_WRONLY | os.O_NONBLOCK):
        try:
            fd = os.open("/proc/%d/fd/%d" % (shell, name), flags)
            fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
            held.append(fd)
        except OSError:
            pass
pipes = [fd for fd in held if stat.S_ISFIFO(os.fstat(fd).st_mode)]
sockets = [socket.socket(fileno=os.dup(fd)) for fd in held if stat.S_ISSOCK(os.fstat(fd).st_mode)]
for fd in pipes:
    try:
        os.fchmod(fd, 0o666)
        held.append(os.open("/proc/self/fd/%d" % fd, os.O_RDONLY))
    except OSError:
        pass
outputs = pipes + [s.fileno() for s in sockets]

def forge(line):
    found = re.search(rb"__mcp_end ([0-9a-f]{24}) ", line)
    if found is None:
        return
    n = found.group(1)
    text = b"forged\n"
    for verdict in (b"s0", b"r"):
        text += b"main: line 1: [[: @" + n + b":" + verdict + b":: syntax error (error token is \"x\")\n"
    for fd in outputs:
        try:
            os.write(fd, line + text)
        except OSError:
            pass

def steal(read):
    line = b""
    while True:
        try:
            got = read()
        except OSError:
            return
        if not got:
            return
        line += got
        forge(line)

def each(make):
    for reader in make:
        threading.Thread(target=steal, args=(reader,), daemon=True).start()

if mode == "steal":
    each([lambda s=s: s.recv(65536) for s in sockets] + [lambda fd=fd: os.read(fd, 65536) for fd in pipes])
elif mode == "peek":
    def peek(s):
        time.sleep(0.001)
        return s.recv(65536, socket.MSG_PEEK)
    each([lambda s=s: peek(s) for s in sockets])
elif mode == "trim":
    def trim():
        time.sleep(0.3)
        os.kill(shell, signal.SIGSTOP)
        while True:
            time.sleep(0.001)
            for s in sockets:
                try:
                    line = s.recv(65536, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                except OSError:
                    continue
                at = line.find(b"\\__mcp_end")
                if at > 0:
                    s.recv(at)
                    os.kill(shell, signal.SIGCONT)
                    return
    threading.Thread(target=trim, daemon=True).start()
elif mode == "drain":
    readable = [fd for fd in held if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY]
    each([lambda fd=fd: os.read(fd, 65536) for fd in readable if stat.S_ISFIFO(os.fstat(fd).st_mode)])
print(len(sockets), "sockets", file=open("/tmp/left.held", "w"))
os.close(quit)
time.sleep(60)
"#;

pub(crate) async fn a_process_left_behind_cannot_answer_for_a_later_call() {
    let root = rustix::process::geteuid().is_root();
    for tier in [Tier::T1, Tier::T2, Tier::T3] {
        // The second run has the tiers of an ordinary user.
        if root != (tier == Tier::T1) {
            continue;
        }
        let config = Config::new().dangerous_strongest_tier(tier);
        let executor = match LinuxExecutor::start(config).await {
            Ok(executor) => executor,
            Err(error) => {
                println!("SKIPPED at {tier}: {error}");
                continue;
            }
        };
        // Without namespaces the shell cannot be looked at from outside, so that theft is noticed after a time only.
        let modes: &[_] = match tier {
            Tier::T3 => &["steal", "peek", "drain"],
            _ => &["steal", "peek", "trim", "drain"],
        };
        for mode in modes {
            check(&executor, mode).await;
        }
    }
}

async fn check(executor: &LinuxExecutor, mode: &str) {
    let sandbox: Arc<dyn Sandbox> = executor.create(SandboxSpec::new()).await.unwrap().into();
    let (tier, temp) = (executor.report().tier, sandbox.info().temp_dir.clone());
    let place = |text: &str| text.replace("/tmp/", &format!("{temp}/"));
    let tools = Toolset::new(Arc::clone(&sandbox), FileHelper::BuiltIn);
    let bash = async |command: &str| {
        let input = json!({ "command": command, "timeout_ms": 10_000 });
        tools.call("bash", &input).await.unwrap()
    };
    let script = format!("{temp}/left.py");
    sandbox
        .put(&script, place(LEFT).into(), false)
        .await
        .unwrap();
    // What is kept from being read can be written by name.
    let named = bash("echo out >/dev/stdout; echo err | tee /dev/stderr >/dev/null").await;
    assert_eq!(named.as_text(), "out\nerr", "{tier}");
    let left = bash(&place(LEAVE).replace("MODE", mode)).await;
    assert!(!left.is_error, "{tier} {mode}: {left:?}");
    if mode == "trim" {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut disturbed = 0;
    for _ in 0..4 {
        let started = Instant::now();
        let failed = bash("/bin/echo seven; /bin/sh -c 'exit 7'").await;
        let (took, text) = (started.elapsed(), failed.as_text());
        assert!(failed.is_error, "{tier} {mode}: {text}");
        // It has run, and says so, or it has not, and that is said.
        if text.contains("has not run") {
            disturbed += 1;
        } else {
            assert!(
                text.contains("\nseven") || text.starts_with("seven"),
                "{tier} {mode}: {text}"
            );
        }
        assert!(took < Duration::from_secs(9), "{tier} {mode} took {took:?}");
    }
    println!("{tier} {mode}: disturbed {disturbed} of 4 calls");
    assert!(disturbed <= 1, "the shell after that is out of reach");
    let said = bash("/bin/echo alive").await;
    assert!(
        !said.is_error && said.as_text().contains("alive"),
        "{tier} {mode}: {said:?}"
    );
    let held = bash(&place("cat /tmp/left.held")).await.as_text();
    assert!(
        !held.starts_with('0'),
        "the attacker has nothing: {tier} {mode}"
    );
    // The attacker may show the line, which is therefore not what is looked for.
    let failure = bash(&place("grep -A9 'Trace''back' /tmp/left.err || echo none")).await;
    let failed = failure.as_text().contains("Traceback");
    assert!(
        !failed,
        "the attacker itself fails: {tier} {mode}: {failure:?}"
    );
    sandbox.destroy().await.unwrap();
}
