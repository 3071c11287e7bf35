// SPDX-License-Identifier: Apache-2.0
//! The bench itself, small: every route through the real daemon and through a rival, and the tables
//! that come out are exactly those that went in.

use std::process::Command;

use lab_runner::preflight::programs_dir;

fn bench(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bgp-bench"))
        .args(["--quick", "--runs", "1", "--limit", "60"])
        .args(arguments)
        .output()
        .expect("the bench runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{text}");
    text
}

#[test]
fn ten_thousand_routes_pass_the_daemon_and_a_rival_unchanged() {
    let daemon = programs_dir()
        .expect("this test's own path")
        .join("causewayd");
    assert!(
        daemon.is_file(),
        "{} is not built: cargo build -p causewayd",
        daemon.display()
    );
    let daemon = daemon.display().to_string();
    let text = bench(&["one", "fan10", "--causewayd", &daemon, "--rivals", "bird2"]);
    assert!(!text.contains("failed"), "{text}");
    assert!(text.contains("| bird2 | "), "{text}");
}

#[test]
fn the_storm_has_its_idle_peers_and_bfd_sessions() {
    let programs = programs_dir().expect("this test's own path");
    let [daemon, bfdd] = ["causewayd", "causeway-bfdd"].map(|name| {
        let path = programs.join(name);
        assert!(path.is_file(), "{} is not built", path.display());
        path.display().to_string()
    });
    let text = bench(&[
        "storm",
        "--causewayd",
        &daemon,
        "--bfdd",
        &bfdd,
        "--rivals",
        "none",
    ]);
    assert!(text.contains("causewayd: 10 BFD sessions, lost "), "{text}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let output = Command::new(env!("CARGO_BIN_EXE_bgp-bench"))
        .arg("none-of-these")
        .output()
        .expect("the bench runs");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("known are one, parts"), "{errors}");
}
