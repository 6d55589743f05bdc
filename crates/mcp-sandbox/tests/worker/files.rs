//! Files stay between messages, sandboxes, workers and crashes; credentials and strangers stay out.

use serde_json::json;

use crate::platform::{KEY, Platform, text_of};
use crate::program::{Program, possible, workdir};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_runs_its_tools_and_reads_its_files_again() {
    if !possible("a_session_runs_its_tools_and_reads_its_files_again").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    let worker = Program::worker(
        &platform,
        workdir.path(),
        &["--max-idle", "300ms", "--sandbox-idle", "0s"],
    );
    let call = async |name, input| platform.call("sesn_1", name, input).await;
    assert_eq!(
        call("bash", json!({"command": "echo hi; pwd"})).await,
        ("hi\n/workspace".to_owned(), false)
    );
    let write = call(
        "write",
        json!({"file_path": "a/b.txt", "content": "one\ntwo\n"}),
    )
    .await;
    assert!(!write.1, "{write:?}");
    assert_eq!(
        call("read", json!({"file_path": "a/b.txt"}))
            .await
            .0
            .trim_end(),
        "one\ntwo"
    );
    let edit = json!({"file_path": "a/b.txt", "old_string": "two", "new_string": "three"});
    assert!(!call("edit", edit).await.1);
    assert!(
        call("grep", json!({"pattern": "thr"}))
            .await
            .0
            .contains("three")
    );
    assert!(
        call("glob", json!({"pattern": "**/*.txt"}))
            .await
            .0
            .contains("a/b.txt")
    );
    // Nothing printed is still a result.
    assert_eq!(
        call("bash", json!({"command": "true"})).await.0,
        "(no output)"
    );
    let failed = call("bash", json!({"command": "echo no; exit 3"})).await;
    assert!(failed.1 && failed.0.contains("no"), "{failed:?}");
    // The item ends when the turn has ended; the sandbox with it, and the files stay.
    let first = platform.inside().item_of("sesn_1");
    platform.inside().end_turn("sesn_1");
    platform
        .until("the end of the item", |inside| {
            (inside.item_state(&first) == "stopped").then_some(())
        })
        .await;
    platform.inside().enqueue("sesn_1");
    let again = call("bash", json!({"command": "cat a/b.txt; touch kept"})).await;
    assert_eq!(again, ("one\nthree".to_owned(), false));
    // A worker that is killed loses the sandbox and not the files.
    worker.kill().await;
    let item = platform.inside().item_of("sesn_1");
    platform.inside().requeue(&item);
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let again = call("bash", json!({"command": "ls"})).await;
    assert_eq!(again, ("a\nkept".to_owned(), false));
    let (code, log) = worker.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(platform.inside().is_over("sesn_1"));
    assert!(
        !log.contains("ls\\\"") && !log.contains("three"),
        "arguments in the log: {log}"
    );
    assert!(log.contains("\"tool\":\"bash\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_do_not_see_each_other_or_a_credential() {
    if !possible("sessions_do_not_see_each_other_or_a_credential").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    for session in ["sesn_1", "sesn_2", "sesn_3"] {
        platform.inside().session(session);
    }
    let worker = Program::worker(
        &platform,
        workdir.path(),
        &["--max-sessions", "3", "--env", "GIVEN=x y"],
    );
    // All three at once: each waits for the others' files before it ends.
    let script = |own: &str| {
        format!(
            "echo {own} > mine; sleep 0.2; cat mine; ls /workspace; echo $GIVEN; env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' ' '; \
             grep -rs environment-canary / --include=journal --include=record --include='*.sock' && echo FOUND; ls -d /var/lib/mcp-sandbox 2>/dev/null"
        )
    };
    let calls = ["sesn_1", "sesn_2", "sesn_3"].map(|session| {
        let input = json!({"command": script(session)});
        (session, platform.inside().tool_use(session, "bash", input))
    });
    for (session, call) in calls {
        let (text, _) = text_of(&platform.result(session, &call).await);
        assert!(
            text.starts_with(&format!("{session}\nmine\nx y\n")),
            "{text}"
        );
        for secret in [KEY, "sk-ant", "ANTHROPIC", "FOUND"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let others = ["sesn_1", "sesn_2", "sesn_3"]
            .into_iter()
            .filter(|other| *other != session);
        for other in others {
            assert!(!text.contains(other), "{other} in {text}");
        }
    }
    let item = |line: &&String| line.contains("/sessions/") && line.ends_with("canary");
    let with_key = platform.inside().requests.iter().find(item).cloned();
    assert_eq!(with_key, None, "the environment key is not used after ack");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_another_host_the_first_result_says_so() {
    if !possible("on_another_host_the_first_result_says_so").await {
        return;
    }
    let (platform, here, there) = (Platform::start().await, workdir(), workdir());
    platform.inside().session("sesn_1");
    let worker = Program::worker(&platform, here.path(), &[]);
    let first = platform
        .call("sesn_1", "bash", json!({"command": "touch a; echo ok"}))
        .await;
    assert_eq!(first.0, "ok");
    worker.terminate().await;
    platform.inside().enqueue("sesn_1");
    let worker = Program::worker(&platform, there.path(), &[]);
    let moved = platform
        .call("sesn_1", "bash", json!({"command": "ls; echo ok"}))
        .await;
    assert!(
        moved.0.starts_with("[this is a new workspace") && moved.0.ends_with("ok"),
        "{moved:?}"
    );
    let next = platform
        .call("sesn_1", "bash", json!({"command": "echo ok"}))
        .await;
    assert_eq!(next.0, "ok");
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_end_with_their_session() {
    if !possible("files_end_with_their_session").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    let worker = Program::worker(&platform, workdir.path(), &[]);
    platform
        .call("sesn_1", "bash", json!({"command": "touch a"}))
        .await;
    let workspaces = workdir.path().join("workspaces");
    assert_eq!(std::fs::read_dir(&workspaces).unwrap().count(), 1);
    platform
        .inside()
        .event("sesn_1", json!({"type": "session.status_terminated"}));
    platform
        .until("the end of the item", |inside| {
            inside.is_over("sesn_1").then_some(())
        })
        .await;
    worker.terminate().await;
    assert_eq!(std::fs::read_dir(&workspaces).unwrap().count(), 0);
    let sessions = workdir.path().join("worker/sessions");
    assert_eq!(std::fs::read_dir(sessions).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_session_that_ended_elsewhere_are_found_and_deleted() {
    let test = "files_of_a_session_that_ended_elsewhere_are_found_and_deleted";
    if !possible(test).await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    platform.inside().session("sesn_1");
    platform.inside().session("sesn_2");
    let worker = Program::worker(&platform, workdir.path(), &[]);
    for session in ["sesn_1", "sesn_2"] {
        platform
            .call(session, "bash", json!({"command": "touch a"}))
            .await;
    }
    worker.terminate().await;
    platform.inside().forget("sesn_1");
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let sessions = workdir.path().join("worker/sessions");
    platform
        .until("the deletion", |_| {
            (!sessions.join("sesn_1").exists()).then_some(())
        })
        .await;
    worker.terminate().await;
    assert!(sessions.join("sesn_2").exists());
    let workspaces = std::fs::read_dir(workdir.path().join("workspaces")).unwrap();
    assert_eq!(workspaces.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn skills_are_unpacked_inside_and_bad_ones_left_out() {
    if !possible("skills_are_unpacked_inside_and_bad_ones_left_out").await {
        return;
    }
    let (platform, workdir) = (Platform::start().await, workdir());
    let archive = |name: &str| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(5);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, &b"words"[..]).unwrap();
        archive.into_inner().unwrap()
    };
    {
        let mut inside = platform.inside();
        inside.session("sesn_1");
        inside
            .skills
            .insert("good".to_owned(), archive("good/SKILL.md"));
        inside
            .skills
            .insert("bad".to_owned(), archive("../../escaped"));
        let skill = |id| json!({"type": "custom", "skill_id": id, "version": "1"});
        inside.with_skills(
            "sesn_1",
            json!([skill("missing"), skill("bad"), skill("good")]),
        );
    }
    let worker = Program::worker(&platform, workdir.path(), &[]);
    let input = json!({"command": "cat skills/good/SKILL.md; echo; ls skills; ls / /workspace | grep escaped; true"});
    let (text, _) = platform.call("sesn_1", "bash", input).await;
    assert_eq!(text, "words\ngood");
    let (_, log) = worker.terminate().await;
    assert!(log.contains("leads out"), "{log}");
}
