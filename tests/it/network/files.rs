//! Config files and the hosts file on a real disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use quarry::network::config::act::Configs;
use quarry::network::config::{ConfigPath, Step};
use quarry::network::files::keep_hosts;
use quarry::network::hosts::Entries;
use tempfile::TempDir;

use crate::harness::program::run;

struct Disk {
    folder: TempDir,
    configs: Configs,
}

type Wanted<'a> = &'a [(&'a str, &'a str)];

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configs = Configs::new(&folder.path().join("quarry"), &[folder.path().join("etc-quarry")]);
        Self { folder, configs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config_path(&self, name: &str) -> ConfigPath {
        self.path(name).to_str().unwrap().parse().unwrap()
    }

    /// Makes the files these; the steps taken and how many mistakes there were.
    fn set(&self, wanted: Wanted) -> (Vec<Step>, usize) {
        let wanted: BTreeMap<_, _> =
            wanted.iter().map(|(name, text)| (self.config_path(name), text.as_bytes().to_vec())).collect();
        let (steps, mistakes) = self.configs.set(&wanted);
        (steps, mistakes.len())
    }

    #[track_caller]
    fn check(&self, expected: &[(&str, Option<&str>)]) {
        for (name, text) in expected {
            let found = fs::read_to_string(self.path(name)).ok();
            assert_eq!(found.as_deref(), *text, "{name}");
        }
    }
}

#[test]
fn removed_files_give_back_what_was_there_before() {
    let disk = Disk::new();
    fs::write(disk.path("old"), "before").unwrap();
    fs::set_permissions(disk.path("old"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(disk.path("old"), Some(12), Some(34)).unwrap();
    assert_eq!(disk.set(&[("old", "1"), ("new/deep/a", "1")]).1, 0);
    assert_eq!(disk.set(&[("old", "2"), ("new/deep/a", "2")]).1, 0);
    disk.check(&[("old", Some("2")), ("new/deep/a", Some("2"))]);
    assert_eq!(disk.set(&[("old", "2"), ("new/deep/a", "2")]), (vec![], 0), "what stands is left");
    disk.set(&[]);
    disk.check(&[("old", Some("before")), ("new/deep/a", None)]);
    assert!(!disk.path("new").exists(), "folders made for it are gone");
    let found = fs::metadata(disk.path("old")).unwrap();
    assert_eq!((found.mode() & 0o777, found.uid(), found.gid()), (0o640, 12, 34));
    assert_eq!(fs::read_dir(disk.path("quarry/config/before")).unwrap().count(), 0);
}

#[test]
fn a_file_somebody_changed_is_written_again_while_wanted_and_left_when_not() {
    let disk = Disk::new();
    disk.set(&[("a", "1"), ("b", "1")]);
    fs::write(disk.path("a"), "by hand").unwrap();
    assert_eq!(disk.set(&[("a", "1"), ("b", "1")]).0, [Step::Write(disk.config_path("a"))]);
    disk.check(&[("a", Some("1"))]);
    fs::write(disk.path("a"), "by hand").unwrap();
    disk.set(&[]);
    disk.check(&[("a", Some("by hand")), ("b", None)]);
}

#[test]
fn no_link_leads_into_closed_folders_and_one_mistake_stops_no_other_file() {
    let disk = Disk::new();
    for folder in ["quarry", "etc-quarry"] {
        fs::create_dir(disk.path(folder)).unwrap();
    }
    symlink(disk.path("quarry"), disk.path("way")).unwrap();
    symlink("/proc/sys/kernel", disk.path("kernel")).unwrap();
    symlink(disk.path("etc-quarry/host_key"), disk.path("key")).unwrap();
    fs::create_dir(disk.path("folder")).unwrap();
    let long = "x".repeat(1_000_001);
    let (steps, mistakes) = disk.set(&[
        ("way/db", "1"),
        ("kernel/hostname", "1"),
        ("key", "1"),
        ("quarry/x", "1"),
        ("folder", "1"),
        ("long", &long),
        ("good", "1"),
    ]);
    assert_eq!((steps, mistakes), (vec![Step::Write(disk.config_path("good"))], 6));
    assert!(!disk.path("quarry/db").exists() && !disk.path("long").exists());
}

#[test]
fn a_link_is_followed_and_stays() {
    let disk = Disk::new();
    fs::write(disk.path("real"), "before").unwrap();
    symlink("real", disk.path("link")).unwrap();
    disk.set(&[("link", "1")]);
    disk.check(&[("real", Some("1"))]);
    disk.set(&[]);
    disk.check(&[("real", Some("before"))]);
    assert!(fs::symlink_metadata(disk.path("link")).unwrap().is_symlink());
}

#[test]
fn a_damaged_memory_takes_nothing_away() {
    let disk = Disk::new();
    disk.set(&[("a", "1")]);
    fs::write(disk.path("quarry/config/manifest.json"), "{").unwrap();
    assert_eq!(disk.set(&[]), (vec![], 1));
    disk.check(&[("a", Some("1"))]);
}

/// A mount that goes with the test.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_hosts_file_mounted_from_elsewhere_is_written_in_place() {
    let disk = Disk::new();
    let (outside, hosts) = (disk.path("outside"), disk.path("hosts"));
    for path in [&outside, &hosts] {
        fs::write(path, "127.0.0.1 localhost\n").unwrap();
    }
    run(Command::new("mount").arg("--bind").args([&outside, &hosts])).succeeded();
    let _mounted = Mounted(&hosts);
    let entries = Entries::from([("10.0.0.1".parse().unwrap(), ["one".parse().unwrap()].into())]);
    assert!(keep_hosts(&hosts, &entries).unwrap());
    let text = fs::read_to_string(&outside).unwrap();
    assert!(text.starts_with("127.0.0.1 localhost\n") && text.contains("10.0.0.1\tone"), "{text}");
    assert_eq!(fs::read_dir(disk.folder.path()).unwrap().count(), 2);
}
