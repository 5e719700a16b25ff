//! Image builds, by the classic builder or BuildKit, both through `POST /build`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bollard::moby::buildkit::v1::StatusResponse;
use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters::{BuildImageOptions, PruneBuildOptions};
use bollard::{BollardRequest, body_try_stream};
use futures_util::StreamExt;
use tokio_util::io::ReaderStream;

use super::{Docker, Subject};
use crate::docker::lines::Lines;
use crate::docker::{Archive, BuildRequest, Builder, EngineError, Lane, Say};
use crate::names::ImageId;

/// The context is sent in pieces of this size.
const PIECE: usize = 64 * 1024;

impl Docker {
    pub(super) async fn build_image(
        &self,
        request: BuildRequest,
        context: Archive,
        say: Say<'_>,
    ) -> Result<ImageId, EngineError> {
        let subject = Subject { verb: "build", kind: "image", name: &request.tag };
        // What breaks while the context is read would else come back as "connection closed".
        let broken = Arc::new(Mutex::new(None));
        let body = body_try_stream(ReaderStream::with_capacity(context, PIECE).map({
            let broken = broken.clone();
            move |piece| {
                piece.inspect_err(|error: &std::io::Error| {
                    *broken.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(error.to_string());
                })
            }
        }));
        let client = self.client_on(Lane::Bulk).with_request_modifier(beyond_bollard(&request));
        let mut stream = client.build_image(options(&request), None, Some(body));
        let mut progress = Progress::default();
        let built = loop {
            match self.patient_next(&subject, &mut stream).await {
                Ok(Some(info)) => progress.take(info, say),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let id = progress.end(say);
        if let Some(message) = broken.lock().unwrap_or_else(|poison| poison.into_inner()).take() {
            return Err(EngineError::Refused { doing: "read the files to build from".to_owned(), message });
        }
        match built {
            Ok(()) => id.ok_or_else(|| EngineError::Build { message: "it ended without an image".to_owned() }),
            // By now the engine has the Dockerfile: what it refuses is the build.
            Err(EngineError::Refused { message, .. }) => Err(EngineError::Build { message }),
            Err(error) => Err(error),
        }
    }
}

impl Docker {
    pub(super) async fn prune_builds(&self, keep: u64) -> Result<u64, EngineError> {
        let subject = Subject { verb: "trim the cache of builds", kind: "", name: "" };
        // Engines before 28 know the first word, later ones the second; without either they would keep nothing.
        let client = self.client_on(Lane::Bulk).with_request_modifier(move |mut request: BollardRequest| {
            let uri = format!("{}?keep-storage={keep}&reserved-space={keep}", request.uri().path());
            if let Ok(uri) = uri.parse() {
                *request.uri_mut() = uri;
            }
            request
        });
        let pruned = client.prune_build(None::<PruneBuildOptions>);
        let pruned = self.patient(&subject, super::STREAM, pruned).await?;
        Ok(pruned.space_reclaimed.unwrap_or_default().unsigned_abs())
    }
}

fn options(request: &BuildRequest) -> BuildImageOptions {
    BuildImageOptions {
        dockerfile: request.dockerfile.clone(),
        t: Some(request.tag.clone()),
        nocache: request.no_cache,
        rm: true,
        forcerm: true,
        buildargs: Some(request.args.clone().into_iter().collect()),
        ..Default::default()
    }
}

/// Adds to the query what bollard cannot say: more than 2 GB of memory, and BuildKit without a session. A session
/// serves secrets and registry passwords, which quarry does not pass; bollard's would stay open after each build.
fn beyond_bollard(request: &BuildRequest) -> impl Fn(BollardRequest) -> BollardRequest + Send + Sync + 'static {
    let mut more = String::new();
    if let Some(memory) = request.memory {
        more.push_str(&format!("&memory={0}&memswap={0}", memory.bytes()));
    }
    if let Some(group) = &request.group {
        // Made of letters, digits, dashes, dots and slashes: nothing to escape.
        more.push_str(&format!("&cgroupparent={group}"));
    }
    let builder = request.builder;
    move |mut request| {
        let mut uri = request.uri().to_string();
        if builder == Builder::BuildKit {
            uri = uri.replace("&version=1", "&version=2");
        }
        uri.push_str(&more);
        if let Ok(uri) = uri.parse() {
            *request.uri_mut() = uri;
        }
        request
    }
}

/// What a build has said so far.
#[derive(Default)]
struct Progress {
    lines: Lines,
    id: Option<ImageId>,
    /// BuildKit tells of a step again and again: digests of steps said, and of steps said to be cached.
    begun: BTreeSet<String>,
    cached: BTreeSet<String>,
}

impl Progress {
    fn take(&mut self, info: BuildInfo, say: Say<'_>) {
        if let Some(text) = info.stream {
            // What a step printed last may lack its newline; the builder's own words begin a line all the same.
            let own = ["Removing intermediate container ", " ---> ", "Step "].iter().any(|word| text.starts_with(word));
            if own && !self.lines.is_empty() {
                std::mem::take(&mut self.lines).end(say);
            }
            self.lines.add(text.as_bytes(), say);
        }
        // A base image on its way: the layers' progress bars have an id, the news have none.
        if let (Some(status), None) = (info.status, &info.id) {
            say(&status);
        }
        match info.aux {
            Some(BuildInfoAux::Default(aux)) => self.id = aux.id.and_then(|id| id.parse().ok()).or(self.id.take()),
            Some(BuildInfoAux::BuildKit(status)) => self.buildkit(status, say),
            None => {}
        }
    }

    fn buildkit(&mut self, status: StatusResponse, say: Say<'_>) {
        for step in status.vertexes {
            // Its own steps: reading the Dockerfile, unpacking the context.
            let own = step.name.starts_with("[internal]") || step.name == "copy /context /";
            if own || step.started.is_none() {
                continue;
            }
            if self.begun.insert(step.digest.clone()) {
                say(&step.name);
            }
            if step.cached && self.cached.insert(step.digest) {
                say(" ---> Using cache");
            }
        }
        for log in status.logs {
            self.lines.add(&log.msg, say);
        }
    }

    fn end(self, say: Say<'_>) -> Option<ImageId> {
        self.lines.end(say);
        self.id
    }
}
