// SPDX-License-Identifier: Apache-2.0
//! A router between a pod and the world, in every way that is compared.

use std::{collections::BTreeMap, net::Ipv4Addr, os::fd::OwnedFd, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use bpf_loader::{
    Config, Datapath, Gateway, GatewayConfig, GatewayRule, HookChoice, LinkIndex, MacAddr,
};

use super::{
    super::{pods::Pair, xdp},
    flows::{self, Addresses, Counter, Flows, Series, Way},
};
use crate::{
    egress::timeouts,
    namespace::{Namespace, private_pins},
    pod::{self, Pod, index_of},
};

/// What the world sees: an address of the router.
const EGRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// A server in the world; of the world's flows the last two bytes differ.
const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The rule that packets are of.
const RULE: u32 = 5_000;
/// How long mappings live, everywhere: longer than any run.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3_600);

const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0xfa, 1];
const WORLD_MAC: [u8; 6] = [2, 0, 0, 0, 0xfa, 2];

/// How packets get to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// The kernel forwards them as they are.
    Forward,
    /// Our programs forward them as they are.
    Programs,
    /// The kernel forwards them, and nftables translates.
    Nft,
    /// The same by iptables' MASQUERADE.
    Iptables,
    /// Our gateway.
    Gateway,
    /// Two nodes, the kernel's VXLAN between them, and the kernel forwards on both.
    VxlanForward,
    /// The same, the tunnel's devices being told the other end with each packet and telling it, as
    /// ours are.
    VxlanMetadata,
    /// The kernel's VXLAN, and nftables translates on the second one.
    VxlanNft,
    /// Ours on both, by VXLAN.
    Vxlan,
    /// Two nodes, nothing between them, and the kernel forwards on both.
    RoutedForward,
    /// The same, and nftables translates on the second one.
    RoutedNft,
    /// Ours on both, without a tunnel.
    Native,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Forward => "kernel forwarding",
            Self::Programs => "our forwarding",
            Self::Nft => "nftables `snat`",
            Self::Iptables => "iptables `MASQUERADE`",
            Self::Gateway => "our gateway",
            Self::VxlanForward => "kernel forwarding, VXLAN",
            Self::VxlanMetadata => "kernel forwarding, VXLAN by metadata",
            Self::VxlanNft => "nftables `snat`, VXLAN",
            Self::Vxlan => "our gateway, VXLAN",
            Self::RoutedForward => "kernel forwarding, no tunnel",
            Self::RoutedNft => "nftables `snat`, no tunnel",
            Self::Native => "our gateway, native",
        }
    }

    fn translates(self) -> bool {
        !matches!(self, Self::Forward | Self::Programs)
    }
}

/// The router, the pod and the world.
pub(super) struct Rig {
    pub(super) mode: Mode,
    router: Namespace,
    pod: Pod,
    far: Namespace,
    ends: Option<Ends>,
    held: Held,
    _marker: Option<OwnedFd>,
}

/// What makes and eats packets.
struct Ends {
    out: Flows,
    back: Flows,
    at_world: Counter,
    at_pod: Counter,
}

/// What translates or forwards.
enum Held {
    Nothing,
    Datapath(#[expect(dead_code, reason = "it is there to live")] Box<Datapath>),
    Gateway(Box<Gateway>),
}

impl Rig {
    /// Builds one for injected packets; its tables take so many mappings.
    pub(super) fn for_packets(mode: Mode, mappings: u32, rules: u32) -> Result<Self> {
        let mut rig = Self::build(mode, mappings, rules)?;
        let device = rig.pod.endpoint.link.0;
        let fabric = index_of(&rig.router, "fab")?.0;
        let seen = if mode.translates() {
            EGRESS
        } else {
            rig.pod.v4
        };
        let [out, back] = [
            Addresses {
                source_mac: rig.pod.endpoint.pod_mac.0,
                destination_mac: rig.pod.endpoint.host_mac.0,
                source: rig.pod.v4,
                destination: WORLD,
            },
            Addresses {
                source_mac: WORLD_MAC,
                destination_mac: ROUTER_MAC,
                source: WORLD,
                destination: seen,
            },
        ];
        let pod = rig.pod.v4;
        let (out, back) = rig.router.run(|| -> Result<_> {
            Ok((
                Flows::attach(device, Way::Out, &out)?,
                Flows::attach(fabric, Way::Back, &back)?,
            ))
        })?;
        rig.ends = Some(Ends {
            out,
            back,
            at_world: rig.far.run(|| Counter::attach("fab", Way::Out, seen))?,
            at_pod: rig
                .pod
                .namespace
                .run(|| Counter::attach("eth0", Way::Back, pod))?,
        });
        Ok(rig)
    }

    /// Builds one for TCP.
    pub(super) fn for_streams(mode: Mode) -> Result<(Self, Pair)> {
        let rig = Self::build(mode, 1 << 10, 1)?;
        for end in [&rig.pod.namespace, &rig.far] {
            end.sysctl("net/ipv4/tcp_congestion_control", "reno")?;
        }
        let pair = Pair {
            from: rig.pod.namespace.again()?,
            to: rig.far.again()?,
            address: WORLD.into(),
        };
        Ok((rig, pair))
    }

    fn build(mode: Mode, mappings: u32, rules: u32) -> Result<Self> {
        let (router, far) = (pod::node()?, Namespace::new()?);
        let pod = Pod::add(&router, 1, 1, 1500)?;
        let (pod_mac, pod_device) = (pod.endpoint.pod_mac, &pod.host_device);
        let (router_mac, world_mac) = (MacAddr(ROUTER_MAC), MacAddr(WORLD_MAC));
        for line in [
            format!(
                "link add fab address {router_mac} type veth peer name fab address {world_mac} \
                 netns {}",
                far.path()
            ),
            "link set fab up".to_owned(),
            format!("addr add {EGRESS}/30 dev fab"),
            format!("neigh add 192.0.2.2 lladdr {world_mac} dev fab nud permanent"),
            "route add default via 192.0.2.2".to_owned(),
            format!(
                "neigh add {} lladdr {pod_mac} dev {pod_device} nud permanent",
                pod.v4
            ),
        ] {
            router.ip(&line)?;
        }
        for line in [
            "link set fab up".to_owned(),
            "addr add 192.0.2.2/30 dev fab".to_owned(),
            format!("addr add {WORLD}/32 dev lo"),
            format!("neigh add {EGRESS} lladdr {router_mac} dev fab nud permanent"),
            format!("route add 10.244.0.0/16 via {EGRESS}"),
        ] {
            far.ip(&line)?;
        }
        let (held, marker) = translate(mode, &router, &pod, mappings, rules)?;
        Ok(Self {
            mode,
            router,
            pod,
            far,
            ends: None,
            held,
            _marker: marker,
        })
    }

    /// Sends packets and returns nanoseconds per packet.
    pub(super) fn measure(&self, way: Way, series: Series) -> Result<f64> {
        let ends = self.ends.as_ref().context("this one is for streams")?;
        let (source, counter) = match way {
            Way::Out => (&ends.out, &ends.at_world),
            Way::Back => (&ends.back, &ends.at_pod),
        };
        flows::send(&self.router, source, counter, series)
            .with_context(|| format!("{}{}", self.mode.name(), self.complaints()))
    }

    /// Sends one packet of each of so many flows.
    pub(super) fn fill(&self, flows: u32) -> Result<()> {
        self.measure(Way::Out, Series::each(0, flows)).map(|_| ())
    }

    /// Mappings the gateway has.
    pub(super) fn live(&self) -> Result<Option<u64>> {
        match &self.held {
            Held::Gateway(gateway) => Ok(Some(gateway.live()?.values().sum())),
            _ => Ok(None),
        }
    }

    fn complaints(&self) -> String {
        let Held::Gateway(gateway) = &self.held else {
            return String::new();
        };
        let refusals = gateway.refusals().unwrap_or_default();
        let refusals: Vec<_> = refusals.iter().filter(|one| one.packets != 0).collect();
        format!(", which refused {refusals:?}")
    }
}

/// Puts in force what the mode is about.
fn translate(
    mode: Mode,
    router: &Namespace,
    pod: &Pod,
    mappings: u32,
    rules: u32,
) -> Result<(Held, Option<OwnedFd>)> {
    let fabric = index_of(router, "fab")?;
    match mode {
        Mode::Forward => {}
        Mode::Programs => {
            let pin_root = private_pins()?;
            let datapath = router.run(|| -> Result<_> {
                let mut datapath = Datapath::open(Config {
                    pin_root,
                    ..Config::default()
                })?;
                for report in [
                    datapath.sync_endpoints(std::slice::from_ref(&pod.endpoint))?,
                    datapath.sync_fabric(&[fabric])?,
                ] {
                    ensure!(report.failed.is_empty(), "{:?}", report.failed);
                }
                Ok(datapath)
            })?;
            return Ok((Held::Datapath(Box::new(datapath)), None));
        }
        Mode::Nft => {
            nftables(router, "fab", EGRESS)?;
        }
        Mode::Iptables => {
            succeed(
                router,
                "iptables -w -t nat -A POSTROUTING -o fab -j MASQUERADE",
            )?;
            conntrack(router)?;
        }
        Mode::Gateway => {
            let gateway = gateway(router, pod.endpoint.link, fabric, mappings, rules)?;
            let marker = router.run(|| xdp::mark(pod.endpoint.link.0, RULE))?;
            return Ok((Held::Gateway(Box::new(gateway)), Some(marker)));
        }
        _ => bail!("{} has two nodes", mode.name()),
    }
    Ok((Held::Nothing, None))
}

/// A gateway whose tunnel device is the pod's: its packets have their rule as their mark, as those
/// of pods of the gateway's own node do.
fn gateway(
    router: &Namespace,
    pod: LinkIndex,
    fabric: LinkIndex,
    max_mappings: u32,
    rules: u32,
) -> Result<Gateway> {
    let pin_root = private_pins()?;
    let rule = GatewayRule {
        interface: None,
        addresses: vec![EGRESS.into()],
        first_port: 1024,
        last_port: u16::MAX,
        is_udp_endpoint_independent: false,
        is_replicated: false,
        is_copy: false,
        drain: None,
        is_draining: false,
        timeouts: timeouts(TIMEOUT),
    };
    let rules: BTreeMap<u32, GatewayRule> = (0..rules)
        .map(|number| (RULE + number, rule.clone()))
        .collect();
    router.run(|| {
        let mut gateway = Gateway::open(&GatewayConfig {
            pin_root,
            hook: HookChoice::Auto,
            max_mappings,
            tunnel_port: 4_789,
        })?;
        gateway.sync_rules(&rules)?;
        let report = gateway.sync_devices(Some(pod), &[fabric])?;
        ensure!(report.failed.is_empty(), "{:?}", report.failed);
        Ok(gateway)
    })
}

/// Has the kernel translate what leaves by a device.
pub(super) fn nftables(router: &Namespace, device: &str, address: Ipv4Addr) -> Result<()> {
    for line in [
        "nft add table ip nat".to_owned(),
        "nft add chain ip nat out { type nat hook postrouting priority srcnat ; }".to_owned(),
        format!("nft add rule ip nat out oifname {device} snat to {address}"),
    ] {
        succeed(router, &line)?;
    }
    conntrack(router)
}

/// Lets connection tracking keep its entries, and not check what network cards check.
fn conntrack(router: &Namespace) -> Result<()> {
    for name in ["udp_timeout", "udp_timeout_stream"] {
        router.sysctl(
            &format!("net/netfilter/nf_conntrack_{name}"),
            &TIMEOUT.as_secs().to_string(),
        )?;
    }
    router.sysctl("net/netfilter/nf_conntrack_checksum", "0")
}

fn succeed(at: &Namespace, line: &str) -> Result<()> {
    let output = at.output(line)?;
    ensure!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
