//! One tunnel, its token and a gateway, with the bytes of the golden vectors.

use crate::*;

pub(crate) const NOW: u64 = 1_764_000_000_000;
pub(crate) const EXPORTER: [u8; 32] = [5; 32];

pub(crate) fn master() -> MasterKey {
    MasterKey::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

pub(crate) fn tunnel_id() -> TunnelId {
    TunnelId::new(NOW, &[2; 10])
}

pub(crate) fn token_id() -> TokenId {
    TokenId::new(NOW, &[3; 10])
}

pub(crate) fn label() -> DomainLabel {
    DomainLabel::parse("k3v9d2xq").unwrap()
}

pub(crate) fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

pub(crate) fn edge_name() -> HostName {
    host("edge.tunnels.example.com")
}

pub(crate) fn token() -> TunnelToken {
    let domain = DomainName::parse("tunnels.example.com").unwrap();
    let edge = (host("tunnels.example.com"), 443);
    TunnelToken::new(
        tunnel_id(),
        label(),
        domain,
        token_id(),
        master().token_seed(&token_id()),
        edge,
    )
}

pub(crate) fn gateway() -> GatewayKey {
    GatewayKey::from_bytes([4; 32])
}

pub(crate) fn announcement() -> Announcement {
    let routes = ["mcp", "search"].map(|route| RouteName::parse(route).unwrap());
    Announcement::new("0.1.0", "build-7", routes.into()).unwrap()
}

pub(crate) fn credential() -> LinkCredential {
    LinkCredential::sign(&token(), &gateway(), &EXPORTER, announcement())
}

pub(crate) fn workspace(name: &str) -> WorkspaceId {
    WorkspaceId::parse(name).unwrap()
}

pub(crate) fn tunnel() -> TunnelAccess {
    let mut tunnel = TunnelAccess::new(tunnel_id(), workspace("acme"), label());
    tunnel.tokens.push(TokenAccess::new(
        token_id(),
        master().token_public_key(&token_id()),
    ));
    tunnel
}

pub(crate) fn snapshot(tunnel: TunnelAccess) -> AccessSnapshot {
    AccessSnapshot::new(NOW, NOW, vec![tunnel], Vec::new()).unwrap()
}
