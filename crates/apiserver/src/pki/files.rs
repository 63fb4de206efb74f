//! The files of the authority: private, and replaced as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rcgen::KeyPair;

use super::PkiError;

/// Makes the directory, for its owner only.
pub(super) fn ensure_directory(dir: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)))
        .map_err(|source| PkiError::File { path: dir.to_owned(), source })
}

/// The file's text, or None when there is no such file. Takes away what others could read.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                .map_err(|source| PkiError::File { path: path.to_owned(), source })?;
            Ok(Some(text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { path: path.to_owned(), source }),
    }
}

/// Writes the file so that a crash leaves the old or the new text, and nobody else ever can read it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    replace(path, text).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// The ECDSA P-256 key in this file; made when there is no such file.
pub(super) fn key(path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = read(path)? {
        return KeyPair::from_pem(&pem).map_err(|error| PkiError::Damaged {
            path: path.to_owned(),
            cause: error.to_string(),
        });
    }
    let key = KeyPair::generate()
        .map_err(|source| PkiError::Issue { subject: path.display().to_string(), source })?;
    write(path, &key.serialize_pem())?;
    Ok(key)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    // A leftover of a process that had our id and was killed while it wrote.
    match fs::remove_file(&temporary) {
        Ok(()) => (),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The rename itself must be on disk before somebody is told of the new certificate.
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
