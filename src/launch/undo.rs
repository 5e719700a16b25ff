//! What takes back the steps of a launch that did not come to its commit.

use super::{Plan, Step};
use crate::units::Millis;

/// Steps that undo the first `begun` revocable steps of a plan, last one first. Each is harmless where its step never
/// took effect. Networks stay: an empty one serves the next try.
pub fn undo(plan: &Plan, begun: usize) -> Vec<Undo> {
    let mut steps: Vec<Undo> = plan.revocable().take(begun).filter_map(inverse).collect();
    steps.reverse();
    steps
}

/// One step back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// Do this step.
    Step(Step),
    /// Remove a folder that was made.
    RemoveFolder(std::path::PathBuf),
}

fn inverse(step: &Step) -> Option<Undo> {
    match step {
        Step::Boot { container } | Step::Once { container } => {
            let grace = Millis::seconds(1).min(container.settings.grace);
            Some(Undo::Step(Step::Remove {
                server: container.server.clone(),
                container: container.name.clone(),
                grace,
            }))
        }
        Step::Stop { server, container, .. } => {
            Some(Undo::Step(Step::Start { server: server.clone(), container: container.clone() }))
        }
        Step::Site { folder, .. } => Some(Undo::RemoveFolder(folder.clone())),
        Step::Fetch { .. }
        | Step::Network { .. }
        | Step::Start { .. }
        | Step::Await { .. }
        | Step::Hook { .. }
        | Step::Route { .. }
        | Step::Unroute { .. }
        | Step::Drain { .. }
        | Step::Remove { .. }
        | Step::RemoveNetwork { .. }
        | Step::Sweep { .. } => None,
    }
}
