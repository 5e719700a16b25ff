//! What a server keeps of its policy, in `network` below quarry's folder, so that it stands again after a reboot with
//! nobody else there.
//!
//! ```text
//! policy.json   what was confirmed last      trial.json   what is being tried
//! applied       what the kernel held right after it was applied
//! lock          held while something is changed
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Owner, put, read, sync};
use crate::network::policy::Policy;
use crate::network::rules::Table;
use crate::units::random;

/// Far more than a policy of ten thousand peers.
const LIMIT: u64 = 64 << 20;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system says no.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there was not written by quarry.
    #[error("{} is damaged; remove it and apply the rules again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A policy on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What confirms it.
    pub id: String,
    /// The policy.
    pub policy: Policy,
    /// Where it is.
    pub table: Table,
}

/// What was applied, with digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Where it is.
    pub table: Table,
    /// Of the text.
    pub text: String,
    /// Of what the kernel listed right after.
    pub listing: String,
}

/// The folder.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
}

/// While it lives nobody else changes the rules.
#[derive(Debug)]
pub struct Alone {
    _lock: File,
}

impl State {
    /// Below quarry's folder.
    pub fn new(root: &Path) -> Self {
        Self { folder: root.join("network") }
    }

    /// Waits until nobody else changes the rules. Makes the folder.
    ///
    /// # Errors
    /// It cannot be made or locked.
    pub fn alone(&self) -> Result<Alone, StateError> {
        let path = self.folder.join("lock");
        let lock = || -> io::Result<File> {
            DirBuilder::new().recursive(true).mode(0o755).create(self.folder.parent().unwrap_or(&self.folder))?;
            match DirBuilder::new().mode(0o700).create(&self.folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let lock = File::options().write(true).create(true).truncate(false).open(&path)?;
            lock.lock()?;
            Ok(lock)
        };
        lock().map(|lock| Alone { _lock: lock }).map_err(|source| StateError::Io { path: path.clone(), source })
    }

    /// What was confirmed last; `None` when nothing is to be refused.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn policy(&self) -> Result<Option<Policy>, StateError> {
        self.get("policy.json")
    }

    /// Keeps or forgets it.
    ///
    /// # Errors
    /// Then the old one is kept.
    pub fn keep_policy(&self, policy: Option<&Policy>) -> Result<(), StateError> {
        self.keep("policy.json", policy)
    }

    /// What is being tried, or was and has not been looked after since.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn trial(&self) -> Result<Option<Trial>, StateError> {
        self.get("trial.json")
    }

    /// Keeps or forgets it.
    ///
    /// # Errors
    /// Then the old one is kept.
    pub fn keep_trial(&self, trial: Option<&Trial>) -> Result<(), StateError> {
        self.keep("trial.json", trial)
    }

    /// What was applied last.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn applied(&self) -> Result<Option<Applied>, StateError> {
        self.get("applied")
    }

    /// Keeps or forgets it.
    ///
    /// # Errors
    /// Then the old one is kept.
    pub fn keep_applied(&self, applied: Option<&Applied>) -> Result<(), StateError> {
        self.keep("applied", applied)
    }

    fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.folder.join(name);
        match read(&path, LIMIT) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => match serde_json::from_slice(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(source) => Err(StateError::Damaged { path, source }),
            },
            Err(source) => Err(StateError::Io { path, source }),
        }
    }

    fn keep<T: Serialize>(&self, name: &str, value: Option<&T>) -> Result<(), StateError> {
        let path = self.folder.join(name);
        let kept = match value {
            Some(value) => {
                let mut bytes = serde_json::to_vec(value).expect("policies have string keys and serialise");
                bytes.push(b'\n');
                put(&path, &bytes, Owner::fresh(0o600))
            }
            None => match fs::remove_file(&path) {
                Ok(()) => sync(&self.folder),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            },
        };
        kept.map_err(|source| StateError::Io { path, source })
    }
}

/// Sixteen hexadecimal digits nobody can guess.
pub fn fresh_id() -> String {
    random::hex::<8>()
}
