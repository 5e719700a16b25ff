//! Reads the server's memory and the running containers into a grid.

use std::collections::BTreeMap;

use crate::db::{Guard, layout};
use crate::docker::State;
use crate::grid::{Block, Grid, Slice};
use crate::hq::{Hq, HqError, limits};
use crate::instruction::DEFAULT_SIZE;
use crate::launch::label;
use crate::names::{NodeName, ServerName, StackName};

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
            let text = |name: &str| container.labels.get(name);
            let stack: Option<StackName> = text(label::STACK).and_then(|text| text.parse().ok());
            let node: Option<NodeName> = text(label::NODE).and_then(|text| text.parse().ok());
            let (Some(stack), Some(node), State::Running | State::Restarting | State::Paused) =
                (stack, node, container.state)
            else {
                continue;
            };
            let size = sizes.get(&(stack.clone(), node.clone())).copied().unwrap_or(DEFAULT_SIZE);
            blocks.insert(container.name.clone(), Block::new(size, stack, node));
        }
        let slice = Slice { blocks, ..Slice::new(limits::memory()) };
        let server: ServerName = "hq".parse().expect("`hq` is a server name");
        let grid = Grid { slices: BTreeMap::from([(server, slice)]), ..Grid::default() };
        layout::put_json(&*self.db, &layout::grid(), &grid, Guard::Any).await?;
        Ok(grid)
    }
}
