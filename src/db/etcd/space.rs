//! Where the tree's keys lie among etcd's, which others use too.

use crate::db::{Key, paths};

/// The part of etcd's keys that belongs to the tree: all that begin with this text, which ends in a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space(String);

/// Keys from the first up to but without the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub start: Vec<u8>,
    /// The first key behind it.
    pub end: Vec<u8>,
}

impl Space {
    /// The space below `prefix`, with or without closing slash.
    pub fn new(prefix: &str) -> Self {
        Self(format!("{}/", prefix.trim_end_matches('/')))
    }

    /// What etcd calls `key`.
    pub fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.0)
    }

    /// What etcd calls the key with this text.
    pub fn name_of(&self, key: &str) -> String {
        format!("{}{key}", self.0)
    }

    /// The key that etcd calls `name`; `None` for what others keep in between.
    pub fn key(&self, name: &[u8]) -> Option<Key> {
        let text = std::str::from_utf8(name).ok()?.strip_prefix(&self.0)?;
        text.parse().ok().filter(paths::is_key)
    }

    /// Everything below `prefix` but not the prefix itself; the whole space for the empty one.
    pub fn below(&self, prefix: &str) -> Range {
        let folder = if prefix.is_empty() { self.0.clone() } else { format!("{}{prefix}/", self.0) };
        let mut end = folder.clone().into_bytes();
        // `0` follows `/`: the first text that no longer begins with the folder.
        end.pop();
        end.push(b'0');
        Range { start: folder.into_bytes(), end }
    }

    /// The keys that must hold no value when `key` does: each is the beginning of it.
    pub fn above(&self, key: &Key) -> Vec<String> {
        let text = key.as_str();
        text.match_indices('/').map(|(place, _)| text[..place].to_owned()).collect()
    }
}

impl Range {
    /// The range without everything up to and with `last`.
    pub fn after(&self, last: &[u8]) -> Self {
        let next = [last, b"\0"].concat();
        Self { start: next.max(self.start.clone()), end: self.end.clone() }
    }

    /// Whether no key is in it.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_keeps_to_its_prefix() {
        let space = Space::new("/quarry/");
        assert_eq!(space, Space::new("/quarry"));
        assert_eq!(space.name(&"stacks/a/status".parse().unwrap()), "/quarry/stacks/a/status");
        assert_eq!(space.key(b"/quarry/stacks/a/status"), "stacks/a/status".parse().ok());
        for other in [&b"/quarryman/stacks/a/status"[..], b"/quarry/", b"/quarry/x/y", b"/quarry/stacks/a//b", b"\xff"]
        {
            assert_eq!(space.key(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_folder_ends_before_its_neighbours() {
        let range = Space::new("/quarry").below("proc/a");
        assert_eq!((range.start.as_slice(), range.end.as_slice()), (&b"/quarry/proc/a/"[..], &b"/quarry/proc/a0"[..]));
        for (name, inside) in
            [("a/x", true), ("a/~", true), ("a", false), ("a-b", false), ("a.json", false), ("aa", false)]
        {
            let name = format!("/quarry/proc/{name}").into_bytes();
            assert_eq!(range.start <= name && name < range.end, inside, "{name:?}");
        }
        assert_eq!(Space::new("/quarry").below("").end, b"/quarry0");
    }

    #[test]
    fn what_is_above_a_key_are_its_beginnings() {
        let above = Space::new("/quarry").above(&"config/files/etc/hosts".parse().unwrap());
        assert_eq!(above, ["config", "config/files", "config/files/etc"]);
    }

    #[test]
    fn a_range_goes_on_behind_what_was_read() {
        let range = Space::new("/q").below("a");
        assert_eq!(range.after(b"/q/a/x").start, b"/q/a/x\0");
        assert_eq!(range.after(b"/q/a"), range);
        assert!(range.after(b"/q/b").is_empty());
    }
}
