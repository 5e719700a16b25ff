//! `acme/…`: certificates that come by themselves. Nobody is asked for one until there is a file.

use super::certificates;

/// Let's Encrypt.
pub const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Let's Encrypt for trying things out: browsers do not trust its certificates, and its limits are wide.
pub const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// The authority that certifies domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Who is told when something is wrong with certificates; nobody without.
    pub email: Option<String>,
    /// The address of its directory.
    pub directory: String,
    /// The certificate of its own root as PEM text, where this machine does not know it.
    pub ca: Option<String>,
    /// The port at which it asks for challenges.
    pub http_port: u16,
    /// Whether HQ looks where a domain leads before it orders a certificate.
    pub look: Look,
}

/// Whether HQ looks where a domain leads to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It does, which spares the authority, and its limits.
    First,
    /// It does not: it cannot see what the authority sees.
    Never,
}

impl Acme {
    /// Whether it certifies for everybody, as far as is known.
    pub fn is_public(&self) -> bool {
        [PRODUCTION, STAGING].contains(&self.directory.as_str())
    }
}

/// Names of the settings in `acme/`.
pub const KNOWN: [&str; 5] = ["ca", "directory", "email", "http-port", "self-check"];

/// The files as far as they have been read.
#[derive(Debug, Default)]
pub struct Draft(Option<Acme>);

impl Draft {
    /// Takes the content of one file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let acme = self.0.get_or_insert_with(|| Acme {
            email: None,
            directory: PRODUCTION.to_owned(),
            ca: None,
            http_port: 80,
            look: Look::First,
        });
        let value = text.trim();
        match name {
            "email" => acme.email = email(value)?,
            "directory" => acme.directory = directory(value)?,
            "ca" => acme.ca = Some(certificates(text)?),
            "http-port" => acme.http_port = port(value)?,
            "self-check" => acme.look = look(value)?,
            _ => return Err(format!("there is no setting `acme/{name}`; there are acme/{}", KNOWN.join(", acme/"))),
        }
        Ok(())
    }

    /// The authority all files make; none when there is no file.
    pub fn finish(self) -> Option<Acme> {
        self.0
    }
}

fn email(text: &str) -> Result<Option<String>, String> {
    let plain = |text: &str| {
        let (name, host) = text.split_once('@')?;
        let odd = |c: char| c.is_control() || c.is_whitespace() || ",?<>\"".contains(c);
        (!name.is_empty() && !host.is_empty() && !host.contains('@') && !text.contains(odd)).then(|| text.to_owned())
    };
    match text {
        "" => Ok(None),
        text => plain(text).map(Some).ok_or_else(|| format!("`{text}` is no address such as ops@example.com")),
    }
}

fn directory(text: &str) -> Result<String, String> {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    match text {
        "production" => Ok(PRODUCTION.to_owned()),
        "staging" => Ok(STAGING.to_owned()),
        url if url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()) && !url.contains(odd) => {
            Ok(url.to_owned())
        }
        _ => Err(format!("`{text}` is not `production`, `staging` or the https:// address of an ACME directory")),
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        Ok(0) | Err(_) => Err(format!("`{text}` is no port")),
    }
}

fn look(text: &str) -> Result<Look, String> {
    match text {
        "on" => Ok(Look::First),
        "off" => Ok(Look::Never),
        _ => Err(format!("`{text}` is neither `on` nor `off`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(files: &[(&str, &str)]) -> Result<Option<Acme>, String> {
        let mut draft = Draft::default();
        files.iter().try_for_each(|(name, text)| draft.set(name, text))?;
        Ok(draft.finish())
    }

    #[test]
    fn an_empty_email_switches_certificates_on_and_nothing_does_not() {
        assert_eq!(made(&[]), Ok(None));
        let acme = made(&[("email", "\n")]).unwrap().unwrap();
        assert_eq!((acme.email.as_deref(), acme.directory.as_str(), acme.http_port), (None, PRODUCTION, 80));
        assert_eq!((acme.look, acme.is_public()), (Look::First, true));
    }

    #[test]
    fn every_file_sets_its_value() {
        let pem = "-----BEGIN CERTIFICATE-----\n";
        let own = "https://ca.internal:14000/dir";
        let files = [
            ("email", "ops@a.example\n"),
            ("directory", own),
            ("ca", pem),
            ("http-port", "8080"),
            ("self-check", "off"),
        ];
        let acme = made(&files).unwrap().unwrap();
        assert_eq!((acme.email.as_deref(), acme.directory.as_str()), (Some("ops@a.example"), own));
        assert_eq!((acme.ca.as_deref(), acme.http_port, acme.look), (Some(pem), 8080, Look::Never));
        assert!(!acme.is_public());
        assert_eq!(made(&[("directory", "staging")]).unwrap().unwrap().directory, STAGING);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (files, expected) in [
            (("email", "ops"), "no address"),
            (("email", "a@b\nc@d"), "no address"),
            (("directory", "http://plain.example"), "https://"),
            (("directory", "https://"), "https://"),
            (("ca", "x"), "no PEM certificate"),
            (("http-port", "0"), "no port"),
            (("self-check", "maybe"), "neither"),
            (("token", "x"), "there is no setting `acme/token`; there are acme/ca, acme/directory"),
        ] {
            assert!(made(&[files]).unwrap_err().contains(expected), "{files:?}");
        }
    }
}
