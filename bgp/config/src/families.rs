// SPDX-License-Identifier: Apache-2.0
//! The families of a session: what is taken, sent and advertised in each.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU32};

use bgp_core::config::{
    AddPathConfig, BeyondLimit, FamilyConfig, ImportMode, ImportPolicy, NextHopMode, PolicyName,
    PrefixLimit, PrefixRange, StaleTime,
};
use router_resources::kinds::{
    self, Afi, Export, ExportNextHop, Import, ObjectRef, OnMaxRoutes, PeerConfigSpec, Safi,
};
use router_resources::{LabelSelector, ObjectKey, parse_address};
use router_types::Family;

use crate::statements::{Statements, condition_type};

/// A family of a session and the selector of its advertisements.
pub(crate) type SelectedFamily = (Family, Option<LabelSelector>);

/// The families this speaker carries; statements for the others and for absent selectors.
pub(crate) fn families(
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
                ours: kinds::CausewayFamily::default(),
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
            (Afi::Ipv4, Safi::MplsVpn) => Family::VPNV4,
            (Afi::Ipv6, Safi::MplsVpn) => Family::VPNV6,
            (Afi::Ipv4, Safi::RouteTargetConstraints) => Family::ROUTE_TARGET,
            (afi, safi) => {
                let name = format!("{}/{}", afi.as_str(), safi.as_str());
                if let Some(key) = key {
                    let message = format!("family {name} is not provided yet and is left out");
                    statements.problem(key, condition_type::NOT_PROVIDED, "Family", message);
                }
                continue;
            }
        };
        let is_unicast = entry.safi == Safi::Unicast;
        let is_asked_for = spec.families.is_some() && is_unicast;
        if let (None, Some(key), true) = (&entry.advertisements, key, is_asked_for) {
            let message = format!(
                "family {family} has no advertisements selector, which selects nothing; \
                 'advertisements: {{}}' selects all"
            );
            statements.problem(key, condition_type::NOT_ADVERTISED, "NoSelector", message);
        }
        if let Some(key) = key {
            state_vpn(entry, family, key, statements);
        }
        families.insert(family, family_config(entry)?);
        selected.push((family, entry.advertisements.clone()));
    }
    if families.is_empty() {
        return Err("none of its families is provided".into());
    }
    Ok((families, selected))
}

/// Says what of a VPN family's settings leads to nothing.
fn state_vpn(entry: &kinds::Family, family: Family, key: &ObjectKey, statements: &mut Statements) {
    if entry.safi == Safi::Unicast {
        return;
    }
    if entry.advertisements.is_some() {
        let message = format!(
            "family {family} has an advertisements selector, and the node has no routes of its own \
             in it: those learned are passed on where the instance says transit"
        );
        statements.problem(key, condition_type::NOT_ADVERTISED, "NoOwnRoutes", message);
    }
    let export = entry.ours.export.as_ref();
    let changes_next_hop = export.is_some_and(|export| {
        export.next_hop == Some(ExportNextHop::ToSelf) || export.next_hop_address.is_some()
    });
    if entry.safi == Safi::MplsVpn && changes_next_hop {
        let message = format!(
            "family {family}: this node has no labels to put in place of another router's, so that \
             nothing is sent with another next hop; write 'nextHop: Unchanged'"
        );
        statements.problem(key, condition_type::NOT_PROVIDED, "OwnLabel", message);
    }
}

fn family_config(entry: &kinds::Family) -> Result<FamilyConfig, String> {
    let mut config = FamilyConfig::default();
    if entry.safi != Safi::Unicast {
        // There is no default route in them, and nothing of them reaches the kernel.
        config.import.mode = ImportMode::All;
    }
    if let Some(import) = &entry.ours.import {
        if import.mode.is_some() || entry.safi == Safi::Unicast {
            config.import = import_policy(import)?;
        }
        config.import_policy = import.policy_ref.as_ref().map(policy_name);
        config.limit = prefix_limit(import)?;
        config.blackhole = import.honor_blackhole.unwrap_or(false);
    }
    if let Some(export) = &entry.ours.export {
        apply_export(export, &mut config)?;
    }
    if let Some(add_path) = &entry.ours.add_path {
        let send = add_path.send.map(|most| {
            let most = u8::try_from(most).ok().and_then(NonZeroU8::new);
            most.ok_or("addPath.send is not between 1 and 255")
        });
        config.add_path = AddPathConfig {
            receive: add_path.receive,
            send: send.transpose()?,
        };
    }
    if let Some(seconds) = entry.ours.long_lived_stale_time_seconds {
        let seconds = u32::try_from(seconds).map_err(|error| error.to_string())?;
        config.long_lived = Some(StaleTime::new(seconds).map_err(|error| error.to_string())?);
    }
    Ok(config)
}

fn apply_export(export: &Export, config: &mut FamilyConfig) -> Result<(), String> {
    config.export_policy = export.policy_ref.as_ref().map(policy_name);
    config.limit_out = match export.max_routes {
        None => None,
        Some(max) => {
            let max = u32::try_from(max).ok().and_then(NonZeroU32::new);
            Some(max.ok_or("export.maxRoutes is not between 1 and 4294967295")?)
        }
    };
    config.next_hop_mode = match export.next_hop {
        None | Some(ExportNextHop::Auto) => NextHopMode::Auto,
        Some(ExportNextHop::ToSelf) => NextHopMode::ToSelf,
        Some(ExportNextHop::Unchanged) => NextHopMode::Unchanged,
    };
    config.next_hop = match &export.next_hop_address {
        None => None,
        Some(text) => {
            let (address, _) =
                parse_address(text).ok_or_else(|| format!("'{text}' is not an IP address"))?;
            Some(address)
        }
    };
    Ok(())
}

fn policy_name(reference: &ObjectRef) -> PolicyName {
    PolicyName(reference.name.clone())
}

fn prefix_limit(import: &Import) -> Result<Option<PrefixLimit>, String> {
    let Some(max) = import.max_routes.and_then(|max| u32::try_from(max).ok()) else {
        return Ok(None);
    };
    let mut limit = PrefixLimit::new(max).map_err(|error| error.to_string())?;
    if let Some(percent) = import.warning_percent {
        let percent = u8::try_from(percent).map_err(|error| error.to_string())?;
        limit = limit
            .with_warning(percent)
            .map_err(|error| error.to_string())?;
    }
    limit.beyond = match (import.on_max_routes, import.restart_after_seconds) {
        (Some(OnMaxRoutes::Warn), _) => BeyondLimit::WarnOnly,
        (None | Some(OnMaxRoutes::Restart), Some(seconds)) => BeyondLimit::Restart {
            after_s: u32::try_from(seconds).map_err(|error| error.to_string())?,
        },
        (None | Some(OnMaxRoutes::Restart), None) => limit.beyond,
    };
    Ok(Some(limit))
}

fn import_policy(import: &Import) -> Result<ImportPolicy, String> {
    let written = import.mode.unwrap_or(match import.policy_ref {
        Some(_) => kinds::ImportMode::All,
        None => kinds::ImportMode::DefaultRoute,
    });
    let mode = match written {
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
