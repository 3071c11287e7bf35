// SPDX-License-Identifier: Apache-2.0
//! Cost of a packet from a pod to the fabric.

use std::time::Instant;

use anyhow::{Result, ensure};
use bpf_loader::{Config, Datapath};

use super::{Report, before_others, least, on_one_core, xdp};
use crate::{
    namespace::{Namespace, private_pins},
    pod::{self, Pod, index_of},
};

/// Bytes of an injected frame.
const FRAME_BYTES: usize = 64;

/// Two nodes, each with a pod and a fabric link into a sink.
pub(super) struct Bench {
    kernel: Node,
    programs: Node,
    datapath: Datapath,
}

struct Node {
    namespace: Namespace,
    v4: xdp::Source,
    v6: xdp::Source,
    _pod: Pod,
    _sink: xdp::Sink,
    _far: Namespace,
}

impl Bench {
    pub(super) fn set_up() -> Result<Self> {
        let (kernel, programs) = (Node::set_up()?, Node::set_up()?);
        let pin_root = private_pins()?;
        let endpoint = programs._pod.endpoint.clone();
        let fabric = index_of(&programs.namespace, "fab")?;
        let datapath = programs.namespace.run(|| -> Result<_> {
            let mut datapath = Datapath::open(Config {
                pin_root,
                ..Config::default()
            })?;
            for report in [
                datapath.sync_endpoints(&[endpoint])?,
                datapath.sync_fabric(&[fabric])?,
            ] {
                ensure!(report.failed.is_empty(), "{:?}", report.failed);
            }
            Ok(datapath)
        })?;
        Ok(Self {
            kernel,
            programs,
            datapath,
        })
    }

    pub(super) fn round(&mut self, packets: u32, report: &mut Report) -> Result<()> {
        let before = self.counted()?;
        for (node, best) in [
            (&self.kernel, &mut report.kernel_forward_ns),
            (&self.programs, &mut report.programs_forward_ns),
        ] {
            least(&mut best.v4_ns, node.measure(&node.v4, packets)?);
            least(&mut best.v6_ns, node.measure(&node.v6, packets)?);
        }
        let forwarded = self.counted()? - before;
        ensure!(
            forwarded >= 2 * u64::from(packets),
            "only {forwarded} of {} packets were forwarded by the programs",
            2 * packets
        );
        Ok(())
    }

    /// Packets the programs sent on by themselves.
    fn counted(&self) -> Result<u64> {
        let counters = self.programs.namespace.run(|| self.datapath.counters())?;
        Ok(counters
            .iter()
            .map(|(_, traffic)| traffic.tx_packets - traffic.tx_kernel_packets)
            .sum())
    }
}

impl Node {
    fn set_up() -> Result<Self> {
        let (namespace, far) = (pod::node()?, Namespace::new()?);
        let pod = Pod::add(&namespace, 1, 1, 1500)?;
        namespace.ip(&format!(
            "link add fab type veth peer name fab netns {}",
            far.path()
        ))?;
        far.ip("link set fab address 02:00:00:00:fa:02 up")?;
        for line in [
            "link set fab up",
            "addr add 192.0.2.1/30 dev fab",
            "addr add 2001:db8::1/64 dev fab nodad",
            "neigh add 192.0.2.2 lladdr 02:00:00:00:fa:02 dev fab nud permanent",
            "neigh add 2001:db8::2 lladdr 02:00:00:00:fa:02 dev fab nud permanent",
            "route add default via 192.0.2.2",
            "-6 route add default via 2001:db8::2",
        ] {
            namespace.ip(line)?;
        }
        let sink = far.run(|| xdp::Sink::attach("fab"))?;
        let frame_v4 = frame(&pod, &ipv4(&pod));
        let frame_v6 = frame(&pod, &ipv6(&pod));
        let device = pod.endpoint.link;
        // Live frames come in by a queue the kernel knows only once an XDP program is attached.
        let v4 = namespace.run(|| xdp::Source::attach(device.0, frame_v4))?;
        let v6 = namespace.run(|| xdp::Source::load(device.0, frame_v6))?;
        Ok(Self {
            namespace,
            v4,
            v6,
            _pod: pod,
            _sink: sink,
            _far: far,
        })
    }

    /// Nanoseconds per packet.
    fn measure(&self, source: &xdp::Source, packets: u32) -> Result<f64> {
        self.namespace.run(|| {
            on_one_core()?;
            before_others();
            let started = Instant::now();
            source.inject(packets)?;
            Ok(started.elapsed().as_nanos() as f64 / f64::from(packets))
        })
    }
}

fn frame(pod: &Pod, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(pod.endpoint.host_mac.0);
    frame.extend(pod.endpoint.pod_mac.0);
    frame.extend(if packet[0] >> 4 == 4 {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    });
    frame.extend(packet);
    frame.resize(FRAME_BYTES, 0);
    frame
}

fn ipv4(pod: &Pod) -> Vec<u8> {
    let total = (FRAME_BYTES - 14) as u8;
    let mut header = vec![0x45, 0, 0, total, 0, 0, 0x40, 0, 64, 17, 0, 0];
    header.extend(pod.v4.octets());
    header.extend([198, 51, 100, 7]);
    let mut sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    header.extend([0x30, 0x39, 0x00, 0x09, 0, total - 20, 0, 0]);
    header
}

fn ipv6(pod: &Pod) -> Vec<u8> {
    let payload = (FRAME_BYTES - 14 - 40) as u8;
    let mut header = vec![0x60, 0, 0, 0, 0, payload, 17, 64];
    header.extend(pod.v6.octets());
    header.extend([0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    header.extend([0x30, 0x39, 0x00, 0x09, 0, payload, 0, 0]);
    header
}
