//! Old releases and what they keep, collected within a budget; see [`act`].

pub mod act;

use std::collections::BTreeSet;

use crate::launch::record::Release;
use crate::names::ReleaseNumber;

/// The releases to drop when the newest `kept` stay; `releases` come oldest first. The one that serves always stays.
pub fn surplus(releases: &[Release], kept: usize) -> Vec<&Release> {
    let drop = releases.len().saturating_sub(kept.max(1));
    releases[..drop].iter().collect()
}

/// Versions of variables no kept release and no running container needs.
pub fn unused_env(all: &[u64], releases: &[Release], running: &BTreeSet<u64>) -> Vec<u64> {
    let used: BTreeSet<u64> = releases.iter().map(|release| release.env_version).collect();
    all.iter().copied().filter(|version| !used.contains(version) && !running.contains(version)).collect()
}

/// Numbers pinned in a repository that no kept release explains.
pub fn stray_pins(pins: &[ReleaseNumber], releases: &[Release]) -> Vec<ReleaseNumber> {
    let known: BTreeSet<ReleaseNumber> = releases.iter().map(|release| release.number).collect();
    pins.iter().copied().filter(|pin| !known.contains(pin)).collect()
}
