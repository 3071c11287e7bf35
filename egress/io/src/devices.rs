// SPDX-License-Identifier: Apache-2.0
//! The devices of egress on a node, as desired state: [`sync`] makes the kernel equal to a [`Wish`],
//! any number of times.
//!
//! | device | there while | holds |
//! |---|---|---|
//! | [`TUNNEL_DEVICE`] | a tunnel is wished for | nothing: packets of pods come out of it and go in |
//! | [`HOLDER_DEVICE`] | addresses are held | exactly these addresses |
//!
//! An address that is announced by BGP and held elsewhere may have packets sent here all the same: this
//! node is another way to it, or was a moment ago. What belongs to a connection the programs have
//! taken before; the rest must not go on to the fabric, which sent it here, and ends in a route that
//! drops it silently ([`Wish::dropped`]). It is written before the address is taken off, and as long as
//! the address is here the kernel does not look at it.
//!
//! Held addresses are on a device of their own, so that they do not come and go with a link and
//! nobody takes them for the node's: without a route to a network, and never chosen as source
//! while the node has another address. For IPv4 the kernel answers ARP for them on every link. For
//! IPv6 it does not, so it is told to, by a proxy entry on each link of [`Wish::answer_on`].
//!
//! Whose something is the kernel remembers: devices by their alias, proxy entries and routes by
//! [`PROXY_PROTOCOL`]. A daemon that starts again finds them, and whatever is not wished for any more
//! goes. Devices of these names that are somebody else's are left alone and reported.
//!
//! Calls block, for microseconds (`router-netlink`). The netlink socket must be of the calling
//! thread's namespace, as sysctls are.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use bpf_abi::nat::TUNNEL_MAC;
use ipnet::IpNet;
use router_netlink::{
    AddressOptions, Done, Ensured, Error, Link, LinkChange, MacAddress, NeighbourProxy, Netlink,
    NewHolder, NewTunnel, Protocol, RouteFilter, RouteKind, RouteSpec, Sysctl, TunnelKind,
};
use router_types::{Forwarding, LinkIndex, RouteKey, TableId};

/// The tunnel's device.
pub const TUNNEL_DEVICE: &str = "cw-egress";

/// The device of held addresses.
pub const HOLDER_DEVICE: &str = "cw-egress-ip";

/// The addresses that are held at the moment, whoever put them on: of a daemon before this one.
///
/// # Errors
/// When the kernel does not say.
pub fn held(netlink: &mut Netlink) -> Result<BTreeSet<IpAddr>, Error> {
    let links = netlink.links()?;
    let is_holder =
        |link: &&Link| link.name == HOLDER_DEVICE && link.alias.as_deref() == Some(ALIAS);
    let Some(holder) = links.iter().find(is_holder) else {
        return Ok(BTreeSet::new());
    };
    let addresses = netlink.addresses()?.into_iter();
    let own = addresses.filter(|address| address.link == holder.index);
    Ok(own.map(|address| address.address.addr()).collect())
}

/// The alias of both devices: whose they are.
pub const ALIAS: &str = "causeway egress";

/// The protocol number on proxy entries and routes: the one after that of pods' routes.
pub const PROXY_PROTOCOL: Protocol = Protocol(203);

/// The metric of routes that drop: that of pods' routes. Before what BGP has learned, for the fabric may
/// tell of the address too, and would get the packet back.
pub const DROP_METRIC: u32 = 1;

/// Bytes the tunnel adds to a packet over IPv4: the inner Ethernet header, VXLAN (RFC 7348 §5) or
/// Geneve without options (RFC 8926 §3.4), UDP and IPv4.
pub const OVERHEAD_V4: u32 = 14 + 8 + 8 + 20;

/// Bytes the tunnel adds to a packet over IPv6.
pub const OVERHEAD_V6: u32 = 14 + 8 + 8 + 40;

/// What should be there. The default is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// The tunnel, on nodes that are a gateway or have pods that use one.
    pub tunnel: Option<TunnelWish>,
    /// The addresses this node holds.
    pub held: BTreeSet<IpAddr>,
    /// Those of them that neighbours get an answer for.
    pub answered: BTreeSet<IpAddr>,
    /// The links on whose segments held addresses live, where neighbours ask for them.
    pub answer_on: BTreeSet<LinkIndex>,
    /// The addresses whose packets end here if they belong to no connection, held or not.
    pub dropped: BTreeSet<IpAddr>,
}

/// The tunnel as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelWish {
    /// What it speaks, the same on every node.
    pub kind: TunnelKind,
    /// UDP port, the same on every node.
    pub port: u16,
    /// Largest packet inside, in bytes: 1280 to 65465. Larger than the fabric's MTU less
    /// [`OVERHEAD_V4`] or [`OVERHEAD_V6`] makes packets in the fabric that do not fit.
    pub mtu: u32,
    /// Whether it may go up. Not before the programs are on it: the kernel would forward what comes
    /// out of it under the address of whoever sent it. One that is up stays up.
    pub may_go_up: bool,
}

/// What is there after a [`sync`].
#[derive(Debug, Default)]
pub struct Report {
    /// The tunnel device; `None` without one.
    pub tunnel: Option<LinkIndex>,
    /// Why the tunnel is not as wished, one of the failures.
    pub tunnel_problem: Option<String>,
    /// The device of held addresses; `None` without one.
    pub holder: Option<LinkIndex>,
    /// What was changed, in order. Empty when everything was as wished.
    pub changes: Vec<Change>,
    /// What could not be done; everything else was. Call again later.
    pub failures: Vec<Failure>,
}

/// Something that was not as wished, and is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A device was made, or changed, or made again.
    Device(&'static str, Done),
    /// A device was set up.
    Up(&'static str),
    /// A device was deleted.
    Removed(&'static str),
    /// A setting was written: its path below `/proc/sys` and the value.
    Setting(String, &'static str),
    /// An address was put on.
    Added(IpAddr),
    /// An address was taken off.
    Taken(IpNet),
    /// Neighbours on a link get an answer for an address.
    Answering(IpAddr, LinkIndex),
    /// They get none any more.
    Silent(IpAddr, LinkIndex),
    /// What comes for an address and belongs to no connection is dropped, while it is held elsewhere.
    Dropping(IpAddr),
    /// It goes where the routing table says.
    Routing(IpNet),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Device(name, Done::Created) => write!(f, "device {name} created"),
            Change::Device(name, Done::Remade) => {
                write!(
                    f,
                    "device {name} created again: its protocol, port or mode was another"
                )
            }
            Change::Device(name, Done::Changed | Done::Nothing) => {
                write!(f, "device {name} changed")
            }
            Change::Up(name) => write!(f, "device {name} set up"),
            Change::Removed(name) => write!(f, "device {name} deleted"),
            Change::Setting(path, value) => write!(f, "{path} set to {value}"),
            Change::Added(address) => write!(f, "address {address} put on"),
            Change::Taken(address) => write!(f, "address {address} taken off"),
            Change::Answering(address, link) => {
                write!(f, "answering for {address} on link #{}", link.0)
            }
            Change::Silent(address, link) => {
                write!(
                    f,
                    "not answering for {address} on link #{} any more",
                    link.0
                )
            }
            Change::Dropping(address) => {
                write!(
                    f,
                    "dropping what comes for {address} while it is held elsewhere"
                )
            }
            Change::Routing(address) => write!(f, "not dropping what comes for {address} any more"),
        }
    }
}

/// Something that is not as wished.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A device, address, proxy entry or setting. [`Error::is_foreign`] and
    /// [`router_netlink::Problem::PortTaken`] need an operator.
    #[error(transparent)]
    Netlink(#[from] Error),
    /// The kernel does not answer ARP for what another device holds.
    #[error(
        "neighbours on {device} get no answer for held IPv4 addresses: \
         net.ipv4.conf.all.arp_ignore or that of {device} is {value}; set both to 0 \
         (kube-proxy sets it with strictARP)"
    )]
    ArpIgnored {
        /// The device.
        device: String,
        /// The value in force, the larger of the two.
        value: u8,
    },
}

/// Makes the kernel equal to the wish.
///
/// What is given up goes first, so that an address that moves is never on two nodes for longer than
/// the announcement takes.
pub fn sync(netlink: &mut Netlink, wish: &Wish) -> Report {
    let mut work = Work {
        netlink,
        sysctl: Sysctl::current(),
        report: Report::default(),
    };
    let silenced = work.silence(wish);
    work.note(silenced);
    let tunnel = work.tunnel(wish.tunnel);
    work.report.tunnel_problem = tunnel.as_ref().err().map(Failure::to_string);
    work.note(tunnel);
    let dropping = work.drop_before(&wish.dropped);
    work.note(dropping);
    let holder = work.holder(&wish.held);
    work.note(holder);
    let routing = work.drop_no_more(&wish.dropped);
    work.note(routing);
    if work.report.holder.is_some() && !wish.answered.is_empty() {
        for link in &wish.answer_on {
            let answering = work.answer(*link, &wish.answered);
            work.note(answering);
        }
    }
    for change in &work.report.changes {
        tracing::debug!(%change, "egress devices");
    }
    work.report
}

/// Removes everything of ours: as [`sync`] with a wish for nothing.
pub fn remove_all(netlink: &mut Netlink) -> Report {
    sync(netlink, &Wish::default())
}

struct Work<'a> {
    netlink: &'a mut Netlink,
    sysctl: Sysctl<'static>,
    report: Report,
}

impl Work<'_> {
    fn note(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.report.failures.push(failure);
        }
    }

    fn tunnel(&mut self, wish: Option<TunnelWish>) -> Result<(), Failure> {
        let Some(TunnelWish {
            kind,
            port,
            mtu,
            may_go_up,
        }) = wish
        else {
            return self.remove(TUNNEL_DEVICE);
        };
        let wanted = NewTunnel {
            name: TUNNEL_DEVICE,
            alias: ALIAS,
            kind,
            port,
            mac: MacAddress(TUNNEL_MAC),
            mtu,
        };
        let ensured = self.netlink.ensure_tunnel(&wanted)?;
        let link = self.ensured(TUNNEL_DEVICE, ensured);
        self.report.tunnel = Some(link.index);
        self.quiet(TUNNEL_DEVICE)?;
        // Packets come out with sources that this device leads nowhere near, the node's own among
        // them where pod and gateway are on one node.
        let loosest = match self.read_v4("all", "rp_filter")?.as_str() {
            "0" => "0",
            // The larger of both counts: 2 (loose) is the most that can be had.
            _ => "2",
        };
        self.set_v4(TUNNEL_DEVICE, "rp_filter", loosest)?;
        self.set_v4(TUNNEL_DEVICE, "accept_local", "1")?;
        self.set_v4(TUNNEL_DEVICE, "forwarding", "1")?;
        self.set_v6("conf", TUNNEL_DEVICE, "forwarding", "1")?;
        if !link.up && may_go_up {
            self.netlink.set_tunnel_up(link.index, &wanted)?;
            self.report.changes.push(Change::Up(TUNNEL_DEVICE));
        }
        Ok(())
    }

    fn holder(&mut self, held: &BTreeSet<IpAddr>) -> Result<(), Failure> {
        if held.is_empty() {
            return self.remove(HOLDER_DEVICE);
        }
        let wanted = NewHolder {
            name: HOLDER_DEVICE,
            alias: ALIAS,
        };
        let ensured = self.netlink.ensure_holder(&wanted)?;
        let link = self.ensured(HOLDER_DEVICE, ensured);
        self.report.holder = Some(link.index);
        self.quiet(HOLDER_DEVICE)?;
        if !link.up {
            let up = LinkChange {
                up: Some(true),
                ..LinkChange::default()
            };
            self.netlink.change_link(link.index, &up)?;
            self.report.changes.push(Change::Up(HOLDER_DEVICE));
        }
        let wanted: BTreeSet<IpNet> = held.iter().copied().map(IpNet::from).collect();
        let there: BTreeSet<IpNet> = self
            .netlink
            .addresses()?
            .into_iter()
            .filter(|a| a.link == link.index)
            .map(|a| a.address)
            .collect();
        for address in there.difference(&wanted) {
            let result = self.netlink.delete_address(link.index, *address);
            self.done(result, Change::Taken(*address));
        }
        let options = AddressOptions {
            prefix_route: false,
            duplicate_detection: false,
            chosen_as_source: false,
        };
        for address in wanted.difference(&there) {
            let result = self.netlink.add_address_with(link.index, *address, options);
            self.done(result, Change::Added(address.addr()));
        }
        Ok(())
    }

    /// Takes away proxy entries of ours that nobody wishes for.
    fn silence(&mut self, wish: &Wish) -> Result<(), Failure> {
        for proxy in self.netlink.proxies()? {
            let is_wanted =
                wish.answered.contains(&proxy.address) && wish.answer_on.contains(&proxy.link);
            if proxy.protocol == PROXY_PROTOCOL && !is_wanted {
                let result = self.netlink.delete_proxy(&proxy);
                self.done(result, Change::Silent(proxy.address, proxy.link));
            }
        }
        Ok(())
    }

    /// The addresses there are routes of ours for.
    fn drops(&mut self) -> Result<BTreeSet<IpNet>, Failure> {
        let filter = RouteFilter {
            table: Some(TableId::MAIN),
            protocol: Some(PROXY_PROTOCOL),
        };
        let routes = self.netlink.routes(filter)?.into_iter();
        let ours = routes
            .filter(|route| route.kind == RouteKind::Blackhole && route.metric == DROP_METRIC);
        Ok(ours.map(|route| route.key.prefix).collect())
    }

    /// Writes the routes that are missing.
    fn drop_before(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), Failure> {
        let there = self.drops()?;
        for address in wanted {
            let prefix = IpNet::from(*address);
            if !there.contains(&prefix) {
                let key = drop_key(prefix);
                let route = RouteSpec::new(key, Forwarding::Blackhole, PROXY_PROTOCOL, DROP_METRIC);
                let result = self.netlink.add_route(&route);
                self.done(result, Change::Dropping(*address));
            }
        }
        Ok(())
    }

    /// Takes away routes that nobody wishes for.
    fn drop_no_more(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), Failure> {
        for prefix in self.drops()? {
            if !wanted.contains(&prefix.addr()) {
                let key = drop_key(prefix);
                let result = self.netlink.delete_route(key, PROXY_PROTOCOL, DROP_METRIC);
                self.done(result, Change::Routing(prefix));
            }
        }
        Ok(())
    }

    /// Has the kernel answer neighbours on a link.
    fn answer(&mut self, index: LinkIndex, held: &BTreeSet<IpAddr>) -> Result<(), Failure> {
        let device = self.netlink.link_by_index(index)?.name;
        if held.iter().any(IpAddr::is_ipv4) {
            let own = self.read_v4(&device, "arp_ignore")?;
            let all = self.read_v4("all", "arp_ignore")?;
            let value: u8 = own.parse().unwrap_or(0).max(all.parse().unwrap_or(0));
            // 3 spares only addresses of scope host, which ours are not; 4 to 7 mean nothing.
            if matches!(value, 1 | 2 | 8) {
                self.note(Err(Failure::ArpIgnored {
                    device: device.clone(),
                    value,
                }));
            }
        }
        if !held.iter().any(IpAddr::is_ipv6) {
            return Ok(());
        }
        self.set_v6("conf", &device, "proxy_ndp", "1")?;
        // Answers of proxies wait up to 0.8 s for better ones (RFC 4861 §7.2.8): there are none.
        self.set_v6("neigh", &device, "proxy_delay", "0")?;
        let there: BTreeSet<NeighbourProxy> = self.netlink.proxies()?.into_iter().collect();
        for address in held.iter().copied().filter(IpAddr::is_ipv6) {
            let proxy = NeighbourProxy {
                link: index,
                address,
                protocol: PROXY_PROTOCOL,
            };
            if !there.contains(&proxy) {
                let result = self.netlink.set_proxy(&proxy);
                self.done(result, Change::Answering(address, index));
            }
        }
        Ok(())
    }

    /// The kernel gives devices no link-local addresses by itself and learns no routes there. In
    /// force before the device is up.
    fn quiet(&mut self, device: &'static str) -> Result<(), Failure> {
        self.set_v6("conf", device, "disable_ipv6", "0")?;
        self.set_v6("conf", device, "addr_gen_mode", "1")?;
        self.set_v6("conf", device, "accept_ra", "0")
    }

    fn remove(&mut self, name: &'static str) -> Result<(), Failure> {
        if self.netlink.delete_own_link(name, ALIAS)? {
            self.report.changes.push(Change::Removed(name));
        }
        Ok(())
    }

    fn ensured(&mut self, name: &'static str, ensured: Ensured) -> Link {
        if ensured.done != Done::Nothing {
            self.report.changes.push(Change::Device(name, ensured.done));
        }
        ensured.link
    }

    fn done(&mut self, result: Result<(), Error>, change: Change) {
        match result {
            Ok(()) => self.report.changes.push(change),
            Err(error) => self.report.failures.push(error.into()),
        }
    }

    fn read_v4(&self, device: &str, setting: &str) -> Result<String, Failure> {
        Ok(self
            .sysctl
            .read(&["net", "ipv4", "conf", device, setting])?)
    }

    fn set_v4(&mut self, device: &str, setting: &str, value: &'static str) -> Result<(), Failure> {
        self.set(&["net", "ipv4", "conf", device, setting], value)
    }

    /// Where the kernel has no IPv6 there is nothing to set.
    fn set_v6(
        &mut self,
        group: &str,
        device: &str,
        setting: &str,
        value: &'static str,
    ) -> Result<(), Failure> {
        match self.set(&["net", "ipv6", group, device, setting], value) {
            Err(Failure::Netlink(error)) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    fn set(&mut self, parts: &[&str], value: &'static str) -> Result<(), Failure> {
        if self.sysctl.write(parts, value)? {
            let change = Change::Setting(parts.join("/"), value);
            self.report.changes.push(change);
        }
        Ok(())
    }
}

fn drop_key(prefix: IpNet) -> RouteKey {
    RouteKey {
        table: TableId::MAIN,
        prefix,
    }
}
