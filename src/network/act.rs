//! Puts a policy in force on this machine, takes it back, and sees whether it still stands.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::files::machine::{self, MachineError};
use super::files::state::{self, Alone, Applied, State, StateError, Trial};
use super::nft::{self, NftError};
use super::policy::Policy;
use super::rules::{self, Force, Machine, Table};
use super::wall::Wall;

use crate::units::hex::sha256;

/// How long HQ has to reach a server again after its rules have changed.
pub const TRIAL: Duration = Duration::from_secs(15);

/// Why rules were not put in force or looked at.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// nftables.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The state on the disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// The interfaces.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Something else is on trial, or nothing is.
    #[error("no rules are on trial under `{0}`; apply them again")]
    NotOnTrial(String),
    /// The old rules are back.
    #[error("the trial is over and the rules before it count again; apply the new ones once more")]
    Over,
}

/// How the rules of this machine stand.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing is refused, and nothing should be.
    Off,
    /// As they were applied.
    Applied,
    /// New ones are being tried and wait for [`Locknet::confirm`] with this id.
    Trial(String),
    /// A trial was not confirmed: the rules before it count again. [`Locknet::restore`] clears away behind it.
    RolledBack,
    /// Somebody or a reboot took them away or changed them, or the machine's interfaces changed:
    /// [`Locknet::restore`] applies them again.
    Changed,
}

/// What applying came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// They are in force until the time is over, or for good once this id is confirmed.
    Trial(String),
    /// They were confirmed before, and are in force.
    Already,
}

/// The rules of this machine.
#[derive(Debug, Clone)]
pub struct Locknet {
    state: State,
}

impl Locknet {
    /// With its state in `network` below quarry's folder.
    pub fn new(root: &Path) -> Self {
        Self { state: State::new(root) }
    }

    /// The policy that was confirmed last; `None` when there is none.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn policy(&self) -> Result<Option<Policy>, NetworkError> {
        Ok(self.state.policy()?)
    }

    /// Puts the policy in force for so long. If nobody confirms it until then, the one before counts again: the kernel
    /// sees to that, whatever becomes of this process. A trial under way is replaced, the policy before it stays the
    /// one that comes back.
    ///
    /// # Errors
    /// Then what was in force is.
    pub async fn apply(&self, policy: &Policy, time: Duration) -> Result<Came, NetworkError> {
        let _alone = self.alone().await?;
        let (old, standing) = (self.state.policy()?, self.standing().await?);
        if old.as_ref() == Some(policy) {
            if standing != Standing::Applied {
                self.keep(policy).await?;
            }
            return Ok(Came::Already);
        }
        // What comes back after a trial has to be there first.
        match (standing, &old) {
            (Standing::RolledBack | Standing::Changed, Some(old)) => self.keep(old).await?,
            (Standing::RolledBack | Standing::Changed, None) => self.remove().await?,
            (Standing::Off | Standing::Applied | Standing::Trial(_), _) => {}
        }
        self.try_out(policy, time).await
    }

    async fn try_out(&self, policy: &Policy, time: Duration) -> Result<Came, NetworkError> {
        let machine = machine::machine()?;
        let (tables, before) = (nft::tables().await?, self.state.trial()?);
        let trial = Trial { id: state::fresh_id(), policy: policy.clone(), table: next(&tables) };
        self.state.keep_trial(Some(&trial))?;
        if let Err(error) = add(trial.table, policy, &machine, Force::Trial(time)).await {
            self.state.keep_trial(before.as_ref())?;
            return Err(error.into());
        }
        let abandoned: BTreeSet<Table> = before.iter().map(|before| before.table).collect();
        let suspend = tables.difference(&abandoned).map(|table| rules::force(*table, Force::Suspended(time)));
        let give_up = tables.intersection(&abandoned).map(|table| rules::force(*table, Force::Never));
        nft::load(&suspend.chain(give_up).collect::<String>()).await?;
        nft::load(&removals(tables.intersection(&abandoned))).await?;
        Ok(Came::Trial(trial.id))
    }

    /// Keeps the policy on trial for good.
    ///
    /// # Errors
    /// Nothing is on trial under this id, its time is over, or it cannot be kept; then the trial goes on to its end.
    pub async fn confirm(&self, id: &str) -> Result<(), NetworkError> {
        let _alone = self.alone().await?;
        let trial = self.state.trial()?.filter(|trial| trial.id == id);
        let Some(trial) = trial else { return Err(NetworkError::NotOnTrial(id.to_owned())) };
        if !nft::on_trial(trial.table).await? {
            return Err(NetworkError::Over);
        }
        let before = self.state.policy()?;
        self.state.keep_policy(Some(&trial.policy))?;
        if let Err(error) = nft::load(&rules::force(trial.table, Force::Standing)).await {
            self.state.keep_policy(before.as_ref())?;
            return Err(error.into());
        }
        nft::load(&format!("delete set inet {} {}\n", trial.table, rules::TRIAL)).await?;
        let mut others = nft::tables().await?;
        others.remove(&trial.table);
        self.settle(&trial.policy, trial.table, &others).await
    }

    /// Puts the policy in force for good, without a trial.
    ///
    /// # Errors
    /// Then what was in force is.
    pub async fn put(&self, policy: &Policy) -> Result<(), NetworkError> {
        let _alone = self.alone().await?;
        self.keep(policy).await
    }

    /// Makes the kernel's rules those that were confirmed last: after a reboot, after somebody's change, after a trial
    /// that was not confirmed. One under way is left alone.
    ///
    /// # Errors
    /// Then the rules are as they were.
    pub async fn restore(&self) -> Result<Standing, NetworkError> {
        let _alone = self.alone().await?;
        match self.standing().await? {
            Standing::RolledBack | Standing::Changed => {}
            standing @ (Standing::Off | Standing::Applied | Standing::Trial(_)) => return Ok(standing),
        }
        match self.state.policy()? {
            Some(policy) => {
                self.keep(&policy).await?;
                Ok(Standing::Applied)
            }
            None => {
                self.remove().await?;
                Ok(Standing::Off)
            }
        }
    }

    /// Refuses nothing any more.
    ///
    /// # Errors
    /// The table cannot be removed.
    pub async fn off(&self) -> Result<(), NetworkError> {
        let _alone = self.alone().await?;
        self.remove().await
    }

    /// Whether the rules stand as applied.
    ///
    /// # Errors
    /// The kernel's rules or the state cannot be read.
    pub async fn check(&self) -> Result<Standing, NetworkError> {
        let _alone = self.alone().await?;
        self.standing().await
    }

    async fn alone(&self) -> Result<Alone, NetworkError> {
        let state = self.state.clone();
        let alone = tokio::task::spawn_blocking(move || state.alone()).await;
        Ok(alone.expect("waiting for a lock does not panic")?)
    }

    async fn standing(&self) -> Result<Standing, NetworkError> {
        let (policy, trial, tables) = (self.state.policy()?, self.state.trial()?, nft::tables().await?);
        // A trial that was confirmed may have been cut off before it was forgotten.
        let trial = trial.filter(|trial| policy.as_ref() != Some(&trial.policy) && tables.contains(&trial.table));
        if let Some(trial) = trial {
            let goes_on = nft::on_trial(trial.table).await?;
            return Ok(if goes_on { Standing::Trial(trial.id) } else { Standing::RolledBack });
        }
        let Some(policy) = policy else {
            return Ok(if tables.is_empty() { Standing::Off } else { Standing::Changed });
        };
        let Some(applied) = self.state.applied()?.filter(|applied| tables.iter().eq([&applied.table])) else {
            return Ok(Standing::Changed);
        };
        let now = self.now(&policy, applied.table).await?;
        Ok(if applied == now { Standing::Applied } else { Standing::Changed })
    }

    /// What would be noted if the policy had been applied as that table.
    async fn now(&self, policy: &Policy, table: Table) -> Result<Applied, NetworkError> {
        let text = rules::table(table, policy, &machine::machine()?);
        let listing = nft::listing(table).await?.unwrap_or_default();
        Ok(Applied { table, text: sha256(&text), listing: sha256(&listing) })
    }

    /// The policy goes to the disk first: cut off in between, it was decided, and [`Locknet::restore`] carries it out.
    async fn keep(&self, policy: &Policy) -> Result<(), NetworkError> {
        let others = nft::tables().await?;
        let table = next(&others);
        let machine = machine::machine()?;
        let before = self.state.policy()?;
        self.state.keep_policy(Some(policy))?;
        if let Err(error) = add(table, policy, &machine, Force::Standing).await {
            self.state.keep_policy(before.as_ref())?;
            return Err(error.into());
        }
        self.settle(policy, table, &others).await
    }

    /// Only this table is left of all.
    async fn settle(&self, policy: &Policy, table: Table, others: &BTreeSet<Table>) -> Result<(), NetworkError> {
        self.drop_tables(others).await?;
        self.state.keep_trial(None)?;
        let applied = self.now(policy, table).await?;
        Ok(self.state.keep_applied(Some(&applied))?)
    }

    async fn remove(&self) -> Result<(), NetworkError> {
        self.state.keep_policy(None)?;
        self.drop_tables(&nft::tables().await?).await?;
        self.state.keep_trial(None)?;
        Ok(self.state.keep_applied(None)?)
    }

    /// First no packet asks them any more, then they go.
    async fn drop_tables(&self, tables: &BTreeSet<Table>) -> Result<(), NetworkError> {
        for table in tables {
            // One that somebody took a chain from has nothing to end.
            match nft::load(&rules::force(*table, Force::Never)).await {
                Ok(()) | Err(NftError::Refused(_)) => {}
                Err(error @ (NftError::Missing | NftError::Run(_))) => return Err(error.into()),
            }
        }
        Ok(nft::load(&removals(tables)).await?)
    }
}

/// Puts a wall up, or changes the one that stands. What somebody else has put in its place goes.
///
/// # Errors
/// Then what stood stands.
pub async fn build(wall: &Wall) -> Result<(), NftError> {
    match nft::load(&wall.text()).await {
        Err(NftError::Refused(_)) => nft::load(&(wall.removal() + &wall.text())).await,
        other => other,
    }
}

async fn add(table: Table, policy: &Policy, machine: &Machine, force: Force) -> Result<(), NftError> {
    nft::load(&rules::table(table, policy, machine)).await?;
    nft::load(&rules::force(table, force)).await
}

fn next(tables: &BTreeSet<Table>) -> Table {
    // After the last number comes the first again; its table has been gone for as long.
    let last = tables.last().map_or(0, |table| table.0);
    Table(last.checked_add(1).unwrap_or(1))
}

fn removals<'a>(tables: impl IntoIterator<Item = &'a Table>) -> String {
    tables.into_iter().map(|table| rules::removal(*table)).collect()
}
