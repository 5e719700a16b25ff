//! Images as archives, out of the engine and into it.

use bollard::body_try_stream;
use bollard::query_parameters::ImportImageOptions;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio_util::io::ReaderStream;

use super::{Docker, STREAM, Subject};
use crate::docker::{Archive, EngineError, Lane};
use crate::names::ImageId;

/// Archives are sent in pieces of this size.
const PIECE: usize = 256 * 1024;

impl Docker {
    pub(super) async fn save_images(
        &self,
        images: &[ImageId],
    ) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        // The engine answers with an archive that breaks off where one is missing.
        for image in images {
            if self.inspect_image(image.as_str()).await?.is_none() {
                return Err(EngineError::NotFound { what: format!("image `{image}`") });
            }
        }
        let names: Vec<&str> = images.iter().map(ImageId::as_str).collect();
        let pieces = self.client_on(Lane::Bulk).export_images(&names).boxed();
        let reading = (self.clone(), pieces);
        let pieces = futures_util::stream::unfold(reading, |(docker, mut pieces)| async move {
            let subject = Subject { verb: "save images", kind: "", name: "" };
            let piece = docker.patient_next(&subject, &mut pieces).await.transpose()?;
            Some((piece, (docker, pieces)))
        });
        Ok(pieces.boxed())
    }

    pub(super) async fn load_images(&self, archive: Archive) -> Result<(), EngineError> {
        let subject = Subject { verb: "load images", kind: "", name: "" };
        let options = ImportImageOptions { quiet: true, ..Default::default() };
        let body = body_try_stream(ReaderStream::with_capacity(archive, PIECE));
        let client = self.client_on(Lane::Bulk);
        let mut steps = client.import_image(options, body, None).boxed();
        while self.patient(&subject, STREAM, async { steps.next().await.transpose() }).await?.is_some() {}
        Ok(())
    }
}
