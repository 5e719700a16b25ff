//! Gathers the world a plan is made in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::{Found, Reserved, counts, is_unseen, replace_namesakes, replace_sick, unseen};
use crate::db::{DbError, Guard, layout};
use crate::grid::Architecture;
use crate::hq::{Hq, HqError};
use crate::instruction::Instruction;
use crate::launch::plan::PlanError;
use crate::launch::world::{Footing, World, instance};
use crate::launch::{Proc, address};
use crate::names::{ImageId, NodeName, ReleaseNumber, ServerName, StackName};

/// Nodes by the server that alone has their data.
type Homes = BTreeMap<ServerName, BTreeSet<(StackName, NodeName)>>;

impl Hq {
    /// The world of one stack as it is now.
    ///
    /// # Errors
    /// When docker or the tree cannot be read, or no subnet is left.
    pub async fn world(&self, stack: &StackName, release: ReleaseNumber, env_version: u64) -> Result<World, HqError> {
        self.gather(stack, release, env_version, &Reserved::default()).await
    }

    /// The same, with what launches under way have been promised.
    ///
    /// # Errors
    /// As [`Hq::world`].
    pub async fn gather(
        &self,
        stack: &StackName,
        release: ReleaseNumber,
        env_version: u64,
        reserved: &Reserved,
    ) -> Result<World, HqError> {
        let identity = &self.launcher.identity;
        // Before the survey: a container that is on its way out when the journal is read may be gone or there in the
        // survey, but one that was seen and has left both the server and the journal since would count as standing.
        let journal = self.book(stack).await?.read().await;
        let (survey, tables, procs) =
            tokio::try_join!(self.survey(), async { self.tables_around(stack).await.map_err(HqError::from) }, async {
                self.procs(stack).await.map_err(HqError::from)
            },)?;
        let procs: BTreeMap<NodeName, Proc> = procs.into_iter().map(|proc| (proc.node.clone(), proc)).collect();
        let going = journal.going();
        let found = survey.containers.iter();
        let found = found.filter_map(|seen| instance(&seen.server, &seen.container, identity, stack));
        let mut found: Vec<_> = found.filter(|found| counts(found, &survey.gone, &procs)).collect();
        found.sort_by(|a, b| (&a.node, a.index).cmp(&(&b.node, b.index)));
        let (mut leaving, mut instances): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|instance| going.contains(&(&instance.server, &instance.name)));
        replace_namesakes(&mut instances);
        replace_sick(&mut instances, &self.sick());
        leaving.extend(going.into_iter().filter(|going| is_unseen(going, &survey)).filter_map(unseen));
        let seen = survey.containers.iter().map(|seen| &seen.container.name);
        let names = seen.chain(leaving.iter().map(|instance| &instance.name)).cloned().collect();
        let promised = self.promised().await?;
        let found = Found { survey: &survey, tables: &tables, promised: &promised, reserved };
        Ok(World {
            identity: identity.clone(),
            stack: stack.clone(),
            release,
            env_version,
            instances,
            leaving,
            names,
            procs,
            data: self.data(stack).await?,
            servers: self.footings(&found, stack).await?,
            here: self.engines().here().clone(),
            built: BTreeMap::new(),
            routes: tables.into_iter().find(|table| table.stack == *stack),
            front: self.front(stack).await?,
            sites: self.sites_folder(stack, release),
            exchange: self.exchange().await?,
            overbook: self.sizing.overbook(),
            waits: false,
        })
    }

    /// On which server the volumes of a stack's nodes lie, also of nodes that have ended.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn data(&self, stack: &StackName) -> Result<BTreeMap<NodeName, ServerName>, HqError> {
        Ok(layout::read_json(&*self.db, &layout::data(stack)).await?.unwrap_or_default())
    }

    /// The nodes of all stacks whose data is on one server alone, by that server: those that run, those that rest, and
    /// those that have ended and may come back to it.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn homes(&self) -> Result<Homes, HqError> {
        self.homes_of(&self.all_procs().await?).await
    }

    /// The same, with all nodes at hand.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub(in crate::hq) async fn homes_of(
        &self,
        procs: &BTreeMap<(StackName, NodeName), Proc>,
    ) -> Result<Homes, HqError> {
        let mut homes = Homes::new();
        for ((stack, node), proc) in procs.iter().filter(|(_, proc)| proc.is_fixed()) {
            if let Some(home) = &proc.home {
                homes.entry(home.clone()).or_default().insert((stack.clone(), node.clone()));
            }
        }
        for stack in self.known_stacks().await? {
            for (node, home) in self.data(&stack).await? {
                homes.entry(home).or_default().insert((stack.clone(), node));
            }
        }
        Ok(homes)
    }

    /// Every node that should run, of all stacks.
    pub(in crate::hq) async fn all_procs(&self) -> Result<BTreeMap<(StackName, NodeName), Proc>, DbError> {
        let mut procs = BTreeMap::new();
        for stack in self.known_stacks().await? {
            procs.extend(self.procs(&stack).await?.into_iter().map(|proc| ((stack.clone(), proc.node.clone()), proc)));
        }
        Ok(procs)
    }

    /// Notes where the volumes of these lie, for the day when they have ended and are wanted again.
    ///
    /// # Errors
    /// When the tree cannot be read or written.
    pub async fn note_data(&self, stack: &StackName, procs: impl Iterator<Item = &Proc>) -> Result<(), HqError> {
        let known = self.data(stack).await?;
        let keeping = procs.filter(|proc| proc.settings.fixed || !proc.settings.volumes.is_empty());
        let lies = keeping.filter_map(|proc| Some((proc.node.clone(), proc.home.clone()?)));
        let now: BTreeMap<_, _> = known.clone().into_iter().chain(lies).collect();
        if now != known {
            layout::put_json(&*self.db, &layout::data(stack), &now, Guard::Any).await?;
        }
        Ok(())
    }

    /// Where the services of all stacks are reached from other servers. A damaged record is a person's to mend, and stops
    /// no other stack.
    async fn promised(&self) -> Result<Vec<SocketAddr>, HqError> {
        let entries = layout::all(&*self.db, layout::PROCS).await?;
        let procs = entries.iter().filter_map(|entry| layout::parse_json::<Proc>(&*self.db, entry).ok());
        Ok(procs.flat_map(|proc| proc.published).map(|(_, at)| at).collect())
    }

    /// Notes what the images were built for that these instructions may launch. One server runs what it has built.
    ///
    /// # Errors
    /// When HQ's own engine does not answer.
    pub async fn note_architectures(&self, instructions: &[Instruction], world: &mut World) -> Result<(), HqError> {
        if world.servers.len() < 2 {
            return Ok(());
        }
        let mut images: BTreeSet<ImageId> = world.procs.values().map(|proc| proc.settings.image.clone()).collect();
        images.extend(instructions.iter().filter_map(Instruction::settings).map(|settings| settings.image.clone()));
        for image in images {
            let known = self.engines().local().image(image.as_str()).await?;
            let built = known.map(|image| image.architecture).filter(|architecture| !architecture.is_empty());
            world.built.extend(built.map(|architecture| (image, Architecture::from(architecture))));
        }
        Ok(())
    }

    /// What a stack finds on each server that answers.
    async fn footings(&self, found: &Found<'_>, stack: &StackName) -> Result<BTreeMap<ServerName, Footing>, HqError> {
        let name = self.launcher.identity.network(stack);
        let mut grid = self.grid_of(&found.survey.containers, &self.going().await);
        let mut footings = BTreeMap::new();
        for (server, member) in self.members() {
            let Some(networks) = found.survey.networks.get(&server) else { continue };
            let network = networks.iter().find(|network| network.name == name);
            let subnet = match network {
                Some(network) => network.subnet.clone(),
                None => {
                    let mut taken = found.reserved.subnets_of(&server);
                    taken.extend(networks.iter().map(|network| network.subnet.clone()));
                    match address::subnet(&self.settings.subnets.to_string(), &taken) {
                        Ok(subnet) => subnet,
                        // Another server takes the stack.
                        Err(_) if server != *self.engines().here() => continue,
                        Err(error) => return Err(PlanError::from(error).into()),
                    }
                }
            };
            let mut slice = grid.slices.remove(&server).unwrap_or_else(|| member.slice());
            found.reserved.fill(&server, &mut slice);
            let footing = Footing {
                ports_taken: found.ports_taken(&server, &member.ground),
                network_exists: network.is_some(),
                subnet,
                slice,
                ground: member.ground,
            };
            footings.insert(server, footing);
        }
        Ok(footings)
    }
}
