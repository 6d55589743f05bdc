use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(text: &str, expect: Class) {
    assert_eq!(Class::of(text.parse().unwrap()), expect, "{text}");
}

#[test]
fn every_range_at_both_ends_and_just_outside() {
    for (text, class) in [
        ("0.0.0.0", Class::Unspecified),
        ("0.255.255.255", Class::Unspecified),
        ("1.0.0.0", Class::Public),
        ("9.255.255.255", Class::Public),
        ("10.0.0.0", Class::Private),
        ("10.255.255.255", Class::Private),
        ("11.0.0.0", Class::Public),
        ("100.63.255.255", Class::Public),
        ("100.64.0.0", Class::Shared),
        ("100.100.100.199", Class::Shared),
        ("100.100.100.200", Class::Metadata),
        ("100.127.255.255", Class::Shared),
        ("100.128.0.0", Class::Public),
        ("126.255.255.255", Class::Public),
        ("127.0.0.0", Class::Loopback),
        ("127.0.0.1", Class::Loopback),
        ("127.255.255.255", Class::Loopback),
        ("128.0.0.0", Class::Public),
        ("168.63.129.15", Class::Public),
        ("168.63.129.16", Class::Metadata),
        ("169.253.255.255", Class::Public),
        ("169.254.0.0", Class::LinkLocal),
        ("169.254.169.253", Class::LinkLocal),
        ("169.254.169.254", Class::Metadata),
        ("169.254.170.2", Class::Metadata),
        ("169.254.170.23", Class::Metadata),
        ("169.254.255.255", Class::LinkLocal),
        ("169.255.0.0", Class::Public),
        ("172.15.255.255", Class::Public),
        ("172.16.0.0", Class::Private),
        ("172.31.255.255", Class::Private),
        ("172.32.0.0", Class::Public),
        ("191.255.255.255", Class::Public),
        ("192.0.0.0", Class::Reserved),
        ("192.0.0.192", Class::Metadata),
        ("192.0.0.255", Class::Reserved),
        ("192.0.1.255", Class::Public),
        ("192.0.2.0", Class::Documentation),
        ("192.0.2.255", Class::Documentation),
        ("192.0.3.0", Class::Public),
        ("192.31.195.255", Class::Public),
        ("192.31.196.1", Class::Reserved),
        ("192.52.193.1", Class::Reserved),
        ("192.52.194.0", Class::Public),
        ("192.88.98.255", Class::Public),
        ("192.88.99.1", Class::Reserved),
        ("192.167.255.255", Class::Public),
        ("192.168.0.0", Class::Private),
        ("192.168.255.255", Class::Private),
        ("192.169.0.0", Class::Public),
        ("198.17.255.255", Class::Public),
        ("198.18.0.0", Class::Reserved),
        ("198.19.255.255", Class::Reserved),
        ("198.20.0.0", Class::Public),
        ("198.51.100.0", Class::Documentation),
        ("198.51.101.0", Class::Public),
        ("203.0.112.255", Class::Public),
        ("203.0.113.255", Class::Documentation),
        ("223.255.255.255", Class::Public),
        ("224.0.0.0", Class::Multicast),
        ("239.255.255.255", Class::Multicast),
        ("240.0.0.0", Class::Reserved),
        ("255.255.255.254", Class::Reserved),
        ("255.255.255.255", Class::Broadcast),
        ("::", Class::Unspecified),
        ("::1", Class::Loopback),
        ("100::", Class::Reserved),
        ("100::ffff:ffff:ffff:ffff", Class::Reserved),
        ("2001:1::1", Class::Reserved),
        ("2001:2::1", Class::Reserved),
        ("2001:20::1", Class::Reserved),
        ("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved),
        ("2001:200::1", Class::Public),
        ("2001:4860:4860::8888", Class::Public),
        ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", Class::Public),
        ("2001:db8::1", Class::Documentation),
        ("2001:db9::1", Class::Public),
        ("2003::1", Class::Public),
        ("2620:4f:8000::1", Class::Reserved),
        ("3ffe::1", Class::Reserved),
        ("3fff::1", Class::Documentation),
        (
            "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Documentation,
        ),
        ("3fff:1000::", Class::Public),
        ("1fff::1", Class::Reserved),
        ("4000::1", Class::Reserved),
        ("5f00::1", Class::Reserved),
        ("fbff::1", Class::Reserved),
        ("fc00::1", Class::Private),
        ("fd00:42::42", Class::Metadata),
        ("fd00:42::43", Class::Private),
        ("fd00:ec2::23", Class::Metadata),
        ("fd00:ec2::254", Class::Metadata),
        ("fd00:ec3::254", Class::Private),
        ("fd20:ce::254", Class::Metadata),
        ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Private),
        ("fe00::1", Class::Reserved),
        ("fe80::1", Class::LinkLocal),
        ("fe80::a9fe:a9fe", Class::LinkLocal),
        ("febf::1", Class::LinkLocal),
        ("fec0::1", Class::Reserved),
        ("ff00::1", Class::Multicast),
        ("ff02::1", Class::Multicast),
        ("64:ff9b:2::1", Class::Reserved),
    ] {
        check(text, class);
    }
}

#[test]
fn every_disguise_names_what_it_hides() {
    let inner = Ipv4Addr::new(169, 254, 169, 254);
    for (text, scheme) in [
        ("::ffff:169.254.169.254", Disguise::Mapped),
        ("::169.254.169.254", Disguise::Compatible),
        ("::ffff:0:169.254.169.254", Disguise::Translated),
        ("64:ff9b::169.254.169.254", Disguise::Nat64),
        ("64:ff9b:1::169.254.169.254", Disguise::LocalNat64),
        ("64:ff9b:1:ffff:1:2:169.254.169.254", Disguise::LocalNat64),
        ("2002:a9fe:a9fe::1", Disguise::SixToFour),
        ("2001:0:1:2:3:4:5601:5601", Disguise::Teredo),
        ("2a00:1450::5efe:169.254.169.254", Disguise::Isatap),
        ("fd00::200:5efe:169.254.169.254", Disguise::Isatap),
    ] {
        check(text, Class::Disguised { scheme, inner });
    }
    check(
        "::2",
        Class::Disguised {
            scheme: Disguise::Compatible,
            inner: Ipv4Addr::new(0, 0, 0, 2),
        },
    );
}

proptest! {
    #[test]
    fn every_address_has_a_class(bits: u128) {
        let _ = Class::of(IpAddr::V6(Ipv6Addr::from_bits(bits)));
    }

    #[test]
    fn the_standard_library_agrees_where_it_has_an_opinion(bits: u32) {
        let address = Ipv4Addr::from_bits(bits);
        let class = of_v4(address);
        prop_assume!(class != Class::Metadata);
        prop_assert_eq!(class == Class::Loopback, address.is_loopback());
        prop_assert_eq!(class == Class::Private, address.is_private());
        prop_assert_eq!(class == Class::LinkLocal, address.is_link_local());
        prop_assert_eq!(class == Class::Multicast, address.is_multicast());
        prop_assert_eq!(class == Class::Documentation, address.is_documentation());
    }
}
