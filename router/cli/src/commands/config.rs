// SPDX-License-Identifier: Apache-2.0
//! `causeway config show`.

use router_api::Connection;
use router_api::v1alpha1::{Setting, ShowConfigRequest, ShowConfigResponse};
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Page, Tone, View};

pub(crate) async fn fetch(connection: &Connection, origin: bool) -> Result<View, Failure> {
    let answer = connection.config().show_config(ShowConfigRequest {}).await;
    let answer = answer.map_err(|s| Failure::from_status("cannot get the settings", &s))?;
    let answer = answer.into_inner();
    Ok(if origin {
        origins(&answer)
    } else {
        document(&answer)
    })
}

/// The settings as a document of causeway.yaml.
pub fn document(answer: &ShowConfigResponse) -> View {
    let mut page = Page::new("NodeSettings", format!("node/{}", answer.node));
    let settings: Value = serde_saphyr::from_str(&answer.yaml).unwrap_or(Value::Null);
    page.set_json(json!({"node": answer.node, "settings": settings}));
    for line in answer.yaml.lines() {
        page.line(line);
    }
    page.into()
}

/// Each setting and where its value comes from.
pub fn origins(answer: &ShowConfigResponse) -> View {
    let item = |setting: &Setting| {
        let origin = match setting.origin_detail.as_str() {
            "" => setting.origin.clone(),
            detail => format!("{} {detail}", setting.origin),
        };
        let tone = if setting.origin == "default" {
            Tone::Dim
        } else {
            Tone::Plain
        };
        Item {
            name: setting.key.clone(),
            json: json!({
                "key": setting.key, "value": setting.value,
                "origin": setting.origin, "originDetail": setting.origin_detail,
            }),
            rows: vec![vec![
                setting.key.as_str().into(),
                setting.value.as_str().into(),
                Cell::toned(tone, origin),
            ]],
        }
    };
    Listing {
        kind: "SettingList",
        fields: Map::from_iter([("node".to_owned(), answer.node.clone().into())]),
        columns: vec![
            Column::new("Setting"),
            Column::new("Value").prose(),
            Column::new("Origin"),
        ],
        items: answer.settings.iter().map(item).collect(),
        empty: "no settings".to_owned(),
        notes: Vec::new(),
    }
    .into()
}
