//! Puts a policy in force on this machine, takes it back, and sees whether it still stands.

use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::files::machine::{self, MachineError};
use super::files::state::{self, Alone, Applied, State, StateError, Trial};
use super::nft::{self, NftError};
use super::policy::Policy;
use super::rules::{self, REMOVAL, Rules};

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let old = self.state.policy()?;
        if old.as_ref() == Some(policy) {
            if self.standing().await? != Standing::Applied {
                self.keep(policy).await?;
            }
            return Ok(Came::Already);
        }
        let text = rules::text(&Rules::Trial { new: policy, old: old.as_ref(), time }, &machine::machine()?);
        let before = self.state.trial()?;
        let trial = Trial { id: state::fresh_id(), policy: policy.clone() };
        self.state.keep_trial(Some(&trial))?;
        if let Err(error) = nft::load(&text).await {
            self.state.keep_trial(before.as_ref())?;
            return Err(error.into());
        }
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
        if !nft::on_trial().await? {
            return Err(NetworkError::Over);
        }
        self.keep(&trial.policy).await
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
        let (policy, trial, listing) = (self.state.policy()?, self.state.trial()?, nft::listing().await?);
        // A trial that was confirmed may have been cut off before it was forgotten.
        let trial = trial.filter(|trial| policy.as_ref() != Some(&trial.policy));
        if let (Some(trial), Some(_)) = (trial, &listing) {
            return Ok(if nft::on_trial().await? { Standing::Trial(trial.id) } else { Standing::RolledBack });
        }
        match (policy, listing) {
            (None, None) => Ok(Standing::Off),
            (None, Some(_)) | (Some(_), None) => Ok(Standing::Changed),
            (Some(policy), Some(listing)) => {
                let text = rules::text(&Rules::Standing(&policy), &machine::machine()?);
                let now = Applied { text: digest(&text), listing: digest(&listing) };
                Ok(if self.state.applied()? == Some(now) { Standing::Applied } else { Standing::Changed })
            }
        }
    }

    /// The policy goes to the disk first: cut off in between, it was decided, and [`Locknet::restore`] carries it out.
    async fn keep(&self, policy: &Policy) -> Result<(), NetworkError> {
        let text = rules::text(&Rules::Standing(policy), &machine::machine()?);
        let before = self.state.policy()?;
        self.state.keep_policy(Some(policy))?;
        if let Err(error) = nft::load(&text).await {
            self.state.keep_policy(before.as_ref())?;
            return Err(error.into());
        }
        self.state.keep_trial(None)?;
        let listing = nft::listing().await?.unwrap_or_default();
        let applied = Applied { text: digest(&text), listing: digest(&listing) };
        Ok(self.state.keep_applied(Some(&applied))?)
    }

    async fn remove(&self) -> Result<(), NetworkError> {
        self.state.keep_policy(None)?;
        self.state.keep_trial(None)?;
        self.state.keep_applied(None)?;
        Ok(nft::load(REMOVAL).await?)
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
