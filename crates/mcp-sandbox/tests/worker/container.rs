//! The worker as a container's entrypoint, built by `examples/Containerfile` on a base of this host's own files.
//!
//! Needs root, an engine (`docker.io`) and the better part of a minute: it runs only where `SANDBOX_GUESTS` is set. The
//! static program is used where `MCP_SANDBOX_STATIC` names it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::platform::{ENVIRONMENT, KEY, Platform};

/// An engine of its own, so that no other one is touched.
struct Engine {
    child: Child,
    socket: String,
}

impl Engine {
    fn start(dir: &Path) -> Self {
        let socket = format!("unix://{}/docker.sock", dir.display());
        let child = Command::new("dockerd")
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
                "--ip-masq=false",
                "--bridge=none",
            ])
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("-H")
            .arg(&socket)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let engine = Self { child, socket };
        for _ in 0..300 {
            if engine.docker(&["version"]).0 {
                return engine;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("dockerd does not answer");
    }

    fn docker(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("docker")
            .env("DOCKER_HOST", &self.socket)
            .env("DOCKER_BUILDKIT", "0")
            .args(arguments)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A base with a shell, a few tools and what they need, from this host.
fn base(dir: &Path) -> PathBuf {
    let root = dir.join("base");
    for folder in [
        "etc",
        "tmp",
        "proc",
        "sys",
        "dev",
        "run",
        "root",
        "mnt",
        "usr/local/bin",
        "var/lib",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(name)).unwrap();
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    for name in ["passwd", "group"] {
        fs::copy(Path::new("/etc").join(name), root.join("etc").join(name)).unwrap();
    }
    for tool in [
        "bash", "sh", "ls", "cat", "id", "touch", "sleep", "readlink", "env",
    ] {
        let tool = fs::canonicalize(Path::new("/usr/bin").join(tool)).unwrap();
        libraries(&root, &tool);
        put(&root, &tool);
    }
    // Of the program itself, where it is not the static one.
    libraries(&root, Path::new(env!("CARGO_BIN_EXE_mcp-sandbox")));
    // What this host calls `sh` may have another name.
    let _ = std::os::unix::fs::symlink("bash", root.join("usr/bin/sh"));
    let tar = dir.join("base.tar");
    let packed = Command::new("tar")
        .arg("cf")
        .arg(&tar)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    tar
}

fn libraries(root: &Path, program: &Path) {
    let needs = Command::new("ldd").arg(program).output().unwrap();
    let needs = String::from_utf8(needs.stdout).unwrap();
    for file in needs
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        put(root, Path::new(file));
    }
}

fn put(root: &Path, file: &Path) {
    let inside = file.strip_prefix("/").unwrap();
    let inside = if inside.starts_with("usr") {
        root.join(inside)
    } else {
        root.join("usr").join(inside)
    };
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    fs::copy(file, inside).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_to_say_a_container_is_a_worker() {
    if env::var_os("SANDBOX_GUESTS").is_none() {
        eprintln!("SKIPPED with_nothing_to_say_a_container_is_a_worker: set SANDBOX_GUESTS=1");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let context = dir.path().join("context");
    fs::create_dir(&context).unwrap();
    let program = env::var("MCP_SANDBOX_STATIC")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_mcp-sandbox").to_owned());
    fs::copy(program, context.join("mcp-sandbox")).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/Containerfile");
    let data = dir.path().join("given");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("note"), "from the host").unwrap();
    let (engine, platform) = (Engine::start(dir.path()), Platform::start().await);
    let docker = |arguments: &[&str]| {
        let (done, text) = engine.docker(arguments);
        assert!(done, "{arguments:?}: {text}");
        text
    };
    docker(&["import", base(dir.path()).to_str().unwrap(), "base"]);
    let (file, context) = (file.to_str().unwrap(), context.to_str().unwrap());
    docker(&[
        "build",
        "-f",
        file,
        "--build-arg",
        "BASE=base",
        "-t",
        "worker",
        context,
    ]);
    platform.inside().session("sesn_1");
    let mount = format!("{}:/mnt/data:ro", data.display());
    let variables = [
        format!("ANTHROPIC_ENVIRONMENT_ID={ENVIRONMENT}"),
        format!("ANTHROPIC_ENVIRONMENT_KEY={KEY}"),
        format!("ANTHROPIC_BASE_URL={}", platform.url()),
    ];
    let [id, key, url] = &variables;
    let run = [
        "run",
        "-d",
        "--name",
        "worker-1",
        "--network=host",
        "-v",
        &mount,
        "-e",
        id,
        "-e",
        key,
        "-e",
        url,
        "worker",
    ];
    docker(&run);
    let call = platform.inside().tool_use(
        "sesn_1",
        "bash",
        json!({"command": "cat /mnt/data/note; echo x > kept; cat kept; touch /mnt/data/y 2>/dev/null || echo read-only; cat /proc/1/environ; env"}),
    );
    let result =
        tokio::time::timeout(Duration::from_secs(30), platform.result("sesn_1", &call)).await;
    let Ok(result) = result else {
        panic!("{}", engine.docker(&["logs", "worker-1"]).1);
    };
    let (text, _) = crate::platform::text_of(&result);
    assert!(text.starts_with("from the host"), "{text}");
    assert!(text.contains("x\nread-only"), "{text}");
    assert!(!text.contains(KEY) && !text.contains("ANTHROPIC"), "{text}");
    let rows = docker(&["exec", "worker-1", "/usr/local/bin/mcp-sandbox", "ps"]);
    assert!(rows.contains("sesn_1"), "{rows}");
    docker(&["stop", "-t", "30", "worker-1"]);
    let log = engine.docker(&["logs", "worker-1"]).1;
    assert!(log.contains("T3"), "{log}");
    assert!(platform.inside().is_over("sesn_1"), "{log}");
    let code = docker(&["wait", "worker-1"]);
    assert_eq!(code.trim(), "0", "{log}");
}
