// SPDX-License-Identifier: Apache-2.0
//! Datagrams of pods that go on whatever becomes of them, so that one that leaks is seen.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use lab_runner::wait_for;

use crate::CONVERGED;

/// The server's port that hears and is silent.
const DISCARD: u16 = 9;

/// Packets a pod has sent after which one that leaks would have been seen.
pub const ENOUGH: u64 = 1_000;

/// Datagrams to the server, one in a fifth of a millisecond, from now on and whatever comes of them.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    /// How many the pod's kernel took.
    sent: Arc<AtomicU64>,
    sender: Option<thread::JoinHandle<()>>,
}

impl Flood {
    /// Starts it, from a socket that is opened where the packets are to come from.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn start(target: IpAddr, open: impl FnOnce() -> Result<UdpSocket>) -> Result<Self> {
        let socket = open()?;
        let target = SocketAddr::new(target, DISCARD);
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let sender = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Before there is a way it is refused, and tried again.
                    let is_taken = socket.send_to(b"anybody?", target).is_ok();
                    sent.fetch_add(is_taken.into(), Ordering::Relaxed);
                    thread::sleep(Duration::from_micros(200));
                }
            })
        };
        Ok(Self {
            stop,
            sent,
            sender: Some(sender),
        })
    }

    /// Waits until so many more were sent.
    ///
    /// # Errors
    /// When they are not.
    pub fn wait_for(&self, more: u64) -> Result<()> {
        let goal = self.sent.load(Ordering::Relaxed) + more;
        wait_for("the pod's packets", CONVERGED, || {
            let sent = self.sent.load(Ordering::Relaxed);
            ensure!(sent >= goal, "{sent} of {goal}");
            Ok(())
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the sender panicked.
    pub fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        }
        Ok(())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // A test that failed ends its threads too.
        drop(self.stop());
    }
}

/// A socket of the target's family, on any port; to be called within a pod.
///
/// # Errors
/// When there is none.
pub fn socket(target: IpAddr) -> Result<UdpSocket> {
    let any: IpAddr = match target {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Ok(UdpSocket::bind(SocketAddr::new(any, 0))?)
}
