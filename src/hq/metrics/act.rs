//! Asks every container's engine what the container uses.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;

use crate::docker::passing::Content;
use crate::docker::{Asked, Usage};
use crate::hq::Hq;
use crate::hq::fleet::Seen;
use crate::names::{ContainerName, ServerName};

/// How many are asked at the same time.
const AT_ONCE: usize = 32;

/// How long one is waited for; who is slower has no figures this time.
const PATIENCE: Duration = Duration::from_secs(3);

impl Hq {
    /// What these containers use, as far as their engines say.
    pub async fn usage(&self, containers: &[Seen]) -> BTreeMap<(ServerName, ContainerName), Usage> {
        let asked = stream::iter(containers.to_vec()).map(|seen| async move {
            let usage = timeout(PATIENCE, self.usage_of(&seen)).await.ok()??;
            Some(((seen.server, seen.container.name), usage))
        });
        asked.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
    }

    async fn usage_of(&self, seen: &Seen) -> Option<Usage> {
        let target = format!("/containers/{}/stats?stream=false&one-shot=true", seen.container.id);
        let answered = self.engines().of(&seen.server).ok()?.pass(Asked::get(target)).await.ok()?;
        let Content::Body(chunks) = answered.content else { return None };
        Usage::parse(&chunks.try_collect::<Vec<_>>().await.ok()?.concat())
    }
}
