//! Builds what should run and has no image any more: after a restore without images, or when a person has removed them.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::hq::deploy::Request;
use crate::hq::rights::Access;
use crate::hq::{Hq, HqError};
use crate::launch::label;
use crate::launch::record::Cause;
use crate::names::StackName;

impl Hq {
    /// Deploys the commit that serves once more, for each stack of which nothing runs and an image is gone. What cannot
    /// be built is told in the log, and a push makes good for it.
    pub async fn build_anew(self: Arc<Self>) {
        let stacks = match self.known_stacks().await {
            Ok(stacks) => stacks,
            Err(error) => return tracing::warn!(%error, "the stacks cannot be listed"),
        };
        for stack in stacks {
            match self.lacks_images(&stack).await {
                Ok(false) => {}
                Ok(true) => match self.build_stack_anew(&stack).await {
                    Ok(()) => tracing::info!(%stack, "its images were gone and are built again"),
                    Err(error) => tracing::error!(%stack, error = ?error, "its images are gone and cannot be built"),
                },
                Err(error) => tracing::warn!(%stack, error = ?error, "it is not known whether its images are there"),
            }
        }
    }

    async fn lacks_images(&self, stack: &StackName) -> Result<bool, HqError> {
        let procs = self.procs(stack).await?;
        let of_stack = Some(stack.as_str());
        let runs = |seen: &crate::hq::fleet::Seen| {
            let labels = &seen.container.labels;
            labels.get(label::HQ) == Some(&self.launcher.identity.id)
                && labels.get(label::STACK).map(String::as_str) == of_stack
        };
        if procs.iter().all(|proc| proc.count == 0) || self.containers().await?.iter().any(runs) {
            return Ok(false);
        }
        for proc in procs.iter().filter(|proc| proc.count > 0) {
            if self.engines().local().image(proc.settings.image.as_str()).await?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn build_stack_anew(self: &Arc<Self>, stack: &StackName) -> Result<(), HqError> {
        let _turn = self.turn(stack, "the build of images that are gone", &|_| {}).await;
        // Somebody may have pushed meanwhile.
        if !self.lacks_images(stack).await? {
            return Ok(());
        }
        let current = self.current(stack).await?;
        let Some(commit) = current.commit.clone() else { return Ok(()) };
        let cause = Cause::Deploy(commit.short().to_owned());
        let access = Access::full(current.user);
        let request = Request { stack: stack.clone(), commit, branch: None, cause, access };
        let log = |line: &str| tracing::debug!(%stack, line);
        self.deploy(request, CancellationToken::new(), &log).await.map(drop)
    }
}
