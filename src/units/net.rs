//! Addresses and the networks they stand for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One address, or all that begin with the same bits; IPv4 before IPv6, ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net {
    address: IpAddr,
    bits: u8,
}

/// A text that is no address a server or container can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` {what}")]
pub struct BadNet {
    /// What came, shortened and with control characters escaped.
    pub given: String,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Net {
    /// All addresses whose first `bits` bits are those of `address`; more bits than it has mean the address alone.
    pub fn new(address: IpAddr, bits: u8) -> Self {
        match address {
            IpAddr::V4(address) => {
                let bits = bits.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Self { address: Ipv4Addr::from_bits(address.to_bits() & mask).into(), bits }
            }
            IpAddr::V6(address) => {
                let bits = bits.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Self { address: Ipv6Addr::from_bits(address.to_bits() & mask).into(), bits }
            }
        }
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// How many first bits its addresses share: all of them for a single address.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether the address is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && Self::new(address, self.bits) == *self
    }

    fn is_single(&self) -> bool {
        self.bits == if self.is_ipv4() { 32 } else { 128 }
    }
}

impl From<IpAddr> for Net {
    /// IPv4 written as IPv6 is IPv4: so it comes over the wire.
    fn from(address: IpAddr) -> Self {
        Self::new(address.to_canonical(), u8::MAX)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() { write!(f, "{}", self.address) } else { write!(f, "{}/{}", self.address, self.bits) }
    }
}

impl FromStr for Net {
    type Err = BadNet;
    /// `192.0.2.7`, `192.0.2.0/24`, `2001:db8::7`, `2001:db8::/64`. Bits behind the prefix are ignored.
    fn from_str(text: &str) -> Result<Self, BadNet> {
        let bad = |what| BadNet { given: text.chars().take(60).flat_map(char::escape_debug).collect(), what };
        const SHAPE: &str = "is no address such as 192.0.2.7, 2001:db8::7 or 192.0.2.0/24";
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad(SHAPE))?;
        let net = match bits {
            None => Self::from(address),
            Some(bits) => {
                let most = if address.is_ipv4() { 32 } else { 128 };
                let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
                let bits: u8 = bits.parse().ok().filter(|bits| is_number && *bits <= most).ok_or_else(|| bad(SHAPE))?;
                if bits == most { Self::from(address) } else { Self::new(address, bits) }
            }
        };
        if net.bits == 0 {
            return Err(bad("is everybody"));
        }
        // A network may begin with the address of nobody.
        let is_group = address.is_multicast() || net.address.is_multicast();
        if (net.is_single() && net.address.is_unspecified()) || is_group {
            return Err(bad("is the address of no machine"));
        }
        Ok(net)
    }
}

impl TryFrom<String> for Net {
    type Error = BadNet;
    fn try_from(text: String) -> Result<Self, BadNet> {
        text.parse()
    }
}

impl From<Net> for String {
    fn from(net: Net) -> Self {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(given: &str, expected: Option<&str>) {
        let net: Result<Net, BadNet> = given.parse();
        assert_eq!(net.as_ref().ok().map(Net::to_string).as_deref(), expected, "{given}: {net:?}");
    }

    #[test]
    fn addresses_and_networks_are_read_and_anything_else_is_refused() {
        check("192.0.2.7", Some("192.0.2.7"));
        check("192.0.2.7/24", Some("192.0.2.0/24"));
        check("192.0.2.7/32", Some("192.0.2.7"));
        check("2001:DB8::7", Some("2001:db8::7"));
        check("2001:db8::7/64", Some("2001:db8::/64"));
        check("::ffff:192.0.2.7", Some("192.0.2.7"));
        check("::ffff:192.0.2.7/128", Some("192.0.2.7"));
        check("12.0.2.0/2", Some("0.0.0.0/2"));
        check("0.0.0.0/2", Some("0.0.0.0/2"));
        check("::1/64", Some("::/64"));
        for wrong in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.400",
            "1.2.3.4/33",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "::/129",
            "fe80::1%eth0",
            "server",
            "0.0.0.0",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
            "0.0.0.0/0",
            "::/0",
            "224.0.0.1",
            "224.0.0.1/2",
            "255.0.0.1/3",
            "ff02::1",
            " 1.2.3.4",
            "1.2.3.4\n",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn an_address_is_in_the_network_of_its_first_bits() {
        let net: Net = "192.0.2.0/25".parse().unwrap();
        assert!(net.contains("192.0.2.127".parse().unwrap()));
        assert!(!net.contains("192.0.2.128".parse().unwrap()));
        assert!(!net.contains("::192.0.2.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn a_network_reads_back_from_its_text(address: IpAddr, bits in 1_u8..=128) {
            let net = Net::new(address, bits);
            let read: Result<Net, BadNet> = net.to_string().parse();
            prop_assert!(read.is_err() || read == Ok(net) || Ok(Net::from(address)) == read);
            // What was read once is read again, as it was.
            if let Ok(read) = read {
                prop_assert_eq!(read.to_string().parse(), Ok(read));
            }
        }

        #[test]
        fn no_text_brings_anything_but_digits_letters_and_the_four_signs(text in ".*") {
            if let Ok(net) = text.parse::<Net>() {
                let plain = |c: char| c.is_ascii_hexdigit() || ".:/".contains(c);
                prop_assert!(net.to_string().chars().all(plain));
            }
        }
    }
}
