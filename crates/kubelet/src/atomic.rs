//! Writes a volume of files so that a reader sees the old set or the new one, never a mixture.
//!
//! The layout is upstream's (pkg/volume/util/atomic_writer.go): the files are in a directory of their own,
//! `..data` is a link to it, and each name of the volume is a link through `..data`. Renaming `..data` switches all at
//! once. All links are relative and stay inside the volume, so that a guest with only this directory can follow them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use jiff::Timestamp;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
    /// Who may do what with it.
    pub(crate) mode: u32,
}

/// The files of a volume by their path in it.
pub(crate) type Files = BTreeMap<String, File>;

/// Makes the volume at `directory` hold exactly `files`. Writes nothing when it does already.
pub(crate) fn write(directory: &Path, files: &Files, now: Timestamp) -> io::Result<()> {
    for path in files.keys() {
        check(path)?;
    }
    let current = fs::read_link(directory.join(DATA)).ok();
    if let Some(current) = &current
        && same(&directory.join(current), files)?
    {
        return Ok(());
    }
    let name = format!("..{}", now.strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let fresh = directory.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        write_file(&fresh.join(path), file)?;
    }
    let link = directory.join(NEW_DATA);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => (),
    }
    symlink(&name, &link)?;
    fs::rename(&link, directory.join(DATA))?;
    show(directory, files)?;
    if let Some(current) = current {
        fs::remove_dir_all(directory.join(current))?;
    }
    Ok(())
}

/// Refuses paths that would leave the volume or hide its machinery.
fn check(path: &str) -> io::Result<()> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.starts_with("..")
        || path.split('/').any(|part| part == "..");
    if bad {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {path:?}")));
    }
    Ok(())
}

fn write_file(path: &Path, file: &File) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, &file.bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(file.mode))
}

/// Makes a link for the first part of each path, and removes the links that name nothing any more.
fn show(directory: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        match symlink(Path::new(DATA).join(name), directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => (),
        }
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !wanted.contains(name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn same(directory: &Path, files: &Files) -> io::Result<bool> {
    let mut there = BTreeSet::new();
    collect(directory, "", &mut there)?;
    if there.len() != files.len() {
        return Ok(false);
    }
    for (path, file) in files {
        let full = directory.join(path);
        if !there.contains(path) || fs::read(&full)? != file.bytes {
            return Ok(false);
        }
        if fs::metadata(&full)?.permissions().mode() & 0o7777 != file.mode {
            return Ok(false);
        }
    }
    Ok(true)
}

fn collect(directory: &Path, prefix: &str, into: &mut BTreeSet<String>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), into)?;
        } else {
            into.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o644 };
        list.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn a_volume_changes_all_at_once() {
        let volume = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_to_string(volume.path().join(path)).ok();
        write(volume.path(), &files(&[("a", "1"), ("dir/b", "2")]), at(0)).unwrap();
        assert_eq!((read("a"), read("dir/b")), (Some("1".into()), Some("2".into())));
        assert_eq!(fs::read_link(volume.path().join("a")).unwrap(), Path::new("..data/a"));
        let first = fs::read_link(volume.path().join(DATA)).unwrap();

        write(volume.path(), &files(&[("a", "1"), ("dir/b", "2")]), at(1)).unwrap();
        assert_eq!(fs::read_link(volume.path().join(DATA)).unwrap(), first, "nothing changed");

        write(volume.path(), &files(&[("a", "3"), ("c", "4")]), at(2)).unwrap();
        assert_eq!(
            (read("a"), read("c"), read("dir/b")),
            (Some("3".into()), Some("4".into()), None)
        );
        assert!(!volume.path().join(&first).exists(), "the old files are gone");
        assert!(fs::symlink_metadata(volume.path().join("dir")).is_err(), "the old name is gone");

        write(volume.path(), &Files::new(), at(3)).unwrap();
        assert_eq!(read("a"), None);
    }

    #[test]
    fn a_mode_is_kept_and_a_changed_one_is_written() {
        let volume = tempfile::tempdir().unwrap();
        let mut set = files(&[("key", "secret")]);
        write(volume.path(), &set, at(0)).unwrap();
        set.get_mut("key").unwrap().mode = 0o400;
        write(volume.path(), &set, at(1)).unwrap();
        let mode = fs::metadata(volume.path().join("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
    }

    #[test]
    fn a_path_never_leaves_the_volume() {
        let volume = tempfile::tempdir().unwrap();
        for path in ["", "/etc/passwd", "../x", "a/../../x", "..data"] {
            assert!(write(volume.path(), &files(&[(path, "x")]), at(0)).is_err(), "{path}");
        }
    }
}
