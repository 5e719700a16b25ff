//! Why docker's client does not get what it asked for, in the form it knows: a status and a sentence.

use serde_json::{Value, json};

use crate::db::DbError;
use crate::docker::EngineError;
use crate::hq::jobs::JobError;
use crate::hq::rights::RightsError;
use crate::hq::{HqError, chain};

/// A request that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The status of the answer.
    pub status: u16,
    /// What the person reads behind `Error response from daemon:`.
    pub message: String,
}

impl Trouble {
    /// With this status.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// What was asked for is no such thing, or asks for what is not given.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// They may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, message)
    }

    /// It is not there, or kept from them that it is. The client looks for the first words.
    pub fn missing(what: &str, name: &str) -> Self {
        Self::new(404, format!("No such {what}: {}", name.escape_debug()))
    }

    /// It stands in the way of something.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, message)
    }

    /// Quarry has no such thing.
    pub fn absent(message: impl Into<String>) -> Self {
        Self::new(501, message)
    }

    /// A server is away.
    pub fn away(message: impl Into<String>) -> Self {
        Self::new(503, message)
    }

    /// Whether they may not.
    pub fn is_refusal(&self) -> bool {
        self.status == 403
    }

    /// The answer's body.
    pub fn body(&self) -> Value {
        json!({ "message": self.message })
    }
}

impl From<HqError> for Trouble {
    fn from(error: HqError) -> Self {
        let status = match &error {
            HqError::NoStack(_) | HqError::NoNode { .. } | HqError::Rights(RightsError::Hidden(_)) => 404,
            HqError::Job(JobError::None { .. }) => 404,
            HqError::Job(JobError::NoStack) => {
                let advice = "put --label quarry.stack=NAME of one of yours before the image";
                return Self::forbidden(format!("jobs run in the name of a stack: {advice}, or ask an operator"));
            }
            HqError::Rights(_) => 403,
            HqError::Job(JobError::Taken { .. } | JobError::Node { .. }) | HqError::Unsettled(_) => 409,
            HqError::Mistakes(_) | HqError::Compile(_) | HqError::NeverDeployed(_) | HqError::Images(_) => 400,
            HqError::Asleep | HqError::Cancelled => 503,
            // With 404 for an image the client would fetch it and ask again.
            _ => 409,
        };
        Self::new(status, chain(&error))
    }
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        let status = match &error {
            EngineError::Unreachable { .. } => 503,
            EngineError::NoServer { .. } | EngineError::NotFound { .. } => 404,
            EngineError::Conflict { .. } => 409,
            EngineError::Build { .. } | EngineError::Refused { .. } => 500,
        };
        Self::new(status, chain(&error))
    }
}

impl From<DbError> for Trouble {
    fn from(error: DbError) -> Self {
        Self::from(HqError::State(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_from_somebody_reads_as_if_it_were_not_there() {
        let (stack, user) = ("blog".parse().unwrap(), "bob".parse().unwrap());
        let hidden = Trouble::from(HqError::Rights(RightsError::Hidden("blog".parse().unwrap())));
        let missing = Trouble::from(HqError::NoStack("blog".parse().unwrap()));
        assert_eq!(hidden, missing);
        let few = HqError::Rights(RightsError::TooLittle {
            user,
            stack,
            has: crate::hq::rights::Right::View,
            needed: crate::hq::rights::Right::Deploy,
        });
        assert!(Trouble::from(few).is_refusal());
    }

    #[test]
    fn whoever_has_no_stack_learns_how_docker_names_one() {
        let told = Trouble::from(HqError::Job(JobError::NoStack));
        assert!(told.message.contains("--label quarry.stack=NAME"), "{}", told.message);
    }
}
