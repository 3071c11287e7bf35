// SPDX-License-Identifier: Apache-2.0
//! How a session is opened and kept, and what it does to AS numbers.

use bgp_core::config::{
    CapabilityUse, ConnectMode, GracefulRestart, LocalAs, PeerConfig, PrivateAs, Role, RoleConfig,
    SendHold, TcpMss, TtlSecurity,
};
use router_resources::kinds::{self, Capabilities, PeerConfigSpec, RoleName};
use router_types::Asn;

/// Takes what a peer configuration says of its sessions beyond families, transport and timers.
///
/// # Errors
/// What the schema lets through and the speaker refuses, in words.
pub(crate) fn apply(spec: &PeerConfigSpec, core: &mut PeerConfig) -> Result<(), String> {
    let ours = &spec.ours;
    core.graceful_restart = graceful_restart(spec)?;
    core.connect = match (ours.passive, ours.active) {
        (Some(true), _) => ConnectMode::Passive,
        (_, Some(true)) => ConnectMode::Active,
        (_, _) => core.connect,
    };
    core.interface = ours.bind_interface.clone();
    if let Some(security) = &ours.ttl_security {
        let security = TtlSecurity::new(u8::try_from(security.max_hops).unwrap_or(0));
        core.ttl_security = Some(security.map_err(|error| format!("ttlSecurity: {error}"))?);
    }
    if let Some(octets) = ours.tcp_mss {
        let mss = TcpMss::new(u16::try_from(octets).unwrap_or(0));
        core.tcp_mss = Some(mss.map_err(|error| format!("tcpMSS: {error}"))?);
    }
    core.role = ours.role.as_ref().map(|role| RoleConfig {
        role: role_of(role.name),
        strict: role.strict,
    });
    core.send_hold = match ours.send_hold_time_seconds {
        None => SendHold::Auto,
        Some(0) => SendHold::Off,
        Some(seconds) => SendHold::After(u32::try_from(seconds).map_err(|e| e.to_string())?),
    };
    core.capabilities = match ours.capabilities {
        None | Some(Capabilities::Fallback) => CapabilityUse::Fallback,
        Some(Capabilities::Always) => CapabilityUse::Always,
        Some(Capabilities::Never) => CapabilityUse::Never,
    };
    core.private_as = match ours.private_as {
        None | Some(kinds::PrivateAs::Keep) => PrivateAs::Keep,
        Some(kinds::PrivateAs::RemoveWhenAlone) => PrivateAs::RemoveWhenAlone,
        Some(kinds::PrivateAs::Remove) => PrivateAs::Remove,
        Some(kinds::PrivateAs::Replace) => PrivateAs::Replace,
    };
    core.local_as = ours.local_as.as_ref().map(local_as).transpose()?;
    core.extended_messages = ours.extended_messages.unwrap_or(true);
    core.as_override = ours.as_override.unwrap_or(false);
    core.enforce_first_as = ours.enforce_first_as.unwrap_or(true);
    core.route_reflector_client = ours.route_reflector_client.unwrap_or(false);
    core.fast_failover = ours.fast_failover.unwrap_or(true);
    core.collision_when_established = ours.collision_detect_established.unwrap_or(false);
    let own_as = u8::try_from(ours.allow_own_as.unwrap_or(0));
    core.allow_own_as = own_as.map_err(|_| "allowOwnAS is not between 0 and 10")?;
    Ok(())
}

fn graceful_restart(spec: &PeerConfigSpec) -> Result<Option<GracefulRestart>, String> {
    let Some(graceful) = spec.graceful_restart.as_ref().filter(|g| g.enabled) else {
        return Ok(None);
    };
    let seconds = u16::try_from(graceful.restart_time_seconds).unwrap_or(u16::MAX);
    let mut restart = GracefulRestart::new(seconds).map_err(|error| error.to_string())?;
    restart.notification = graceful.ours.notification.unwrap_or(true);
    Ok(Some(restart))
}

fn local_as(written: &kinds::LocalAs) -> Result<LocalAs, String> {
    let asn = u32::try_from(written.asn)
        .map_err(|_| format!("localAS {} is not an AS number", written.asn))?;
    Ok(LocalAs {
        asn: Asn(asn),
        prepend_received: !written.no_prepend,
        replace: written.replace_as,
        dual: written.dual_as,
    })
}

fn role_of(name: RoleName) -> Role {
    match name {
        RoleName::Provider => Role::Provider,
        RoleName::RouteServer => Role::RouteServer,
        RoleName::RouteServerClient => Role::RouteServerClient,
        RoleName::Customer => Role::Customer,
        RoleName::Peer => Role::Peer,
    }
}
