//! Tunnels, their certificates and their tokens, as the vendor's API has them.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::secret;

/// An MCP tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "tunnel")]
pub struct Tunnel {
    /// `tnl_…`, opaque.
    pub id: String,
    /// When it was archived; archived tunnels carry no traffic, for ever.
    pub archived_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// 1 to 255 characters for people.
    pub display_name: Option<String>,
    /// Host name of the tunnel: never reused, even after archival.
    pub domain: String,
}

/// The token that attaches a gateway to its tunnel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "tunnel_token")]
pub struct TunnelToken {
    /// Stable for one value of the token; changes on rotation.
    pub id: String,
    /// The credential itself.
    #[serde(with = "secret")]
    pub tunnel_token: SecretString,
}

/// A CA certificate registered for a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "tunnel_certificate")]
pub struct TunnelCertificate {
    /// `tcrt_…`, opaque.
    pub id: String,
    /// The tunnel it is registered for.
    pub tunnel_id: String,
    /// When it left the trusted set.
    pub archived_at: Option<Timestamp>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// Its own end of validity; `None` where it names none.
    pub expires_at: Option<Timestamp>,
    /// SHA-256 of the DER, 64 lower-case hex digits.
    pub fingerprint: String,
}

/// Body of `POST /v1/tunnels`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTunnel {
    /// 1 to 255 characters for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Body of `POST /v1/tunnels/{id}/rotate_token`, and of our own routes that take nothing
/// else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Free text for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `POST /v1/tunnels/{id}/certificates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateCertificate {
    /// One PEM certificate of a CA, at most 8 kB, no private key.
    pub ca_certificate_pem: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_says_null_rather_than_leaving_out() {
        let tunnel = Tunnel {
            id: "tnl_1".into(),
            archived_at: None,
            created_at: Timestamp::from_millisecond(1_790_000_000_123).unwrap(),
            display_name: None,
            domain: "a.tunnel.localhost".into(),
        };
        assert_eq!(
            serde_json::to_string(&tunnel).unwrap(),
            r#"{"type":"tunnel","id":"tnl_1","archived_at":null,"created_at":"2026-09-21T14:13:20.123Z","display_name":null,"domain":"a.tunnel.localhost"}"#
        );
    }

    #[test]
    fn a_token_is_written_but_never_debugged() {
        let token = TunnelToken {
            id: "ttok_1".into(),
            tunnel_token: "mct_secret".into(),
        };
        assert!(
            serde_json::to_string(&token)
                .unwrap()
                .contains("mct_secret")
        );
        assert!(!format!("{token:?}").contains("mct_secret"));
        let read: TunnelToken =
            serde_json::from_str(&serde_json::to_string(&token).unwrap()).unwrap();
        assert_eq!(read.id, "ttok_1");
    }

    #[test]
    fn bodies_may_be_empty_and_may_say_more() {
        assert_eq!(
            serde_json::from_str::<CreateTunnel>("{}").unwrap(),
            CreateTunnel::default()
        );
        let body: CreateTunnel =
            serde_json::from_str(r#"{"display_name": null, "later": [1]}"#).unwrap();
        assert_eq!(body.display_name, None);
    }
}
