//! What the cases share: a store, a clock and ids that only go forward.

use std::fmt::Debug;

use jiff::Timestamp;
use mcp_tunnel_auth::{
    Announcement, Approval, ApprovalCode, CertificateId, ConnectionId, DomainLabel, Fingerprint,
    GatewayKey, LinkId, LinkIdentity, LinkReport, LinkReportKind, MasterKey, RouteName, TokenId,
    TunnelId, WorkspaceId,
};

use crate::store::{
    AuditRecord, Change, Listing, NewCertificate, NewToken, NewTunnel, Refusal, StoreError,
    TunnelRecord, TunnelStore,
};

pub(super) struct Scene<'a> {
    pub(super) store: &'a dyn TunnelStore,
    /// Milliseconds since 1970; also what ids are made from.
    pub(super) now_ms: u64,
}

impl<'a> Scene<'a> {
    pub(super) fn new(store: &'a dyn TunnelStore) -> Self {
        Self {
            store,
            now_ms: 1_790_000_000_000,
        }
    }

    /// A later moment.
    pub(super) fn tick(&mut self) -> u64 {
        self.now_ms += 1;
        self.now_ms
    }

    pub(super) fn at(&self) -> Timestamp {
        time(self.now_ms)
    }

    pub(super) fn change_in(&mut self, workspace: &str) -> Change {
        let id = self.tick();
        Change::new(
            format!("audit_{id:020}"),
            self::workspace(workspace),
            "tester",
            self.at(),
        )
    }

    pub(super) fn change(&mut self) -> Change {
        self.change_in(HOME)
    }

    pub(super) fn new_tunnel(&mut self, label: &str) -> NewTunnel {
        let id = TunnelId::new(self.tick(), &[0; 10]);
        NewTunnel {
            id,
            label: DomainLabel::parse(label).unwrap_or_else(|error| panic!("{label}: {error}")),
            display_name: Some(format!("tunnel {label}")),
            approval: Approval::Manual,
            token: self.new_token(),
        }
    }

    pub(super) fn new_token(&mut self) -> NewToken {
        let id = TokenId::new(self.tick(), &[0; 10]);
        let master = MasterKey::from_bytes([7; 32]);
        NewToken {
            id,
            master_key: master.id(),
            public_key: master.token_public_key(&id),
        }
    }

    pub(super) async fn tunnel(&mut self, label: &str) -> TunnelRecord {
        let change = self.change();
        let new = self.new_tunnel(label);
        ok(self.store.create_tunnel(&change, new, 1000).await)
    }

    pub(super) async fn automatic_tunnel(&mut self, label: &str) -> TunnelRecord {
        let change = self.change();
        let mut new = self.new_tunnel(label);
        new.approval = Approval::Auto;
        ok(self.store.create_tunnel(&change, new, 1000).await)
    }

    pub(super) fn new_certificate(&mut self) -> NewCertificate {
        let id = CertificateId::new(self.tick(), &[0; 10]);
        NewCertificate {
            id,
            pem: "-----BEGIN CERTIFICATE-----".to_owned(),
            fingerprint: "ab".repeat(32),
            expires_at: Some(time(1_900_000_000_000)),
        }
    }

    pub(super) fn fresh(&mut self) -> ConnectionId {
        ConnectionId::new(self.tick(), &[0; 10])
    }

    /// A report of the gateway that holds key number `key`.
    pub(super) fn report(&mut self, tunnel: TunnelId, key: u8, kind: LinkReportKind) -> LinkReport {
        let at_ms = self.tick();
        let identity = LinkIdentity::new(
            tunnel,
            TokenId::new(1, &[1; 10]),
            GatewayKey::from_bytes([key; 32]).public_key(),
        );
        let routes = vec![RouteName::default()];
        let announcement =
            Announcement::new("1.2.3", "host", routes).unwrap_or_else(|error| panic!("{error}"));
        let address = ([192, 0, 2, key], 4711).into();
        let link = LinkId::new(at_ms, &[key; 10]);
        LinkReport::new(link, identity, address, announcement, at_ms, kind)
    }

    /// All of the home workspace's audit, oldest first.
    pub(super) async fn audit(&self) -> Vec<AuditRecord> {
        let listing = Listing::newest(1000);
        let mut rows = ok(self.store.audit(&workspace(HOME), &listing).await).rows;
        rows.reverse();
        rows
    }

    pub(super) async fn actions(&self) -> Vec<String> {
        let audit = self.audit().await;
        audit.into_iter().map(|record| record.action).collect()
    }
}

pub(super) const HOME: &str = "wrkspc_home";
pub(super) const ABROAD: &str = "wrkspc_abroad";

pub(super) fn workspace(text: &str) -> WorkspaceId {
    WorkspaceId::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(super) fn home() -> WorkspaceId {
    workspace(HOME)
}

pub(super) fn fingerprint(key: u8) -> Fingerprint {
    GatewayKey::from_bytes([key; 32]).public_key().fingerprint()
}

pub(super) fn pending(code: u8) -> LinkReportKind {
    LinkReportKind::Pending {
        approval_code: ApprovalCode::from_entropy([code; 5]),
    }
}

pub(super) fn time(ms: u64) -> Timestamp {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
}

#[track_caller]
pub(super) fn ok<T>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|error| panic!("the store failed: {error:?}"))
}

#[track_caller]
pub(super) fn missing<T: Debug>(result: Result<T, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::NotFound)),
        "expected to be missing, got {result:?}"
    );
}

#[track_caller]
pub(super) fn refused<T: Debug>(result: Result<T, StoreError>, refusal: Refusal) {
    assert!(
        matches!(result, Err(StoreError::Refused(found)) if found == refusal),
        "expected {refusal:?}, got {result:?}"
    );
}
