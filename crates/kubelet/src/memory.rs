//! A directory in memory, for volumes whose files must not reach a disk: Secrets, tokens, `medium: Memory`.
//!
//! Upstream mounts a tmpfs for each of them (pkg/volume/secret, pkg/volume/emptydir), which needs root. Here they share
//! one directory on a tmpfs that every user may write to. It is ours alone (mode 0700), named after the data directory,
//! and goes with the kubelet: its containers end with it. What a killed kubelet leaves is removed by the next one.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use tracing::{info, warn};

/// Where a tmpfs for everybody is on Linux.
const SHARED_MEMORY: &str = "/dev/shm";
/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: i64 = 0x0102_1994;
/// Smaller ones, such as the 64 MiB that containers get, would fill up: then the disk is used.
const BYTES_MIN: u64 = 256 * 1024 * 1024;
const PREFIX: &str = "coracle-";
/// A link to the data directory whose memory it is.
const OWNER: &str = "owner";
/// A link in the data directory to its memory, for people who look for a pod's files.
const LINK: &str = "memory";

/// The directory, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryDirectory {
    path: PathBuf,
    link: PathBuf,
}

impl MemoryDirectory {
    /// Makes it, empty. `None` where there is no memory for it; then the volumes are on disk.
    pub(crate) fn open(data_dir: &Path) -> Option<Self> {
        let base = Path::new(SHARED_MEMORY);
        if !has_room(base) {
            info!("volumes in memory are kept on disk: {SHARED_MEMORY} is no tmpfs of 256 MiB");
            return None;
        }
        match Self::open_in(base, data_dir) {
            Ok(directory) => Some(directory),
            Err(error) => {
                warn!(%error, "volumes in memory are kept on disk");
                None
            }
        }
    }

    fn open_in(base: &Path, data_dir: &Path) -> io::Result<Self> {
        let owner = data_dir.canonicalize()?;
        let identity = fs::metadata(&owner)?;
        remove_abandoned(base, identity.uid());
        let path = base.join(format!("{PREFIX}{:x}-{:x}", identity.dev(), identity.ino()));
        remove_own(&path)?;
        // Fails when somebody else has put something there.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let made = Self { link: owner.join(LINK), path };
        symlink(&owner, made.path.join(OWNER))?;
        made.unlink()?;
        symlink(&made.path, &made.link)?;
        Ok(made)
    }

    /// Where the volumes of pods are.
    pub(crate) fn pods(&self) -> PathBuf {
        self.path.join("pods")
    }

    fn unlink(&self) -> io::Result<()> {
        match fs::remove_file(&self.link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for MemoryDirectory {
    fn drop(&mut self) {
        if let Err(error) = remove_own(&self.path).and_then(|()| self.unlink()) {
            warn!(%error, path = %self.path.display(), "volumes in memory not removed");
        }
    }
}

fn has_room(base: &Path) -> bool {
    rustix::fs::statfs(base).is_ok_and(|found| {
        let bytes = found.f_blocks.saturating_mul(u64::try_from(found.f_bsize).unwrap_or(0));
        found.f_type == TMPFS && bytes >= BYTES_MIN
    })
}

/// Removes a directory of ours; a link or another user's directory stays. It is no error when there is none.
fn remove_own(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("{} is not ours", path.display())));
    }
    fs::remove_dir_all(path)
}

/// Removes what kubelets left whose data directory is gone: nobody else will.
fn remove_abandoned(base: &Path, uid: u32) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX)
            || !entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == uid)
        {
            continue;
        }
        let gone = fs::read_link(entry.path().join(OWNER)).is_ok_and(|owner| !owner.exists());
        if gone && let Err(error) = remove_own(&entry.path()) {
            warn!(%error, "what an ended node left in memory stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_ours_alone_and_goes_with_its_node() {
        let (base, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let memory = MemoryDirectory::open_in(base.path(), data.path()).unwrap();
        let mode = fs::metadata(&memory.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let link = data.path().join(LINK);
        assert_eq!(fs::read_link(&link).unwrap(), memory.path);
        let path = memory.path.clone();
        drop(memory);
        assert!(!path.exists() && !link.is_symlink());
    }

    #[test]
    fn what_a_killed_node_left_is_removed_by_the_next() {
        let (base, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let gone = tempfile::tempdir().unwrap();
        let mut left = Vec::new();
        for data in [&data, &gone] {
            let memory = MemoryDirectory::open_in(base.path(), data.path()).unwrap();
            fs::create_dir_all(memory.pods().join("uid")).unwrap();
            left.push(memory.path.clone());
            std::mem::forget(memory);
        }
        drop(gone);
        let memory = MemoryDirectory::open_in(base.path(), data.path()).unwrap();
        assert_eq!(memory.path, left[0]);
        assert!(!memory.pods().exists());
        assert!(!left[1].exists(), "its data directory is gone");
    }

    #[test]
    fn what_somebody_else_put_there_is_not_used() {
        let (base, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = {
            let memory = MemoryDirectory::open_in(base.path(), data.path()).unwrap();
            memory.path.clone()
        };
        symlink("/etc", &path).unwrap();
        assert!(MemoryDirectory::open_in(base.path(), data.path()).is_err());
        assert!(path.is_symlink());
    }
}
