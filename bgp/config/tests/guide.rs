// SPDX-License-Identifier: Apache-2.0
//! The manifests in the operator's guide do what their page says: each peer of each cluster
//! configuration is run, and nothing of a peer configuration is left out.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bgp_config::{
    Compiled, DefaultGateway, InterfaceFacts, NodeFacts, OperState, Options, compile,
};
use router_resources::check;

/// What every page may refer to, and what its node is.
const AROUND: &str = "apiVersion: v1
kind: Node
metadata:
  name: node1
  labels: { kubernetes.io/hostname: node1, rack: \"1\", reflector: \"true\" }
spec:
  podCIDRs: [10.244.1.0/24, \"fd00:10:244:1::/64\"]
status:
  addresses:
    - { type: InternalIP, address: 10.0.0.1 }
---
apiVersion: cilium.io/v2
kind: CiliumBGPAdvertisement
metadata: { name: of-the-test, labels: { advertise: pods } }
spec:
  advertisements:
    - advertisementType: PodCIDR
";

/// For a peer configuration that no cluster configuration of its page names.
const ALONE: &str = "apiVersion: causeway.io/v1alpha1
kind: BGPClusterConfig
metadata: { name: of-the-test }
spec:
  bgpInstances:
    - name: fabric
      localASN: 65001
      localPort: 179
      peers:
        - name: tor
          peerAddress: 10.0.0.2
          peerASN: 65002
          peerConfigRef: { kind: KIND, name: NAME }
";

fn pages() -> Vec<PathBuf> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/src");
    let mut pages: Vec<PathBuf> = fs::read_dir(guide)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    pages
}

/// The objects on a page, each as it is written.
fn objects(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let blocks = text.split("```yaml\n").skip(1);
    blocks
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.contains("apiVersion:"))
        .flat_map(|block| block.split("---\n").map(str::to_owned))
        .collect()
}

fn kind(object: &str) -> &str {
    let line = object.lines().find_map(|line| line.strip_prefix("kind: "));
    line.unwrap_or_default().trim()
}

fn name(object: &str) -> &str {
    let (_, after) = object.split_once("name: ").unwrap();
    after.split([' ', ',', '\n', '}']).next().unwrap()
}

fn is_cluster(object: &&String) -> bool {
    kind(object).ends_with("BGPClusterConfig")
}

fn compiled(page: &Path, objects: &[&str]) -> Compiled {
    let stem = page.file_stem().unwrap().to_string_lossy();
    let folder = std::env::temp_dir().join(format!("causeway-guide-{stem}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let is_of_r1 = objects.iter().any(|object| object.contains("rack: r1"));
    let rack = if is_of_r1 { "rack: r1" } else { "rack: \"1\"" };
    let around = AROUND.replace("rack: \"1\"", rack);
    fs::write(folder.join("around.yaml"), around).unwrap();
    for (number, object) in objects.iter().enumerate() {
        fs::write(folder.join(format!("{number:02}.yaml")), object).unwrap();
    }
    let report = check(std::slice::from_ref(&folder));
    fs::remove_dir_all(&folder).unwrap();
    let findings: Vec<String> = report.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(findings, [""; 0], "{}", page.display());
    let up = |address: &str| InterfaceFacts {
        is_admin_up: true,
        oper_state: OperState::Up,
        addresses: vec![address.parse().unwrap()],
    };
    let interfaces = [
        ("lo".to_owned(), up("10.0.0.1")),
        ("eth1".to_owned(), up("10.0.1.2")),
        ("eth2".to_owned(), up("10.0.2.2")),
    ];
    let mut facts = NodeFacts::gather("node1", &[], &[], &report.snapshot, interfaces.into());
    let gateway = |address: &str| DefaultGateway {
        address: address.parse::<IpAddr>().unwrap(),
        interface: "eth1".to_owned(),
    };
    facts.default_gateways = vec![gateway("10.0.1.1"), gateway("fd00::1")];
    for interface in ["eth1", "eth2"] {
        let router = "fe80::1".parse().unwrap();
        facts.link_routers.insert(interface.to_owned(), router);
    }
    compile(&report.snapshot, &facts, &Options::default())
}

/// What the outcome says is wrong.
fn problems(compiled: &Compiled) -> Vec<String> {
    let wrong = ["Degraded", "NotProvided", "Missing", "Conflicting"];
    let of = |statement: &router_resources::Statement| {
        let kind = statement.condition_type;
        let is_so = format!("{:?}", statement.status) == "True";
        (is_so && wrong.iter().any(|word| kind.contains(word)))
            .then(|| format!("{kind}: {}", statement.message))
    };
    let said = compiled.statements.iter().filter_map(|(_, s)| of(s));
    let skipped = compiled.skipped.iter().map(|peer| peer.why.clone());
    said.chain(skipped).collect()
}

#[test]
fn every_cluster_and_peer_configuration_of_the_guide_is_run_as_a_whole() {
    let (mut clusters, mut alone) = (0, 0);
    for page in pages() {
        let all = objects(&page);
        // A node has one cluster configuration: each has its turn, with all the rest of its page.
        let others: Vec<&str> = all
            .iter()
            .filter(|object| !is_cluster(object))
            .map(String::as_str)
            .collect();
        for cluster in all.iter().filter(is_cluster) {
            let mut objects = others.clone();
            objects.push(cluster);
            let outcome = compiled(&page, &objects);
            assert_eq!(problems(&outcome), [""; 0], "{}", page.display());
            let peers: usize = outcome
                .instances
                .iter()
                .map(|instance| instance.config.peers().len() + instance.config.ranges().len())
                .sum();
            assert!(peers > 0, "{}: nobody to speak with", page.display());
            clusters += 1;
        }
        for config in all
            .iter()
            .filter(|object| kind(object).ends_with("PeerConfig"))
        {
            let cluster = ALONE
                .replace("KIND", kind(config))
                .replace("NAME", name(config));
            let mut objects = others.clone();
            objects.push(&cluster);
            let outcome = compiled(&page, &objects);
            assert_eq!(problems(&outcome), [""; 0], "{}: {config}", page.display());
            alone += 1;
        }
    }
    assert!(
        clusters >= 11 && alone >= 24,
        "{clusters} and {alone} found"
    );
}
