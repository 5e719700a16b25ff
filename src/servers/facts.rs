//! What a server says of itself when HQ first comes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::grid::Architecture;
use crate::units::Megabytes;

/// What was read from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What it calls itself.
    pub hostname: String,
    /// All its memory.
    pub memory: Megabytes,
    /// How many processors it has.
    pub processors: u32,
    /// What they understand.
    pub architecture: Architecture,
    /// Whether HQ comes as one who may install programs.
    pub is_root: bool,
    /// Its own address on the way HQ came.
    pub ip: IpAddr,
    /// The address from which it sees HQ come.
    pub hq: IpAddr,
}

/// A fact that is missing, or makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server does not tell its {what}; is it a Linux with a POSIX shell?")]
pub struct NoFact {
    /// Which fact.
    pub what: &'static str,
}

/// Prints the facts, one `name=value` a line; for a POSIX shell with nothing but the base system.
pub const SCRIPT: &str = r#"
echo "hostname=$(hostname 2>/dev/null || uname -n)"
echo "machine=$(uname -m)"
echo "processors=$(getconf _NPROCESSORS_ONLN)"
while read -r name value _; do
    [ "$name" = MemTotal: ] && echo "memory=$value"
done < /proc/meminfo
echo "user=$(id -u)"
echo "connection=$SSH_CONNECTION"
"#;

impl Facts {
    /// Reads what [`SCRIPT`] prints.
    ///
    /// # Errors
    /// The first fact that is missing.
    pub fn parse(text: &str) -> Result<Self, NoFact> {
        let facts: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.trim().split_once('=')).collect();
        let fact = |name: &str, what| facts.get(name).filter(|value| !value.is_empty()).copied().ok_or(NoFact { what });
        let memory: u64 = fact("memory", "memory")?.parse().map_err(|_| NoFact { what: "memory" })?;
        let no_address = |_| NoFact { what: "address" };
        // As sshd has it: the client's address and port, then its own.
        let ends: Vec<&str> = fact("connection", "address")?.split_whitespace().collect();
        let [hq, _, ip, _] = ends[..] else { return Err(NoFact { what: "address" }) };
        Ok(Self {
            hostname: fact("hostname", "name")?.to_owned(),
            memory: Megabytes((memory / 1024).max(1)),
            processors: fact("processors", "processors")?.parse().map_err(|_| NoFact { what: "processors" })?,
            architecture: fact("machine", "architecture")?.into(),
            is_root: fact("user", "user")? == "0",
            ip: ip.parse().map_err(no_address)?,
            hq: hq.parse().map_err(no_address)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "hostname=s1.example\nmachine=aarch64\nprocessors=4\nmemory=2048000\nuser=0\n\
                        connection=10.0.0.1 51234 10.0.0.7 22\n";

    #[test]
    fn a_server_tells_what_it_has() {
        let facts = Facts::parse(SAID).unwrap();
        assert_eq!((facts.memory, facts.processors, facts.is_root), (Megabytes(2000), 4, true));
        assert_eq!(facts.architecture, "arm64".into());
        assert_eq!((facts.ip.to_string(), facts.hq.to_string()), ("10.0.0.7".into(), "10.0.0.1".into()));
    }

    #[test]
    fn a_fact_that_is_missing_is_named() {
        for (name, what) in [("memory", "memory"), ("machine", "architecture"), ("connection", "address")] {
            let text: String =
                SAID.lines().filter(|line| !line.starts_with(name)).map(|line| format!("{line}\n")).collect();
            assert_eq!(Facts::parse(&text), Err(NoFact { what }), "{text}");
        }
    }
}
