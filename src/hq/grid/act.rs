//! Reads the servers' memory and the running containers into a grid.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use crate::db::{Guard, layout};
use crate::docker::State;
use crate::grid::{Asked, Block, Grid, Origin, Standing};
use crate::hq::fleet::presence::Presence;
use crate::hq::fleet::{Member, Seen};
use crate::hq::{Hq, HqError};
use crate::instruction::DEFAULT_SIZE;
use crate::launch::journal::act::Book;
use crate::launch::label;
use crate::names::{ContainerName, NodeName, ServerName, StackName};
use crate::units::Megabytes;

impl Hq {
    /// The grid as it is now; also kept as `grid/grid.json` for people and tools.
    ///
    /// # Errors
    /// When docker or the tree cannot be read.
    pub async fn grid(&self) -> Result<Grid, HqError> {
        let survey = self.survey().await?;
        let mut grid = self.grid_of(&survey.containers, &self.going().await);
        for (server, slice) in &mut grid.slices {
            if survey.silent.contains_key(server) && slice.standing != Standing::Gone {
                slice.standing = Standing::Suspect;
            }
        }
        let rentals = self.rentals().await?;
        for (_, slice) in grid.slices.iter_mut().filter(|(server, _)| rentals.contains_key(*server)) {
            slice.origin = Origin::Created;
        }
        grid.autosize = self.sizing.limits().map(|limits| limits.autosize);
        grid.waiting = self.sizing.wants().blocks;
        let coming =
            rentals.iter().filter(|(server, rental)| rental.stage.is_coming() && !grid.slices.contains_key(*server));
        grid.asked = coming.map(|(_, rental)| Asked { size: rental.size, tags: rental.tags.clone() }).collect();
        layout::put_json(&*self.db, &layout::grid(), &grid, Guard::Any).await?;
        Ok(grid)
    }

    /// Containers of all stacks that are on their way out, each with its server.
    pub async fn going(&self) -> BTreeSet<(ServerName, ContainerName)> {
        let books: Vec<Arc<Book>> = {
            let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
            books.values().filter_map(|book| book.get().cloned()).collect()
        };
        let mut all = BTreeSet::new();
        for book in books {
            let journal = book.read().await;
            all.extend(journal.going().into_iter().map(|(server, name)| (server.clone(), name.clone())));
        }
        all
    }

    /// The grid of these containers: those that run, and those that will be started again; what is not running and on its
    /// way out does not count.
    pub fn grid_of(&self, seen: &[Seen], going: &BTreeSet<(ServerName, ContainerName)>) -> Grid {
        let members = self.members();
        let empty = |(name, member): (&ServerName, &Member)| {
            let mut slice = member.slice();
            slice.standing = match self.presence(name) {
                Presence::Up => slice.standing,
                Presence::Suspect | Presence::Returning => Standing::Suspect,
                Presence::Gone => Standing::Gone,
            };
            (name.clone(), slice)
        };
        let mut grid = Grid { slices: members.iter().map(empty).collect(), ..Grid::default() };
        for Seen { server, container } in seen {
            let text = |name: &str| container.labels.get(name);
            let stack: Option<StackName> = text(label::STACK).and_then(|text| text.parse().ok());
            let node: Option<NodeName> = text(label::NODE).and_then(|text| text.parse().ok());
            let own = text(label::HQ) == Some(&self.launcher.identity.id);
            let counts = match container.state {
                State::Running | State::Restarting | State::Paused => own,
                // It fell, or is not started yet.
                State::Created | State::Exited(_) => {
                    let once = text(label::ROLE).is_some_and(|role| role == "once");
                    own && !once && !going.contains(&(server.clone(), container.name.clone()))
                }
                State::Dead => false,
            };
            let (Some(slice), true, Some(stack), Some(node)) = (grid.slices.get_mut(server), counts, stack, node)
            else {
                continue;
            };
            let size = text(label::SIZE).and_then(|text| text.parse().ok()).map_or(DEFAULT_SIZE, Megabytes);
            slice.blocks.insert(container.name.clone(), Block::new(size, stack, node));
        }
        grid
    }
}
