//! The `exec` command as a user meets it.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

use std::env;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-sandbox"));
    command
        .env("CANARY_API_KEY", "sk-canary")
        .stdin(Stdio::null());
    command
}

fn exec(options: &[&str], script: &str) -> Output {
    program()
        .arg("exec")
        .args(options)
        .args(["--", "sh", "-c", script])
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Says loudly why a test did not run; where everything is required that is a failure.
fn possible(test: &str) -> bool {
    let output = exec(&[], "true");
    if output.status.success() {
        return true;
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        env::var_os("CI_REQUIRE_ALL").is_none(),
        "{test}: no sandbox here: {why}"
    );
    eprintln!("SKIPPED {test}: no sandbox can be made here: {why}");
    false
}

#[test]
fn a_command_sees_only_its_sandbox() {
    if !possible("a_command_sees_only_its_sandbox") {
        return;
    }
    let output = exec(
        &[],
        "id -u; ls /; env; cat /proc/1/environ; ls /root /home; true",
    );
    let text = stdout(&output);
    assert!(text.starts_with("1000\n"), "{text}");
    assert!(text.contains("\nworkspace\n"), "{text}");
    assert!(!text.contains("canary"), "{text}");
    assert!(text.ends_with("/home:\nagent\n"), "{text}");
}

#[test]
fn the_status_of_the_command_is_ours() {
    if !possible("the_status_of_the_command_is_ours") {
        return;
    }
    assert_eq!(exec(&[], "exit 7").status.code(), Some(7));
    assert_eq!(exec(&[], "kill -9 $$").status.code(), Some(137));
    assert_eq!(
        exec(&["--timeout", "200ms"], "sleep 60").status.code(),
        Some(124)
    );
    let missing = program()
        .args(["exec", "--", "no-such-program"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(127));
    let unasked = program()
        .args(["exec", "--mount", "/etc:/etc", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(unasked.status.code(), Some(125));
}

#[test]
fn input_and_both_outputs_pass_through() {
    if !possible("input_and_both_outputs_pass_through") {
        return;
    }
    let mut child = program()
        .args([
            "exec",
            "--env",
            "GREETING=hello",
            "--",
            "sh",
            "-c",
            "cat; echo $GREETING >&2",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = b"a\0\xff\n".repeat(1_000_000);
    let mut stdin = child.stdin.take().unwrap();
    let copy = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.stdout, input);
    assert!(String::from_utf8_lossy(&output.stderr).contains("hello\n"));
}

#[test]
fn check_says_which_layers_are_in_force() {
    if !possible("check_says_which_layers_are_in_force") {
        return;
    }
    let output = program().args(["check", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true, "{report}");
    let lines = report["lines"].as_array().unwrap();
    for hop in [
        "tier",
        "root",
        "capabilities",
        "landlock",
        "seccomp",
        "limits",
        "workspace space",
    ] {
        let line = lines.iter().find(|line| line["hop"] == hop).unwrap();
        // Whatever is not in force names a cure.
        assert!(line["status"] == "ok" || line["cure"].is_string(), "{line}");
    }
    let table = program()
        .args(["check", "--network", "host"])
        .output()
        .unwrap();
    assert!(stdout(&table).contains("commands reach whatever this host can reach"));
    let refused = program()
        .args(["check", "--mount", "/a/../b:/x"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn the_file_helper_serves_one_request() {
    let mut child = program()
        .arg("files")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let request = r#"{"places":{"working_dir":"/usr","allowed_roots":[],"read_only_roots":[]},"call":{"glob":{"pattern":"bin"}}}"#;
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{request}").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        stdout(&output),
        "{\"content\":[{\"type\":\"text\",\"text\":\"/usr/bin\"}],\"is_error\":false}\n"
    );
}

#[test]
fn a_setup_script_runs_once() {
    if !possible("a_setup_script_runs_once") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("setup.sh");
    std::fs::write(&script, "date +%N > when").unwrap();
    let (script, state) = (script.to_str().unwrap(), dir.path().join("state"));
    let options = ["--setup", script, "--state-dir", state.to_str().unwrap()];
    let first = stdout(&exec(&options, "cat /setup/when; echo $PATH"));
    assert!(
        first.ends_with("/sbin:/bin\n") && first.contains("\n/setup/bin:"),
        "{first}"
    );
    assert_eq!(
        stdout(&exec(&options, "cat /setup/when; echo $PATH")),
        first
    );
}

#[test]
fn what_cannot_work_is_named_before_anything_is_made() {
    let worker = ["worker", "--environment-id"];
    for (arguments, code, said) in [
        (
            vec!["exec", "--mount", "/nowhere:/mnt/x", "--", "true"],
            125,
            "--mount /nowhere",
        ),
        (vec![worker[0]], 2, "ANTHROPIC_ENVIRONMENT_ID"),
        (
            vec![worker[0], worker[1], "env_1"],
            2,
            "environment-key create",
        ),
        (
            vec![
                worker[0],
                worker[1],
                "mce_secret",
                "--environment-key-file",
                "/x",
            ],
            2,
            "an environment key",
        ),
    ] {
        let mut command = program();
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("ANTHROPIC_") {
                command.env_remove(name);
            }
        }
        let output = command.args(&arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(said) && !told.contains("secret"), "{told}");
    }
}
