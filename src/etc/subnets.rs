//! Where the networks of stacks lie.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range of private addresses that stacks' networks are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnets {
    pub(super) network: Ipv4Addr,
    pub(super) bits: u8,
}

/// The size of one stack's network: a smaller range than this holds none.
const SMALLEST: u8 = 26;

impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

impl FromStr for Subnets {
    type Err = String;
    /// `10.208.0.0/12`: private, from /8 to /26, on its own boundary.
    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || format!("`{text}` is not a private range such as `10.208.0.0/12`, from /8 to /{SMALLEST}");
        let (network, bits) = text.split_once('/').ok_or_else(rule)?;
        let network: Ipv4Addr = network.parse().map_err(|_| rule())?;
        let bits: u8 = bits.parse().map_err(|_| rule())?;
        if !(8..=SMALLEST).contains(&bits) || !network.is_private() {
            return Err(rule());
        }
        let own = Ipv4Addr::from(u32::from(network) & (u32::MAX << (32 - bits)));
        if own != network {
            return Err(format!("`{text}` does not begin on its boundary; write `{own}/{bits}`"));
        }
        Ok(Self { network, bits })
    }
}
