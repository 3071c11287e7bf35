// SPDX-License-Identifier: Apache-2.0
//! Unix sockets that only their owner may open, from the first moment on.
//!
//! A socket gets its permissions from the umask when it is bound, and others by chmod afterwards: in
//! between somebody may connect. Here it is bound in a folder that nobody else may enter, and moved to
//! its place when it is closed to others.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Binds a socket for the process's own user, in place of whatever file is there.
///
/// # Errors
/// When the folder cannot be written, or the path has no file name.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let name = name.to_string_lossy();
    let nursery = folder.join(format!(".{name}.{}", std::process::id()));
    // Of a process of the same number that was killed here.
    match fs::remove_dir_all(&nursery) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    DirBuilder::new().mode(0o700).create(&nursery)?;
    let made = (|| {
        // Short: the path of a socket has room for 107 octets.
        let unfinished = nursery.join("s");
        let listener = UnixListener::bind(&unfinished)?;
        fs::set_permissions(&unfinished, Permissions::from_mode(0o600))?;
        fs::rename(&unfinished, path)?;
        Ok(listener)
    })();
    if let Err(error) = fs::remove_dir_all(&nursery) {
        tracing::debug!(%error, folder = %nursery.display(), "cannot be removed");
    }
    made
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn nobody_else_may_open_it_at_any_moment() {
        let folder = std::env::temp_dir().join(format!("causeway-private-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("x.sock");
        let is_done = Arc::new(AtomicBool::new(false));
        let watcher = {
            let (path, is_done) = (path.clone(), Arc::clone(&is_done));
            std::thread::spawn(move || {
                let mut seen = 0;
                while !is_done.load(Ordering::Relaxed) {
                    if let Ok(found) = fs::symlink_metadata(&path) {
                        assert_eq!(found.permissions().mode() & 0o777, 0o600);
                        seen += 1;
                    }
                }
                seen
            })
        };
        for _ in 0..200 {
            let listener = bind(&path).unwrap();
            let client = UnixStream::connect(&path).unwrap();
            assert!(listener.accept().is_ok());
            drop(client);
            fs::remove_file(&path).unwrap();
        }
        let listener = bind(&path).unwrap();
        // In place of another one, and nothing else is left there.
        let next = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(next.accept().is_ok());
        drop(listener);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        is_done.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 0, "the watcher saw it");
        fs::remove_dir_all(&folder).unwrap();
    }
}
