//! Telling the kinds of credential apart by their shape, so that an error can say what was mixed up.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::base32;

/// A kind of credential, ours or a neighbour's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialKind {
    /// `mct_…`: what a gateway is started with.
    TunnelToken,
    /// `mck_…`: what a caller of the edge presents.
    CallerKey,
    /// `mca_…`: what the REST API is called with.
    ApiKey,
    /// `mce_…`: what a sandbox worker is started with.
    EnvironmentKey,
    /// `mci_…`: what a worker holds for one work item.
    ItemToken,
    /// `mcg_…`: the content of a gateway's key file.
    GatewayKey,
    /// `eyJ…`: a token for cloudflared, as the vendor's own tunnels use.
    VendorTunnelToken,
    /// `sk-ant-api…`: an API key of the vendor's platform.
    VendorApiKey,
    /// `sk-ant-admin…`: an administration key of the vendor's platform.
    VendorAdminKey,
    /// `sk-ant-oat…`: an access or environment key of the vendor's platform.
    VendorOauthToken,
    /// `sk-ant-req…`: a work secret of the vendor's platform.
    VendorItemToken,
    /// Three parts of base64url: a signed JSON web token.
    WebToken,
    /// `-----BEGIN …`: a certificate or key file.
    Pem,
    /// `tnl_…`, `ttok_…` and the like: the public id of something, not its secret.
    Identifier,
}

/// One kind of credential stands where another belongs. Never holds the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} was given where {} belongs; {}; {}", .found.noun(), .expected.noun(), .found.place(), .expected.source())]
#[non_exhaustive]
pub struct WrongCredential {
    /// What belongs there.
    pub expected: CredentialKind,
    /// What was recognised.
    pub found: CredentialKind,
}

impl WrongCredential {
    /// What to do about it: where the found credential belongs, and where the expected one comes from.
    #[must_use]
    pub fn cure(&self) -> String {
        format!("{}; {}", self.found.place(), self.expected.source())
    }
}

const PREFIXES: [(&str, CredentialKind); 19] = [
    ("mct_", CredentialKind::TunnelToken),
    ("mck_", CredentialKind::CallerKey),
    ("mca_", CredentialKind::ApiKey),
    ("mce_", CredentialKind::EnvironmentKey),
    ("mci_", CredentialKind::ItemToken),
    ("mcg_", CredentialKind::GatewayKey),
    ("sk-ant-api", CredentialKind::VendorApiKey),
    ("sk-ant-admin", CredentialKind::VendorAdminKey),
    ("sk-ant-oat", CredentialKind::VendorOauthToken),
    ("sk-ant-req", CredentialKind::VendorItemToken),
    ("-----BEGIN ", CredentialKind::Pem),
    ("SHA256:", CredentialKind::Identifier),
    ("tnl_", CredentialKind::Identifier),
    ("ttok_", CredentialKind::Identifier),
    ("tcon_", CredentialKind::Identifier),
    ("ckey_", CredentialKind::Identifier),
    ("tcrt_", CredentialKind::Identifier),
    ("env_", CredentialKind::Identifier),
    ("wrkspc_", CredentialKind::Identifier),
];

impl CredentialKind {
    /// Recognises a credential by its shape; `None` for anything else. Blanks and quotes around it are ignored.
    ///
    /// ```
    /// use mcp_tunnel_auth::CredentialKind;
    /// assert_eq!(CredentialKind::recognise("sk-ant-api03-abc"), Some(CredentialKind::VendorApiKey));
    /// assert_eq!(CredentialKind::recognise("hello"), None);
    /// ```
    #[must_use]
    pub fn recognise(text: &str) -> Option<Self> {
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
        if text.starts_with("eyJ") {
            return if is_web_token(text) {
                Some(Self::WebToken)
            } else {
                is_cloudflared_token(text).then_some(Self::VendorTunnelToken)
            };
        }
        PREFIXES
            .iter()
            .find(|(prefix, _)| text.starts_with(prefix))
            .map(|(_, kind)| *kind)
    }

    /// Refuses a text that is recognisably of another kind; an unknown shape passes.
    ///
    /// # Errors
    /// [`WrongCredential`] names both kinds and the cure.
    pub fn expect(self, text: &str) -> Result<(), WrongCredential> {
        match Self::recognise(text) {
            Some(found) if found != self => Err(WrongCredential {
                expected: self,
                found,
            }),
            _ => Ok(()),
        }
    }

    /// What it is called in a sentence, with its prefix.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::TunnelToken => "a tunnel token (mct_…)",
            Self::CallerKey => "a caller key (mck_…)",
            Self::ApiKey => "an API key (mca_…)",
            Self::EnvironmentKey => "an environment key (mce_…)",
            Self::ItemToken => "an item token (mci_…)",
            Self::GatewayKey => "a gateway's own key (mcg_…)",
            Self::VendorTunnelToken => "a cloudflared token (eyJ…)",
            Self::VendorApiKey => "an Anthropic API key (sk-ant-api…)",
            Self::VendorAdminKey => "an Anthropic administration key (sk-ant-admin…)",
            Self::VendorOauthToken => "an Anthropic access or environment key (sk-ant-oat…)",
            Self::VendorItemToken => "an Anthropic work secret (sk-ant-req…)",
            Self::WebToken => "a JSON web token",
            Self::Pem => "the content of a certificate or key file",
            Self::Identifier => "a public id or fingerprint",
        }
    }

    /// Where such a credential comes from.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::TunnelToken => {
                "take the token that the console shows for the tunnel (`mcp-cloud tunnel token TUNNEL`)"
            }
            Self::CallerKey => {
                "make a caller key in the console (`mcp-cloud caller-key create NAME`)"
            }
            Self::ApiKey => "take an API key of the console",
            Self::EnvironmentKey => {
                "make an environment key in the console (`mcp-cloud environment-key create NAME`)"
            }
            Self::ItemToken => "take the secret that came with the work item",
            Self::GatewayKey => "take the key file of the gateway's state folder",
            Self::VendorTunnelToken
            | Self::VendorApiKey
            | Self::VendorAdminKey
            | Self::VendorOauthToken
            | Self::VendorItemToken => "take it from the Anthropic console",
            Self::WebToken => "take it from the identity provider",
            Self::Pem => "give the content of the PEM file",
            Self::Identifier => "take the id that the console lists",
        }
    }

    /// Where such a credential belongs.
    #[must_use]
    pub const fn place(self) -> &'static str {
        match self {
            Self::TunnelToken => "a tunnel token starts mcp-tunnel-gateway",
            Self::CallerKey => {
                "a caller key is what MCP clients send to the edge in Mcp-Tunnel-Authorization"
            }
            Self::ApiKey => "an API key calls the console's REST API",
            Self::EnvironmentKey => "an environment key starts mcp-sandbox worker",
            Self::ItemToken => "an item token serves one work item",
            Self::GatewayKey => "a gateway's key stays in its state folder",
            Self::VendorTunnelToken => {
                "a cloudflared token connects cloudflared to Cloudflare, not to this edge"
            }
            Self::VendorApiKey => "an Anthropic API key calls the Claude API",
            Self::VendorAdminKey => "an Anthropic administration key manages an organization there",
            Self::VendorOauthToken => {
                "such a key belongs to a worker or client of Anthropic's platform"
            }
            Self::VendorItemToken => "a work secret serves one work item of Anthropic's platform",
            Self::WebToken => "a web token is for the service that it names",
            Self::Pem => "certificates and keys are given as files",
            Self::Identifier => "an id names something and proves nothing",
        }
    }

    /// Whether this project issues such credentials.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(
            self,
            Self::TunnelToken
                | Self::CallerKey
                | Self::ApiKey
                | Self::EnvironmentKey
                | Self::ItemToken
                | Self::GatewayKey
        )
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }
}

/// Whether a header's value carries a credential of ours anywhere: such a value never travels on to a private server.
///
/// Looks for a prefix of ours that starts a word and is followed by at least 20 letters, digits, `_` or `-`.
#[must_use]
pub fn carries_own_credential(value: &[u8]) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    value.split(|byte| !word(byte)).any(|text| {
        let long = text.len() >= 24;
        long && PREFIXES
            .iter()
            .any(|(prefix, kind)| kind.is_ours() && text.starts_with(prefix.as_bytes()))
    })
}

/// Whether a text has the digits of one of our 256-bit keys after its prefix.
pub(crate) fn is_key_digits(text: &str) -> bool {
    text.len() == 2 * base32::U128_DIGITS && base32::is_digits(text)
}

fn is_web_token(text: &str) -> bool {
    text.split('.').count() == 3
}

/// The vendor's and cloudflared's shape: base64 of a JSON object with an account `a`, a tunnel `t` and a secret `s`.
fn is_cloudflared_token(text: &str) -> bool {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = [&alphabet::STANDARD, &alphabet::URL_SAFE]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok());
    let Some(json) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return false;
    };
    ["\"a\"", "\"t\"", "\"s\""]
        .iter()
        .all(|key| json.contains(key))
}

/// `text` without the secrets that stand in `arguments`, for a program that says back what it was given: credentials,
/// also behind `--flag=`, and what stands before the host of a URL. `None` where the text has none of them.
///
/// ```
/// use mcp_tunnel_auth::without_credentials;
/// let given = ["--edge=https://ada:hunter2@edge.example".to_owned()];
/// let told = without_credentials("no edge at https://ada:hunter2@edge.example", given);
/// assert_eq!(told.as_deref(), Some("no edge at https://(not shown)@edge.example"));
/// assert_eq!(without_credentials("no edge", ["edge".to_owned()]), None);
/// ```
#[must_use]
pub fn without_credentials(
    text: &str,
    arguments: impl IntoIterator<Item = String>,
) -> Option<String> {
    let mut told = None;
    for argument in arguments {
        let value = match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => value,
            _ => &argument,
        };
        let shown = told.as_deref().unwrap_or(text);
        if let Some(secret) = secret_of(value).filter(|secret| shown.contains(secret)) {
            told = Some(shown.replace(secret, "(not shown)"));
        }
    }
    told
}

fn secret_of(value: &str) -> Option<&str> {
    let user = value
        .split_once("://")
        .and_then(|(_, rest)| Some(rest.rsplit_once('@')?.0));
    let secret = user.or_else(|| {
        let kind = CredentialKind::recognise(value)?;
        (kind != CredentialKind::Identifier).then_some(value)
    });
    secret.filter(|secret| !secret.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<CredentialKind>) {
        assert_eq!(CredentialKind::recognise(text), expect, "{text}");
    }

    #[test]
    fn every_kind_is_told_by_its_shape() {
        check("mct_AQ", Some(CredentialKind::TunnelToken));
        check(" 'mck_000' ", Some(CredentialKind::CallerKey));
        check("\"mca_000\"\n", Some(CredentialKind::ApiKey));
        check("mce_000", Some(CredentialKind::EnvironmentKey));
        check("mci_000", Some(CredentialKind::ItemToken));
        check("mcg_000", Some(CredentialKind::GatewayKey));
        check("sk-ant-api03-x", Some(CredentialKind::VendorApiKey));
        check("sk-ant-admin01-x", Some(CredentialKind::VendorAdminKey));
        check("sk-ant-oat01-x", Some(CredentialKind::VendorOauthToken));
        check("sk-ant-req-v1.x", Some(CredentialKind::VendorItemToken));
        check("-----BEGIN CERTIFICATE-----", Some(CredentialKind::Pem));
        check(
            "tnl_01kav9ft000w3ge1r70w3ge1r7",
            Some(CredentialKind::Identifier),
        );
        // {"a":"acc","t":"b1c5","s":"c2VjcmV0"}
        check(
            "eyJhIjoiYWNjIiwidCI6ImIxYzUiLCJzIjoiYzJWamNtVjAifQ==",
            Some(CredentialKind::VendorTunnelToken),
        );
        check(
            "eyJhIjoiYWNjIiwidCI6ImIxYzUiLCJzIjoiYzJWamNtVjAifQ",
            Some(CredentialKind::VendorTunnelToken),
        );
        check(
            "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln",
            Some(CredentialKind::WebToken),
        );
        check("eyJ4IjoxfQ", None);
        check("", None);
        check("password", None);
    }

    #[test]
    fn the_error_names_both_kinds_and_the_cure_and_never_the_value() {
        let error = CredentialKind::TunnelToken
            .expect("mck_verysecretvalue")
            .unwrap_err();
        let text = error.to_string();
        assert_eq!(
            text,
            "a caller key (mck_…) was given where a tunnel token (mct_…) belongs; a caller key is what MCP clients send \
             to the edge in Mcp-Tunnel-Authorization; take the token that the console shows for the tunnel (`mcp-cloud \
             tunnel token TUNNEL`)"
        );
        assert!(!format!("{error:?}{text}{}", error.cure()).contains("verysecret"));
        assert_eq!(CredentialKind::TunnelToken.expect("whatever"), Ok(()));
    }

    #[test]
    fn own_values_are_found_inside_headers() {
        let key = format!("mck_{}", "0".repeat(52));
        for value in [
            key.clone(),
            format!("Bearer {key}"),
            format!("a=1; k={key}"),
            format!("\"{key}\""),
        ] {
            assert!(carries_own_credential(value.as_bytes()), "{value}");
        }
        for value in [
            "Bearer sk-ant-api03-0000000000000000000000",
            "mck_",
            "xmck_00000000000000000000000",
            "mcp_0000000000000000000000",
        ] {
            assert!(!carries_own_credential(value.as_bytes()), "{value}");
        }
    }
}
