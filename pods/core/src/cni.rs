// SPDX-License-Identifier: Apache-2.0
//! What the runtime's JSON and arguments mean, and what it is answered.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

use crate::endpoint::{Attachment, Endpoint, Mac, PodRef};
use crate::failure::{Code, Failure};
use crate::labels;

/// The pods' IPv4 gateway. Link-local (RFC 3927), so that it takes no address of any CIDR. It is
/// on no device: pods have a permanent neighbour entry for it.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The pods' IPv6 gateway, likewise.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// What ADD says besides names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arguments {
    /// The pod, when the runtime says which.
    pub pod: Option<PodRef>,
    /// Addresses asked for.
    pub requested: Vec<IpAddr>,
}

impl Arguments {
    /// Reads `CNI_ARGS` (as a map) and the network configuration.
    ///
    /// Addresses may be asked for by the argument `IP`, the capability `ips`
    /// (`runtimeConfig.ips`) or `args.cni.ips`, with or without a prefix length; asking for one
    /// twice is asking once.
    ///
    /// The labels of the pod are `args.cni.labels`, a list of keys and values; they are of no use
    /// where `CNI_ARGS` do not name the pod. No capability (`runtimeConfig`) is known for them.
    ///
    /// # Errors
    ///
    /// [`Code::Decode`], [`Code::UnsupportedField`] for another IPAM plugin, or
    /// [`Code::InvalidEnvironment`] and [`Code::InvalidConfig`] for what is no address.
    pub fn read(args: &HashMap<String, String>, config: &[u8]) -> Result<Arguments, Failure> {
        let config: Configuration = serde_json::from_slice(config).map_err(|e| {
            Failure::new(
                Code::Decode,
                format!("the network configuration cannot be read: {e}"),
            )
        })?;
        if let Some(other) = config
            .ipam
            .and_then(|i| i.kind)
            .filter(|kind| kind != "causeway")
        {
            return Err(Failure::new(
                Code::UnsupportedField,
                format!("ipam.type is {other:?}: addresses come from the daemon"),
            )
            .with_details("remove `ipam` from the network configuration"));
        }
        let mut requested = Vec::new();
        for text in args.get("IP").into_iter().flat_map(|list| list.split(',')) {
            push_address(
                &mut requested,
                text,
                Code::InvalidEnvironment,
                "CNI_ARGS IP",
            )?;
        }
        for text in config.runtime_config.ips {
            push_address(
                &mut requested,
                &text,
                Code::InvalidConfig,
                "runtimeConfig.ips",
            )?;
        }
        let cni = config.args.cni;
        for text in cni.ips {
            push_address(&mut requested, &text, Code::InvalidConfig, "args.cni.ips")?;
        }
        let labels = cni.labels.map(labels::read).transpose()?;
        Ok(Arguments {
            pod: pod(args, labels),
            requested,
        })
    }
}

/// The addresses a result of an earlier ADD (`prevResult`, of any version) gives to an
/// attachment. Empty for no result.
///
/// # Errors
///
/// [`Code::Decode`] when it is no result.
pub fn expected_addresses(
    previous_result: &[u8],
    attachment: &Attachment,
) -> Result<Vec<IpAddr>, Failure> {
    if previous_result.is_empty() {
        return Ok(Vec::new());
    }
    let result: PreviousResult = serde_json::from_slice(previous_result)
        .map_err(|e| Failure::new(Code::Decode, format!("prevResult cannot be read: {e}")))?;
    let is_ours = |index: usize| {
        result
            .interfaces
            .get(index)
            .is_some_and(|i| i.name == attachment.ifname && !i.sandbox.is_empty())
    };
    let ours = result
        .ips
        .iter()
        .filter(|ip| ip.interface.is_some_and(is_ours));
    let mut addresses = Vec::new();
    for ip in ours {
        push_address(&mut addresses, &ip.address, Code::Decode, "prevResult.ips")?;
    }
    Ok(addresses)
}

/// What ADD is answered, in the terms of the CNI specification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The device at the host's side, then the one in the pod.
    pub interfaces: [AnsweredInterface; 2],
    /// Address with its whole length, and gateway; all of the second interface.
    pub ips: Vec<(IpNet, IpAddr)>,
    /// Destination and gateway.
    pub routes: Vec<(IpNet, IpAddr)>,
}

/// One device of an [`Answer`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnsweredInterface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its MTU, in octets.
    pub mtu: u32,
    /// The path of the pod's namespace; empty for the host's side.
    pub sandbox: String,
}

impl Answer {
    /// The answer for an endpoint.
    pub fn of(endpoint: &Endpoint) -> Answer {
        let host = AnsweredInterface {
            name: endpoint.host_ifname.clone(),
            mac: endpoint.host_mac,
            mtu: endpoint.mtu,
            sandbox: String::new(),
        };
        let pod = AnsweredInterface {
            name: endpoint.attachment.ifname.clone(),
            mac: endpoint.pod_mac,
            mtu: endpoint.mtu,
            sandbox: endpoint.netns.path.clone(),
        };
        Answer {
            interfaces: [host, pod],
            ips: endpoint
                .addresses
                .iter()
                .map(|a| (IpNet::from(*a), gateway(*a)))
                .collect(),
            routes: endpoint
                .addresses
                .iter()
                .map(|a| (everything(*a), gateway(*a)))
                .collect(),
        }
    }
}

/// The gateway of an address' family.
pub fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}

/// The default route's prefix of an address' family.
pub fn everything(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    ipam: Option<IpamConfiguration>,
    #[serde(default)]
    runtime_config: IpList,
    #[serde(default)]
    args: ConfigurationArgs,
}

#[derive(Deserialize)]
struct IpamConfiguration {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize, Default)]
struct ConfigurationArgs {
    #[serde(default)]
    cni: CniArgs,
}

#[derive(Deserialize, Default)]
struct CniArgs {
    #[serde(default)]
    ips: Vec<String>,
    /// Absent or null: not told.
    #[serde(default)]
    labels: Option<Vec<labels::Label>>,
}

#[derive(Deserialize, Default)]
struct IpList {
    #[serde(default)]
    ips: Vec<String>,
}

#[derive(Deserialize)]
struct PreviousResult {
    #[serde(default)]
    interfaces: Vec<PreviousInterface>,
    #[serde(default)]
    ips: Vec<PreviousIp>,
}

#[derive(Deserialize)]
struct PreviousInterface {
    name: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct PreviousIp {
    address: String,
    interface: Option<usize>,
}

fn pod(args: &HashMap<String, String>, labels: Option<BTreeMap<String, String>>) -> Option<PodRef> {
    let get = |key: &str| args.get(key).cloned().unwrap_or_default();
    let pod = PodRef {
        namespace: get("K8S_POD_NAMESPACE"),
        name: get("K8S_POD_NAME"),
        uid: get("K8S_POD_UID"),
        labels,
    };
    (!pod.name.is_empty()).then_some(pod)
}

fn push_address(
    addresses: &mut Vec<IpAddr>,
    text: &str,
    code: Code,
    field: &str,
) -> Result<(), Failure> {
    let text = text.trim();
    let address = text
        .parse()
        .or_else(|_| text.parse::<IpNet>().map(|net| net.addr()));
    let address = address.map_err(|_| {
        Failure::new(code, format!("{field}: {text:?} is no IP address")).with_details(
            "expected an address such as 10.1.0.7 or fd00::7, with or without a length",
        )
    })?;
    if !addresses.contains(&address) {
        addresses.push(address);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[(&str, &str)], config: &str) -> Result<Arguments, Failure> {
        let args = args
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Arguments::read(&args, config.as_bytes())
    }

    #[test]
    fn addresses_may_be_asked_for_in_three_places() {
        let config = r#"{"name":"n","runtimeConfig":{"ips":["10.1.0.7/24"]},
            "args":{"cni":{"ips":["fd00::7"]}}}"#;
        let got = read(&[("IP", "10.1.0.7, fd00::7/64")], config).unwrap();
        let wanted: Vec<IpAddr> = vec!["10.1.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(got.requested, wanted);
        assert_eq!(read(&[], config).unwrap().requested, wanted);
        assert_eq!(read(&[], "{}").unwrap(), Arguments::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(read(&[], "no json").unwrap_err().code, Code::Decode);
        let failure = read(&[("IP", "ten")], "{}").unwrap_err();
        assert_eq!(failure.code, Code::InvalidEnvironment);
        assert!(failure.message.contains("CNI_ARGS IP: \"ten\""));
        let failure = read(&[], r#"{"ipam":{"type":"host-local"}}"#).unwrap_err();
        assert_eq!(failure.code, Code::UnsupportedField);
        assert!(failure.message.contains("host-local"));
        assert!(read(&[], r#"{"ipam":{}}"#).is_ok());
    }

    #[test]
    fn the_pod_is_who_cni_args_say() {
        let args = [
            ("K8S_POD_NAME", "web-0"),
            ("K8S_POD_NAMESPACE", "shop"),
            ("IgnoreUnknown", "1"),
        ];
        assert_eq!(
            read(&args, "{}").unwrap().pod.unwrap().to_string(),
            "shop/web-0"
        );
    }

    #[test]
    fn labels_are_those_of_the_pod_that_is_named() {
        let args = [("K8S_POD_NAME", "web-0"), ("K8S_POD_NAMESPACE", "shop")];
        let labels = |config: &str| read(&args, config).unwrap().pod.unwrap().labels;
        let one = r#"{"args":{"cni":{"labels":[{"key":"app","value":"web"}]}}}"#;
        assert_eq!(
            labels(one),
            Some([("app".to_owned(), "web".to_owned())].into())
        );
        // An empty list is a pod without labels, an absent one a pod nobody told about.
        let none = r#"{"args":{"cni":{"labels":[]}}}"#;
        assert_eq!(labels(none), Some(BTreeMap::new()));
        for untold in [
            "{}",
            r#"{"args":{}}"#,
            r#"{"args":{"cni":{"labels":null}}}"#,
        ] {
            assert_eq!(labels(untold), None, "{untold}");
        }
        assert_eq!(read(&[], one).unwrap().pod, None);
        let wrong = r#"{"args":{"cni":{"labels":[{"key":"a b","value":""}]}}}"#;
        let failure = read(&args, wrong).unwrap_err();
        assert_eq!(failure.code, Code::InvalidConfig);
        assert!(failure.message.contains("args.cni.labels"), "{failure}");
        let shapeless = r#"{"args":{"cni":{"labels":{"app":"web"}}}}"#;
        assert_eq!(read(&args, shapeless).unwrap_err().code, Code::Decode);
    }

    #[test]
    fn previous_results_speak_of_our_device_only() {
        let attachment = Attachment::new("c", "eth0").unwrap();
        let json = br#"{"cniVersion":"0.4.0","interfaces":[{"name":"cw1"},
            {"name":"eth0","sandbox":"/ns"},{"name":"net1","sandbox":"/ns"}],
            "ips":[{"version":"4","address":"10.1.0.2/32","interface":1},
                   {"version":"4","address":"10.9.0.2/24","interface":2},
                   {"version":"4","address":"10.9.0.3/24"}]}"#;
        let got = expected_addresses(json, &attachment).unwrap();
        assert_eq!(got, ["10.1.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(expected_addresses(b"", &attachment), Ok(Vec::new()));
        assert!(expected_addresses(b"[1]", &attachment).is_err());
    }
}
