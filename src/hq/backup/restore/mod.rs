//! From a backup to an HQ that was never here; [`act`] does it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::db::{Key, layout};
use crate::hq::backup::End;
use crate::instruction::Instruction;
use crate::launch::Identity;
use crate::launch::record::Release;
use crate::names::{ImageId, StackName};
use crate::router::{StackRoutes, Target};

pub mod act;

/// Where the state goes that HQ had in etcd or in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Into this machine's files; settings that name an etcd are put aside.
    Files,
    /// Nowhere: it is still in the etcd that the settings name.
    Etcd,
}

/// What came out of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// How much.
    pub end: End,
    /// The names that images are to get.
    pub names: Vec<(ImageId, String)>,
}

/// What stands in a root folder while a restore is under way, so that nobody acts on a part.
pub const MARK: &[u8] = b"a restore has begun and has not come to its end\n";

/// Whether what is being copied here is a restore.
pub fn is_mark(value: &[u8]) -> bool {
    value == MARK
}

/// What lies in a root folder that nobody has used yet.
pub fn is_bare(name: &str) -> bool {
    [".lock", "lost+found"].contains(&name)
}

/// The value of a key as it reads below another root: documents that the router serves lie below it.
pub fn moved(key: &Key, value: Vec<u8>, from: &Path, to: &Path) -> Vec<u8> {
    if !key.is_under(layout::ROUTES) || from == to {
        return value;
    }
    let Ok(mut table) = serde_json::from_slice::<StackRoutes>(&value) else { return value };
    for node in table.nodes.values_mut() {
        match &mut node.target {
            Target::Site(folder) => {
                if let Ok(inside) = folder.strip_prefix(from) {
                    *folder = to.join(inside);
                }
            }
            Target::Peers(_) => {}
        }
    }
    serde_json::to_vec_pretty(&table).unwrap_or(value)
}

/// The names by which HQ finds the images of releases, of those that came along.
pub fn names(
    releases: &BTreeMap<StackName, Vec<Release>>,
    images: &BTreeSet<ImageId>,
    identity: &Identity,
) -> Vec<(ImageId, String)> {
    let mut names = Vec::new();
    for (stack, releases) in releases {
        for release in releases {
            let tag = identity.tag(stack, release.number);
            let launched = release.instructions.iter().filter_map(Instruction::launches);
            let settings = release.instructions.iter().filter_map(Instruction::settings);
            for (node, settings) in launched.zip(settings) {
                if images.contains(&settings.image) {
                    names.push((settings.image.clone(), format!("quarry/{stack}/{node}:{tag}")));
                }
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_found_below_another_root() {
        let text =
            r#"{"stack":"a","release":1,"nodes":{"web":{"domains":["a.b"],"target":{"site":"/old/sites/a/1"}}}}"#;
        let check = |key: &str, to: &str, expected: bool| {
            let value = moved(&key.parse().unwrap(), text.into(), Path::new("/old"), Path::new(to));
            let found = String::from_utf8(value).unwrap();
            assert_eq!(found.contains("\"/new/sites/a/1\""), expected, "{key} {found}");
        };
        check("routes/a.json", "/new", true);
        check("routes/a.json", "/old", false);
        check("stacks/a/status", "/new", false);
    }
}
