//! Certificates and challenges on the way to nginx, and the certificates to the disk.

use super::Nginx;
use crate::router::edge::EdgeError;
use crate::router::files::CERTIFICATES;
use crate::router::tls::{TlsChange, TlsState};

impl Nginx {
    /// Makes a change of certificates and challenges.
    pub(super) async fn change_tls(&self, change: &TlsChange) -> Result<(), EdgeError> {
        match change {
            TlsChange::All(state) => {
                for change in state.changes_from(&self.tls_state().await?) {
                    self.secure_one(&change).await?;
                }
                Ok(())
            }
            change => self.secure_one(change).await,
        }
    }

    /// All there are, in order.
    pub(super) async fn tls_state(&self) -> Result<TlsState, EdgeError> {
        let answer = self.ask("GET /tls", "").await?;
        let mut state: TlsState = serde_json::from_str(&answer.text).map_err(|source| self.down(source))?;
        state.certificates.sort_by(|one, other| one.domain.cmp(&other.domain));
        state.challenges.sort_by(|one, other| one.token.cmp(&other.token));
        Ok(state)
    }

    /// Makes one change of certificates and challenges.
    async fn secure_one(&self, change: &TlsChange) -> Result<(), EdgeError> {
        let mut settled = self.securing.lock().await;
        let (request, body) = match change {
            TlsChange::Set(certificate) => {
                let line = serde_json::to_string(certificate).expect("a certificate has no value that JSON lacks");
                // One that nginx cannot read must not stand before its next start.
                let request = format!("PUT /tls/certificates/{}", certificate.domain);
                self.ask_tls(&request, &line).await?;
                return self.write(CERTIFICATES, &mut settled, line).await;
            }
            TlsChange::Remove(domain) => {
                let line = serde_json::json!({ "domain": domain }).to_string();
                self.write(CERTIFICATES, &mut settled, line).await?;
                (format!("DELETE /tls/certificates/{domain}"), "")
            }
            TlsChange::Answer(challenge) => {
                (format!("PUT /tls/challenges/{}", challenge.token), challenge.answer.as_str())
            }
            TlsChange::Forget(token) => (format!("DELETE /tls/challenges/{token}"), ""),
            TlsChange::All(_) => return Ok(()),
        };
        self.ask_tls(&request, body).await
    }

    async fn ask_tls(&self, request: &str, body: &str) -> Result<(), EdgeError> {
        let answer = self.ask_running(request, body).await?;
        if answer.status == 204 { Ok(()) } else { Err(EdgeError::Tls { message: answer.text }) }
    }
}
