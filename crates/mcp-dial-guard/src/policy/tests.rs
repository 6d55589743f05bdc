use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const ALL: [Dial; 4] = [
    Dial::new(Scheme::Plain, Naming::Literal),
    Dial::new(Scheme::Plain, Naming::Resolved),
    Dial::new(Scheme::Tls, Naming::Literal),
    Dial::new(Scheme::Tls, Naming::Resolved),
];

/// For each way to dial in the order of [`ALL`], what stands against it.
#[track_caller]
fn check(policy: &Policy, address: &str, expect: [Option<Reason>; 4]) {
    let address = address.parse().unwrap();
    let judged = ALL.map(|dial| {
        policy
            .judge(address, dial)
            .err()
            .map(|refusal| refusal.reason)
    });
    assert_eq!(judged, expect, "{address}");
}

#[test]
fn mcp_servers_may_be_inside_or_encrypted_outside() {
    let policy = Policy::mcp_server();
    for inside in [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "fd12::1",
    ] {
        check(&policy, inside, [None; 4]);
    }
    let plain = Some(Reason::NotEncrypted);
    for outside in ["1.1.1.1", "2606:4700::1111"] {
        check(&policy, outside, [plain, plain, None, None]);
    }
    check(
        &policy,
        "100.64.0.1",
        [
            None,
            Some(Reason::NotLiteral),
            None,
            Some(Reason::NotLiteral),
        ],
    );
}

#[test]
fn no_setting_opens_what_is_never_dialled() {
    let everything = Policy::mcp_server()
        .allow(parse_net("0.0.0.0/0").unwrap())
        .allow(parse_net("::/0").unwrap());
    for policy in [Policy::mcp_server(), Policy::internet(), everything] {
        for never in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "169.254.0.1",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "192.0.2.1",
            "2001:db8::1",
            "0.0.0.0",
            "::",
            "240.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::1",
            "2002:808:808::1",
            "2001:0:1:2:3:4:5:6",
        ] {
            check(&policy, never, [Some(Reason::Class); 4]);
        }
    }
}

#[test]
fn targets_that_others_name_are_public_and_encrypted() {
    let inner = [Some(Reason::NotPublic); 4];
    for address in ["127.0.0.1", "10.0.0.1", "fd12::1", "100.64.0.1"] {
        check(&Policy::internet(), address, inner);
        check(
            &Policy::internet().allow(parse_net(address).unwrap()),
            address,
            inner,
        );
    }
    let plain = Some(Reason::NotEncrypted);
    check(&Policy::internet(), "1.1.1.1", [plain, plain, None, None]);
}

#[test]
fn lists_narrow_and_the_denied_win() {
    let policy = Policy::mcp_server()
        .allow(parse_net("10.0.0.0/8").unwrap())
        .deny(parse_net("10.9.0.0/16").unwrap());
    check(&policy, "10.1.0.1", [None; 4]);
    check(&policy, "10.9.0.1", [Some(Reason::Denied); 4]);
    check(&policy, "192.168.0.1", [Some(Reason::NotListed); 4]);
    check(&policy, "127.0.0.1", [Some(Reason::NotListed); 4]);
    let shared = Policy::mcp_server().allow(parse_net("100.64.0.0/10").unwrap());
    check(&shared, "100.64.0.1", [None; 4]);
    let own_block = Policy::mcp_server().allow(parse_net("1.1.1.0/24").unwrap());
    let plain = Some(Reason::NotEncrypted);
    check(&own_block, "1.1.1.1", [plain, plain, None, None]);
}

#[test]
fn every_refusal_says_why_and_what_to_do() {
    let refused = |policy: Policy, address: &str| {
        let refusal = policy
            .judge(address.parse().unwrap(), Dial::resolved_plain())
            .unwrap_err();
        assert!(!refusal.cure().is_empty());
        refusal.to_string()
    };
    let server = Policy::mcp_server;
    assert_eq!(
        refused(server(), "::ffff:127.0.0.1"),
        "::ffff:127.0.0.1 is the IPv4 address 127.0.0.1 in disguise"
    );
    assert_eq!(
        refused(server(), "0.0.0.0"),
        "0.0.0.0 is no address of a machine"
    );
    assert_eq!(
        refused(server(), "1.1.1.1"),
        "1.1.1.1 is a public address, and the connection would not be encrypted"
    );
    assert_eq!(
        refused(server(), "100.64.0.1"),
        "100.64.0.1 is a carrier NAT address, and a name led to it"
    );
    assert_eq!(
        refused(Policy::internet(), "10.0.0.1"),
        "10.0.0.1 is a private address, and only public addresses are dialled here"
    );
    let net = parse_net("10.0.0.1").unwrap();
    assert_eq!(
        refused(server().deny(net), "10.0.0.1"),
        "10.0.0.1 is in a denied network"
    );
    assert_eq!(
        refused(server().allow(net), "10.0.0.2"),
        "10.0.0.2 is in none of the allowed networks"
    );
}

#[test]
fn networks_are_read_with_and_without_a_length() {
    assert_eq!(parse_net(" 10.1.2.3/8 ").unwrap().to_string(), "10.0.0.0/8");
    assert_eq!(parse_net("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
    assert_eq!(parse_net("fd00::1").unwrap().to_string(), "fd00::1/128");
    for bad in ["", "10.0.0.0/33", "10.0.0", "host", "::/129"] {
        assert_eq!(parse_net(bad), Err(NetError), "{bad}");
    }
}

fn disguises(inner: Ipv4Addr, filler: u128) -> [Ipv6Addr; 10] {
    let bits = u128::from(inner.to_bits());
    let prefix = |prefix: &str| prefix.parse::<Ipv6Addr>().unwrap().to_bits();
    let low = |keep: u32| filler & ((1_u128 << keep) - 1);
    [
        prefix("::ffff:0:0") | bits,
        bits,
        prefix("::ffff:0:0:0") | bits,
        prefix("64:ff9b::") | bits,
        prefix("64:ff9b:1::") | (low(80) & !0xffff_ffff) | bits,
        prefix("2002::") | (bits << 80) | low(80),
        prefix("2001::") | (low(96) & !0xffff_ffff) | (bits ^ 0xffff_ffff),
        prefix("2a00::5efe:0:0") | ((low(60) >> 1) << 64) | bits,
        prefix("fd00::200:5efe:0:0") | bits,
        prefix("2a00::200:5efe:0:0") | bits,
    ]
    .map(Ipv6Addr::from_bits)
}

proptest! {
    #[test]
    fn a_disguise_is_refused_whatever_it_hides_and_whatever_is_allowed(bits: u32, filler: u128, public: bool) {
        let base = if public { Policy::internet() } else { Policy::mcp_server() };
        let open = base.clone().allow(parse_net("::/0").unwrap()).allow(parse_net("0.0.0.0/0").unwrap());
        for disguise in disguises(Ipv4Addr::from_bits(bits), filler) {
            // `::` and `::1` are the unspecified and the loopback address, not disguises.
            if disguise.is_unspecified() || disguise.is_loopback() {
                continue;
            }
            for dial in ALL {
                prop_assert!(base.judge(disguise.into(), dial).is_err(), "{}", disguise);
                prop_assert!(open.judge(disguise.into(), dial).is_err(), "{}", disguise);
            }
        }
    }

    #[test]
    fn what_is_dialled_is_loopback_private_shared_or_public_over_tls(bits: u128, v4: u32, dial in 0_usize..4) {
        for address in [IpAddr::from(Ipv6Addr::from_bits(bits)), IpAddr::from(Ipv4Addr::from_bits(v4))] {
            match Policy::mcp_server().judge(address, ALL[dial]) {
                Ok(Class::Loopback | Class::Private) | Err(_) => {}
                Ok(Class::Shared) => prop_assert_eq!(ALL[dial].naming, Naming::Literal),
                Ok(Class::Public) => prop_assert_eq!(ALL[dial].scheme, Scheme::Tls),
                Ok(other) => prop_assert!(false, "{} is {}", address, other),
            }
        }
    }
}
