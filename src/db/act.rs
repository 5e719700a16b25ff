//! Whole lists and typed JSON values, through the seam.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Db, DbError, Entry, Guard, Key};

/// How many entries one page of a long list holds.
const PAGE: usize = 500;

/// Every entry under a prefix, page by page.
pub async fn all(db: &dyn Db, prefix: &str) -> Result<Vec<Entry>, DbError> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.key.clone());
        let page = db.list(prefix, after.as_ref(), PAGE).await?;
        let last = page.len() < PAGE;
        entries.extend(page);
        if last {
            return Ok(entries);
        }
    }
}

/// Reads a JSON value; `None` when the key is not there.
///
/// # Errors
/// [`DbError::Damaged`] naming the key when the content is not a `T`.
pub async fn read_json<T: DeserializeOwned>(db: &dyn Db, key: &Key) -> Result<Option<T>, DbError> {
    match db.read(key).await? {
        Some(entry) => parse_json(db, &entry).map(Some),
        None => Ok(None),
    }
}

/// The value of an entry of `db` as a `T`.
///
/// # Errors
/// [`DbError::Damaged`] naming the key and its file when the content is not a `T`.
pub fn parse_json<T: DeserializeOwned>(db: &dyn Db, entry: &Entry) -> Result<T, DbError> {
    serde_json::from_slice(&entry.value).map_err(|error| DbError::Damaged {
        key: entry.key.clone(),
        what: error.to_string(),
        place: db.place(&entry.key),
    })
}

/// Writes a value as JSON, pretty so that people can read it, with a closing newline.
pub async fn put_json<T: Serialize>(db: &dyn Db, key: &Key, value: &T, guard: Guard) -> Result<(), DbError> {
    let mut text = serde_json::to_vec_pretty(value).expect("quarry's records have string keys and serialise");
    text.push(b'\n');
    db.put(key, &text, guard, None).await.map(drop)
}
