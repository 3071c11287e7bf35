// SPDX-License-Identifier: Apache-2.0
//! The network configuration and `CNI_ARGS`, as far as the plugin itself must understand them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::VERSIONS;
use crate::failure::Failure;

/// What the plugin needs of the configuration; the daemon is given the whole.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Configuration {
    #[serde(default)]
    pub(crate) cni_version: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    socket: Option<PathBuf>,
    #[serde(default)]
    timeout_seconds: Option<u64>,
    #[serde(default)]
    pub(crate) prev_result: Option<Value>,
    /// `None`: the runtime gave no list. Go runtimes write an empty one as null.
    #[serde(
        default,
        rename = "cni.dev/valid-attachments",
        deserialize_with = "null_is_empty"
    )]
    pub(crate) valid_attachments: Option<Vec<ValidAttachment>>,
}

/// One attachment that GC must leave alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

impl Configuration {
    pub(crate) fn read(json: &[u8]) -> Result<Configuration, Failure> {
        let configuration: Configuration = serde_json::from_slice(json).map_err(|e| {
            Failure::new(
                Failure::DECODE,
                format!("the network configuration on stdin cannot be read: {e}"),
            )
        })?;
        let version = &configuration.cni_version;
        if !VERSIONS.contains(&version.as_str()) {
            let asked = if version.is_empty() {
                "0.1.0 (none is named)"
            } else {
                version
            };
            return Err(Failure::new(
                Failure::INCOMPATIBLE_VERSION,
                format!("cniVersion {asked} is not supported"),
            )
            .with_details(format!("set cniVersion to one of {}", VERSIONS.join(", "))));
        }
        if configuration.name.is_empty() {
            return Err(Failure::new(
                Failure::INVALID_CONFIG,
                "the network configuration has no `name`",
            ));
        }
        if configuration
            .timeout_seconds
            .is_some_and(|s| !(1..=600).contains(&s))
        {
            return Err(Failure::new(
                Failure::INVALID_CONFIG,
                "timeoutSeconds must be 1 to 600",
            ));
        }
        Ok(configuration)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| router_api::DEFAULT_SOCKET.into())
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.unwrap_or(60))
    }
}

fn null_is_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<ValidAttachment>>, D::Error> {
    Option::deserialize(deserializer).map(|list| Some(list.unwrap_or_default()))
}

/// The version a configuration asks for, when that much of it can be read.
pub(crate) fn version_of(json: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(json).ok()?;
    value.get("cniVersion")?.as_str().map(str::to_owned)
}

/// Splits `CNI_ARGS`: `KEY=value` pairs between semicolons.
pub(crate) fn split_args(text: &str) -> Result<HashMap<String, String>, Failure> {
    let pairs = text
        .split(';')
        .map(str::trim)
        .filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Failure::new(
                    Failure::INVALID_ENVIRONMENT,
                    format!("CNI_ARGS: {pair:?} is no KEY=value pair"),
                )
            })?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_split() {
        let args = split_args("IgnoreUnknown=1; K8S_POD_NAME=web-0;X=a=b;").unwrap();
        assert_eq!(args["K8S_POD_NAME"], "web-0");
        assert_eq!(args["X"], "a=b");
        assert_eq!(args.len(), 3);
        assert_eq!(split_args("").unwrap().len(), 0);
        assert_eq!(
            split_args("nonsense").unwrap_err().code,
            Failure::INVALID_ENVIRONMENT
        );
    }

    #[test]
    fn an_empty_list_of_attachments_is_not_an_absent_one() {
        let read = |rest: &str| {
            let json = format!(r#"{{"cniVersion":"1.1.0","name":"n"{rest}}}"#);
            Configuration::read(json.as_bytes())
                .unwrap()
                .valid_attachments
        };
        assert_eq!(read(""), None);
        assert_eq!(
            read(r#","cni.dev/valid-attachments":null"#),
            Some(Vec::new())
        );
        assert_eq!(read(r#","cni.dev/valid-attachments":[]"#), Some(Vec::new()));
        let one = r#","cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]"#;
        assert_eq!(read(one).unwrap().len(), 1);
    }

    #[test]
    fn configurations_are_checked() {
        let code = |json: &str| Configuration::read(json.as_bytes()).unwrap_err().code;
        assert_eq!(code(""), Failure::DECODE);
        assert_eq!(code("7"), Failure::DECODE);
        assert_eq!(code("{}"), Failure::INCOMPATIBLE_VERSION);
        assert_eq!(
            code(r#"{"cniVersion":"2.0.0","name":"n"}"#),
            Failure::INCOMPATIBLE_VERSION
        );
        assert_eq!(code(r#"{"cniVersion":"1.1.0"}"#), Failure::INVALID_CONFIG);
        assert_eq!(
            code(r#"{"cniVersion":"1.1.0","name":"n","timeoutSeconds":0}"#),
            Failure::INVALID_CONFIG
        );
        for version in VERSIONS {
            let json = format!(r#"{{"cniVersion":"{version}","name":"n","socket":"/s"}}"#);
            let configuration = Configuration::read(json.as_bytes()).unwrap();
            assert_eq!(configuration.socket(), PathBuf::from("/s"));
            assert_eq!(configuration.timeout(), Duration::from_secs(60));
        }
    }
}
