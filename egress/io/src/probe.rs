// SPDX-License-Identifier: Apache-2.0
//! Questions a gateway asks something outside the cluster, again and again: whether it accepts a
//! TCP connection, or answers an ICMP echo request (RFC 792, RFC 4443 §4.1).
//!
//! Each probe is a task that asks, tells what came of it, and sleeps until the next question is
//! due. One that is late is told like any other: a busy thread finds the answer that is there.

mod echo;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whether a TCP connection is accepted.
    Tcp(SocketAddr),
    /// Whether an ICMP echo request is answered.
    Icmp(IpAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => write!(f, "TCP {address}"),
            Target::Icmp(address) => write!(f, "ICMP {address}"),
        }
    }
}

/// What gateways of a policy have to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub target: Target,
    /// From one question to the next.
    pub interval: Duration,
    /// How long an answer may take; not longer than the interval.
    pub timeout: Duration,
    /// Questions without an answer in a row that mean that the target is not reached.
    pub failure_threshold: u32,
}

/// A question that has ended.
#[derive(Debug)]
pub(crate) struct Asked {
    /// When it was asked.
    pub(crate) at: Instant,
    /// Why there was no answer.
    pub(crate) result: Result<(), String>,
}

/// A probe that is asked until this is dropped.
#[derive(Debug)]
pub(crate) struct Asking {
    task: AbortHandle,
    again: Arc<Notify>,
}

impl Asking {
    /// Begins to ask, through a device if one is named. `tell` says whether to go on.
    pub(crate) fn start<F>(
        probe: Probe,
        device: Option<String>,
        tell: impl Fn(Asked) -> F + Send + 'static,
    ) -> Asking
    where
        F: Future<Output = bool> + Send,
    {
        let again = Arc::new(Notify::new());
        let asked_again = Arc::clone(&again);
        let asking = async move {
            loop {
                let at = Instant::now();
                let result = ask(&probe, device.as_deref()).await;
                if !tell(Asked { at, result }).await {
                    return;
                }
                tokio::select! {
                    () = asked_again.notified() => {}
                    () = tokio::time::sleep_until((at + probe.interval).into()) => {}
                }
            }
        };
        Asking {
            task: tokio::spawn(asking).abort_handle(),
            again,
        }
    }

    /// Asks once more at once, after the question under way if there is one.
    pub(crate) fn again(&self) {
        self.again.notify_one();
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks once.
async fn ask(probe: &Probe, device: Option<&str>) -> Result<(), String> {
    let asking = async {
        match probe.target {
            Target::Tcp(address) => connect(address, device).await,
            Target::Icmp(address) => echo::ask(address, device).await,
        }
    };
    match tokio::time::timeout(probe.timeout, asking).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {:?}", probe.timeout)),
    }
}

async fn connect(address: SocketAddr, device: Option<&str>) -> io::Result<()> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind_device(device.map(str::as_bytes))?;
    socket.connect(address).await.map(drop)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    fn probe(target: Target) -> Probe {
        Probe {
            target,
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(60),
            failure_threshold: 1,
        }
    }

    fn start(probe: Probe) -> (Asking, mpsc::Receiver<Asked>) {
        let (sender, told) = mpsc::channel(1);
        let asking = Asking::start(probe, Some("lo".to_owned()), move |asked| {
            let sender = sender.clone();
            async move { sender.send(asked).await.is_ok() }
        });
        (asking, told)
    }

    async fn next(told: &mut mpsc::Receiver<Asked>) -> Asked {
        told.recv().await.expect("the task asks")
    }

    #[tokio::test]
    async fn a_listener_answers_until_it_is_gone() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.expect("a port");
            let target = listener.local_addr().expect("its address");
            let (asking, mut told) = start(probe(Target::Tcp(target)));
            for _ in 0..3 {
                let asked = next(&mut told).await;
                assert_eq!(asked.result, Ok(()));
            }
            drop(listener);
            let refused = loop {
                if let Err(error) = next(&mut told).await.result {
                    break error;
                }
            };
            assert!(refused.contains("refused"), "{refused}");
            drop(asking);
        }
    }

    #[tokio::test]
    async fn who_is_told_to_ask_again_does_not_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let target = listener.local_addr().expect("its address");
        let hourly = Probe {
            interval: Duration::from_secs(3600),
            ..probe(Target::Tcp(target))
        };
        let (asking, mut told) = start(hourly);
        let first = next(&mut told).await;
        let heard = Instant::now();
        asking.again();
        let second = next(&mut told).await;
        assert!(first.at <= heard && heard <= second.at);
    }

    #[tokio::test]
    async fn silence_is_no_answer() {
        let target = Target::Tcp("127.0.0.1:1".parse().expect("an address"));
        let silent = Probe {
            timeout: Duration::ZERO,
            ..probe(target)
        };
        // Whatever comes first, nothing is no answer either.
        assert!(ask(&silent, None).await.is_err());
        let error = ask(&probe(target), Some("no-device")).await;
        assert!(error.expect_err("no device").contains("No such device"));
    }

    #[tokio::test]
    async fn an_echo_comes_back_from_this_host() {
        for address in ["127.0.0.1", "::1"] {
            let target = Target::Icmp(address.parse().expect("an address"));
            let (_asking, mut told) = start(probe(target));
            for _ in 0..3 {
                match next(&mut told).await.result {
                    Ok(()) => {}
                    Err(error) if error.contains("not permitted") => {
                        eprintln!("skipped: {error}");
                        return;
                    }
                    Err(error) => panic!("{address}: {error}"),
                }
            }
        }
    }
}
