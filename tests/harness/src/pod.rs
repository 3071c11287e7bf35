// SPDX-License-Identifier: Apache-2.0
//! Pods, made by the real `causeway-cni` as a container runtime would make them.

use std::{fs::File, net::IpAddr, thread};

use anyhow::{Context, Result, anyhow, ensure};
use lab_runner::{Node, Output, Spawned, wait_for};

use nix::sched::{CloneFlags, setns};

use crate::CONVERGED;

/// What a runtime gives the plugin on standard input.
const NETWORK: &[u8] = br#"{"cniVersion":"1.1.0","name":"causeway","type":"causeway-cni"}"#;
/// Where the runner puts the plugin.
const PLUGIN: &str = "/opt/cni/bin/causeway-cni";

/// The namespace of pods that are given none.
const NAMESPACE: &str = "default";

/// A pod that is about to be: a network namespace in a node, and nothing in it.
#[derive(Debug)]
pub struct Sandbox<'a> {
    node: &'a Node,
    namespace: String,
    name: String,
}

impl<'a> Sandbox<'a> {
    /// Makes the network namespace of a pod.
    ///
    /// # Errors
    /// When there is one of that name.
    pub fn new(node: &'a Node, namespace: &str, name: &str) -> Result<Self> {
        node.exec_ok(&["ip", "netns", "add", name])?;
        Ok(Self {
            node,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// As [`Pod::within`].
    ///
    /// # Errors
    /// As [`Pod::within`].
    pub fn within<T: Send>(&self, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within(self.node, &self.name, run)
    }

    /// Has the plugin make the interface.
    ///
    /// # Errors
    /// When the plugin refuses, or its answer lacks an address of either family.
    pub fn connect(self) -> Result<Pod<'a>> {
        self.connect_with(NETWORK)
    }

    /// The same by a runtime that says what the pod's label `app` is.
    ///
    /// # Errors
    /// As [`Sandbox::connect`].
    pub fn connect_as(self, app: &str) -> Result<Pod<'a>> {
        let mut network: serde_json::Value = serde_json::from_slice(NETWORK)?;
        let labels = serde_json::json!([{ "key": "app", "value": app }]);
        network["args"] = serde_json::json!({ "cni": { "labels": labels } });
        self.connect_with(network.to_string().as_bytes())
    }

    /// As [`Sandbox::connect`], with what a runtime says of the network on standard input.
    fn connect_with(self, network: &[u8]) -> Result<Pod<'a>> {
        let Self {
            node,
            namespace,
            name,
        } = self;
        let output = call_with(node, &namespace, &name, "ADD", network)?;
        ensure!(
            output.success(),
            "CNI ADD: {}{}",
            output.stdout,
            output.stderr
        );
        let answer: serde_json::Value = serde_json::from_str(&output.stdout)
            .with_context(|| format!("CNI ADD answered {}", output.stdout))?;
        let addresses: Vec<IpAddr> = answer["ips"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
            .collect();
        let of = |wanted: fn(&IpAddr) -> bool| {
            let found = addresses.iter().copied().find(wanted);
            found.with_context(|| format!("CNI ADD gave {name} only {addresses:?}"))
        };
        Ok(Pod {
            v4: of(IpAddr::is_ipv4)?,
            v6: of(IpAddr::is_ipv6)?,
            node,
            namespace,
            name,
        })
    }
}

/// A pod: a network namespace in a node, with an interface that the plugin made.
#[derive(Debug)]
pub struct Pod<'a> {
    node: &'a Node,
    namespace: String,
    name: String,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
}

impl<'a> Pod<'a> {
    /// Makes a pod. The daemon serves as soon as it has said so to the plugin: see
    /// [`Pod::plugin_serves`].
    ///
    /// # Errors
    /// When the plugin refuses, or its answer lacks an address of either family.
    pub fn add(node: &'a Node, name: &str) -> Result<Self> {
        Self::add_to(node, NAMESPACE, name)
    }

    /// As [`Pod::add`], in a namespace of the cluster.
    ///
    /// # Errors
    /// As [`Pod::add`].
    pub fn add_to(node: &'a Node, namespace: &str, name: &str) -> Result<Self> {
        Sandbox::new(node, namespace, name)?.connect()
    }

    /// Makes a pod that is not to be: the namespace is there, and ADD is refused. The namespace is
    /// removed again.
    ///
    /// # Errors
    /// When ADD is not refused.
    pub fn refused(node: &'a Node, name: &str) -> Result<String> {
        node.exec_ok(&["ip", "netns", "add", name])?;
        let output = call(node, name, "ADD")?;
        node.exec_ok(&["ip", "netns", "delete", name])?;
        ensure!(!output.success(), "CNI ADD: {}", output.stdout);
        Ok(output.stdout)
    }

    /// Takes back an ADD that failed half-way, as a runtime does: DEL until it succeeds.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn take_back(node: &Node, name: &str) -> Result<()> {
        wait_for("DEL to succeed", CONVERGED, || {
            let output = call(node, name, "DEL")?;
            ensure!(output.success(), "{}{}", output.stdout, output.stderr);
            Ok(())
        })?;
        node.exec_ok(&["ip", "netns", "delete", name]).map(drop)
    }

    /// Succeeds when the daemon would serve an ADD (the plugin's STATUS).
    ///
    /// # Errors
    /// When it would not; the message has the plugin's reason.
    pub fn plugin_serves(node: &Node) -> Result<()> {
        let output = call(node, "status", "STATUS")?;
        ensure!(
            output.success(),
            "CNI STATUS: {}{}",
            output.stdout,
            output.stderr
        );
        Ok(())
    }

    /// The node it is on.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// The name of its namespace and of its container.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes the pod as a runtime does: the interface, then the namespace.
    ///
    /// # Errors
    /// When either fails.
    pub fn remove(self) -> Result<()> {
        let output = call_in(self.node, &self.namespace, &self.name, "DEL")?;
        ensure!(
            output.success(),
            "CNI DEL: {}{}",
            output.stdout,
            output.stderr
        );
        self.vanish()
    }

    /// Removes its namespace without a word to the plugin, as when a machine's runtime dies.
    ///
    /// # Errors
    /// When the namespace cannot be removed.
    pub fn vanish(self) -> Result<()> {
        self.node
            .exec_ok(&["ip", "netns", "delete", &self.name])
            .map(drop)
    }

    /// Runs a command in the pod.
    ///
    /// # Errors
    /// As [`Node::exec_ok`].
    pub fn exec_ok(&self, argv: &[&str]) -> Result<String> {
        self.node.exec_ok(&self.inside(argv))
    }

    /// Starts a command in the pod.
    ///
    /// # Errors
    /// As [`Node::spawn`].
    pub fn spawn(&self, argv: &[&str]) -> Result<Spawned> {
        self.node.spawn(&self.inside(argv))
    }

    /// Runs a closure on a thread of its own in the pod's network namespace: sockets it opens are
    /// the pod's, and stay so wherever they are used.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or as the closure.
    pub fn within<T: Send>(&self, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within(self.node, &self.name, run)
    }

    fn inside<'b>(&'b self, argv: &[&'b str]) -> Vec<&'b str> {
        let mut inside = vec!["ip", "netns", "exec", self.name.as_str()];
        inside.extend(argv);
        inside
    }
}

/// Runs a closure on a thread of its own in a network namespace of a node.
fn within<T: Send>(node: &Node, name: &str, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = node.path(format!("/run/netns/{name}"));
    let namespace = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)
                .context("cannot enter the pod's network namespace (are you root?)")?;
            run()
        });
        let joined = thread.join();
        joined.map_err(|_| anyhow!("the closure run in pod {name} panicked"))?
    })
}

/// Waits until two pods reach each other by both families.
///
/// # Errors
/// When they do not.
pub fn reachable(a: &Pod<'_>, b: &Pod<'_>) -> Result<()> {
    for (from, to) in [(a, b), (b, a)] {
        for target in [to.v4.to_string(), to.v6.to_string()] {
            wait_for(
                &format!("{} to reach {target}", from.name()),
                CONVERGED,
                || from.exec_ok(&["ping", "-c1", "-W1", &target]),
            )?;
        }
    }
    Ok(())
}

/// The host's ends of the pods' devices of a node.
///
/// # Errors
/// When `ip` fails.
pub fn devices(node: &Node) -> Result<Vec<String>> {
    let links = node.exec_json(&["ip", "-j", "link", "show", "type", "veth"])?;
    let links = links.as_array().context("a list of links")?;
    Ok(links
        .iter()
        .filter_map(|link| link["ifname"].as_str())
        .filter(|name| name.starts_with("cw"))
        .map(str::to_owned)
        .collect())
}

/// Calls the plugin with the environment that CNI 1.1 §3 gives it, as a runtime does.
///
/// # Errors
/// When it cannot be run; what it refuses is in the output.
pub fn call(node: &Node, name: &str, verb: &str) -> Result<Output> {
    call_in(node, NAMESPACE, name, verb)
}

fn call_in(node: &Node, namespace: &str, name: &str, verb: &str) -> Result<Output> {
    call_with(node, namespace, name, verb, NETWORK)
}

fn call_with(
    node: &Node,
    namespace: &str,
    name: &str,
    verb: &str,
    network: &[u8],
) -> Result<Output> {
    let command = format!("CNI_COMMAND={verb}");
    let container = format!("CNI_CONTAINERID={name}");
    let netns = format!("CNI_NETNS=/var/run/netns/{name}");
    let args = format!("CNI_ARGS=K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
    let argv = [
        "env",
        &command,
        &container,
        &netns,
        "CNI_IFNAME=eth0",
        &args,
        PLUGIN,
    ];
    node.exec_with_input(&argv, network)
}
