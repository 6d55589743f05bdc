//! Golden vectors were computed by another implementation (Python's hashlib and base64).

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use crate::fixture;

const PLAIN: &str = "mct_AQGatpfoAAICAgICAgICAgIBmraX6AADAwMDAwMDAwMDP8O0AkCVHN29GR_RE1YW4b82gspp_y01JqcVl_7s36gAAbsTdHVubmVs\
                     cy5leGFtcGxlLmNvbQhrM3Y5ZDJ4cRN0dW5uZWxzLmV4YW1wbGUuY29tj6iWVA";
const FULL: &str = "mct_AQGatpfoAAICAgICAgICAgIBmraX6AADAwMDAwMDAwMDP8O0AkCVHN29GR_RE1YW4b82gspp_y01JqcVl_7s36gDqqqqqqqqqqqqqqq\
                    qqqqqqqqqqqqqqqqqqqqqqqqqqqog-wkxOTIuMC4yLjcIazN2OWQyeHETdHVubmVscy5leGFtcGxlLmNvbRFmcm9udC5leGFtcGxlLm9y\
                    Z9D99iI";

fn full() -> TunnelToken {
    let mut token = fixture::token()
        .with_ca_pin([0xaa; 32])
        .with_edge_name(fixture::host("front.example.org"));
    token.edge_host = fixture::host("192.0.2.7");
    token.edge_port = 8443;
    token
}

fn sealed(content: &[u8]) -> String {
    let bytes = [content, check_of(content).as_slice()].concat();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn content(text: &str) -> Vec<u8> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text.strip_prefix(PREFIX).unwrap())
        .unwrap();
    bytes[..bytes.len() - CHECK_BYTES].to_vec()
}

#[test]
fn golden_tokens() {
    assert_eq!(fixture::token().encode().expose_secret(), PLAIN);
    assert_eq!(full().encode().expose_secret(), FULL);
}

#[test]
fn golden_tokens_read_back() {
    let plain = TunnelToken::parse(&format!(" {PLAIN}\n")).unwrap();
    assert_eq!(plain.edge_name, fixture::edge_name());
    assert_eq!(plain.ca_pin, None);
    assert_eq!(
        plain.seed.public_key().to_string(),
        "9i2Y9D_VefT_Eccc0MeSumx4O4pmtn3MsiiqQc-H1ww"
    );
    let full = TunnelToken::parse(FULL).unwrap();
    assert_eq!(full.edge_name.as_str(), "front.example.org");
    assert_eq!(
        (full.edge_host.as_str(), full.edge_port),
        ("192.0.2.7", 8443)
    );
    assert_eq!(full.ca_pin, Some([0xaa; 32]));
    assert_eq!(
        (full.tunnel_id, full.token_id),
        (fixture::tunnel_id(), fixture::token_id())
    );
    assert_eq!(
        (full.label.as_str(), full.domain.as_str()),
        ("k3v9d2xq", "tunnels.example.com")
    );
}

#[test]
fn every_wrong_text_is_named() {
    let check = |text: &str, expect: TokenError| {
        assert_eq!(TunnelToken::parse(text).unwrap_err(), expect, "{text}")
    };
    check("  \n", TokenError::Empty);
    check("hello", TokenError::Unrecognised);
    check("mct_", TokenError::Damaged);
    check(PLAIN.split_at(120).0, TokenError::Damaged);
    check(&PLAIN.replace("AQGa", "AQGb"), TokenError::Damaged);
    check(
        &format!("{} {}", PLAIN.split_at(80).0, PLAIN.split_at(80).1),
        TokenError::Damaged,
    );
    check(&format!("{PLAIN}{}", "A".repeat(3000)), TokenError::Damaged);
    check(&sealed(&[2, 1, 2, 3]), TokenError::Version(2));
    let found = CredentialKind::VendorTunnelToken;
    let cloudflared = "eyJhIjoiYWNjIiwidCI6ImIxYzUiLCJzIjoiYzJWamNtVjAifQ";
    check(
        cloudflared,
        TokenError::WrongKind(WrongCredential {
            expected: CredentialKind::TunnelToken,
            found,
        }),
    );
}

#[test]
fn an_unknown_flag_and_trailing_bytes_are_refused() {
    let mut flagged = content(PLAIN);
    flagged[65] |= 4;
    assert_eq!(
        TunnelToken::parse(&sealed(&flagged)).unwrap_err(),
        TokenError::Damaged
    );
    let mut longer = content(PLAIN);
    longer.push(0);
    assert_eq!(
        TunnelToken::parse(&sealed(&longer)).unwrap_err(),
        TokenError::Damaged
    );
}

#[test]
fn neither_debug_nor_an_error_shows_the_secret() {
    let token = full();
    let shown = format!("{token:?} {token}");
    assert!(
        !shown.contains("P8O0") && !shown.contains("63, 195, 180"),
        "{shown}"
    );
    let error = TunnelToken::parse(PLAIN.split_at(100).0).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("AQGatp"));
}

proptest! {
    #[test]
    fn round_trip(seed: [u8; 32], port: u16, pin: Option<[u8; 32]>, own_name: bool) {
        let mut token = fixture::token();
        token.seed = TokenSeed::from_bytes(seed);
        token.edge_port = port;
        token.ca_pin = pin;
        if own_name {
            token = token.with_edge_name(fixture::host("x.example.net"));
        }
        let again = TunnelToken::parse(token.encode().expose_secret()).unwrap();
        let (one, other) = (again.encode(), token.encode());
        prop_assert_eq!(one.expose_secret(), other.expose_secret());
        prop_assert_eq!(again.seed.public_key(), token.seed.public_key());
    }

    #[test]
    fn any_changed_character_is_noticed(at in 4_usize..220, with in "[A-Za-z0-9_-]") {
        let mut text = PLAIN.to_owned();
        text.replace_range(at.min(PLAIN.len() - 1)..=at.min(PLAIN.len() - 1), &with);
        prop_assert!(text == PLAIN || TunnelToken::parse(&text).is_err());
    }

    #[test]
    fn perturbed_content_with_a_good_check_never_panics(
        at in 0_usize..200, with: u8, cut in 0_usize..240, full: bool,
    ) {
        let mut bytes = content(if full { FULL } else { PLAIN });
        let place = at % bytes.len();
        bytes[place] = with;
        let _ = TunnelToken::parse(&sealed(&bytes));
        bytes.truncate(cut);
        let _ = TunnelToken::parse(&sealed(&bytes));
    }
}
