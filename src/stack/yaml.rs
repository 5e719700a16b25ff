//! quarry.yml: the whole file, and how its nodes fit together.

use std::collections::{BTreeMap, BTreeSet};

use crate::buildpacks::Repository;
use crate::names::{Domain, NodeName};

use super::entry::{self, Around, Draft, described};
use super::keys::Keys;
use super::mistakes::{Mistakes, Notes, nearest, shown};
use super::tree::{self, Entry, Shape, Spot};
use super::{Kind, Source, Stack, describe, packs};

/// Reads the text of the file called `file`, which stands in `repository`.
///
/// # Errors
/// Every mistake of the file, in its order.
pub fn parse(file: &str, text: &str, repository: &Repository) -> Result<Stack, Mistakes> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (tree, found) = tree::read(file, text);
    let broken = !found.is_empty();
    let mut notes = Notes::of(file, found);
    let entries = match tree.map(|tree| (tree.spot, tree.shape)) {
        Some((_, Shape::Map(entries))) if !entries.is_empty() => entries,
        Some((spot, Shape::List(_) | Shape::Text(_))) => {
            notes.add(spot, "the file is a mapping of node names to their keys, such as `web: {domains: example.com}`");
            Vec::new()
        }
        Some((_, Shape::Nothing | Shape::Map(_))) | None if !broken => {
            notes.of_file("the file is empty: it needs at least one node");
            Vec::new()
        }
        Some(_) | None => Vec::new(),
    };
    let nodes: BTreeSet<NodeName> = entries.iter().filter_map(|entry| entry.key.parse().ok()).collect();
    let own = describe::own_source(repository);
    let around = Around { repository, nodes: &nodes, own: &own };
    let drafts: BTreeMap<NodeName, Draft> =
        entries.iter().filter_map(|entry| draft(entry, &around, &mut notes)).collect();
    check_containers(&drafts, &mut notes);
    check_links(&drafts, &mut notes);
    check_domains(&drafts, &mut notes);
    let spots: BTreeMap<NodeName, Spot> = drafts.iter().map(|(name, draft)| (name.clone(), draft.spot)).collect();
    let stack = Stack { nodes: drafts.into_iter().map(|(name, draft)| (name, draft.node)).collect() };
    for (name, message) in packs::unbuildable(&stack, repository) {
        notes.add(spots[&name], message);
    }
    notes.or(stack)
}

fn draft(entry: &Entry, around: &Around<'_>, notes: &mut Notes<'_>) -> Option<(NodeName, Draft)> {
    let name = entry.key.parse::<NodeName>();
    let lower = entry.key.to_lowercase().parse::<NodeName>().ok();
    if let Err(error) = &name {
        notes.suggest(entry.spot, error.to_string(), lower.clone().map(String::from));
    }
    let entries = match &entry.value.shape {
        Shape::Map(entries) => entries.as_slice(),
        Shape::Nothing if entry.key == "web" => &[],
        Shape::Nothing | Shape::Text(_) | Shape::List(_) => {
            let message =
                format!("the node {} is {}, but takes a mapping of keys", shown(&entry.key), entry.value.what());
            notes.add(entry.spot, message);
            return None;
        }
    };
    let keys = Keys::sort(&entry.key, entries, notes);
    // A node whose name is wrong is still read, for the mistakes inside.
    let stand_in = || lower.unwrap_or_else(|| "node".parse().expect("`node` is a node name"));
    let draft = entry::read(&name.clone().unwrap_or_else(|_| stand_in()), entry.spot, keys, around, notes);
    Some((name.ok()?, draft))
}

/// Borrowed images end at a node that has one.
fn check_containers(drafts: &BTreeMap<NodeName, Draft>, notes: &mut Notes<'_>) {
    for (name, draft) in drafts {
        let (Some(spot), Source::Node(target)) = (draft.container, &draft.node.source) else { continue };
        let mut seen = BTreeSet::from([name]);
        let mut next = Some(target);
        while let Some(node) = next {
            if !seen.insert(node) {
                notes.add(spot, format!("`{name}` and `{target}` take their images from each other"));
                break;
            }
            next = match drafts.get(node).map(|draft| &draft.node.source) {
                Some(Source::Node(further)) => Some(further),
                Some(Source::Nothing) => {
                    notes.add(spot, format!("`{node}` has no image: it is {}", described(Kind::Static)));
                    None
                }
                Some(
                    Source::Image(_)
                    | Source::Inline(_)
                    | Source::Dockerfile(_)
                    | Source::Pack(_)
                    | Source::Buildpacks(_),
                )
                | None => None,
            };
        }
    }
}

/// Links lead to nodes that run.
fn check_links(drafts: &BTreeMap<NodeName, Draft>, notes: &mut Notes<'_>) {
    let running: Vec<&str> =
        drafts.iter().filter(|(_, draft)| draft.node.runs()).map(|(name, _)| name.as_str()).collect();
    for draft in drafts.values() {
        for (target, spot) in draft.node.link.iter().zip(&draft.links) {
            if let Some(other) = drafts.get(target)
                && !other.node.runs()
            {
                let message = format!("nothing runs at `{target}`: it is {}", described(other.node.kind));
                notes.suggest(*spot, message, nearest(target.as_str(), running.iter().copied()));
            }
        }
    }
}

/// Each domain belongs to one node.
fn check_domains(drafts: &BTreeMap<NodeName, Draft>, notes: &mut Notes<'_>) {
    let mut all: Vec<(Spot, &Domain)> =
        drafts.values().flat_map(|draft| draft.domains.iter().copied().zip(&draft.node.domains)).collect();
    all.sort();
    let mut seen: BTreeMap<&Domain, Spot> = BTreeMap::new();
    for (spot, domain) in all {
        match seen.get(domain) {
            Some(first) => notes.add(spot, format!("the domain `{domain}` is already there, on line {}", first.line)),
            None => {
                seen.insert(domain, spot);
            }
        }
    }
}
