// SPDX-License-Identifier: Apache-2.0
//! The BFD session beside a neighbour's BGP session (RFC 5882 §4, §10.2).

use std::net::IpAddr;

use bgp_bfd::profile::{Hops, Profile};
use bgp_bfd::session::SessionStatus;
use bgp_bfd::wire::State;
use bgp_bfdd::client::{Client, Registration, View};
use bgp_bfdd::protocol::SessionKey;
use bgp_core::config::PeerConfig;
use bgp_core::peer::StopReason;

use crate::interface;

/// What a change of the BFD session means to the BGP session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// It may start now, if it waited.
    MayStart,
    /// It ends.
    Ends(StopReason),
}

/// Watches the neighbour by BFD, where that is configured.
#[derive(Debug)]
pub(crate) struct Bfd {
    client: Option<Client>,
    wanted: Option<(SessionKey, Profile)>,
    session: Option<Registration>,
    /// The process's number of the session and its failures, when last looked at.
    seen: Option<(u32, u64)>,
    strict: bool,
}

impl Bfd {
    pub(crate) fn new(client: Option<Client>) -> Bfd {
        Bfd {
            client,
            wanted: None,
            session: None,
            seen: None,
            strict: false,
        }
    }

    /// Asks for what the configuration wants, and for nothing where it is so already. `ttl` is
    /// that of the session's packets.
    pub(crate) fn configure(&mut self, config: &PeerConfig, ttl: u8) {
        let (Some(client), Some(settings)) = (&self.client, &config.bfd) else {
            (self.wanted, self.session, self.seen) = (None, None, None);
            self.strict = false;
            return;
        };
        self.strict = settings.strict;
        let hops = settings.hops;
        let wanted = (key(config, ttl, hops), settings.profile.clone());
        match (&self.wanted, &self.session) {
            (Some(now), Some(_)) if *now == wanted => {}
            (Some((key, _)), Some(session)) if *key == wanted.0 => {
                session.change(wanted.1.clone());
            }
            _ => {
                // The new one first: what both name is not given up in between.
                let session = client.request(wanted.0.clone(), wanted.1.clone());
                self.session = Some(session);
                self.seen = None;
            }
        }
        self.wanted = Some(wanted);
    }

    /// Whether the BGP session may start.
    pub(crate) fn permits_start(&self) -> bool {
        !self.strict || self.is_up()
    }

    /// Why it may not.
    pub(crate) fn waiting(&self) -> StopReason {
        StopReason::BfdDown {
            text: "waiting for the BFD session to be up (strict mode)".into(),
            may_be_restart: false,
            waits: true,
        }
    }

    fn is_up(&self) -> bool {
        let view = self.session.as_ref().map(Registration::view);
        matches!(view, Some(View::Known(status)) if status.state == State::Up)
    }

    /// Waits for news; for ever where there is no BFD.
    pub(crate) async fn changed(&mut self) {
        match &mut self.session {
            Some(session) => session.changed().await,
            None => std::future::pending().await,
        }
    }

    /// What the news mean. A BFD process that is gone is no news about the neighbour.
    pub(crate) fn verdict(&mut self) -> Verdict {
        let Some(View::Known(status)) = self.session.as_ref().map(Registration::view) else {
            return Verdict::Fine;
        };
        let before = self
            .seen
            .replace((status.local_discriminator, status.failures));
        let failed = before.is_some_and(|(number, failures)| {
            number == status.local_discriminator && failures < status.failures
        });
        if failed {
            return Verdict::Ends(self.reason(&status));
        }
        match status.state {
            State::Up => Verdict::MayStart,
            State::AdminDown | State::Down | State::Init => Verdict::Fine,
        }
    }

    fn reason(&self, status: &SessionStatus) -> StopReason {
        let diagnostic = status.last_down.unwrap_or(status.diagnostic);
        StopReason::BfdDown {
            text: diagnostic.text().into(),
            may_be_restart: !status.remote_control_plane_independent,
            waits: self.strict,
        }
    }
}

/// Which BFD session a neighbour's is.
fn key(config: &PeerConfig, ttl: u8, hops: Option<Hops>) -> SessionKey {
    let peer = config.address.ip();
    let named = config.address.zone().or(config.interface.as_deref());
    let device = named
        .map(str::to_owned)
        .or_else(|| interface::device_towards(peer));
    let hops = hops.unwrap_or_else(|| match (&device, config.ttl_security) {
        (_, Some(security)) if security.hops() == 1 => Hops::Single,
        (_, Some(_)) => Hops::Multi,
        // An external neighbour is on the link unless its TTL says otherwise.
        (_, None) if ttl == 1 => Hops::Single,
        (Some(_), None) if config.ttl() == 1 => Hops::Single,
        (Some(_) | None, None) => Hops::Multi,
    });
    SessionKey {
        peer,
        local: config.local_address.filter(|local| is_unicast(*local)),
        interface: match hops {
            Hops::Single => device,
            Hops::Multi => None,
        },
        hops,
    }
}

fn is_unicast(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}
