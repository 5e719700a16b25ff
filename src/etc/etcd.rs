//! `etcd/…`: the cluster that is the state tree's home, where it is not this machine's files.

use std::fmt;

/// A cluster and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// Addresses of its members; at least one, all with or all without TLS.
    pub endpoints: Vec<String>,
    /// What quarry's keys begin with.
    pub prefix: String,
    /// The authority that signed the members' certificates, as PEM text; without it the machine's own ones count.
    pub ca: Option<String>,
    /// This machine's certificate and its key as PEM text.
    pub identity: Option<(String, Secret)>,
    /// User and password.
    pub login: Option<(String, Secret)>,
}

/// A text that never stands in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What quarry's keys begin with unless told otherwise.
pub const PREFIX: &str = "/quarry";

/// Names of the settings in `etcd/`.
pub const KNOWN: [&str; 7] = ["endpoints", "prefix", "ca", "cert", "key", "user", "password"];

/// Those that nobody but quarry's user may read.
pub const PRIVATE: [&str; 2] = ["key", "password"];

/// The files as far as they have been read.
#[derive(Debug, Default)]
pub struct Draft {
    endpoints: Vec<String>,
    prefix: Option<String>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<Secret>,
    user: Option<String>,
    password: Option<Secret>,
    /// There is some file.
    named: bool,
}

impl Draft {
    /// Takes the content of one file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        self.named = true;
        let value = text.trim();
        match name {
            "endpoints" => self.endpoints = endpoints(text)?,
            "prefix" => self.prefix = Some(prefix(value)?),
            "ca" => self.ca = Some(pem(text, "CERTIFICATE")?),
            "cert" => self.cert = Some(pem(text, "CERTIFICATE")?),
            "key" => self.key = Some(Secret(pem(text, "PRIVATE KEY")?)),
            "user" => self.user = Some(word(value)?),
            // Its end is a newline only because editors put one there.
            "password" => self.password = Some(Secret(word(text.trim_end_matches(['\r', '\n']))?)),
            _ => return Err(format!("there is no setting `etcd/{name}`; there are etcd/{}", KNOWN.join(", etcd/"))),
        }
        Ok(())
    }

    /// The cluster all files make; none when there is no file.
    ///
    /// # Errors
    /// The file that is missing, and why it must be there.
    pub fn finish(self) -> Result<Option<Etcd>, (&'static str, String)> {
        if !self.named {
            return Ok(None);
        }
        let with_tls = self.endpoints.first().is_some_and(|endpoint| endpoint.starts_with("https://"));
        if self.endpoints.is_empty() {
            return Err((
                "endpoints",
                "it is missing beside the other settings of etcd; write one address a line".into(),
            ));
        }
        if !with_tls && (self.ca.is_some() || self.cert.is_some() || self.key.is_some()) {
            return Err(("endpoints", "there are certificates for them, but they begin with http://".into()));
        }
        Ok(Some(Etcd {
            endpoints: self.endpoints,
            prefix: self.prefix.unwrap_or_else(|| PREFIX.to_owned()),
            ca: self.ca,
            identity: both(("cert", self.cert), ("key", self.key))?,
            login: both(("user", self.user), ("password", self.password))?,
        }))
    }
}

/// Two settings that mean nothing alone.
fn both<A, B>(
    (one, first): (&'static str, Option<A>),
    (other, second): (&'static str, Option<B>),
) -> Result<Option<(A, B)>, (&'static str, String)> {
    match (first, second) {
        (Some(first), Some(second)) => Ok(Some((first, second))),
        (None, None) => Ok(None),
        (Some(_), None) => Err((other, format!("it is missing beside etcd/{one}"))),
        (None, Some(_)) => Err((one, format!("it is missing beside etcd/{other}"))),
    }
}

fn endpoints(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let endpoints: Vec<String> = lines.map(endpoint).collect::<Result<_, _>>()?;
    let with_tls = endpoints.iter().filter(|endpoint| endpoint.starts_with("https://")).count();
    match endpoints.len() {
        0 => Err("no address in it; write one a line, such as http://10.0.0.1:2379".into()),
        all if with_tls == 0 || with_tls == all => Ok(endpoints),
        _ => Err("some begin with http:// and some with https://; a cluster speaks either".into()),
    }
}

fn endpoint(line: &str) -> Result<String, String> {
    let rule = || format!("`{line}` is not an address such as http://10.0.0.1:2379 or https://etcd-1.example.com:2379");
    let rest = line.strip_prefix("http://").or(line.strip_prefix("https://")).ok_or_else(rule)?;
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(rule)?;
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if host.is_empty() || !host.chars().all(good) || port.parse::<u16>().is_err() {
        return Err(rule());
    }
    Ok(line.trim_end_matches('/').to_owned())
}

fn prefix(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let good = |segment: &str| !segment.is_empty() && segment.chars().all(|c| c.is_ascii_graphic());
    match trimmed.strip_prefix('/') {
        Some(rest) if rest.len() <= 128 && rest.split('/').all(good) => Ok(trimmed.to_owned()),
        Some(_) | None => {
            Err(format!("`{text}` is not a prefix such as `{PREFIX}`: it begins with a slash, 128 letters at most"))
        }
    }
}

fn pem(text: &str, what: &str) -> Result<String, String> {
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{what}-----"));
    if text.lines().any(begins) {
        Ok(text.to_owned())
    } else {
        Err(format!("there is neither PEM text in it (`-----BEGIN {what}-----`) nor the path of a file of it"))
    }
}

fn word(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("it must be one line that is not empty".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n";
    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMIIB\n";

    fn drafted(files: &[(&str, &str)]) -> Result<Option<Etcd>, String> {
        let mut draft = Draft::default();
        for (name, text) in files {
            draft.set(name, text).map_err(|what| format!("{name}: {what}"))?;
        }
        draft.finish().map_err(|(name, what)| format!("{name}: {what}"))
    }

    #[test]
    fn without_a_file_there_is_no_cluster() {
        assert_eq!(drafted(&[]), Ok(None));
    }

    #[test]
    fn every_file_has_its_place() {
        let etcd = drafted(&[
            ("endpoints", "# ours\nhttps://10.0.0.1:2379/\n\nhttps://[::1]:2379\n"),
            ("prefix", "/company/quarry/\n"),
            ("ca", CERTIFICATE),
            ("cert", CERTIFICATE),
            ("key", KEY),
            ("user", "quarry\n"),
            ("password", " a b \n"),
        ]);
        let etcd = etcd.unwrap().unwrap();
        assert_eq!(etcd.endpoints, ["https://10.0.0.1:2379", "https://[::1]:2379"]);
        assert_eq!((etcd.prefix.as_str(), etcd.ca.as_deref()), ("/company/quarry", Some(CERTIFICATE)));
        assert_eq!(etcd.identity, Some((CERTIFICATE.into(), Secret(KEY.into()))));
        assert_eq!(etcd.login, Some(("quarry".into(), Secret(" a b ".into()))));
        assert!(!format!("{etcd:?}").contains("a b"));
    }

    #[test]
    fn what_is_wrong_or_missing_is_named() {
        let check = |files: &[(&str, &str)], expected: &str| {
            let error = drafted(files).unwrap_err();
            assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
        };
        let here = ("endpoints", "http://10.0.0.1:2379");
        check(&[("endpoints", "\n")], "endpoints: no address in it");
        for wrong in ["10.0.0.1:2379", "http://10.0.0.1", "http://:2379", "http://a b:1", "ftp://a:1", "http://a:70000"]
        {
            check(&[("endpoints", wrong)], &format!("endpoints: `{wrong}` is not an address"));
        }
        check(&[("endpoints", "http://a:1\nhttps://b:1")], "endpoints: some begin with http://");
        check(&[here, ("prefix", "quarry")], "prefix: `quarry` is not a prefix");
        check(&[here, ("prefix", "/")], "prefix: `/` is not a prefix");
        check(&[("user", "a"), ("password", "b")], "endpoints: it is missing");
        check(&[here, ("user", "a")], "password: it is missing beside etcd/user");
        check(&[here, ("password", "a")], "user: it is missing beside etcd/password");
        check(&[here, ("ca", CERTIFICATE)], "endpoints: there are certificates");
        check(&[("endpoints", "https://a:1"), ("cert", CERTIFICATE)], "key: it is missing beside etcd/cert");
        check(&[("ca", "/nowhere")], "ca: there is neither PEM text");
        check(&[("endpoint", "x")], "endpoint: there is no setting `etcd/endpoint`; there are etcd/endpoints,");
    }
}
