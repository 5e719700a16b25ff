//! Where the HTTP api answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Where the HTTP api answers, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// At this address; port 0 is any that is free.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl Default for Api {
    /// On the machine itself, which no container reaches.
    fn default() -> Self {
        Self::At((Ipv4Addr::LOCALHOST, 8791).into())
    }
}

impl FromStr for Api {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::At).map_err(|_| {
                format!("`{text}` is neither an address with a port, such as `127.0.0.1:8791`, nor `off`")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_answers_at_an_address_or_nowhere() {
        assert_eq!("off".parse(), Ok(Api::Off));
        assert_eq!("127.0.0.1:8791".parse(), Ok(Api::default()));
        assert_eq!("[::]:80".parse(), Ok(Api::At("[::]:80".parse().unwrap())));
        for wrong in ["", "8791", "localhost:8791", "127.0.0.1", "on"] {
            assert!(wrong.parse::<Api>().unwrap_err().contains("neither"), "{wrong}");
        }
    }
}
