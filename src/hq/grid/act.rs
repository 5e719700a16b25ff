//! Reads the server's memory and the running containers into a grid.

use std::collections::{BTreeMap, BTreeSet};

use crate::db::{Guard, layout};
use crate::docker::State;
use crate::grid::{Block, BlockId, Grid, Slice};
use crate::hq::{Hq, HqError, limits};
use crate::instruction::DEFAULT_SIZE;
use crate::launch::label;
use crate::names::ServerName;

impl Hq {
    /// The grid as it is now; also kept as `grid/grid.json` for people and tools.
    ///
    /// # Errors
    /// When docker or the tree cannot be read.
    pub async fn grid(&self) -> Result<Grid, HqError> {
        let own = format!("{}={}", label::HQ, self.launcher.identity.id);
        let mut sizes = BTreeMap::new();
        for stack in self.stack_names().await? {
            for proc in self.procs(&stack).await? {
                sizes.insert((stack.clone(), proc.node.clone()), proc.settings.size);
            }
        }
        let mut blocks = BTreeMap::new();
        for container in self.engine().containers(&own).await? {
            let label = |name: &str| container.labels.get(name).and_then(|text| text.parse().ok());
            let stack = container.labels.get(label::STACK).and_then(|text| text.parse().ok());
            let (Some(stack), Some(node), State::Running | State::Restarting | State::Paused) =
                (stack, label(label::NODE), container.state)
            else {
                continue;
            };
            let size = sizes.get(&(stack.clone(), node.clone())).copied().unwrap_or(DEFAULT_SIZE);
            let id: BlockId = container.name.clone();
            blocks.insert(id, Block { size, stack, node, tags: BTreeSet::new() });
        }
        let slice = Slice { size: limits::memory(), blocks, tags: BTreeSet::new() };
        let server: ServerName = "hq".parse().expect("`hq` is a server name");
        let grid = Grid { slices: BTreeMap::from([(server, slice)]) };
        layout::put_json(&*self.db, &layout::grid(), &grid, Guard::Any).await?;
        Ok(grid)
    }
}
