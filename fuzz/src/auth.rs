//! Tokens, credentials and names of `mcp-tunnel-auth`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_tunnel_auth::{
    ApprovalCode, CallerKey, CredentialKind, DomainLabel, DomainName, GatewayKey, HostName,
    LinkCredential, MasterKey, PublicHost, RouteName, TunnelId, TunnelToken,
    carries_own_credential,
};
use secrecy::ExposeSecret;
use sha2::{Digest as _, Sha256};

/// The content of a token, given a good check: what is read is written again as it was.
pub(crate) fn token(content: &[u8]) {
    let check: [u8; 32] = Sha256::digest(content).into();
    let sealed = [content, check.get(..4).unwrap_or_default()].concat();
    let text = format!("mct_{}", URL_SAFE_NO_PAD.encode(sealed));
    if let Ok(token) = TunnelToken::parse(&text) {
        let again =
            TunnelToken::parse(token.encode().expose_secret()).expect("it was just written");
        assert_eq!(
            again.encode().expose_secret(),
            token.encode().expose_secret()
        );
    }
}

/// Any text where a credential or a name is expected.
pub(crate) fn text(bytes: &[u8]) {
    let _ = (carries_own_credential(bytes), CallerKey::from_header(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let _ = (
        CredentialKind::recognise(text),
        TunnelToken::parse(text),
        CallerKey::parse(text),
    );
    let _ = (
        GatewayKey::parse(text),
        MasterKey::parse(text),
        TunnelId::parse(text),
    );
    let _ = (
        RouteName::parse(text),
        DomainLabel::parse(text),
        HostName::parse(text),
    );
    if let Ok(code) = ApprovalCode::parse(text) {
        assert_eq!(ApprovalCode::parse(&code.to_string()), Ok(code));
    }
    let domain = DomainName::parse("t.example.com").expect("a domain");
    if let Some(public) = PublicHost::parse(text, &domain) {
        assert_eq!(
            PublicHost::parse(&public.under(&domain), &domain),
            Some(public)
        );
    }
}

/// What a hello may carry: what is read is written again as it was.
pub(crate) fn credential(bytes: &[u8]) {
    if let Ok(credential) = LinkCredential::decode(bytes) {
        assert_eq!(LinkCredential::decode(&credential.encode()), Ok(credential));
    }
}
