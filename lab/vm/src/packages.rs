// SPDX-License-Identifier: Apache-2.0
//! Debian packages in the cache, unpacked and never installed.
//!
//! apt runs with a state of its own, in which nothing is installed and only one suite of this
//! machine's mirror is known: the machine's packages, lists and pins are neither used nor changed.
//! As with the lab's root file system a folder is made beside its place and renamed into it, under a
//! lock.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use lab_runner::{lock_file, rootfs};

/// Whose signatures count.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Packages of one suite, while they are being fetched.
pub(crate) struct Fetch {
    /// apt's state.
    state: PathBuf,
    /// Where packages are unpacked.
    target: PathBuf,
}

/// The folder of this name in the cache, filled by `fill` if it is not there.
///
/// # Errors
/// As [`rootfs::mirror`] and `fill`.
pub(crate) fn cached(
    name: &str,
    suite: &str,
    fill: impl FnOnce(&Fetch) -> Result<()>,
) -> Result<PathBuf> {
    let cache = rootfs::cache_dir()?;
    let path = cache.join(name);
    if path.is_dir() {
        return Ok(path);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let _lock = lock_file(&path.with_added_extension("lock"))?;
    if path.is_dir() {
        return Ok(path);
    }
    let mirror = rootfs::mirror()?;
    eprintln!("vm: fetching {name} from {mirror} (once)");
    let building = path.with_added_extension("building");
    remove(&building)?;
    let fetch = Fetch {
        state: building.join("apt"),
        target: building.clone(),
    };
    let made = fetch
        .begin(&mirror, suite)
        .and_then(|()| fill(&fetch))
        .and_then(|()| remove(&fetch.state))
        .and_then(|()| Ok(fs::rename(&building, &path)?))
        .with_context(|| format!("cannot make {}", path.display()));
    if made.is_err()
        && let Err(error) = remove(&building)
    {
        eprintln!("vm: {error:#}");
    }
    made.map(|()| path)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

impl Fetch {
    /// The folder packages are unpacked in.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    fn begin(&self, mirror: &str, suite: &str) -> Result<()> {
        let state = self.state.display();
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.state.join(folder))?;
        }
        fs::write(self.state.join("status"), "")?;
        fs::write(
            self.state.join("sources.list"),
            format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"),
        )?;
        // A mirror may be a snapshot of the past; signatures are still checked.
        let settings = format!(
            "Dir::State \"{state}\";\n\
             Dir::State::Lists \"{state}/lists\";\n\
             Dir::State::status \"{state}/status\";\n\
             Dir::Cache \"{state}/cache\";\n\
             Dir::Etc::SourceList \"{state}/sources.list\";\n\
             Dir::Etc::SourceParts \"/dev/null\";\n\
             Dir::Etc::Preferences \"/dev/null\";\n\
             Dir::Etc::PreferencesParts \"/dev/null\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::Check-Valid-Until \"false\";\n\
             Acquire::Retries \"3\";\n\
             APT::Architecture \"amd64\";\n\
             APT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"root\";\n"
        );
        fs::write(self.state.join("apt.conf"), settings)?;
        self.run(Command::new("apt-get").args(["update", "-q"]))?;
        Ok(())
    }

    /// The packages that this one needs, by name and without versions.
    pub(crate) fn needed_by(&self, package: &str) -> Result<Vec<String>> {
        let shown = self.run(Command::new("apt-cache").args(["show", package]))?;
        let line = shown
            .lines()
            .find_map(|line| line.strip_prefix("Depends:"))
            .with_context(|| format!("apt knows no dependencies of {package}"))?;
        let names = line
            .split(',')
            .filter_map(|one| one.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Fetches packages with all they need, and unpacks them.
    pub(crate) fn with_needs(&self, packages: &[&str]) -> Result<()> {
        self.run(
            Command::new("apt-get")
                .args(["install", "-q", "--yes", "--download-only"])
                .args(packages),
        )?;
        self.unpack(&self.state.join("cache/archives"))
    }

    /// Fetches packages alone, and unpacks them.
    pub(crate) fn alone(&self, packages: &[String]) -> Result<()> {
        let folder = self.state.join("alone");
        fs::create_dir_all(&folder)?;
        self.run(
            Command::new("apt-get")
                .args(["download", "-q"])
                .args(packages)
                .current_dir(&folder),
        )?;
        self.unpack(&folder)
    }

    fn unpack(&self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                self.run(
                    Command::new("dpkg-deb")
                        .arg("-x")
                        .arg(&path)
                        .arg(&self.target),
                )?;
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        output(command.env("APT_CONFIG", self.state.join("apt.conf")))
    }
}

/// What a command prints; an error with the end of what it complained of if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {line}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(15)..];
        bail!("{line} failed ({}):\n{}", output.status, tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
