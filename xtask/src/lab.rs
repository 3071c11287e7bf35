// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask lab`: topologies on this machine.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use lab_runner::{Lab, Lifetime, Node, Options, Signal, Topology, find_topology};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring a topology up: a folder of lab/containerlab, or a *.clab.yml file.
    Up {
        topology: String,
        /// Added to the lab's name, to run a second copy beside the first.
        #[arg(long)]
        name: Option<String>,
        /// Do not build our own programs first.
        #[arg(long)]
        no_build: bool,
    },
    /// Take a lab down, whatever state it is in.
    Down { lab: String },
    /// Run a command in a node: `lab exec fabric tor1 vtysh`.
    Exec {
        lab: String,
        node: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Show one lab, or all.
    Status { lab: Option<String> },
    /// Kill a node's main process (SIGKILL) and start it again.
    Restart { lab: String, node: String },
    /// Kill a node's main process (SIGKILL) and leave it dead.
    Kill { lab: String, node: String },
    /// Start a node's main process.
    Start { lab: String, node: String },
    /// Show the end of a node's log.
    Log { lab: String, node: String },
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.verb {
        Verb::Up {
            topology,
            name,
            no_build,
        } => up(topology, name.as_deref(), *no_build)?,
        Verb::Down { lab } => {
            if lab_runner::down(lab)? {
                println!("lab {lab} is down");
            } else {
                println!("lab {lab} was not up");
            }
        }
        Verb::Exec { lab, node, command } => return exec(Lab::find(lab)?.get(node)?, command),
        Verb::Status { lab: Some(lab) } => status(&Lab::find(lab)?)?,
        Verb::Status { lab: None } => {
            let names = lab_runner::recorded();
            if names.is_empty() {
                println!("no lab is up; `cargo xtask lab up fabric` brings one up");
            }
            for name in names {
                status(&Lab::find(&name)?)?;
            }
        }
        Verb::Restart { lab, node } => {
            let lab = Lab::find(lab)?;
            let node = lab.get(node)?;
            if node.main_process().is_some() {
                node.kill(Signal::SIGKILL)?;
            }
            node.start()?;
        }
        Verb::Kill { lab, node } => Lab::find(lab)?.get(node)?.kill(Signal::SIGKILL)?,
        Verb::Start { lab, node } => Lab::find(lab)?.get(node)?.start()?,
        Verb::Log { lab, node } => println!("{}", Lab::find(lab)?.get(node)?.log_tail()),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(topology: &str, suffix: Option<&str>, no_build: bool) -> Result<()> {
    let root = crate::root()?;
    let file = find_topology(&root, topology)?;
    let parsed = Topology::read(&file)?;
    let needs_ours = parsed
        .nodes
        .values()
        .filter_map(|node| node.image())
        .any(|image| !image.own_programs().is_empty());
    if needs_ours && !no_build {
        build(&root)?;
    }
    let mut options = Options::detached();
    options.suffix = suffix.map(str::to_owned);
    let lab = Lab::up(&file, &options, |step| println!("{step}"))?;
    status(&lab)?;
    println!(
        "next: cargo xtask lab exec {0} <node> <command>; cargo xtask lab down {0}",
        lab.name()
    );
    Ok(())
}

/// Builds the programs that our nodes run, with the build this xtask belongs to.
fn build(root: &Path) -> Result<()> {
    println!("building causewayd, causeway and causeway-cni");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root)
        .args(["build", "--bins", "--workspace", "--exclude", "xtask"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(
        status.success(),
        "the build failed; --no-build uses what is built already"
    );
    Ok(())
}

/// Runs the command with this terminal; its exit status becomes ours.
fn exec(node: &Node, command: &[String]) -> Result<ExitCode> {
    let argv: Vec<&str> = command.iter().map(String::as_str).collect();
    let status = node
        .command(&argv)?
        .status()
        .context("cannot run nsenter")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Shows the lab's table. A reader that has seen enough (`| head`) is no error.
fn status(lab: &Lab) -> Result<()> {
    match std::io::stdout().write_all(table(lab).as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn table(lab: &Lab) -> String {
    let state = match (lab.is_complete(), lab.nodes().all(Node::is_alive)) {
        (true, true) => "up",
        (true, false) => "nodes are missing",
        (false, _) => "incomplete (starting, or interrupted)",
    };
    let lifetime = match lab.lifetime() {
        Lifetime::Detached => "",
        Lifetime::Attached => ", ends with the process that made it",
    };
    let mut text = format!(
        "lab {}: {state}{lifetime} ({})\n",
        lab.name(),
        lab.topology_file().display()
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {:<12} {:>8}  MAIN PROCESS", "NODE", "PID");
    for node in lab.nodes() {
        let main = match (
            node.is_alive(),
            node.has_main_process(),
            node.main_process(),
        ) {
            (false, _, _) => "node is gone".to_owned(),
            (true, false, _) => "-".to_owned(),
            (true, true, None) => format!(
                "not running; cargo xtask lab log {} {}",
                lab.name(),
                node.name()
            ),
            (true, true, Some(process)) => format!("running, pid {}", process.pid),
        };
        let _ = writeln!(text, "  {:<12} {:>8}  {main}", node.name(), node.pid());
    }
    text
}
