//! Values that nobody reads who has only the state: sealed for a key that lies beside the settings.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use age::secrecy::ExposeSecret;
use age::x25519::Identity;

pub mod files;

/// What sealed bytes begin with.
const HEADER: &[u8] = b"age-encryption.org/v1\n";

/// The keys: the first seals, each of them opens.
pub struct Seal {
    keys: RwLock<Vec<Identity>>,
    /// Where they are kept.
    file: Option<PathBuf>,
}

/// Why something cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file holds none.
    #[error("line {line} is no age key; a key is one line that begins with AGE-SECRET-KEY-1")]
    NoKey {
        /// Which, from 1.
        line: usize,
    },
    /// There is none in it.
    #[error("there is no age key in it; a key is one line that begins with AGE-SECRET-KEY-1")]
    Empty,
    /// It was sealed for somebody else, or is damaged.
    #[error("it is sealed with another key than that of this HQ, or damaged: {0}")]
    Closed(String),
}

impl Seal {
    /// A new key.
    pub fn fresh() -> Self {
        Self::of(vec![Identity::generate()])
    }

    fn of(keys: Vec<Identity>) -> Self {
        Self { keys: RwLock::new(keys), file: None }
    }

    /// The same, kept in this file.
    #[must_use]
    pub fn kept_in(self, file: PathBuf) -> Self {
        Self { file: Some(file), ..self }
    }

    /// Where the keys are kept, unless they go with this process.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The keys of a text: one a line, `#` begins a comment.
    ///
    /// # Errors
    /// [`SealError::NoKey`], [`SealError::Empty`].
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim())) {
            if !line.is_empty() && !line.starts_with('#') {
                keys.push(line.parse().map_err(|_| SealError::NoKey { line: number })?);
            }
        }
        if keys.is_empty() { Err(SealError::Empty) } else { Ok(Self::of(keys)) }
    }

    /// What [`Seal::parse`] reads.
    pub fn text(&self) -> String {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|key| format!("{}\n", key.to_string().expose_secret())).collect()
    }

    /// The same with a new key that seals from now on.
    #[must_use]
    pub fn turned(&self) -> Self {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Self::of([Identity::generate()].into_iter().chain(keys.iter().cloned()).collect())
    }

    /// The key that seals, alone.
    #[must_use]
    pub fn first(&self) -> Self {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Self::of(keys.iter().take(1).cloned().collect())
    }

    /// Goes on with the keys of another.
    pub fn take(&self, other: Seal) {
        let keys = other.keys.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Bytes that only [`Seal::open`] reads. The same ones are sealed differently each time.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        age::encrypt(&keys[0].to_public(), plain).expect("writing into memory does not fail")
    }

    /// What was sealed. Bytes that are not sealed are what they are: somebody wrote them by hand.
    ///
    /// # Errors
    /// [`SealError::Closed`].
    pub fn open<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, SealError> {
        if !is_sealed(bytes) {
            return Ok(Cow::Borrowed(bytes));
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let closed = |error: String| SealError::Closed(error);
        let sealed = age::Decryptor::new_buffered(bytes).map_err(|error| closed(error.to_string()))?;
        let keys = keys.iter().map(|key| key as &dyn age::Identity);
        let mut reader = sealed.decrypt(keys).map_err(|error| closed(error.to_string()))?;
        let mut plain = Vec::new();
        reader.read_to_end(&mut plain).map_err(|error| closed(error.to_string()))?;
        Ok(Cow::Owned(plain))
    }

    /// Whether bytes are sealed with the key that seals now.
    pub fn is_current(&self, bytes: &[u8]) -> bool {
        is_sealed(bytes) && self.first().open(bytes).is_ok()
    }
}

/// Whether bytes are sealed with any key.
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(HEADER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_sealed_shows_nothing_and_opens_with_its_keys_alone() {
        let seal = Seal::fresh();
        let sealed = seal.seal(b"hush hush");
        assert!(is_sealed(&sealed) && !sealed.windows(4).any(|part| part == b"hush"));
        assert_ne!(sealed, seal.seal(b"hush hush"), "equal values do not show");
        let again = Seal::parse(&format!("# ours\n\n{}", seal.text())).unwrap();
        assert_eq!(*again.open(&sealed).unwrap(), *b"hush hush");
        assert!(matches!(Seal::fresh().open(&sealed), Err(SealError::Closed(_))));
        assert_eq!(*seal.open(b"by hand").unwrap(), *b"by hand");
    }

    #[test]
    fn a_new_key_seals_while_the_old_one_still_opens_until_it_goes() {
        let seal = Seal::fresh();
        let old = seal.seal(b"old");
        seal.take(seal.turned());
        let new = seal.seal(b"new");
        assert_eq!((&*seal.open(&old).unwrap(), &*seal.open(&new).unwrap()), (&b"old"[..], &b"new"[..]));
        assert!(seal.is_current(&new) && !seal.is_current(&old) && !seal.is_current(b"plain"));
        seal.take(seal.first());
        assert!(seal.open(&old).is_err() && seal.open(&new).is_ok());
        assert_eq!(seal.text().lines().count(), 1);
    }

    #[test]
    fn a_file_without_a_key_is_told_from_one_with_a_damaged_one() {
        assert!(matches!(Seal::parse("# nothing\n"), Err(SealError::Empty)));
        assert!(matches!(Seal::parse("\nAGE-SECRET-KEY-1NOPE\n"), Err(SealError::NoKey { line: 2 })));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_and_no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..500usize) {
            let seal = Seal::fresh();
            let mut sealed = seal.seal(&bytes);
            prop_assert_eq!(&*seal.open(&sealed).unwrap(), &bytes[..]);
            let place = at % sealed.len();
            sealed[place] ^= 1;
            prop_assert!(!is_sealed(&sealed) || seal.open(&sealed).is_err());
        }
    }
}
