//! Ports, of TCP and of UDP.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A port with what it is of, written `22` (TCP) or `443/udp`; ascending by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// From 1 where it was read from text.
    pub number: u16,
    /// Which of the two.
    pub transport: Transport,
}

/// What a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A text that is no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no port such as 80 or 443/udp")]
pub struct BadPort {
    /// What came, shortened and with control characters escaped.
    pub given: String,
}

impl Transport {
    /// As it is written in lower case.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Port {
    /// A TCP port.
    pub const fn tcp(number: u16) -> Self {
        Self { number, transport: Transport::Tcp }
    }

    /// A UDP port.
    pub const fn udp(number: u16) -> Self {
        Self { number, transport: Transport::Udp }
    }

    /// The number of a TCP port.
    pub fn connected(self) -> Option<u16> {
        (self.transport == Transport::Tcp).then_some(self.number)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Tcp => write!(f, "{}", self.number),
            Transport::Udp => write!(f, "{}/udp", self.number),
        }
    }
}

impl FromStr for Port {
    type Err = BadPort;
    fn from_str(text: &str) -> Result<Self, BadPort> {
        let bad = || BadPort { given: text.chars().take(60).flat_map(char::escape_debug).collect() };
        let (number, transport) = match text.split_once('/') {
            None => (text, Transport::Tcp),
            Some((number, "tcp")) => (number, Transport::Tcp),
            Some((number, "udp")) => (number, Transport::Udp),
            Some(_) => return Err(bad()),
        };
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|number| is_number && *number != 0).ok_or_else(bad)?;
        Ok(Self { number, transport })
    }
}

/// A number for TCP, text for UDP.
impl Serialize for Port {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.transport {
            Transport::Tcp => to.serialize_u16(self.number),
            Transport::Udp => to.collect_str(self),
        }
    }
}

/// As it is written, and as it once was: text for both, or a mapping of `number` and `protocol`.
impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u16),
            Text(String),
            Parts { number: u16, protocol: Transport },
        }
        match Written::deserialize(from)? {
            Written::Number(number) => Ok(Self::tcp(number)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
            Written::Parts { number, protocol } => Ok(Self { number, transport: protocol }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_anything_else_is_refused() {
        let check = |given: &str, expected: Option<&str>| {
            let port: Result<Port, BadPort> = given.parse();
            assert_eq!(port.ok().map(|port| port.to_string()).as_deref(), expected, "{given}");
        };
        check("22", Some("22"));
        check("80/tcp", Some("80"));
        check("443/udp", Some("443/udp"));
        for wrong in ["", "0", "65536", "+80", "-1", "80/", "80/sctp", "80/udp/tcp", "/tcp", "80 ", "http"] {
            check(wrong, None);
        }
    }

    #[test]
    fn json_holds_a_number_or_a_text_and_what_older_programs_wrote_is_read() {
        let both = [Port::tcp(80), Port::udp(53)];
        assert_eq!(serde_json::to_string(&both).unwrap(), r#"[80,"53/udp"]"#);
        let old = r#"["80",{"number":53,"protocol":"udp"}]"#;
        for text in [r#"[80,"53/udp"]"#, old] {
            assert_eq!(serde_json::from_str::<[Port; 2]>(text).unwrap(), both, "{text}");
        }
        for wrong in [r#""22 accept""#, "65536", "-1", r#"{"number":1}"#, "null"] {
            assert!(serde_json::from_str::<Port>(wrong).is_err(), "{wrong}");
        }
    }
}
