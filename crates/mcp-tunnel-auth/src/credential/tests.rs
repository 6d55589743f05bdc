//! The golden vector was computed by another implementation (Python's hashlib and cryptography).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;
use crate::fixture::{self, EXPORTER};

const GOLDEN: &str = "AQGatpfoAAICAgICAgICAgIBmraX6AADAwMDAwMDAwMDypOsFwUYcHHWe4PH_w7-gQjo7EUwV113JoeTM9vavnwFBQUFBQUFBQUFBQUF\
                      BQUFBQUFBQUFBQUFBQUFBQUFBRhlZGdlLnR1bm5lbHMuZXhhbXBsZS5jb20FMC4xLjAHYnVpbGQtNwIDbWNwBnNlYXJjaFqwkZlXMx1I\
                      dwJ_QITqHgavTMl2AHjpfjjgqsI00rQ4zlwaiJCt9nUwNMD6LzoAb7YdsFRBlBhNUHuMKxBnZgAObTaznW8brOLntIppfhLugZ3QJYGa\
                      VKdb95iih-WPNHRpG1kUTlMc3rQR4sOYNCD3G8HyQ8602vjlwQCCEcsA";

fn key() -> TokenPublicKey {
    fixture::master().token_public_key(&fixture::token_id())
}

fn verify(credential: &LinkCredential) -> Result<(), ProofError> {
    credential.verify(&key(), &fixture::edge_name(), &EXPORTER)
}

#[test]
fn golden_credential() {
    assert_eq!(
        URL_SAFE_NO_PAD.encode(fixture::credential().encode()),
        GOLDEN
    );
    let read = LinkCredential::decode(&URL_SAFE_NO_PAD.decode(GOLDEN).unwrap()).unwrap();
    assert_eq!(read, fixture::credential());
    assert_eq!(verify(&read), Ok(()));
    assert_eq!(
        read.identity().fingerprint().to_string(),
        "SHA256:xblA7T9lw5GWXegpX8XSX0dPpXtI026xCtNjuFOcG3k"
    );
}

#[test]
fn another_connection_is_an_interception() {
    let credential = fixture::credential();
    assert_eq!(
        credential.verify(&key(), &fixture::edge_name(), &[6; 32]),
        Err(ProofError::Intercepted)
    );
}

#[test]
fn stating_the_edges_exporter_does_not_help_without_the_keys() {
    let mut credential = LinkCredential::sign(
        &fixture::token(),
        &fixture::gateway(),
        &[6; 32],
        fixture::announcement(),
    );
    credential.exporter = EXPORTER;
    assert_eq!(verify(&credential), Err(ProofError::TokenSignature));
}

#[test]
fn another_edge_is_named_before_the_connection() {
    let credential = fixture::credential();
    assert_eq!(
        credential.verify(&key(), &fixture::host("edge.other.example"), &[6; 32]),
        Err(ProofError::OtherEdge)
    );
}

#[test]
fn each_signature_is_needed_and_neither_stands_for_the_other() {
    let good = fixture::credential();
    let without_token = LinkCredential {
        token_signature: [0; 64],
        ..good.clone()
    };
    assert_eq!(verify(&without_token), Err(ProofError::TokenSignature));
    let without_gateway = LinkCredential {
        gateway_signature: [0; 64],
        ..good.clone()
    };
    assert_eq!(verify(&without_gateway), Err(ProofError::GatewaySignature));
    let swapped = LinkCredential {
        token_signature: good.gateway_signature,
        gateway_signature: good.token_signature,
        ..good
    };
    assert_eq!(verify(&swapped), Err(ProofError::TokenSignature));
}

#[test]
fn one_key_in_both_roles_still_needs_two_signatures() {
    let token = fixture::token();
    let both = GatewayKey::from_bytes(*token.seed.secret());
    let good = LinkCredential::sign(&token, &both, &EXPORTER, fixture::announcement());
    assert_eq!(verify(&good), Ok(()));
    let reused = LinkCredential {
        gateway_signature: good.token_signature,
        ..good
    };
    assert_eq!(verify(&reused), Err(ProofError::GatewaySignature));
}

#[test]
fn every_signed_field_is_covered() {
    let good = fixture::credential();
    let other = LinkIdentity {
        tunnel: TunnelId::new(1, &[9; 10]),
        ..good.identity
    };
    let changed = [
        LinkCredential {
            identity: other,
            ..good.clone()
        },
        LinkCredential {
            identity: LinkIdentity {
                token: TokenId::new(1, &[9; 10]),
                ..good.identity
            },
            ..good.clone()
        },
        LinkCredential {
            identity: LinkIdentity {
                gateway: GatewayKey::from_bytes([8; 32]).public_key(),
                ..good.identity
            },
            ..good.clone()
        },
        LinkCredential {
            edge_name: fixture::host("edge.other.example"),
            ..good.clone()
        },
        LinkCredential {
            exporter: [9; 32],
            ..good.clone()
        },
        LinkCredential {
            announcement: Announcement::new("0.1.1", "build-7", Vec::new()).unwrap(),
            ..good
        },
    ];
    for credential in changed {
        assert_eq!(
            verify(&credential),
            Err(ProofError::TokenSignature),
            "{credential:?}"
        );
    }
}

#[test]
fn the_largest_credential_fits() {
    let routes = (0..64)
        .map(|at| RouteName::parse(&format!("r{at:0>39}")).unwrap())
        .collect();
    let announcement = Announcement::new(&"v".repeat(100), &"h".repeat(100), routes).unwrap();
    let long = vec!["a".repeat(63); 4].join(".");
    let token = fixture::token().with_edge_name(fixture::host(long.split_at(253).0));
    let bytes = LinkCredential::sign(&token, &fixture::gateway(), &EXPORTER, announcement).encode();
    assert!(bytes.len() <= MAX_CREDENTIAL_BYTES, "{}", bytes.len());
    assert!(LinkCredential::decode(&bytes).is_ok());
}

#[test]
fn announcements_that_readers_would_refuse_cannot_be_made() {
    let route = |name: &str| RouteName::parse(name).unwrap();
    let refused =
        |version: &str, host: &str, routes| Announcement::new(version, host, routes).unwrap_err();
    assert_eq!(refused("1\u{1b}[2J", "h", vec![]), AnnouncementError::Text);
    assert_eq!(refused("1", "wörk", vec![]), AnnouncementError::Text);
    assert_eq!(
        refused("1", &"h".repeat(101), vec![]),
        AnnouncementError::Text
    );
    assert_eq!(
        refused("1", "h", vec![route("mcp"), route("abc"), route("mcp")]),
        AnnouncementError::Duplicate
    );
    let many = (0..65).map(|at| route(&format!("r{at:0>3}"))).collect();
    assert_eq!(refused("1", "h", many), AnnouncementError::Routes);
}

#[test]
fn malformed_bytes_are_told_apart() {
    let bytes = fixture::credential().encode();
    assert_eq!(LinkCredential::decode(&[]), Err(CredentialError::Malformed));
    assert_eq!(
        LinkCredential::decode(&[9]),
        Err(CredentialError::Version(9))
    );
    assert_eq!(
        LinkCredential::decode(&[bytes.as_slice(), &[0]].concat()),
        Err(CredentialError::Malformed)
    );
    assert_eq!(
        LinkCredential::decode(&[1; 3585]),
        Err(CredentialError::TooLong)
    );
    for cut in 1..bytes.len() {
        assert_eq!(
            LinkCredential::decode(&bytes[..cut]),
            Err(CredentialError::Malformed),
            "{cut}"
        );
    }
}

#[test]
fn a_name_has_one_spelling() {
    let mut bytes = fixture::credential().encode();
    let at = bytes.windows(4).position(|part| part == b"edge").unwrap();
    bytes[at] = b'E';
    assert_eq!(
        LinkCredential::decode(&bytes),
        Err(CredentialError::Malformed)
    );
}

proptest! {
    #[test]
    fn any_changed_byte_fails_the_proof(at in 1_usize..276, with: u8) {
        let mut bytes = fixture::credential().encode();
        prop_assume!(bytes[at] != with);
        bytes[at] = with;
        prop_assert!(LinkCredential::decode(&bytes).is_err() || verify(&LinkCredential::decode(&bytes).unwrap()).is_err());
    }

    #[test]
    fn any_bytes_are_judged_without_panic(mut bytes: Vec<u8>) {
        let _ = LinkCredential::decode(&bytes);
        bytes.insert(0, VERSION);
        let _ = LinkCredential::decode(&bytes);
    }
}
