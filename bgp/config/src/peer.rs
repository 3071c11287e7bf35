// SPDX-License-Identifier: Apache-2.0
//! Peer configurations: finding the one a peer names, and making the speaker's from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_core::config::{
    BfdSettings, Md5Password, PeerAddress, PeerConfig, PolicyConfig, PolicyName, Timers,
};
use router_resources::kinds::{PeerConfigRef, PeerConfigSpec};
use router_resources::{Kind, ObjectKey, Snapshot, Statement, parse_address};
use router_types::Asn;

use crate::bfd::BfdProfiles;
use crate::compile::Options;
use crate::facts::NodeFacts;
use crate::families::{SelectedFamily, families};
use crate::policy::Policies;
use crate::session;
use crate::statements::{Statements, condition_type};

/// A peer configuration by reference.
pub(crate) struct Resolved<'a> {
    pub(crate) key: ObjectKey,
    spec: &'a PeerConfigSpec,
}

/// A session to make: where the peer is, and what the cluster configuration and the override say
/// of it.
pub(crate) struct Wanted<'w> {
    /// `instance/peer`, for messages.
    pub(crate) user: &'w str,
    /// Where the peer is; `None` for the template of a range.
    pub(crate) address: Option<PeerAddress>,
    /// Whether its addresses are of IPv4.
    pub(crate) is_ipv4: bool,
    /// Its AS number as written; 0 for any.
    pub(crate) asn: i64,
    /// The override's source address.
    pub(crate) local_address: Option<&'w str>,
}

/// A session as the speaker takes it.
pub(crate) struct Made {
    pub(crate) config: PeerConfig,
    /// Which advertisements each family selects.
    pub(crate) selected: Vec<SelectedFamily>,
}

/// The peer configurations and policies, and who uses them.
pub(crate) struct PeerConfigs<'a> {
    snapshot: &'a Snapshot,
    secrets_namespace: &'a str,
    users: BTreeMap<ObjectKey, BTreeSet<String>>,
    policies: Policies,
    bfd_profiles: BfdProfiles,
    /// The policies the peers of the instance at hand name.
    named: BTreeMap<PolicyName, PolicyConfig>,
}

impl<'a> PeerConfigs<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, options: &'a Options) -> Self {
        PeerConfigs {
            snapshot,
            secrets_namespace: &options.secrets_namespace,
            users: BTreeMap::new(),
            policies: Policies::new(snapshot),
            bfd_profiles: BfdProfiles::new(
                snapshot,
                &options.secrets_namespace,
                &options.other_users_of_bfd,
            ),
            named: BTreeMap::new(),
        }
    }

    /// The policies named since this was asked last: those of one instance.
    pub(crate) fn take_named(&mut self) -> Vec<PolicyConfig> {
        std::mem::take(&mut self.named).into_values().collect()
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

    /// Makes the speaker's configuration of a session.
    pub(crate) fn make(
        &mut self,
        resolved: Option<&Resolved<'a>>,
        wanted: &Wanted<'_>,
        facts: &NodeFacts,
        statements: &mut Statements,
    ) -> Result<Made, String> {
        if let Some(resolved) = resolved {
            let users = self.users.entry(resolved.key.clone()).or_default();
            users.insert(wanted.user.to_owned());
        }
        let defaults = PeerConfigSpec::default();
        let spec = resolved.map_or(&defaults, |resolved| resolved.spec);
        let mut core = match &wanted.address {
            Some(address) => PeerConfig::new(address.clone()),
            None => PeerConfig::template(),
        };
        core.asn = match u32::try_from(wanted.asn) {
            Ok(0) => None,
            Ok(asn) => Some(Asn(asn)),
            Err(_) => return Err(format!("peerASN {} is not an AS number", wanted.asn)),
        };
        core.timers = timers(spec)?;
        if let Some(transport) = &spec.transport {
            core.port = u16::try_from(transport.peer_port)
                .map_err(|_| format!("peerPort {} is not a port", transport.peer_port))?;
        }
        core.local_address = source_address(spec, wanted, facts)?;
        if let (Some(resolved), Some(secret)) = (resolved, &spec.auth_secret_ref) {
            core.password = Some(self.password(&resolved.key, secret, statements)?);
        }
        session::apply(spec, &mut core)?;
        let key = resolved.map(|resolved| &resolved.key);
        core.bfd = self.bfd(spec, key, wanted.user, statements);
        let (families, selected) = families(spec, key, statements)?;
        for family in families.values() {
            for (policy, way) in [
                (&family.import_policy, "import"),
                (&family.export_policy, "export"),
            ] {
                if let (Some(name), Some(key)) = (policy, key) {
                    self.note_policy(name, key, wanted.user, way, statements);
                }
            }
        }
        let ttl = u8::try_from(spec.ebgp_multihop)
            .map_err(|_| format!("ebgpMultihop {} is not a TTL", spec.ebgp_multihop))?;
        let config = core
            .with_ttl(ttl)
            .and_then(|core| core.with_families(families))
            .map_err(|error| error.to_string())?;
        Ok(Made { config, selected })
    }

    /// What a peer configuration wants of BFD. A profile that is missing or cannot be used is left
    /// out: the hold timer still finds failures, only later.
    fn bfd(
        &mut self,
        spec: &PeerConfigSpec,
        key: Option<&ObjectKey>,
        user: &str,
        statements: &mut Statements,
    ) -> Option<BfdSettings> {
        let name = &spec.ours.bfd_profile_ref.as_ref()?.name;
        match self.bfd_profiles.named(name, user) {
            Ok(profile) => Some(BfdSettings {
                profile,
                hops: None,
                strict: spec.ours.bfd_strict_mode.unwrap_or(false),
            }),
            Err(why) => {
                if let Some(key) = key {
                    let message = format!("{why}: the sessions run without BFD");
                    let kind = condition_type::DEGRADED;
                    statements.problem(key, kind, "MissingBFDProfile", message);
                }
                None
            }
        }
    }

    /// Takes a policy to the instance at hand. One that is missing or cannot be used is left out:
    /// the speaker then rejects everything where it is named, and the session stays.
    fn note_policy(
        &mut self,
        name: &PolicyName,
        key: &ObjectKey,
        user: &str,
        way: &str,
        statements: &mut Statements,
    ) {
        match self.policies.named(&name.0, &format!("{user} ({way})")) {
            Ok(policy) => {
                self.named.insert(name.clone(), policy.clone());
            }
            Err(why) => {
                let message = format!("{why}: {way} of the peers rejects everything");
                let kind = condition_type::DEGRADED;
                statements.problem(key, kind, "MissingPolicy", message);
            }
        }
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
        self.policies.conclude(statements);
        self.bfd_profiles.conclude(statements);
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
    wanted: &Wanted<'_>,
    facts: &NodeFacts,
) -> Result<Option<IpAddr>, String> {
    let family = if wanted.is_ipv4 { "IPv4" } else { "IPv6" };
    if let Some(text) = wanted.local_address {
        let (local, _) =
            parse_address(text).ok_or_else(|| format!("localAddress '{text}' is no IP address"))?;
        if local.is_ipv4() != wanted.is_ipv4 {
            let peer = wanted.address.as_ref().map(ToString::to_string);
            let peer = peer.unwrap_or_else(|| family.to_owned());
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
        .filter(|a| a.is_ipv4() == wanted.is_ipv4)
        .collect();
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
