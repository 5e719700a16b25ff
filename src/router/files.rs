//! The router's folder: the tables nginx reads when it starts, the text it runs with, its logs.
//!
//! ```text
//! routes.jsonl        one table a line; a later line of a stack covers an earlier one, one without nodes removes it
//! certificates.jsonl  the same with certificates by domain; one without a chain removes it
//! placeholder.pem     a certificate that nginx wants to have and nobody sees
//! text-<version>/     nginx.conf, the Lua, the page
//! current             -> text-<version>
//! control/socket      how HQ speaks to nginx; the folder is closed to everybody but root
//! log/  tmp/  nginx.pid
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use serde::Deserialize;
use tracing::warn;

use super::StackRoutes;
use super::text::{SNIPPETS, Text};
use crate::front::Snippet;

/// The file of tables.
pub const ROUTES: &str = "routes.jsonl";

/// The file of certificates.
pub const CERTIFICATES: &str = "certificates.jsonl";

/// The file of the certificate that is never shown, and its key.
const PLACEHOLDER: &str = "placeholder.pem";

/// The link to the text in use.
pub const CURRENT: &str = "current";

/// Old logs kept of each.
const OLD_LOGS: u32 = 4;

/// Makes the folders, each open no further than nginx's workers need, which are not root.
///
/// # Errors
/// One cannot be made.
pub fn prepare(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, mode) in [("", 0o711), ("log", 0o711), ("tmp", 0o711), ("control", 0o700)] {
        let path = folder.join(name);
        if !path.is_dir() {
            fs::create_dir(&path)?;
        }
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    let placeholder = folder.join(PLACEHOLDER);
    if !placeholder.exists() {
        let made = rcgen::generate_simple_self_signed(Vec::new()).map_err(io::Error::other)?;
        write_new(&placeholder, format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()).as_bytes())?;
    }
    Ok(())
}

/// Writes a file that is root's alone, whole or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_added_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// What an nginx that is about to start needs: settled tables, and no socket of the last one.
///
/// # Errors
/// A file cannot be read, written or taken away.
pub fn make_ready(folder: &Path) -> io::Result<()> {
    for closed in folder.ancestors().skip(1).filter(|path| !is_open(path)) {
        warn!(folder = %closed.display(), "nginx's workers may not pass this folder: sites below it cannot be shown");
    }
    match fs::remove_file(folder.join("control/socket")) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => Err(problem),
        Ok(()) | Err(_) => [ROUTES, CERTIFICATES].iter().try_for_each(|name| settle(folder, name).map(drop)),
    }
}

/// Whether everybody may pass through.
fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}

/// Adds one line to the file of this name and has it on the disk before it returns; the length of the file then.
///
/// # Errors
/// It cannot be written; then the file is as it was.
pub fn append(folder: &Path, name: &str, line: &str) -> io::Result<u64> {
    let _one = alone(folder)?;
    let path = folder.join(name);
    let is_new = !path.exists();
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    let end = whole_lines(&mut file)?;
    let written = file
        .seek(SeekFrom::Start(end))
        .and_then(|_| file.write_all(format!("{line}\n").as_bytes()))
        .and_then(|()| file.sync_data());
    if let Err(problem) = written {
        file.set_len(end)?;
        return Err(problem);
    }
    if is_new {
        sync_folder(folder)?;
    }
    Ok(end + line.len() as u64 + 1)
}

/// Nobody else changes the tables while this is held: a line added while they are being rewritten would be lost.
fn alone(folder: &Path) -> io::Result<File> {
    let held = File::open(folder)?;
    held.lock()?;
    Ok(held)
}

/// Where the last whole line ends; a torn one after it, left by a crash, is cut off.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(0);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(length - 1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok(length);
    }
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut text)?;
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1) as u64;
    file.set_len(end)?;
    Ok(end)
}

/// Rewrites the file of this name with one line for each stack or domain; the new length.
///
/// # Errors
/// It cannot be read or written; then the file is as it was.
pub fn settle(folder: &Path, name: &str) -> io::Result<u64> {
    let _one = alone(folder)?;
    let path = folder.join(name);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(problem) => return Err(problem),
    };
    let settled = last_lines(&text);
    if settled.as_bytes() != text {
        write_new(&path, settled.as_bytes())?;
    }
    Ok(settled.len() as u64)
}

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "domain")]
    stack: String,
    #[serde(alias = "chain")]
    nodes: Option<serde::de::IgnoredAny>,
}

/// The last line of each stack that still has nodes, or of each domain that still has a chain, by name.
fn last_lines(text: &[u8]) -> String {
    let mut last = BTreeMap::new();
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match serde_json::from_slice::<Line>(line) {
            Ok(Line { stack, nodes: Some(_) }) if line.ends_with(b"\n") => {
                last.insert(stack, line);
            }
            Ok(Line { stack, nodes: None }) if line.ends_with(b"\n") => {
                last.remove(&stack);
            }
            // It may hold a part of a key.
            Ok(_) | Err(_) => warn!(line = number + 1, "a line of the router's is torn; left out"),
        }
    }
    last.values().map(|line| String::from_utf8_lossy(line)).collect()
}

/// Writes the text into its folder; does not make it current.
///
/// # Errors
/// A file cannot be written.
pub fn write_text(folder: &Path, text: &Text) -> io::Result<()> {
    let own = folder.join(text.folder());
    fs::create_dir_all(&own)?;
    for (name, contents) in &text.files {
        let mut file = File::create(own.join(name))?;
        file.write_all(contents.as_bytes())?;
        file.sync_all()?;
    }
    sync_folder(&own)
}

/// Takes the text's folder away; not there is success.
///
/// # Errors
/// It cannot be taken away.
pub fn drop_text(folder: &Path, text: &Text) -> io::Result<()> {
    match fs::remove_dir_all(folder.join(text.folder())) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => Err(problem),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The snippets of the text in use and of all tables. One that cannot be read any more was taken by another version of
/// this program, and is left out.
///
/// # Errors
/// The tables cannot be read.
pub fn snippets(folder: &Path) -> io::Result<BTreeSet<Snippet>> {
    let in_use = fs::read(folder.join(CURRENT).join(SNIPPETS)).unwrap_or_default();
    let mut snippets: BTreeSet<Snippet> = serde_json::from_slice(&in_use).unwrap_or_default();
    let tables = match fs::read(folder.join(ROUTES)) {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    for line in last_lines(&tables).lines().filter(|line| line.contains("\"snippet\":")) {
        match serde_json::from_str::<StackRoutes>(line) {
            Ok(table) => snippets.extend(table.nodes.into_values().filter_map(|node| node.rules.snippet)),
            Err(error) => warn!(%error, "a table with a snippet cannot be read"),
        }
    }
    Ok(snippets)
}

/// Makes the text the one nginx starts with, in one step, and forgets the others.
///
/// # Errors
/// The link cannot be put in place.
pub fn choose_text(folder: &Path, text: &Text) -> io::Result<()> {
    let fresh = folder.join("current.new");
    match fs::remove_file(&fresh) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(problem),
        Ok(()) | Err(_) => {}
    }
    symlink(text.folder(), &fresh)?;
    fs::rename(&fresh, folder.join(CURRENT))?;
    sync_folder(folder)?;
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("text-") && name != text.folder().as_str() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Moves each log longer than `limit` bytes aside, the oldest goes; whether any was moved. nginx writes to the moved
/// file until it is told to open its logs again.
///
/// # Errors
/// A log cannot be moved.
pub fn move_logs(folder: &Path, limit: u64) -> io::Result<bool> {
    let mut moved = false;
    for name in ["access.log", "error.log"] {
        let path = folder.join("log").join(name);
        if fs::metadata(&path).map_or(0, |metadata| metadata.len()) <= limit {
            continue;
        }
        let old = |age: u32| folder.join("log").join(format!("{name}.{age}"));
        for age in (1..OLD_LOGS).rev().filter(|age| old(*age).exists()) {
            fs::rename(old(age), old(age + 1))?;
        }
        fs::rename(&path, old(1))?;
        moved = true;
    }
    Ok(moved)
}

/// The last lines of nginx's error log that are at least errors, for a message.
pub fn last_errors(folder: &Path) -> String {
    let text = fs::read(folder.join("log/error.log")).unwrap_or_default();
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(8192)..]).into_owned();
    let errors: Vec<&str> = tail.lines().filter(|line| line.contains("[emerg]") || line.contains("[error]")).collect();
    errors[errors.len().saturating_sub(3)..].join("; ")
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = r#"{"stack":"a","release":1,"nodes":{}}"#;
    const B: &str = r#"{"stack":"b","release":1,"nodes":{}}"#;

    fn folder_with(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(ROUTES), text).unwrap();
        folder
    }

    fn text(folder: &tempfile::TempDir) -> String {
        fs::read_to_string(folder.path().join(ROUTES)).unwrap()
    }

    #[test]
    fn a_line_torn_by_a_crash_is_cut_off_before_the_next() {
        let folder = folder_with(&format!("{A}\n{{\"stack\":\"b\",\"rel"));
        append(folder.path(), ROUTES, B).unwrap();
        assert_eq!(text(&folder), format!("{A}\n{B}\n"));
    }

    #[test]
    fn settling_keeps_the_last_table_of_each_stack_that_is_left() {
        let folder = folder_with(&format!("{B}\n{A}\n{{\"stack\":\"a\"}}\nnonsense\n"));
        assert_eq!(settle(folder.path(), ROUTES).unwrap(), B.len() as u64 + 1);
        assert_eq!(text(&folder), format!("{B}\n"));
    }

    #[test]
    fn tables_are_for_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        append(folder.path(), ROUTES, A).unwrap();
        assert_eq!(fs::metadata(folder.path().join(ROUTES)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn logs_move_only_when_they_are_long_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path()).unwrap();
        let log = folder.path().join("log");
        for round in 0..7 {
            fs::write(log.join("access.log"), format!("round {round}")).unwrap();
            assert!(!move_logs(folder.path(), 100).unwrap());
            assert!(move_logs(folder.path(), 3).unwrap());
        }
        assert_eq!(fs::read_to_string(log.join("access.log.1")).unwrap(), "round 6");
        assert_eq!(fs::read_to_string(log.join("access.log.4")).unwrap(), "round 3");
        assert_eq!(fs::read_dir(&log).unwrap().count(), 4);
    }
}
