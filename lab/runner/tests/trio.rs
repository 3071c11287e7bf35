// SPDX-License-Identifier: Apache-2.0
//! The runner's own test: real routers in namespaces, from a file that containerlab takes too.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab_runner::{Lab, Options, STATE_ROOT, Signal, wait_for};

const CONVERGED: Duration = Duration::from_secs(60);

fn file() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/trio/trio.clab.yml"
    ))
}

fn up(suffix: &str) -> Result<Lab> {
    Lab::up(file(), &Options::for_test(suffix), |step| {
        eprintln!("{step}")
    })
}

/// The route on r1 to what BIRD announces two hops away.
fn route_arrives(lab: &Lab) -> Result<()> {
    wait_for("10.99.0.0/24 on r1", CONVERGED, || {
        let routes = lab
            .node("r1")
            .exec_json(&["ip", "-j", "route", "show", "10.99.0.0/24"])?;
        ensure!(
            routes[0]["gateway"] == "10.9.1.2" && routes[0]["protocol"] == "bgp",
            "{routes}"
        );
        Ok(())
    })
}

fn interfaces_here() -> Result<String> {
    fs::read_to_string("/proc/net/dev")
        .context("no /proc/net/dev")
        .map(|text| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, _)| name)
                .collect()
        })
}

#[test]
fn real_routers_exchange_routes_and_survive_kill_and_cut() -> Result<()> {
    let before = interfaces_here()?;
    let lab = up("trio")?;
    assert_eq!(
        before,
        interfaces_here()?,
        "a lab has no interface in the root namespace"
    );
    let (r1, r2, b3) = (lab.node("r1"), lab.node("r2"), lab.node("b3"));

    assert_eq!(r1.exec_ok(&["hostname"])?.trim(), "r1");
    assert_eq!(r1.exec_ok(&["sh", "-c", "echo $TRIO"])?.trim(), "one");
    assert_eq!(
        r1.exec_ok(&["cat", "/sys/class/net/eth1/mtu"])?.trim(),
        "1500"
    );
    assert_eq!(
        b3.exec_ok(&["cat", "/sys/class/net/eth1/mtu"])?.trim(),
        "9500"
    );
    assert_eq!(
        r2.exec_ok(&["sysctl", "-n", "net.ipv4.conf.eth2.rp_filter"])?
            .trim(),
        "2"
    );
    assert_eq!(
        r1.exec_ok(&["stat", "-f", "-c", "%T", "/sys/fs/bpf"])?
            .trim(),
        "bpf_fs"
    );
    assert!(b3.exec_ok(&["birdc", "show", "status"])?.contains("BIRD 3"));
    let refused = r1.exec(&["sh", "-c", "echo x >>/etc/frr/frr.conf"])?;
    assert!(!refused.success(), "a bind with :ro is read-only");

    route_arrives(&lab)?;

    let first = r2.main_process().context("bgpd of r2 runs")?;
    r2.kill(Signal::SIGKILL)?;
    assert!(!first.is_alive() && r2.main_process().is_none());
    wait_for("r1 to drop the route", CONVERGED, || {
        let routes = r1.exec_json(&["ip", "-j", "route", "show", "10.99.0.0/24"])?;
        ensure!(routes.as_array().is_some_and(Vec::is_empty), "{routes}");
        Ok(())
    })?;
    r2.start()?;
    assert!(r2.start().is_err(), "it runs already");
    route_arrives(&lab)?;

    r1.link_down("eth1")?;
    wait_for("r2 to see the cut", CONVERGED, || {
        let text = r2.exec_ok(&["cat", "/sys/class/net/eth1/carrier"])?;
        ensure!(text.trim() == "0", "carrier {text}");
        Ok(())
    })?;
    r1.link_up("eth1")?;
    route_arrives(&lab)?;

    let listener = r2.spawn(&["socat", "-u", "TCP-LISTEN:7,reuseaddr", "STDOUT"])?;
    wait_for("a connection from a socket opened in r1", CONVERGED, || {
        r1.in_node(|| {
            use std::io::Write as _;
            let mut stream = std::net::TcpStream::connect("10.9.1.2:7")?;
            Ok(stream.write_all(b"hello")?)
        })
    })?;
    assert_eq!(listener.wait(CONVERGED)?, "hello");

    let name = lab.name().to_owned();
    let pids: Vec<i32> = lab.nodes().map(|node| node.pid()).collect();
    lab.down()?;
    assert!(!Path::new(STATE_ROOT).join(name).exists());
    for pid in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "pid {pid} is left"
        );
    }
    Ok(())
}

#[test]
fn two_copies_run_at_once_and_a_drop_takes_one_down() -> Result<()> {
    let one = up("one")?;
    let two = up("two")?;
    let found = Lab::find(two.name())?;
    assert_eq!(found.get("b3")?.pid(), two.node("b3").pid());
    assert!(
        found
            .get("b9")
            .is_err_and(|error| error.to_string().contains("b3, r1, r2, sw"))
    );
    drop(found);
    let pid = one.node("r1").pid();
    drop(one);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(two.node("r1").is_alive(), "the other copy is untouched");
    let name = two.name().to_owned();
    two.down()?;
    assert!(Lab::find(&name).is_err());
    assert!(
        !lab_runner::down(&name)?,
        "down of a lab that is not there is no error"
    );
    Ok(())
}

#[test]
fn a_failing_exec_line_takes_the_lab_down_and_says_why() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("lab-runner-exec-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let path = folder.join("bad.clab.yml");
    fs::write(
        &path,
        "name: bad\ntopology: { nodes: { h: { kind: linux, image: 'debian:trixie', \
         exec: ['ip address add 10.0.0.1/24 dev eth7'] } } }\n",
    )?;
    let mut options = Options::for_test("x");
    options.private_copy = false;
    let error = Lab::up(&path, &options, |_| ())
        .err()
        .context("eth7 does not exist")?;
    let text = format!("{error:#}");
    assert!(text.contains("eth7") && text.contains("on h"), "{text}");
    assert!(Lab::find(&format!("bad-x-{}", std::process::id())).is_err());
    fs::remove_dir_all(folder)?;
    Ok(())
}

const KILLED: &str = "LAB_RUNNER_TEST_KILLED";

/// The victim of the test below, which runs it in a process of its own; called by the test runner
/// it has nothing to bring up.
#[test]
fn victim_of_the_kill() -> Result<()> {
    let Ok(suffix) = std::env::var(KILLED) else {
        return Ok(());
    };
    let mut options = Options::detached();
    options.suffix = Some(suffix);
    Lab::up(file(), &options, |step| println!("{step}"))?;
    Ok(())
}

#[test]
fn what_a_killed_run_left_is_found_and_removed() -> Result<()> {
    let suffix = format!("killed-{}", std::process::id());
    let name = format!("trio-{suffix}");
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "victim_of_the_kill", "--nocapture"])
        .env(KILLED, &suffix)
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("piped")?;
    let is_starting = BufReader::new(stdout)
        .lines()
        .any(|line| line.is_ok_and(|line| line.ends_with("starting b3")));
    child.kill()?;
    child.wait()?;
    ensure!(is_starting, "it ended before it started a node");
    let found = Lab::find(&name)?;
    assert!(!found.is_complete());
    let pids: Vec<i32> = found.nodes().map(|node| node.pid()).collect();
    assert_eq!(pids.len(), 4, "every node was recorded");
    assert!(lab_runner::down(&name)?);
    for pid in pids {
        assert!(
            lab_runner::ProcessId::of(pid).is_none(),
            "pid {pid} is left"
        );
    }
    assert!(!Path::new(STATE_ROOT).join(&name).exists());
    Ok(())
}
