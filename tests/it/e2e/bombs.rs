//! Pushes that are small on their way and large where they arrive.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha1::{Digest, Sha1};

use super::{app, serving, with_app};
use crate::harness::program::run_with;
use crate::harness::repository::git;
use crate::harness::{Hq, Repository};

/// The largest memory that `quarry serve` has had, in megabytes.
fn most_memory(hq: &Hq) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", hq.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn a_pack_beyond_the_quota_is_refused_while_it_comes() {
    let hq = Hq::start_with(&[("push-limit", "1mb\n")]);
    let repository = app(&[]);
    hq.push(&repository, "blog").succeeded();
    let before = serving(&hq, "blog");
    let mut noise = vec![0; 3 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise).unwrap();
    std::fs::write(repository.file("noise"), noise).unwrap();
    repository.commit("noise");
    hq.push(&repository, "blog").failed().said(&["pack exceeds maximum allowed size"]);
    assert_eq!(before, serving(&hq, "blog"));
    let packs = hq.root().join("stacks/blog/repo.git/objects");
    let left = std::process::Command::new("du").arg("-sm").arg(packs).output().unwrap().stdout;
    let left: u64 = String::from_utf8_lossy(&left).split_whitespace().next().unwrap().parse().unwrap();
    assert!(left <= 1, "{left} MB of the refused pack are left");
}

#[test]
fn one_file_that_is_larger_than_memory_should_hold_is_refused_by_name() {
    let (hq, repository) = with_app(&[]);
    let before = serving(&hq, "blog");
    // Half a gigabyte of nothing, which is half a megabyte on its way.
    std::fs::File::create(repository.file("huge.bin")).unwrap().set_len((512 << 20) + 1).unwrap();
    repository.git(&["-c", "core.compression=1", "add", "-A"]).succeeded();
    repository.git(&["commit", "-q", "-m", "huge"]).succeeded();
    let said = "the push has the file `huge.bin` with 512 MB, and 512 MB is the most";
    hq.push(&repository, "blog").failed().said(&[said]);
    assert_eq!(before, serving(&hq, "blog"));
    assert!(most_memory(&hq) < 200, "HQ took {} MB", most_memory(&hq));
}

#[test]
fn a_commit_whose_message_is_a_bomb_never_comes_into_hqs_memory() {
    let (hq, repository) = with_app(&[]);
    let before = serving(&hq, "blog");
    let tree = repository.git(&["rev-parse", "HEAD^{tree}"]).succeeded().text();
    let mut command = git(repository.path());
    let message = vec![b'x'; 100 << 20];
    let commit = run_with(command.args(["commit-tree", "-p", "HEAD", tree.trim()]), &message).succeeded().text();
    let pushed = hq.push_as(&repository, "blog", &[&format!("{}:refs/heads/master", commit.trim())]).failed();
    pushed.said(&["the push has a commit of 100 MB, and 32 MB is the most"]);
    let other = hq.push_as(&repository, "blog", &[&format!("{}:refs/heads/other", commit.trim())]).failed();
    other.said(&["the push has a commit of 100 MB"]);
    assert_eq!(before, serving(&hq, "blog"));
    assert!(most_memory(&hq) < 100, "HQ took {} MB", most_memory(&hq));
}

#[test]
fn a_delta_that_stands_for_gigabytes_is_given_up_with_a_line() {
    let (hq, _repository) = with_app(&[]);
    let before = serving(&hq, "blog");
    let pack = bomb();
    assert!(pack.len() < 100_000, "{}", pack.len());
    let line = format!("{} {} refs/heads/master\0report-status", "0".repeat(40), "1".repeat(40));
    let input = [format!("{:04x}{line}0000", line.len() + 4).as_bytes(), &pack].concat();
    let done = hq.by_ssh_with(&["git-receive-pack", "'bomb'"], &input);
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &done.stderr;
    assert!(said.contains("out of memory") || said.contains("Out of memory"), "{said}");
    assert!(said.contains("unpack index-pack"), "{said}");
    assert!(!said.contains("ok refs/heads/master"), "{said}");
    assert_eq!(before, serving(&hq, "blog"));
    hq.push(&app(&[]), "bomb").succeeded();
}

/// A pack of two objects: 16 MB of nothing, and a delta that copies them a thousand times.
fn bomb() -> Vec<u8> {
    const BASE: usize = 0xff_ffff;
    const COPIES: usize = 1000;
    let mut pack = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
    let start = pack.len();
    pack.extend(head(3, BASE));
    pack.extend(deflated(&vec![0; BASE]));
    let distance = pack.len() - start;
    let copy = [0x80 | 0x10 | 0x20 | 0x40, 0xff, 0xff, 0xff];
    let delta = [length(BASE), length(BASE * COPIES), copy.repeat(COPIES)].concat();
    pack.extend(head(6, delta.len()));
    pack.extend(offset(distance));
    pack.extend(deflated(&delta));
    let digest = Sha1::digest(&pack);
    pack.extend(digest);
    pack
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An object's type and length (gitformat-pack).
fn head(kind: u8, size: usize) -> Vec<u8> {
    let first = kind << 4 | (size & 15) as u8;
    if size < 16 { vec![first] } else { [vec![first | 0x80], length(size >> 4)].concat() }
}

/// Seven bits a byte, the lowest first.
fn length(mut size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while size > 0x7f {
        bytes.push(size as u8 | 0x80);
        size >>= 7;
    }
    bytes.push(size as u8);
    bytes
}

/// How far back the base of a delta begins.
fn offset(mut distance: usize) -> Vec<u8> {
    let mut bytes = vec![(distance & 0x7f) as u8];
    while distance > 0x7f {
        distance = (distance >> 7) - 1;
        bytes.insert(0, (distance & 0x7f) as u8 | 0x80);
    }
    bytes
}

#[test]
fn entries_that_no_file_has_are_no_files() {
    let hq = Hq::start();
    // A named pipe as git would write it if it could, and a submodule, in the place of quarry.yml.
    for mode in ["010644", "020666", "160000"] {
        let repository = Repository::with(&[("index.html", "x")]);
        let blob = repository.git(&["rev-parse", "HEAD:index.html"]).succeeded().text();
        let id: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&blob[at * 2..at * 2 + 2], 16).unwrap()).collect();
        let tree = [mode.trim_start_matches('0').as_bytes(), b" quarry.yml\0", &id].concat();
        let mut command = git(repository.path());
        let words = ["hash-object", "-t", "tree", "-w", "--literally", "--stdin"];
        let tree = run_with(command.args(words), &tree).succeeded().text();
        let commit = repository.git(&["commit-tree", tree.trim(), "-m", "odd"]).succeeded().text();
        hq.push_as(&repository, "eve", &[&format!("{}:refs/heads/master", commit.trim())]).failed();
        assert!(hq.containers(&["stack=eve"]).is_empty());
    }
}
