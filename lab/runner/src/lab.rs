// SPDX-License-Identifier: Apache-2.0
//! A lab: bringing it up, finding it again, taking it down.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs as unix_fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;

use crate::{
    holder::{Holder, Plan},
    image::Image,
    link,
    node::Node,
    preflight, rootfs,
    state::{LabDir, LabLock, LabRecord, Lifetime, NodeRecord, lab_names},
    topology::Topology,
    wait::wait_for,
};

/// How long killed nodes may take to vanish.
const DOWN_LIMIT: Duration = Duration::from_secs(30);

/// How a lab is brought up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Added to the topology's name with a dash, so that several copies can run at once.
    pub suffix: Option<String>,
    /// How long the lab lives.
    pub lifetime: Lifetime,
    /// Copies the topology's folder first and binds from the copy, so that a test can change
    /// configuration files without changing the checkout.
    pub private_copy: bool,
    /// Where `causewayd`, `causeway` and `causeway-cni` are; else beside the running program.
    pub programs: Option<PathBuf>,
}

impl Options {
    /// For a person: lives until taken down, files bound where they are.
    pub fn detached() -> Self {
        Self {
            suffix: None,
            lifetime: Lifetime::Detached,
            private_copy: false,
            programs: None,
        }
    }

    /// For a test: a name of its own, a private copy, gone with the process.
    pub fn for_test(suffix: &str) -> Self {
        Self {
            suffix: Some(format!("{suffix}-{}", std::process::id())),
            lifetime: Lifetime::Attached,
            private_copy: true,
            programs: None,
        }
    }
}

/// A running lab. An attached one goes down when this is dropped.
pub struct Lab {
    name: String,
    dir: LabDir,
    record: LabRecord,
    /// Whether dropping this ends the lab: only the handle of its maker does.
    owned: bool,
    nodes: BTreeMap<String, Node>,
    /// Empty in a lab that another process brought up.
    holders: Vec<Holder>,
}

impl Lab {
    /// Brings up the topology in a file, saying each step.
    ///
    /// # Errors
    /// When this machine cannot run it (all reasons at once), the file is wrong, a lab of that
    /// name runs, or a node does not start; what was already up is taken down again.
    pub fn up(file: &Path, options: &Options, mut say: impl FnMut(&str)) -> Result<Self> {
        let mut topology = Topology::read(file)?;
        let programs = match &options.programs {
            Some(dir) => dir.clone(),
            None => preflight::programs_dir()?,
        };
        preflight::check(&topology, &programs)?;
        for note in &topology.notes {
            say(&format!("note: {note}"));
        }
        let rootfs = rootfs::ensure(&mut say)?;
        let name = lab_name(&topology.name, options.suffix.as_deref());
        sweep();
        let dir = LabDir::of(&name);
        let mut lock = dir.lock()?;
        if let Some(before) = dir.read_lab() {
            let alive = dir.read_nodes().values().any(|node| node.init.is_alive());
            ensure!(
                !(alive && before.complete),
                "lab {name} is already up; `cargo xtask lab down {name}` ends it, `--name` starts \
                 a second one beside it"
            );
            say("removing what an interrupted run left");
            remove(&dir, &lock)?;
            lock = dir.lock()?;
        }
        let record = LabRecord {
            topology: topology.file.clone(),
            lifetime: options.lifetime,
            complete: false,
        };
        dir.write_lab(&record)?;
        if options.private_copy {
            let folder = topology.file.parent().unwrap_or(Path::new("/")).to_owned();
            let copy = dir.path.join(".files");
            copy_tree(&folder, &copy)
                .with_context(|| format!("cannot copy {}", folder.display()))?;
            for bind in topology.nodes.values_mut().flat_map(|node| &mut node.binds) {
                if let Ok(inside) = bind.source.strip_prefix(&folder) {
                    bind.source = copy.join(inside);
                }
            }
        }
        let mut lab = Self {
            name,
            dir,
            owned: options.lifetime == Lifetime::Attached,
            record,
            nodes: BTreeMap::new(),
            holders: Vec::new(),
        };
        match lab.bring_up(&topology, &rootfs, &programs, &mut say) {
            Ok(()) => Ok(lab),
            Err(error) => {
                if let Err(second) = lab.take_down(&lock) {
                    say(&format!("and taking the lab down failed: {second:#}"));
                }
                Err(error).with_context(|| format!("lab {} did not come up", lab.name))
            }
        }
    }

    fn bring_up(
        &mut self,
        topology: &Topology,
        rootfs: &Path,
        programs: &Path,
        say: &mut impl FnMut(&str),
    ) -> Result<()> {
        say(&format!(
            "{}: {} nodes, {} links",
            self.name,
            topology.nodes.len(),
            topology.links.len()
        ));
        for (name, config) in &topology.nodes {
            let main = match &config.command {
                Some(command) => Some(Image::custom_process(command)),
                None => config.image().and_then(Image::main_process),
            };
            let plan = Plan {
                node: name,
                config,
                rootfs,
                scratch: &self.dir.path.join(name),
                programs,
                lifetime: self.record.lifetime,
            };
            let holder = Holder::start(&plan, |init| {
                let record = NodeRecord {
                    init,
                    env: config.env.clone(),
                    main: main.clone(),
                };
                self.dir.write_node(name, &record)
            })
            .with_context(|| format!("node {name}"))?;
            let record = NodeRecord {
                init: holder.init,
                env: config.env.clone(),
                main,
            };
            self.nodes
                .insert(name.clone(), Node::new(name, record, &self.dir.path));
            self.holders.push(holder);
        }
        let nodes = || {
            topology
                .nodes
                .iter()
                .filter_map(|(name, config)| Some((config, self.nodes.get(name)?)))
        };
        for (config, node) in nodes() {
            for (key, value) in config
                .sysctls
                .iter()
                .filter(|(key, _)| !names_interface(key))
            {
                node.exec_ok(&["sysctl", "-q", "-w", &format!("{key}={value}")])?;
            }
        }
        link::make(topology, &self.nodes)?;
        for (config, node) in nodes() {
            for (key, value) in config
                .sysctls
                .iter()
                .filter(|(key, _)| names_interface(key))
            {
                node.exec_ok(&["sysctl", "-q", "-w", &format!("{key}={value}")])?;
            }
        }
        for (_, node) in nodes().filter(|(_, node)| node.has_main_process()) {
            say(&format!("starting {}", node.name()));
            node.start()?;
        }
        for (config, node) in nodes() {
            for line in &config.exec {
                let words: Vec<&str> = line.iter().map(String::as_str).collect();
                node.exec_ok(&words)?;
            }
        }
        for node in self.nodes.values().filter(|node| node.has_main_process()) {
            ensure!(
                node.main_process().is_some(),
                "the main process of {} ended; the end of its log:\n{}",
                node.name(),
                node.log_tail()
            );
        }
        self.record.complete = true;
        self.dir.write_lab(&self.record)
    }

    /// Finds a lab that another process brought up.
    ///
    /// # Errors
    /// When no lab of that name is recorded; the message lists those that are.
    pub fn find(name: &str) -> Result<Self> {
        let dir = LabDir::of(name);
        let record = dir.read_lab().ok_or_else(|| {
            let others = lab_names();
            if others.is_empty() {
                anyhow!("no lab `{name}` is up, nor any other; `cargo xtask lab up {name}`")
            } else {
                anyhow!("no lab `{name}` is up; there are: {}", others.join(", "))
            }
        })?;
        let nodes = dir
            .read_nodes()
            .into_iter()
            .map(|(name, record)| (name.clone(), Node::new(&name, record, &dir.path)))
            .collect();
        // Whoever merely looks must not end it.
        let record = LabRecord {
            lifetime: Lifetime::Detached,
            ..record
        };
        Ok(Self {
            name: name.to_owned(),
            dir,
            owned: false,
            record,
            nodes,
            holders: Vec::new(),
        })
    }

    /// The lab's name, suffix included.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it lives.
    pub fn lifetime(&self) -> Lifetime {
        self.record.lifetime
    }

    /// The topology file.
    pub fn topology_file(&self) -> &Path {
        &self.record.topology
    }

    /// Whether bringing it up went through.
    pub fn is_complete(&self) -> bool {
        self.record.complete
    }

    /// The lab's private copy of the topology's folder, if it has one.
    pub fn files(&self) -> Option<PathBuf> {
        let path = self.dir.path.join(".files");
        path.is_dir().then_some(path)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A node by name.
    ///
    /// # Panics
    /// When the topology has no such node: a mistake in the calling test.
    pub fn node(&self, name: &str) -> &Node {
        match self.get(name) {
            Ok(node) => node,
            Err(error) => panic!("{error}"),
        }
    }

    /// A node by a name that a user gave.
    ///
    /// # Errors
    /// When there is no such node; the message lists those there are.
    pub fn get(&self, name: &str) -> Result<&Node> {
        self.nodes.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
            anyhow!(
                "lab {} has no node `{name}`; it has {}",
                self.name,
                names.join(", ")
            )
        })
    }

    /// Takes the lab down and waits until it is gone.
    ///
    /// # Errors
    /// When a node cannot be killed.
    pub fn down(mut self) -> Result<()> {
        let lock = self.dir.lock()?;
        self.take_down(&lock)
    }

    /// Kills the nodes; the caller holds the lock or the lab is its own.
    fn take_down(&mut self, lock: &LabLock) -> Result<()> {
        let result = remove(&self.dir, lock);
        for holder in self.holders.drain(..) {
            holder.reap();
        }
        self.nodes.clear();
        result
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned
            && !self.holders.is_empty()
            && let Err(error) = self.dir.lock().and_then(|lock| self.take_down(&lock))
        {
            eprintln!("lab: cannot take {} down: {error:#}", self.name);
        }
    }
}

/// Takes a lab down by name; one that is not there is down already.
///
/// # Errors
/// When a node cannot be killed.
pub fn down(name: &str) -> Result<bool> {
    let dir = LabDir::of(name);
    if !dir.path.exists() {
        return Ok(false);
    }
    let lock = dir.lock()?;
    remove(&dir, &lock)?;
    Ok(true)
}

/// Names of all labs that are recorded, running or not.
pub fn recorded() -> Vec<String> {
    lab_names()
}

/// The name under which a topology runs.
pub fn lab_name(topology: &str, suffix: Option<&str>) -> String {
    match suffix {
        Some(suffix) => format!("{topology}-{suffix}"),
        None => topology.to_owned(),
    }
}

/// Kills what is recorded and removes the records.
fn remove(dir: &LabDir, lock: &LabLock) -> Result<()> {
    let nodes = dir.read_nodes();
    for node in nodes.values() {
        node.init.signal(Signal::SIGKILL)?;
    }
    for (name, node) in &nodes {
        wait_for(&format!("node {name} to go"), DOWN_LIMIT, || {
            ensure!(!node.init.is_alive(), "pid {} still runs", node.init.pid);
            Ok(())
        })?;
    }
    dir.remove(lock)
}

/// Removes the records of attached labs whose makers are gone, and their nodes with them. A lab
/// whose lock is held is being changed by somebody who will see to it.
fn sweep() {
    for name in lab_names() {
        let dir = LabDir::of(&name);
        let Some(lock) = dir.try_lock() else { continue };
        let attached = dir
            .read_lab()
            .is_some_and(|lab| lab.lifetime == Lifetime::Attached);
        let abandoned = attached && !dir.read_nodes().values().any(|node| node.init.is_alive());
        if abandoned && let Err(error) = dir.remove(&lock) {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Whether a setting belongs to one interface, which exists only once the links do.
fn names_interface(key: &str) -> bool {
    let parts: Vec<&str> = key.split(['.', '/']).collect();
    match parts.as_slice() {
        [
            "net",
            "ipv4" | "ipv6" | "mpls",
            "conf" | "neigh",
            interface,
            ..,
        ] => !matches!(*interface, "all" | "default" | "lo"),
        _ => false,
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            unix_fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Finds a topology by path, or by the name of a folder below `lab/containerlab`.
///
/// # Errors
/// When neither exists; the message lists the topologies there are.
pub fn find_topology(root: &Path, name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let labs = root.join("lab/containerlab");
    let file = labs.join(name).join(format!("{name}.clab.yml"));
    if file.is_file() {
        return Ok(file);
    }
    let mut names: Vec<String> = fs::read_dir(&labs)
        .with_context(|| format!("cannot read {}", labs.display()))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| labs.join(name).join(format!("{name}.clab.yml")).is_file())
        .collect();
    names.sort();
    bail!(
        "no topology `{name}`; there are {} (or give a file)",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_one_interface_wait_for_the_links() {
        assert!(names_interface("net.ipv4.conf.eth1.rp_filter"));
        assert!(names_interface("net/ipv6/conf/eth0.10/accept_ra"));
        assert!(!names_interface("net.ipv4.conf.all.rp_filter"));
        assert!(!names_interface("net.ipv4.ip_forward"));
    }
}
