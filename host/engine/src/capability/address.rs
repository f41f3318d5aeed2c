//! Which addresses a guest's request may reach: checked on what a name resolved to, at every connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds keep an instance's credentials, by IPv6: EC2, the credentials of pods of EKS, Google, Oracle and Scaleway. They are
/// unique local addresses: only this list tells them from those of private networks.
pub const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Why an address is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressClass {
    /// On the open internet.
    Public,
    /// Of a private network: allowed by a grant that says `private`.
    Private,
    /// Of this machine or of a link: allowed by a `private` grant for this very address, or for `localhost`. A name that others decide about
    /// does not lead here.
    Local,
    /// Where clouds keep an instance's credentials: allowed only by a `private` grant for this very address.
    Metadata,
    /// No address of a server.
    Never,
}

/// Classifies an address; addresses that embed another one are what that one is.
pub(crate) fn class_of(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => class_of_v4(v4),
        IpAddr::V6(v6) => class_of_v6(v6),
    }
}

fn class_of_v4(address: Ipv4Addr) -> AddressClass {
    let [a, b, c, d] = address.octets();
    match (a, b, c, d) {
        (169, 254, 169, 254)
        | (169, 254, 170, 2 | 23)
        | (100, 100, 100, 200)
        | (168, 63, 129, 16) => AddressClass::Metadata,
        (0 | 224..=255, ..) => AddressClass::Never,
        (127, ..) | (169, 254, ..) => AddressClass::Local,
        (10, ..)
        | (172, 16..=31, ..)
        | (192, 168, ..)
        | (100, 64..=127, ..)
        | (192, 0, 0 | 2, _)
        | (192, 88, 99, _)
        | (198, 18..=19, ..)
        | (198, 51, 100, _)
        | (203, 0, 113, _) => AddressClass::Private,
        _ => AddressClass::Public,
    }
}

fn class_of_v6(address: Ipv6Addr) -> AddressClass {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = address.segments();
    let low = || embedded(s6, s7);
    match (s0, s1, s2, s3, s4, s5) {
        // Loopback and unspecified come before the deprecated compatible form.
        (0, 0, 0, 0, 0, 0) if s6 == 0 && s7 == 1 => AddressClass::Local,
        (0, 0, 0, 0, 0, 0) if s6 == 0 && s7 == 0 => AddressClass::Never,
        // IPv4-compatible, IPv4-mapped, IPv4-translated and NAT64.
        (0, 0, 0, 0, 0, 0 | 0xffff) | (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, 0, 0, 0, 0) => {
            class_of_v4(low())
        }
        // NAT64 of a local network.
        (0x64, 0xff9b, 1, ..) => AddressClass::Private,
        // 6to4 and Teredo reach any IPv4 address through a relay.
        (0x2002, ..) => class_of_v4(embedded(s1, s2)),
        (0x2001, 0, ..) => AddressClass::Never,
        (0x2001, 0xdb8, ..) | (0x100, 0, 0, 0, ..) => AddressClass::Never,
        _ if METADATA_V6.contains(&address) => AddressClass::Metadata,
        (0xfe80..=0xfebf, ..) => AddressClass::Local,
        (0xfc00..=0xfdff, ..) | (0xfec0..=0xfeff, ..) => AddressClass::Private,
        (0xff00..=0xffff, ..) => AddressClass::Never,
        _ => AddressClass::Public,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> AddressClass {
        class_of(text.parse().unwrap())
    }

    #[test]
    fn inner_addresses_are_private() {
        for inner in [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "64:ff9b:1::1",
        ] {
            assert_eq!(class(inner), AddressClass::Private, "{inner}");
        }
    }

    #[test]
    fn this_machine_and_its_links_are_local() {
        for local in [
            "127.0.0.1",
            "127.255.0.1",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(class(local), AddressClass::Local, "{local}");
        }
        assert_eq!(class("fd00:ec2::23"), AddressClass::Metadata);
    }

    #[test]
    fn outer_addresses_are_public() {
        for outer in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.169.0.1",
            "2606:4700::1111",
        ] {
            assert_eq!(class(outer), AddressClass::Public, "{outer}");
        }
    }

    #[test]
    fn metadata_services_are_known() {
        for metadata in [
            "169.254.169.254",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert_eq!(class(metadata), AddressClass::Metadata, "{metadata}");
        }
    }

    #[test]
    fn an_address_within_an_address_does_not_hide() {
        for hidden in [
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ] {
            assert_eq!(class(hidden), AddressClass::Private, "{hidden}");
        }
        assert_eq!(class("::ffff:0:127.0.0.1"), AddressClass::Local);
    }

    #[test]
    fn no_server_is_at_these() {
        for never in [
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "ff02::1",
            "2001:0:1::1",
        ] {
            assert_eq!(class(never), AddressClass::Never, "{never}");
        }
    }
}
