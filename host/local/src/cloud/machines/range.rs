//! Which addresses a network has: pure arithmetic on IPv4 ranges.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 range, as an address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    first: u32,
    prefix: u8,
}

impl Cidr {
    fn new(first: u32, prefix: u8) -> Self {
        Self {
            first: first & mask(prefix),
            prefix,
        }
    }

    /// Whether an address is in both.
    pub(super) fn overlaps(self, other: Self) -> bool {
        let common = mask(self.prefix.min(other.prefix));
        self.first & common == other.first & common
    }

    /// The subnet of this number, of those with so long a prefix.
    pub(super) fn subnet(self, prefix: u8, number: u32) -> Self {
        let shift = 32_u32.saturating_sub(u32::from(prefix));
        Self::new(
            self.first | number.checked_shl(shift).unwrap_or_default(),
            prefix,
        )
    }

    /// The address of this number in it.
    pub(super) fn address(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first | number)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32_u32.saturating_sub(u32::from(prefix)))
        .unwrap_or_default()
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.first), self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let wrong = || format!("{text:?} is not a range of IPv4 addresses");
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if prefix > 32 {
            return Err(wrong());
        }
        Ok(Self::new(address.to_bits(), prefix))
    }
}

/// The destinations that a host has routes to, from `ip -4 -o route show table all`. The default route is everywhere, and no obstacle.
pub(super) fn routed(table: &str) -> Vec<Cidr> {
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let first = words.next()?;
            first
                .parse()
                .ok()
                .or_else(|| words.next()?.parse::<Cidr>().ok())
        })
        .filter(|range| range.prefix > 0)
        .collect()
}

/// A network's range: one of the blocks of 198.18.0.0/15, which is set aside for tests of networks (RFC 2544) and so is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Block(u8);

/// How many blocks there are.
pub(super) const BLOCKS: u8 = 64;

/// The most zones that fit into a block beside the way to the host: 8 subnets in all.
pub(super) const ZONES_MAX: usize = 7;

/// The first address of a subnet that a machine gets; those below are for the router and whatever comes.
const FIRST_MACHINE: u32 = 10;

/// The last one.
const LAST_MACHINE: u32 = 250;

impl Block {
    /// The block of this number.
    pub(super) fn new(number: u8) -> Self {
        Self(number.checked_rem(BLOCKS).unwrap_or_default())
    }

    /// The block so many further on; after the last comes the first.
    pub(super) fn after(self, steps: u8) -> Self {
        Self::new(self.0.wrapping_add(steps))
    }

    /// All of it.
    pub(super) fn range(self) -> Cidr {
        Cidr::new(Ipv4Addr::new(198, 18, 0, 0).to_bits(), 15).subnet(21, u32::from(self.0))
    }

    /// The part between the host and the router.
    pub(super) fn uplink(self) -> Cidr {
        self.range().subnet(24, 0)
    }

    /// The host's address, where load balancers listen.
    pub(super) fn host(self) -> Ipv4Addr {
        self.uplink().address(1)
    }

    /// The router's address towards the host.
    pub(super) fn router(self) -> Ipv4Addr {
        self.uplink().address(2)
    }

    /// The subnet of a zone, by its place in the network's list.
    pub(super) fn zone(self, place: usize) -> Option<Cidr> {
        let number = u32::try_from(place).ok()?.checked_add(1)?;
        (place < ZONES_MAX).then(|| self.range().subnet(24, number))
    }

    /// The router's address in a zone.
    pub(super) fn gateway(self, place: usize) -> Option<Ipv4Addr> {
        Some(self.zone(place)?.address(1))
    }

    /// The addresses that machines of a zone may have, in order.
    pub(super) fn machines(self, place: usize) -> impl Iterator<Item = Ipv4Addr> {
        self.zone(place)
            .into_iter()
            .flat_map(|zone| (FIRST_MACHINE..=LAST_MACHINE).map(move |number| zone.address(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_a_way_to_the_host_and_a_subnet_for_each_zone() {
        let block = Block::new(1);
        assert_eq!(block.range().to_string(), "198.18.8.0/21");
        assert_eq!(block.uplink().to_string(), "198.18.8.0/24");
        assert_eq!(
            (block.host().to_string(), block.router().to_string()),
            ("198.18.8.1".into(), "198.18.8.2".into())
        );
        assert_eq!(block.zone(0).unwrap().to_string(), "198.18.9.0/24");
        assert_eq!(block.gateway(6).unwrap().to_string(), "198.18.15.1");
        assert_eq!(block.zone(7), None);
        assert_eq!(
            block.machines(1).next().unwrap().to_string(),
            "198.18.10.10"
        );
        assert_eq!(block.machines(1).count(), 241);
        assert_eq!(Block::new(63).range().to_string(), "198.19.248.0/21");
    }

    #[test]
    fn blocks_do_not_overlap() {
        for one in 0..BLOCKS {
            for other in 0..one {
                assert!(!Block::new(one).range().overlaps(Block::new(other).range()));
            }
        }
        let range = |text: &str| text.parse::<Cidr>().unwrap();
        assert!(range("198.18.0.0/15").overlaps(range("198.19.3.4")));
        assert!(!range("10.0.0.0/8").overlaps(range("198.18.0.0/21")));
    }

    #[test]
    fn reads_every_kind_of_route_of_a_host() {
        let table = "default via 192.0.2.1 dev eth0\n192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.2\n\
            unreachable 198.18.16.0/21\nlocal 127.0.0.1 dev lo table local proto kernel scope host\n\
            broadcast 192.0.2.255 dev eth0 table local\n0.0.0.0/0 dev x\n198.18.8.0/21 via 198.18.8.2 dev cap-0\n";
        let found: Vec<String> = routed(table).iter().map(Cidr::to_string).collect();
        assert_eq!(
            found,
            [
                "192.0.2.0/24",
                "198.18.16.0/21",
                "127.0.0.1/32",
                "192.0.2.255/32",
                "198.18.8.0/21"
            ]
        );
    }

    #[test]
    fn refuses_what_is_no_range() {
        for text in ["", "10.0.0.0/33", "fd00::/64", "10.0.0/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
