//! Escapes by files.

use mcp_sandbox_executor::{Command, SandboxError};

use super::commands::finish;
use super::files::{tar, unpack_then_exists};
use crate::case::{Case, Context, Result, Stop, cases, ensure, run, sh, still_usable};
use crate::probe::{attempt, attempt_in, control};

pub(crate) const CASES: &[Case] = cases![true;
    "F01" "nothing outside its own places can be written" write_outside;
    "F02" "a secret of the host cannot be read by any path" read_secret;
    "F03" "a directory of the host cannot be written" write_host;
    "F08" "a command has no descriptor but its three streams" descriptors;
    "F09" "a working directory by descriptor leads nowhere" descriptor_directory;
    "F10" "no hard link to a file of the system" hard_link;
    "F11" "no way sets a setuid or setgid bit" set_id_bits;
    "F12" "no device can be made" devices;
    "F13" "only harmless devices are there" device_list;
    "F14" "no mount call is reachable" mounts;
    "F17" "the kernel's own settings cannot be written" kernel_settings;
    "F18" "control groups cannot be changed" control_groups;
    "F21" "files cannot be opened by handle" handles;
    "F24" "an archive cannot write outside, nor bring devices or setuid files" archives;
];

async fn write_outside(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let places =
        "/x /etc/x /usr/x /usr/bin/x /bin/x /lib/x /root/x /var/x /proc/x /sys/x /boot/x /dev/x";
    let script = format!("for p in {places}; do (echo x > $p) 2>/dev/null && echo $p; done; true");
    let got = sh(&*sandbox, &script).await?.text();
    ensure!(got.is_empty(), "written: {got}");
    if let Some(host) = context.try_host() {
        let seen = places
            .split(' ')
            .any(|path| host.read(path).is_some_and(|text| text == b"x\n"));
        ensure!(!seen, "the host has one of the files");
    }
    still_usable(&*sandbox).await?;
    finish(sandbox).await
}

async fn read_secret(context: &Context<'_>) -> Result {
    let (path, content) = context.host()?.secret().ok_or(Stop::NotObservable)?;
    let sandbox = context.sandbox().await?;
    let got = attempt_in(&*sandbox, "secret", &[&path, "/etc/shadow", "/etc/gshadow"]).await?;
    ensure!(got.text().starts_with("held"), "{}", got.text());
    for way in [
        path.clone(),
        format!("../../../../../..{path}"),
        format!("/proc/1/root{path}"),
    ] {
        let got = sandbox.get(&way, 1000).await;
        let leaked = got
            .as_ref()
            .is_ok_and(|bytes| bytes[..] == *content.as_bytes());
        ensure!(!leaked, "{way} was read");
    }
    sh(&*sandbox, &format!("ln -s {path} link")).await?;
    ensure!(
        sandbox.get("link", 1000).await.is_err(),
        "a link to the secret was read"
    );
    finish(sandbox).await?;
    Ok(control(context, "secret", &[&path], |said| {
        said.contains(&content)
    }))
}

async fn write_host(context: &Context<'_>) -> Result {
    let host = context.host()?;
    let (dir, _) = host.forbidden_dir().ok_or(Stop::NotObservable)?;
    let sandbox = context.sandbox().await?;
    let script = format!(
        "ln -s {dir} to; ln -s {dir}/dangling dangling; for p in {dir}/a to/b /proc/1/root{dir}/c; do \
         (echo x > $p) 2>/dev/null; done; (echo x > dangling) 2>/dev/null; mkdir -p {dir} 2>/dev/null; true"
    );
    sh(&*sandbox, &script).await?;
    for path in ["to/d", "dangling"] {
        let _ = sandbox
            .put(path, bytes::Bytes::from_static(b"x"), false)
            .await;
    }
    let (_, empty) = host.forbidden_dir().ok_or(Stop::NotObservable)?;
    ensure!(empty, "a file appeared in {dir} on the host");
    finish(sandbox).await?;
    let shown = host.control(&["sh", "-c", &format!("test -w {dir} && echo open")]);
    Ok(shown
        .filter(|c| c.stdout.trim() != "open")
        .map(|_| "(no control here)".to_owned()))
}

async fn descriptors(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    context.need_proc(&*sandbox).await?;
    // The listing itself has one open.
    let got = sh(&*sandbox, "ls /proc/self/fd | tr '\\n' ' '")
        .await?
        .text();
    ensure!(got.trim() == "0 1 2 3", "{got}");
    finish(sandbox).await
}

async fn descriptor_directory(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    for fd in 3..12 {
        let command = Command::new(["sh", "-c", "pwd; ls -A .."])
            .with_working_dir(format!("/proc/self/fd/{fd}"));
        match run(&*sandbox, command).await {
            Err(Stop::Sandbox(SandboxError::WorkingDirectory)) => {}
            Err(error) => return Err(error),
            Ok(got) => return Err(Stop::Failed(format!("descriptor {fd} is {}", got.text()))),
        }
    }
    finish(sandbox).await
}

async fn hard_link(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let got = sh(
        &*sandbox,
        "for f in /usr/bin/env /etc/passwd; do ln $f l 2>/dev/null && echo $f; done; true",
    )
    .await?;
    ensure!(got.text().is_empty(), "linked {}", got.text());
    finish(sandbox).await
}

async fn set_id_bits(context: &Context<'_>) -> Result {
    attempt(context, "set_id", &[]).await
}

async fn devices(context: &Context<'_>) -> Result {
    attempt(context, "devices", &[]).await
}

async fn device_list(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let got = sh(&*sandbox, "ls /dev | tr '\\n' ' '").await?.text();
    let harmless =
        "console core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    let other = got
        .split_whitespace()
        .filter(|name| !harmless.split(' ').any(|h| h == *name));
    let other = other.collect::<Vec<_>>();
    ensure!(other.is_empty(), "{other:?}");
    finish(sandbox).await
}

async fn mounts(context: &Context<'_>) -> Result {
    let calls = [
        "mount",
        "umount2",
        "move_mount",
        "open_tree",
        "fsopen",
        "fsmount",
        "fsconfig",
        "mount_setattr",
        "pivot_root",
        "chroot",
    ];
    attempt(context, "reach", &calls).await
}

async fn kernel_settings(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let files = "/proc/sys/kernel/core_pattern /proc/sys/kernel/ns_last_pid /proc/sys/kernel/modprobe \
                 /proc/sys/vm/drop_caches /proc/sys/kernel/hostname /proc/sysrq-trigger \
                 /proc/sys/fs/binfmt_misc/register /sys/kernel/mm/ksm/run /proc/irq/default_smp_affinity";
    let script = format!("for f in {files}; do (: >> $f) 2>/dev/null && echo $f; done; true");
    let got = sh(&*sandbox, &script).await?.text();
    // Some are hidden behind the null device, which swallows what is written.
    let open = got
        .lines()
        .filter(|f| *f != "/proc/sysrq-trigger")
        .collect::<Vec<_>>();
    ensure!(open.is_empty(), "can be opened for writing: {open:?}");
    finish(sandbox).await
}

async fn control_groups(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let script = "find / -xdev \\( -name cgroup.procs -o -name release_agent -o -name notify_on_release \
                  -o -name devices.allow \\) -writable 2>/dev/null | head -3; \
                  find /sys/fs/cgroup -name cgroup.procs -writable 2>/dev/null | head -3";
    let got = sh(&*sandbox, script).await?.text();
    ensure!(got.is_empty(), "{got}");
    finish(sandbox).await
}

async fn handles(context: &Context<'_>) -> Result {
    attempt(
        context,
        "reach",
        &["open_by_handle_at", "name_to_handle_at"],
    )
    .await
}

async fn archives(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let here = sandbox.info().working_dir.clone();
    let outside = format!("{here}/outside");
    let hostile = [
        ("parent", tar(&[("../outside", b'0', "", 0o644, b"x")])),
        ("absolute", tar(&[(&outside, b'0', "", 0o644, b"x")])),
        (
            "link first",
            tar(&[
                ("l", b'2', &here, 0o777, b""),
                ("l/outside", b'0', "", 0o644, b"x"),
            ]),
        ),
        (
            "link by steps",
            tar(&[
                ("d", b'5', "", 0o755, b""),
                ("d/l", b'2', "../..", 0o777, b""),
                ("d/l/outside", b'0', "", 0o644, b"x"),
            ]),
        ),
        (
            "hard link",
            tar(&[
                ("h", b'1', "/etc/passwd", 0o644, b""),
                ("outside", b'1', "../x", 0o644, b""),
            ]),
        ),
    ];
    for (name, archive) in hostile {
        let escaped = unpack_then_exists(&*sandbox, archive, &outside).await?;
        ensure!(!escaped, "an archive with {name} wrote outside");
        sh(&*sandbox, "rm -rf unpacked").await?;
    }
    for kind in [b'3', b'4'] {
        let device = tar(&[("device", kind, "", 0o666, b"")]);
        ensure!(
            !unpack_then_exists(&*sandbox, device, "unpacked/device").await?,
            "a device was made"
        );
    }
    let set_id = tar(&[("setid", b'0', "", 0o6755, b"x")]);
    unpack_then_exists(&*sandbox, set_id, "unpacked/setid").await?;
    let found = sh(&*sandbox, "find unpacked -perm /6000 2>/dev/null")
        .await?
        .text();
    ensure!(found.is_empty(), "setuid files: {found}");
    finish(sandbox).await
}
