//! Reads the servers' memory and the running containers into a grid.

use crate::db::{Guard, layout};
use crate::docker::State;
use crate::grid::{Block, Grid, Standing};
use crate::hq::fleet::{Member, Seen};
use crate::hq::{Hq, HqError};
use crate::instruction::DEFAULT_SIZE;
use crate::launch::label;
use crate::names::{NodeName, ServerName, StackName};
use crate::units::Megabytes;

impl Hq {
    /// The grid as it is now; also kept as `grid/grid.json` for people and tools.
    ///
    /// # Errors
    /// When docker or the tree cannot be read.
    pub async fn grid(&self) -> Result<Grid, HqError> {
        let survey = self.survey().await?;
        let mut grid = self.grid_of(&survey.containers);
        for (server, slice) in &mut grid.slices {
            if survey.silent.contains_key(server) {
                slice.standing = Standing::Suspect;
            }
        }
        layout::put_json(&*self.db, &layout::grid(), &grid, Guard::Any).await?;
        Ok(grid)
    }

    /// The grid of these containers.
    pub fn grid_of(&self, seen: &[Seen]) -> Grid {
        let members = self.members();
        let empty = |(name, member): (&ServerName, &Member)| (name.clone(), member.slice());
        let mut grid = Grid { slices: members.iter().map(empty).collect(), ..Grid::default() };
        for Seen { server, container } in seen {
            let text = |name: &str| container.labels.get(name);
            let stack: Option<StackName> = text(label::STACK).and_then(|text| text.parse().ok());
            let node: Option<NodeName> = text(label::NODE).and_then(|text| text.parse().ok());
            let own = text(label::HQ) == Some(&self.launcher.identity.id);
            let (Some(slice), true, Some(stack), Some(node), State::Running | State::Restarting | State::Paused) =
                (grid.slices.get_mut(server), own, stack, node, container.state)
            else {
                continue;
            };
            let size = text(label::SIZE).and_then(|text| text.parse().ok()).map_or(DEFAULT_SIZE, Megabytes);
            slice.blocks.insert(container.name.clone(), Block::new(size, stack, node));
        }
        grid
    }
}
