//! Requests passed on as they are, each on a connection of its own: what one of them streams may stand still.

use std::error::Error;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::Docker;
use crate::docker::passing::Content;
use crate::docker::{Answered, Asked, EngineError, Lane};

/// The engine begins to answer within this time: what takes it longer, it tells of first.
const BEGINNING: Duration = Duration::from_secs(20);

impl Docker {
    pub(super) async fn pass_on(&self, asked: Asked) -> Result<Answered, EngineError> {
        match timeout(BEGINNING, self.exchange(asked)).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(error)),
            Err(elapsed) => Err(self.unreachable(elapsed)),
        }
    }

    async fn exchange(&self, asked: Asked) -> Result<Answered, Box<dyn Error + Send + Sync>> {
        let pipe = self.wire.open(Lane::Reader).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(pipe)).await?;
        // It ends with the answer, or when nobody waits for that any more.
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder()
            .method(asked.method.word())
            .uri(asked.target)
            .header(HOST, "docker")
            .header(CONTENT_TYPE, "application/json");
        if asked.streams {
            request = request.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        }
        let response = sender.send_request(request.body(Full::new(asked.body))?).await?;
        let status = response.status().as_u16();
        let kind =
            response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        let content = match status {
            101 => Content::Streams(Box::new(TokioIo::new(hyper::upgrade::on(response).await?))),
            _ => {
                let chunks = response.into_body().into_data_stream();
                Content::Body(chunks.map(|chunk| chunk.map_err(std::io::Error::other)).boxed())
            }
        };
        Ok(Answered { status, kind, content })
    }
}
