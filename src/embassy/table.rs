//! What the embassy is told: every port it listens on, whom each leads to, and who may connect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::names::ContainerName;
use crate::units::net::Net;
use crate::units::port::Port;
use crate::units::{Balance, Millis};

/// Most endpoints of one port.
const MOST_ENDPOINTS: usize = 1000;
/// Most nets that may connect to one port.
const MOST_NETS: usize = 10_000;
/// The longest a connection may take to be made.
const LONGEST_CONNECT: Millis = Millis::seconds(60);
/// The longest that open connections may stay with an endpoint that is taken out.
const LONGEST_DRAIN: Millis = Millis::seconds(24 * 3600);

/// All of it, in any order: what is not in it is not listened on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Each at most once.
    pub ports: Vec<Exposed>,
}

/// A port and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exposed {
    /// The same on every server.
    pub port: Port,
    /// At most a thousand, each address once; while there is none, nobody is served.
    pub endpoints: Vec<Endpoint>,
    /// Which of them gets a connection.
    #[serde(default)]
    pub balance: Balance,
    /// Who may connect; nobody when nothing is said.
    #[serde(default)]
    pub from: Sources,
    /// How long open connections may stay with an endpoint that is taken out; at most a day.
    pub drain: Millis,
    /// How long one endpoint may take to accept a connection; at most a minute.
    pub connect: Millis,
}

/// A container that a port may lead to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// On the private network of its server.
    pub address: SocketAddr,
    /// Whose address it is. The same address of another container is another endpoint.
    pub container: ContainerName,
    /// Whether it counts.
    pub health: Health,
}

/// Whether an endpoint counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It does.
    Healthy,
    /// It gets nobody new while another one is healthy.
    Unhealthy,
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sources {
    /// Whoever reaches the port.
    Anywhere,
    /// Addresses of these nets; at most ten thousand.
    Only(BTreeSet<Net>),
}

impl Default for Sources {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

/// A table that is not taken, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the table of ports is not taken: {}", .mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("; "))]
pub struct BadTable {
    /// In the order of the table.
    pub mistakes: Vec<Mistake>,
}

/// One thing that is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("port {port}: {what}")]
pub struct Mistake {
    /// Where.
    pub port: Port,
    /// What, and what it should be.
    pub what: String,
}

/// A table that was checked, by port.
pub type Ports = BTreeMap<Port, Exposed>;

impl Table {
    /// The ports of a table for an embassy at `address`.
    ///
    /// # Errors
    /// Names every mistake; a table with one is not applied in part.
    pub fn check(&self, address: IpAddr) -> Result<Ports, BadTable> {
        let (mut ports, mut mistakes) = (Ports::new(), Vec::new());
        for exposed in &self.ports {
            let wrong = exposed.mistakes().into_iter();
            mistakes.extend(wrong.map(|what| Mistake { port: exposed.port, what }));
            if ports.insert(exposed.port, exposed.clone()).is_some() {
                let what = "is there twice; each port is named once".to_owned();
                mistakes.push(Mistake { port: exposed.port, what });
            }
        }
        let own = |exposed: &&Exposed| {
            let is_own = |endpoint: &Endpoint| {
                let same = Port { number: endpoint.address.port(), ..exposed.port };
                endpoint.address.ip() == address && ports.contains_key(&same)
            };
            exposed.endpoints.iter().any(is_own)
        };
        for exposed in self.ports.iter().filter(own) {
            let what = format!("leads back to the embassy at {address}; an endpoint is a container's own address");
            mistakes.push(Mistake { port: exposed.port, what });
        }
        if mistakes.is_empty() { Ok(ports) } else { Err(BadTable { mistakes }) }
    }
}

impl Exposed {
    fn mistakes(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut wrong = |is_wrong: bool, what: &dyn Fn() -> String| {
            if is_wrong {
                found.push(what());
            }
        };
        wrong(self.port.number == 0, &|| "ports begin at 1".to_owned());
        wrong(self.connect == Millis(0) || self.connect > LONGEST_CONNECT, &|| {
            format!("a connection may take from 1ms to {LONGEST_CONNECT} to be made, not {}", self.connect)
        });
        wrong(self.drain > LONGEST_DRAIN, &|| {
            format!("connections drain for at most {LONGEST_DRAIN}, not {}", self.drain)
        });
        wrong(self.endpoints.len() > MOST_ENDPOINTS, &|| {
            format!("has {} endpoints, {MOST_ENDPOINTS} is the most", self.endpoints.len())
        });
        if let Sources::Only(nets) = &self.from {
            let count = nets.len();
            wrong(count > MOST_NETS, &|| format!("is open to {count} nets, {MOST_NETS} is the most"));
        }
        let mut seen = BTreeSet::new();
        for Endpoint { address, container, .. } in &self.endpoints {
            let ip = address.ip();
            let is_nobody = address.port() == 0 || ip.is_unspecified() || ip.is_multicast();
            wrong(is_nobody, &|| format!("no container can listen at {address}, as {container} is said to"));
            wrong(!seen.insert(address), &|| format!("two endpoints have the address {address}"));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn endpoint(address: &str) -> Endpoint {
        let container = format!("blog.db.1.{}", address.replace([':', '[', ']'], "-")).parse().unwrap();
        Endpoint { address: address.parse().unwrap(), container, health: Health::Healthy }
    }

    fn exposed(number: u16) -> Exposed {
        Exposed {
            port: Port::tcp(number),
            endpoints: vec![endpoint("192.0.2.1:20000")],
            balance: Balance::RoundRobin,
            from: Sources::Anywhere,
            drain: Millis::seconds(10),
            connect: Millis::seconds(2),
        }
    }

    fn check(ports: Vec<Exposed>, expected: &[&str]) {
        let checked = Table { ports }.check("192.0.2.9".parse().unwrap());
        let told: Vec<String> = match checked {
            Ok(_) => Vec::new(),
            Err(bad) => bad.mistakes.iter().map(Mistake::to_string).collect(),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn good_tables_are_taken_and_every_mistake_is_named() {
        check(vec![], &[]);
        check(vec![exposed(1), Exposed { port: Port::udp(1), ..exposed(1) }], &[]);
        check(vec![exposed(0)], &["port 0: ports begin at 1"]);
        check(vec![exposed(7), exposed(7)], &["port 7: is there twice; each port is named once"]);
        let slow = Exposed { connect: Millis(0), drain: Millis::seconds(90_000), ..exposed(7) };
        check(
            vec![slow],
            &[
                "port 7: a connection may take from 1ms to 1m0s to be made, not 0ms",
                "port 7: connections drain for at most 1440m0s, not 1500m0s",
            ],
        );
        let nobody = ["0.0.0.0:80", "192.0.2.1:0", "[ff02::1]:80"].map(endpoint).to_vec();
        let said = |address: &str| format!("port 7: no container can listen at {address}, as ");
        let found = Table { ports: vec![Exposed { endpoints: nobody, ..exposed(7) }] };
        let found = found.check("192.0.2.9".parse().unwrap()).unwrap_err().mistakes;
        for (mistake, address) in found.iter().zip(["0.0.0.0:80", "192.0.2.1:0", "[ff02::1]:80"]) {
            assert!(mistake.to_string().starts_with(&said(address)), "{mistake}");
        }
        let twice = vec![endpoint("192.0.2.1:80"); 2];
        check(
            vec![Exposed { endpoints: twice, ..exposed(7) }],
            &["port 7: two endpoints have the address 192.0.2.1:80"],
        );
        let own = Exposed { endpoints: vec![endpoint("192.0.2.9:8")], ..exposed(7) };
        check(
            vec![own.clone(), exposed(8)],
            &["port 7: leads back to the embassy at 192.0.2.9; an endpoint is a container's own address"],
        );
        check(vec![own], &[]);
    }

    #[test]
    fn a_table_is_read_as_it_is_written_and_nobody_may_connect_unless_it_is_said() {
        let table = Table { ports: vec![exposed(7)] };
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), table);
        let least = r#"{"ports":[{"port":"7/udp","endpoints":[],"drain":0,"connect":100}]}"#;
        let least: Table = serde_json::from_str(least).unwrap();
        assert_eq!(least.ports[0].from, Sources::Only(BTreeSet::new()));
        assert_eq!(least.ports[0].balance, Balance::RoundRobin);
        let more = r#"{"ports":[],"port":1}"#;
        assert!(serde_json::from_str::<Table>(more).is_err(), "what is not understood is refused");
    }
}
