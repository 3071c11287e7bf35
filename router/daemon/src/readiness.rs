// SPDX-License-Identifier: Apache-2.0
//! What the service manager is told: ready, alive, stopping. Without one, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says that the daemon serves: resources read, data plane adopted, sockets open.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the daemon is going down on purpose.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Says which process is the daemon from here on, before this one ends.
pub fn succeeded_by(pid: u32) {
    send(&[NotifyState::MainPid(pid)]);
}

/// Says that the daemon is alive.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`alive`] must be called: half the service manager's limit, `None` where it sets
/// none.
pub fn alive_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
