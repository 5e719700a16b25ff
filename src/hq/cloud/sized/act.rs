//! Reads the real grid as slicegrid sees it.

use std::collections::BTreeMap;

use super::{Awaited, known, pin};
use crate::db::{DbError, layout};
use crate::grid::{Asked, Block, Grid, Origin, Standing, Stay};
use crate::hq::cloud::Limits;
use crate::hq::cloud::rental::{Rental, Stage};
use crate::hq::cloud::room::listed;
use crate::hq::servers::Listed;
use crate::hq::{Hq, HqError};
use crate::launch::label;
use crate::names::{ContainerName, ReleaseNumber, ServerName};
use crate::servers::Record;

impl Hq {
    /// What HQ rents, by the servers' names. A damaged record is left out with a warning.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn rentals(&self) -> Result<BTreeMap<ServerName, Rental>, DbError> {
        let entries = layout::all(&*self.db, layout::RENTALS).await?;
        let rental = |entry: &crate::db::Entry| {
            let name = entry.key.as_str().rsplit('/').next()?.strip_suffix(".json")?.parse().ok()?;
            match layout::parse_json(&*self.db, entry) {
                Ok(rental) => Some((name, rental)),
                Err(error) => {
                    tracing::warn!(%error, "a rented machine is left alone");
                    None
                }
            }
        };
        Ok(entries.iter().filter_map(rental).collect())
    }

    /// Rented machines that are no servers (yet, or any more).
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn expected_servers(&self, records: &BTreeMap<ServerName, Record>) -> Result<Vec<Listed>, DbError> {
        let (rentals, troubles) = (self.rentals().await?, self.sizing.troubles());
        let expected = rentals.iter().filter(|(server, _)| !records.contains_key(*server));
        Ok(expected.map(|(server, rental)| listed(server, rental, troubles.get(server))).collect())
    }

    /// The grid with what is rented and how it is bounded. A server that is on its way out counts as one that was asked
    /// for as soon as somebody waits for room: it is kept then.
    ///
    /// # Errors
    /// When docker or the tree cannot be read.
    pub async fn sized_grid(
        &self,
        limits: &Limits,
        rentals: &BTreeMap<ServerName, Rental>,
        awaited: Awaited,
    ) -> Result<Grid, HqError> {
        let procs = self.all_procs().await?;
        let survey = self.survey().await?;
        // Nobody waits for a new server because of what is on its way out.
        let (going, homes) = (self.going().await, self.homes_of(&procs).await?);
        let mut grid = self.grid_of(&survey.containers, &going);
        grid.autosize = Some(limits.autosize.clone());
        let once = |container: &ContainerName| {
            let mut seen = survey.containers.iter().filter(|seen| seen.container.name == *container);
            seen.any(|seen| seen.container.labels.get(label::ROLE).is_some_and(|role| role == "once"))
        };
        let reserved = self.planning.lock().await;
        for (server, slice) in &mut grid.slices {
            if survey.silent.contains_key(server) && slice.standing == Standing::Up {
                slice.standing = Standing::Suspect;
            }
            slice.blocks = std::mem::take(&mut slice.blocks)
                .into_iter()
                .map(|(name, block)| {
                    if going.contains(&(server.clone(), name.clone())) {
                        return (name, Block { stay: Stay::Leaving, ..block });
                    }
                    let proc = procs.get(&(block.stack.clone(), block.node.clone())).filter(|_| !once(&name));
                    (name, known(block, proc))
                })
                .collect();
            let running = slice.blocks.clone();
            reserved.fill(server, slice);
            let launched = slice.blocks.iter_mut().filter(|(name, _)| !running.contains_key(*name));
            launched.for_each(|(_, block)| block.stay = Stay::Fixed);
            for (stack, node) in homes.get(server).into_iter().flatten() {
                let name = self.launcher.identity.container(stack, node, ReleaseNumber(0), 0);
                pin(slice, name, stack.clone(), node.clone());
            }
            if rentals.get(server).is_some_and(|rental| rental.stage == Stage::Serving) {
                slice.origin = Origin::Created;
            }
        }
        drop(reserved);
        for (server, rental) in rentals {
            let comes = rental.stage.is_coming();
            let returns = rental.stage == Stage::Leaving && awaited == Awaited::Yes;
            if returns {
                grid.slices.remove(server);
            }
            if (comes && !grid.slices.contains_key(server)) || returns {
                grid.asked.push(Asked { size: rental.size, tags: rental.tags.clone() });
            }
        }
        Ok(grid)
    }
}
