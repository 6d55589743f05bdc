//! Errors of the API: one envelope for all of them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::work::HeartbeatState;

/// Body of every answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "error")]
pub struct ErrorEnvelope {
    /// What went wrong.
    pub error: ErrorObject,
    /// Repeats the header `request-id`; what to name to the operator.
    pub request_id: Option<String>,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// Its class.
    #[serde(rename = "type")]
    pub kind: ErrorType,
    /// For people, with the cure where there is one.
    pub message: String,
    /// More for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<ErrorDetails>,
}

/// More for programs about an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetails {
    /// Finer than the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Who may be shown this error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_visibility: Option<String>,
    /// Of a heartbeat that came too late: where the item stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_state: Option<HeartbeatState>,
}

/// Values of [`ErrorDetails::error_code`] in the routes of sessions and work.
pub mod code {
    /// 412: another heartbeat, or none, was the last one.
    pub const HEARTBEAT_PRECONDITION_FAILED: &str = "heartbeat_precondition_failed";
    /// 404: there is no such environment.
    pub const ENVIRONMENT_NOT_FOUND: &str = "environment_not_found";
    /// 400: the environment is archived.
    pub const ENVIRONMENT_ARCHIVED: &str = "environment_archived";
    /// 403: environments cannot be made here.
    pub const ENVIRONMENT_CREATE_DISABLED: &str = "environment_create_disabled";
    /// 403: environments cannot be changed here.
    pub const ENVIRONMENT_UPDATE_DISABLED: &str = "environment_update_disabled";
    /// 400: an environment's kind never changes.
    pub const INVALID_CONFIG_TYPE_CHANGE: &str = "invalid_config_type_change";
    /// 400: metadata beyond its bounds.
    pub const INVALID_METADATA: &str = "invalid_metadata";
}

/// Class of an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorType {
    /// 400: the request itself is wrong.
    InvalidRequest,
    /// 401: no credential, or none that is good here.
    Authentication,
    /// 402: the account cannot pay for this.
    Billing,
    /// 403: the credential is good, but not for this.
    Permission,
    /// 404: there is none such, or none that this credential may know of.
    NotFound,
    /// 409: the request contradicts the present state.
    Conflict,
    /// 409: another memory stands at that path.
    MemoryPathConflict,
    /// 412: the memory is not in the expected state.
    MemoryPrecondition,
    /// 413: the body is too large.
    TooLarge,
    /// 429: too many requests, or too many objects.
    RateLimit,
    /// 500, 503: the server's own fault.
    Api,
    /// 504: it took too long.
    Timeout,
    /// 529, 503: the server cannot take this now.
    Overloaded,
    /// A class that this version does not know.
    Other(String),
}

impl ErrorType {
    /// Every class that has a name here.
    pub const ALL: [Self; 13] = [
        Self::InvalidRequest,
        Self::Authentication,
        Self::Billing,
        Self::Permission,
        Self::NotFound,
        Self::Conflict,
        Self::MemoryPathConflict,
        Self::MemoryPrecondition,
        Self::TooLarge,
        Self::RateLimit,
        Self::Api,
        Self::Timeout,
        Self::Overloaded,
    ];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Billing => "billing_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::Conflict => "conflict_error",
            Self::MemoryPathConflict => "memory_path_conflict_error",
            Self::MemoryPrecondition => "memory_precondition_failed_error",
            Self::TooLarge => "request_too_large",
            Self::RateLimit => "rate_limit_error",
            Self::Api => "api_error",
            Self::Timeout => "timeout_error",
            Self::Overloaded => "overloaded_error",
            Self::Other(name) => name,
        }
    }

    /// The HTTP status that goes with it, unless a route says otherwise.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Authentication => 401,
            Self::Billing => 402,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::MemoryPathConflict => 409,
            Self::MemoryPrecondition => 412,
            Self::TooLarge => 413,
            Self::RateLimit => 429,
            Self::Api | Self::Other(_) => 500,
            Self::Timeout => 504,
            Self::Overloaded => 529,
        }
    }
}

impl From<&str> for ErrorType {
    fn from(name: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .unwrap_or_else(|| Self::Other(name.to_owned()))
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for ErrorType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self::from(name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_survives_the_wire() {
        for kind in ErrorType::ALL {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<ErrorType>(&text).unwrap(), kind);
            assert!((400..600).contains(&kind.status()));
        }
        let later: ErrorType = serde_json::from_str(r#""later_error""#).unwrap();
        assert_eq!(later, ErrorType::Other("later_error".into()));
        assert_eq!(serde_json::to_string(&later).unwrap(), r#""later_error""#);
    }

    #[test]
    fn a_late_heartbeat_learns_where_the_item_stands() {
        // The official fixture, but for spaces.
        let text = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Heartbeat precondition failed: expected hb-1, actual was NULL","details":{"error_code":"heartbeat_precondition_failed","error_visibility":"user_facing","current_state":{"state":"queued","last_heartbeat":null,"lease_updated_at":null,"lease_extended":false,"ttl_seconds":120}}},"request_id":null}"#;
        let envelope: ErrorEnvelope = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&envelope).unwrap(), text);
        let details = envelope.error.details.unwrap();
        assert_eq!(
            details.error_code.unwrap(),
            code::HEARTBEAT_PRECONDITION_FAILED
        );
        assert_eq!(details.current_state.unwrap().ttl_seconds, Some(120));
    }

    #[test]
    fn details_are_optional() {
        let text = r#"{"type":"error","error":{"type":"api_error","message":"m","details":{"error_code":"c"}},"request_id":"req_1"}"#;
        let envelope: ErrorEnvelope = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&envelope).unwrap(), text);
        let bare: ErrorEnvelope =
            serde_json::from_str(r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#)
                .unwrap();
        assert_eq!(bare.request_id, None);
    }
}
