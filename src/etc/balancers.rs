//! Who stands in front of the router: the files of `router/`.

use serde::{Deserialize, Serialize};

use super::{Mistake, parse};
use crate::units::net::Net;

/// Who stands in front of a router and speaks for visitors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balancers {
    /// From where their connections come. What others say of visitors counts nothing.
    pub trusted: Vec<Net>,
    /// They begin each connection with a line of the PROXY protocol, and everybody else is turned away.
    pub proxy_protocol: bool,
}

impl Balancers {
    /// Reads the file `name`.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        match name {
            "trusted-proxies" => self.trusted = nets(text)?,
            "proxy-protocol" => self.proxy_protocol = switch(text.trim())?,
            _ => return Err("`router` has the settings trusted-proxies and proxy-protocol".to_owned()),
        }
        Ok(())
    }

    /// Whether they say in a request's headers who its visitor is and how he came.
    pub fn speak_for_visitors(&self) -> bool {
        !self.trusted.is_empty() && !self.proxy_protocol
    }

    /// What is missing beside what is there.
    pub(super) fn lack(&self) -> Option<Mistake> {
        let what = "`router/proxy-protocol` is on, but nobody is named here who may speak for visitors".to_owned();
        let lacks = self.proxy_protocol && self.trusted.is_empty();
        lacks.then(|| Mistake { file: "router/trusted-proxies".into(), what })
    }
}

fn nets(text: &str) -> Result<Vec<Net>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(parse).collect()
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{value}` is neither `on` nor `off`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balancers_are_named_before_they_are_believed() {
        let mut balancers = Balancers::default();
        balancers.set("proxy-protocol", "on\n").unwrap();
        assert!(balancers.lack().unwrap().what.contains("nobody is named"));
        balancers.set("trusted-proxies", "# ours\n10.0.0.0/8\n\n2001:db8::1\n").unwrap();
        assert_eq!((balancers.trusted.len(), balancers.lack()), (2, None));
        for (name, text) in
            [("trusted-proxies", "everybody"), ("trusted-proxies", "0.0.0.0/0"), ("proxy-protocol", "yes"), ("x", "")]
        {
            assert!(Balancers::default().set(name, text).is_err(), "{name} {text}");
        }
    }
}
