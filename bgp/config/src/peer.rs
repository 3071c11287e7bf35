// SPDX-License-Identifier: Apache-2.0
//! Peer configurations: finding the one a peer names, and making the speaker's from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_core::config::{
    ConnectMode, FamilyConfig, GracefulRestart, ImportMode, ImportPolicy, Md5Password, PeerAddress,
    PeerConfig, PrefixLimit, PrefixRange, Timers,
};
use router_resources::kinds::{self, Afi, BgpPeer, Import, PeerConfigRef, PeerConfigSpec, Safi};
use router_resources::{Kind, LabelSelector, ObjectKey, Snapshot, Statement, parse_address};
use router_types::{Asn, Family};

use crate::compile::Options;
use crate::facts::NodeFacts;
use crate::statements::{Statements, condition_type};

/// A peer configuration by reference.
pub(crate) struct Resolved<'a> {
    pub(crate) key: ObjectKey,
    spec: &'a PeerConfigSpec,
}

/// A family of a session and the selector of its advertisements.
type SelectedFamily = (Family, Option<LabelSelector>);

/// The peer configurations, and who uses them.
pub(crate) struct PeerConfigs<'a> {
    snapshot: &'a Snapshot,
    secrets_namespace: &'a str,
    users: BTreeMap<ObjectKey, BTreeSet<String>>,
}

impl<'a> PeerConfigs<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, options: &'a Options) -> Self {
        PeerConfigs {
            snapshot,
            secrets_namespace: &options.secrets_namespace,
            users: BTreeMap::new(),
        }
    }

    /// Finds the object a reference names: of the kind it says, else of Cilium's kind, else of
    /// ours.
    pub(crate) fn find(&self, reference: &PeerConfigRef) -> Option<Resolved<'a>> {
        let names_kind = |group: &str, kind: &str| {
            reference.group.as_deref().is_none_or(|g| g == group)
                && reference.kind.as_deref().is_none_or(|k| k == kind)
        };
        let name = &reference.name;
        let cilium = names_kind("cilium.io", "CiliumBGPPeerConfig")
            .then(|| self.snapshot.peer_config(name))
            .flatten();
        let ours = || {
            names_kind("causeway.io", "BGPPeerConfig")
                .then(|| self.snapshot.causeway_peer_config(name))
                .flatten()
        };
        let entry = cilium.or_else(ours)?;
        Some(Resolved {
            key: entry.key(),
            spec: entry.spec,
        })
    }

    /// Makes the speaker's configuration of a peer, and says which advertisements each family
    /// selects. `user` is `instance/peer`.
    pub(crate) fn make(
        &mut self,
        resolved: Option<&Resolved<'a>>,
        peer: &BgpPeer,
        local_address: Option<&str>,
        user: &str,
        facts: &NodeFacts,
        statements: &mut Statements,
    ) -> Result<(PeerConfig, Vec<SelectedFamily>), String> {
        if let Some(resolved) = resolved {
            self.users
                .entry(resolved.key.clone())
                .or_default()
                .insert(user.to_owned());
        }
        let defaults = PeerConfigSpec::default();
        let spec = resolved.map_or(&defaults, |resolved| resolved.spec);
        let text = peer
            .peer_address
            .as_deref()
            .ok_or("it has no peerAddress")?;
        let (ip, zone) =
            parse_address(text).ok_or_else(|| format!("'{text}' is not an IP address"))?;
        let address = PeerAddress::new(ip, zone.map(str::to_owned)).map_err(|e| e.to_string())?;
        let mut core = PeerConfig::new(address);
        core.asn = match u32::try_from(peer.peer_asn) {
            Ok(0) => None,
            Ok(asn) => Some(Asn(asn)),
            Err(_) => return Err(format!("peerASN {} is not an AS number", peer.peer_asn)),
        };
        core.timers = timers(spec)?;
        if let Some(graceful) = spec.graceful_restart.as_ref().filter(|g| g.enabled) {
            let seconds = u16::try_from(graceful.restart_time_seconds).unwrap_or(u16::MAX);
            core.graceful_restart = Some(GracefulRestart::new(seconds).map_err(|e| e.to_string())?);
        }
        if let Some(transport) = &spec.transport {
            core.port = u16::try_from(transport.peer_port)
                .map_err(|_| format!("peerPort {} is not a port", transport.peer_port))?;
        }
        if spec.passive == Some(true) {
            core.connect = ConnectMode::Passive;
        }
        core.local_address = source_address(spec, local_address, ip, facts)?;
        if let (Some(resolved), Some(secret)) = (resolved, &spec.auth_secret_ref) {
            core.password = Some(self.password(&resolved.key, secret, statements)?);
        }
        let (families, selected) = families(spec, resolved.map(|r| &r.key), statements)?;
        let ttl = u8::try_from(spec.ebgp_multihop)
            .map_err(|_| format!("ebgpMultihop {} is not a TTL", spec.ebgp_multihop))?;
        let core = core
            .with_ttl(ttl)
            .and_then(|core| core.with_families(families))
            .map_err(|error| error.to_string())?;
        Ok((core, selected))
    }

    fn password(
        &self,
        key: &ObjectKey,
        secret: &str,
        statements: &mut Statements,
    ) -> Result<Md5Password, String> {
        let kind = condition_type::MISSING_AUTH_SECRET;
        let place = format!("Secret {}/{secret}", self.secrets_namespace);
        let fine = Statement::is_false(kind, "SecretFound", format!("{place} has a password"));
        statements.otherwise(key, fine);
        let mut missing = |reason, why: String| {
            statements.problem(
                key,
                kind,
                reason,
                format!("{why}: the session is not tried"),
            );
            Err(why)
        };
        let Some(found) = self.snapshot.secret(self.secrets_namespace, secret) else {
            return missing("SecretNotFound", format!("{place} does not exist"));
        };
        match found.value("password") {
            None => missing("NoPasswordKey", format!("{place} has no key 'password'")),
            Some(value) if value.is_empty() => {
                missing("EmptyPassword", format!("the password in {place} is empty"))
            }
            Some(value) => match Md5Password::new(value.as_slice()) {
                Ok(password) if value.ends_with(b"\n") => {
                    let message = format!(
                        "the password in {place} ends with a line break, which is part of it; \
                         `echo` without -n writes one"
                    );
                    statements.problem(key, condition_type::DEGRADED, "PasswordLineBreak", message);
                    Ok(password)
                }
                Ok(password) => Ok(password),
                Err(error) => missing("InvalidPassword", format!("{place}: {error}")),
            },
        }
    }

    /// Says of each peer configuration whether it is used.
    pub(crate) fn conclude(&self, statements: &mut Statements) {
        let cilium = self.snapshot.peer_configs().map(|entry| entry.key());
        let ours = self
            .snapshot
            .causeway_peer_configs()
            .map(|entry| entry.key());
        for key in cilium.chain(ours) {
            let statement = match self.users.get(&key) {
                Some(users) => {
                    let users: Vec<&str> = users.iter().map(String::as_str).collect();
                    let message = format!("used by {}", users.join(", "));
                    Statement::is_true(condition_type::IN_USE, "Referenced", message)
                }
                None if key.kind == Kind::CausewayPeerConfig
                    && self.snapshot.peer_config(&key.name).is_some() =>
                {
                    let message = format!(
                        "CiliumBGPPeerConfig/{} has the same name and comes first; write \
                         kind: BGPPeerConfig in peerConfigRef to use this one",
                        key.name
                    );
                    Statement::is_false(condition_type::IN_USE, "Shadowed", message)
                }
                None => {
                    let message = "no peer of this node names it in peerConfigRef";
                    Statement::is_false(condition_type::IN_USE, "NotReferenced", message)
                }
            };
            statements.otherwise(&key, statement);
        }
    }
}

fn timers(spec: &PeerConfigSpec) -> Result<Timers, String> {
    let timers = spec.timers.clone().unwrap_or_default();
    let seconds = |value: i32| u16::try_from(value).map_err(|error| error.to_string());
    let retry = u32::try_from(timers.connect_retry_time_seconds).map_err(|e| e.to_string())?;
    let (hold, keepalive) = (
        seconds(timers.hold_time_seconds)?,
        seconds(timers.keep_alive_time_seconds)?,
    );
    Timers::new(retry, hold, keepalive).map_err(|error| error.to_string())
}

/// The source of a session: the override's address, else the one usable address of
/// `sourceInterface`, else none.
fn source_address(
    spec: &PeerConfigSpec,
    local_address: Option<&str>,
    peer: IpAddr,
    facts: &NodeFacts,
) -> Result<Option<IpAddr>, String> {
    if let Some(text) = local_address {
        let (local, _) =
            parse_address(text).ok_or_else(|| format!("localAddress '{text}' is no IP address"))?;
        if local.is_ipv4() != peer.is_ipv4() {
            return Err(format!(
                "localAddress {local} is not of the family of {peer}"
            ));
        }
        return Ok(Some(local));
    }
    let Some(name) = spec
        .transport
        .as_ref()
        .and_then(|t| t.source_interface.as_deref())
    else {
        return Ok(None);
    };
    let Some(interface) = facts.interfaces.get(name) else {
        return Err(format!(
            "sourceInterface {name} does not exist on this node"
        ));
    };
    let usable: Vec<IpAddr> = interface
        .usable_addresses()
        .filter(|a| a.is_ipv4() == peer.is_ipv4())
        .collect();
    let family = if peer.is_ipv4() { "IPv4" } else { "IPv6" };
    match usable.as_slice() {
        [only] => Ok(Some(*only)),
        [] => Err(format!(
            "sourceInterface {name} has no usable {family} address"
        )),
        several => {
            let several: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(format!(
                "sourceInterface {name} has {} usable {family} addresses ({}) where one is \
                 needed; choose with localAddress in the node's CiliumBGPNodeConfigOverride",
                several.len(),
                several.join(", ")
            ))
        }
    }
}

/// The families this speaker carries; statements for the others and for absent selectors.
fn families(
    spec: &PeerConfigSpec,
    key: Option<&ObjectKey>,
    statements: &mut Statements,
) -> Result<(BTreeMap<Family, FamilyConfig>, Vec<SelectedFamily>), String> {
    let defaults;
    let written = match &spec.families {
        Some(families) => families,
        None => {
            if let Some(key) = key {
                let message = "families is not set: IPv6 and IPv4 unicast run and advertise \
                               nothing; write them with an advertisements selector";
                statements.problem(key, condition_type::NOT_ADVERTISED, "NoFamilies", message);
            }
            defaults = [Afi::Ipv6, Afi::Ipv4].map(|afi| kinds::Family {
                afi,
                safi: Safi::Unicast,
                advertisements: None,
                import: None,
            });
            defaults.as_slice()
        }
    };
    let mut families = BTreeMap::new();
    let mut selected = Vec::new();
    for entry in written {
        let family = match (entry.afi, entry.safi) {
            (Afi::Ipv4, Safi::Unicast) => Family::IPV4_UNICAST,
            (Afi::Ipv6, Safi::Unicast) => Family::IPV6_UNICAST,
            (afi, safi) => {
                let name = format!("{}/{}", afi.as_str(), safi.as_str());
                if let Some(key) = key {
                    let message = format!("family {name} is not provided yet and is left out");
                    statements.problem(key, condition_type::NOT_PROVIDED, "Family", message);
                }
                continue;
            }
        };
        if let (None, Some(key), true) = (&entry.advertisements, key, spec.families.is_some()) {
            let message = format!(
                "family {family} has no advertisements selector, which selects nothing; \
                 'advertisements: {{}}' selects all"
            );
            statements.problem(key, condition_type::NOT_ADVERTISED, "NoSelector", message);
        }
        let import = import_policy(entry.import.as_ref())?;
        let limit = entry
            .import
            .as_ref()
            .and_then(|import| import.max_routes)
            .and_then(|max| u32::try_from(max).ok())
            .map(PrefixLimit::new)
            .transpose()
            .map_err(|error| error.to_string())?;
        families.insert(
            family,
            FamilyConfig {
                import,
                limit,
                ..FamilyConfig::default()
            },
        );
        selected.push((family, entry.advertisements.clone()));
    }
    if families.is_empty() {
        return Err("none of its families is provided".into());
    }
    Ok((families, selected))
}

fn import_policy(import: Option<&Import>) -> Result<ImportPolicy, String> {
    let Some(import) = import else {
        return Ok(ImportPolicy::default());
    };
    let mode = match import.mode {
        kinds::ImportMode::DefaultRoute => ImportMode::DefaultRoute,
        kinds::ImportMode::All => ImportMode::All,
        kinds::ImportMode::None => ImportMode::None,
        kinds::ImportMode::Prefixes => {
            let entries = import.prefixes.iter().flatten();
            let ranges: Result<Vec<PrefixRange>, String> = entries
                .map(|entry| {
                    let prefix = entry
                        .prefix
                        .parse()
                        .map_err(|_| format!("import prefix '{}' is not a prefix", entry.prefix))?;
                    let length = |value: Option<i32>| value.and_then(|v| u8::try_from(v).ok());
                    PrefixRange::new(prefix, length(entry.min_length), length(entry.max_length))
                        .map_err(|error| error.to_string())
                })
                .collect();
            ImportMode::Prefixes(ranges?)
        }
    };
    Ok(ImportPolicy { mode })
}
