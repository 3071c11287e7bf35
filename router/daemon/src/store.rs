// SPDX-License-Identifier: Apache-2.0
//! The connection to etcd, from the settings.

use router_resources::settings::StoreSettings;
use router_store::{Config, Store, TlsFiles};

/// Begins to connect.
pub fn start(settings: &StoreSettings) -> Store {
    let tls = settings.tls.as_ref().map(|tls| TlsFiles {
        ca: tls.ca_file.clone(),
        identity: tls.identity.clone(),
    });
    Store::start(Config {
        endpoints: settings.endpoints.clone(),
        tls,
        prefix: settings.prefix.clone(),
    })
}
