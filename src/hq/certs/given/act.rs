//! Reads the certificates of a checkout, and keeps them once its release is live.

use std::path::Path;

use super::Given;
use crate::certs::chain::{self, Roots};
use crate::certs::{Kind, Record, files};
use crate::hq::certs::CertsError;
use crate::hq::{Hq, HqError};
use crate::names::InnerPath;
use crate::stack::Stack;
use crate::stack::files::read_text;

impl Hq {
    /// The certificates of a checkout in `folder`, checked.
    ///
    /// # Errors
    /// A file cannot be read, or every mistake of a certificate.
    pub async fn given_certificates(&self, stack: &Stack, folder: &Path) -> Result<Vec<Given>, HqError> {
        let mut given = Vec::new();
        for node in stack.nodes.values() {
            let (Some(chain), Some(key)) = (&node.ssl_cert, &node.ssl_key) else { continue };
            let text = format!("{}\n{}", text(folder, chain).await?, text(folder, key).await?);
            let roots = tokio::task::spawn_blocking(files::roots).await.unwrap_or_default();
            let checked = chain::check(&text, &node.domains, self.clock.now(), Roots::Of(&roots));
            given.push(Given { domains: node.domains.clone(), checked: checked.map_err(CertsError::Bad)? });
        }
        Ok(given)
    }

    /// Shows them from now on. What fails is told in the log: the release is live, and HQ tries on.
    pub async fn keep_given(&self, given: Vec<Given>) {
        for Given { domains, checked } in given {
            let record = Record { kind: Kind::Custom, chain: checked.chain, key: checked.key };
            for domain in &domains {
                if let Err(error) = self.put_certificate(domain, &record).await {
                    tracing::error!(%domain, %error, "the certificate of a repository is not kept");
                }
            }
        }
        if let Err(error) = self.show_certificates().await {
            tracing::warn!(error = ?error, "a router does not show its certificates yet");
        }
    }
}

async fn text(folder: &Path, path: &InnerPath) -> Result<String, HqError> {
    let (folder, inner) = (folder.to_owned(), path.clone());
    let read = tokio::task::spawn_blocking(move || read_text(&folder, &inner)).await;
    let read = read.expect("reading a file does not panic");
    Ok(read.map_err(|why| CertsError::Unreadable { path: path.clone(), why })?)
}
