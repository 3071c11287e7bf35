// SPDX-License-Identifier: Apache-2.0
//! The schemas of the kinds, and the check of a tree against one.
//!
//! A schema is OpenAPI v3 in Kubernetes' structural form: no references, every field under
//! `properties`, unknown fields not allowed unless `x-kubernetes-preserve-unknown-fields` says so.
//! Only what the kinds use is interpreted: types, `required`, `enum`, `pattern`, ranges, lengths,
//! and unique keys of list maps. CEL rules are carried for the API server; their equals for files
//! are in [`crate::rules`].

mod check;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Value as Json, json};

use crate::kinds::{
    AdvertisementSpec, BfdProfileSpec, CausewayFamily, CausewayGracefulRestart, CausewayInstance,
    CausewayPeer, CausewaySession, CiliumEgressPolicySpec, ClusterConfigSpec, EgressPolicySpec,
    EgressPolicyStatus, Namespace, Node as KubernetesNode, NodeConfigOverrideSpec, NodeConfigSpec,
    NodeConfigStatus, PeerConfigSpec, Pod, PolicySpec, Secret,
};
use crate::object::{Kind, Metadata};

pub(crate) use check::{Finding, Values, check};

/// The structural schema of a type.
pub(crate) fn structural<T: JsonSchema>() -> Json {
    let mut generator = SchemaSettings::draft07()
        .with(|settings| {
            settings.meta_schema = None;
            settings.inline_subschemas = true;
        })
        .with_transform(Structural)
        .into_generator();
    let mut schema = generator.root_schema_for::<T>().to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("title");
        object.remove("$schema");
    }
    schema
}

/// The schema of a whole object of a kind, as the CRD shows it for the version.
pub(crate) fn of_kind(kind: Kind, api_version: &str) -> &'static Json {
    static SCHEMAS: LazyLock<BTreeMap<(Kind, &'static str), Json>> = LazyLock::new(|| {
        Kind::ALL
            .into_iter()
            .flat_map(|kind| {
                kind.api_versions()
                    .iter()
                    .map(move |version| (kind, *version))
            })
            .map(|(kind, version)| ((kind, version), build(kind, version)))
            .collect()
    });
    static ANYTHING: LazyLock<Json> = LazyLock::new(|| json!({}));
    // The map holds every pair the caller can have got from `Kind::from_api`.
    SCHEMAS
        .iter()
        .find(|((k, v), _)| *k == kind && *v == api_version)
        .map_or(&ANYTHING, |(_, schema)| schema)
}

/// The part of a kind's schema under `spec`, for the kinds that have CRDs.
pub(crate) fn spec_of(kind: Kind, api_version: &str) -> Option<Json> {
    let mut spec = match kind {
        Kind::ClusterConfig | Kind::CausewayClusterConfig => structural::<ClusterConfigSpec>(),
        Kind::PeerConfig | Kind::CausewayPeerConfig => structural::<PeerConfigSpec>(),
        Kind::Advertisement => structural::<AdvertisementSpec>(),
        Kind::Policy => structural::<PolicySpec>(),
        Kind::BfdProfile => structural::<BfdProfileSpec>(),
        Kind::NodeConfigOverride => structural::<NodeConfigOverrideSpec>(),
        Kind::NodeConfig => structural::<NodeConfigSpec>(),
        Kind::CiliumEgressPolicy => structural::<CiliumEgressPolicySpec>(),
        Kind::EgressPolicy => structural::<EgressPolicySpec>(),
        Kind::Node | Kind::Namespace | Kind::Pod | Kind::Secret => return None,
    };
    match kind {
        Kind::PeerConfig => {
            remove_ours::<CausewaySession>(&mut spec, &[]);
            remove_ours::<CausewayGracefulRestart>(&mut spec, &["gracefulRestart"]);
            remove_ours::<CausewayFamily>(&mut spec, &["families", "*"]);
        }
        Kind::ClusterConfig => {
            remove_ours::<CausewayInstance>(&mut spec, &["bgpInstances", "*"]);
            remove_ours::<CausewayPeer>(&mut spec, &["bgpInstances", "*", "peers", "*"]);
        }
        _ => {}
    }
    if matches!(kind, Kind::PeerConfig | Kind::CausewayPeerConfig)
        && api_version != "cilium.io/v2alpha1"
    {
        remove(&mut spec, &["transport", "localPort"]);
    }
    Some(spec)
}

/// The part of a kind's schema under `status`.
pub(crate) fn status_of(kind: Kind) -> Option<Json> {
    match kind {
        Kind::ClusterConfig
        | Kind::CausewayClusterConfig
        | Kind::PeerConfig
        | Kind::CausewayPeerConfig
        | Kind::Policy
        | Kind::BfdProfile => Some(structural::<ConditionsStatus>()),
        Kind::EgressPolicy => Some(structural::<EgressPolicyStatus>()),
        Kind::NodeConfig => Some(structural::<NodeConfigStatus>()),
        Kind::Advertisement
        | Kind::NodeConfigOverride
        | Kind::CiliumEgressPolicy
        | Kind::Node
        | Kind::Namespace
        | Kind::Pod
        | Kind::Secret => None,
    }
}

/// The status of kinds about which there are only conditions.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct ConditionsStatus {
    /// What Causeway has to say about the object.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    conditions: Vec<crate::condition::Condition>,
}

fn build(kind: Kind, api_version: &str) -> Json {
    let mut object = match kind {
        Kind::Node => structural::<KubernetesNode>(),
        Kind::Namespace => structural::<Namespace>(),
        Kind::Pod => structural::<Pod>(),
        Kind::Secret => structural::<Secret>(),
        _ => json!({ "type": "object", "properties": {}, "required": ["spec"] }),
    };
    if let Some(spec) = spec_of(kind, api_version) {
        object["properties"]["spec"] = spec;
        object["properties"]["status"] = json!({ "x-kubernetes-preserve-unknown-fields": true });
    }
    let mut metadata = structural::<Metadata>();
    // The rest of ObjectMeta: written by the API server, left in exported objects.
    for field in [
        "resourceVersion",
        "managedFields",
        "ownerReferences",
        "finalizers",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generateName",
    ] {
        metadata["properties"][field] = json!({ "x-kubernetes-preserve-unknown-fields": true });
    }
    object["properties"]["metadata"] = metadata;
    object["properties"]["apiVersion"] = json!({ "type": "string" });
    object["properties"]["kind"] = json!({ "type": "string" });
    if let Some(required) = object.get_mut("required").and_then(Json::as_array_mut) {
        required.push("metadata".into());
    } else {
        object["required"] = json!(["metadata"]);
    }
    object
}

/// Removes what a struct of our own fields has from the schema it is flattened into: upstream's
/// kinds do not have them.
fn remove_ours<T: JsonSchema>(schema: &mut Json, at: &[&str]) {
    let ours = structural::<T>();
    for name in ours["properties"].as_object().into_iter().flatten() {
        remove(schema, &[at, &[name.0.as_str()]].concat());
    }
}

/// Removes a property; `*` steps into the items of a list.
fn remove(schema: &mut Json, path: &[&str]) {
    let [first, rest @ ..] = path else { return };
    if *first == "*" {
        return remove(&mut schema["items"], rest);
    }
    if !rest.is_empty() {
        return remove(&mut schema["properties"][*first], rest);
    }
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove(*first);
    }
}

/// Brings generated schemas into structural form: no null types, no formats the API server does
/// not know, enums as plain lists, descriptions on one line.
#[derive(Clone, Debug)]
struct Structural;

impl Transform for Structural {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else {
            return;
        };
        // Option<T> of a struct: anyOf [T, null].
        if let Some(Json::Array(choices)) = object.get("anyOf") {
            let choices: Vec<Json> = choices
                .iter()
                .filter(|c| c.get("type") != Some(&json!("null")))
                .cloned()
                .collect();
            if let [Json::Object(only)] = choices.as_slice() {
                object.remove("anyOf");
                for (key, value) in only.clone() {
                    object.entry(key).or_insert(value);
                }
            }
        }
        // An enum whose variants have descriptions: oneOf constants.
        if let Some(Json::Array(choices)) = object.get("oneOf") {
            let names: Vec<Json> = choices
                .iter()
                .flat_map(|choice| match (choice.get("const"), choice.get("enum")) {
                    (Some(name), _) => vec![name.clone()],
                    (_, Some(Json::Array(names))) => names.clone(),
                    _ => vec![],
                })
                .collect();
            object.remove("oneOf");
            object.insert("enum".into(), names.into());
            object.insert("type".into(), "string".into());
        }
        if let Some(Json::Array(names)) = object.get_mut("enum") {
            names.retain(|name| !name.is_null());
        }
        if let Some(Json::Array(types)) = object.get("type") {
            let types: Vec<Json> = types.iter().filter(|t| *t != "null").cloned().collect();
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".into(), only);
            }
        }
        if object.get("default").is_some_and(Json::is_null) {
            object.remove("default");
        }
        let is_known_format =
            |f: &str| matches!(f, "int32" | "int64" | "ipv4" | "date-time" | "double");
        if object
            .get("format")
            .and_then(Json::as_str)
            .is_some_and(|f| !is_known_format(f))
        {
            object.remove("format");
        }
        if let Some(Json::String(text)) = object.get_mut("description") {
            *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        }
        for bound in ["minimum", "maximum"] {
            if let Some(whole) = object
                .get(bound)
                .and_then(Json::as_f64)
                .filter(|x| x.fract() == 0.0)
            {
                object.insert(bound.into(), (whole as i64).into());
            }
        }
    }
}
