// SPDX-License-Identifier: Apache-2.0
//! One execution of the plugin: what the runtime asks for.

use std::collections::HashMap;

use router_api::v1alpha1::CniAttachment;

use crate::NEWEST_VERSION;
use crate::failure::Failure;
use crate::invocation::{Configuration, split_args, version_of};

/// What the runtime asks for (`CNI_COMMAND`), with what it says about it.
#[derive(Debug)]
pub(crate) enum Call {
    Add {
        configuration: Configuration,
        attachment: CniAttachment,
        netns: String,
        args: HashMap<String, String>,
        json: Vec<u8>,
    },
    Del {
        configuration: Configuration,
        attachment: CniAttachment,
        netns: String,
    },
    Check {
        configuration: Configuration,
        attachment: CniAttachment,
        netns: String,
    },
    Gc {
        configuration: Configuration,
    },
    Status {
        configuration: Configuration,
    },
    Version {
        version: String,
    },
}

impl Call {
    /// Reads environment and configuration.
    pub(crate) fn read(
        variable: impl Fn(&str) -> Option<String>,
        json: &[u8],
    ) -> Result<Call, Failure> {
        let required = |name: &str| {
            variable(name).filter(|v| !v.is_empty()).ok_or_else(|| {
                Failure::new(Failure::INVALID_ENVIRONMENT, format!("{name} is not set"))
                    .with_details(
                        "this program is executed by container runtimes, as CNI 1.1.0 says",
                    )
            })
        };
        let attachment = || {
            Ok(CniAttachment {
                container_id: required("CNI_CONTAINERID")?,
                ifname: required("CNI_IFNAME")?,
            })
        };
        match required("CNI_COMMAND")?.as_str() {
            "ADD" => Ok(Call::Add {
                attachment: attachment()?,
                netns: required("CNI_NETNS")?,
                args: split_args(&variable("CNI_ARGS").unwrap_or_default())?,
                configuration: Configuration::read(json)?,
                json: json.to_vec(),
            }),
            "DEL" => Ok(Call::Del {
                attachment: attachment()?,
                // May be gone: CNI 1.1.0 §"DEL".
                netns: variable("CNI_NETNS").unwrap_or_default(),
                configuration: Configuration::read(json)?,
            }),
            "CHECK" => Ok(Call::Check {
                attachment: attachment()?,
                netns: required("CNI_NETNS")?,
                configuration: Configuration::read(json)?,
            }),
            "GC" => Ok(Call::Gc {
                configuration: Configuration::read(json)?,
            }),
            "STATUS" => Ok(Call::Status {
                configuration: Configuration::read(json)?,
            }),
            "VERSION" => Ok(Call::Version {
                version: version_of(json).unwrap_or_else(|| NEWEST_VERSION.to_owned()),
            }),
            other => Err(Failure::new(
                Failure::INVALID_ENVIRONMENT,
                format!("CNI_COMMAND is {other:?}"),
            )
            .with_details("expected ADD, DEL, CHECK, GC, STATUS or VERSION")),
        }
    }

    /// The configuration, for every call that goes to the daemon.
    pub(crate) fn configuration(&self) -> Option<&Configuration> {
        match self {
            Call::Add { configuration, .. }
            | Call::Del { configuration, .. }
            | Call::Check { configuration, .. }
            | Call::Gc { configuration }
            | Call::Status { configuration } => Some(configuration),
            Call::Version { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &[u8] = br#"{"cniVersion":"1.0.0","name":"n","type":"causeway-cni"}"#;

    fn read(variables: &[(&str, &str)]) -> Result<Call, Failure> {
        let get = |name: &str| {
            variables
                .iter()
                .find(|(k, _)| *k == name)
                .map(|(_, v)| (*v).to_owned())
        };
        Call::read(get, CONFIG)
    }

    #[test]
    fn a_missing_variable_is_named() {
        let all = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/ns"),
        ];
        assert!(matches!(read(&all), Ok(Call::Add { .. })));
        for missing in 0..all.len() {
            let some: Vec<_> = (0..all.len())
                .filter(|i| *i != missing)
                .map(|i| all[i])
                .collect();
            let failure = read(&some).unwrap_err();
            assert_eq!(failure.code, Failure::INVALID_ENVIRONMENT);
            assert!(
                failure.message.starts_with(all[missing].0),
                "{}",
                failure.message
            );
        }
    }

    #[test]
    fn del_does_without_a_namespace_and_status_without_a_container() {
        let del = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
        ];
        assert!(matches!(read(&del), Ok(Call::Del { netns, .. }) if netns.is_empty()));
        assert!(matches!(
            read(&[("CNI_COMMAND", "STATUS")]),
            Ok(Call::Status { .. })
        ));
        assert!(matches!(
            read(&[("CNI_COMMAND", "GC")]),
            Ok(Call::Gc { .. })
        ));
        assert!(read(&[("CNI_COMMAND", "add")]).is_err());
    }
}
