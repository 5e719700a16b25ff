//! Going through the folders below a prefix without ever setting foot in a foreign one.

use std::path::PathBuf;

use super::folder::{Folder, Sort, Trouble};
use crate::db::{Key, paths};

/// Whether a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// To the next key.
    On,
    /// No further.
    Enough,
}

/// What is done with each key found in a folder.
type Each<'a> = &'a mut dyn FnMut(&Folder, Key) -> Result<Walk, Trouble>;

/// The parts of a path; none of the empty one.
pub fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// Every key under `prefix` after `after`, in key order.
pub fn keys(root: Folder, prefix: &str, after: Option<&Key>, each: Each) -> Result<(), Trouble> {
    if prefix.is_empty() {
        return below(&root, "", after, each).map(drop);
    }
    let Some((folder, above, last)) = reach(root, prefix)? else { return Ok(()) };
    match folder.sort(last)? {
        Some(sort) => step(&folder, above, last, sort, after, each).map(drop),
        None => Ok(()),
    }
}

/// The folder that holds the last name of `prefix`, its path and that name; `None` when it is not there.
fn reach(root: Folder, prefix: &str) -> Result<Option<(Folder, &str, &str)>, Trouble> {
    let (above, last) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    match root.descend(segments(above)) {
        Ok(folder) => Ok(folder.map(|folder| (folder, above, last))),
        Err(Trouble::InTheWay(_)) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

fn below(folder: &Folder, path: &str, after: Option<&Key>, each: Each) -> Result<Walk, Trouble> {
    let mut names = folder.names()?;
    // As keys compare: what lies in the folder `a` comes as `a/…`, behind the file `a.json`.
    names.sort_by_cached_key(|(name, sort)| match sort {
        Sort::Folder => format!("{name}/"),
        Sort::File | Sort::Link | Sort::Other => name.clone(),
    });
    for (name, sort) in names {
        if step(folder, path, &name, sort, after, each)? == Walk::Enough {
            return Ok(Walk::Enough);
        }
    }
    Ok(Walk::On)
}

fn step(
    folder: &Folder,
    above: &str,
    name: &str,
    sort: Sort,
    after: Option<&Key>,
    each: Each,
) -> Result<Walk, Trouble> {
    let Ok(key) = paths::join(above, name).parse::<Key>() else { return Ok(Walk::On) };
    match sort {
        Sort::Folder if paths::holds_keys(key.as_str()) && may_hold_later(&key, after) => match folder.enter(name)? {
            Some(folder) => below(&folder, key.as_str(), after, each),
            None => Ok(Walk::On),
        },
        Sort::File if paths::is_key(&key) && after.is_none_or(|after| key > *after) => each(folder, key),
        // Nobody can say which keys a link stands for, and none is no answer either: reading it is the error.
        Sort::Link if paths::holds_keys(key.as_str()) => folder.read(name).map(|_| Walk::On),
        Sort::Folder | Sort::File | Sort::Link | Sort::Other => Ok(Walk::On),
    }
}

/// Whether keys below the folder at `path` can come after `after`.
fn may_hold_later(path: &Key, after: Option<&Key>) -> bool {
    after.is_none_or(|after| after.is_under(path.as_str()) || format!("{path}/").as_str() > after.as_str())
}

/// Removes every key under `prefix` and the folders that are empty then; the keys that went.
pub fn clear(root: Folder, prefix: &str) -> Result<Vec<Key>, Trouble> {
    let mut gone = Vec::new();
    if let Some((folder, above, last)) = reach(root, prefix)?
        && let Some(sort) = folder.sort(last)?
    {
        clear_name(&folder, above, last, sort, &mut gone)?;
        folder.sync()?;
    }
    Ok(gone)
}

fn clear_name(folder: &Folder, above: &str, name: &str, sort: Sort, gone: &mut Vec<Key>) -> Result<(), Trouble> {
    let Ok(key) = paths::join(above, name).parse::<Key>() else { return Ok(()) };
    if !paths::holds_keys(key.as_str()) {
        return Ok(());
    }
    match sort {
        Sort::Folder => {
            if let Some(inner) = folder.enter(name)? {
                for (name, sort) in inner.names()? {
                    clear_name(&inner, key.as_str(), &name, sort, gone)?;
                }
                inner.sync()?;
            }
            folder.remove_empty(name)?;
        }
        Sort::File | Sort::Link => {
            if paths::is_key(&key) && folder.remove(name)? {
                gone.push(key);
            }
        }
        Sort::Other => {}
    }
    Ok(())
}

/// Every folder that may hold keys under `prefix`, and those on the way to it, as far as they are there.
pub fn folders(root: Folder, prefix: &str) -> Result<Vec<PathBuf>, Trouble> {
    let mut found = vec![root.path().to_owned()];
    let mut folder = root;
    for name in segments(prefix) {
        match folder.enter(name) {
            Ok(Some(next)) => folder = next,
            Ok(None) | Err(Trouble::InTheWay(_)) => return Ok(found),
            Err(trouble) => return Err(trouble),
        }
        found.push(folder.path().to_owned());
    }
    folders_below(&folder, prefix, &mut found)?;
    Ok(found)
}

fn folders_below(folder: &Folder, path: &str, found: &mut Vec<PathBuf>) -> Result<(), Trouble> {
    for (name, sort) in folder.names()? {
        let path = paths::join(path, &name);
        if sort == Sort::Folder
            && path.parse::<Key>().is_ok()
            && paths::holds_keys(&path)
            && let Some(inner) = folder.enter(&name)?
        {
            found.push(inner.path().to_owned());
            folders_below(&inner, &path, found)?;
        }
    }
    Ok(())
}
