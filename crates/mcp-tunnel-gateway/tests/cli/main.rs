//! The contract on the command line: help, each mistake with its cure, exit codes, nothing that listens.

#[cfg(test)]
mod edge;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::path::Path;
    use std::process::{Output, Stdio};
    use std::time::Duration;

    use mcp_diagnostics::sockets;
    use secrecy::ExposeSecret;
    use tempfile::TempDir;
    use tokio::io::{AsyncBufReadExt, BufReader, Lines};
    use tokio::process::{Child, ChildStdout, Command};

    use crate::edge::{Edge, Verdict, token};

    /// The program in an environment that tells it nothing, with a folder of its own.
    fn gateway(home: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-tunnel-gateway"));
        command
            .env_clear()
            .env("HOME", home)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn output(arguments: &[&str]) -> Output {
        let home = tempfile::tempdir().unwrap();
        gateway(home.path(), arguments).output().await.unwrap()
    }

    /// What it says on standard error with this exit code, folders aside.
    async fn complaint(code: i32, arguments: &[&str]) -> String {
        let output = output(arguments).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
        said
    }

    /// A token file for the edge at this address.
    fn token_file(folder: &TempDir, edge: std::net::SocketAddr) -> String {
        let path = folder.path().join("token");
        fs::write(&path, token(edge).encode().expose_secret()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// An address at which nothing listens.
    fn nobody() -> std::net::SocketAddr {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    }

    #[tokio::test]
    async fn help_is_worth_reading() {
        let long = output(&["--help"]).await;
        assert_eq!(long.status.code(), Some(0));
        insta::assert_snapshot!("help", String::from_utf8(long.stdout).unwrap());
        let short = output(&["-h"]).await;
        insta::assert_snapshot!("help_short", String::from_utf8(short.stdout).unwrap());
        let check = output(&["doctor", "--help"]).await;
        assert!(String::from_utf8(check.stdout).unwrap().contains("--json"));
    }

    #[tokio::test]
    async fn the_version_comes_both_ways() {
        let expected = format!("mcp-tunnel-gateway {}\n", env!("CARGO_PKG_VERSION"));
        for arguments in [["version"], ["--version"]] {
            let output = output(&arguments).await;
            assert_eq!(
                (
                    output.status.code(),
                    String::from_utf8(output.stdout).unwrap()
                ),
                (Some(0), expected.clone())
            );
        }
    }

    #[tokio::test]
    async fn each_mistake_is_2_and_names_its_cure() {
        let server = "--mcp-server";
        let mut said = String::new();
        for arguments in [
            &[][..],
            &[server, "3000"],
            &[server, "localhost"],
            &[server, "3000", server, "3001"],
            &[server, "a=3000", server, "a=3001"],
            &[server, "ab=3000"],
            &[server, "http://user:secret@host:80"],
            &[server, "x=stdio:npx server"],
            &[
                server,
                "3000",
                "--preserve-host",
                "docs",
                "--token",
                "mct_x",
            ],
            &[server, "3000", "--token-file", "/nonexistent/token"],
            &[server, "3000", "--token-file", "a", "--token", "b"],
            &[
                server,
                "3000",
                "--token",
                "mct_x",
                "--edge",
                "https://edge.example",
            ],
            &[server, "3000", "--admin", "localhost:9000"],
            &[server, "3000", "--log-level", "verbose"],
            &[server, "3000", "--log-format", "xml"],
            &[server, "3000", "--drain-timeout", "forever"],
            &["--mcp-servre", "3000"],
            &["chekc"],
        ] {
            said += &format!("$ mcp-tunnel-gateway {}\n", arguments.join(" "));
            said += &complaint(2, &[arguments, &["--log-level", "off"][..]].concat()).await;
            said += "\n";
        }
        insta::assert_snapshot!("mistakes", said);
    }

    #[tokio::test]
    async fn the_wrong_kind_of_credential_is_named_with_the_cure_and_not_echoed() {
        let digits = "0".repeat(52);
        let mut said = String::new();
        for value in [
            format!("mck_{digits}"),
            format!("mca_{digits}"),
            format!("mce_{digits}"),
            format!("mci_{digits}"),
            "sk-ant-api03-hunter2hunter2".to_owned(),
            "sk-ant-oat01-hunter2hunter2".to_owned(),
            "eyJhIjoiaHVudGVyMiIsInQiOiJodW50ZXIyIiwicyI6Imh1bnRlcjIifQ==".to_owned(),
            "-----BEGIN PRIVATE KEY-----".to_owned(),
            "tnl_01jd3x9z7m4k8q2v5w6y0b1c3d".to_owned(),
            "mct_damaged".to_owned(),
            "hunter2".to_owned(),
            String::new(),
        ] {
            let complaint = complaint(
                2,
                &[
                    "--mcp-server",
                    "3000",
                    "--log-level",
                    "off",
                    "--token",
                    &value,
                ],
            )
            .await;
            assert!(
                !complaint.contains("hunter2") && !complaint.contains(&digits),
                "{complaint}"
            );
            said += &complaint;
        }
        insta::assert_snapshot!("wrong_credentials", said);
    }

    #[tokio::test]
    async fn a_credential_in_the_wrong_place_is_not_repeated() {
        let token = token(nobody()).encode().expose_secret().to_owned();
        let inline = format!("--tokn={token}");
        for arguments in [
            &[token.as_str()][..],
            &["--tokn", &token],
            &[&inline],
            &["--mcp-server", &token],
            &["--edge", &token],
            &["--admin", &token],
            &["--mcp-server", "http://user:hunter2@host:80"],
            &["--mcp-server=https://user:hunter2@host"],
        ] {
            let complaint = complaint(2, arguments).await;
            assert!(
                !complaint.contains(&token[..40]) && !complaint.contains("hunter2"),
                "{complaint}"
            );
        }
    }

    #[tokio::test]
    async fn a_token_on_the_command_line_is_warned_about_with_the_better_ways() {
        let complaint = complaint(2, &["--mcp-server", "3000", "--token", "mct_damaged"]).await;
        assert!(
            complaint.contains("--token-file FILE") && complaint.contains("MCP_TUNNEL_TOKEN"),
            "{complaint}"
        );
    }

    #[tokio::test]
    async fn files_that_are_wrong_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let token = token_file(&folder, nobody());
        let empty = folder.path().join("empty.pem");
        fs::write(&empty, "no certificate").unwrap();
        let empty = empty.to_str().unwrap();
        let base = ["--mcp-server", "3000", "--token-file", &token];
        for flag in ["--edge-ca", "--mcp-server-ca"] {
            let complaint = complaint(2, &[&base[..], &[flag, empty]].concat()).await;
            assert!(
                complaint.contains(&format!("no certificate in {empty}")),
                "{complaint}"
            );
        }
        let state = folder.path().join("token/state");
        let complaint = complaint(
            2,
            &[&base[..], &["--state-dir", state.to_str().unwrap()]].concat(),
        )
        .await;
        assert!(complaint.contains("token/state"), "{complaint}");
    }

    #[tokio::test]
    async fn an_admin_address_beyond_loopback_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let token = token_file(&folder, nobody());
        let arguments = [
            "--mcp-server",
            "3000",
            "--token-file",
            &token,
            "--admin",
            "0.0.0.0:0",
        ];
        let output = output(&arguments).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("0.0.0.0:0 is not loopback: use 127.0.0.1:PORT"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn an_edge_that_is_down_is_4_if_asked_and_else_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let token = token_file(&folder, nobody());
        let base = ["--mcp-server", "3000", "--token-file", &token];
        let output = output(&[&base[..], &["--exit-on-failure"]].concat()).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains("Connection refused"), "{said}");

        let mut running = Running::start(folder.path(), &base);
        running.says("trying again in").await;
        running.says("attempt 2").await;
        running.terminate();
        assert_eq!(running.exit_code().await, Some(0));
    }

    #[tokio::test]
    async fn a_refused_credential_is_3_with_the_cure_in_one_line() {
        let edge = Edge::bind().await;
        let folder = tempfile::tempdir().unwrap();
        let token = token_file(&folder, edge.address);
        let mut command = gateway(
            folder.path(),
            &["--mcp-server", "3000", "--token-file", &token],
        );
        let output = edge
            .beside(Verdict::Refuse, command.output())
            .await
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert_eq!(
            said.lines()
                .filter(|line| line.starts_with("error: "))
                .count(),
            1,
            "{said}"
        );
        assert!(
            said.contains("start the gateway with the new token"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn it_prints_its_state_listens_nowhere_and_stops_with_0() {
        let edge = Edge::bind().await;
        let folder = tempfile::tempdir().unwrap();
        let token = token_file(&folder, edge.address);
        let arguments = [
            "--mcp-server",
            "docs=3000",
            "--mcp-server",
            "jira=localhost:3001",
            "--token-file",
            &token,
        ];
        let mut running = Running::start(folder.path(), &arguments);
        let told = edge
            .beside(Verdict::Admit, async {
                running.says("key SHA256:").await;
                running.says("route docs -> http://localhost:3000").await;
                running.says("route jira -> http://localhost:3001").await;
                running.says("connecting to the edge").await;
                running.says("active").await;
                let pid = running.child.id().unwrap();
                assert_eq!(sockets::listeners_of(pid).unwrap(), []);
                running.terminate();
                running.says("draining").await;
                running.says("stopped").await;
                running.exit_code().await
            })
            .await;
        assert_eq!(told, Some(0));
        let state = folder.path().join(".local/state/mcp-tunnel-gateway");
        assert_eq!(fs::read_dir(state).unwrap().count(), 1, "the key is kept");
    }

    #[tokio::test]
    async fn no_log_at_trace_has_the_token_or_the_key() {
        let edge = Edge::bind().await;
        let folder = tempfile::tempdir().unwrap();
        let token = token_file(&folder, edge.address);
        let arguments = [
            "--mcp-server",
            "3000",
            "--token-file",
            &token,
            "--log-level",
            "trace",
        ];
        let mut running = Running::spawn(gateway(folder.path(), &arguments).stderr(Stdio::piped()));
        let mut said = edge.beside(Verdict::Admit, running.says("active")).await;
        running.terminate();
        let rest = running.child.wait_with_output().await.unwrap();
        said += &String::from_utf8(rest.stderr).unwrap();
        assert!(said.contains("DEBUG"), "the log is on: {said}");
        let token = fs::read_to_string(token).unwrap();
        let state = folder.path().join(".local/state/mcp-tunnel-gateway");
        let key = fs::read_dir(state).unwrap().next().unwrap().unwrap().path();
        let key = fs::read_to_string(key).unwrap();
        for secret in [
            &token[..40],
            &token[60..100],
            key.trim().trim_start_matches("mcg_"),
        ] {
            assert!(!said.contains(secret), "{said}");
        }
    }

    #[tokio::test]
    async fn while_pending_it_prints_the_code_and_keeps_its_key_over_a_restart() {
        let edge = Edge::bind().await;
        let folder = tempfile::tempdir().unwrap();
        let token = token_file(&folder, edge.address);
        let mut keys = Vec::new();
        for _ in 0..2 {
            let mut running = Running::start(
                folder.path(),
                &["--mcp-server", "3000", "--token-file", &token],
            );
            let line = edge
                .beside(Verdict::Pend, running.says("waiting for approval"))
                .await;
            assert!(
                line.contains("K7QM-2F9D")
                    && line.contains("mcp-cloud connection approve K7QM-2F9D"),
                "{line}"
            );
            keys.push(
                line.split("SHA256:")
                    .nth(1)
                    .unwrap()
                    .split(';')
                    .next()
                    .unwrap()
                    .to_owned(),
            );
            // As kill -9 does.
            running.child.kill().await.unwrap();
        }
        assert_eq!(keys[0], keys[1]);
    }

    #[tokio::test]
    async fn in_json_every_line_is_an_object_on_standard_error() {
        let folder = tempfile::tempdir().unwrap();
        let token = token_file(&folder, nobody());
        let arguments = [
            "--mcp-server",
            "3000",
            "--token-file",
            &token,
            "--exit-on-failure",
            "--log-format",
            "json",
        ];
        let output = output(&arguments).await;
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<serde_json::Value> = said
            .lines()
            .filter(|line| !line.starts_with("error: "))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(
            lines.iter().any(|line| line["message"]
                .as_str()
                .is_some_and(|m| m.starts_with("key SHA256:"))),
            "{said}"
        );
    }

    #[tokio::test]
    async fn check_reports_in_both_forms_with_its_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let token = token_file(&folder, nobody());
        let server = nobody().to_string();
        let base = ["check", "--mcp-server", &server, "--token-file", &token];
        let table = output(&base).await;
        let text = String::from_utf8(table.stdout).unwrap();
        assert_eq!(table.status.code(), Some(4), "{text}");
        assert!(
            text.contains("FAIL  tcp")
                && text.contains("-> start the edge")
                && !text.contains('\x1b'),
            "{text}"
        );
        let json = output(&[&base[..], &["--json"]].concat()).await;
        let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(
            (&report["exit_code"], &report["lines"][0]["hop"]),
            (&4.into(), &"token".into())
        );

        let without = output(&["doctor", "--mcp-server", &server]).await;
        let text = String::from_utf8(without.stdout).unwrap();
        assert_eq!(without.status.code(), Some(2), "{text}");
        assert!(
            text.contains("FAIL  token") && text.contains("FAIL  mcp "),
            "{text}"
        );
    }

    /// A gateway that runs, and what it prints.
    struct Running {
        child: Child,
        lines: Lines<BufReader<ChildStdout>>,
    }

    impl Running {
        fn start(home: &Path, arguments: &[&str]) -> Self {
            Self::spawn(&mut gateway(home, arguments))
        }

        fn spawn(command: &mut Command) -> Self {
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            Self { child, lines }
        }

        /// The next line that has this in it.
        async fn says(&mut self, part: &str) -> String {
            let mut before = Vec::new();
            let find = async {
                while let Some(line) = self.lines.next_line().await.unwrap() {
                    if line.contains(part) {
                        return line;
                    }
                    before.push(line);
                }
                panic!("never said {part:?}, only {before:?}")
            };
            tokio::time::timeout(Duration::from_secs(20), find)
                .await
                .expect("it says so in time")
        }

        fn terminate(&self) {
            let pid = i32::try_from(self.child.id().unwrap()).unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }

        async fn exit_code(&mut self) -> Option<i32> {
            self.child.wait().await.unwrap().code()
        }
    }
}
