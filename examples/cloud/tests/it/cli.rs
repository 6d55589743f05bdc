//! Help, errors of configuration, exit codes, and what each command prints.

use std::process::Command;

use crate::cloud::{Folder, PROGRAM, errors, text};

const FREE: &str = "127.0.0.1:0";

fn program(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .output()
        .expect("the program runs");
    let text = text(&output) + &errors(&output);
    (output.status.code(), text)
}

#[test]
fn help_is_as_it_was() {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help_serve", &["serve", "--help"]),
        ("help_tunnel", &["tunnel", "--help"]),
        (
            "help_connection_approve",
            &["connection", "approve", "--help"],
        ),
        (
            "help_caller_key_create",
            &["caller-key", "create", "--help"],
        ),
        ("help_probe", &["probe", "--help"]),
    ] {
        let (code, help) = program(arguments);
        assert_eq!(code, Some(0));
        insta::assert_snapshot!(name, help);
    }
}

#[test]
fn each_error_of_configuration_is_2_and_names_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let file = file.to_str().unwrap();
    #[rustfmt::skip]
    let cases: [(&str, &[&str]); 15] = [
        ("no_data", &[]),
        ("public_listen", &["--data", data, "--listen", "0.0.0.0:8080"]),
        ("public_auto_approve", &["--data", data, "--auto-approve", "--edge-listen", "192.0.2.1:1"]),
        ("unspecified_edge", &["--data", data, "--edge-listen", "0.0.0.0:7844"]),
        ("public_dev_ingress", &["--data", data, "--dev-ingress", "0.0.0.0:1"]),
        ("wrong_dev_ingress", &["--data", data, "--dev-ingress", "127.0.0.1:1=a--b"]),
        ("wrong_public_edge", &["--data", data, "--public-edge", "edge.example.com"]),
        ("wrong_domain", &["--data", data, "--domain", "a..b"]),
        ("certificate_without_key", &["--data", data, "--tls-cert", file]),
        ("wrong_certificate", &[
            "--data", data, "--listen", FREE, "--edge-listen", FREE, "--ingress-listen", FREE,
            "--tls-cert", file, "--tls-key", file,
        ]),
        ("data_is_a_file", &["--data", file]),
        ("foreign_address", &["--data", data, "--listen", FREE, "--edge-listen", "192.0.2.1:1", "--ingress-listen", FREE]),
        ("no_cloud", &["tunnel", "list"]),
        ("not_a_cloud", &["--data", data, "tunnel", "list"]),
        ("stray_argument", &["--data", data, "--listen", "127.0.0.1:1", "tunnel", "list"]),
    ];
    let places = [(folder.path().to_str().unwrap(), "FOLDER")];
    for (name, arguments) in cases {
        let (code, told) = program(arguments);
        assert_eq!(code, Some(2), "{name}: {told}");
        let told = places
            .iter()
            .fold(told, |text, (from, to)| text.replace(from, to));
        insta::assert_snapshot!(name, told);
    }
}

#[test]
fn a_credential_in_the_wrong_place_is_not_said_back() {
    let folder = Folder::new();
    let _cloud = folder.start(&[]);
    let data = folder.path();
    let data = data.to_str().unwrap();
    let key = format!("mck_{}", "7".repeat(52));
    let flag = format!("--no-such-flag={key}");
    for arguments in [
        &[key.as_str()][..],
        &[&flag],
        &["--listen", &key],
        &["tunnel", "list", &key],
        &["tunnel", "token", &key],
        &["connection", "approve", &key],
        &["caller-key", "revoke", &key],
        &["probe", &key],
        &["--base-url", "http://ada:7777777@", "tunnel", "list"],
    ] {
        let arguments = [&["--data", data], arguments].concat();
        let (code, told) = program(&arguments);
        assert!(matches!(code, Some(1 | 2)), "{arguments:?}: {told}");
        assert!(!told.contains("7777777"), "{arguments:?}: {told}");
    }
}

#[test]
fn a_cloud_that_is_not_running_is_4() {
    let folder = Folder::new();
    let cloud = folder.start(&[]);
    let address = cloud.address("api");
    assert!(cloud.stop().success());
    let stopped = folder.run(&["tunnel", "list"]);
    assert_eq!(stopped.status.code(), Some(4));
    assert!(errors(&stopped).contains("is not running"));
    let key = folder.path().join("admin.key");
    let key = key.to_str().unwrap();
    let gone = folder.run(&[
        "--base-url",
        &address,
        "--api-key-file",
        key,
        "tunnel",
        "list",
    ]);
    assert_eq!(gone.status.code(), Some(4), "{}", errors(&gone));
}

#[test]
fn a_wrong_key_is_3_and_a_refusal_is_1() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let cloud = folder.start(&[]);
    let file = folder.path().join("other.key");
    std::fs::write(&file, format!("mca_{}\n", "0".repeat(52))).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let address = cloud.address("api");
    let file = file.to_str().unwrap();
    let wrong = folder.run(&[
        "--base-url",
        &address,
        "--api-key-file",
        file,
        "tunnel",
        "list",
    ]);
    assert_eq!(wrong.status.code(), Some(3), "{}", errors(&wrong));
    let missing = folder.run(&["tunnel", "token", "nobody"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(errors(&missing).contains("no tunnel is called \"nobody\""));
}

/// What differs between two runs, in the place of itself.
fn steady(told: &str, folder: &Folder, values: &[(&str, &str)]) -> String {
    let data = folder.path();
    let mut told = told.to_owned();
    for (value, name) in values {
        told = told.replace(value, name);
    }
    told.replace(data.to_str().expect("a path"), "DATA")
}

#[test]
fn each_command_prints_the_next_step() {
    let folder = Folder::new();
    let cloud = folder.start(&[]);
    let empty = text(&folder.run(&["tunnel", "list"]));
    insta::assert_snapshot!("no_tunnels", steady(&empty, &folder, &[]));

    let told = text(&folder.run(&["tunnel", "create", "demo"]));
    let tunnels = folder.json(&["tunnel", "list"]);
    let id = tunnels[0]["id"].as_str().unwrap();
    let domain = tunnels[0]["domain"].as_str().unwrap();
    let token = folder.json(&["tunnel", "token", "demo"]);
    let token = token["tunnel_token"].as_str().unwrap();
    let names = [
        (id, "TUNNEL_ID"),
        (domain, "LABEL.DOMAIN"),
        (token, "TOKEN"),
    ];
    insta::assert_snapshot!("tunnel_create", steady(&told, &folder, &names));

    let nobody = text(&folder.run(&["connection", "list"]));
    insta::assert_snapshot!("no_connections", steady(&nobody, &folder, &names));
    let unknown = folder.run(&["connection", "approve", "ABCD-1234"]);
    assert_eq!(unknown.status.code(), Some(1));
    insta::assert_snapshot!("unknown_code", steady(&errors(&unknown), &folder, &names));
    let fingerprint = "SHA256:unjdxAomnCbAwG25Cq9BGEBKCi3wk+wB2W80cXHuz9M";
    let early = folder.run(&["connection", "approve", fingerprint, "--tunnel", "demo"]);
    insta::assert_snapshot!("approved", steady(&text(&early), &folder, &names));

    let told = text(&folder.run(&["caller-key", "create", "laptop", "--expires-in", "30d"]));
    let key = told
        .lines()
        .find(|line| line.trim().starts_with("mck_"))
        .unwrap()
        .trim();
    let keys = folder.json(&["caller-key", "list"]);
    let key_id = keys[0]["id"].as_str().unwrap();
    let ingress = cloud.address("ingress");
    let mut all = names.to_vec();
    all.extend([(key, "KEY"), (key_id, "KEY_ID"), (&ingress, "INGRESS")]);
    insta::assert_snapshot!("caller_key_create", steady(&told, &folder, &all));
    let revoked = text(&folder.run(&["caller-key", "revoke", "laptop"]));
    insta::assert_snapshot!("caller_key_revoke", steady(&revoked, &folder, &all));

    let rotated = text(&folder.run(&["tunnel", "rotate", "demo", "--reason", "test"]));
    assert!(!rotated.contains(token) && rotated.contains("--token mct_"));
    let archived = text(&folder.run(&["tunnel", "archive", "demo"]));
    insta::assert_snapshot!("tunnel_archive", steady(&archived, &folder, &names));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = Folder::new();
    let _cloud = folder.start(&[]);
    let mut child = Command::new(PROGRAM)
        .arg("--data")
        .arg(folder.path())
        .args(["tunnel", "create"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(errors(&output), "");
}
