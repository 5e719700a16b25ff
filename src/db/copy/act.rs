//! Reads all, writes all, reads all back.

use std::collections::BTreeMap;

use super::{Copied, CopyError, Target, travels};
use crate::db::{Db, DbError, Entry, Guard, Key, layout};

/// Copies every value of `from` that is under no lease to `to`, and compares both afterwards.
///
/// # Errors
/// When the target holds values, anything changes meanwhile, or a home fails. The target may hold a part then, and says
/// so: see [`is_part`].
pub async fn copy(from: &dyn Db, to: &dyn Db, target: Target) -> Result<Copied, CopyError> {
    let failed = |doing| move |source: DbError| CopyError::Home { doing, source };
    if is_part(from).await.map_err(failed("read the source"))? {
        return Err(CopyError::Part);
    }
    check_room(to, target).await?;
    let begun = to.put(&layout::copying(), b"a copy has begun and has not come to its end\n", Guard::Any, None).await;
    begun.map_err(failed("write the target"))?;
    let copied = copy_all(from, to).await?;
    to.delete(&layout::copying(), Guard::Any).await.map_err(failed("write the target"))?;
    Ok(copied)
}

/// Whether a home holds no more than a part, because a copy to it was cut off.
///
/// # Errors
/// When it cannot be read.
pub async fn is_part(home: &dyn Db) -> Result<bool, DbError> {
    Ok(home.read(&layout::copying()).await?.is_some())
}

async fn copy_all(from: &dyn Db, to: &dyn Db) -> Result<Copied, CopyError> {
    let failed = |doing| move |source: DbError| CopyError::Home { doing, source };
    make_room(to).await?;
    let leased = from.leased().await.map_err(failed("read the source's leases"))?;
    let source = content(from).await.map_err(failed("read the source"))?;
    let (left, entries): (Vec<&Entry>, Vec<&Entry>) = source.values().partition(|entry| leased.contains(&entry.key));
    for entry in &entries {
        to.put(&entry.key, &entry.value, Guard::Absent, None).await.map_err(failed("write the target"))?;
    }
    let written = content(to).await.map_err(failed("read the target back"))?;
    let same = |entry: &Entry| written.get(&entry.key).is_some_and(|found| found.value == entry.value);
    if let Some(lost) = entries.iter().find(|entry| !same(entry)) {
        return Err(CopyError::Differs(lost.key.clone()));
    }
    if let Some(extra) = written.keys().find(|key| leased.contains(key) || !source.contains_key(key)) {
        return Err(CopyError::Differs(extra.clone()));
    }
    let again = content(from).await.map_err(failed("read the source again"))?;
    let version = |entries: &BTreeMap<Key, Entry>, key: &Key| entries.get(key).map(|entry| entry.version.clone());
    let moved = |key: &&Key| !leased.contains(key) && version(&again, key) != version(&source, key);
    if let Some(moved) = source.keys().chain(again.keys()).find(moved) {
        return Err(CopyError::Moved(moved.clone()));
    }
    Ok(Copied { keys: entries.len(), bytes: entries.iter().map(|entry| entry.value.len()).sum(), left: left.len() })
}

async fn check_room(to: &dyn Db, target: Target) -> Result<(), CopyError> {
    let failed = |doing| move |source: DbError| CopyError::Home { doing, source };
    if target == Target::Replaced {
        return Ok(());
    }
    match roots(to).await?.first() {
        None => Ok(()),
        Some(root) => {
            let first = to.list(root, None, 1).await.map_err(failed("read the target"))?.pop();
            first.map_or(Ok(()), |entry| Err(CopyError::NotEmpty(entry.key)))
        }
    }
}

async fn make_room(to: &dyn Db) -> Result<(), CopyError> {
    for root in roots(to).await? {
        let emptied = to.delete_under(&root).await;
        emptied.map_err(|source| CopyError::Home { doing: "empty the target", source })?;
    }
    Ok(())
}

/// What there is of content.
async fn roots(home: &dyn Db) -> Result<Vec<String>, CopyError> {
    let roots = home.names("").await.map_err(|source| CopyError::Home { doing: "read the target", source })?;
    Ok(roots.into_iter().filter(|root| root != layout::REIGN).collect())
}

async fn content(db: &dyn Db) -> Result<BTreeMap<Key, Entry>, DbError> {
    let entries = layout::all(db, "").await?.into_iter().filter(|entry| travels(&entry.key));
    Ok(entries.map(|entry| (entry.key.clone(), entry)).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::db::fake::Fake;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    async fn put(db: &Fake, at: &str, value: &str) {
        db.put(&key(at), value.as_bytes(), Guard::Any, None).await.unwrap();
    }

    async fn keys(db: &Fake) -> Vec<String> {
        layout::all(db, "").await.unwrap().iter().map(|entry| entry.key.to_string()).collect()
    }

    #[tokio::test]
    async fn everything_travels_but_leased_keys_and_who_acts() {
        let (from, to) = (Fake::new(), Fake::new());
        put(&from, "stacks/a/status", "{}").await;
        put(&from, "keys/ann/laptop.pub", "key").await;
        put(&from, "hq/last-epoch", "7").await;
        put(&to, "hq/last-epoch", "9").await;
        let lease = from.lease(Duration::from_secs(60)).await.unwrap();
        from.put(&key("ps/hq/a.json"), b"1", Guard::Any, Some(&lease)).await.unwrap();
        let copied = copy(&from, &to, Target::Empty).await.unwrap();
        assert_eq!(copied, Copied { keys: 2, bytes: 5, left: 1 });
        assert_eq!(keys(&to).await, ["hq/last-epoch", "keys/ann/laptop.pub", "stacks/a/status"]);
        assert_eq!(to.read(&key("hq/last-epoch")).await.unwrap().unwrap().value, b"9");
    }

    #[tokio::test]
    async fn a_target_with_values_is_refused_unless_they_may_go() {
        let (from, to) = (Fake::new(), Fake::new());
        put(&from, "stacks/a/status", "{}").await;
        put(&to, "stacks/old/status", "{}").await;
        let refused = copy(&from, &to, Target::Empty).await;
        assert!(matches!(refused, Err(CopyError::NotEmpty(at)) if at == key("stacks/old/status")));
        assert_eq!(keys(&to).await, ["stacks/old/status"]);
        copy(&from, &to, Target::Replaced).await.unwrap();
        assert_eq!(keys(&to).await, ["stacks/a/status"]);
    }

    #[tokio::test]
    async fn a_home_that_fails_is_named() {
        let (from, to) = (Fake::new(), Fake::new());
        put(&from, "stacks/a/status", "{}").await;
        to.full_after(Some(0));
        let error = copy(&from, &to, Target::Empty).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot write the target");
    }

    #[tokio::test]
    async fn a_copy_that_was_cut_off_says_so_until_another_has_come_to_its_end() {
        let (from, to) = (Fake::new(), Fake::new());
        for stack in ["a", "b", "c"] {
            put(&from, &format!("stacks/{stack}/status"), "{}").await;
        }
        to.full_after(Some(3));
        copy(&from, &to, Target::Empty).await.unwrap_err();
        assert!(is_part(&to).await.unwrap() && !is_part(&from).await.unwrap());
        to.full_after(None);
        let refused = copy(&to, &Fake::new(), Target::Empty).await;
        assert!(matches!(refused, Err(CopyError::Part)), "{refused:?}");
        copy(&from, &to, Target::Replaced).await.unwrap();
        assert!(!is_part(&to).await.unwrap());
    }
}
