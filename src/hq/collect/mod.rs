//! Old releases and what they keep, collected within a budget; see [`act`].

pub mod act;

use std::collections::BTreeSet;

use crate::launch::Identity;
use crate::launch::record::Release;
use crate::names::ReleaseNumber;

/// The releases to drop when the newest `kept` stay; `releases` come oldest first. The one that serves always stays.
pub fn surplus(releases: &[Release], kept: usize) -> Vec<&Release> {
    let drop = releases.len().saturating_sub(kept.max(1));
    releases[..drop].iter().collect()
}

/// Whether an image's name ends like those of this HQ: a release's number and the HQ's suffix.
pub fn is_own(tag: &str, identity: &Identity) -> bool {
    let number = tag.rsplit(':').next().and_then(|tag| tag.strip_suffix(&identity.suffix));
    number.is_some_and(|number| number.parse::<u64>().is_ok())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_another_hq_on_the_machine_are_left_alone() {
        let check = |suffix: &str, tag: &str, expected: bool| {
            let identity = Identity { id: "0123abcd".into(), suffix: suffix.into() };
            assert_eq!(is_own(tag, &identity), expected, "{tag} for `{suffix}`");
        };
        check("", "quarry/blog/web:3", true);
        check("", "quarry/blog/web:3-0123", false);
        check("-0123", "quarry/blog/web:3-0123", true);
        check("-0123", "quarry/blog/web:3", false);
        check("-0123", "quarry/blog/web:3-4567", false);
    }
}
