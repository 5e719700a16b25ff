//! Makes a server's config files those that are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::files::{self, Memory};
use super::{BadPath, Before, ConfigPath, LIMIT, Manifest, Step, Written, plan, refuse_inside};
use crate::network::files::{Owner, put};

/// Why config files are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The path leads to where none may be.
    #[error(transparent)]
    Path(#[from] BadPath),
    /// More bytes than a config file may have.
    #[error("{0} would be longer than {LIMIT} bytes")]
    Long(ConfigPath),
    /// The system says no.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The config files of this server.
#[derive(Debug, Clone)]
pub struct Configs {
    memory: Memory,
    own: Vec<PathBuf>,
}

impl Configs {
    /// Remembers what it writes in `config` below quarry's folder, which is closed to config files as are the other
    /// folders of quarry's.
    pub fn new(root: &Path, others: &[PathBuf]) -> Self {
        let own = std::iter::once(root).chain(others.iter().map(PathBuf::as_path));
        // A link on the way to quarry's own folders is no way into them.
        let own = own.flat_map(|path| [path.to_owned(), files::real(path).unwrap_or_else(|_| path.to_owned())]);
        Self { memory: Memory::new(root), own: own.collect::<BTreeSet<_>>().into_iter().collect() }
    }

    /// Makes the files exactly these: writes what differs, and takes away what quarry wrote before and nobody wants any
    /// more. Gives what was done. Blocks; what stands costs a read.
    ///
    /// # Errors
    /// All mistakes; the other files are as they should be.
    pub fn set(&self, wanted: &BTreeMap<ConfigPath, Vec<u8>>) -> (Vec<Step>, Vec<ConfigError>) {
        match self.try_set(wanted) {
            Ok(done) => done,
            Err(error) => (Vec::new(), vec![error]),
        }
    }

    /// The files quarry has written.
    ///
    /// # Errors
    /// What is remembered cannot be read.
    pub fn list(&self) -> Result<Manifest, ConfigError> {
        self.memory.manifest().map_err(|source| self.forgotten(source))
    }

    fn try_set(&self, wanted: &BTreeMap<ConfigPath, Vec<u8>>) -> Result<(Vec<Step>, Vec<ConfigError>), ConfigError> {
        let _alone = self.memory.alone().map_err(|source| self.forgotten(source))?;
        let mut manifest = self.list()?;
        let mut mistakes = Vec::new();
        let (mut found, mut unseen) = (BTreeMap::new(), BTreeMap::new());
        for path in wanted.keys().chain(manifest.keys()).collect::<BTreeSet<_>>() {
            match files::now(path.as_path()) {
                Ok(now) => found.extend(now.map(|(bytes, _)| (path.clone(), files::content(&bytes)))),
                Err(source) => drop(unseen.insert(path.clone(), source)),
            }
        }
        let contents = wanted.iter().map(|(path, bytes)| (path.clone(), files::content(bytes))).collect();
        let mut done = Vec::new();
        for step in plan(&contents, &manifest, &found) {
            let carried_out = match &step {
                Step::Write(path) => self.write(path, &wanted[path], &mut manifest),
                Step::PutBack(path) => self.put_back(path, &mut manifest),
                // Whose it is cannot be told of a file that cannot be read.
                Step::Leave(path) => match unseen.remove(path) {
                    Some(source) => Err(ConfigError::Io { path: path.as_path().to_owned(), source }),
                    None => self.forget(path, &mut manifest),
                },
            };
            match carried_out {
                Ok(()) => done.push(step),
                Err(error) => mistakes.push(error),
            }
        }
        if !done.is_empty() {
            self.memory.tidy(&manifest).map_err(|source| self.forgotten(source))?;
        }
        Ok((done, mistakes))
    }

    /// What is about to be written is remembered before it is: cut off in between, quarry still knows its own.
    fn write(&self, path: &ConfigPath, bytes: &[u8], manifest: &mut Manifest) -> Result<(), ConfigError> {
        if files::is_too_long(bytes) {
            return Err(ConfigError::Long(path.clone()));
        }
        let real = self.real(path)?;
        let io = |source| ConfigError::Io { path: path.as_path().to_owned(), source };
        let now = files::now(&real).map_err(io)?;
        let owner = now.as_ref().map_or(Owner::fresh(0o644), |(_, owner)| *owner);
        let content = files::content(bytes);
        let mut written = match manifest.remove(path) {
            Some(written) => written,
            None => {
                let before = match &now {
                    Some((bytes, owner)) => {
                        Some(Before { kept: self.memory.set_aside(bytes).map_err(io)?, owner: *owner })
                    }
                    None => None,
                };
                Written { contents: BTreeSet::new(), before, made: files::missing_folders(&real) }
            }
        };
        written.contents.insert(content.clone());
        manifest.insert(path.clone(), written.clone());
        self.remember(manifest)?;
        files::make_folders(&files::missing_folders(&real)).map_err(io)?;
        put(&real, bytes, owner).map_err(io)?;
        written.contents.retain(|one| *one == content);
        manifest.insert(path.clone(), written);
        self.remember(manifest)
    }

    fn put_back(&self, path: &ConfigPath, manifest: &mut Manifest) -> Result<(), ConfigError> {
        let Some(written) = manifest.get(path) else { return Ok(()) };
        let real = self.real(path)?;
        let back = match &written.before {
            Some(before) => {
                self.memory.set_aside_before(&before.kept).and_then(|bytes| put(&real, &bytes, before.owner))
            }
            None => files::remove(&real, &written.made),
        };
        back.map_err(|source| ConfigError::Io { path: path.as_path().to_owned(), source })?;
        self.forget(path, manifest)
    }

    fn forget(&self, path: &ConfigPath, manifest: &mut Manifest) -> Result<(), ConfigError> {
        manifest.remove(path);
        self.remember(manifest)
    }

    fn remember(&self, manifest: &Manifest) -> Result<(), ConfigError> {
        self.memory.keep(manifest).map_err(|source| self.forgotten(source))
    }

    /// Where the path leads, which may be where no config file may be.
    fn real(&self, path: &ConfigPath) -> Result<PathBuf, ConfigError> {
        path.outside(&self.own)?;
        let real = files::real(path.as_path())
            .map_err(|source| ConfigError::Io { path: path.as_path().to_owned(), source })?;
        refuse_inside(&path.to_string(), &real, &self.own)?;
        Ok(real)
    }

    fn forgotten(&self, source: io::Error) -> ConfigError {
        ConfigError::Io { path: self.memory.path(), source }
    }
}
