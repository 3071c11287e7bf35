// SPDX-License-Identifier: Apache-2.0
//! The daemon's end of the socket.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::Stream;
use tonic::transport::server::Router;

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon answers there.
    #[error("another process listens on {}: stop it, or choose another socket", .0.display())]
    InUse(PathBuf),
    /// Something that is not a socket lies there, and is not ours to remove.
    #[error("{} exists and is no socket: remove it, or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The kernel refused a step.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Who may open the socket besides root and the daemon's own user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits of the socket; 0660 unless there is a reason.
    pub mode: u32,
    /// The group that owns the socket and whose members may call. `None`: nobody else.
    pub group: Option<u32>,
}

impl Default for Access {
    fn default() -> Access {
        Access {
            mode: 0o660,
            group: None,
        }
    }
}

/// A bound socket: a stream of connections whose callers are allowed.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    access: Access,
}

/// Serves until `shutdown` is ready, then lets running calls finish and removes the socket.
///
/// # Errors
///
/// [`ListenError`] when the socket cannot be made.
pub async fn serve_unix(
    router: Router,
    path: impl AsRef<Path>,
    access: Access,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ListenError> {
    let path = path.as_ref();
    let listener = Listener::bind(path, access)?;
    let served = router
        .serve_with_incoming_shutdown(listener, shutdown)
        .await;
    served.map_err(|e| ListenError::Io {
        step: "serve",
        path: path.to_owned(),
        source: io::Error::other(e),
    })
}

impl Listener {
    /// Makes the socket and its folder, in the place of one nobody listens on any more.
    ///
    /// The socket appears under its name with its final owner and permissions: it is made in a
    /// folder that nobody else may enter and moved. Made in its place, or under another name beside
    /// it, it would have the permissions of the umask for a moment.
    ///
    /// # Errors
    ///
    /// [`ListenError`]; nothing is left behind then.
    pub fn bind(path: &Path, access: Access) -> Result<Listener, ListenError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| ListenError::Io { step, path, source }
        };
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed("make the folder", folder))?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NotASocket(path.to_owned()));
            }
            Ok(_) if StdUnixStream::connect(path).is_ok() => {
                return Err(ListenError::InUse(path.to_owned()));
            }
            _ => {}
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let nursery = path.with_file_name(format!(".{name}.{}", std::process::id()));
        // Of a process of the same number that was killed here.
        match fs::remove_dir_all(&nursery) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &nursery)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let mut private = fs::DirBuilder::new();
        let private = private.mode(0o700).create(&nursery);
        private.map_err(failed("make the folder", &nursery))?;
        let made = (|| {
            // Short: the path of a socket has room for 107 octets.
            let unfinished = nursery.join("s");
            let listener = UnixListener::bind(&unfinished).map_err(failed("bind", path))?;
            if let Some(group) = access.group {
                std::os::unix::fs::chown(&unfinished, None, Some(group))
                    .map_err(failed("set the group of", path))?;
            }
            fs::set_permissions(&unfinished, fs::Permissions::from_mode(access.mode))
                .map_err(failed("set the permissions of", path))?;
            fs::rename(&unfinished, path).map_err(failed("put in place", path))?;
            Ok(listener)
        })();
        // What is left of it is empty, and nobody else's.
        let _ = fs::remove_dir_all(&nursery);
        Ok(Listener {
            listener: made?,
            path: path.to_owned(),
            access,
        })
    }

    fn allows(&self, stream: &UnixStream) -> bool {
        let Ok(caller) = stream.peer_cred() else {
            return false;
        };
        if caller.uid() == 0 || caller.uid() == own_uid() {
            return true;
        }
        let Some(group) = self.access.group else {
            return false;
        };
        caller.gid() == group
            || supplementary_groups(stream).is_ok_and(|groups| groups.contains(&group))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Stream for Listener {
    type Item = io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (stream, _) = ready!(self.listener.poll_accept(cx))?;
            if self.allows(&stream) {
                return Poll::Ready(Some(Ok(stream)));
            }
            // Closed without a word: the kernel's permissions should have refused it already.
        }
    }
}

/// The user the daemon runs as.
fn own_uid() -> u32 {
    // SAFETY: takes nothing, returns a number and cannot fail (geteuid(2)).
    unsafe { libc::geteuid() }
}

/// The groups of the caller besides its own one (`SO_PEERGROUPS`, Linux 4.13): a login that is in
/// the group by `/etc/group` has it only there.
fn supplementary_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    // The kernel's limit (NGROUPS_MAX) is 65536; a caller in more groups than fit here is refused.
    let mut groups = vec![0_u32; 1024];
    let mut octets = (groups.len() * size_of::<u32>()) as libc::socklen_t;
    // SAFETY: the buffer has `octets` bytes, lives over the call, and any bits are valid u32s.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &mut octets,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(octets as usize / size_of::<u32>());
    Ok(groups)
}

#[cfg(test)]
mod tests;
