// SPDX-License-Identifier: Apache-2.0
//! Every verdict of the programs, by `BPF_PROG_TEST_RUN` on the loaded object. Needs root.
//!
//! Each test runs in a thread with its own network and mount namespace, where two pods' host-side
//! devices and one fabric device exist; nothing outside is touched and nothing remains.

mod frames;
mod shapes;
mod verdicts;

use std::{
    net::IpAddr,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::programs::{TestRun as _, TestRunOptions};
use bpf_abi::DropReason;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use router_types::LinkIndex;

use crate::{Config, Datapath, Endpoint, EndpointId, HookChoice, MacAddr, Role, load};

const POD_1_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const POD_2_MAC: MacAddr = MacAddr([2, 0, 0, 0, 2, 1]);

/// What a program answered, and the frame it left.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    verdict: Verdict,
    frame: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    ToKernel,
    Redirected,
    Refused,
}

/// Two pods and a fabric device in namespaces of their own.
struct Node {
    datapath: Datapath,
    pod_1: Endpoint,
    pod_2: Endpoint,
    fabric: LinkIndex,
}

impl Node {
    /// Runs a test body in fresh namespaces.
    fn run(body: impl FnOnce(&mut Node) + Send + 'static) {
        std::thread::spawn(move || {
            let mut node = Node::set_up();
            body(&mut node);
            node.datapath.uninstall().expect("uninstall");
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    fn set_up() -> Self {
        let pin_root = isolate();
        ip("link set lo up");
        for (name, mac) in [
            ("pod1", "02:00:00:00:01:02"),
            ("pod2", "02:00:00:00:02:02"),
            ("fab", "02:00:00:00:03:02"),
        ] {
            ip(&format!(
                "link add {name} address {mac} type veth peer name {name}p"
            ));
            ip(&format!("link set {name} up"));
        }
        // The far sides of the pods' devices stay down, so that the kernels' own chatter (multicast
        // listener reports, router solicitations) moves no counter.
        ip("link set fabp up");
        sysctl("net/ipv4/ip_forward", "1");
        sysctl("net/ipv6/conf/all/forwarding", "1");
        ip("addr add 192.0.2.1/24 dev fab");
        ip("addr add 2001:db8::1/64 dev fab nodad");
        ip("route add 198.51.100.0/24 via 192.0.2.254");
        ip("route add 2001:db8:1::/64 via 2001:db8::fe");
        ip("route add 198.51.101.0/24 via inet6 2001:db8::fe dev fab");
        ip("route add 198.51.102.0/24 via 192.0.2.254 mtu lock 1300");
        for (kind, net) in [("blackhole", 1), ("unreachable", 2), ("prohibit", 3)] {
            ip(&format!("route add {kind} 203.0.{net}.0/24"));
            ip(&format!("route add {kind} 2001:db8:bad{net}::/64"));
        }
        let config = Config {
            pin_root,
            hook: HookChoice::Auto,
        };
        let mut datapath = Datapath::open(config).expect("open");
        let pod_1 = endpoint(
            1,
            "pod1",
            POD_1_MAC,
            &["10.244.0.1", "fd00:10:244::1"],
            1500,
        );
        let pod_2 = endpoint(
            2,
            "pod2",
            POD_2_MAC,
            &["10.244.0.2", "fd00:10:244::2"],
            1400,
        );
        let fabric = LinkIndex(index_of("fab"));
        let report = datapath
            .sync_endpoints(&[pod_1.clone(), pod_2.clone()])
            .expect("sync");
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        Node {
            datapath,
            pod_1,
            pod_2,
            fabric,
        }
    }

    /// Runs a program once on a frame that is at this device.
    fn answer(&mut self, role: Role, at: LinkIndex, frame: &[u8]) -> Answer {
        self.answer_gso(role, at, frame, 0)
    }

    fn answer_gso(&mut self, role: Role, at: LinkIndex, frame: &[u8], gso_size: u32) -> Answer {
        // `struct __sk_buff` as far as the kernel lets a caller set it.
        const IFINDEX: usize = 40;
        const GSO_SEGS: usize = 164;
        const GSO_SIZE: usize = 176;
        let mut context = [0_u8; 192];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&at.0.to_ne_bytes());
        if gso_size != 0 {
            context[GSO_SEGS..GSO_SEGS + 4].copy_from_slice(&2_u32.to_ne_bytes());
            context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&gso_size.to_ne_bytes());
        }
        let mut out = vec![0; frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        let program = load::program(&mut self.datapath.ebpf, role).expect("program");
        let result = program.test_run(options).expect("test run");
        out.truncate(result.data_size_out as usize);
        let verdict = match result.return_value as i32 {
            -1 => Verdict::ToKernel,
            2 => Verdict::Refused,
            7 => Verdict::Redirected,
            other => panic!("unexpected return code {other}"),
        };
        Answer {
            verdict,
            frame: out,
        }
    }

    /// Refusals so far for one reason, of the whole node.
    fn drops(&self, reason: DropReason) -> u64 {
        let drops = self.datapath.drops().expect("drops");
        drops
            .iter()
            .find(|drop| drop.reason == reason)
            .map_or(0, |drop| drop.packets)
    }

    fn all_drops(&self) -> u64 {
        self.datapath
            .drops()
            .expect("drops")
            .iter()
            .map(|drop| drop.packets)
            .sum()
    }
}

fn endpoint(id: u32, device: &str, pod_mac: MacAddr, addresses: &[&str], mtu: u32) -> Endpoint {
    let link = LinkIndex(index_of(device));
    Endpoint {
        id: EndpointId(id),
        link,
        host_mac: crate::device::Device::find(link).expect("device").mac,
        pod_mac,
        addresses: addresses
            .iter()
            .map(|a| a.parse::<IpAddr>().expect("address"))
            .collect(),
        mtu,
    }
}

/// Gives the calling thread its own network and mount namespaces; returns a pin root inside.
pub(crate) fn isolate() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root is needed");
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .expect("private mounts");
    mount(
        Some("sys"),
        "/sys",
        Some("sysfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .expect("sysfs");
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("/sys/fs/bpf/cwtest_{}_{count}", std::process::id()))
}

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("iproute2");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).expect(name);
}

fn index_of(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).expect(device)
}
