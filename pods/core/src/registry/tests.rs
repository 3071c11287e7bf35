// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::journal::{self, Header};

const BOOT: &str = "boot-1";
const COOL_DOWN: Duration = Duration::from_secs(60);

fn nets(cidrs: &[&str]) -> Vec<IpNet> {
    cidrs.iter().map(|c| c.parse().unwrap()).collect()
}

fn registry(cidrs: &[&str]) -> Registry {
    reopen(b"", cidrs).0
}

fn reopen(journal: &[u8], cidrs: &[&str]) -> (Registry, Opened) {
    let replay = journal::replay(journal).unwrap();
    Registry::open(replay, BOOT, &nets(cidrs), COOL_DOWN, Instant::now()).unwrap()
}

fn request(container: &str) -> AddRequest {
    AddRequest {
        attachment: Attachment::new(container, "eth0").unwrap(),
        network: "causeway".to_owned(),
        netns: NetnsRef {
            path: format!("/var/run/netns/{container}"),
            device: 4,
            inode: 99,
        },
        pod: None,
        requested: Vec::new(),
        mtu: 1500,
    }
}

fn added(registry: &mut Registry, request: &AddRequest) -> (Endpoint, Record) {
    match registry.add(request, Instant::now()).unwrap() {
        Addition::New(endpoint, record) => (endpoint, record),
        Addition::Existing(endpoint) => panic!("{endpoint:?} was there before"),
    }
}

fn header() -> Vec<u8> {
    journal::encode_header(&Header {
        causeway_pods: journal::VERSION,
        boot_id: BOOT.to_owned(),
    })
}

#[test]
fn the_same_add_gets_the_same_answer() {
    let mut registry = registry(&["10.1.0.0/24", "fd00::/64"]);
    let (first, _) = added(&mut registry, &request("a"));
    assert_eq!(
        first.addresses,
        nets(&["10.1.0.2/32", "fd00::2/128"])
            .iter()
            .map(IpNet::addr)
            .collect::<Vec<_>>()
    );
    let again = registry.add(&request("a"), Instant::now());
    assert_eq!(again, Ok(Addition::Existing(first)));
    assert_eq!(registry.endpoints().len(), 1);
}

#[test]
fn the_same_names_in_another_namespace_are_refused() {
    let mut registry = registry(&["10.1.0.0/24"]);
    added(&mut registry, &request("a"));
    let mut other = request("a");
    other.netns.inode = 100;
    let failure = registry.add(&other, Instant::now()).unwrap_err();
    assert_eq!(failure.code, Code::InvalidEnvironment);
    assert!(failure.details.contains("DEL"));
}

#[test]
fn a_refused_add_holds_nothing() {
    // The second family has no room: the first must not leak.
    let mut registry = registry(&["10.1.0.0/24", "fd00::/127"]);
    added(&mut registry, &request("a"));
    added(&mut registry, &request("b"));
    for _ in 0..3 {
        let failure = registry.add(&request("c"), Instant::now()).unwrap_err();
        assert_eq!(failure.code, Code::Exhausted);
        assert!(
            failure
                .message
                .contains("2 of 2 usable addresses of fd00::/127"),
            "{failure}"
        );
    }
    assert_eq!(registry.ipam().usage(Instant::now())[0].held, 2);
    assert_eq!(registry.ipam().usage(Instant::now())[0].cooling, 0);
}

#[test]
fn without_pod_cidrs_add_says_to_try_again() {
    let failure = registry(&[])
        .add(&request("a"), Instant::now())
        .unwrap_err();
    assert_eq!(failure.code, Code::TryAgain);
}

#[test]
fn a_requested_address_names_its_holder() {
    let mut registry = registry(&["10.1.0.0/24"]);
    let mut first = request("a");
    first.pod = Some(PodRef {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: String::new(),
        labels: None,
    });
    first.requested = vec!["10.1.0.50".parse().unwrap()];
    added(&mut registry, &first);
    let mut second = request("b");
    second.requested = first.requested.clone();
    let failure = registry.add(&second, Instant::now()).unwrap_err();
    assert_eq!(failure.code, Code::AddressRefused);
    assert!(failure.message.contains("pod shop/web-0"), "{failure}");
    second.requested.push("10.1.0.51".parse().unwrap());
    assert!(
        registry
            .add(&second, Instant::now())
            .unwrap_err()
            .message
            .contains("more than one")
    );
}

#[test]
fn gc_speaks_for_one_network() {
    let mut registry = registry(&["10.1.0.0/24"]);
    added(&mut registry, &request("a"));
    added(&mut registry, &request("b"));
    let mut other = request("c");
    other.network = "storage".to_owned();
    added(&mut registry, &other);
    let valid = BTreeSet::from([request("a").attachment]);
    assert_eq!(
        registry.leaked("causeway", &valid),
        [request("b").attachment]
    );
    assert_eq!(registry.leaked("nobody", &valid), []);
}

#[test]
fn a_reboot_drops_all_and_hands_their_addresses_out_last() {
    let mut before = registry(&["10.1.0.0/29"]);
    let mut bytes = journal::encode_header(&Header {
        causeway_pods: journal::VERSION,
        boot_id: "boot-0".to_owned(),
    });
    bytes.extend(journal::encode(&added(&mut before, &request("a")).1));
    let (mut after, opened) = reopen(&bytes, &["10.1.0.0/29"]);
    assert_eq!(opened.dropped_by_reboot, 1);
    assert_eq!(after.endpoints().len(), 0);
    let (endpoint, _) = added(&mut after, &request("b"));
    assert_eq!(endpoint.addresses, ["10.1.0.3".parse::<IpAddr>().unwrap()]);
    assert!(endpoint.id > EndpointId(1));
}

#[test]
fn a_lost_drop_never_gives_one_address_two_holders() {
    let mut before = registry(&["10.1.0.4/32"]);
    let (a, put_a) = added(&mut before, &request("a"));
    before.remove(a.id, Instant::now()).unwrap();
    let (b, put_b) = added(&mut before, &request("b"));
    let bytes = [header(), journal::encode(&put_a), journal::encode(&put_b)].concat();
    let (after, opened) = reopen(&bytes, &["10.1.0.4/32"]);
    assert_eq!(opened.contradicted, [a]);
    assert_eq!(after.endpoints().collect::<Vec<_>>(), [&b]);
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8, Option<u8>),
    Ready(u8),
    Del(u8),
    Gc(Vec<u8>),
    Wait(u8),
    Cidrs(usize),
    Occupy(u8),
}

const CIDRS: [&[&str]; 4] = [
    &["10.1.0.0/28", "fd00::/124"],
    &["10.1.0.0/29"],
    &["10.2.0.0/29", "fd00::/125"],
    &["10.1.0.0/29", "10.2.0.0/30", "fd00:1::/64"],
];

fn step() -> impl Strategy<Value = Step> {
    let who = 0..12_u8;
    prop_oneof![
        6 => (who.clone(), proptest::option::weighted(0.2, 0..20_u8)).prop_map(|(c, a)| Step::Add(c, a)),
        3 => who.clone().prop_map(Step::Ready),
        4 => who.clone().prop_map(Step::Del),
        1 => proptest::collection::vec(who, 0..12).prop_map(Step::Gc),
        2 => (0..90_u8).prop_map(Step::Wait),
        1 => (0..CIDRS.len()).prop_map(Step::Cidrs),
        1 => (0..20_u8).prop_map(Step::Occupy),
    ]
}

/// Each address has one holder, the holder knows it, and nobody holds what is not his.
fn check(registry: &Registry) {
    let mut holders = BTreeMap::new();
    for endpoint in registry.endpoints() {
        assert!(!endpoint.addresses.is_empty());
        assert_eq!(registry.find(&endpoint.attachment), Some(endpoint));
        for address in &endpoint.addresses {
            assert_eq!(
                holders.insert(*address, endpoint.id),
                None,
                "{address} has two holders"
            );
            assert_eq!(registry.ipam().holder(*address), Some(endpoint.id));
        }
    }
    let names: BTreeSet<_> = registry.endpoints().map(|e| &e.host_ifname).collect();
    assert_eq!(names.len(), registry.endpoints().len());
    let held = registry.ipam().held_count();
    assert_eq!(held, holders.len(), "an address is held by nobody");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_history_cut_anywhere_is_consistent(
        steps in proptest::collection::vec(step(), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut registry = registry(CIDRS[0]);
        let mut cidrs = nets(CIDRS[0]);
        let mut now = Instant::now();
        let mut journal = header();
        // The journal's length, and the endpoints at that point.
        let mut history = vec![(journal.len(), Vec::new())];
        let mut occupied: Option<IpAddr> = None;
        for step in &steps {
            let mut records = Vec::new();
            match step {
                Step::Add(who, wanted) => {
                    let mut request = request(&format!("c{who}"));
                    request.requested.extend(
                        wanted.map(|last| IpAddr::from([10, 1, 0, last])));
                    if let Ok(Addition::New(endpoint, record)) = registry.add(&request, now) {
                        for address in &endpoint.addresses {
                            let pool = cidrs.iter().find(|c| c.contains(address));
                            let pool = pool.expect("an address outside the pod CIDRs");
                            prop_assert!(*address != pool.network());
                            prop_assert!(address.is_ipv6() || *address != pool.broadcast());
                            prop_assert_ne!(Some(*address), occupied);
                        }
                        records.push(record);
                    }
                }
                Step::Ready(who) => {
                    let id = registry.find(&request(&format!("c{who}")).attachment).map(|e| e.id);
                    records.extend(id.and_then(|id| registry.set_ready(id)));
                }
                Step::Del(who) => {
                    let id = registry.find(&request(&format!("c{who}")).attachment).map(|e| e.id);
                    records.extend(id.and_then(|id| registry.remove(id, now)).map(|(_, r)| r));
                }
                Step::Gc(who) => {
                    let valid = who.iter().map(|w| request(&format!("c{w}")).attachment).collect();
                    for attachment in registry.leaked("causeway", &valid) {
                        let id = registry.find(&attachment).unwrap().id;
                        records.extend(registry.remove(id, now).map(|(_, r)| r));
                    }
                    prop_assert!(registry.leaked("causeway", &valid).is_empty());
                }
                Step::Wait(seconds) => now += Duration::from_secs(u64::from(*seconds)),
                Step::Cidrs(which) => {
                    cidrs = nets(CIDRS[*which]);
                    registry.ipam_mut().set_cidrs(&cidrs).unwrap();
                }
                Step::Occupy(last) => {
                    let address = IpAddr::from([10, 1, 0, *last]);
                    occupied = Some(address);
                    registry.ipam_mut().set_occupied([(address, "eth0".to_owned())]);
                }
            }
            check(&registry);
            for record in &records {
                journal.extend(journal::encode(record));
            }
            // Records of one step are written together; only the last of them is a state the
            // registry was in.
            if !records.is_empty() {
                history.push((journal.len(), registry.endpoints().cloned().collect()));
            }
        }
        let cut = cut.index(journal.len() + 1);
        let (reopened, opened) = reopen(&journal[..cut], CIDRS[0]);
        check(&reopened);
        prop_assert_eq!(opened.contradicted, Vec::new());
        prop_assert_eq!(opened.dropped_by_reboot, 0);
        if let Some((_, endpoints)) = history.iter().find(|(length, _)| *length == cut) {
            prop_assert_eq!(&reopened.endpoints().cloned().collect::<Vec<_>>(), endpoints);
        }
        let (whole, _) = reopen(&journal, CIDRS[0]);
        prop_assert_eq!(
            whole.endpoints().collect::<Vec<_>>(),
            registry.endpoints().collect::<Vec<_>>()
        );
    }
}
