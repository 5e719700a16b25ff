//! Reading the settings' folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{EtcError, Mistake, Settings, decide, etcd, is_setting};

/// Folders that hold settings; others are mistakes.
const FOLDERS: [&str; 10] = ["", "acme", "env", "build", "build/env", "etcd", "cloud", "embassy", "gc", "router"];

/// The folder of the owner's buildpacks, which are folders of files.
const PACKS: &str = "buildpacks";

/// The longest setting: a CA bundle of every public authority has 250 kB.
const LONGEST: u64 = 4_000_000;

/// Settings that may be the path of a file with their text.
const FOLLOWED: [&str; 5] = ["acme/ca", "build/ca-bundle", "etcd/ca", "etcd/cert", "etcd/key"];

/// The settings under `dir`; where nothing is, or no such folder, the defaults.
///
/// # Errors
/// Every mistake of every file, by its full path.
pub fn read(dir: &Path) -> Result<Settings, EtcError> {
    let mut files = BTreeMap::new();
    let mut mistakes = Vec::new();
    for folder in FOLDERS {
        let path = if folder.is_empty() { dir.to_owned() } else { dir.join(folder) };
        if let Err(error) = collect(&path, folder, &mut files, &mut mistakes) {
            mistakes.push(Mistake { file: path, what: error.to_string() });
        }
    }
    for name in FOLLOWED {
        if let Some(text) = files.get_mut(name)
            && let Err(error) = follow(text)
        {
            mistakes.push(Mistake { file: dir.join(name), what: error });
            files.remove(name);
        }
    }
    match decide(&files) {
        Ok(settings) if mistakes.is_empty() => {
            let packs = Some(dir.join(PACKS)).filter(|packs| packs.is_dir());
            Ok(Settings { packs, ..settings })
        }
        decided => {
            let more = decided.err().map(|error| error.0).unwrap_or_default();
            for mistake in more.into_iter().map(|mistake| Mistake { file: dir.join(mistake.file), ..mistake }) {
                // One that could not be read is not missing.
                if !mistakes.iter().any(|known| known.file == mistake.file) {
                    mistakes.push(mistake);
                }
            }
            mistakes.sort_by(|one, other| one.file.cmp(&other.file));
            Err(EtcError(mistakes))
        }
    }
}

/// Reads the files directly in `path`, which is `folder` of the settings.
fn collect(
    path: &Path,
    folder: &str,
    files: &mut BTreeMap<String, String>,
    mistakes: &mut Vec<Mistake>,
) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let mut mistake = |what: String| mistakes.push(Mistake { file: path.clone(), what });
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            mistake("its name is not text".into());
            continue;
        };
        if !is_setting(name) {
            continue;
        }
        let relative = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() && (FOLDERS.contains(&relative.as_str()) || relative == PACKS) => {}
            Ok(found) if is_private(&relative) && found.permissions().mode() & 0o077 != 0 => {
                mistake(format!("others may read it; chmod 600 {}", path.display()));
            }
            Ok(found) if found.is_file() && found.len() <= LONGEST => match fs::read_to_string(&path) {
                Ok(text) => drop(files.insert(relative, text)),
                Err(error) => mistake(error.to_string()),
            },
            Ok(found) if found.is_file() => mistake(format!("it is longer than {LONGEST} bytes")),
            Ok(_) => mistake(
                "settings are plain files in this folder, acme, env, build, build/env, etcd, cloud, embassy, gc and router"
                    .into(),
            ),
            Err(error) => mistake(error.to_string()),
        }
    }
    Ok(())
}

fn is_private(relative: &str) -> bool {
    relative.strip_prefix("etcd/").is_some_and(|name| etcd::PRIVATE.contains(&name))
}

/// Puts the content of a bundle in place of the path that names it.
fn follow(text: &mut String) -> Result<(), String> {
    let path = text.trim();
    if path.starts_with('/') && !path.contains('\n') {
        *text = fs::read_to_string(path).map_err(|error| format!("cannot read `{path}`: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_missing_or_empty_folder_is_the_defaults() {
        let dir = folder(&[]);
        assert_eq!(read(dir.path()), Ok(Settings::default()));
        assert_eq!(read(&dir.path().join("none")), Ok(Settings::default()));
    }

    #[test]
    fn settings_are_read_from_all_their_folders() {
        let dir = folder(&[
            ("hostnames", "example.com\n"),
            ("env/A", "1\n"),
            ("build/env/B", "2\n"),
            ("env/.A.swp", "\0"),
            ("size~", "nonsense"),
            ("README.md", "about"),
            ("host_key", "\0"),
        ]);
        let pem = folder(&[("ca.pem", "-----BEGIN CERTIFICATE-----\n")]);
        fs::write(dir.path().join("build/ca-bundle"), pem.path().join("ca.pem").to_str().unwrap()).unwrap();
        let settings = read(dir.path()).unwrap();
        assert_eq!(settings.hostnames, ["example.com".parse().unwrap()]);
        assert_eq!((settings.env.pairs(), settings.build.env.pairs()), (vec!["A=1".into()], vec!["B=2".into()]));
        assert_eq!(settings.build.ca_bundle.as_deref(), Some("-----BEGIN CERTIFICATE-----\n"));
    }

    #[test]
    fn every_mistake_is_reported_by_its_full_path() {
        let dir =
            folder(&[("size", "big"), ("build/ca-bundle", "/nowhere/ca.pem"), ("clouds/token", "x"), ("env/A/B", "x")]);
        fs::write(dir.path().join("env/RAW"), b"\xff").unwrap();
        let error = read(dir.path()).unwrap_err();
        let files: Vec<_> = error.0.iter().map(|mistake| mistake.file.clone()).collect();
        assert_eq!(files, ["build/ca-bundle", "clouds", "env/A", "env/RAW", "size"].map(|file| dir.path().join(file)));
        assert!(error.to_string().contains("cannot read `/nowhere/ca.pem`"));
    }

    #[test]
    fn a_password_that_others_may_read_is_refused() {
        let dir = folder(&[("etcd/endpoints", "http://a:1"), ("etcd/user", "a"), ("etcd/password", "b")]);
        let path = dir.path().join("etcd/password");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(dir.path()).unwrap_err();
        assert_eq!(error.0.len(), 1, "{error}");
        assert!(error.0[0].what.starts_with("others may read it; chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(dir.path()).unwrap().etcd.unwrap().endpoints, ["http://a:1"]);
    }
}
