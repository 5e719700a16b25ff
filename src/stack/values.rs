//! Reads the values of quarry.yml's keys. Each reader notes what is wrong and goes on.

use std::fmt::Display;
use std::str::FromStr;

use crate::names::{ContainerPath, InnerPath};
use crate::units::port::Port;

use super::Command;
use super::keys::Found;
use super::mistakes::{Notes, nearest, shown};
use super::tree::{Shape, Spot, Tree};

/// A piece of text and its place.
pub(super) type Word<'t> = (Spot, &'t str);

/// One scalar.
pub(super) fn word<'t>(key: Found<'t>, notes: &mut Notes<'_>) -> Option<Word<'t>> {
    one(key.written, key.value, notes)
}

fn one<'t>(key: &str, tree: &'t Tree, notes: &mut Notes<'_>) -> Option<Word<'t>> {
    match &tree.shape {
        Shape::Text(text) if text.contains('\0') => {
            notes.add(tree.spot, format!("`{key}` contains a NUL character"));
            None
        }
        Shape::Text(text) if !text.trim().is_empty() => Some((tree.spot, text)),
        Shape::Text(_) | Shape::Nothing => {
            notes.add(tree.spot, format!("`{key}` is empty"));
            None
        }
        Shape::List(_) | Shape::Map(_) => {
            notes.add(tree.spot, format!("`{key}` takes a single value, not {}", tree.what()));
            None
        }
    }
}

/// One scalar or a list of them.
pub(super) fn words<'t>(key: Found<'t>, notes: &mut Notes<'_>) -> Vec<Word<'t>> {
    match &key.value.shape {
        Shape::List(items) => items.iter().filter_map(|item| one(key.written, item, notes)).collect(),
        Shape::Map(_) => {
            notes.add(key.value.spot, format!("`{}` takes a value or a list, not a mapping", key.written));
            Vec::new()
        }
        Shape::Nothing | Shape::Text(_) => word(key, notes).into_iter().collect(),
    }
}

/// A scalar that a type can read.
pub(super) fn parsed<T: FromStr<Err: Display>>(key: Found<'_>, notes: &mut Notes<'_>) -> Option<T> {
    let (spot, text) = word(key, notes)?;
    text.parse().map_err(|error| notes.add(spot, format!("`{}`: {error}", key.written))).ok()
}

/// A whole number within bounds.
pub(super) fn number(key: Found<'_>, least: u32, most: u32, notes: &mut Notes<'_>) -> Option<u32> {
    let (spot, text) = word(key, notes)?;
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    if number.is_none() {
        let message = format!("`{}` is a whole number from {least} to {most}, not {}", key.written, shown(text));
        notes.add(spot, message);
    }
    number
}

/// `true` or `false`, in YAML's older spellings too.
pub(super) fn flag(key: Found<'_>, notes: &mut Notes<'_>) -> Option<bool> {
    let (spot, text) = word(key, notes)?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => {
            notes.add(spot, format!("`{}` is `true` or `false`, not {}", key.written, shown(text)));
            None
        }
    }
}

/// One of some words.
pub(super) fn choice<T: Copy>(key: Found<'_>, choices: &[(&str, T)], notes: &mut Notes<'_>) -> Option<T> {
    let (spot, text) = word(key, notes)?;
    let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    if chosen.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let message = format!("`{}` is one of {}, not {}", key.written, names.join(", "), shown(text));
        notes.suggest(spot, message, nearest(text, names));
    }
    chosen
}

/// Text for a shell, or a list of words that need none.
pub(super) fn command(key: Found<'_>, notes: &mut Notes<'_>) -> Option<Command> {
    match &key.value.shape {
        Shape::List(items) if !items.is_empty() => {
            let words = words(key, notes);
            (words.len() == items.len()).then(|| Command::Words(words.into_iter().map(owned).collect()))
        }
        Shape::Text(_) | Shape::Nothing => word(key, notes).map(|(_, text)| Command::Shell(text.trim().to_owned())),
        Shape::List(_) | Shape::Map(_) => {
            let message =
                format!("`{}` is a command line, or a list of its words, not {}", key.written, key.value.what());
            notes.add(key.value.spot, message);
            None
        }
    }
}

/// One command line or a list of them, each for a shell.
pub(super) fn commands(key: Found<'_>, notes: &mut Notes<'_>) -> Vec<Command> {
    words(key, notes).into_iter().map(|word| Command::Shell(owned(word).trim().to_owned())).collect()
}

/// Words as a list, or as one text without quotes that is split at its blanks.
pub(super) fn arguments(key: Found<'_>, notes: &mut Notes<'_>) -> Vec<String> {
    if matches!(key.value.shape, Shape::List(_)) {
        return words(key, notes).into_iter().map(owned).collect();
    }
    let Some((spot, text)) = word(key, notes) else { return Vec::new() };
    if text.contains(['\'', '"', '\\']) {
        notes.add(spot, format!("`{}` with quotes has to be a list, one word an item", key.written));
    }
    text.split_whitespace().map(str::to_owned).collect()
}

pub(super) fn owned((_, text): Word<'_>) -> String {
    text.to_owned()
}

/// A path within the repository, in its short form.
pub(super) fn inner_path(key: Found<'_>, notes: &mut Notes<'_>) -> Option<(Spot, InnerPath)> {
    let (spot, text) = word(key, notes)?;
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let short = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
    match short.parse() {
        Ok(path) if !text.starts_with('/') => Some((spot, path)),
        Ok(_) | Err(_) => {
            notes.add(spot, format!("`{}` is a path within the repository, not {}", key.written, shown(text)));
            None
        }
    }
}

/// An absolute path inside the container, in its short form.
pub(super) fn container_path(key: &str, (spot, text): Word<'_>, notes: &mut Notes<'_>) -> Option<ContainerPath> {
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    match format!("/{}", parts.join("/")).parse() {
        Ok(path) if text.starts_with('/') => Some(path),
        Ok(_) | Err(_) => {
            notes.add(spot, format!("`{key}` is an absolute path inside the container, not {}", shown(text)));
            None
        }
    }
}

/// A port of a container.
pub(super) fn port(key: &str, (spot, text): Word<'_>, notes: &mut Notes<'_>) -> Option<Port> {
    if text.contains(':') {
        let message = format!(
            "`{key}` names ports inside the container; quarry chooses those of the server itself, so write only the part \
             after the last `:` of {}",
            shown(text)
        );
        notes.add(spot, message);
        return None;
    }
    let port = text.to_ascii_lowercase().parse().ok();
    if port.is_none() {
        notes.add(spot, format!("`{key}` is a port from 1 to 65535, such as 80 or 53/udp, not {}", shown(text)));
    }
    port
}

/// A TCP port of a container.
pub(super) fn tcp_port(key: &str, word: Word<'_>, notes: &mut Notes<'_>) -> Option<u16> {
    let port = port(key, word, notes)?;
    if port.connected().is_none() {
        notes.add(word.0, format!("`{key}` is a port of TCP, not {}", shown(word.1)));
    }
    port.connected()
}
