//! Reads and changes rights.

use std::collections::BTreeMap;

use super::{Access, Right, Rights, RightsError};
use crate::db::{DbError, Guard, layout};
use crate::hq::door::{Caller, Origin};
use crate::hq::status::Status;
use crate::hq::{Hq, HqError};
use crate::names::{StackName, UserName};

impl Hq {
    /// What a caller may. Whoever comes by HQ's own socket owns the machine.
    ///
    /// # Errors
    /// When the tree cannot be read, or what it says of the person is damaged.
    pub async fn access(&self, caller: &Caller) -> Result<Access, DbError> {
        let user = caller.user.clone();
        Ok(match caller.from {
            Origin::Socket => Access::full(user),
            Origin::Address(_) => {
                let rights = self.rights_of(&user).await?;
                Access::new(user, rights)
            }
        })
    }

    /// What is kept of a person.
    ///
    /// # Errors
    /// When the tree cannot be read, or the record is damaged.
    pub async fn rights_of(&self, user: &UserName) -> Result<Rights, DbError> {
        Ok(layout::read_json(&*self.db, &layout::rights(user)).await?.unwrap_or_default())
    }

    /// What is kept of everybody. A damaged record is left out with a warning: it gives nobody a right.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn all_rights(&self) -> Result<BTreeMap<UserName, Rights>, DbError> {
        let mut all = BTreeMap::new();
        for entry in layout::all(&*self.db, layout::RIGHTS).await? {
            let user = entry.key.last().strip_suffix(".json").and_then(|name| name.parse::<UserName>().ok());
            match (user, serde_json::from_slice(&entry.value)) {
                (Some(user), Ok(rights)) => drop(all.insert(user, rights)),
                _ => tracing::warn!(key = %entry.key, "this record of rights is damaged and gives none"),
            }
        }
        Ok(all)
    }

    /// The stack, for somebody who may do this with it.
    ///
    /// # Errors
    /// [`HqError::NoStack`], [`RightsError::Hidden`], which reads the same, or [`RightsError::TooLittle`].
    pub async fn check_right(&self, access: &Access, stack: &StackName, needed: Right) -> Result<Status, HqError> {
        let status = self.status(stack).await?;
        match access.on(stack, &status.owner) {
            None => Err(RightsError::Hidden(stack.clone()).into()),
            Some(has) if has < needed => {
                let (user, stack) = (access.user.clone(), stack.clone());
                Err(RightsError::TooLittle { user, stack, has, needed }.into())
            }
            Some(_) => Ok(status),
        }
    }

    /// Gives a person a right on a stack; tells what they had.
    ///
    /// # Errors
    /// [`RightsError::Owner`], or when the tree cannot be written.
    pub async fn grant(&self, user: &UserName, stack: &StackName, right: Right) -> Result<Option<Right>, HqError> {
        self.check_not_owner(user, stack).await?;
        self.change_rights(user, |rights| rights.stacks.insert(stack.clone(), right)).await
    }

    /// Takes a person's right on a stack away; tells which it was.
    ///
    /// # Errors
    /// [`RightsError::Owner`], [`RightsError::None`], or when the tree cannot be written.
    pub async fn revoke(&self, user: &UserName, stack: &StackName) -> Result<Right, HqError> {
        self.check_not_owner(user, stack).await?;
        let had = self.change_rights(user, |rights| rights.stacks.remove(stack)).await?;
        had.ok_or_else(|| RightsError::None { user: user.clone(), stack: stack.clone() }.into())
    }

    /// Makes a person an operator, or no longer; tells whether they were one.
    ///
    /// # Errors
    /// When the tree cannot be written.
    pub async fn set_operator(&self, user: &UserName, operator: bool) -> Result<bool, HqError> {
        self.change_rights(user, |rights| std::mem::replace(&mut rights.operator, operator)).await
    }

    /// Gives a stack another owner, in the stack's turn.
    ///
    /// # Errors
    /// When there is no such stack, or the tree cannot be written.
    pub async fn transfer(&self, stack: &StackName, user: &UserName) -> Result<(), HqError> {
        let status = Status { owner: user.clone(), ..self.status(stack).await? };
        Ok(layout::put_json(&*self.db, &layout::status(stack), &status, Guard::Any).await?)
    }

    /// Nobody has a right on a stack any more: the next one of this name is another one.
    ///
    /// # Errors
    /// When the tree cannot be read or written.
    pub(in crate::hq) async fn forget_rights(&self, stack: &StackName) -> Result<(), HqError> {
        for (user, rights) in self.all_rights().await? {
            if rights.stacks.contains_key(stack) {
                self.change_rights(&user, |rights| rights.stacks.remove(stack)).await?;
            }
        }
        Ok(())
    }

    async fn check_not_owner(&self, user: &UserName, stack: &StackName) -> Result<(), HqError> {
        match self.status(stack).await?.owner == *user {
            true => Err(RightsError::Owner { user: user.clone(), stack: stack.clone() }.into()),
            false => Ok(()),
        }
    }

    async fn change_rights<T>(
        &self,
        user: &UserName,
        change: impl FnOnce(&mut Rights) -> T + Send,
    ) -> Result<T, HqError> {
        let _alone = self.rights_change.lock().await;
        let before = self.rights_of(user).await?;
        let mut rights = before.clone();
        let answer = change(&mut rights);
        let key = layout::rights(user);
        if rights == Rights::default() {
            self.db.delete(&key, Guard::Any).await?;
        } else if rights != before {
            layout::put_json(&*self.db, &key, &rights, Guard::Any).await?;
        }
        Ok(answer)
    }
}
