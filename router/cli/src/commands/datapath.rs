// SPDX-License-Identifier: Apache-2.0
//! `causeway datapath`.

use router_api::Connection;
use router_api::v1alpha1::{
    BpfMap, DropCount, EndpointTraffic, GetDatapathRequest, GetDatapathResponse, Hook,
};
use serde_json::{Map, Value, json};

use crate::args::{DatapathArgs, DatapathVerb};
use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Page, Tone, View};

pub(crate) async fn fetch(connection: &Connection, args: &DatapathArgs) -> Result<View, Failure> {
    let answer = connection
        .datapath()
        .get_datapath(GetDatapathRequest {})
        .await;
    let answer = answer.map_err(|s| Failure::from_status("cannot look at the data plane", &s))?;
    let answer = answer.into_inner();
    Ok(match &args.verb {
        None | Some(DatapathVerb::Show) => show(&answer),
        Some(DatapathVerb::Drops) => drops(&answer),
        Some(DatapathVerb::Endpoints) => endpoints(&answer),
        Some(DatapathVerb::Maps) => maps(&answer),
        Some(DatapathVerb::Hooks) => hooks(&answer),
    })
}

/// Everything in short.
pub fn show(answer: &GetDatapathResponse) -> View {
    let mut page = Page::new("Datapath", format!("node/{}", answer.node));
    let programs = answer
        .programs
        .iter()
        .map(|p| json!({"name": p.name, "id": p.id}));
    page.set_json(json!({
        "node": answer.node,
        "hookKind": answer.hook_kind,
        "pinPath": answer.pin_path,
        "adopted": answer.adopted,
        "error": answer.error,
        "programs": programs.collect::<Vec<_>>(),
        "hooks": answer.hooks.iter().map(hook_json).collect::<Vec<_>>(),
        "maps": answer.maps.iter().map(map_json).collect::<Vec<_>>(),
        "drops": answer.drops.iter().map(drop_json).collect::<Vec<_>>(),
        "endpoints": answer.endpoints.iter().map(endpoint_json).collect::<Vec<_>>(),
    }));
    page.lines
        .push(vec![Cell::strong(format!("Data plane of {}", answer.node))]);
    page.field("error", Cell::toned(Tone::Bad, answer.error.as_str()));
    page.field(
        "hooks",
        match answer.hook_kind.as_str() {
            "" => String::new(),
            kind => format!("{} by {kind}", answer.hooks.len()),
        },
    );
    page.field("pins", answer.pin_path.as_str());
    page.field(
        "adopted",
        if answer.adopted {
            "yes, from an earlier process"
        } else {
            "no"
        },
    );
    for program in &answer.programs {
        page.field(
            &format!("program {}", program.name),
            format!("id {}", program.id),
        );
    }
    page.field("endpoints", answer.endpoints.len() as u64);
    let dropped: u64 = answer.drops.iter().map(|d| d.packets).sum();
    page.field(
        "refused packets",
        match dropped {
            0 => "0".to_owned(),
            n => format!("{n} (see `causeway datapath drops`)"),
        },
    );
    page.heading("Maps");
    for map in &answer.maps {
        page.field(&map.name, fill_text(map));
    }
    page.into()
}

/// Refused packets by reason.
pub fn drops(answer: &GetDatapathResponse) -> View {
    let item = |d: &DropCount| Item {
        name: d.reason.clone(),
        json: drop_json(d),
        rows: vec![vec![
            d.reason.as_str().into(),
            d.packets.into(),
            d.bytes.into(),
            if d.answered { "ICMP error" } else { "silent" }.into(),
            d.description.as_str().into(),
        ]],
    };
    listing(
        "DropList",
        answer,
        vec![
            Column::new("Reason"),
            Column::new("Packets").right(),
            Column::new("Bytes").right(),
            Column::new("Sender gets"),
            Column::new("Description").prose(),
        ],
        answer.drops.iter().map(item).collect(),
        "no packet was refused",
    )
}

/// Traffic of each endpoint.
pub fn endpoints(answer: &GetDatapathResponse) -> View {
    let item = |e: &EndpointTraffic| {
        let refused: u64 = e.drops.iter().map(|d| d.packets).sum();
        let pod = match e.pod.as_str() {
            "" => "-".to_owned(),
            pod => format!("{}/{pod}", e.namespace),
        };
        let attached = match e.attached {
            true => Cell::toned(Tone::Good, "attached"),
            false => Cell::toned(Tone::Bad, "detached"),
        };
        Item {
            name: e.device.clone(),
            json: endpoint_json(e),
            rows: vec![vec![
                e.endpoint_id.into(),
                pod.into(),
                e.device.as_str().into(),
                attached,
                e.tx_packets.into(),
                e.tx_bytes.into(),
                e.rx_packets.into(),
                e.rx_bytes.into(),
                refused.into(),
                e.addresses.join(",").into(),
            ]],
        }
    };
    listing(
        "EndpointTrafficList",
        answer,
        vec![
            Column::new("Endpoint").right(),
            Column::new("Pod"),
            Column::new("Device"),
            Column::new("Programs"),
            Column::new("TX Packets").right(),
            Column::new("TX Bytes").right(),
            Column::new("RX Packets").right(),
            Column::new("RX Bytes").right(),
            Column::new("Refused").right(),
            Column::new("Addresses").wide(),
        ],
        answer.endpoints.iter().map(item).collect(),
        "no endpoints",
    )
}

/// Maps and how full they are.
pub fn maps(answer: &GetDatapathResponse) -> View {
    let item = |map: &BpfMap| {
        let entries = map.entries.map_or("-".to_owned(), |n| n.to_string());
        let percent = percent(map).map_or("-".to_owned(), |p| format!("{p}%"));
        let tone = match self::percent(map) {
            Some(90..) => Tone::Bad,
            Some(70..) => Tone::Notice,
            _ => Tone::Plain,
        };
        Item {
            name: map.name.clone(),
            json: map_json(map),
            rows: vec![vec![
                map.name.as_str().into(),
                map.id.into(),
                entries.into(),
                map.max_entries.into(),
                Cell::toned(tone, percent),
            ]],
        }
    };
    listing(
        "BPFMapList",
        answer,
        vec![
            Column::new("Map"),
            Column::new("ID").right(),
            Column::new("Entries").right(),
            Column::new("Max").right(),
            Column::new("Full").right(),
        ],
        answer.maps.iter().map(item).collect(),
        "no maps",
    )
}

/// Where programs are attached.
pub fn hooks(answer: &GetDatapathResponse) -> View {
    let item = |hook: &Hook| Item {
        name: format!("{}/{}", hook.device, hook.role),
        json: hook_json(hook),
        rows: vec![vec![
            hook.device.as_str().into(),
            hook.role.as_str().into(),
            hook.kind.as_str().into(),
            hook.program_id.into(),
            hook.ifindex.into(),
        ]],
    };
    listing(
        "HookList",
        answer,
        vec![
            Column::new("Device"),
            Column::new("Role"),
            Column::new("Hook"),
            Column::new("Program").right(),
            Column::new("Ifindex").wide().right(),
        ],
        answer.hooks.iter().map(item).collect(),
        "no program is attached",
    )
}

fn listing(
    kind: &'static str,
    answer: &GetDatapathResponse,
    columns: Vec<Column>,
    items: Vec<Item>,
    empty: &str,
) -> View {
    let notes = match answer.error.as_str() {
        "" => Vec::new(),
        error => vec![format!(
            "the eBPF programs are not loaded (CW0501): {error}"
        )],
    };
    let fields = Map::from_iter([("node".to_owned(), answer.node.clone().into())]);
    Listing {
        kind,
        fields,
        columns,
        items,
        empty: empty.to_owned(),
        notes,
    }
    .into()
}

fn percent(map: &BpfMap) -> Option<u64> {
    let entries = map.entries?;
    (map.max_entries > 0).then(|| entries.saturating_mul(100) / map.max_entries)
}

fn fill_text(map: &BpfMap) -> String {
    match (map.entries, percent(map)) {
        (Some(entries), Some(percent)) => {
            format!("{entries} of {} ({percent}%)", map.max_entries)
        }
        _ => format!("array of {}", map.max_entries),
    }
}

fn hook_json(hook: &Hook) -> Value {
    json!({
        "device": hook.device, "ifindex": hook.ifindex, "role": hook.role,
        "hook": hook.kind, "programId": hook.program_id,
    })
}

fn map_json(map: &BpfMap) -> Value {
    json!({
        "name": map.name, "id": map.id, "entries": map.entries, "maxEntries": map.max_entries,
    })
}

fn drop_json(d: &DropCount) -> Value {
    json!({
        "reason": d.reason, "description": d.description, "packets": d.packets,
        "bytes": d.bytes, "answered": d.answered,
    })
}

fn endpoint_json(e: &EndpointTraffic) -> Value {
    json!({
        "endpointId": e.endpoint_id,
        "namespace": e.namespace,
        "pod": e.pod,
        "device": e.device,
        "addresses": e.addresses,
        "attached": e.attached,
        "txPackets": e.tx_packets, "txBytes": e.tx_bytes,
        "rxPackets": e.rx_packets, "rxBytes": e.rx_bytes,
        "drops": e.drops.iter().map(drop_json).collect::<Vec<_>>(),
    })
}
