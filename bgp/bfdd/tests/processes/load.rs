// SPDX-License-Identifier: Apache-2.0
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bgp_bfd::profile::Hops;
use bgp_bfd::session::EchoState;

use super::echo::echoing;
use super::pair::{Pair, key, profile, up};

/// Sessions between the two processes.
const SESSIONS: u32 = 100;

/// More of them, with echo packets every 50 ms both ways.
const ECHOING: u32 = 20;

/// How long the load lasts.
const LOAD: Duration = Duration::from_secs(15);

/// Busy loops, of which each wants a processor.
const LOOPS: usize = 8;

struct Busy(Vec<Child>);

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// 100 sessions of 50 ms x 3 and 20 of as many echo packets at both ends, with more busy loops than processors: not one flap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_does_not_flap_sessions() {
    let pair = Pair::new(SESSIONS + ECHOING);
    let (left, right) = (pair.left.client(), pair.right.client());
    let mut sessions = Vec::new();
    for number in 1..=SESSIONS + ECHOING {
        let wanted = match number {
            ..=SESSIONS => profile(50),
            _ => echoing(50, 50),
        };
        let (ours, theirs) = (format!("10.9.0.{number}"), format!("10.9.1.{number}"));
        sessions.push(left.request(key(&theirs, &ours, Hops::Single), wanted.clone()));
        sessions.push(right.request(key(&ours, &theirs, Hops::Single), wanted));
    }
    for session in &mut sessions {
        up(session).await;
    }
    let busy = Busy(
        (0..LOOPS)
            .map(|_| {
                let mut command = pair.left.command("sh");
                command.args(["-c", "while :; do :; done"]);
                command.stdin(Stdio::null()).spawn().unwrap()
            })
            .collect(),
    );
    let begin = Instant::now();
    tokio::time::sleep(LOAD).await;
    drop(busy);
    for client in [&left, &right] {
        let report = client.report().await.unwrap();
        assert_eq!(report.sessions.len(), (SESSIONS + ECHOING) as usize);
        let returning = report
            .sessions
            .iter()
            .filter(|s| s.status.echo_state == EchoState::Returning);
        assert_eq!(returning.count(), ECHOING as usize);
        let flaps: u64 = report.sessions.iter().map(|s| s.status.down_count).sum();
        assert_eq!(flaps, 0, "{:?}", report.lateness);
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        // They were really sent: 13 to 27 packets a second and session.
        let least = u64::from(SESSIONS) * 15 * begin.elapsed().as_secs();
        let sent: u64 = report.sessions.iter().map(|s| s.status.packets_out).sum();
        assert!(sent > least, "{sent} packets");
        println!(
            "lateness: worst {} us, by bucket {:?}",
            report.lateness_max_us, report.lateness
        );
    }
}
