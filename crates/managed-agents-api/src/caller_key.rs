//! Keys that let agents call through tunnels: our own routes.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::secret;

/// A caller key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "caller_key")]
pub struct CallerKey {
    /// `ckey_…`, opaque.
    pub id: String,
    /// 1 to 255 characters for people.
    pub name: String,
    /// The tunnels that it reaches; `None`: every tunnel of its workspace.
    pub tunnel_ids: Option<Vec<String>>,
    /// The routes that it reaches; `None`: every route.
    pub routes: Option<Vec<String>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops to work by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// The one answer that holds the key itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallerKeyWithSecret {
    /// What later answers repeat.
    #[serde(flatten)]
    pub caller_key: CallerKey,
    /// The credential: shown once, kept nowhere.
    #[serde(with = "secret")]
    pub key: SecretString,
}

/// Body of `POST /v1/caller_keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateCallerKey {
    /// 1 to 255 characters for people.
    pub name: String,
    /// Limits the key to these tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_ids: Option<Vec<String>>,
    /// Limits the key to these routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<String>>,
    /// When it stops to work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_one_flat_object() {
        let made = CallerKeyWithSecret {
            caller_key: CallerKey {
                id: "ckey_1".into(),
                name: "laptop".into(),
                tunnel_ids: None,
                routes: None,
                created_at: Timestamp::UNIX_EPOCH,
                expires_at: None,
                revoked_at: None,
            },
            key: "mck_x".into(),
        };
        let text = serde_json::to_string(&made).unwrap();
        assert!(text.starts_with(r#"{"type":"caller_key","id":"ckey_1""#));
        assert!(text.ends_with(r#","key":"mck_x"}"#));
        let read: CallerKeyWithSecret = serde_json::from_str(&text).unwrap();
        assert_eq!(read.caller_key, made.caller_key);
    }
}
