//! `embassy/`: where containers find what they are linked to.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

/// The embassy of every server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embassy {
    /// Its address, the same on every server and on none of their networks; none without an embassy.
    pub address: Option<IpAddr>,
    /// The numbers that ports get there.
    pub ports: RangeInclusive<u16>,
}

impl Default for Embassy {
    /// An address that is valid on one link only, and so on nobody's network; below what containers publish.
    fn default() -> Self {
        Self { address: Some(Ipv4Addr::new(169, 254, 87, 91).into()), ports: 10_000..=19_999 }
    }
}

impl Embassy {
    /// Takes the file `embassy/<name>`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        match (name, text.trim()) {
            ("address", "off") => self.address = None,
            ("address", value) => self.address = Some(address(value)?),
            ("ports", value) => self.ports = super::ports(value)?,
            (name, _) => return Err(format!("`{name}` is no setting; there are `address` and `ports`")),
        }
        Ok(())
    }
}

/// Containers are on networks of IPv4 alone.
fn address(value: &str) -> Result<IpAddr, String> {
    let wrong = || format!("`{value}` is neither `off` nor an IPv4 address of no network, such as 169.254.87.91");
    let address: Ipv4Addr = value.parse().map_err(|_| wrong())?;
    let is_nobodys =
        address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast();
    if is_nobodys { Err(wrong()) } else { Ok(address.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_unless_it_is_off_and_what_no_container_reaches_is_no_address() {
        let check = |text: &str, expected: Option<Option<&str>>| {
            let mut embassy = Embassy::default();
            let set = embassy.set("address", text).ok().map(|()| embassy.address.map(|address| address.to_string()));
            assert_eq!(set.as_ref().map(|set| set.as_deref()), expected, "{text}");
        };
        check("off\n", Some(None));
        check("10.9.9.9\n", Some(Some("10.9.9.9")));
        for wrong in ["", "127.0.0.1", "0.0.0.0", "::1", "fd00::1", "10.9.9.9/32", "224.0.0.1"] {
            check(wrong, None);
        }
        assert!(Embassy::default().set("port", "1").unwrap_err().contains("`ports`"));
    }
}
