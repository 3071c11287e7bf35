// SPDX-License-Identifier: Apache-2.0
//! How the etcd is reached that nodes agree by.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::raw::Refusal;

/// How the etcd is reached that nodes agree by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Client URLs, at least one; all `http://` or, with [`StoreSettings::tls`], all `https://`.
    pub endpoints: Vec<String>,
    /// The files of TLS; none for `http://`.
    pub tls: Option<StoreTls>,
    /// What all keys begin with: `/`, and none at the end. Default: `/causeway`.
    pub prefix: String,
    /// How long etcd takes a node that says nothing for alive, 3 to 60 whole seconds. Default: 5. A
    /// gateway that dies unseen by anybody is replaced after that long at most.
    pub lease: Duration,
}

/// Files of TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreTls {
    /// Who may vouch for the servers.
    pub ca_file: PathBuf,
    /// This node's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawStore {
    endpoints: Vec<String>,
    ca_file: String,
    cert_file: String,
    key_file: String,
    #[schemars(length(min = 2, max = 128))]
    prefix: String,
    // The smallest is egress-sync's: below, a gateway that is cut off might still hold addresses
    // when its lease is over.
    #[schemars(range(min = 3, max = 60))]
    lease_seconds: i64,
}

impl Default for RawStore {
    fn default() -> Self {
        RawStore {
            endpoints: Vec::new(),
            ca_file: String::new(),
            cert_file: String::new(),
            key_file: String::new(),
            prefix: "/causeway".into(),
            lease_seconds: 5,
        }
    }
}

const URL: &str = "allowed: URLs such as https://10.0.0.5:2379";
const TLS: &str = "allowed: https:// with store.caFile";

impl RawStore {
    /// Reads the texts; nothing without endpoints.
    pub(super) fn read(&self, refusals: &mut Vec<Refusal>) -> Option<StoreSettings> {
        let files = [
            ("store.caFile", &self.ca_file),
            ("store.certFile", &self.cert_file),
            ("store.keyFile", &self.key_file),
        ];
        for (path, text) in files.into_iter().filter(|(_, text)| !text.is_empty()) {
            if !text.starts_with('/') {
                // Not shown: somebody may have written the key itself.
                let message = "the value is no path".into();
                let allowed = "allowed: an absolute path of a file in PEM";
                refusals.push((path.into(), message, allowed));
            } else if self.endpoints.is_empty() {
                let message = "store.endpoints is not set".into();
                refusals.push((path.into(), message, "allowed: with store.endpoints"));
            }
        }
        for (path, text, missing, other) in [
            (
                "store.certFile",
                &self.cert_file,
                "store.keyFile",
                &self.key_file,
            ),
            (
                "store.keyFile",
                &self.key_file,
                "store.certFile",
                &self.cert_file,
            ),
        ] {
            if !text.is_empty() && other.is_empty() {
                let message = format!("{missing} is not set");
                refusals.push((path.into(), message, "allowed: both or neither"));
            }
        }
        if !is_prefix(&self.prefix) {
            let message = format!("'{}' is not allowed", self.prefix);
            let allowed = "allowed: a path such as /causeway, without a '/' at the end";
            refusals.push(("store.prefix".into(), message, allowed));
        }
        for (index, text) in self.endpoints.iter().enumerate() {
            if let Some((message, allowed)) = self.wrong(text) {
                refusals.push((format!("store.endpoints[{index}]"), message, allowed));
            }
        }
        if self.endpoints.is_empty() {
            return None;
        }
        let identity = (self.cert_file.clone().into(), self.key_file.clone().into());
        Some(StoreSettings {
            endpoints: self.endpoints.clone(),
            tls: (!self.ca_file.is_empty()).then(|| StoreTls {
                ca_file: self.ca_file.clone().into(),
                identity: (!self.cert_file.is_empty()).then_some(identity),
            }),
            prefix: self.prefix.clone(),
            // The schema has checked the range.
            lease: Duration::from_secs(self.lease_seconds as u64),
        })
    }

    /// What is wrong with an endpoint, and what is allowed.
    fn wrong(&self, text: &str) -> Option<(String, &'static str)> {
        if text.contains('@') {
            return Some(("the value has a name or password in it".into(), URL));
        }
        let is_tls = text.starts_with("https://");
        let rest = text.strip_prefix(if is_tls { "https://" } else { "http://" });
        if !rest.is_some_and(is_host_and_port) {
            return Some((format!("'{text}' is not allowed"), URL));
        }
        let has_files = [&self.ca_file, &self.cert_file, &self.key_file].map(|f| !f.is_empty());
        match (is_tls, has_files) {
            (true, [false, ..]) => Some((
                "https:// takes store.caFile, which is not set".to_owned(),
                TLS,
            )),
            (false, [true, ..]) => Some((
                "http:// does not use store.caFile, which is set".to_owned(),
                TLS,
            )),
            (false, [_, true, _] | [_, _, true]) => Some((
                "http:// does not use store.certFile and store.keyFile, which are set".to_owned(),
                TLS,
            )),
            (true, _) | (false, _) => None,
        }
    }
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            !host.is_empty() && host.chars().all(is_allowed)
        }
    };
    is_port && is_host
}

fn is_prefix(text: &str) -> bool {
    let parts = text.strip_prefix('/').map(|rest| rest.split('/'));
    let is_part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic());
    parts.is_some_and(|mut parts| parts.all(is_part))
}
