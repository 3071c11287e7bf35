// SPDX-License-Identifier: Apache-2.0
//! What a session says of itself.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::wire::{Diagnostic, State};

/// What is counted over the life of a session.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) packets_in: u64,
    pub(super) packets_out: u64,
    pub(super) echoes_in: u64,
    pub(super) echoes_out: u64,
    pub(super) echoes_lost: u64,
    pub(super) up_count: u64,
    pub(super) down_count: u64,
    pub(super) failures: u64,
    pub(super) last_down: Option<Diagnostic>,
    pub(super) since: Instant,
}

impl Record {
    pub(super) fn new(now: Instant) -> Record {
        Record {
            packets_in: 0,
            packets_out: 0,
            echoes_in: 0,
            echoes_out: 0,
            echoes_lost: 0,
            up_count: 0,
            down_count: 0,
            failures: 0,
            last_down: None,
            since: now,
        }
    }

    pub(super) fn went(
        &mut self,
        (from, to): (State, State),
        why: Diagnostic,
        remote: State,
        now: Instant,
    ) {
        self.since = now;
        if to == State::Up {
            self.up_count += 1;
        }
        if from == State::Up {
            self.down_count += 1;
            self.last_down = Some(why);
            if to == State::Down && remote != State::AdminDown {
                self.failures += 1;
            }
        }
    }
}

/// Everything there is to say about a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionStatus {
    /// `bfd.SessionState`.
    pub state: State,
    /// `bfd.LocalDiag`: why it last failed, until it is up again.
    pub diagnostic: Diagnostic,
    /// `bfd.LocalDiscr`.
    pub local_discriminator: u32,
    /// `bfd.RemoteDiscr`; 0 while the neighbour is silent.
    pub remote_discriminator: u32,
    /// `bfd.RemoteSessionState`.
    pub remote_state: State,
    /// The neighbour's diagnostic.
    pub remote_diagnostic: Diagnostic,
    /// The neighbour's C bit: its BFD does not share the fate of its control plane.
    pub remote_control_plane_independent: bool,
    /// `bfd.RemoteDemandMode`.
    pub remote_demand: bool,
    /// The neighbour's multiplier; 0 while it is silent.
    pub remote_multiplier: u8,
    /// How often the neighbour would like to send, in microseconds.
    pub remote_min_tx_us: u32,
    /// How often the neighbour takes packets, in microseconds.
    pub remote_min_rx_us: u32,
    /// How often the neighbour takes echo packets, in microseconds; 0 for not at all.
    pub remote_min_echo_rx_us: u32,
    /// Our multiplier.
    pub multiplier: u8,
    /// How often we would like to send, in microseconds.
    pub desired_min_tx_us: u32,
    /// How often we take packets, in microseconds.
    pub required_min_rx_us: u32,
    /// How often we take echo packets, in microseconds; 0 for not at all.
    pub required_min_echo_rx_us: u32,
    /// How often packets go, before jitter, in microseconds; 0 for not at all.
    pub transmit_interval_us: u64,
    /// How long silence means down, in microseconds; 0 while the neighbour is silent.
    pub detection_time_us: u64,
    /// Whether a Poll Sequence runs.
    pub polling: bool,
    /// How far our echo packets get.
    #[serde(default)]
    pub echo_state: EchoState,
    /// Our echo packets, where they go.
    pub echo: Option<EchoStatus>,
    /// Packets taken.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Echo packets of ours that came back.
    pub echoes_in: u64,
    /// Echo packets sent.
    pub echoes_out: u64,
    /// Echo packets that did not come back although others had.
    #[serde(default)]
    pub echoes_lost: u64,
    /// How often it came up.
    pub up_count: u64,
    /// How often it went from up to something else.
    pub down_count: u64,
    /// Why it last left Up, where it ever did.
    pub last_down: Option<Diagnostic>,
    /// How often it left Up for another reason than an operator's word at either end: what ends
    /// the sessions of protocols (RFC 5882 §4.3).
    pub failures: u64,
    /// How long it is in its state.
    pub in_state: Duration,
}

/// How far our own echo packets get.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EchoState {
    /// The profile asks for none, or the neighbour is several hops away.
    #[default]
    Off,
    /// Not sent: the session is not up.
    Waiting,
    /// Not sent: the neighbour takes none.
    Refused,
    /// Sent, and none has come back: control packets alone guard the path.
    Unreturned,
    /// They come back: their absence means down.
    Returning,
}

impl EchoState {
    /// The name as printed: `off`, `waiting`, `refused`, `unreturned`, `returning`.
    pub const fn name(self) -> &'static str {
        match self {
            EchoState::Off => "off",
            EchoState::Waiting => "waiting",
            EchoState::Refused => "refused",
            EchoState::Unreturned => "unreturned",
            EchoState::Returning => "returning",
        }
    }
}

/// Our own echo packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EchoStatus {
    /// How often they go, before jitter, in microseconds.
    pub interval_us: u64,
    /// Whether any has come back, so that their absence means down.
    pub returning: bool,
    /// How long their absence means down, in microseconds.
    #[serde(default)]
    pub detection_time_us: u64,
    /// How long the last one took, in microseconds; 0 where none has come back.
    #[serde(default)]
    pub round_trip_us: u64,
}
