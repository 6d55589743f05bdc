//! Agents, environments, skills and sessions, driven by the official SDKs, unmodified: the
//! newest for Python and for TypeScript, and one for Python from before 1.0, which differ
//! in headers and shapes.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::cloud::{Folder, Running, errors, text};
use crate::sdk::tool;

/// An SDK, and what its programs run with.
#[derive(Clone, Copy, Debug)]
enum Sdk {
    Python,
    /// From before 1.0.
    OldPython,
    TypeScript,
}

impl Sdk {
    const ALL: [Self; 3] = [Self::Python, Self::OldPython, Self::TypeScript];

    fn interpreter(self) -> Option<PathBuf> {
        match self {
            Self::Python => tool("python/bin/python"),
            Self::OldPython => tool("python-0/bin/python"),
            Self::TypeScript => {
                let installed = "node/node_modules/node-linux-";
                let machine = match std::env::consts::ARCH {
                    "aarch64" => "arm64",
                    _ => "x64",
                };
                tool(&format!("{installed}{machine}/bin/node"))
            }
        }
    }

    /// A program of `tests/sdk`, with the variables that the SDKs read.
    fn program(self, name: &str, variables: &Variables) -> Option<Command> {
        let suffix = match self {
            Self::Python | Self::OldPython => "py",
            Self::TypeScript => "mjs",
        };
        let mut command = Command::new(self.interpreter()?);
        command
            .arg(file(&format!("{name}.{suffix}")))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SCRIPT", file("script.json"))
            .envs(variables.0.iter().cloned());
        if matches!(self, Self::TypeScript) {
            command.env("SDK", tool("node/package.json")?);
        }
        Some(command)
    }
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sdk")
        .join(name)
}

/// Variables of a program: an environment file.
#[derive(Clone)]
struct Variables(Vec<(&'static str, String)>);

impl Variables {
    fn of(cloud: &Running, folder: &Folder) -> Self {
        let key = std::fs::read_to_string(folder.path().join("admin.key")).expect("a key");
        Self(vec![
            ("ANTHROPIC_BASE_URL", cloud.address("api")),
            ("ANTHROPIC_API_KEY", key.trim().to_owned()),
        ])
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|(found, _)| *found != name);
        self
    }
}

/// The lines of JSON that a program prints.
fn lines(mut command: Command) -> Vec<Value> {
    let output = command.output().expect("the interpreter runs");
    let told = (text(&output), errors(&output));
    assert!(output.status.success(), "{}\n{}", told.0, told.1);
    told.0
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn string(value: &Value, member: &str) -> String {
    let found = value[member].as_str();
    found
        .unwrap_or_else(|| panic!("{member} in {value}"))
        .to_owned()
}

/// A worker that serves an environment, until it is dropped.
struct Worker(Child);

impl Worker {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the interpreter runs");
        let stdout = child.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "polling");
        Self(child)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What an application was told of a session.
#[derive(Debug)]
struct Told {
    calls: Vec<Value>,
    events: Vec<String>,
}

/// An agent, an environment and its key, made by `sdk`, whose worker then serves the
/// session of its application.
fn session(sdk: Sdk, cloud: &Running, folder: &Folder) -> Option<Told> {
    let variables = Variables::of(cloud, folder);
    let administer = match sdk {
        Sdk::TypeScript => Sdk::Python,
        other => other,
    };
    let made = lines(administer.program("administer", &variables)?).remove(0);
    let workdir = tempfile::tempdir().expect("a folder");
    let worker = variables
        .clone()
        .without("ANTHROPIC_API_KEY")
        .with("ENVIRONMENT_ID", string(&made, "environment"))
        .with("ANTHROPIC_ENVIRONMENT_KEY", string(&made, "key"))
        .with("WORKDIR", workdir.path().to_string_lossy())
        .with("HOME", workdir.path().to_string_lossy());
    let _worker = Worker::start(sdk.program("worker", &worker)?);
    let application = variables
        .with("ENVIRONMENT_ID", string(&made, "environment"))
        .with("AGENT_ID", string(&made, "agent"));
    Some(told(
        &lines(sdk.program("client", &application)?),
        workdir.path(),
    ))
}

fn told(lines: &[Value], workdir: &Path) -> Told {
    let workdir = workdir.canonicalize().expect("a folder");
    let workdir = workdir.to_string_lossy();
    let calls = lines.iter().filter_map(|line| {
        let mut call = line.get("call")?.clone();
        let text = string(&call, "text").replace(&*workdir, "WORKDIR");
        call["text"] = text.into();
        Some(call)
    });
    let events = lines.iter().find_map(|line| line.get("events"));
    let events = events.and_then(Value::as_array).expect("events");
    Told {
        calls: calls.collect(),
        events: events
            .iter()
            .map(|kind| kind.as_str().expect("a type").to_owned())
            .collect(),
    }
}

/// What both files and skills come to, whoever runs the tools.
fn check(told: &Told, sdk: Sdk) {
    let call = |number: usize| {
        let call = &told.calls[number];
        let error = call["is_error"].as_bool().expect("a flag");
        (
            string(call, "name"),
            error,
            string(call, "text").trim_end().to_owned(),
        )
    };
    let expect = |number: usize, name: &str, error: bool, text: &str| {
        assert_eq!(
            call(number),
            (name.to_owned(), error, text.to_owned()),
            "{sdk:?}, call {number}"
        );
    };
    assert_eq!(told.calls.len(), 11, "{sdk:?}: {told:#?}");
    assert!(!call(0).1 && call(0).0 == "write", "{told:#?}");
    assert!(
        call(1).2.contains("two") && !call(1).2.contains("one"),
        "{told:#?}"
    );
    assert!(!call(2).1, "{told:#?}");
    expect(3, "bash", false, "one\n2\nthree");
    expect(4, "bash", true, "X is kept");
    assert!(call(5).2.ends_with("notes/a.txt"), "{told:#?}");
    assert!(call(6).2.ends_with(":3:three"), "{told:#?}");
    assert!(call(7).1, "{told:#?}");
    expect(8, "bash", false, "hello from a skill");
    assert!(call(9).2.contains("name: greeting"), "{told:#?}");
    assert!(call(10).2.contains("three"), "{told:#?}");
    let count = |kind: &str| told.events.iter().filter(|event| *event == kind).count();
    assert_eq!(count("agent.tool_use"), 11, "{:#?}", told.events);
    assert_eq!(count("user.tool_result"), 11, "{:#?}", told.events);
    assert_eq!(count("user.message"), 2, "{:#?}", told.events);
    assert!(count("agent.message") >= 2, "{:#?}", told.events);
}

#[test]
fn the_official_sdks_administer_agents_environments_and_skills() {
    for sdk in [Sdk::Python, Sdk::OldPython] {
        let folder = Folder::new();
        let cloud = folder.start(&[]);
        let Some(program) = sdk.program("administer", &Variables::of(&cloud, &folder)) else {
            return;
        };
        let made = lines(program);
        let key = string(&made[0], "key");
        assert!(key.starts_with("mce_"));
        is_nowhere(&folder, &key);
        assert!(cloud.stop().success());
    }
}

#[test]
fn the_official_workers_serve_sessions_of_the_official_clients() {
    let folder = Folder::new();
    let cloud = folder.start(&[]);
    std::thread::scope(|scope| {
        let (cloud, folder) = (&cloud, &folder);
        let sessions = Sdk::ALL.map(|sdk| (sdk, scope.spawn(move || session(sdk, cloud, folder))));
        for (sdk, session) in sessions {
            if let Some(told) = session.join().expect("a session that ends well") {
                check(&told, sdk);
            }
        }
    });
    // Tokens of items are derived, never kept; keys are kept as hashes.
    is_nowhere(&folder, "mci_");
    is_nowhere(&folder, "mce_");
    assert!(cloud.stop().success());
}

#[track_caller]
fn is_nowhere(folder: &Folder, secret: &str) {
    for file in std::fs::read_dir(folder.path()).expect("a folder") {
        let file = file.expect("a file").path();
        let content = std::fs::read(&file).unwrap_or_default();
        let mut parts = content.windows(secret.len());
        let found = parts.any(|part| part == secret.as_bytes());
        assert!(!found, "{secret} is in {}", file.display());
    }
}

#[test]
fn sessions_survive_a_kill_and_end_with_the_process() {
    let Some(python) = Sdk::Python.interpreter() else {
        return;
    };
    let folder = Folder::new();
    let cloud = folder.start(&[]);
    let variables = Variables::of(&cloud, &folder);
    let program = Sdk::Python.program("administer", &variables);
    let made = lines(program.expect("Python")).remove(0);
    // Its message waits for a worker when the process is killed.
    let waited = folder.run(&[
        "session",
        "run",
        "--environment",
        &string(&made, "environment"),
        "--wait",
        "1",
        "echo still here",
    ]);
    assert_eq!(waited.status.code(), Some(4), "{}", errors(&waited));
    cloud.kill();
    let cloud = folder.start(&[]);
    let workdir = tempfile::tempdir().expect("a folder");
    let worker = Variables::of(&cloud, &folder)
        .without("ANTHROPIC_API_KEY")
        .with("ENVIRONMENT_ID", string(&made, "environment"))
        .with("ANTHROPIC_ENVIRONMENT_KEY", string(&made, "key"))
        .with("WORKDIR", workdir.path().to_string_lossy())
        .with("HOME", workdir.path().to_string_lossy());
    let worker = Sdk::Python.program("worker", &worker).expect("Python");
    let _worker = Worker::start(worker);
    let mut follow = Command::new(python);
    follow
        .arg("-c")
        .arg(FOLLOW)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(Variables::of(&cloud, &folder).0)
        .stdout(Stdio::piped())
        // It complains when its stream is cut.
        .stderr(Stdio::null());
    let mut follow = follow.spawn().expect("Python");
    let mut told = BufReader::new(follow.stdout.take().expect("a pipe"));
    let mut line = String::new();
    told.read_line(&mut line).expect("a line");
    assert_eq!(line.trim(), "still here");
    // A stream and a worker's poll are open: neither keeps the process.
    assert!(cloud.stop().success());
    drop(follow.kill());
    drop(follow.wait());
}

/// Prints the first result of the newest session, and goes on with its stream.
const FOLLOW: &str = r#"
import anthropic, time
client = anthropic.Anthropic()
session = next(iter(client.beta.sessions.list()))
stream = client.beta.sessions.events.stream(session.id)
while True:
    found = [e for e in client.beta.sessions.events.list(session.id) if e.type == "user.tool_result"]
    if found:
        break
    time.sleep(0.05)
print(found[0].content[0].text, flush=True)
for event in stream:
    pass
"#;

#[test]
fn the_command_line_gives_what_a_worker_needs() {
    let folder = Folder::new();
    let cloud = folder.start(&[]);
    let early = folder.run(&["environment-key", "create", "host"]);
    assert_eq!(early.status.code(), Some(1));
    assert!(errors(&early).contains("environment create NAME"));
    let made = text(&folder.run(&["environment", "create", "build"]));
    assert!(made.contains("environment-key create NAME"), "{made}");
    let made = text(&folder.run(&["environment-key", "create", "host"]));
    let exported = |name: &str| -> String {
        let start = format!("export {name}=");
        let found = made.lines().find_map(|line| line.strip_prefix(&start));
        found
            .unwrap_or_else(|| panic!("{name} in {made}"))
            .to_owned()
    };
    assert_eq!(exported("ANTHROPIC_BASE_URL"), cloud.address("api"));
    let workdir = tempfile::tempdir().expect("a folder");
    let worker = Variables(vec![
        ("ANTHROPIC_BASE_URL", exported("ANTHROPIC_BASE_URL")),
        ("ENVIRONMENT_ID", exported("ANTHROPIC_ENVIRONMENT_ID")),
        (
            "ANTHROPIC_ENVIRONMENT_KEY",
            exported("ANTHROPIC_ENVIRONMENT_KEY"),
        ),
    ])
    .with("WORKDIR", workdir.path().to_string_lossy())
    .with("HOME", workdir.path().to_string_lossy());
    let Some(worker) = Sdk::Python.program("worker", &worker) else {
        return;
    };
    let worker = Worker::start(worker);
    let ran = folder.run(&["session", "run", "echo one; pwd", "false"]);
    let (told, error) = (text(&ran), errors(&ran));
    assert_eq!(ran.status.code(), Some(1), "{told}{error}");
    assert!(told.contains("$ echo one; pwd\none\n/"), "{told}");
    assert!(told.ends_with("(failed)\n"), "{told}");
    let key = text(&folder.run(&["environment-key", "list"]));
    assert!(key.contains("host") && key.contains("ekey_"), "{key}");
    let revoked = folder.run(&["environment-key", "revoke", "host"]);
    assert!(revoked.status.success(), "{}", errors(&revoked));
    drop(worker);
    let waited = folder.run(&["session", "run", "--wait", "1", "true"]);
    assert_eq!(waited.status.code(), Some(4));
    assert!(errors(&waited).contains("mcp-sandbox worker"));
}
