//! What a connector tells its owner.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use mcp_diagnostics::telemetry::chain;
use mcp_tunnel_auth::Fingerprint;
use mcp_tunnel_proto::{CloseCode, RefusalCode};
use mcp_tunnel_transport::{EdgeAddress, LostReason};

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
        RefusalCode::RETIRED => "the token was rotated: start the gateway with the new one",
        RefusalCode::TUNNEL => {
            "the tunnel is unknown here or archived: create one and use its token"
        }
        RefusalCode::REFUSED => {
            "an administrator refused this gateway's key: have it approved again"
        }
        RefusalCode::INTERCEPTED => {
            "something between gateway and edge ends TLS: let it pass this connection untouched"
        }
        RefusalCode::ANNOUNCEMENT => {
            "the edge does not take these routes: rename them, or use fewer"
        }
        RefusalCode::OVERLOADED => {
            "too many gateways wait for approval or are connected: approve or refuse some"
        }
        _ => "the edge cannot decide now; the gateway keeps trying",
    }
}

/// Exit code of a program whose credential is refused.
pub(crate) const EXIT_REFUSED: u8 = 3;
/// Exit code of a program that cannot reach the edge.
pub(crate) const EXIT_UNREACHABLE: u8 = 4;
