//! What a connector tells its owner.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use mcp_diagnostics::telemetry::chain;
use mcp_tunnel_auth::Fingerprint;
use mcp_tunnel_proto::{CloseCode, RefusalCode};
use mcp_tunnel_transport::{CloseReason, EdgeAddress, LostReason};

/// A change of state; [`fmt::Display`] says it to people, in one line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// An attempt to reach the edge begins.
    Dialling {
        /// Where it is.
        edge: EdgeAddress,
        /// Attempts in a row without a healthy link, from 1.
        attempt: u32,
    },
    /// A person has to approve this gateway's key.
    Pending {
        /// What that person compares.
        approval_code: String,
        /// The key.
        fingerprint: Fingerprint,
    },
    /// Calls are served.
    Active {
        /// The edge's address.
        address: SocketAddr,
    },
    /// The connection is lost; calls wait while another one is made.
    Resuming {
        /// What ended it.
        reason: CloseReason,
    },
    /// Calls go on over another connection, as if nothing had been.
    Resumed {
        /// How long they waited.
        after: Duration,
        /// The edge's address.
        address: SocketAddr,
    },
    /// The edge sends no new calls on this link; another one is made.
    Draining {
        /// Why.
        code: CloseCode,
    },
    /// The edge does not take this gateway.
    Refused {
        /// Why.
        code: RefusalCode,
        /// What the edge said; may be empty.
        text: String,
        /// Whether trying again is pointless: the connector drains then, and stops.
        is_final: bool,
    },
    /// An attempt failed, or the link ended.
    Lost {
        /// Why.
        reason: LostReason,
    },
    /// The next attempt begins after this.
    Waiting {
        /// The wait.
        delay: Duration,
    },
    /// It has drained: no link, no call, no task is left.
    Stopped,
}

impl Event {
    /// What a program that drains and gives up now should exit with; `None` to carry on.
    ///
    /// A final refusal ends it in any case, an edge that cannot be reached only with `exit_on_failure`.
    #[must_use]
    pub fn exit_code(&self, exit_on_failure: bool) -> Option<u8> {
        match self {
            Self::Refused { is_final: true, .. } => Some(EXIT_REFUSED),
            Self::Lost { reason } if exit_on_failure => {
                matches!(reason, LostReason::Dial(_) | LostReason::Answer(_))
                    .then_some(EXIT_UNREACHABLE)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dialling { edge, attempt: 1 } => write!(f, "connecting to the edge at {edge}"),
            Self::Dialling { edge, attempt } => {
                write!(f, "connecting to the edge at {edge}, attempt {attempt}")
            }
            Self::Pending {
                approval_code,
                fingerprint,
            } => write!(
                f,
                "waiting for approval: code {approval_code}, key {fingerprint}; approve it with: \
                 mcp-cloud connection approve {approval_code}"
            ),
            Self::Active { address } => write!(f, "active: the edge at {address} sends calls"),
            Self::Resuming { reason } => write!(f, "link lost, resuming: {}", chain(reason)),
            Self::Resumed { after, address } => write!(
                f,
                "resumed after {} ms: the edge at {address} sends calls",
                after.as_millis()
            ),
            Self::Draining { code } => write!(
                f,
                "the edge takes this link down ({code}); making another one"
            ),
            Self::Refused { code, text, .. } => {
                let said = if text.is_empty() {
                    code.to_string()
                } else {
                    text.clone()
                };
                write!(f, "refused by the edge: {said}; {}", refusal_cure(*code))
            }
            Self::Lost { reason } => write!(f, "not connected: {}", chain(reason)),
            Self::Waiting { delay } => write!(f, "trying again in {:.1} s", delay.as_secs_f64()),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// What the operator can do about a refusal.
pub(crate) fn refusal_cure(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::CREDENTIAL => {
            "copy the token again, whole, and check that it is for this edge"
        }
        RefusalCode::RETIRED => "start the gateway with the new token from the console",
        RefusalCode::TUNNEL => {
            "take the token that the console shows for this tunnel; an archived tunnel has none"
        }
        RefusalCode::REFUSED => "have this gateway's key approved again",
        RefusalCode::INTERCEPTED => {
            "exempt the edge's host name from TLS inspection on the way out of the network"
        }
        RefusalCode::ANNOUNCEMENT => "rename the routes, or use fewer",
        RefusalCode::OVERLOADED => {
            "approve or refuse some of the gateways that wait, or stop some of those that are connected"
        }
        _ => "nothing: the gateway keeps trying",
    }
}

/// Exit code of a program whose credential is refused.
pub(crate) const EXIT_REFUSED: u8 = 3;
/// Exit code of a program that cannot reach the edge.
pub(crate) const EXIT_UNREACHABLE: u8 = 4;

#[cfg(test)]
mod tests {
    use mcp_tunnel_auth::LinkRefusal;

    use super::*;

    /// What an edge says, by the code that it says it with, and what becomes of it.
    #[track_caller]
    fn check(refusal: Option<LinkRefusal>, code: RefusalCode, expect: &str) {
        let refused = Event::Refused {
            code,
            text: refusal.map_or_else(String::new, |refusal| refusal.to_string()),
            is_final: true,
        };
        assert_eq!(
            refused.to_string(),
            format!("refused by the edge: {expect}")
        );
    }

    #[test]
    fn a_refusal_says_the_reason_and_its_cure_once() {
        check(
            Some(LinkRefusal::TokenRotated),
            RefusalCode::RETIRED,
            "the tunnel token was rotated; start the gateway with the new token from the console",
        );
        check(
            Some(LinkRefusal::Unrecognised),
            RefusalCode::TUNNEL,
            "the tunnel token is not known here; take the token that the console shows for this tunnel; \
             an archived tunnel has none",
        );
        check(
            Some(LinkRefusal::GatewayRefused),
            RefusalCode::REFUSED,
            "an administrator refused this gateway; have this gateway's key approved again",
        );
        check(
            Some(LinkRefusal::Intercepted),
            RefusalCode::INTERCEPTED,
            "the connection to the edge is intercepted; exempt the edge's host name from TLS inspection on \
             the way out of the network",
        );
        check(
            None,
            RefusalCode::UNAVAILABLE,
            &format!(
                "{}; nothing: the gateway keeps trying",
                RefusalCode::UNAVAILABLE
            ),
        );
    }
}
