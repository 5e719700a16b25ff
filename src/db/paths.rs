//! Which places of the root folder belong to the state tree and which hold other things: repositories, checkouts,
//! volumes, nginx's own files, editors' backups.
//!
//! Every home of the tree keeps to this rule, so that a tree can move from one home to another.

use super::layout::ROOTS;
use super::{DbError, Key};

/// What a stack's folder holds besides keys: its repository, checkout, instruction tarballs and logs.
const FILES_OF_A_STACK: [&str; 4] = ["build", "logs", "repo.git", "src"];

/// Whether a value may lie here: not directly in the root, not in a foreign place, not as an editor's backup (`x~`).
pub fn is_key(key: &Key) -> bool {
    key.segments().count() > 1 && holds_keys(key.as_str()) && !key.last().ends_with('~')
}

/// Whether keys may lie below this folder, given relative to the root; the root itself is the empty path.
pub fn holds_keys(folder: &str) -> bool {
    let segments: Vec<&str> = folder.split('/').collect();
    match segments.as_slice() {
        [""] => true,
        ["stacks", _, third, ..] => !FILES_OF_A_STACK.contains(third),
        [first, ..] => ROOTS.contains(first),
        [] => false,
    }
}

/// Whether the folder stays when its last key goes, because others keep files there too.
pub fn is_shared(folder: &str) -> bool {
    let segments: Vec<&str> = folder.split('/').collect();
    matches!(segments.as_slice(), [_] | ["stacks", _])
}

/// The key itself when a value may lie there.
///
/// # Errors
/// [`DbError::Foreign`] when not.
pub fn check(key: &Key) -> Result<(), DbError> {
    if is_key(key) { Ok(()) } else { Err(DbError::Foreign { key: key.clone() }) }
}

/// A prefix without its closing slashes; empty for the whole tree.
///
/// # Errors
/// [`DbError::BadKey`] when it is neither empty nor shaped like a key.
pub fn prefix(text: &str) -> Result<&str, DbError> {
    let text = text.trim_end_matches('/');
    if !text.is_empty() {
        text.parse::<Key>()?;
    }
    Ok(text)
}

/// `name` in `folder`, where the root is the empty folder.
pub fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::layout;
    use crate::names::ReleaseNumber;

    fn check(path: &str, expected: bool) {
        assert_eq!(is_key(&path.parse().unwrap()), expected, "{path}");
    }

    #[test]
    fn repositories_checkouts_volumes_and_nginx_files_are_no_keys() {
        for foreign in [
            "stacks/blog/repo.git/HEAD",
            "stacks/blog/repo.git",
            "stacks/blog/src/stacks/a/env/A",
            "stacks/blog/build/1.tar.gz",
            "stacks/blog/logs/build.log",
            "volumes/blog/db/data",
            "router/routes.json",
            "sites/blog/index.html",
            "logs/hq.log",
            "hooks/pre-receive",
            "backup-of-stacks/blog/status",
            "hq.sock",
            "stacks",
            "stacks/blog/env/A~",
        ] {
            check(foreign, false);
        }
    }

    #[test]
    fn every_key_of_the_layout_is_a_key() {
        let stack = "blog".parse().unwrap();
        let node = "web".parse().unwrap();
        for key in [
            layout::status(&stack),
            layout::env(&stack, &"A".parse().unwrap()),
            layout::env_version(&stack, 1),
            layout::data(&stack),
            layout::falls(&stack),
            layout::release(&stack, ReleaseNumber(1)),
            layout::proc(&stack, &node),
            layout::journal(&stack),
            layout::routes(&stack),
            layout::public_key(&"ann".parse().unwrap(), &"laptop".parse().unwrap()),
            layout::server_settings(&"hq".parse().unwrap()),
            layout::grid(),
        ] {
            check(key.as_str(), true);
        }
        for (key, expected) in [("stacks/src/env/A", true), ("servers/a/src/x", true), ("stacks/a/env/src", true)] {
            check(key, expected);
        }
    }

    #[test]
    fn a_prefix_is_empty_or_shaped_like_a_key() {
        assert_eq!(prefix("").unwrap(), "");
        assert_eq!(prefix("stacks/").unwrap(), "stacks");
        for wrong in ["../etc", "stacks//a", "/etc", ".git"] {
            assert!(matches!(prefix(wrong), Err(DbError::BadKey { .. })), "{wrong}");
        }
    }
}
