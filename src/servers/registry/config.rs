//! The registry's configuration, and the ports it may have.

use std::path::Path;

use sha2::{Digest, Sha256};

/// Below the ports that the kernel hands out by itself, above those that quarry gives to containers.
const PORTS: std::ops::Range<u16> = 31_500..32_500;

/// The ports to try, each once. They begin at one that follows from the folder: two HQs of one machine seldom meet.
pub(super) fn ports(folder: &Path) -> impl Iterator<Item = u16> {
    let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    let first = u16::from_le_bytes([digest[0], digest[1]]) % PORTS.len() as u16;
    PORTS.cycle().skip(first.into()).take(PORTS.len())
}

/// The text for a registry of `folder`. JSON is YAML, and knows how to quote a path.
///
/// It keeps nothing in memory of which blobs there are, because its garbage is collected beside it.
pub(super) fn text(folder: &Path, port: u16) -> String {
    let config = serde_json::json!({
        "version": "0.1",
        "log": { "level": "error", "accesslog": { "disabled": true } },
        "storage": {
            "filesystem": { "rootdirectory": folder.join("storage") },
            "delete": { "enabled": true },
        },
        "http": { "addr": format!("127.0.0.1:{port}"), "relativeurls": true },
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_port_is_tried_once_and_another_folder_begins_elsewhere() {
        let all = |folder: &str| ports(Path::new(folder)).collect::<Vec<_>>();
        let (one, other) = (all("/home/quarry/registry"), all("/tmp/other/registry"));
        assert_eq!(one.iter().collect::<BTreeSet<_>>(), PORTS.collect::<Vec<_>>().iter().collect());
        assert_eq!(one.len(), other.len());
        assert_ne!(one[0], other[0]);
        assert_eq!(one, all("/home/quarry/registry"));
    }

    #[test]
    fn the_registry_listens_on_loopback_only_and_lets_manifests_be_deleted() {
        let config: serde_json::Value = serde_json::from_str(&text(Path::new("/a \"b"), 31_500)).unwrap();
        assert_eq!(config["http"]["addr"], "127.0.0.1:31500");
        assert_eq!(config["storage"]["delete"]["enabled"], true);
        assert_eq!(config["storage"]["filesystem"]["rootdirectory"], "/a \"b/storage");
    }
}
