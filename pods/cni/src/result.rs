// SPDX-License-Identifier: Apache-2.0
//! The JSON of a successful call, in the version the runtime speaks.

use router_api::v1alpha1::CniAddResponse;
use serde_json::{Map, Value, json};

use crate::VERSIONS;
use crate::failure::Failure;

/// The answer to VERSION.
pub(crate) fn versions(version: &str) -> String {
    format!(
        "{}\n",
        json!({ "cniVersion": version, "supportedVersions": VERSIONS })
    )
}

/// The answer to ADD: what the daemon made, after what earlier plugins of the chain made.
pub(crate) fn added(
    response: &CniAddResponse,
    previous: Option<Value>,
    version: &str,
) -> Result<String, Failure> {
    let mut result = match previous {
        None => Map::new(),
        Some(Value::Object(result)) => result,
        Some(_) => {
            return Err(Failure::new(
                Failure::DECODE,
                "prevResult is no JSON object",
            ));
        }
    };
    result.insert("cniVersion".to_owned(), json!(version));
    let earlier = list(&mut result, "interfaces")?.len();
    let interfaces = response.interfaces.iter().map(|i| interface(i, version));
    list(&mut result, "interfaces")?.extend(interfaces);
    let ips = response.ips.iter().map(|ip| {
        let mut object = json!({
            "address": ip.address,
            "interface": ip.interface as usize + earlier,
        });
        if !ip.gateway.is_empty() {
            object["gateway"] = json!(ip.gateway);
        }
        // Gone since 1.0.0, required before.
        if version.starts_with("0.") {
            object["version"] = json!(if ip.address.contains(':') { "6" } else { "4" });
        }
        object
    });
    list(&mut result, "ips")?.extend(ips);
    let routes = response.routes.iter().map(|route| {
        let mut object = json!({ "dst": route.dst });
        if !route.gw.is_empty() {
            object["gw"] = json!(route.gw);
        }
        object
    });
    list(&mut result, "routes")?.extend(routes);
    result.entry("dns").or_insert_with(|| json!({}));
    Ok(format!("{}\n", Value::Object(result)))
}

fn interface(interface: &router_api::v1alpha1::CniInterface, version: &str) -> Value {
    let mut object = json!({ "name": interface.name, "mac": interface.mac });
    if !interface.sandbox.is_empty() {
        object["sandbox"] = json!(interface.sandbox);
    }
    // New in 1.1.0.
    if version == "1.1.0" && interface.mtu != 0 {
        object["mtu"] = json!(interface.mtu);
    }
    object
}

/// A list of the result; made when it is missing or null.
fn list<'a>(result: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>, Failure> {
    let value = result.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value
        .as_array_mut()
        .ok_or_else(|| Failure::new(Failure::DECODE, format!("prevResult.{key} is no list")))
}

#[cfg(test)]
mod tests {
    use router_api::v1alpha1::{CniInterface, CniIp, CniRoute};

    use super::*;

    fn response() -> CniAddResponse {
        let host = CniInterface {
            name: "cw0123456789".into(),
            mac: "0e:00:00:00:00:01".into(),
            mtu: 1500,
            sandbox: String::new(),
        };
        let pod = CniInterface {
            name: "eth0".into(),
            mac: "0a:00:00:00:00:01".into(),
            mtu: 1500,
            sandbox: "/var/run/netns/x".into(),
        };
        let ip = |address: &str, gateway: &str| CniIp {
            address: address.into(),
            gateway: gateway.into(),
            interface: 1,
        };
        CniAddResponse {
            interfaces: vec![host, pod],
            ips: vec![
                ip("10.1.0.2/32", "169.254.1.1"),
                ip("fd00::2/128", "fe80::1"),
            ],
            routes: vec![CniRoute {
                dst: "0.0.0.0/0".into(),
                gw: "169.254.1.1".into(),
            }],
        }
    }

    fn render(previous: Option<Value>, version: &str) -> Value {
        serde_json::from_str(&added(&response(), previous, version).unwrap()).unwrap()
    }

    #[test]
    fn each_version_gets_its_own_form() {
        let old = render(None, "0.4.0");
        assert_eq!(old["cniVersion"], "0.4.0");
        assert_eq!(old["ips"][0]["version"], "4");
        assert_eq!(old["ips"][1]["version"], "6");
        assert!(old["interfaces"][0].get("mtu").is_none());
        assert!(old["interfaces"][0].get("sandbox").is_none());
        let new = render(None, "1.1.0");
        assert!(new["ips"][0].get("version").is_none());
        assert_eq!(new["interfaces"][1]["mtu"], 1500);
        assert_eq!(new["interfaces"][1]["sandbox"], "/var/run/netns/x");
        assert_eq!(new["routes"][0]["gw"], "169.254.1.1");
        assert!(render(None, "1.0.0")["interfaces"][1].get("mtu").is_none());
    }

    #[test]
    fn in_a_chain_the_earlier_result_comes_first() {
        let previous = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "net1", "sandbox": "/var/run/netns/x" }],
            "ips": [{ "address": "192.0.2.2/24", "interface": 0 }],
            "routes": null,
            "dns": { "nameservers": ["192.0.2.53"] },
        });
        let merged = render(Some(previous), "1.0.0");
        assert_eq!(merged["interfaces"].as_array().unwrap().len(), 3);
        assert_eq!(merged["ips"][0]["interface"], 0);
        assert_eq!(merged["ips"][1]["interface"], 2);
        assert_eq!(merged["routes"].as_array().unwrap().len(), 1);
        assert_eq!(merged["dns"]["nameservers"][0], "192.0.2.53");
    }

    #[test]
    fn a_broken_earlier_result_is_refused() {
        for previous in [json!([]), json!({ "ips": 1 })] {
            let failure = added(&response(), Some(previous), "1.0.0").unwrap_err();
            assert_eq!(failure.code, Failure::DECODE);
        }
    }
}
