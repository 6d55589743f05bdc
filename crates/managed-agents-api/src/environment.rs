//! Environments: where the tools of sessions run, and the keys of their workers.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::agent::{Metadata, MetadataPatch};
use crate::patch::nullable;
use crate::vocabulary::tagged;
use crate::{RawJson, secret};

/// An environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "environment")]
pub struct Environment {
    /// `env_…`, opaque.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Who provides it.
    pub config: EnvironmentConfig,
    /// Text by name.
    #[serde(default)]
    pub metadata: Metadata,
    /// `organization` or `account`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// When it was archived; no session can be created in it since.
    pub archived_at: Option<Timestamp>,
}

tagged! {
    /// Who provides an environment; its kind never changes.
    pub enum EnvironmentConfig {
        /// The deployer: isolation, network and packages are up to the worker.
        SelfHosted(SelfHosted) = "self_hosted",
        /// The platform.
        Cloud(Cloud) = "cloud",
    }
}

/// An environment that the deployer provides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "self_hosted")]
pub struct SelfHosted {}

/// An environment that the platform provides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "cloud")]
pub struct Cloud {
    /// What it may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networking: Option<RawJson>,
    /// What is installed in it, by package manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<RawJson>,
}

/// Body of `POST /v1/environments`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateEnvironment {
    /// For people.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// At most 16 pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// `organization` or `account`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Who provides it; absent: the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<EnvironmentConfig>,
}

impl CreateEnvironment {
    /// An environment that the deployer provides.
    pub fn self_hosted(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            config: Some(SelfHosted {}.into()),
            ..Self::default()
        }
    }
}

/// Body of `POST /v1/environments/{id}`: what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateEnvironment {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people; `null` clears.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "nullable"
    )]
    pub description: Option<Option<String>>,
    /// Changes; an empty text deletes as `null` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataPatch>,
    /// Of the same kind as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<EnvironmentConfig>,
}

/// A key of an environment's workers, without its secret: our own routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "environment_key")]
pub struct EnvironmentKey {
    /// `ekey_…`, opaque.
    pub id: String,
    /// The environment whose work it fetches.
    pub environment_id: String,
    /// 1 to 255 characters for people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// The one answer that holds the key itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnvironmentKeyWithSecret {
    /// What later answers repeat.
    #[serde(flatten)]
    pub environment_key: EnvironmentKey,
    /// The credential: shown once, kept nowhere.
    #[serde(with = "secret")]
    pub key: SecretString,
}

/// Body of `POST /v1/environments/{id}/keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateEnvironmentKey {
    /// 1 to 255 characters for people.
    pub name: String,
}

/// What is left of an object that was deleted.
///
/// ```
/// let gone = managed_agents_api::Deleted::new("env_1", "environment_deleted");
/// let text = serde_json::to_string(&gone)?;
/// assert_eq!(text, r#"{"id":"env_1","type":"environment_deleted"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// What was its id.
    pub id: String,
    /// `environment_deleted`, `session_deleted` and so on.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Deleted {
    /// The rest of `id`; `kind` as in `session_deleted`.
    pub fn new(id: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            kind: kind.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_environment_survive() {
        for config in [
            r#"{"type":"self_hosted"}"#,
            r#"{"type":"cloud","networking":{"type":"limited", "allowed_hosts":[]},"packages":{"pip":["a"]}}"#,
            r#"{"type":"later","x":1}"#,
        ] {
            let text = format!(r#"{{"name":"n","config":{config}}}"#);
            let create: CreateEnvironment = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&create).unwrap(), text);
        }
        let made = serde_json::to_string(&CreateEnvironment::self_hosted("n")).unwrap();
        assert_eq!(made, r#"{"name":"n","config":{"type":"self_hosted"}}"#);
    }

    #[test]
    fn a_key_is_one_flat_object() {
        let made = EnvironmentKeyWithSecret {
            environment_key: EnvironmentKey {
                id: "ekey_1".into(),
                environment_id: "env_1".into(),
                name: "rack 7".into(),
                created_at: Timestamp::UNIX_EPOCH,
                revoked_at: None,
            },
            key: "mce_x".into(),
        };
        let text = serde_json::to_string(&made).unwrap();
        assert!(text.starts_with(r#"{"type":"environment_key","id":"ekey_1""#));
        assert!(text.ends_with(r#","key":"mce_x"}"#));
        let read: EnvironmentKeyWithSecret = serde_json::from_str(&text).unwrap();
        assert_eq!(read.environment_key, made.environment_key);
        assert!(!format!("{made:?}").contains("mce_x"));
    }
}
