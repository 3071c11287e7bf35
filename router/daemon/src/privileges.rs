// SPDX-License-Identifier: Apache-2.0
//! The capabilities the daemon keeps, and the giving up of all others.

use anyhow::{Context, bail};
use caps::{CapSet, Capability, CapsHashSet};

/// What the daemon uses, and for what. Everything else is given up before the first thread starts.
pub const KEPT: &[(Capability, &str)] = &[
    (
        Capability::CAP_NET_ADMIN,
        "routes, links, TCP MD5 keys, attaching programs",
    ),
    (
        Capability::CAP_NET_RAW,
        "binding a session to its source interface, ICMP probes of egress gateways",
    ),
    (Capability::CAP_NET_BIND_SERVICE, "listening on port 179"),
    (Capability::CAP_BPF, "loading programs and making maps"),
    (
        Capability::CAP_PERFMON,
        "pointer arithmetic in programs the verifier checks",
    ),
    (
        Capability::CAP_SYS_ADMIN,
        "entering a pod's network namespace, mounting bpffs",
    ),
];

/// What `causeway-bfdd` uses where the daemon starts it; with its own unit the daemon lacks them.
const FOR_BFD: [Capability; 2] = [Capability::CAP_SYS_NICE, Capability::CAP_IPC_LOCK];

/// Keeps [`KEPT`] (what of it the process has) and drops all other capabilities.
///
/// Call it before any thread is started: capabilities belong to threads.
///
/// # Errors
/// When a capability is missing without which nothing works (`CAP_NET_ADMIN`), or the kernel
/// refuses the change.
pub fn drop_unused() -> anyhow::Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).context("reading own capabilities")?;
    if !permitted.contains(&Capability::CAP_NET_ADMIN) {
        bail!(
            "CAP_NET_ADMIN is missing: run causewayd as root, by its systemd unit, or with \
             `setcap`; it needs {}",
            KEPT.iter()
                .map(|(c, _)| c.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let kept: CapsHashSet = KEPT
        .iter()
        .map(|(c, _)| *c)
        .chain(FOR_BFD)
        .filter(|c| permitted.contains(c))
        .collect();
    for (capability, purpose) in KEPT {
        if !kept.contains(capability) {
            tracing::warn!(%capability, purpose, "capability missing: what needs it will fail");
        }
    }
    // The bounding set first: shrinking it needs CAP_SETPCAP, which goes with the rest.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all() {
            if !kept.contains(&capability)
                && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
            {
                caps::drop(None, CapSet::Bounding, capability)
                    .with_context(|| format!("dropping {capability} from the bounding set"))?;
            }
        }
    }
    caps::set(None, CapSet::Effective, &kept).context("setting effective capabilities")?;
    caps::set(None, CapSet::Permitted, &kept).context("setting permitted capabilities")?;
    Ok(())
}
