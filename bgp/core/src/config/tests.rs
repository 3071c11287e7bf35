// SPDX-License-Identifier: Apache-2.0
use super::*;

fn peer(ip: &str) -> PeerConfig {
    PeerConfig::new(PeerAddress::new(ip.parse().unwrap(), None).unwrap())
}

fn instance() -> InstanceConfig {
    InstanceConfig::new("i".into(), Asn(65001), Ipv4Addr::new(10, 0, 0, 1)).unwrap()
}

#[test]
fn reserved_numbers_are_refused() {
    let id = Ipv4Addr::new(10, 0, 0, 1);
    assert_eq!(
        InstanceConfig::new("i".into(), Asn(0), id),
        Err(ConfigError::LocalAsnZero)
    );
    let zero = InstanceConfig::new("i".into(), Asn(1), Ipv4Addr::UNSPECIFIED);
    assert_eq!(zero, Err(ConfigError::RouterIdZero));
    assert!(PeerAddress::new("0.0.0.0".parse().unwrap(), None).is_err());
    assert!(PeerAddress::new("224.0.0.1".parse().unwrap(), None).is_err());
    assert!(PeerAddress::new("fe80::1".parse().unwrap(), None).is_err());
    assert!(PeerAddress::new("fe80::1".parse().unwrap(), Some("eth0".into())).is_ok());
    assert!(Md5Password::new("").is_err());
    assert!(Md5Password::new(vec![b'x'; 81]).is_err());
    assert!(Timers::new(120, 2, 1).is_err());
    assert!(Timers::new(120, 9, 10).is_err());
    assert!(Timers::new(0, 9, 3).is_err());
    assert!(Timers::new(1, 0, 0).is_ok());
    assert!(GracefulRestart::new(4096).is_err());
    assert!(peer("10.0.0.2").with_ttl(0).is_err());
    assert!(peer("10.0.0.2").with_families(BTreeMap::new()).is_err());
}

#[test]
fn keepalives_fit_the_negotiated_hold_time() {
    let timers = Timers::new(5, 90, 30).unwrap();
    assert_eq!(
        timers.keepalive_under(90),
        Some(std::time::Duration::from_secs(30))
    );
    assert_eq!(
        timers.keepalive_under(9),
        Some(std::time::Duration::from_secs(3))
    );
    assert_eq!(timers.keepalive_under(0), None);
}

#[test]
fn two_peers_cannot_share_an_address() {
    let mut config = instance();
    config.add_peer("a".into(), peer("10.0.0.2")).unwrap();
    let again = config.add_peer("b".into(), peer("10.0.0.2"));
    assert!(
        matches!(again, Err(ConfigError::DuplicateAddress { .. })),
        "{again:?}"
    );
    let same_name = config.add_peer("a".into(), peer("10.0.0.3"));
    assert_eq!(same_name, Err(ConfigError::DuplicateName("a".into())));
}

#[test]
fn passwords_are_never_shown() {
    let mut secret = peer("10.0.0.2");
    secret.password = Some(Md5Password::new("hunter2").unwrap());
    assert!(!format!("{secret:?}").contains("hunter2"));
    assert!(!serde_json::to_string(&secret).unwrap().contains("hunter2"));
}

#[test]
fn prefix_ranges_match_by_length() {
    let range = PrefixRange::new("10.0.0.0/8".parse().unwrap(), Some(16), Some(24)).unwrap();
    for (prefix, wanted) in [
        ("10.1.0.0/16", true),
        ("10.1.1.0/24", true),
        ("10.0.0.0/8", false),
        ("10.1.1.1/32", false),
        ("11.0.0.0/16", false),
        ("::/0", false),
    ] {
        assert_eq!(range.contains(&prefix.parse().unwrap()), wanted, "{prefix}");
    }
    assert!(PrefixRange::new("10.0.0.0/8".parse().unwrap(), Some(7), None).is_err());
    assert!(PrefixRange::new("10.0.0.0/8".parse().unwrap(), Some(24), Some(23)).is_err());
    assert!(PrefixRange::new("10.0.0.0/8".parse().unwrap(), None, Some(33)).is_err());
}

#[test]
fn the_default_import_takes_the_default_route_only() {
    let policy = ImportPolicy::default();
    assert!(policy.accepts(&"0.0.0.0/0".parse().unwrap()));
    assert!(policy.accepts(&"::/0".parse().unwrap()));
    assert!(!policy.accepts(&"10.0.0.0/8".parse().unwrap()));
}

#[test]
fn only_what_the_protocol_forces_resets_a_session() {
    let old = peer("10.0.0.2");
    let effect = |change: &dyn Fn(&mut PeerConfig)| {
        let mut new = old.clone();
        change(&mut new);
        old.changes_to(&new)
            .into_iter()
            .map(|(_, effect)| effect)
            .max()
    };
    assert_eq!(effect(&|_| ()), None);
    assert_eq!(
        effect(&|p| p.connect = ConnectMode::Passive),
        Some(Effect::Live)
    );
    assert_eq!(effect(&|p| p.ttl = 4), Some(Effect::Live));
    assert_eq!(
        effect(&|p| p.timers = Timers::new(9, 90, 9).unwrap()),
        Some(Effect::Live)
    );
    assert_eq!(
        effect(&|p| p.timers = Timers::new(5, 9, 3).unwrap()),
        Some(Effect::SessionReset)
    );
    assert_eq!(
        effect(&|p| p.asn = Some(Asn(7))),
        Some(Effect::SessionReset)
    );
    assert_eq!(
        effect(&|p| p.password = Some(Md5Password::new("x").unwrap())),
        Some(Effect::SessionReset)
    );
    assert_eq!(
        effect(&|p| {
            let family = p.families.get_mut(&Family::IPV4_UNICAST).unwrap();
            family.import.mode = ImportMode::All;
        }),
        Some(Effect::RouteRefresh)
    );
}

#[test]
fn a_configuration_survives_a_recording() {
    let mut config = instance();
    config.add_peer("a".into(), peer("10.0.0.2")).unwrap();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(
        serde_json::from_str::<InstanceConfig>(&text).unwrap(),
        config
    );
}

#[test]
fn what_two_advertisements_say_of_a_prefix_is_united() {
    let mut routes = LocalRoutes::default();
    let with = |community, local_pref| ExportAttributes {
        communities: [community].into(),
        local_pref,
        ..ExportAttributes::default()
    };
    routes.add(
        "10.0.0.0/24".parse().unwrap(),
        "a".into(),
        with(1, Some(200)),
    );
    routes.add("10.0.0.0/24".parse().unwrap(), "a".into(), with(2, None));
    assert_eq!(routes.len(), 1);
    let told = &routes.iter().next().unwrap().peers[&PeerName::from("a")];
    assert_eq!(told.communities, [1, 2].into());
    assert_eq!(told.local_pref, Some(200));
}
