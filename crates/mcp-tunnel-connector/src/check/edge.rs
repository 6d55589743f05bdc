//! The way to the edge, step by step, as an uplink takes it.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use mcp_diagnostics::report::{Line, Report};
use mcp_diagnostics::telemetry::chain;
use mcp_tunnel_auth::LinkCredential;
use mcp_tunnel_proto::CloseCode;
use mcp_tunnel_transport::dial::{self, DialError, TcpOptions};
use mcp_tunnel_transport::{Answer, Exporter, LinkConfig, Offer, ReadAhead, Target};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use crate::config::{ConfigError, ConnectorConfig};
use crate::event::{EXIT_REFUSED, EXIT_UNREACHABLE, refusal_cure};

pub(super) async fn check(
    config: &ConnectorConfig,
    report: &mut Report,
) -> Result<(), ConfigError> {
    let target = config.target()?;
    let tls = config.edge_tls()?;
    let fingerprint = config.key.public_key().fingerprint();
    report.push(Line::ok(
        "token",
        format!("{}, edge {}", config.token, target.address()),
    ));
    report.push(Line::ok("key", fingerprint.to_string()));

    let Some(addresses) = resolve(&target, report).await else {
        skip(
            report,
            &["tcp", "tls", "credential", "approval"],
            "no address",
        );
        return Ok(());
    };
    let Some(socket) = connect(&addresses, report).await else {
        skip(report, &["tls", "credential", "approval"], "no connection");
        return Ok(());
    };
    let began = Instant::now();
    let (stream, exporter) = match dial::secure(socket, &target, &tls, DEADLINE).await {
        Ok(secured) => secured,
        Err(error) => {
            let line = Line::fail("tls", chain(&error).to_string(), tls_cure(&error));
            report.push(line.exit_code(EXIT_UNREACHABLE).took(began.elapsed()));
            skip(report, &["credential", "approval"], "no TLS");
            return Ok(());
        }
    };
    let trusted = format!(
        "TLS 1.3, certificate of {} trusted",
        target.server_name().to_str()
    );
    report.push(Line::ok("tls", trusted).took(began.elapsed()));
    offer(config, stream, &exporter, report).await
}

async fn resolve(target: &Target, report: &mut Report) -> Option<Vec<SocketAddr>> {
    let began = Instant::now();
    match dial::resolve(target.address(), DEADLINE).await {
        Ok(addresses) => {
            let text: Vec<String> = addresses
                .iter()
                .map(|address| address.ip().to_string())
                .collect();
            report.push(Line::ok("dns", text.join(", ")).took(began.elapsed()));
            Some(addresses)
        }
        Err(error) => {
            let cure = "correct the edge's name (--edge), or this machine's DNS";
            let line = Line::fail("dns", chain(&error).to_string(), cure);
            report.push(line.exit_code(EXIT_UNREACHABLE).took(began.elapsed()));
            None
        }
    }
}

async fn connect(addresses: &[SocketAddr], report: &mut Report) -> Option<TcpStream> {
    let began = Instant::now();
    match dial::connect(addresses, &TcpOptions::default(), DEADLINE).await {
        Ok(socket) => {
            let peer = socket
                .peer_addr()
                .map_or_else(|e| e.to_string(), |peer| peer.to_string());
            report.push(Line::ok("tcp", format!("connected to {peer}")).took(began.elapsed()));
            Some(socket)
        }
        Err(error) => {
            let cure = "start the edge, correct its address (--edge), or let the firewall pass this outgoing connection";
            let line = Line::fail("tcp", chain(&error).to_string(), cure);
            report.push(line.exit_code(EXIT_UNREACHABLE).took(began.elapsed()));
            None
        }
    }
}

async fn offer(
    config: &ConnectorConfig,
    stream: TlsStream<ReadAhead<TcpStream>>,
    exporter: &Exporter,
    report: &mut Report,
) -> Result<(), ConfigError> {
    let began = Instant::now();
    // Without routes, so that no caller's call comes down a link that is closed in a moment.
    let announcement = config.routeless_announcement()?;
    let credential = LinkCredential::sign(
        &config.token,
        &config.key,
        exporter.as_bytes(),
        announcement,
    );
    let offer = match Offer::new(stream, credential.encode().into(), &LinkConfig::default()) {
        Ok(offer) => offer,
        Err(error) => {
            report.push(unheard(&error));
            skip(report, &["approval"], "no credential");
            return Ok(());
        }
    };
    let answer = offer.answer().await;
    let took = began.elapsed();
    match answer {
        Ok(Answer::Active { link, driver }) => {
            link.close(CloseCode::NO_ERROR, "checked");
            let _ = timeout(FAREWELL, driver.run()).await;
            report.push(Line::ok("credential", "accepted").took(took));
            report.push(Line::ok("approval", "this gateway's key is approved"));
        }
        Ok(Answer::Pending { approval_code, .. }) => {
            report.push(Line::ok("credential", "accepted").took(took));
            let text = format!("this gateway's key waits for approval, code {approval_code}");
            let cure =
                format!("an administrator runs: mcp-cloud connection approve {approval_code}");
            report.push(Line::warn("approval", text, cure));
        }
        Ok(Answer::Refused(refusal)) => {
            let said = if refusal.text.is_empty() {
                refusal.code.to_string()
            } else {
                refusal.text
            };
            let line = Line::fail("credential", said, refusal_cure(refusal.code));
            report.push(line.exit_code(EXIT_REFUSED).took(took));
            skip(report, &["approval"], "refused");
        }
        Ok(_) => report.push(Line::skip(
            "approval",
            "the edge's answer is of a later version",
        )),
        Err(error) => {
            report.push(unheard(&error).took(took));
            skip(report, &["approval"], "no answer");
        }
    }
    Ok(())
}

fn unheard(error: &(dyn Error + 'static)) -> Line {
    let cure = "see the edge's log; try again, or upgrade the older of gateway and edge";
    Line::fail("credential", chain(error).to_string(), cure).exit_code(EXIT_UNREACHABLE)
}

fn skip(report: &mut Report, hops: &[&'static str], why: &str) {
    report.extend(hops.iter().map(|hop| Line::skip(*hop, why)));
}

/// What TLS refused decides what to do.
fn tls_cure(error: &DialError) -> &'static str {
    use rustls::CertificateError as Refused;

    if let DialError::NotAnEdge { .. } = error {
        return "this address is for callers, or another web server's: name the edge's own (--edge), which takes gateways";
    }
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(
            Refused::Expired | Refused::ExpiredContext { .. },
        )) => "renew the edge's certificate, or set this machine's clock",
        Some(rustls::Error::InvalidCertificate(
            Refused::NotValidYet | Refused::NotValidYetContext { .. },
        )) => "set this machine's clock",
        Some(rustls::Error::InvalidCertificate(
            Refused::NotValidForName | Refused::NotValidForNameContext { .. },
        )) => "this address leads to another server than the token's edge: correct it (--edge)",
        Some(rustls::Error::InvalidCertificate(_)) => {
            "another authority signed the certificate: use a token of this edge, name the authority by --edge-ca, \
             or take the TLS proxy in between out of the way"
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "this address speaks no TLS, so it is not the edge's: name the edge's own (--edge)"
        }
        _ => {
            "check that the address is the edge's own (--edge) and that nothing in between ends TLS"
        }
    }
}

fn tls_error(error: &DialError) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        let inside = current
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = inside
            .map(|inside| inside as &(dyn Error + 'static))
            .or_else(|| current.source());
    }
    None
}

const DEADLINE: Duration = Duration::from_secs(10);

/// For the edge to hear that the link is closed, and not lost.
const FAREWELL: Duration = Duration::from_secs(1);
