//! A token, a gateway's proof, an administrator's approval and a caller's key, without any network.
//!
//! Run it with `cargo run -p embed --example auth_roundtrip`.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::{Context, ensure};
use mcp_tunnel_auth::{
    AccessSnapshot, Announcement, ApprovalCode, CallerGrant, CallerKey, CallerKeyAccess,
    CallerKeyId, ConnectionId, DomainLabel, DomainName, GatewayAccess, GatewayKey, GatewayState,
    HostName, LinkCredential, LinkDecision, LinkRefusal, MasterKey, RouteName, TokenAccess,
    TokenId, TunnelAccess, TunnelId, TunnelToken, WorkspaceId,
};
use secrecy::ExposeSecret;

/// A console has a clock and random bytes; here both are fixed, so that every run says the same.
const NOW_MS: u64 = 1_764_000_000_000;

pub(crate) fn main() -> anyhow::Result<()> {
    // The console makes a tunnel. Its rows hold ids and a public key; the token can be derived again at any time.
    let master = MasterKey::from_bytes([1; 32]);
    let token_id = TokenId::new(NOW_MS, &[2; 10]);
    let domain = DomainName::parse("tunnels.example.com")?;
    let label = DomainLabel::parse("k3v9d2xq")?;
    let tunnel_id = TunnelId::new(NOW_MS, &[3; 10]);
    let mut tunnel = TunnelAccess::new(tunnel_id, WorkspaceId::parse("default")?, label.clone());
    tunnel.tokens.push(TokenAccess::new(
        token_id,
        master.token_public_key(&token_id),
    ));
    let edge = (HostName::parse("tunnels.example.com")?, 443);
    let seed = master.token_seed(&token_id);
    let token = TunnelToken::new(tunnel_id, label, domain, token_id, seed, edge).encode();
    println!(
        "console  made {tunnel_id}; its token has {} characters",
        token.expose_secret().len()
    );

    // The gateway reads the token, and proves it and its own key over the TLS connection that it made.
    let token = TunnelToken::parse(token.expose_secret())?;
    let gateway = GatewayKey::from_bytes([4; 32]);
    let exporter = [5; 32];
    let announcement = Announcement::new("0.1.0", "build-7", vec![RouteName::default()])?;
    let hello = LinkCredential::sign(&token, &gateway, &exporter, announcement).encode();
    println!(
        "gateway  dials {} as {}",
        token.edge_name,
        gateway.public_key().fingerprint()
    );

    // The edge judges it by the snapshot that the console pushed: genuine, and nobody approved it yet.
    let first = snapshot(0, tunnel.clone(), Vec::new())?;
    let credential = LinkCredential::decode(&hello)?;
    let judged = first.judge_link(&credential, &token.edge_name, &exporter);
    ensure!(judged == Ok(LinkDecision::Pending));
    println!(
        "edge     lets it wait; both sides show {}",
        ApprovalCode::from_entropy([6; 5])
    );

    // The same bytes on another connection: somebody ends TLS in between.
    let replayed = first.judge_link(&credential, &token.edge_name, &[0; 32]);
    let refusal = replayed.err().context("a replay was let in")?;
    ensure!(refusal == LinkRefusal::Intercepted);
    println!("edge     answers a replay: {refusal}; {}", refusal.cure());

    // The administrator compares the fingerprint and approves; the next snapshot says so, and knows a caller.
    let fingerprint = credential.identity().fingerprint();
    let connection = ConnectionId::new(NOW_MS, &[7; 10]);
    tunnel.gateways.push(GatewayAccess::new(
        fingerprint,
        connection,
        GatewayState::Approved,
    ));
    let caller = CallerKey::from_entropy([8; 32]);
    let caller_id = CallerKeyId::new(NOW_MS, &[9; 10]);
    let access = CallerKeyAccess::new(caller_id, caller.hash(), WorkspaceId::parse("default")?);
    let second = snapshot(first.number(), tunnel, vec![access])?;
    ensure!(second.supersedes(&first));
    let judged = second.rejudge(credential.identity(), first.number());
    ensure!(
        judged
            == Ok(LinkDecision::Active {
                connection: Some(connection)
            })
    );
    println!("console  approved it; the link that waited is active, without a new dial");

    // A caller presents its key; the edge finds the tunnel by its label.
    let target = second.tunnel_by_label(&token.label);
    let granted = second.authorise_caller(Some(&caller), target, &RouteName::default(), NOW_MS);
    ensure!(granted == Ok(CallerGrant::Key(caller_id)));
    println!("edge     lets the caller in by key {caller_id}");
    Ok(())
}

fn snapshot(
    last: u64,
    tunnel: TunnelAccess,
    callers: Vec<CallerKeyAccess>,
) -> anyhow::Result<AccessSnapshot> {
    let number = AccessSnapshot::next_number(last, NOW_MS);
    Ok(AccessSnapshot::new(number, NOW_MS, vec![tunnel], callers)?)
}
