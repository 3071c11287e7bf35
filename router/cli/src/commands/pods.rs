// SPDX-License-Identifier: Apache-2.0
//! `causeway pods`.

use std::collections::BTreeMap;

use router_api::Connection;
use router_api::v1alpha1::{AddressPool, ListPodsRequest, ListPodsResponse, Pod};
use serde_json::{Map, Value, json};

use crate::args::{PodsArgs, PodsVerb};
use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Tone, View};

pub(crate) async fn fetch(connection: &Connection, args: &PodsArgs) -> Result<View, Failure> {
    let request = ListPodsRequest {
        namespace: args.namespace.clone().unwrap_or_default(),
        name: String::new(),
    };
    let answer = connection.pods().list_pods(request).await;
    let answer = answer
        .map_err(|s| Failure::from_status("cannot list the pods", &s))?
        .into_inner();
    Ok(match &args.verb {
        None | Some(PodsVerb::List) => list(&answer),
        Some(PodsVerb::Pools) => pools(&answer),
    })
}

/// The listing of the pods.
pub fn list(answer: &ListPodsResponse) -> View {
    let mut fields = node_field(&answer.node);
    fields.insert(
        "pools".to_owned(),
        answer.pools.iter().map(pool_json).collect(),
    );
    let notes = answer
        .pools
        .iter()
        .filter(|p| p.used >= p.size && p.size > 0 && !p.retired);
    Listing {
        kind: "PodList",
        fields,
        columns: vec![
            Column::new("Namespace"),
            Column::new("Name"),
            Column::new("Addresses"),
            Column::new("Device"),
            Column::new("State"),
            Column::new("Message").prose(),
            Column::new("Endpoint").wide().right(),
            Column::new("Interface").wide(),
            Column::new("MAC").wide(),
            Column::new("MTU").wide().right(),
            Column::new("Container").wide(),
            Column::new("Netns").wide(),
            Column::new("Labels").wide(),
        ],
        items: answer.pods.iter().map(item).collect(),
        empty: "no pods on this node".to_owned(),
        notes: notes
            .map(|p| format!("pool {} is used up (CW0401)", p.prefix))
            .collect(),
    }
    .into()
}

fn item(pod: &Pod) -> Item {
    let tone = match pod.phase.as_str() {
        "ready" => Tone::Good,
        "creating" => Tone::Notice,
        _ => Tone::Bad,
    };
    let or_dash = |text: &str| Cell::plain(if text.is_empty() { "-" } else { text });
    let name = match pod.name.as_str() {
        "" => format!("{}/{}", pod.container_id, pod.ifname),
        name => format!("{}/{name}", pod.namespace),
    };
    let labels: Option<BTreeMap<&String, &String>> =
        pod.labels.as_ref().map(|told| told.labels.iter().collect());
    let label_text = labels.iter().flatten().map(|(k, v)| format!("{k}={v}"));
    Item {
        name,
        json: json!({
            "endpointId": pod.endpoint_id,
            "namespace": pod.namespace,
            "name": pod.name,
            "containerId": pod.container_id,
            "interface": pod.ifname,
            "hostInterface": pod.host_ifname,
            "netns": pod.netns,
            "addresses": pod.addresses,
            "mac": pod.mac,
            "mtu": pod.mtu,
            "state": pod.phase,
            "message": pod.message,
            "labels": labels,
        }),
        rows: vec![vec![
            or_dash(&pod.namespace),
            or_dash(&pod.name),
            pod.addresses.join(",").into(),
            pod.host_ifname.as_str().into(),
            Cell::toned(tone, pod.phase.as_str()),
            pod.message.as_str().into(),
            pod.endpoint_id.into(),
            pod.ifname.as_str().into(),
            pod.mac.as_str().into(),
            pod.mtu.into(),
            pod.container_id.as_str().into(),
            pod.netns.as_str().into(),
            or_dash(&label_text.collect::<Vec<_>>().join(",")),
        ]],
    }
}

/// The listing of the address pools.
pub fn pools(answer: &ListPodsResponse) -> View {
    let item = |pool: &AddressPool| {
        let note = match pool.retired {
            true => "not configured any more; its addresses stay until their pods go",
            false if pool.used >= pool.size && pool.size > 0 => "used up",
            false => "",
        };
        Item {
            name: pool.prefix.clone(),
            json: pool_json(pool),
            rows: vec![vec![
                pool.prefix.as_str().into(),
                pool.used.into(),
                size_text(pool.size).into(),
                note.into(),
            ]],
        }
    };
    Listing {
        kind: "AddressPoolList",
        fields: node_field(&answer.node),
        columns: vec![
            Column::new("Prefix"),
            Column::new("Used").right(),
            Column::new("Size").right(),
            Column::new("Note").prose(),
        ],
        items: answer.pools.iter().map(item).collect(),
        empty: "no pod CIDR is configured for this node".to_owned(),
        notes: Vec::new(),
    }
    .into()
}

/// Sizes of IPv6 pools as powers of two; nobody counts them. The counter ends at 2^64.
fn size_text(size: u64) -> String {
    match size {
        0..=0xffff_ffff => size.to_string(),
        u64::MAX => "2^64 or more".to_owned(),
        _ => format!("about 2^{:.0}", (size as f64).log2()),
    }
}

fn pool_json(pool: &AddressPool) -> Value {
    json!({"prefix": pool.prefix, "used": pool.used, "size": pool.size, "retired": pool.retired})
}

fn node_field(node: &str) -> Map<String, Value> {
    Map::from_iter([("node".to_owned(), node.into())])
}
