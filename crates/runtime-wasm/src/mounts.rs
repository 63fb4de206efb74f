//! A container's volumes as WASI has them: open directories.
//!
//! WASI knows no mounted files. A file (a `subPath`, `/dev/termination-log`) is linked into a directory of the
//! container's own, and that directory is opened at the file's parent: its real neighbours stay out of sight.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use coracle_runtime::Mount;

use crate::guest::Preopen;

/// The directories to open for these mounts. Links to files are made below `scratch`.
pub(crate) fn preopens(
    mounts: &[Mount],
    working_dir: Option<&str>,
    scratch: &Path,
) -> io::Result<Vec<Preopen>> {
    let mut opened = Vec::new();
    let mut files: BTreeMap<&Path, Vec<&Mount>> = BTreeMap::new();
    for mount in mounts {
        let metadata = fs::metadata(&mount.host_path).map_err(|error| about(mount, &error))?;
        let guest = Path::new(&mount.container_path);
        match guest.parent() {
            Some(parent) if !metadata.is_dir() => files.entry(parent).or_default().push(mount),
            _ => opened.push(Preopen {
                host: mount.host_path.clone(),
                guest: mount.container_path.clone(),
                read_only: mount.read_only,
            }),
        }
    }
    for (number, (parent, mounts)) in files.into_iter().enumerate() {
        let directory = scratch.join(number.to_string());
        fs::create_dir_all(&directory)?;
        for mount in &mounts {
            link(mount, &directory).map_err(|error| about(mount, &error))?;
        }
        opened.push(Preopen {
            host: directory,
            guest: parent.to_string_lossy().into_owned(),
            read_only: mounts.iter().all(|mount| mount.read_only),
        });
    }
    if let Some(preopen) = working_dir.and_then(|directory| relative_root(directory, &opened)) {
        opened.push(preopen);
    }
    Ok(opened)
}

/// A hard link shares what is written; across file systems a copy has to do.
fn link(mount: &Mount, directory: &Path) -> io::Result<()> {
    let name = Path::new(&mount.container_path).file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let target = directory.join(name);
    let source = fs::canonicalize(&mount.host_path)?;
    if target.exists() {
        fs::remove_file(&target)?;
    }
    match fs::hard_link(&source, &target) {
        Ok(()) => Ok(()),
        Err(_) => fs::copy(&source, &target).map(drop),
    }
}

/// Relative paths of a guest are looked up in a directory opened as ".": the working directory, if a volume has it.
fn relative_root(working_dir: &str, opened: &[Preopen]) -> Option<Preopen> {
    let (rest, volume) = opened
        .iter()
        .filter_map(|preopen| {
            Some((Path::new(working_dir).strip_prefix(&preopen.guest).ok()?, preopen))
        })
        .min_by_key(|(rest, _)| rest.components().count())?;
    let inside = rest.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let host: PathBuf = volume.host.join(rest);
    (inside && host.is_dir()).then(|| Preopen {
        host,
        guest: ".".to_owned(),
        read_only: volume.read_only,
    })
}

fn about(mount: &Mount, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot mount {} at {}: {error}", mount.host_path.display(), mount.container_path),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_file_is_seen_without_its_neighbours() {
        let host = tempfile::tempdir().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        for name in ["config", "secret"] {
            fs::write(host.path().join(name), name).unwrap();
        }
        fs::create_dir(host.path().join("data")).unwrap();
        let mount = |host: PathBuf, guest: &str| Mount {
            host_path: host,
            container_path: guest.to_owned(),
            read_only: true,
        };
        let mounts = [
            mount(host.path().join("config"), "/etc/app/config"),
            mount(host.path().join("data"), "/data"),
        ];
        let opened = preopens(&mounts, Some("/data"), scratch.path()).unwrap();
        let guests: Vec<&str> = opened.iter().map(|preopen| preopen.guest.as_str()).collect();
        assert_eq!(guests, ["/data", "/etc/app", "."]);
        let names: Vec<_> =
            fs::read_dir(&opened[1].host).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["config"]);
        assert_eq!(opened[2].host, host.path().join("data"));
    }

    #[test]
    fn a_mount_that_is_not_there_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let mount = Mount {
            host_path: "/nonexistent".into(),
            container_path: "/x".into(),
            read_only: true,
        };
        let error = preopens(&[mount], None, scratch.path()).unwrap_err();
        assert!(error.to_string().starts_with("cannot mount /nonexistent at /x"), "{error}");
    }
}
