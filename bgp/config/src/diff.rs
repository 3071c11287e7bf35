// SPDX-License-Identifier: Apache-2.0
//! What going from one outcome to the next does to sessions.

use bgp_core::config::{Effect, InstanceName, PeerName};

use crate::compile::CompiledInstance;

/// One difference, and what it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The instance.
    pub instance: InstanceName,
    /// The neighbour or listen range concerned; `None` for the whole instance.
    pub peer: Option<PeerName>,
    /// What differs, in words an operator knows.
    pub what: &'static str,
    /// What it costs.
    pub effect: Effect,
}

impl Difference {
    /// Whether a session that is up would end.
    pub fn ends_sessions(&self) -> bool {
        matches!(self.effect, Effect::SessionReset | Effect::SessionRemoved)
    }
}

/// Lists what differs, in the order of instances and neighbours.
pub fn diff(before: &[CompiledInstance], after: &[CompiledInstance]) -> Vec<Difference> {
    let find = |list: &[CompiledInstance], name: &InstanceName| {
        let found = list.iter().find(|instance| instance.config.name() == name);
        found.cloned()
    };
    let mut differences = Vec::new();
    for old in before {
        let name = old.config.name();
        match find(after, name) {
            Some(new) => differences.extend(between(old, &new)),
            None => differences.extend(whole(old, "instance", Effect::SessionRemoved)),
        }
    }
    for new in after {
        if find(before, new.config.name()).is_none() {
            differences.extend(whole(new, "instance", Effect::SessionAdded));
        }
    }
    differences
}

fn between(old: &CompiledInstance, new: &CompiledInstance) -> Vec<Difference> {
    let name = old.config.name();
    let difference = |peer, what, effect| Difference {
        instance: name.clone(),
        peer,
        what,
        effect,
    };
    let mut differences: Vec<Difference> = old
        .config
        .changes_to(&new.config)
        .into_iter()
        .map(|change| difference(change.peer, change.what, change.effect))
        .collect();
    if old.routes != new.routes {
        differences.push(difference(None, "advertised prefixes", Effect::Live));
    }
    differences
}

/// An instance that comes or goes, with every session of it.
fn whole(
    instance: &CompiledInstance,
    what: &'static str,
    effect: Effect,
) -> impl Iterator<Item = Difference> {
    let name = instance.config.name().clone();
    let peers: Vec<Option<PeerName>> = if instance.config.peers().is_empty() {
        vec![None]
    } else {
        instance.config.peers().keys().cloned().map(Some).collect()
    };
    peers.into_iter().map(move |peer| Difference {
        instance: name.clone(),
        peer,
        what,
        effect,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bgp_core::config::{InstanceConfig, LocalRoutes, PeerAddress, PeerConfig, Timers};
    use router_types::Asn;

    use super::*;

    fn instance(name: &str, asn: u32, hold_s: u16) -> CompiledInstance {
        let id = Ipv4Addr::new(10, 0, 0, 1);
        let mut config = InstanceConfig::new(name.into(), Asn(asn), id).unwrap();
        let address = PeerAddress::new(Ipv4Addr::new(10, 0, 0, 2).into(), None).unwrap();
        let mut peer = PeerConfig::new(address);
        peer.timers = Timers::new(5, hold_s, 3).unwrap();
        config.add_peer("tor".into(), peer).unwrap();
        CompiledInstance {
            config,
            routes: LocalRoutes::default(),
        }
    }

    fn told(before: &[CompiledInstance], after: &[CompiledInstance]) -> Vec<String> {
        let differences = diff(before, after);
        let line = |d: &Difference| {
            let peer = d.peer.as_ref().map_or("-", |peer| &*peer.0);
            format!("{} {peer} {}: {:?}", d.instance, d.what, d.effect)
        };
        differences.iter().map(line).collect()
    }

    #[test]
    fn sessions_that_end_are_named() {
        let (old, same) = (instance("a", 1, 90), instance("a", 1, 90));
        assert_eq!(told(std::slice::from_ref(&old), &[same]), [] as [String; 0]);
        let shorter = instance("a", 1, 9);
        assert_eq!(
            told(std::slice::from_ref(&old), &[shorter]),
            ["a tor hold time: SessionReset"]
        );
        assert_eq!(
            told(std::slice::from_ref(&old), &[instance("a", 2, 90)]),
            ["a - local AS: SessionReset"]
        );
        assert_eq!(
            told(&[old], &[instance("b", 1, 90)]),
            [
                "a tor instance: SessionRemoved",
                "b tor instance: SessionAdded"
            ]
        );
    }
}
