// SPDX-License-Identifier: Apache-2.0
//! A node and its pods in namespaces of their own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bpf_loader::{Datapath, EndpointTraffic};
use ipnet::IpNet;
use pods_core::{Attachment, Endpoint, EndpointId, Failure};
use pods_io::{Config, Manager, Mtu, StartReport, StateFolder};
use router_netlink::{Netlink, Netns, NewVeth, RouteFilter};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tempfile::TempDir;

/// Generous: the machine may be busy with other things.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A name nobody else has, on this machine at this time.
pub(crate) fn unique(what: &str) -> String {
    format!(
        "cwpods-{}-{what}{}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    )
}

/// A namespace with a path, gone with the value.
pub(crate) struct NamedNetns {
    pub(crate) name: String,
    pub(crate) netns: Netns,
}

impl NamedNetns {
    pub(crate) fn new(what: &str) -> NamedNetns {
        let name = unique(what);
        let netns = Netns::create_named(&name).expect("these tests make namespaces and need root");
        NamedNetns { name, netns }
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/run/netns/{}", self.name).into()
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.netns).unwrap()
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        if let Err(error) = Netns::delete_named(&self.name) {
            eprintln!("{} is left over: {error}", self.name);
        }
    }
}

/// A node: namespace, state folder, pin folder, and a manager while it runs.
pub(crate) struct Node {
    pub(crate) netns: NamedNetns,
    /// Folder of the journal.
    pub(crate) state_directory: PathBuf,
    _state: TempDir,
    pub(crate) config: Config,
    pub(crate) pin_root: PathBuf,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

struct Running {
    manager: Manager,
    datapath: Arc<Mutex<Datapath>>,
}

impl Node {
    /// A node with these pod CIDRs, a device `fabric` with the address 192.0.2.1, and no manager.
    pub(crate) fn new(cidrs: &[&str]) -> Node {
        let netns = NamedNetns::new("node");
        let state = TempDir::with_prefix("cw-pods-test").unwrap();
        let mut netlink = netns.netlink();
        let cable = NewVeth {
            name: "fabric",
            peer_name: "tor",
            peer_netns: None,
            mtu: None,
            mac: None,
            peer_mac: None,
        };
        let fabric = netlink.create_veth(&cable).unwrap().index;
        netlink
            .add_address(fabric, "192.0.2.1/24".parse().unwrap())
            .unwrap();
        netlink
            .add_address(fabric, "2001:db8::1/64".parse().unwrap())
            .unwrap();
        for name in ["fabric", "tor", "lo"] {
            let index = netlink.link_by_name(name).unwrap().index;
            let up = router_netlink::LinkChange {
                up: Some(true),
                ..Default::default()
            };
            netlink.change_link(index, &up).unwrap();
        }
        let config = Config {
            pod_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            mtu: Mtu::SmallestOf(vec!["fabric".to_owned()]),
            // Only when asked to.
            resync_interval: Duration::from_secs(3600),
            ..Config::new().unwrap()
        };
        let pin_root = PathBuf::from("/sys/fs/bpf").join(&netns.name);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Node {
            netns,
            state_directory: state.path().join("pods"),
            _state: state,
            config,
            pin_root,
            running: None,
            runtime,
        }
    }

    /// A node with a running manager.
    pub(crate) fn started(cidrs: &[&str]) -> Node {
        let mut node = Node::new(cidrs);
        node.start();
        node
    }

    /// Starts the manager, as a daemon does.
    pub(crate) fn start(&mut self) -> StartReport {
        assert!(self.running.is_none(), "it runs already");
        let started = self.netns.netns.run(|| {
            // The thread of the one before may just be ending.
            let folder = StateFolder::take(&self.state_directory, LIMIT).expect("the folder");
            let datapath = Datapath::open(bpf_loader::Config {
                pin_root: self.pin_root.clone(),
                ..Default::default()
            })
            .expect("the data plane loads");
            let datapath = Arc::new(Mutex::new(datapath));
            let started = Manager::start(self.config.clone(), folder, datapath.clone());
            (started.expect("the manager starts"), datapath)
        });
        let ((manager, report), datapath) = started.unwrap();
        self.running = Some(Running { manager, datapath });
        report
    }

    /// Ends the manager and leaves everything as it is, as the death of a daemon does.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    pub(crate) fn manager(&self) -> &Manager {
        &self.running.as_ref().expect("the manager runs").manager
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn add_to(&self, pod: &Pod, requested: &[&str]) -> Result<Endpoint, Failure> {
        let requested = requested.iter().map(|a| a.parse().unwrap()).collect();
        let manager = self.manager();
        self.wait(manager.add(
            pod.attachment.clone(),
            "causeway".to_owned(),
            pod.netns.path(),
            None,
            requested,
        ))
    }

    pub(crate) fn add(&self, pod: &Pod) -> Endpoint {
        self.add_to(pod, &[]).unwrap()
    }

    pub(crate) fn del(&self, pod: &Pod) {
        self.wait(self.manager().del(pod.attachment.clone()))
            .unwrap();
    }

    pub(crate) fn check(&self, pod: &Pod) -> Result<(), Failure> {
        let path = Some(pod.netns.path());
        self.wait(
            self.manager()
                .check(pod.attachment.clone(), path, Vec::new()),
        )
    }

    pub(crate) fn gc(&self, valid: &[&Pod]) -> Vec<Attachment> {
        let valid: BTreeSet<_> = valid.iter().map(|p| p.attachment.clone()).collect();
        self.wait(self.manager().gc("causeway".to_owned(), valid))
            .unwrap()
    }

    pub(crate) fn traffic(&self, id: EndpointId) -> EndpointTraffic {
        let datapath = self.running.as_ref().unwrap().datapath.lock().unwrap();
        let counters = datapath.counters().unwrap();
        let mut found = counters.into_iter().filter(|(of, _)| of.0 == id.0);
        found
            .next()
            .expect("the data plane counts for the endpoint")
            .1
    }

    /// Everything pods leave traces in: devices, addresses, routes, neighbours, map entries, and
    /// held addresses. Not what IPv6 does on its own below `fe80::/10` and `ff00::/8`.
    pub(crate) fn traces(&self) -> Vec<String> {
        let is_noise =
            |a: IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local() || a.is_multicast());
        let mut netlink = self.netns.netlink();
        let mut traces: Vec<String> = Vec::new();
        traces.extend(
            netlink
                .links()
                .unwrap()
                .into_iter()
                .map(|l| format!("link {}", l.name)),
        );
        let addresses = netlink.addresses().unwrap().into_iter();
        traces.extend(
            addresses
                .filter(|a| !is_noise(a.address.addr()))
                .map(|a| format!("address {}", a.address)),
        );
        let routes = netlink.routes(RouteFilter::default()).unwrap().into_iter();
        traces.extend(
            routes
                .filter(|r| !is_noise(r.key.prefix.addr()))
                .map(|r| format!("route {} {:?} {:?}", r.key.prefix, r.kind, r.protocol)),
        );
        let neighbours = netlink.neighbours(None).unwrap().into_iter();
        traces.extend(neighbours.filter(|n| n.permanent).map(|n| format!("{n:?}")));
        let running = self.running.as_ref().unwrap();
        let datapath = running.datapath.lock().unwrap();
        traces.extend(
            datapath
                .endpoints()
                .unwrap()
                .iter()
                .map(|e| format!("{:?}", e.endpoint)),
        );
        let status = datapath.status().unwrap();
        traces.extend(status.attached.iter().map(|a| format!("{a:?}")));
        traces.extend(
            status
                .maps
                .iter()
                .map(|m| format!("{} {:?}", m.name, m.entries)),
        );
        drop(datapath);
        let status = self.wait(running.manager.status()).unwrap();
        traces.push(format!("{} endpoints", status.endpoints));
        traces.extend(
            status
                .pools
                .iter()
                .map(|p| format!("{} held of {}", p.held, p.cidr)),
        );
        traces.sort();
        traces
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.uninstall(running);
        }
        // Also where a test failed before the data plane was whole.
        if self.pin_root.exists()
            && let Err(error) = fs::remove_dir_all(&self.pin_root)
        {
            eprintln!("{} is left over: {error}", self.pin_root.display());
        }
    }
}

impl Node {
    fn uninstall(&self, running: Running) {
        drop(running.manager);
        // The manager's thread lets go of the data plane when it ends.
        let deadline = Instant::now() + LIMIT;
        let mut datapath = running.datapath;
        let datapath = loop {
            match Arc::try_unwrap(datapath) {
                Ok(mutex) => break mutex.into_inner(),
                Err(shared) if Instant::now() < deadline => datapath = shared,
                Err(_) => return eprintln!("the manager's thread did not end"),
            }
            thread::sleep(Duration::from_millis(2));
        };
        if let Ok(datapath) = datapath {
            let removed = self.netns.netns.run(|| datapath.uninstall());
            if !matches!(removed, Ok(Ok(()))) {
                eprintln!("{} is left over: {removed:?}", self.pin_root.display());
            }
        }
    }
}

/// What is in one list and not in the other, by which a failed comparison can be read.
pub(crate) fn assert_same(now: &[String], before: &[String]) {
    let gone: Vec<_> = before.iter().filter(|t| !now.contains(t)).collect();
    let new: Vec<_> = now.iter().filter(|t| !before.contains(t)).collect();
    assert!(now == before, "new: {new:#?}\ngone: {gone:#?}");
}

/// A container: a namespace and the names of its interface.
pub(crate) struct Pod {
    pub(crate) netns: NamedNetns,
    pub(crate) attachment: Attachment,
}

impl Pod {
    pub(crate) fn new() -> Pod {
        let netns = NamedNetns::new("pod");
        let attachment = Attachment::new(&netns.name, "eth0").unwrap();
        Pod { netns, attachment }
    }

    /// Pings until an answer comes, or for `limit`.
    pub(crate) fn pings(&self, to: IpAddr, limit: Duration) -> bool {
        ping(&self.netns.netns, to, limit)
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Sends echo requests from a namespace until one is answered (RFC 792, RFC 4443 §4.1).
pub(crate) fn ping(from: &Netns, to: IpAddr, limit: Duration) -> bool {
    from.run(|| {
        let (domain, protocol, request, reply, header) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8_u8, 0_u8, 20),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129, 0),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let number = u16::try_from(COUNTER.fetch_add(1, Ordering::Relaxed) % 0xffff).unwrap();
        let [high, low] = number.to_be_bytes();
        let mut message = [request, 0, 0, 0, high, low, 0, 1, 1, 2, 3, 4];
        if to.is_ipv4() {
            let sum: u32 = message
                .chunks(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
                .sum();
            let folded = (sum & 0xffff) + (sum >> 16);
            let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        let address = SockAddr::from(SocketAddr::new(to, 0));
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if socket.send_to(&message, &address).is_err() {
                // No route yet, or any more.
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
            while let Ok(length) = socket.recv(&mut buffer) {
                // SAFETY: recv initialised the first `length` octets.
                let octets: Vec<u8> = buffer[..length]
                    .iter()
                    .map(|b| unsafe { b.assume_init() })
                    .collect();
                let body = octets.get(header..).unwrap_or_default();
                if body.first() == Some(&reply) && body.get(4..6) == Some(&[high, low]) {
                    return true;
                }
            }
        }
        false
    })
    .unwrap()
}

/// Sends a megabyte by TCP from one namespace to another and back.
pub(crate) fn tcp_round_trip(from: &Netns, to: &Netns, address: IpAddr) {
    let listener = to.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
    let target = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = vec![0; 1 << 20];
        stream.read_exact(&mut received).unwrap();
        stream.write_all(&received).unwrap();
    });
    let mut stream = from
        .run(|| TcpStream::connect_timeout(&target, LIMIT).unwrap())
        .unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let sent: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let expected = sent.clone();
    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; expected.len()];
    stream.read_exact(&mut back).unwrap();
    writing.join().unwrap();
    server.join().unwrap();
    assert!(back == expected, "the octets changed on the way");
}

/// A thousand datagrams a second from one namespace to another.
pub(crate) struct Stream {
    received: Arc<AtomicU32>,
    ends: Arc<AtomicBool>,
    sender: thread::JoinHandle<u32>,
    receiver: thread::JoinHandle<()>,
}

impl Stream {
    pub(crate) fn start(from: &Netns, to: &Netns, address: IpAddr) -> Stream {
        let received = Arc::new(AtomicU32::new(0));
        let ends = Arc::new(AtomicBool::new(false));
        let sink = to.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
        sink.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let target = sink.local_addr().unwrap();
        let source = from
            .run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap())
            .unwrap();
        let sender = {
            let ends = ends.clone();
            thread::spawn(move || {
                let mut sent = 0;
                while !ends.load(Ordering::Relaxed) {
                    source.send_to(b"tick", target).unwrap();
                    sent += 1;
                    thread::sleep(Duration::from_millis(1));
                }
                sent
            })
        };
        let receiver = {
            let (ends, received) = (ends.clone(), received.clone());
            thread::spawn(move || {
                let mut buffer = [0; 16];
                // The last ones may still be on their way when the sender ends.
                loop {
                    match sink.recv(&mut buffer) {
                        Ok(_) => drop(received.fetch_add(1, Ordering::Relaxed)),
                        Err(_) if ends.load(Ordering::Relaxed) => return,
                        Err(_) => {}
                    }
                }
            })
        };
        Stream {
            received,
            ends,
            sender,
            receiver,
        }
    }

    /// Waits until so many more have arrived.
    pub(crate) fn wait_for(&self, count: u32) {
        let goal = self.received.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + LIMIT;
        while self.received.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < deadline, "the stream has stopped");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it; how many were sent, and how many arrived.
    pub(crate) fn finish(self) -> (u32, u32) {
        self.ends.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        self.receiver.join().unwrap();
        (sent, self.received.load(Ordering::Relaxed))
    }
}
