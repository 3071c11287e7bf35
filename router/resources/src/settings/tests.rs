// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use super::*;

fn resolve(
    file: &str,
    env: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Effective, Vec<String>> {
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    };
    Effective::resolve(Inputs {
        file: Some(("causeway.yaml".into(), file.as_bytes().to_vec())),
        environment: owned(env).into_iter().collect::<BTreeMap<_, _>>(),
        flags: owned(flags),
        host_name: "host-1".into(),
    })
    .map_err(|findings| findings.iter().map(ToString::to_string).collect())
}

fn origin_of(effective: &Effective, path: &str) -> String {
    let setting = effective.list.iter().find(|s| s.path == path).unwrap();
    format!("{} {}", setting.value, setting.origin)
}

#[test]
fn without_anything_the_defaults_hold() {
    let effective = resolve("", &[], &[]).unwrap();
    assert_eq!(effective.settings.node_name, "host-1");
    assert_eq!(effective.settings.kernel_table, 254);
    assert_eq!(
        effective.settings.metrics_address,
        "127.0.0.1:9962".parse().ok()
    );
    assert!(
        effective
            .list
            .iter()
            .all(|setting| setting.origin == Origin::Default)
    );
    assert!(effective.warnings.is_empty());
}

#[test]
fn egress_is_set_or_goes_by_the_node() {
    let default = resolve("", &[], &[]).unwrap().settings.egress;
    assert_eq!((default.tunnel_port, default.peer_port), (4789, 4796));
    assert_eq!(default.tunnel_protocol, TunnelProtocol::Vxlan);
    assert_eq!(default.max_mappings, 1 << 18);
    assert_eq!((default.pod_tunnel_mtu, default.secret_file), (None, None));
    assert_eq!(default.transport, EgressTransport::Tunnel);
    let file =
        "egress: {tunnelPort: 8473, podTunnelMtu: 8930, secretFile: /etc/causeway/egress.key}\n";
    let env = [
        ("CAUSEWAY_EGRESS_MAX_MAPPINGS", "8388608"),
        ("CAUSEWAY_EGRESS_TRANSPORT", "native"),
    ];
    let set = resolve(file, &env, &[]).unwrap().settings.egress;
    assert_eq!((set.tunnel_port, set.pod_tunnel_mtu), (8473, Some(8930)));
    assert_eq!(set.max_mappings, 8_388_608);
    assert_eq!(set.transport, EgressTransport::Native);
    assert_eq!(set.secret_file, Some("/etc/causeway/egress.key".into()));
    for (file, port) in [
        ("egress: {tunnelProtocol: geneve}\n", 6081),
        ("egress: {tunnelProtocol: geneve, tunnelPort: 4789}\n", 4789),
    ] {
        let set = resolve(file, &[], &[]).unwrap().settings.egress;
        assert_eq!(set.tunnel_protocol, TunnelProtocol::Geneve);
        assert_eq!(set.tunnel_port, port);
    }
}

#[test]
fn a_store_is_spoken_to_as_its_endpoints_say() {
    assert_eq!(resolve("", &[], &[]).unwrap().settings.store, None);
    let plain = resolve("store: {endpoints: ['http://[fd00::5]:2379']}\n", &[], &[]).unwrap();
    let plain = plain.settings.store.unwrap();
    assert_eq!((plain.tls, plain.prefix.as_str()), (None, "/causeway"));
    assert_eq!(plain.lease, std::time::Duration::from_secs(5));
    let file = "store: {caFile: /c, certFile: /d, keyFile: /e, prefix: /a/b, leaseSeconds: 9}\n";
    let env = [(
        "CAUSEWAY_STORE_ENDPOINTS",
        "https://etcd-1:2379, https://10.0.0.5:2379",
    )];
    let store = resolve(file, &env, &[]).unwrap().settings.store.unwrap();
    assert_eq!(
        store.endpoints,
        ["https://etcd-1:2379", "https://10.0.0.5:2379"]
    );
    let identity = Some(("/d".into(), "/e".into()));
    let ca_file = "/c".into();
    assert_eq!(store.tls, Some(StoreTls { ca_file, identity }));
    assert_eq!((store.prefix.as_str(), store.lease.as_secs()), ("/a/b", 9));
}

#[test]
fn a_store_that_would_not_be_what_it_seems_is_refused() {
    for (store, expected) in [
        (
            "endpoints: [10.0.0.5:2379]",
            "1:21: error[CW0112]: store.endpoints[0]: '10.0.0.5:2379' is not allowed; allowed: URLs such as https://10.0.0.5:2379",
        ),
        (
            "endpoints: ['https://10.0.0.5/']",
            "1:21: error[CW0112]: store.endpoints[0]: 'https://10.0.0.5/' is not allowed; allowed: URLs such as https://10.0.0.5:2379",
        ),
        (
            "endpoints: ['http://me:hunter2@e:2379']",
            "1:21: error[CW0112]: store.endpoints[0]: the value has a name or password in it; allowed: URLs such as https://10.0.0.5:2379",
        ),
        (
            "endpoints: ['https://e:2379']",
            "1:21: error[CW0112]: store.endpoints[0]: https:// takes store.caFile, which is not set; allowed: https:// with store.caFile",
        ),
        (
            "endpoints: ['https://e:2379', 'http://f:2379'], caFile: /c",
            "1:39: error[CW0112]: store.endpoints[1]: http:// does not use store.caFile, which is set; allowed: https:// with store.caFile",
        ),
        (
            "endpoints: ['https://e:2379'], caFile: /c, certFile: /d",
            "1:62: error[CW0112]: store.certFile: store.keyFile is not set; allowed: both or neither",
        ),
        (
            "endpoints: ['https://e:2379'], caFile: c",
            "1:48: error[CW0112]: store.caFile: the value is no path; allowed: an absolute path of a file in PEM",
        ),
        (
            "caFile: /c",
            "1:17: error[CW0112]: store.caFile: store.endpoints is not set; allowed: with store.endpoints",
        ),
        (
            "endpoints: ['http://e:2379'], prefix: a/",
            "1:47: error[CW0112]: store.prefix: 'a/' is not allowed; allowed: a path such as /causeway, without a '/' at the end",
        ),
        (
            "endpoints: ['http://e:2379'], leaseSeconds: 2",
            "1:53: error[CW0112]: store.leaseSeconds: 2 is below 3; allowed: 3 to 60",
        ),
    ] {
        let found = resolve(&format!("store: {{{store}}}\n"), &[], &[]).unwrap_err();
        assert_eq!(found, [format!("causeway.yaml:{expected}")], "{store}");
    }
}

#[test]
fn the_default_file_says_the_defaults() {
    let as_printed = resolve(DEFAULT_FILE, &[], &[]).unwrap();
    assert_eq!(as_printed.settings, resolve("", &[], &[]).unwrap().settings);
    // Each commented value, taken at its word, is the default too.
    let is_setting = |line: &str| {
        let line = line.trim_start();
        line.starts_with('#') && line[1..].starts_with(|c: char| c.is_ascii_lowercase())
    };
    let uncommented: Vec<String> = DEFAULT_FILE
        .lines()
        .map(|line| {
            if is_setting(line) {
                line.replacen('#', "", 1)
            } else {
                line.to_owned()
            }
        })
        .collect();
    let spelled = resolve(&uncommented.join("\n"), &[], &[]).unwrap();
    let mut expected = as_printed.settings;
    expected.node_name = "node-1".into();
    assert_eq!(spelled.settings, expected);
    assert!(
        spelled.list.iter().all(|s| s.origin != Origin::Default),
        "{:#?}",
        spelled.list
    );
}

#[test]
fn the_default_file_names_every_variable() {
    for setting in resolve("", &[], &[]).unwrap().list {
        let name = layers_variable(&setting.path);
        assert!(DEFAULT_FILE.contains(&format!("[{name}]")), "{name}");
        // And the variable works: a wrong type or value is noticed, so some value must be taken.
        let value = match &setting.value {
            serde_json::Value::Array(_) => String::new(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let effective = resolve("", &[(&name, &value)], &[]).unwrap();
        assert_eq!(
            effective
                .list
                .iter()
                .find(|s| s.path == setting.path)
                .unwrap()
                .origin,
            Origin::Environment(name)
        );
    }
}

fn layers_variable(path: &str) -> String {
    super::layers::variable_name(path)
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = "log:\n  level: warn\n  format: json\nkernel: {table: 100, metric: 5}\n";
    let env = [
        ("CAUSEWAY_LOG_LEVEL", "debug"),
        ("CAUSEWAY_KERNEL_TABLE", "101"),
    ];
    let effective = resolve(file, &env, &[("log.level", "trace")]).unwrap();
    assert_eq!(effective.settings.log_level, "trace");
    assert_eq!(origin_of(&effective, "log.level"), "\"trace\" flag");
    assert_eq!(
        origin_of(&effective, "log.format"),
        "\"json\" causeway.yaml:3"
    );
    assert_eq!(
        origin_of(&effective, "kernel.table"),
        "101 environment CAUSEWAY_KERNEL_TABLE"
    );
    assert_eq!(origin_of(&effective, "kernel.metric"), "5 causeway.yaml:4");
    assert_eq!(origin_of(&effective, "kernel.protocol"), "186 default");
}

#[test]
fn lists_are_separated_by_commas_outside_the_file() {
    let env = [
        ("CAUSEWAY_POD_CIDRS", "10.1.0.0/24, fd00:1::/64"),
        ("CAUSEWAY_DEVICES", "eth*"),
    ];
    let settings = resolve("podCIDRs: [10.9.0.0/24]\n", &env, &[])
        .unwrap()
        .settings;
    let cidrs: Vec<String> = settings.pod_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["10.1.0.0/24", "fd00:1::/64"]);
    assert!(settings.devices[0].matches("eth0"));
    assert!(settings.is_fabric_device("eth0", true));
    assert!(!settings.is_fabric_device("docker0", false));
}

#[test]
fn findings_point_and_suggest() {
    for (file, expected) in [
        (
            "nodename: a\n",
            "causeway.yaml:1:1: error[CW0109]: nodename: unknown field 'nodename'; did you mean 'nodeName'?",
        ),
        (
            "kernel:\n  table: 0\n",
            "causeway.yaml:2:10: error[CW0112]: kernel.table: 0 is below 1; allowed: 1 to 4294967295",
        ),
        (
            "log:\n  format: jsn\n",
            "causeway.yaml:2:11: error[CW0112]: log.format: 'jsn' is not allowed; did you mean 'json'? allowed: text, json",
        ),
        (
            "podCIDRs:\n  - 10.1.0.0/24\n  - 10.2.0.1/24\n",
            "causeway.yaml:3:5: error[CW0112]: podCIDRs[1]: '10.2.0.1/24' is not allowed; allowed: a prefix with host bits zero such as 10.244.1.0/24",
        ),
        (
            "socket: run/x\n",
            "causeway.yaml:1:9: error[CW0112]: socket: 'run/x' is not allowed; allowed: an absolute path",
        ),
        (
            "egress:\n  podTunnelMtu: 1000\n",
            "causeway.yaml:2:17: error[CW0112]: egress.podTunnelMtu: '1000' is not allowed; allowed: 1280 to 65465, or 0 to go by the devices towards the fabric",
        ),
        (
            "egress:\n  maxMappings: 1000\n",
            "causeway.yaml:2:16: error[CW0112]: egress.maxMappings: 1000 is below 1024; allowed: 1024 to 8388608",
        ),
        (
            "egress: {tunnelPort: 65536}\n",
            "causeway.yaml:1:22: error[CW0112]: egress.tunnelPort: 65536 is above 65535; allowed: 0 to 65535",
        ),
        (
            "egress: {peerPort: 0}\n",
            "causeway.yaml:1:20: error[CW0112]: egress.peerPort: 0 is below 1; allowed: 1 to 65535",
        ),
        (
            "egress: {secretFile: hunter2}\n",
            "causeway.yaml:1:22: error[CW0112]: egress.secretFile: the value is no path; allowed: an absolute path of the file with the key",
        ),
        (
            "nodeName: 7\n",
            "causeway.yaml:1:11: error[CW0111]: nodeName: must be a text, found 7; put it into quotes",
        ),
    ] {
        assert_eq!(resolve(file, &[], &[]).unwrap_err(), [expected]);
    }
}

#[test]
fn wrong_variables_and_flags_are_findings() {
    assert_eq!(
        resolve("", &[("CAUSEWAY_KERNEL_TABLE", "x")], &[]).unwrap_err(),
        [
            "environment variable CAUSEWAY_KERNEL_TABLE: error[CW0111]: kernel.table: must be a whole number, found 'x'; allowed: 1 to 4294967295"
        ]
    );
    assert_eq!(
        resolve("", &[("CAUSEWAY_NODE_ADDRESSES", "x")], &[]).unwrap_err(),
        [
            "environment variable CAUSEWAY_NODE_ADDRESSES: error[CW0112]: nodeAddresses[0]: 'x' is not allowed; allowed: an IP address"
        ]
    );
    assert!(resolve("", &[], &[("log.lvel", "info")]).unwrap_err()[0].contains("'log.level'"));
    let effective = resolve("", &[("CAUSEWAY_LOG_LEVL", "x"), ("CAUSEWAY_A", "y")], &[]).unwrap();
    assert_eq!(effective.warnings.len(), 1);
    assert!(
        effective.warnings[0]
            .to_string()
            .contains("did you mean CAUSEWAY_LOG_LEVEL?")
    );
}

#[test]
fn device_patterns_match_as_globs() {
    for (pattern, name, is_match) in [
        ("eth0", "eth0", true),
        ("eth0", "eth01", false),
        ("eth*", "eth", true),
        ("*", "anything", true),
        ("e*s0", "ens0", true),
        ("e*s0", "ens0s1", false),
        ("*a*b*", "xaxbx", true),
        ("*a*b", "ab", true),
        ("ab*b", "ab", false),
        ("eth*", "wlan0", false),
    ] {
        assert_eq!(
            DevicePattern::new(pattern).unwrap().matches(name),
            is_match,
            "{pattern} {name}"
        );
    }
    assert!(DevicePattern::new("a b").is_none() && DevicePattern::new("").is_none());
}

#[test]
fn a_named_file_must_exist() {
    let findings = Settings::load(Some(Path::new("/nonexistent/causeway.yaml")), vec![]);
    assert_eq!(findings.unwrap_err()[0].code, Code::Unreadable);
}
