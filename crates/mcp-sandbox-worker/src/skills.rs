//! Skills of a session: fetched here as bytes, unpacked inside the sandbox only.

use mcp_sandbox_tools::Toolset;
use tracing::{info, warn};

use crate::access::Access;
use crate::desk::Desk;

/// Skills of one session.
pub(crate) const MOST: usize = 64;

/// A skill that a session's agent has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The skill's id.
    pub(crate) skill: String,
    /// A version, or `latest`.
    pub(crate) version: String,
}

/// Brings a skill to `skills/NAME` of the workspace, unless it is there. One that fails is left out, as other workers do.
pub(crate) async fn bring(wanted: &Wanted, access: &Access, tools: &Toolset, desk: &mut Desk) {
    let key = format!("{}/{}", wanted.skill, wanted.version);
    if desk.has_skill(&key) {
        return;
    }
    // Once a sandbox, whether it works or not: each call would try again otherwise.
    desk.add_skill(key);
    let (session, skill) = (access.session(), &wanted.skill);
    let (name, archive) = match access.skill(&wanted.skill, &wanted.version).await {
        Ok(found) => found,
        Err(refusal) => {
            warn!(%session, %skill, %refusal, "a skill cannot be fetched: the session goes on without it");
            return;
        }
    };
    let Some(name) = folder_name(&name) else {
        warn!(%session, %skill, "a skill's name is no name of a folder: the session goes on without it");
        return;
    };
    match tools
        .unpack(archive, &format!("{}/skills/{name}", tools.working_dir()))
        .await
    {
        Ok(result) if !result.is_error => info!(%session, %skill, "skill unpacked"),
        Ok(result) => {
            let why = result.as_text();
            warn!(%session, %skill, %why, "a skill cannot be unpacked: the session goes on without it");
        }
        Err(error) => {
            let error = mcp_diagnostics::telemetry::chain(&error).to_string();
            warn!(%session, %skill, %error, "a skill cannot be unpacked: the session goes on without it");
        }
    }
}

/// The name if it can be one folder's and nothing else.
fn folder_name(name: &str) -> Option<&str> {
    let good = (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control);
    good.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_skills_are_folders_and_never_paths() {
        assert_eq!(folder_name("pdf tools-2"), Some("pdf tools-2"));
        for bad in [
            "",
            ".",
            "..",
            ".git",
            "a/b",
            "../x",
            "/x",
            "a\\b",
            "a\nb",
            &"x".repeat(129),
        ] {
            assert_eq!(folder_name(bad), None, "{bad:?}");
        }
    }
}
