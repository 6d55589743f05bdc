//! The engine: one uplink, the calls that come down it, and what happens to both.

use std::sync::Arc;

use bytes::Bytes;
use mcp_diagnostics::admin::Readiness;
use mcp_tunnel_auth::{Announcement, Fingerprint, GatewayKey, LinkCredential, TunnelToken};
use mcp_tunnel_proto::RefusalCode;
use mcp_tunnel_transport::{
    EdgeAddress, Exporter, Link, LinkConfig, Uplink, UplinkConfig, UplinkEvent,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use crate::config::{ConfigError, ConnectorConfig};
use crate::event::Event;
use crate::link::{self, Calls};
use crate::measures::{self, LinkMeasures};
use crate::upstreams::Upstreams;

/// A gateway: keeps a link to the edge and serves the calls that come down it.
///
/// Nothing happens unless [`next_event`](Self::next_event) or [`run`](Self::run) is polled. Dropping the connector
/// ends the link and aborts every call.
#[derive(Debug)]
pub struct Connector {
    uplink: Uplink,
    edge: EdgeAddress,
    token: TunnelToken,
    key: GatewayKey,
    announcement: Announcement,
    calls: Arc<Calls>,
    links: JoinSet<()>,
    refusals: u32,
    readiness: watch::Sender<Readiness>,
}

impl Connector {
    /// A connector that has not begun yet.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the edge cannot be dialled as configured, or an authority is not usable.
    pub fn new(config: ConnectorConfig) -> Result<Self, ConfigError> {
        measures::describe();
        let target = config.target()?;
        let edge = target.address().clone();
        let uplink = UplinkConfig::new(config.edge_tls()?)
            .set_link(LinkConfig::default().set_keep(config.link_keep))
            .set_drain_timeout(config.drain_deadline);
        let calls = Calls {
            upstreams: Upstreams::new(config.servers(), &config.servers.dialler()?),
            answer_deadline: config.servers.answer_deadline,
            measures: LinkMeasures::new(),
        };
        Ok(Self {
            uplink: Uplink::new(target, uplink),
            edge,
            announcement: config.announcement()?,
            token: config.token,
            key: config.key,
            calls: Arc::new(calls),
            links: JoinSet::new(),
            refusals: 0,
            readiness: watch::Sender::new(NOT_STARTED),
        })
    }

    /// Goes on, and answers with the next change of state; after [`Event::Stopped`] with nothing else.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what is under way stays under way, but no link is made or replaced until the next call.
    pub async fn next_event(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                event = self.uplink.next() => {
                    if let Some(event) = self.on_uplink(event).await {
                        return event;
                    }
                }
                Some(_) = self.links.join_next() => {}
            }
        }
    }

    /// Serves until `stop`, then drains; for owners that have no use for events. A final refusal ends it too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is no harm; call it again, or drop the connector.
    pub async fn run(&mut self, stop: CancellationToken) {
        let mut draining = false;
        loop {
            tokio::select! {
                () = stop.cancelled(), if !draining => {
                    self.drain();
                    draining = true;
                }
                event = self.next_event() => if matches!(event, Event::Stopped) { return },
            }
        }
    }

    /// Takes no new calls, lets the running ones finish until the drain deadline; [`Event::Stopped`] follows.
    pub fn drain(&mut self) {
        self.readiness.send_replace(DRAINING);
        self.uplink.drain();
    }

    /// Whether calls are served now.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// The fingerprint of this gateway's key, as administrators see it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.public_key().fingerprint()
    }

    async fn on_uplink(&mut self, event: UplinkEvent) -> Option<Event> {
        Some(match event {
            UplinkEvent::Dialled { exporter, .. } => {
                let credential = self.credential(&exporter);
                self.uplink.present(credential);
                return None;
            }
            UplinkEvent::Dialling { attempt } => Event::Dialling {
                edge: self.edge.clone(),
                attempt,
            },
            UplinkEvent::Pending { approval_code } => {
                self.readiness.send_replace(PENDING);
                Event::Pending {
                    approval_code,
                    fingerprint: self.fingerprint(),
                }
            }
            UplinkEvent::Active { link, address } => {
                self.refusals = 0;
                self.serve(link);
                self.readiness.send_replace(Readiness::Ready);
                Event::Active { address }
            }
            UplinkEvent::Resuming { reason } => {
                self.readiness.send_replace(RESUMING);
                Event::Resuming { reason }
            }
            UplinkEvent::Resumed { after, address } => {
                self.calls.measures.resumed();
                self.refusals = 0;
                self.readiness.send_replace(Readiness::Ready);
                Event::Resumed { after, address }
            }
            UplinkEvent::Draining { code } => Event::Draining { code },
            UplinkEvent::Refused { code, text, .. } => {
                self.refusals += 1;
                let is_final = code.is_final() && self.refusals >= patience(code);
                if is_final {
                    // Calls of an earlier link, sent away when its token was rotated, may finish.
                    self.drain();
                }
                self.readiness.send_replace(REFUSED);
                Event::Refused {
                    code,
                    text,
                    is_final,
                }
            }
            UplinkEvent::Lost { reason } => {
                self.readiness.send_replace(NO_LINK);
                Event::Lost { reason }
            }
            UplinkEvent::Waiting { delay } => Event::Waiting { delay },
            UplinkEvent::Stopped => {
                self.links.shutdown().await;
                self.calls.upstreams.close().await;
                Event::Stopped
            }
            _ => return None,
        })
    }

    fn credential(&self, exporter: &Exporter) -> Bytes {
        let announcement = self.announcement.clone();
        LinkCredential::sign(&self.token, &self.key, exporter.as_bytes(), announcement)
            .encode()
            .into()
    }

    fn serve(&mut self, link: Link) {
        let calls = link::serve(link, Arc::clone(&self.calls));
        self.links
            .spawn(calls.instrument(info_span!("link", edge = %self.edge)));
    }
}

/// Refusals in a row after which trying again is pointless.
///
/// An edge hears of a new tunnel or token a moment after its console made it, so those get a second chance.
fn patience(code: RefusalCode) -> u32 {
    match code {
        RefusalCode::TUNNEL | RefusalCode::CREDENTIAL => 2,
        _ => 1,
    }
}

const NOT_STARTED: Readiness = Readiness::NotReady("not connected yet");
const NO_LINK: Readiness = Readiness::NotReady("no link to the edge");
const RESUMING: Readiness = Readiness::NotReady("link lost, resuming");
const PENDING: Readiness = Readiness::NotReady("waiting for approval");
const REFUSED: Readiness = Readiness::NotReady("refused by the edge");
const DRAINING: Readiness = Readiness::NotReady("draining");
