//! What holds when nothing goes wrong any more and everything has had its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quarry::db::{Db, layout};
use quarry::docker::{Network, State};
use quarry::hq::cloud::rental::Stage;
use quarry::hq::reconcile::drift;
use quarry::hq::{Hq, HqError};
use quarry::instruction::Instruction;
use quarry::launch::plan::plan;
use quarry::launch::{Plan, label};
use quarry::names::StackName;
use quarry::units::Megabytes;

use super::World;
use super::acts::STACKS;
use super::machine::Machine;
use super::operations::named;
use super::promises::see;
use super::pushes::SIZE;

impl World {
    /// What is not at rest yet, or not as promised.
    ///
    /// # Errors
    /// When HQ cannot be asked.
    pub async fn unrest(self: &Arc<Self>, hq: &Arc<Hq>) -> Result<Option<String>, HqError> {
        let journals = layout::all(&*self.tree, layout::JOURNALS).await?;
        if let Some(journal) = journals.first() {
            return Ok(Some(format!("{}: {}", journal.key, String::from_utf8_lossy(&journal.value))));
        }
        let mut known = BTreeSet::new();
        for stack in (0..STACKS).map(named) {
            let seen = see(hq, &stack).await?;
            if let Some(wrong) = self.not_promised(&stack, &seen) {
                return Ok(Some(wrong));
            }
            let wrong = match seen {
                Some(_) => {
                    known.insert(stack.clone());
                    self.unrest_of(hq, &stack).await?
                }
                None => self.left_of(hq, &stack).await?,
            };
            if wrong.is_some() {
                return Ok(wrong);
            }
        }
        let existing = hq.stack_names().await?;
        let members = self.members_of(hq);
        Ok(self.orphans(&members, &known, &existing).or(self.unrest_of_rented(hq).await?))
    }

    /// The machines that are servers of an HQ.
    fn members_of(&self, hq: &Hq) -> Vec<Arc<Machine>> {
        let members = hq.members();
        let at = |machine: &Arc<Machine>| members.values().any(|member| member.ground.address == machine.address);
        self.machines().into_iter().filter(at).collect()
    }

    /// What is rented serves, and what is empty is given back.
    async fn unrest_of_rented(&self, hq: &Hq) -> Result<Option<String>, HqError> {
        let rentals = hq.rentals().await?;
        if let Some((server, rental)) = rentals.iter().find(|(_, rental)| rental.stage != Stage::Serving) {
            return Ok(Some(format!("{server} is {:?}", rental.stage)));
        }
        let standing: BTreeSet<_> = self.cloud.standing().into_iter().map(|order| order.token).collect();
        let known: BTreeSet<_> = rentals.values().map(|rental| rental.token.clone()).collect();
        if standing != known {
            return Ok(Some(format!("{standing:?} are rented, and HQ knows of {known:?}")));
        }
        let strangers = hq.sizing.strangers();
        if !strangers.is_empty() {
            return Ok(Some(format!("HQ knows nothing of {strangers:?}")));
        }
        let homes = hq.homes().await?;
        let empty = rentals.iter().find(|(server, rental)| {
            let machine = self.rented(&rental.token).unwrap();
            // One more container must find room elsewhere.
            let others = self.members_of(hq).into_iter().filter(|other| other.address != machine.address);
            let room = others.into_iter().any(|other| other.size.0 >= other.used().0 + SIZE.0);
            machine.used() == Megabytes(0) && room && !homes.contains_key(*server)
        });
        Ok(empty.map(|(server, _)| format!("{server} is rented for nothing")))
    }

    /// A stack runs what it should, and neither its drift nor its own release has anything left to do.
    async fn unrest_of(&self, hq: &Arc<Hq>, stack: &StackName) -> Result<Option<String>, HqError> {
        let Some(current) = hq.releases(stack).await?.pop() else { return Ok(None) };
        let world = hq.world(stack, current.number, current.env_version).await?;
        let drifts = drift(&world);
        if !drifts.is_empty() {
            return Ok(Some(format!("{stack} drifts: {drifts:?}\n{:?}", world.instances)));
        }
        let counted = |mut instruction: Instruction| {
            if let Instruction::Deploy { node, count, .. } = &mut instruction {
                *count = world.procs.get(node).map_or(*count, |proc| proc.count);
            }
            instruction
        };
        let second = plan(&current.instructions.into_iter().map(counted).collect::<Vec<_>>(), &world)?;
        if steps(&second) > 0 {
            return Ok(Some(format!("a second plan of {stack} does something: {second:?}")));
        }
        let kept: Option<quarry::router::StackRoutes> = layout::read_json(&*self.tree, &layout::routes(stack)).await?;
        let served = self.edge.look(|tables| tables.get(stack).cloned());
        if kept != served {
            return Ok(Some(format!("{stack}: the tree has {kept:?} and the router serves {served:?}")));
        }
        let mut running: BTreeMap<String, u32> = BTreeMap::new();
        for machine in self.members_of(hq) {
            machine.engine.each(|container, _| {
                if container.labels.get(label::STACK).map(String::as_str) == Some(stack.as_str()) {
                    let node = container.labels[label::NODE].clone();
                    *running.entry(node).or_default() += if container.state == State::Running { 1 } else { 100 };
                }
            });
        }
        let wanted: BTreeMap<String, u32> =
            world.procs.values().filter(|proc| proc.count > 0).map(|p| (p.node.to_string(), p.count)).collect();
        Ok((running != wanted).then(|| format!("{stack} should run {wanted:?} and runs {running:?}")))
    }

    /// Nothing of a stack that is gone is left.
    async fn left_of(&self, hq: &Arc<Hq>, stack: &StackName) -> Result<Option<String>, HqError> {
        if let Some(table) = self.edge.look(|tables| tables.get(stack).cloned()) {
            return Ok(Some(format!("{stack} is gone and routed: {table:?}")));
        }
        let mut kept = layout::all(&*self.tree, &layout::proc_prefix(stack)).await?;
        kept.extend(self.tree.read(&layout::routes(stack)).await?);
        if let Some(entry) = kept.first() {
            return Ok(Some(format!("{stack} is gone and {} is there", entry.key)));
        }
        let exists = hq.stack_names().await?.contains(stack);
        let below = layout::all(&*self.tree, &layout::stack(stack)).await?;
        if let Some(entry) = below.first().filter(|_| !exists) {
            return Ok(Some(format!("{stack} is gone and {} is there", entry.key)));
        }
        let folders = ["stacks", "volumes", "sites"].map(|folder| self.root.path().join(folder).join(stack.as_str()));
        let mut left = folders.iter().filter_map(|folder| folder.read_dir().ok()?.next()?.ok());
        let left = left.next().filter(|_| !exists);
        Ok(left.map(|left| format!("{stack} is gone and {} is there", left.path().display())))
    }

    /// No container or network belongs to nobody.
    fn orphans(
        &self,
        members: &[Arc<Machine>],
        known: &BTreeSet<StackName>,
        existing: &BTreeSet<StackName>,
    ) -> Option<String> {
        let among = |labels: &BTreeMap<String, String>, stacks: &BTreeSet<StackName>| {
            let stack = labels.get(label::STACK).and_then(|text| text.parse::<StackName>().ok());
            stack.is_some_and(|stack| stacks.contains(&stack))
        };
        for machine in members {
            let mut found = None;
            machine.engine.each(|container, _| {
                if !among(&container.labels, known) {
                    found = Some(format!("{} belongs to nobody", container.name));
                }
            });
            // A stack that never came about keeps its network for its next try.
            let gone = |network: &Network| !among(&network.labels, existing);
            let network = machine.engine.all_networks().into_iter().find(gone);
            found = found.or(network.map(|network| format!("the network {} belongs to nobody", network.name)));
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

fn steps(plan: &Plan) -> usize {
    plan.stage.len() + plan.switch.len() + plan.route.len() + plan.retire.len()
}
