//! Snippets on their way into nginx's text, which is read anew only when one comes that it does not have.

use std::collections::BTreeSet;

use super::Nginx;
use crate::front::Snippet;
use crate::router::edge::{Edge, EdgeError};
use crate::router::{StackRoutes, files, process, text};

impl Nginx {
    /// The snippets that nginx's text has to have: those it has, and those of all tables.
    pub(super) async fn shown(&self) -> Result<BTreeSet<Snippet>, EdgeError> {
        let mut shown = self.shown.lock().await;
        if shown.is_none() {
            let folder = self.folder.clone();
            *shown = Some(self.blocking(move || files::snippets(&folder)).await?);
        }
        Ok(shown.clone().unwrap_or_default())
    }

    /// Sees that nginx knows the snippets of a table it is about to get. Those that no table has any more go with that.
    pub(super) async fn show_snippets(&self, routes: &StackRoutes) -> Result<(), EdgeError> {
        let before = self.shown().await?;
        let needed: BTreeSet<Snippet> = of(routes).cloned().collect();
        if needed.is_subset(&before) {
            return Ok(());
        }
        self.start_or_adopt().await?;
        let tables = self.tables().await?;
        let after = tables.iter().flat_map(of).cloned().chain(needed).collect();
        *self.shown.lock().await = Some(after);
        if let Err(error) = self.start_or_adopt().await {
            *self.shown.lock().await = Some(before);
            return Err(error);
        }
        Ok(())
    }

    /// Has nginx read what its text would be with a snippet.
    pub(super) async fn check_snippet(&self, snippet: &Snippet) -> Result<(), EdgeError> {
        let mut all = self.shown().await?;
        if !all.insert(snippet.clone()) {
            return Ok(());
        }
        // Whoever changes the text takes the folders of all others away.
        let _one = self.starting.lock().await;
        let text = text::render(&self.listen, process::size(), &all);
        let (folder, own) = (self.folder.clone(), text.clone());
        self.blocking(move || files::prepare(&folder).and_then(|()| files::write_text(&folder, &own))).await?;
        let tested = process::test(&self.folder, &format!("{}/nginx.conf", text.folder())).await;
        let (folder, own) = (self.folder.clone(), text.clone());
        self.blocking(move || files::drop_text(&folder, &own)).await?;
        tested.map_err(|error| EdgeError::Snippet { message: told(&error.to_string(), &text.files[0].1) })
    }
}

/// What nginx says of a line of its configuration, with that line in place of its number.
fn told(words: &str, configuration: &str) -> String {
    let first = words.lines().next().unwrap_or_default();
    let bare = first.split_once("[emerg] ").and_then(|(_, rest)| rest.split_once(": ")).map_or(first, |(_, rest)| rest);
    let Some((what, place)) = bare.rsplit_once(" in ") else { return bare.to_owned() };
    let number = place.rsplit_once(':').and_then(|(_, number)| number.parse::<usize>().ok());
    match number.and_then(|number| configuration.lines().nth(number.checked_sub(1)?)) {
        Some(line) => format!("`{}`: {what}", line.trim()),
        None => what.to_owned(),
    }
}

fn of(routes: &StackRoutes) -> impl Iterator<Item = &Snippet> {
    routes.nodes.values().filter_map(|node| node.rules.snippet.as_ref())
}
