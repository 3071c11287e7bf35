// SPDX-License-Identifier: Apache-2.0
//! Network namespaces: handles on them, and code run inside them.
//!
//! A thread's namespace is switched with `setns(2)`. Doing that to a thread of an async runtime
//! would take unrelated tasks along, so everything here happens on threads made for the purpose
//! that end with the closure. Sockets opened inside stay in that namespace for good.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Problem};

/// Where named namespaces are, as `ip netns` keeps them.
const NAMED: &str = "/run/netns";

/// A handle on a network namespace. The namespace lives at least as long as the handle.
#[derive(Debug)]
pub struct Netns {
    file: File,
    name: String,
}

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, Error> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace at a path: a bind mount, or `/proc/<pid>/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let action = || format!("open network namespace {}", path.display());
        let file = File::open(path).map_err(|e| Error::new(action(), e.into()))?;
        // procfs and bind mounts of it answer this; an ordinary file does not.
        let magic = nix::sys::statfs::fstatfs(&file)
            .map_err(|e| Error::new(action(), io::Error::from(e).into()))?
            .filesystem_type();
        if magic != nix::sys::statfs::NSFS_MAGIC {
            return Err(Error::new(
                action(),
                Problem::Invalid("it is not a namespace; was its bind mount removed?"),
            ));
        }
        Ok(Netns {
            file,
            name: path.display().to_string(),
        })
    }

    /// The namespace of a process.
    pub fn of_pid(pid: u32) -> Result<Self, Error> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The namespace `ip netns` knows by a name.
    pub fn named(name: &str) -> Result<Self, Error> {
        Self::open(named_path(name)?)
    }

    /// Makes a namespace that nothing but the handle holds.
    pub fn anonymous() -> Result<Self, Error> {
        let action = "make a network namespace";
        on_own_thread(action, || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::new(action, io::Error::from(e).into()))?;
            Self::current()
        })?
    }

    /// Makes a namespace and mounts it under `/run/netns`, where `ip netns` sees it too. It lives
    /// until [`Netns::delete_named`].
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] when the name is taken.
    pub fn create_named(name: &str) -> Result<Self, Error> {
        let path = named_path(name)?;
        let action = format!("make network namespace {name}");
        let system = |e: io::Error| Error::new(action.clone(), e.into());
        fs::create_dir_all(NAMED).map_err(system)?;
        File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(system)?;
        let mounted = on_own_thread(&action, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
        })?;
        if let Err(errno) = mounted {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an empty mount point is left over");
            }
            return Err(system(errno.into()));
        }
        Self::open(path)
    }

    /// Unmounts a named namespace. It ends once no process, socket or handle uses it.
    pub fn delete_named(name: &str) -> Result<(), Error> {
        let path = named_path(name)?;
        let system =
            |e: io::Error| Error::new(format!("delete network namespace {name}"), e.into());
        match umount2(&path, MntFlags::MNT_DETACH) {
            // EINVAL: a leftover file that is no mount point
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(errno) => return Err(system(errno.into())),
        }
        fs::remove_file(&path).map_err(system)
    }

    /// The path or name it was opened by, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells namespaces apart: the inode of the namespace file.
    pub fn id(&self) -> Result<u64, Error> {
        let metadata = self.file.metadata().map_err(|e| {
            Error::new(
                format!("identify network namespace {}", self.name),
                e.into(),
            )
        })?;
        Ok(metadata.ino())
    }

    /// Runs a closure inside the namespace, on a thread of its own, and waits for it. A panic of
    /// the closure goes on in the caller.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered: that takes `CAP_SYS_ADMIN` (`setns(2)`).
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let action = format!("enter network namespace {}", self.name);
        on_own_thread(&action, || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::new(action.clone(), io::Error::from(e).into()))?;
            Ok(f())
        })?
    }

    /// A second handle on the same namespace.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let file = self.file.try_clone().map_err(|e| {
            Error::new(
                format!("duplicate the handle on namespace {}", self.name),
                e.into(),
            )
        })?;
        Ok(Netns {
            file,
            name: self.name.clone(),
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn named_path(name: &str) -> Result<PathBuf, Error> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(Error::new(
            format!("use network namespace \"{name}\""),
            Problem::Invalid("a name has at least one character and no slash"),
        ));
    }
    Ok(Path::new(NAMED).join(name))
}

fn on_own_thread<T: Send>(action: &str, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)
            .map_err(|e| Error::new(action, e.into()))?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}
