// SPDX-License-Identifier: Apache-2.0
//! The session states and events of RFC 4271 §8, as one table.
//!
//! [`react`] is the whole table: which state a connection goes to on an event and what has to be
//! done on the way. It keeps nothing; [`crate::peer::Peer`] holds the states of its two possible
//! connections, runs the timers and carries the reactions out.
//!
//! Of the optional attributes of §8.1.1, `PassiveTcpEstablishment`, `DampPeerOscillations` (the
//! growing idle hold time) and `SendNOTIFICATIONwithoutOPEN` are implemented, DelayOpen (events 12
//! and 20) and `TrackTcpState` (events 14 and 15) are not: no state table entry can meet them.
//!
//! Deviation: after a failed attempt to connect RFC 4271 has the connection go to Idle when
//! DelayOpen is off. Here it goes to Active, since Idle refuses calls, and a neighbour that comes
//! back is often the one to call first.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A session state (RFC 4271 §8.2.2), in the order of progress.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum State {
    /// Nothing is tried and calls are refused: stopped, or pausing after an error.
    Idle,
    /// Waiting for a call, or for the time to dial again.
    Active,
    /// Dialling.
    Connect,
    /// Connected; OPEN sent, the neighbour's awaited.
    OpenSent,
    /// OPEN received and agreed with; its confirmation awaited.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl State {
    /// All states.
    pub const ALL: [State; 6] = [
        State::Idle,
        State::Active,
        State::Connect,
        State::OpenSent,
        State::OpenConfirm,
        State::Established,
    ];

    /// The name as other tools write it: `idle`, `active`, `connect`, `open_sent`, …
    pub const fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Active => "active",
            State::Connect => "connect",
            State::OpenSent => "open_sent",
            State::OpenConfirm => "open_confirm",
            State::Established => "established",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An event (RFC 4271 §8.1), by its name there. What an event carries is kept beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Event {
    /// 1: the configuration wants the session.
    ManualStart,
    /// 2: the configuration does not want it any more, or differently.
    ManualStop,
    /// 13: the pause after an error is over. Stands for 6, `AutomaticStart` with damping, too.
    IdleHoldTimerExpires,
    /// 8: this speaker ends the session by itself (prefix limit, stuck connection).
    AutomaticStop,
    /// 9.
    ConnectRetryTimerExpires,
    /// 10.
    HoldTimerExpires,
    /// 11.
    KeepaliveTimerExpires,
    /// 16: the connection dialled is there.
    TcpCrAcked,
    /// 17: a call was taken.
    TcpConnectionConfirmed,
    /// 18: the attempt failed, or the connection broke or was closed.
    TcpConnectionFails,
    /// 19: an OPEN that can be agreed with.
    BgpOpen,
    /// 21: framing is lost or a message has a bad header.
    BgpHeaderErr,
    /// 22: an OPEN that cannot be agreed with.
    BgpOpenMsgErr,
    /// 23: the other connection of the two was chosen.
    OpenCollisionDump,
    /// 24: NOTIFICATION with a version error.
    NotifMsgVerErr,
    /// 25: any other NOTIFICATION.
    NotifMsg,
    /// 26.
    KeepAliveMsg,
    /// 27: UPDATE; errors that leave the session up (RFC 7606) included.
    UpdateMsg,
    /// 28: UPDATE that cannot be survived.
    UpdateMsgErr,
    /// ROUTE-REFRESH (RFC 2918), which RFC 4271 does not list.
    RouteRefreshMsg,
    /// ROUTE-REFRESH of a wrong length (RFC 7313 §5).
    RouteRefreshMsgErr,
}

impl Event {
    /// All events.
    pub const ALL: [Event; 21] = [
        Event::ManualStart,
        Event::ManualStop,
        Event::IdleHoldTimerExpires,
        Event::AutomaticStop,
        Event::ConnectRetryTimerExpires,
        Event::HoldTimerExpires,
        Event::KeepaliveTimerExpires,
        Event::TcpCrAcked,
        Event::TcpConnectionConfirmed,
        Event::TcpConnectionFails,
        Event::BgpOpen,
        Event::BgpHeaderErr,
        Event::BgpOpenMsgErr,
        Event::OpenCollisionDump,
        Event::NotifMsgVerErr,
        Event::NotifMsg,
        Event::KeepAliveMsg,
        Event::UpdateMsg,
        Event::UpdateMsgErr,
        Event::RouteRefreshMsg,
        Event::RouteRefreshMsgErr,
    ];
}

/// What an event makes a connection do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// Nothing.
    Ignore,
    /// To Connect: dial (or, when passive, only wait: Active) and start the ConnectRetryTimer.
    Start,
    /// To Connect: give up the attempt under way, if any, and dial again.
    Dial,
    /// To Active: wait for a call until the ConnectRetryTimer expires.
    WaitForRetry,
    /// To OpenSent: send OPEN, start the HoldTimer with its large value.
    SendOpen,
    /// To OpenConfirm: send KEEPALIVE, start HoldTimer and KeepaliveTimer as negotiated.
    Confirm,
    /// To Established: restart the HoldTimer, tell the RIB.
    Establish,
    /// Stay: send KEEPALIVE and restart the KeepaliveTimer.
    SendKeepalive,
    /// Stay: the neighbour is alive, restart the HoldTimer.
    Heard,
    /// Stay: restart the HoldTimer and hand the routes over.
    TakeRoutes,
    /// Stay: restart the HoldTimer and have the routes sent again.
    Resend,
    /// To Idle: close, after a NOTIFICATION of this sort.
    Close(Notice),
}

/// The NOTIFICATION before a close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// None: there is nobody to send it to, or it was theirs.
    Silent,
    /// The one the event carries.
    Given,
    /// Hold Timer Expired (code 4).
    HoldTimerExpired,
    /// Finite State Machine Error (code 5, subcode by state: RFC 6608).
    FsmError,
}

/// The transition table.
pub fn react(state: State, event: Event) -> Reaction {
    match state {
        State::Idle => in_idle(event),
        State::Connect => in_connect(event),
        State::Active => in_active(event),
        State::OpenSent => in_open_sent(event),
        State::OpenConfirm => in_open_confirm(event),
        State::Established => in_established(event),
    }
}

fn in_idle(event: Event) -> Reaction {
    match event {
        Event::ManualStart | Event::IdleHoldTimerExpires => Reaction::Start,
        // A call in Idle is refused by the caller before it becomes a connection.
        Event::ManualStop
        | Event::AutomaticStop
        | Event::ConnectRetryTimerExpires
        | Event::HoldTimerExpires
        | Event::KeepaliveTimerExpires
        | Event::TcpCrAcked
        | Event::TcpConnectionConfirmed
        | Event::TcpConnectionFails
        | Event::BgpOpen
        | Event::BgpHeaderErr
        | Event::BgpOpenMsgErr
        | Event::OpenCollisionDump
        | Event::NotifMsgVerErr
        | Event::NotifMsg
        | Event::KeepAliveMsg
        | Event::UpdateMsg
        | Event::UpdateMsgErr
        | Event::RouteRefreshMsg
        | Event::RouteRefreshMsgErr => Reaction::Ignore,
    }
}

fn in_connect(event: Event) -> Reaction {
    match event {
        Event::ManualStart => Reaction::Ignore,
        Event::ManualStop | Event::AutomaticStop => Reaction::Close(Notice::Silent),
        Event::ConnectRetryTimerExpires => Reaction::Dial,
        Event::TcpCrAcked | Event::TcpConnectionConfirmed => Reaction::SendOpen,
        Event::TcpConnectionFails => Reaction::WaitForRetry,
        Event::IdleHoldTimerExpires
        | Event::HoldTimerExpires
        | Event::KeepaliveTimerExpires
        | Event::BgpOpen
        | Event::BgpHeaderErr
        | Event::BgpOpenMsgErr
        | Event::OpenCollisionDump
        | Event::NotifMsgVerErr
        | Event::NotifMsg
        | Event::KeepAliveMsg
        | Event::UpdateMsg
        | Event::UpdateMsgErr
        | Event::RouteRefreshMsg
        | Event::RouteRefreshMsgErr => Reaction::Close(Notice::Silent),
    }
}

fn in_active(event: Event) -> Reaction {
    match event {
        Event::ManualStart => Reaction::Ignore,
        Event::ManualStop | Event::AutomaticStop => Reaction::Close(Notice::Silent),
        Event::ConnectRetryTimerExpires => Reaction::Dial,
        Event::TcpCrAcked | Event::TcpConnectionConfirmed => Reaction::SendOpen,
        Event::TcpConnectionFails => Reaction::WaitForRetry,
        Event::IdleHoldTimerExpires
        | Event::HoldTimerExpires
        | Event::KeepaliveTimerExpires
        | Event::BgpOpen
        | Event::BgpHeaderErr
        | Event::BgpOpenMsgErr
        | Event::OpenCollisionDump
        | Event::NotifMsgVerErr
        | Event::NotifMsg
        | Event::KeepAliveMsg
        | Event::UpdateMsg
        | Event::UpdateMsgErr
        | Event::RouteRefreshMsg
        | Event::RouteRefreshMsgErr => Reaction::Close(Notice::Silent),
    }
}

fn in_open_sent(event: Event) -> Reaction {
    match event {
        Event::ManualStart => Reaction::Ignore,
        Event::ManualStop | Event::AutomaticStop | Event::OpenCollisionDump => {
            Reaction::Close(Notice::Given)
        }
        Event::HoldTimerExpires => Reaction::Close(Notice::HoldTimerExpired),
        // RFC 4271: back to Active with the ConnectRetryTimer, not to Idle.
        Event::TcpConnectionFails => Reaction::WaitForRetry,
        Event::BgpOpen => Reaction::Confirm,
        Event::BgpHeaderErr | Event::BgpOpenMsgErr => Reaction::Close(Notice::Given),
        Event::NotifMsgVerErr | Event::NotifMsg => Reaction::Close(Notice::Silent),
        // Second connections are this speaker's own business; the table never sees these here.
        Event::TcpCrAcked | Event::TcpConnectionConfirmed => Reaction::Ignore,
        Event::IdleHoldTimerExpires
        | Event::ConnectRetryTimerExpires
        | Event::KeepaliveTimerExpires
        | Event::KeepAliveMsg
        | Event::UpdateMsg
        | Event::UpdateMsgErr
        | Event::RouteRefreshMsg
        | Event::RouteRefreshMsgErr => Reaction::Close(Notice::FsmError),
    }
}

fn in_open_confirm(event: Event) -> Reaction {
    match event {
        Event::ManualStart => Reaction::Ignore,
        Event::ManualStop | Event::AutomaticStop | Event::OpenCollisionDump => {
            Reaction::Close(Notice::Given)
        }
        Event::HoldTimerExpires => Reaction::Close(Notice::HoldTimerExpired),
        Event::KeepaliveTimerExpires => Reaction::SendKeepalive,
        Event::TcpConnectionFails | Event::NotifMsgVerErr | Event::NotifMsg => {
            Reaction::Close(Notice::Silent)
        }
        Event::BgpHeaderErr | Event::BgpOpenMsgErr => Reaction::Close(Notice::Given),
        Event::KeepAliveMsg => Reaction::Establish,
        Event::TcpCrAcked | Event::TcpConnectionConfirmed => Reaction::Ignore,
        // A second OPEN on one connection is no collision but an error.
        Event::BgpOpen
        | Event::IdleHoldTimerExpires
        | Event::ConnectRetryTimerExpires
        | Event::UpdateMsg
        | Event::UpdateMsgErr
        | Event::RouteRefreshMsg
        | Event::RouteRefreshMsgErr => Reaction::Close(Notice::FsmError),
    }
}

fn in_established(event: Event) -> Reaction {
    match event {
        Event::ManualStart => Reaction::Ignore,
        Event::ManualStop | Event::AutomaticStop | Event::OpenCollisionDump => {
            Reaction::Close(Notice::Given)
        }
        Event::HoldTimerExpires => Reaction::Close(Notice::HoldTimerExpired),
        Event::KeepaliveTimerExpires => Reaction::SendKeepalive,
        Event::TcpConnectionFails | Event::NotifMsgVerErr | Event::NotifMsg => {
            Reaction::Close(Notice::Silent)
        }
        Event::KeepAliveMsg => Reaction::Heard,
        Event::UpdateMsg => Reaction::TakeRoutes,
        Event::RouteRefreshMsg => Reaction::Resend,
        Event::BgpHeaderErr | Event::UpdateMsgErr | Event::RouteRefreshMsgErr => {
            Reaction::Close(Notice::Given)
        }
        Event::TcpCrAcked | Event::TcpConnectionConfirmed => Reaction::Ignore,
        Event::BgpOpen
        | Event::BgpOpenMsgErr
        | Event::IdleHoldTimerExpires
        | Event::ConnectRetryTimerExpires => Reaction::Close(Notice::FsmError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as RFC 4271 §8.2.2 has it, one line a state: the events that do not end the
    /// connection, with the state they lead to.
    #[test]
    fn the_table_is_the_one_of_the_rfc() {
        use Event::*;
        use State::*;
        let goes = |state, event| match react(state, event) {
            Reaction::Ignore
            | Reaction::SendKeepalive
            | Reaction::Heard
            | Reaction::TakeRoutes
            | Reaction::Resend => state,
            Reaction::Start | Reaction::Dial => Connect,
            Reaction::WaitForRetry => Active,
            Reaction::SendOpen => OpenSent,
            Reaction::Confirm => OpenConfirm,
            Reaction::Establish => Established,
            Reaction::Close(_) => Idle,
        };
        let survivors: [(State, &[(Event, State)]); 6] = [
            (
                Idle,
                &[(ManualStart, Connect), (IdleHoldTimerExpires, Connect)],
            ),
            (
                Active,
                &[
                    (ManualStart, Active),
                    (ConnectRetryTimerExpires, Connect),
                    (TcpCrAcked, OpenSent),
                    (TcpConnectionConfirmed, OpenSent),
                    (TcpConnectionFails, Active),
                ],
            ),
            (
                Connect,
                &[
                    (ManualStart, Connect),
                    (ConnectRetryTimerExpires, Connect),
                    (TcpCrAcked, OpenSent),
                    (TcpConnectionConfirmed, OpenSent),
                    (TcpConnectionFails, Active),
                ],
            ),
            (
                OpenSent,
                &[
                    (ManualStart, OpenSent),
                    (TcpCrAcked, OpenSent),
                    (TcpConnectionConfirmed, OpenSent),
                    (TcpConnectionFails, Active),
                    (BgpOpen, OpenConfirm),
                ],
            ),
            (
                OpenConfirm,
                &[
                    (ManualStart, OpenConfirm),
                    (TcpCrAcked, OpenConfirm),
                    (TcpConnectionConfirmed, OpenConfirm),
                    (KeepaliveTimerExpires, OpenConfirm),
                    (KeepAliveMsg, Established),
                ],
            ),
            (
                Established,
                &[
                    (ManualStart, Established),
                    (TcpCrAcked, Established),
                    (TcpConnectionConfirmed, Established),
                    (KeepaliveTimerExpires, Established),
                    (KeepAliveMsg, Established),
                    (UpdateMsg, Established),
                    (RouteRefreshMsg, Established),
                ],
            ),
        ];
        for (state, listed) in survivors {
            for event in Event::ALL {
                let expected = listed
                    .iter()
                    .find(|(e, _)| *e == event)
                    .map_or(Idle, |(_, next)| *next);
                assert_eq!(goes(state, event), expected, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn unexpected_messages_are_answered_with_an_fsm_error() {
        for (state, event) in [
            (State::OpenSent, Event::KeepAliveMsg),
            (State::OpenSent, Event::UpdateMsg),
            (State::OpenConfirm, Event::BgpOpen),
            (State::OpenConfirm, Event::UpdateMsg),
            (State::Established, Event::BgpOpen),
        ] {
            assert_eq!(
                react(state, event),
                Reaction::Close(Notice::FsmError),
                "{state} {event:?}"
            );
        }
    }

    #[test]
    fn a_notification_is_never_answered_with_one() {
        for state in State::ALL {
            for event in [Event::NotifMsg, Event::NotifMsgVerErr] {
                match react(state, event) {
                    Reaction::Ignore | Reaction::Close(Notice::Silent) => {}
                    other => panic!("{state} {event:?}: {other:?}"),
                }
            }
        }
    }
}
