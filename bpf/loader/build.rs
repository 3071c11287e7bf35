// SPDX-License-Identifier: Apache-2.0
//! Builds `bpf/programs` for the eBPF target and hands the object to `src/load.rs`.
//!
//! The programs need a compiler whose `core` sources are at hand and which accepts unstable
//! flags, while the rest of Causeway builds with stable Rust. So this script looks for such a
//! toolchain beside the one that runs it: the one named by `CAUSEWAY_BPF_RUSTC`, rustup's nightly
//! with the `rust-src` component, or a distribution's rustc with its library sources (on Debian
//! `rustc-web` and `rust-web-src`). `CAUSEWAY_BPF_OBJECTS` names a folder of finished objects
//! instead, for packagers and for machines without any of these.
//!
//! One target folder, `<workspace target>/bpf`, serves every profile: dev, release and clippy
//! share one build of `core`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

/// The one sentence for a machine that lacks the tools.
const NO_TOOLCHAIN: &str = "no eBPF toolchain: run `cargo xtask setup` (needs bpf-linker and a Rust compiler with its library sources: rustup's nightly with rust-src, or Debian's rustc-web with rust-web-src)";

/// The objects, each a file of programs and maps that are loaded together.
const OBJECTS: [&str; 2] = ["causeway", "causeway-gateway"];

const TARGET: &str = "bpfel-unknown-none";

/// Flags of the eBPF build: line information for the verifier's log and bpftool, and 32-bit
/// arithmetic.
const RUSTFLAGS: [&str; 3] = ["-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            println!("cargo::error={sentence}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let programs = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../programs");
    for watched in [
        "src",
        "Cargo.toml",
        "Cargo.lock",
        "../abi/src",
        "../abi/Cargo.toml",
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            programs.join(watched).display()
        );
    }
    println!("cargo::rerun-if-changed=build.rs");
    for watched in [
        "CAUSEWAY_BPF_OBJECTS",
        "CAUSEWAY_BPF_RUSTC",
        "CARGO_HOME",
        "RUSTUP_HOME",
    ] {
        println!("cargo::rerun-if-env-changed={watched}");
    }

    let folder = match env::var_os("CAUSEWAY_BPF_OBJECTS") {
        Some(prebuilt) => PathBuf::from(prebuilt),
        None => compile(&programs, &shared_target_dir(&out_dir))?,
    };
    for name in OBJECTS {
        let object = folder.join(name);
        if env::var_os("CAUSEWAY_BPF_OBJECTS").is_some() {
            println!("cargo::rerun-if-changed={}", object.display());
        }
        fs::copy(&object, out_dir.join(format!("{name}.o"))).map_err(|error| {
            format!("cannot copy the eBPF object {}: {error}", object.display())
        })?;
    }
    Ok(())
}

/// Compiles with the first toolchain that manages to, and returns the folder of the objects; the
/// reason of the last failure otherwise.
fn compile(programs: &Path, target_dir: &Path) -> Result<PathBuf, String> {
    let path = search_path();
    if find_program("bpf-linker", &path).is_none() {
        return Err(NO_TOOLCHAIN.to_owned());
    }
    let mut failure = NO_TOOLCHAIN.to_owned();
    for rustc in candidates() {
        let Some(cargo) = cargo_beside(&rustc) else {
            continue;
        };
        let output = scrubbed(&cargo)
            .current_dir(programs)
            .env("PATH", &path)
            .env("RUSTC", &rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(programs))
            .args([
                "build",
                "--locked",
                "--release",
                "--target",
                TARGET,
                "-Zbuild-std=core",
            ])
            .arg("--target-dir")
            .arg(target_dir)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                return Ok(target_dir.join(TARGET).join("release"));
            }
            Ok(output) => {
                eprintln!("{}", String::from_utf8_lossy(&output.stderr));
                failure = format!(
                    "the eBPF programs do not build with {}: {}",
                    rustc.display(),
                    last_error(&output)
                );
            }
            Err(error) => failure = format!("cannot run {}: {error}", cargo.display()),
        }
    }
    Err(failure)
}

/// The flags as cargo takes them. Source paths in line information are relative to the checkout,
/// so that the object does not depend on where it was built.
fn rustflags(programs: &Path) -> String {
    let checkout = programs.join("../..");
    let checkout = checkout.canonicalize().unwrap_or(checkout);
    let remap = format!("--remap-path-prefix={}=causeway", checkout.display());
    let flags: Vec<&str> = RUSTFLAGS.into_iter().chain([remap.as_str()]).collect();
    flags.join("\x1f")
}

/// Compilers that have their library sources, best first.
fn candidates() -> Vec<PathBuf> {
    let named = env::var_os("CAUSEWAY_BPF_RUSTC").map(PathBuf::from);
    let nightly =
        answer(scrubbed(Path::new("rustup")).args(["which", "--toolchain", "nightly", "rustc"]))
            .map(PathBuf::from);
    let distribution = Some(PathBuf::from("/usr/bin/rustc"));
    [named, nightly, distribution]
        .into_iter()
        .flatten()
        .filter(|c| has_sources(c))
        .collect()
}

fn has_sources(rustc: &Path) -> bool {
    answer(scrubbed(rustc).args(["--print", "sysroot"])).is_some_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library")
            .exists()
    })
}

fn cargo_beside(rustc: &Path) -> Option<PathBuf> {
    let beside = rustc.with_file_name("cargo");
    if beside.exists() {
        return Some(beside);
    }
    let sysroot = answer(scrubbed(rustc).args(["--print", "sysroot"]))?;
    Some(Path::new(&sysroot).join("bin/cargo")).filter(|cargo| cargo.exists())
}

/// A command that inherits nothing of the cargo and the toolchain around this script.
fn scrubbed(program: &Path) -> Command {
    const KEPT: [&str; 2] = ["CARGO_HOME", "RUSTUP_HOME"];
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let inherited = text.starts_with("CARGO")
            || text.starts_with("RUST")
            || [
                "TARGET",
                "HOST",
                "OUT_DIR",
                "PROFILE",
                "OPT_LEVEL",
                "DEBUG",
                "NUM_JOBS",
            ]
            .contains(&text);
        if inherited && !KEPT.contains(&text) {
            command.env_remove(&name);
        }
    }
    command
}

/// First line of what a command prints, if it succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}

/// The line of a failed build that says most.
fn last_error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find(|line| line.starts_with("error"))
        .unwrap_or("it failed without a message")
        .to_owned()
}

/// `PATH`, with the folder `cargo install` uses in front: it need not be in a packager's `PATH`.
fn search_path() -> std::ffi::OsString {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let inherited = env::var_os("PATH").unwrap_or_default();
    let folders = cargo_home.map(|home| home.join("bin")).into_iter();
    env::join_paths(folders.chain(env::split_paths(&inherited))).unwrap_or(inherited)
}

fn find_program(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// `<workspace target>/bpf`. Cargo marks the root of a target folder with `CACHEDIR.TAG`.
fn shared_target_dir(out_dir: &Path) -> PathBuf {
    out_dir
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .unwrap_or(out_dir)
        .join("bpf")
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: this script is run by cargo"))
}
