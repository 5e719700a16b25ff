//! The key `router` of a node: what the router does with its requests besides passing them on.

use std::fmt::Display;
use std::str::FromStr;

use crate::front::{LONGEST_PAGES, Login, Status};
use crate::names::Domain;
use crate::units::Protocol;

use super::keys::{Found, Keys};
use super::mistakes::{Notes, nearest, shown};
use super::tree::{Entry, Shape};
use super::{Kind, Node, values};

const KEYS: [&str; 11] =
    ["allow", "auth", "body", "buffering", "deny", "hsts", "pages", "rate", "redirect", "snippet", "timeout"];

/// Keys of what runs in containers.
const RUNNING: [&str; 3] = ["body", "buffering", "timeout"];

/// Reads `router` into `node`, whose domains are known.
pub(super) fn read(node: &mut Node, keys: &Keys<'_>, notes: &mut Notes<'_>) {
    let Some(key) = keys.found("router") else { return };
    let Shape::Map(entries) = &key.value.shape else {
        let message = format!("`router` takes a mapping of {}, not {}", KEYS.join(", "), key.value.what());
        notes.add(key.value.spot, message);
        return;
    };
    for Entry { key: written, spot, value } in entries {
        let found = Found { written, spot: *spot, value };
        if RUNNING.contains(&written.as_str()) && node.kind == Kind::Static {
            notes.add(*spot, format!("`{written}` has no effect on a node of type `static`"));
            continue;
        }
        match written.as_str() {
            "allow" => node.rules.allow = all(found, notes),
            "deny" => node.rules.deny = all(found, notes),
            "body" => node.rules.body = values::parsed(found, notes),
            "timeout" => node.rules.timeout = values::parsed(found, notes),
            "buffering" => node.rules.buffering = values::flag(found, notes).unwrap_or_default(),
            "rate" => node.rules.rate = values::parsed(found, notes),
            "hsts" => node.rules.hsts = values::parsed(found, notes),
            "snippet" => node.rules.snippet = values::parsed(found, notes),
            "auth" => auth(node, found, notes),
            "pages" => pages(node, found, notes),
            "redirect" => redirect(node, found, notes),
            _ => notes.suggest(*spot, format!("unknown key {} in `router`", shown(written)), nearest(written, KEYS)),
        }
    }
    let special = node.rules.snippet.is_some() || node.rules.buffering;
    if special && node.protocol == Protocol::Grpc {
        notes.add(key.spot, "`snippet` and `buffering` are for nodes that speak HTTP/1.1, and not gRPC");
    } else if node.rules.snippet.is_some() && node.rules.buffering {
        notes.add(key.spot, "beside a `snippet`, buffering is switched on in it: `proxy_buffering on;`");
    }
}

/// One value or a list of them, each of which a type can read.
fn all<T: FromStr<Err: Display>>(key: Found<'_>, notes: &mut Notes<'_>) -> Vec<T> {
    let words = values::words(key, notes).into_iter();
    words.filter_map(|(spot, text)| text.parse().map_err(|error| notes.add(spot, format!("{error}"))).ok()).collect()
}

/// A mapping of names to hashed passwords.
fn auth(node: &mut Node, key: Found<'_>, notes: &mut Notes<'_>) {
    let Shape::Map(entries) = &key.value.shape else {
        notes.add(key.value.spot, "`auth` takes a mapping of names to hashed passwords (`openssl passwd -6`)");
        return;
    };
    for Entry { key: name, spot, value } in entries {
        let login = name.parse::<Login>().map_err(|error| notes.add(*spot, error.to_string())).ok();
        // Never the value itself in a message: it may be a password.
        let hash = match &value.shape {
            Shape::Text(text) => text.parse().map_err(|error| notes.add(value.spot, format!("{error}"))).ok(),
            Shape::Nothing | Shape::List(_) | Shape::Map(_) => {
                notes.add(value.spot, "`auth` takes a hashed password for each name");
                None
            }
        };
        node.rules.auth.extend(login.zip(hash));
    }
    if entries.is_empty() {
        notes.add(key.value.spot, "`auth` names nobody, so that nobody could come in; take it out");
    }
}

/// A mapping of statuses to files of the repository.
fn pages(node: &mut Node, key: Found<'_>, notes: &mut Notes<'_>) {
    let Shape::Map(entries) = &key.value.shape else {
        notes.add(key.value.spot, "`pages` takes a mapping of statuses to files, such as `503: pages/503.html`");
        return;
    };
    for Entry { key: status, spot, value } in entries {
        let found = Found { written: status, spot: *spot, value };
        match status.parse::<Status>() {
            Ok(status) => node.pages.extend(values::inner_path(found, notes).map(|(_, path)| (status, path))),
            Err(error) => notes.add(*spot, format!("{error}, and not with {}", shown(status))),
        }
    }
}

/// Domains that lead to the first of `domains`, or a mapping of each to where it leads.
fn redirect(node: &mut Node, key: Found<'_>, notes: &mut Notes<'_>) {
    let domain = |(spot, text): values::Word<'_>, notes: &mut Notes<'_>| match text.to_lowercase().parse::<Domain>() {
        Ok(domain) if domain.is_wildcard() => {
            notes.add(spot, format!("the wildcard `{domain}` leads nowhere: name the domains"));
            None
        }
        Ok(domain) => Some(domain),
        Err(error) => {
            notes.add(spot, error.to_string());
            None
        }
    };
    let mut pairs = Vec::new();
    if let Shape::Map(entries) = &key.value.shape {
        for Entry { key: from, spot, value } in entries {
            let from = domain((*spot, from), notes);
            let to = values::word(Found { written: "redirect", spot: *spot, value }, notes);
            let to = to.and_then(|word| domain(word, notes));
            pairs.extend(from.zip(to).map(|pair| (*spot, pair)));
        }
    } else {
        let Some(first) = node.domains.iter().find(|domain| !domain.is_wildcard()).cloned() else {
            notes.add(key.spot, "`redirect` leads to the first of `domains`, and there is none");
            return;
        };
        for word in values::words(key, notes) {
            pairs.extend(domain(word, notes).map(|from| (word.0, (from, first.clone()))));
        }
    }
    for (spot, (from, to)) in &pairs {
        if node.domains.contains(from) {
            notes.add(*spot, format!("`{from}` is one of `domains`: it answers, or it leads elsewhere"));
        } else if pairs.iter().any(|(_, (other, _))| other == to) {
            notes.add(*spot, format!("`{from}` leads to `{to}`, which leads elsewhere itself"));
        }
    }
    node.rules.redirect = pairs.into_iter().map(|(_, pair)| pair).collect();
}

/// What is wrong with pages of these lengths, in bytes.
pub fn too_long(lengths: impl Iterator<Item = usize>) -> Option<String> {
    let all: usize = lengths.sum();
    (all > LONGEST_PAGES)
        .then(|| format!("all pages of a stack have {LONGEST_PAGES} bytes together at most, not {all}"))
}
