//! Networks, and the default bridge's address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptions};

use super::containers::gone_is_success;
use super::{Docker, Subject};
use crate::docker::{EngineError, Network};

impl Docker {
    pub(super) async fn list_networks(&self, label: &str) -> Result<Vec<Network>, EngineError> {
        self.find_networks("label", label).await
    }

    async fn find_networks(&self, filter: &str, value: &str) -> Result<Vec<Network>, EngineError> {
        let subject = Subject { verb: "list", kind: "networks with", name: value };
        let filters = HashMap::from([(filter.to_owned(), vec![value.to_owned()])]);
        let options = ListNetworksOptions { filters: Some(filters) };
        let found = self.call(&subject, self.client().list_networks(Some(options))).await?;
        let mut networks: Vec<_> = found
            .into_iter()
            .filter_map(|network| {
                Some(Network {
                    name: network.name?,
                    subnet: subnet(network.ipam).unwrap_or_default(),
                    labels: network.labels.unwrap_or_default().into_iter().collect(),
                })
            })
            .collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(networks)
    }

    pub(super) async fn make_network(&self, network: &Network) -> Result<(), EngineError> {
        let subject = Subject { verb: "make", kind: "network", name: &network.name };
        // The engine would make a second network of the same name without complaint: CheckDuplicate is the default only
        // from API 1.44 on and gone from bollard, so look first.
        let pattern = format!("^{}$", network.name.replace('.', r"\."));
        if let Some(existing) = self.find_networks("name", &pattern).await?.pop() {
            return if existing.subnet == network.subnet {
                Ok(())
            } else {
                let message = format!(
                    "network `{}` exists with subnet {} and not {}",
                    network.name, existing.subnet, network.subnet
                );
                Err(EngineError::Conflict { message })
            };
        }
        let request = NetworkCreateRequest {
            name: network.name.clone(),
            driver: Some("bridge".to_owned()),
            // Whatever the engine's own settings say: what keeps containers apart goes by their IPv4 addresses.
            enable_ipv6: Some(false),
            ipam: Some(Ipam { config: Some(vec![addresses(&network.subnet)]), ..Default::default() }),
            labels: Some(network.labels.clone().into_iter().collect()),
            ..Default::default()
        };
        self.call(&subject, self.client().create_network(request)).await?;
        Ok(())
    }

    pub(super) async fn delete_network(&self, name: &str) -> Result<(), EngineError> {
        let subject = Subject { verb: "remove", kind: "network", name };
        gone_is_success(self.call(&subject, self.client().remove_network(name)).await)
    }

    pub(super) async fn find_bridge(&self) -> Result<IpAddr, EngineError> {
        let subject = Subject { verb: "describe", kind: "network", name: "bridge" };
        let bridge =
            self.call(&subject, self.client().inspect_network("bridge", None::<InspectNetworkOptions>)).await?;
        let configs = bridge.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        let gateway = configs.iter().find_map(|config| match &config.gateway {
            Some(gateway) => gateway.parse::<Ipv4Addr>().ok(),
            None => first_address(config.subnet.as_deref()?),
        });
        let no_address = || EngineError::Refused {
            doing: "name the address of its default bridge".to_owned(),
            message: "network `bridge` has no IPv4 gateway".to_owned(),
        };
        gateway.map(IpAddr::V4).ok_or_else(no_address)
    }
}

fn subnet(ipam: Option<Ipam>) -> Option<String> {
    ipam?.config?.into_iter().find_map(|config| config.subnet)
}

/// What docker hands out of a subnet by itself: the upper half. The lower one is for containers that ask for an address,
/// which they must find free however often they come and go. The bridge keeps its usual address, the first.
fn addresses(subnet: &str) -> IpamConfig {
    let whole = IpamConfig { subnet: Some(subnet.to_owned()), ..Default::default() };
    let halves = subnet.split_once('/').and_then(|(base, bits)| {
        let (base, bits) = (u32::from(base.parse::<Ipv4Addr>().ok()?), bits.parse::<u32>().ok()? + 1);
        let upper = base.checked_add(1_u32.checked_shl(32_u32.checked_sub(bits)?)?)?;
        Some(format!("{}/{bits}", Ipv4Addr::from(upper)))
    });
    match (halves, first_address(subnet)) {
        (Some(upper), Some(gateway)) => {
            IpamConfig { ip_range: Some(upper), gateway: Some(gateway.to_string()), ..whole }
        }
        _ => whole,
    }
}

/// The address docker gives a bridge whose gateway it does not name: the first of its subnet.
fn first_address(subnet: &str) -> Option<Ipv4Addr> {
    let network: Ipv4Addr = subnet.split_once('/')?.0.parse().ok()?;
    Some(Ipv4Addr::from(u32::from(network).checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hands_out_the_upper_half_of_a_subnet() {
        let config = addresses("10.208.0.64/26");
        assert_eq!(config.ip_range.as_deref(), Some("10.208.0.96/27"));
        assert_eq!(config.gateway.as_deref(), Some("10.208.0.65"));
        assert_eq!(addresses("10.208.2.0/23").ip_range.as_deref(), Some("10.208.3.0/24"));
        assert_eq!(addresses("fd00::/64").ip_range, None);
    }

    #[test]
    fn a_bridge_without_a_gateway_has_the_first_address() {
        assert_eq!(first_address("172.17.0.0/16"), Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(first_address("fd00::/64"), None);
    }
}
