//! What a container uses, as docker's figures of one moment tell it.

use serde_json::Value;

/// What a container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it began, in nanoseconds.
    pub cpu: u64,
    /// Memory in bytes, without files that are only kept in case they are read again.
    pub memory: u64,
    /// The most it may have, in bytes.
    pub limit: u64,
    /// Bytes that came to it over its networks since it began.
    pub received: u64,
    /// Bytes that it sent there.
    pub sent: u64,
}

impl Usage {
    /// Reads docker's answer (`/containers/<id>/stats`); `None` when that is no such thing, or the container does not run.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let told: Value = serde_json::from_slice(text).ok()?;
        let memory = &told["memory_stats"];
        let used = memory["usage"].as_u64()?;
        // Of version 2 of control groups, and of version 1.
        let files = ["inactive_file", "total_inactive_file"].iter().find_map(|name| memory["stats"][name].as_u64());
        let networks = told["networks"].as_object();
        let sum = |name: &str| networks.into_iter().flatten().filter_map(|(_, one)| one[name].as_u64()).sum();
        Some(Self {
            cpu: told["cpu_stats"]["cpu_usage"]["total_usage"].as_u64()?,
            memory: used.saturating_sub(files.unwrap_or(0)),
            limit: memory["limit"].as_u64().unwrap_or(0),
            received: sum("rx_bytes"),
            sent: sum("tx_bytes"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_what_does_not_run_has_none() {
        let text = br#"{"cpu_stats":{"cpu_usage":{"total_usage":7}},"memory_stats":{"usage":100,"limit":200,"stats":{"inactive_file":30}},
            "networks":{"eth0":{"rx_bytes":1,"tx_bytes":2},"eth1":{"rx_bytes":10,"tx_bytes":20}}}"#;
        let expected = Usage { cpu: 7, memory: 70, limit: 200, received: 11, sent: 22 };
        assert_eq!(Usage::parse(text), Some(expected));
        for nothing in [&b""[..], b"{}", br#"{"cpu_stats":{"cpu_usage":{"total_usage":0}},"memory_stats":{}}"#] {
            assert_eq!(Usage::parse(nothing), None);
        }
    }
}
