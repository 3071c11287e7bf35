// SPDX-License-Identifier: Apache-2.0
//! What building the eBPF programs needs: a Rust compiler with its library sources, and
//! `bpf-linker`. Both are looked for where the build script of `bpf-loader` looks.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

/// The linker the programs are known to build with; it is built against [`LLVM_PREFIX`].
const LINKER_VERSION: &str = "0.13.0";

/// Where Debian puts the LLVM that the compiler's own version asks for.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// A compiler with its sources, in Debian.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// What `bpf-linker` is built with and against, in Debian.
const LINKER_PACKAGES: [&str; 5] = [
    "g++",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
];

/// Installs what is missing and says each step. What is there already is left as it is, so that
/// running it twice does nothing the second time.
///
/// # Errors
/// When something is missing that cannot be installed here; the message says what to do by hand.
pub(super) fn install(report: &dyn Fn(&str)) -> Result<()> {
    match find_compiler() {
        Some(rustc) => report(&format!(
            "eBPF compiler: {} has its sources",
            rustc.display()
        )),
        None => {
            report("eBPF compiler: none with library sources, installing Debian's");
            install_packages(&COMPILER_PACKAGES, report).context(
                "install an eBPF compiler; by hand: `rustup toolchain install nightly --component rust-src`",
            )?;
            let rustc = find_compiler().context("the packages brought no library sources")?;
            report(&format!("eBPF compiler: {} installed", rustc.display()));
        }
    }
    let linker = cargo_bin()?.join("bpf-linker");
    if linker_version(&linker).is_some_and(|version| version == LINKER_VERSION) {
        report(&format!("bpf-linker: {LINKER_VERSION} is there"));
        return Ok(());
    }
    install_packages(&LINKER_PACKAGES, report).context("install what bpf-linker is built with")?;
    report(&format!(
        "bpf-linker: building {LINKER_VERSION} (takes a minute)"
    ));
    build_linker()?;
    let version = linker_version(&linker).with_context(|| format!("run {}", linker.display()))?;
    ensure!(
        version == LINKER_VERSION,
        "bpf-linker {version} was installed, not {LINKER_VERSION}"
    );
    report(&format!("bpf-linker: {LINKER_VERSION} installed"));
    Ok(())
}

/// The first compiler that has its library sources, in the build script's order.
fn find_compiler() -> Option<PathBuf> {
    let named = env::var_os("CAUSEWAY_BPF_RUSTC").map(PathBuf::from);
    let nightly = answer(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))
        .map(PathBuf::from);
    let distribution = Some(PathBuf::from("/usr/bin/rustc"));
    [named, nightly, distribution]
        .into_iter()
        .flatten()
        .find(|rustc| {
            answer(
                Command::new(rustc)
                    .env_remove("RUSTUP_TOOLCHAIN")
                    .args(["--print", "sysroot"]),
            )
            .is_some_and(|root| {
                Path::new(&root)
                    .join("lib/rustlib/src/rust/library")
                    .exists()
            })
        })
}

fn linker_version(linker: &Path) -> Option<String> {
    let line = answer(Command::new(linker).arg("--version"))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

fn build_linker() -> Result<()> {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let llvm_bin = Path::new(LLVM_PREFIX).join("bin");
    let path = env::join_paths([llvm_bin].into_iter().chain(env::split_paths(&inherited)))?;
    let status = Command::new("cargo")
        .args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--force",
        ])
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("PATH", path)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("run cargo")?;
    ensure!(
        status.success(),
        "cargo install bpf-linker failed: see its messages above"
    );
    Ok(())
}

/// Where `cargo install` puts programs.
fn cargo_bin() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    Ok(home
        .context("neither CARGO_HOME nor HOME is set")?
        .join("bin"))
}

/// Installs the Debian packages among these that are missing.
fn install_packages(packages: &[&str], report: &dyn Fn(&str)) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "this is no Debian: install what Debian calls {}",
            missing.join(", ")
        );
    }
    report(&format!("apt-get install {}", missing.join(" ")));
    // A fresh machine has no package lists, an old one stale ones.
    apt_get(&["update", "-q"])?;
    let install = ["install", "-q", "-y", "--no-install-recommends"];
    apt_get(&install.into_iter().chain(missing).collect::<Vec<_>>())
}

fn is_installed(package: &str) -> bool {
    let format = "-f=${db:Status-Abbrev}";
    answer(Command::new("dpkg-query").args(["-W", format, package]))
        .is_some_and(|status| status.starts_with("ii"))
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = if is_root() {
        Command::new("apt-get")
    } else {
        let mut command = Command::new("sudo");
        command.arg("apt-get");
        command
    };
    let line = format!("apt-get {}", arguments.join(" "));
    let status = command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .with_context(|| format!("run `{line}` as root"))?;
    ensure!(status.success(), "`{line}` failed: see its messages above");
    Ok(())
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

/// First line of what a command prints, if it succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout)
        .ok()?
        .lines()
        .next()
        .map(str::to_owned)
}
