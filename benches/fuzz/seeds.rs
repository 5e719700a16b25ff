//! What the targets begin with: the descriptions that the tests have, and a few lines of each protocol.

use std::fs;
use std::path::Path;

/// Every file of this name below the tests' goldens and samples.
pub fn files(wanted: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for folder in ["tests/it/golden", "tests/samples"] {
        below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), wanted, &mut found);
    }
    assert!(!found.is_empty(), "the tests have no {wanted} any more");
    found.sort();
    found.dedup();
    found
}

fn below(folder: &Path, wanted: &str, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, wanted, found);
        } else if path.file_name().is_some_and(|name| name == wanted) {
            found.push(fs::read(path).unwrap());
        }
    }
}

/// These texts.
pub fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
