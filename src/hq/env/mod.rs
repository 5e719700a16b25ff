//! A stack's variables, see [`act`].

use crate::db::DbError;
use crate::seal::files::KeyFileError;

pub mod act;

/// The key of all variables was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// Its file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// It is in memory alone.
    #[error("the key of all variables is in no file")]
    NoFile,
    /// The tree.
    #[error("not everything is sealed with the new key, so the old one is kept; do it again")]
    State(#[from] DbError),
}
