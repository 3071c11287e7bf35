// SPDX-License-Identifier: Apache-2.0
//! The containerlab topology file, as far as it can be run without Docker.
//!
//! The file is read once into [`Topology`], with containerlab's inheritance applied (`defaults`,
//! then `kinds`, then `groups`, then the node itself; scalars are replaced, lists and maps are
//! joined) and paths made absolute. Keys the runner honours or may safely ignore are listed in
//! [`NodeSpec`]; any other key is an error that names it, because a lab that silently lacks what
//! its file asks for proves nothing.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::image::Image;

/// MTU of a link that names none; containerlab's own default.
pub const DEFAULT_LINK_MTU: u32 = 9500;
/// Longest interface name the kernel takes (`IFNAMSIZ` without the final zero).
const INTERFACE_NAME_MAX: usize = 15;

/// A topology ready to be run.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The lab's name (`name:` in the file).
    pub name: String,
    /// The file it was read from, absolute.
    pub file: PathBuf,
    /// Nodes by name.
    pub nodes: BTreeMap<String, NodeConfig>,
    /// Links in file order.
    pub links: Vec<Link>,
    /// Keys that were accepted but mean nothing here, one sentence each.
    pub notes: Vec<String>,
}

/// One node with everything inherited filled in.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// What the node is.
    pub kind: NodeKind,
    /// Host name inside the node; the node's name unless the file says otherwise.
    pub hostname: String,
    /// Commands run in the node after its links exist and its main process was started.
    pub exec: Vec<Vec<String>>,
    /// Files and directories of this machine that appear in the node.
    pub binds: Vec<Bind>,
    /// Environment of the main process and of every command run in the node.
    pub env: BTreeMap<String, String>,
    /// Kernel settings written before the links are made.
    pub sysctls: BTreeMap<String, String>,
    /// Replaces the image's main process (`cmd:`), split into words.
    pub command: Option<Vec<String>>,
}

/// What runs in a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// `kind: linux`: a machine of its own that plays this image.
    Machine(Image),
    /// `kind: bridge`: a Linux bridge, in a namespace of its own; links become its ports.
    Bridge,
}

/// A file or directory of this machine that appears in a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path here.
    pub source: PathBuf,
    /// Absolute path in the node.
    pub target: PathBuf,
    /// Whether the node may only read it.
    pub read_only: bool,
}

/// A point-to-point link (a veth pair).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Both ends.
    pub ends: [Endpoint; 2],
    /// MTU of both ends, in bytes.
    pub mtu: u32,
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The node's name.
    pub node: String,
    /// The interface's name inside that node.
    pub interface: String,
    /// A fixed hardware address, if the file gives one.
    pub mac: Option<String>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.node, self.interface)
    }
}

impl Topology {
    /// Reads a topology file.
    ///
    /// # Errors
    /// When the file cannot be read, is not valid YAML, has a key or kind the runner does not
    /// know, or contradicts itself (link to a missing node, interface used twice, bind source
    /// that does not exist). The message names the file and, for YAML, the line.
    pub fn read(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path)
            .with_context(|| format!("no topology file {}", path.display()))?;
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read topology {}", path.display()))?;
        Self::parse(&text, &path).with_context(|| format!("in topology {}", path.display()))
    }

    /// Parses the text of a topology that lies at `file` (binds are relative to its folder).
    ///
    /// # Errors
    /// As [`Topology::read`].
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        let raw: File = serde_saphyr::from_str(text)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .context("not a topology this runner can play")?;
        ensure!(!raw.name.is_empty(), "`name` is empty; a lab needs a name");
        ensure!(
            raw.name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')),
            "`name: {}` may only have letters, digits, `-`, `_` and `.`",
            raw.name
        );
        let folder = file.parent().unwrap_or(Path::new("/"));
        let mut notes = Vec::new();
        if raw.mgmt.is_some() {
            notes.push("`mgmt` ignored: nodes have no management network here".to_owned());
        }
        let mut nodes = BTreeMap::new();
        for (name, spec) in &raw.topology.nodes {
            let spec = raw.topology.inherited(spec.clone().unwrap_or_default());
            let node = NodeConfig::build(name, spec, folder, &mut notes)
                .with_context(|| format!("node `{name}`"))?;
            nodes.insert(name.clone(), node);
        }
        let mut links = Vec::new();
        for (index, spec) in raw.topology.links.into_iter().enumerate() {
            links.push(Link::build(spec).with_context(|| format!("link number {}", index + 1))?);
        }
        check_links(&nodes, &links)?;
        Ok(Self {
            name: raw.name,
            file: file.to_owned(),
            nodes,
            links,
            notes,
        })
    }
}

impl NodeConfig {
    fn build(name: &str, spec: NodeSpec, folder: &Path, notes: &mut Vec<String>) -> Result<Self> {
        let kind = match spec.kind.as_deref() {
            Some("bridge") => NodeKind::Bridge,
            Some("linux") => {
                let image = spec
                    .image
                    .as_deref()
                    .context("`kind: linux` needs an `image`")?;
                NodeKind::Machine(Image::from_reference(image)?)
            }
            Some(other) => bail!("kind `{other}` cannot run without Docker; use linux or bridge"),
            None => bail!("no `kind` (in the node, its group or the defaults)"),
        };
        for (key, present) in [
            ("mgmt-ipv4", spec.mgmt_ipv4.is_some()),
            ("mgmt-ipv6", spec.mgmt_ipv6.is_some()),
            ("ports", spec.ports.is_some()),
            ("restart-policy", spec.restart_policy.is_some()),
        ] {
            if present {
                notes.push(format!("node {name}: `{key}` ignored"));
            }
        }
        if spec
            .network_mode
            .as_deref()
            .is_some_and(|mode| mode != "none")
        {
            notes.push(format!("node {name}: `network-mode` is always none here"));
        }
        let exec = spec
            .exec
            .iter()
            .map(|line| split_words(line).with_context(|| format!("`exec` line `{line}`")))
            .collect::<Result<_>>()?;
        let binds = spec
            .binds
            .iter()
            .map(|text| Bind::parse(text, name, folder).with_context(|| format!("bind `{text}`")))
            .collect::<Result<_>>()?;
        let command = spec
            .cmd
            .as_deref()
            .map(split_words)
            .transpose()
            .context("`cmd`")?;
        let text = |map: BTreeMap<String, Scalar>| {
            map.into_iter()
                .map(|(key, value)| (key, value.to_string()))
                .collect()
        };
        Ok(Self {
            kind,
            hostname: spec.hostname.unwrap_or_else(|| name.to_owned()),
            exec,
            binds,
            env: text(spec.env),
            sysctls: text(spec.sysctls),
            command,
        })
    }

    /// The image the node plays; none for a bridge.
    pub fn image(&self) -> Option<Image> {
        match self.kind {
            NodeKind::Machine(image) => Some(image),
            NodeKind::Bridge => None,
        }
    }
}

impl Bind {
    fn parse(text: &str, node: &str, folder: &Path) -> Result<Self> {
        let text = text.replace("__clabNodeName__", node);
        let mut parts = text.split(':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
            bail!("expected `source:target[:ro]`");
        };
        let read_only = match parts.next() {
            None | Some("rw") => false,
            Some("ro") => true,
            Some(other) => bail!("bind option `{other}` is not supported; use ro or rw"),
        };
        ensure!(
            target.starts_with('/'),
            "target `{target}` must be an absolute path"
        );
        let source = folder.join(source);
        let source = fs::canonicalize(&source)
            .with_context(|| format!("source {} does not exist", source.display()))?;
        Ok(Self {
            source,
            target: target.into(),
            read_only,
        })
    }
}

impl Link {
    fn build(spec: LinkSpec) -> Result<Self> {
        if let Some(kind) = spec.kind.as_deref().filter(|kind| *kind != "veth") {
            bail!("link type `{kind}` is not supported; only veth links between two nodes are");
        }
        let [a, b]: [EndpointSpec; 2] = spec
            .endpoints
            .try_into()
            .map_err(|ends: Vec<_>| anyhow::anyhow!("{} endpoints, expected 2", ends.len()))?;
        Ok(Self {
            ends: [Endpoint::build(a)?, Endpoint::build(b)?],
            mtu: spec.mtu.unwrap_or(DEFAULT_LINK_MTU),
        })
    }
}

impl Endpoint {
    fn build(spec: EndpointSpec) -> Result<Self> {
        let endpoint = match spec {
            EndpointSpec::Short(text) => {
                let (node, interface) = text
                    .split_once(':')
                    .with_context(|| format!("endpoint `{text}`: expected `node:interface`"))?;
                Self {
                    node: node.to_owned(),
                    interface: interface.to_owned(),
                    mac: None,
                }
            }
            EndpointSpec::Full {
                node,
                interface,
                mac,
            } => Self {
                node,
                interface,
                mac,
            },
        };
        let name = &endpoint.interface;
        ensure!(
            !name.is_empty()
                && name.len() <= INTERFACE_NAME_MAX
                && !name.contains(|c: char| c.is_whitespace() || c == '/'),
            "interface name `{name}` must have 1 to {INTERFACE_NAME_MAX} characters, no space or /"
        );
        Ok(endpoint)
    }
}

/// Splits a command line into words the way containerlab does: quotes and backslashes, no shell.
///
/// # Errors
/// When a quote is never closed.
pub fn split_words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    ensure!(quote.is_none(), "a quote is never closed");
    words.extend(word);
    Ok(words)
}

fn check_links(nodes: &BTreeMap<String, NodeConfig>, links: &[Link]) -> Result<()> {
    let mut used = BTreeMap::new();
    for (number, end) in links
        .iter()
        .enumerate()
        .flat_map(|(i, link)| link.ends.iter().map(move |end| (i + 1, end)))
    {
        ensure!(
            nodes.contains_key(&end.node),
            "link number {number}: no node `{}`; there are {}",
            end.node,
            nodes.keys().cloned().collect::<Vec<_>>().join(", ")
        );
        if let Some(other) = used.insert((&end.node, &end.interface), number) {
            bail!("link number {number}: {end} is already an end of link number {other}");
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    mgmt: Option<serde_json::Value>,
    /// Containerlab puts it before node names of containers; there are no containers here.
    #[serde(rename = "prefix")]
    _prefix: Option<String>,
    topology: TopologySpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopologySpec {
    #[serde(default)]
    defaults: NodeSpec,
    #[serde(default)]
    kinds: BTreeMap<String, NodeSpec>,
    #[serde(default)]
    groups: BTreeMap<String, NodeSpec>,
    nodes: BTreeMap<String, Option<NodeSpec>>,
    #[serde(default)]
    links: Vec<LinkSpec>,
}

impl TopologySpec {
    fn inherited(&self, node: NodeSpec) -> NodeSpec {
        let group = node
            .group
            .as_ref()
            .and_then(|name| self.groups.get(name))
            .cloned();
        let kind = node
            .kind
            .clone()
            .or_else(|| group.as_ref().and_then(|group| group.kind.clone()))
            .or_else(|| self.defaults.kind.clone());
        let of_kind = kind.as_ref().and_then(|kind| self.kinds.get(kind)).cloned();
        let mut merged = self.defaults.clone();
        for layer in [of_kind, group, Some(node)].into_iter().flatten() {
            merged.overlay(layer);
        }
        merged.kind = merged.kind.or(kind);
        merged
    }
}

/// The keys of a node that are honoured, or known to mean nothing in a namespace.
#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct NodeSpec {
    kind: Option<String>,
    image: Option<String>,
    group: Option<String>,
    hostname: Option<String>,
    exec: Vec<String>,
    binds: Vec<String>,
    env: BTreeMap<String, Scalar>,
    sysctls: BTreeMap<String, Scalar>,
    cmd: Option<String>,
    network_mode: Option<String>,
    labels: BTreeMap<String, Scalar>,
    mgmt_ipv4: Option<String>,
    mgmt_ipv6: Option<String>,
    ports: Option<Vec<String>>,
    restart_policy: Option<String>,
    /// Nothing is pulled.
    image_pull_policy: Option<String>,
    /// Nodes are root in their namespaces.
    privileged: Option<bool>,
    cap_add: Vec<String>,
}

impl NodeSpec {
    fn overlay(&mut self, over: Self) {
        fn set<T>(slot: &mut Option<T>, value: Option<T>) {
            if value.is_some() {
                *slot = value;
            }
        }
        set(&mut self.kind, over.kind);
        set(&mut self.image, over.image);
        set(&mut self.group, over.group);
        set(&mut self.hostname, over.hostname);
        set(&mut self.cmd, over.cmd);
        set(&mut self.network_mode, over.network_mode);
        set(&mut self.mgmt_ipv4, over.mgmt_ipv4);
        set(&mut self.mgmt_ipv6, over.mgmt_ipv6);
        set(&mut self.ports, over.ports);
        set(&mut self.restart_policy, over.restart_policy);
        set(&mut self.image_pull_policy, over.image_pull_policy);
        set(&mut self.privileged, over.privileged);
        self.exec.extend(over.exec);
        self.binds.extend(over.binds);
        self.cap_add.extend(over.cap_add);
        self.env.extend(over.env);
        self.sysctls.extend(over.sysctls);
        self.labels.extend(over.labels);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    endpoints: Vec<EndpointSpec>,
    mtu: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum EndpointSpec {
    Short(String),
    Full {
        node: String,
        interface: String,
        mac: Option<String>,
    },
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Number(i64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

#[cfg(test)]
mod tests;
