// SPDX-License-Identifier: Apache-2.0
//! TCP between pods of one node.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use bpf_loader::{Config, Datapath};

use super::{PodToPod, Report, least, on_one_core};
use crate::{
    namespace::{Namespace, private_pins},
    pod::{self, Pod},
    traffic,
};

/// Requests of one latency measurement; the median of fewer jumps.
const REQUESTS: usize = 5000;

/// Congestion control of both ends: in every kernel, and without the pacing of others (BBR's), which
/// would set the speed by its timers instead of by what a packet costs.
const CONGESTION_CONTROL: &str = "reno";

/// Three nodes with two pods each, one per mode.
pub(super) struct Bench {
    kernel: Pair,
    programs: Pair,
    bridge: Pair,
    _nodes: Vec<Namespace>,
    _datapath: Datapath,
}

/// Two pods that talk.
pub(super) struct Pair {
    pub(super) from: Namespace,
    pub(super) to: Namespace,
    pub(super) address: IpAddr,
}

impl Bench {
    pub(super) fn set_up() -> Result<Self> {
        let (kernel_node, programs_node) = (pod::node()?, pod::node()?);
        let (kernel, _) = pods(&kernel_node)?;
        let (programs, endpoints) = pods(&programs_node)?;
        let pin_root = private_pins()?;
        let datapath = programs_node.run(|| -> Result<_> {
            let mut datapath = Datapath::open(Config {
                pin_root,
                ..Config::default()
            })?;
            let report = datapath.sync_endpoints(&endpoints)?;
            ensure!(report.failed.is_empty(), "{:?}", report.failed);
            Ok(datapath)
        })?;
        let (bridge, bridge_node) = bridged()?;
        for pair in [&kernel, &programs, &bridge] {
            for pod in [&pair.from, &pair.to] {
                pod.sysctl("net/ipv4/tcp_congestion_control", CONGESTION_CONTROL)?;
            }
            traffic::reach(&pair.from, pair.address)?;
        }
        Ok(Self {
            kernel,
            programs,
            bridge,
            _nodes: vec![kernel_node, programs_node, bridge_node],
            _datapath: datapath,
        })
    }

    pub(super) fn round(&mut self, seconds: f64, report: &mut Report) -> Result<()> {
        let modes = [
            (&self.kernel, &mut report.kernel),
            (&self.programs, &mut report.programs),
            (&self.bridge, &mut report.bridge),
        ];
        for (pair, best) in modes {
            let PodToPod {
                gigabits_per_second,
                half_round_trip_us,
            } = best;
            *gigabits_per_second = gigabits_per_second.max(pair.throughput(seconds)?);
            least(half_round_trip_us, pair.latency()?);
        }
        Ok(())
    }
}

impl Pair {
    /// Gbit/s of one stream, by what the receiver got.
    pub(super) fn throughput(&self, seconds: f64) -> Result<f64> {
        self.connected(
            |mut stream| {
                let mut buffer = vec![0; 1 << 17];
                let mut bytes = 0_u64;
                let started = Instant::now();
                loop {
                    match stream.read(&mut buffer)? {
                        0 => break,
                        count => bytes += count as u64,
                    }
                }
                Ok(bytes as f64 * 8.0 / started.elapsed().as_nanos() as f64)
            },
            |mut stream| {
                let chunk = vec![0x5a; 1 << 17];
                let limit = Instant::now() + Duration::from_secs_f64(seconds);
                while Instant::now() < limit {
                    stream.write_all(&chunk)?;
                }
                Ok(())
            },
        )
        .map(|(gigabits_per_second, ())| gigabits_per_second)
    }

    /// Half the median round trip, in microseconds.
    fn latency(&self) -> Result<f64> {
        self.connected(
            |mut stream| {
                stream.set_nodelay(true)?;
                let mut byte = [0];
                while stream.read(&mut byte)? == 1 {
                    stream.write_all(&byte)?;
                }
                Ok(())
            },
            |mut stream| {
                stream.set_nodelay(true)?;
                let mut round_trips = Vec::with_capacity(REQUESTS);
                for _ in 0..REQUESTS {
                    let started = Instant::now();
                    stream.write_all(&[1])?;
                    stream.read_exact(&mut [0])?;
                    round_trips.push(started.elapsed());
                }
                round_trips.sort_unstable();
                Ok(round_trips[REQUESTS / 2].as_nanos() as f64 / 2000.0)
            },
        )
        .map(|((), half_round_trip_us)| half_round_trip_us)
    }

    /// Runs both ends of one connection to their ends, both on one core: what is measured is then
    /// what a byte or a request costs in all, not where the scheduler puts the two ends nor how long
    /// a hypervisor takes to wake a halted core.
    fn connected<A: Send, B>(
        &self,
        server: impl FnOnce(TcpStream) -> Result<A> + Send,
        client: impl FnOnce(TcpStream) -> Result<B>,
    ) -> Result<(A, B)> {
        let listener = self
            .to
            .run(|| TcpListener::bind(SocketAddr::new(self.address, 0)))?;
        let target = listener.local_addr()?;
        thread::scope(|scope| {
            let server = scope.spawn(move || {
                on_one_core()?;
                server(listener.accept()?.0)
            });
            on_one_core()?;
            let stream = self
                .from
                .run(|| TcpStream::connect_timeout(&target, traffic::PATIENCE));
            let client = client(stream.context("connect")?);
            let server = server.join().map_err(|_| anyhow!("the server panicked"))?;
            Ok((server?, client?))
        })
    }
}

fn pods(node: &Namespace) -> Result<(Pair, Vec<bpf_loader::Endpoint>)> {
    let (one, two) = (Pod::add(node, 1, 1, 1500)?, Pod::add(node, 1, 2, 1500)?);
    let endpoints = vec![one.endpoint, two.endpoint];
    let pair = Pair {
        from: one.namespace,
        to: two.namespace,
        address: two.v4.into(),
    };
    Ok((pair, endpoints))
}

/// Two pods in one subnet on a bridge.
fn bridged() -> Result<(Pair, Namespace)> {
    let node = pod::node()?;
    node.ip("link add br0 type bridge")?;
    node.ip("link set br0 up")?;
    let mut pods = Vec::new();
    for number in [1, 2] {
        let pod = Namespace::new()?;
        let inside = pod.path();
        node.ip(&format!(
            "link add b{number} type veth peer name eth0 netns {inside}"
        ))?;
        node.ip(&format!("link set b{number} master br0 up"))?;
        pod.ip("link set eth0 up")?;
        pod.ip(&format!("addr add 10.244.1.{number}/24 dev eth0"))?;
        pods.push(pod);
    }
    let (Some(to), Some(from)) = (pods.pop(), pods.pop()) else {
        return Err(anyhow!("two pods were made"));
    };
    let address = IpAddr::from([10, 244, 1, 2]);
    Ok((Pair { from, to, address }, node))
}
