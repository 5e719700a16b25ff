//! The instruction tarball: one JSON file per instruction in order, and a manifest. Same content, same bytes.

use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};

use super::Instruction;
use crate::names::{CommitId, ReleaseNumber, StackName};

/// What the tarball is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// Whose instructions.
    pub stack: StackName,
    /// The release they make.
    pub release: ReleaseNumber,
    /// The commit they were compiled from, if any.
    pub commit: Option<CommitId>,
    /// Which version of the stack's variables they run with.
    pub env_version: u64,
}

/// The format this program writes.
pub const FORMAT: u32 = 1;

/// The largest tarball entry that is read.
const ENTRY_LIMIT: u64 = 1 << 20;
/// The most that is read of all entries.
const LIMIT: u64 = 32 << 20;
/// The most instructions that are read.
const ENTRIES_LIMIT: usize = 10_000;

/// A tarball that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TarballError {
    /// Reading failed.
    #[error("cannot read the instruction tarball {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is not one of ours.
    #[error("{path} is not an instruction tarball: {what}; make one with `quarry build`")]
    Content {
        /// Which file.
        path: String,
        /// What is wrong.
        what: String,
    },
}

/// Packs a manifest and its instructions.
pub fn pack(manifest: &Manifest, instructions: &[Instruction]) -> Vec<u8> {
    let gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6));
    let mut archive = tar::Builder::new(gzip);
    append(&mut archive, "manifest.json", manifest);
    for (index, instruction) in instructions.iter().enumerate() {
        append(&mut archive, &format!("{:04}-{}.json", index + 1, verb(instruction)), instruction);
    }
    let gzip = archive.into_inner().expect("writing to memory does not fail");
    gzip.finish().expect("writing to memory does not fail")
}

fn verb(instruction: &Instruction) -> &'static str {
    match instruction {
        Instruction::Ensure { .. } => "ensure",
        Instruction::Deploy { .. } => "deploy",
        Instruction::Scale { .. } => "scale",
        Instruction::Route { .. } => "route",
        Instruction::Kill { .. } => "kill",
    }
}

fn append<T: Serialize>(archive: &mut tar::Builder<impl io::Write>, name: &str, value: &T) {
    let mut text = serde_json::to_vec_pretty(value).expect("quarry's records have string keys and serialise");
    text.push(b'\n');
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, name, text.as_slice()).expect("writing to memory does not fail");
}

/// Reads a tarball from a file.
///
/// # Errors
/// [`TarballError`] naming the file.
pub fn read(path: &Path) -> Result<(Manifest, Vec<Instruction>), TarballError> {
    let shown = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| TarballError::Read { path: shown.clone(), source })?;
    unpack(&bytes).map_err(|what| TarballError::Content { path: shown, what })
}

/// The manifest and instructions inside, or what is wrong with them.
pub fn unpack(bytes: &[u8]) -> Result<(Manifest, Vec<Instruction>), String> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes).take(LIMIT));
    let mut manifest: Option<Manifest> = None;
    let mut instructions = Vec::new();
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let name = entry.path().map_err(|error| error.to_string())?.display().to_string();
        let mut text = Vec::new();
        entry.take(ENTRY_LIMIT).read_to_end(&mut text).map_err(|error| error.to_string())?;
        if name == "manifest.json" {
            manifest = Some(serde_json::from_slice(&text).map_err(|error| format!("{name}: {error}"))?);
        } else {
            instructions.push(serde_json::from_slice(&text).map_err(|error| format!("{name}: {error}"))?);
        }
        if instructions.len() > ENTRIES_LIMIT {
            return Err(format!("it holds more than {ENTRIES_LIMIT} instructions"));
        }
    }
    // Beyond the last entry there is padding and gzip's checksum: a cut or damaged file shows only there.
    let mut rest = archive.into_inner().take(ENTRY_LIMIT);
    io::copy(&mut rest, &mut io::sink()).map_err(|error| error.to_string())?;
    let manifest = manifest.ok_or("it has no manifest.json")?;
    if manifest.format != FORMAT {
        return Err(format!("its format is {}, this program reads {FORMAT}", manifest.format));
    }
    Ok((manifest, instructions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Manifest, Vec<Instruction>) {
        let manifest = Manifest {
            format: FORMAT,
            stack: "blog".parse().unwrap(),
            release: ReleaseNumber(3),
            commit: None,
            env_version: 1,
        };
        let scale = |node: &str| Instruction::Scale { node: node.parse().unwrap(), count: 0 };
        (manifest, vec![scale("b"), scale("a")])
    }

    #[test]
    fn the_same_content_gives_the_same_bytes_and_comes_back_in_order() {
        let (manifest, instructions) = sample();
        let bytes = pack(&manifest, &instructions);
        assert_eq!(bytes, pack(&manifest, &instructions));
        assert_eq!(unpack(&bytes).unwrap(), (manifest, instructions));
    }

    #[test]
    fn what_quarry_yml_would_refuse_is_refused_here_too() {
        let read = |text: &str| serde_json::from_str::<Instruction>(text).map_err(|error| error.to_string());
        let route = |folder: &str| {
            format!(r#"{{"instruction":"ROUTE","node":"web","add":[],"remove":[],"document_root":"{folder}"}}"#)
        };
        assert!(read(&route("public/site")).is_ok() && read(&route(".")).is_ok());
        for folder in ["/etc", "../../etc", "public/../..", "a//b", ""] {
            assert!(read(&route(folder)).unwrap_err().contains("path within the repository"), "{folder}");
        }
        let scale = |count: u64| format!(r#"{{"instruction":"SCALE","node":"web","count":{count}}}"#);
        assert!(read(&scale(100)).is_ok());
        assert!(read(&scale(4_000_000_000)).unwrap_err().contains("at most 100"));
    }

    #[test]
    fn damage_is_named_not_panicked_over() {
        let (manifest, instructions) = sample();
        let bytes = pack(&manifest, &instructions);
        for end in 0..bytes.len() {
            assert!(unpack(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(unpack(&pack(&Manifest { format: 9, ..manifest }, &[])).unwrap_err().contains("format is 9"));
    }
}
