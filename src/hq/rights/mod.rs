//! Who may do what: what a person holds on each stack, and who is an operator. [`act`] reads and changes it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::etc::Creators;
use crate::names::{StackName, UserName};

pub mod act;

/// What somebody may do with a stack. Each holds what stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// See what it is, what runs and what that prints; fetch its repository.
    View,
    /// Push, scale, run commands, read and set variables.
    Deploy,
    /// Give others rights on it, and take it away.
    Admin,
}

impl Right {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Right::View => "view",
            Right::Deploy => "deploy",
            Right::Admin => "admin",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Right {
    type Err = RightsError;
    fn from_str(text: &str) -> Result<Self, RightsError> {
        let known = [Right::View, Right::Deploy, Right::Admin];
        known.into_iter().find(|right| right.word() == text).ok_or_else(|| RightsError::Word(text.to_owned()))
    }
}

/// What is kept of one person: `rights/<user>.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Everything, on every stack and every server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub operator: bool,
    /// By stack. The owner of a stack needs no entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stacks: BTreeMap<StackName, Right>,
}

/// One who asks, with what they may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who.
    pub user: UserName,
    rights: Rights,
}

impl Access {
    /// Somebody with these rights.
    pub fn new(user: UserName, rights: Rights) -> Self {
        Self { user, rights }
    }

    /// Whoever is root on HQ's machine.
    pub fn full(user: UserName) -> Self {
        Self::new(user, Rights { operator: true, ..Rights::default() })
    }

    /// Whether everything is allowed.
    pub fn is_operator(&self) -> bool {
        self.rights.operator
    }

    /// What they may do with a stack; nothing when they may not know that there is one.
    pub fn on(&self, stack: &StackName, owner: &UserName) -> Option<Right> {
        if self.rights.operator || self.user == *owner {
            return Some(Right::Admin);
        }
        self.rights.stacks.get(stack).copied()
    }

    /// Refuses all but operators.
    ///
    /// # Errors
    /// [`RightsError::Operator`].
    pub fn check_operator(&self) -> Result<(), RightsError> {
        if self.rights.operator { Ok(()) } else { Err(RightsError::Operator(self.user.clone())) }
    }

    /// Refuses whoever may not make stacks.
    ///
    /// # Errors
    /// [`RightsError::Creation`].
    pub fn check_creation(&self, creators: Creators, stack: &StackName) -> Result<(), RightsError> {
        match creators {
            Creators::Operators if !self.rights.operator => {
                Err(RightsError::Creation { user: self.user.clone(), stack: stack.clone() })
            }
            Creators::Everyone | Creators::Operators => Ok(()),
        }
    }
}

/// Why somebody may not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RightsError {
    /// No right is called that.
    #[error("`{}` is no right; there are view, deploy and admin", .0.escape_debug())]
    Word(String),
    /// It is kept from them that there is such a stack.
    #[error("there is no stack `{0}`; `stacks` lists them")]
    Hidden(StackName),
    /// What they have is not enough.
    #[error(
        "`{user}` may only {} `{stack}`; one of its admins can change that: rights grant {user} {stack} {needed}", did(*.has)
    )]
    TooLittle {
        /// Who.
        user: UserName,
        /// On which stack.
        stack: StackName,
        /// What they may.
        has: Right,
        /// What it takes.
        needed: Right,
    },
    /// What concerns everybody.
    #[error("only operators may do that; root on HQ's machine can make {0} one: quarry rights grant {0} --operator")]
    Operator(UserName),
    /// The name is somebody else's.
    #[error("the name `{0}` is taken; choose another")]
    Taken(StackName),
    /// New stacks are made for people.
    #[error(
        "only operators make new stacks here; ask one for: stacks create {stack}, and: rights grant {user} {stack} deploy"
    )]
    Creation {
        /// Who.
        user: UserName,
        /// Which stack.
        stack: StackName,
    },
    /// The owner needs no right, and cannot lose it.
    #[error("`{user}` owns `{stack}`; to give it to somebody else: stacks transfer {stack} USER")]
    Owner {
        /// Who.
        user: UserName,
        /// Which stack.
        stack: StackName,
    },
    /// There is nothing to take away.
    #[error("`{user}` has no right on `{stack}`; `rights` lists them")]
    None {
        /// Who.
        user: UserName,
        /// Which stack.
        stack: StackName,
    },
}

fn did(right: Right) -> &'static str {
    match right {
        Right::View => "view",
        Right::Deploy => "deploy",
        Right::Admin => "administer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_may_what_the_stack_s_owner_an_admin_or_an_operator_says() {
        let (blog, ada): (StackName, UserName) = ("blog".parse().unwrap(), "ada".parse().unwrap());
        let check = |user: &str, rights: &str, expected: Option<Right>| {
            let access = Access::new(user.parse().unwrap(), serde_json::from_str(rights).unwrap());
            assert_eq!(access.on(&blog, &ada), expected, "{user} {rights}");
        };
        check("ada", "{}", Some(Right::Admin));
        check("bob", "{}", None);
        check("bob", r#"{"stacks":{"shop":"admin"}}"#, None);
        check("bob", r#"{"stacks":{"blog":"view"}}"#, Some(Right::View));
        check("bob", r#"{"stacks":{"blog":"deploy"}}"#, Some(Right::Deploy));
        check("bob", r#"{"operator":true}"#, Some(Right::Admin));
    }

    #[test]
    fn a_right_holds_the_lesser_ones() {
        assert!(Right::Admin > Right::Deploy && Right::Deploy > Right::View);
        for right in [Right::View, Right::Deploy, Right::Admin] {
            assert_eq!(right.word().parse(), Ok(right));
        }
        assert!("owner".parse::<Right>().is_err());
    }

    #[test]
    fn new_stacks_can_be_left_to_operators() {
        let (user, stack): (UserName, StackName) = ("bob".parse().unwrap(), "blog".parse().unwrap());
        let bob = Access::new(user.clone(), Rights::default());
        assert_eq!(bob.check_creation(Creators::Everyone, &stack), Ok(()));
        let refused = RightsError::Creation { user: user.clone(), stack: stack.clone() };
        assert_eq!(bob.check_creation(Creators::Operators, &stack), Err(refused));
        assert_eq!(Access::full(user).check_creation(Creators::Operators, &stack), Ok(()));
    }
}
