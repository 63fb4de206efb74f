//! The node's image store: files only, so that the command line and a running server share it.
//!
//! ```text
//! images/blobs/sha256/HEX   a module or component, named by its digest, never changed
//! images/index.json         which references name which digest
//! images/lock               held while the index is changed
//! ```
//!
//! Blobs and the index are written beside their place and renamed, so a reader never sees half a file.

pub(crate) mod pull;
mod reference;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use coracle_runtime::{Image, ImageError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use reference::ImageName;

/// The largest module taken: larger ones cannot be compiled in sensible time and memory.
const IMAGE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The modules that this node can run without a registry.
#[derive(Debug, Clone)]
pub struct ImageStore {
    root: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
struct Index {
    references: BTreeMap<String, String>,
}

/// A blob on its way into the store; dropped unfinished, it leaves nothing.
pub(crate) struct NewBlob {
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl ImageStore {
    /// Opens `DATA_DIR/images`, and makes it when it is not there.
    pub fn open(data_dir: &Path) -> Result<Self, ImageError> {
        let root = data_dir.join("images");
        let made = fs::create_dir_all(root.join("blobs/sha256"))
            .and_then(|()| fs::create_dir_all(root.join("new")));
        made.map_err(|source| failed(&format!("make {}", root.display()), source))?;
        Ok(Self { root })
    }

    /// Puts a local module into the store under a name, `hello:1.0`. Whether it can be run shows when it is.
    pub fn import(&self, path: &Path, reference: &str) -> Result<Image, ImageError> {
        let name = ImageName::parse(reference)?;
        let attempt = format!("import {} into", path.display());
        let mut source = File::open(path).map_err(|error| failed(&attempt, error))?;
        let mut blob = self.new_blob()?;
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => {
                    blob.write(&chunk[..count]).map_err(|error| failed(&attempt, error))?
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(failed(&attempt, error)),
            }
        }
        self.add(blob, &[name.as_str()])
    }

    /// What a reference names: a name as a pod has it, or a digest `sha256:…`.
    pub fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let index = self.read_index()?;
        if reference.starts_with("sha256:") {
            let known = index.references.values().any(|digest| digest == reference);
            return Ok(known.then(|| self.image(&index, reference)).flatten());
        }
        let name = ImageName::parse(reference)?;
        let Some(digest) = index.references.get(name.as_str()) else {
            return Ok(None);
        };
        Ok(self.image(&index, digest))
    }

    /// Every image, by digest.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let index = self.read_index()?;
        let mut digests: Vec<&String> = index.references.values().collect();
        digests.sort();
        digests.dedup();
        Ok(digests.into_iter().filter_map(|digest| self.image(&index, digest)).collect())
    }

    /// Removes a reference, or by digest every reference of an image; the module goes with the last of them.
    pub fn remove(&self, reference: &str) -> Result<(), ImageError> {
        let name = match reference.starts_with("sha256:") {
            true => None,
            false => Some(ImageName::parse(reference)?),
        };
        self.change_index(|index| {
            index.references.retain(|key, digest| match &name {
                Some(name) => key != name.as_str(),
                None => digest != reference,
            });
        })
    }

    /// Where the module with this digest is.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.root.join("blobs/sha256").join(hex)
    }

    pub(crate) fn new_blob(&self) -> Result<NewBlob, ImageError> {
        let path = self.root.join("new").join(format!("{:032x}", rand::random::<u128>()));
        let file = File::create_new(&path).map_err(|source| failed("write to", source))?;
        Ok(NewBlob { path, file, hash: Sha256::new(), bytes: 0 })
    }

    pub(crate) fn add(&self, blob: NewBlob, names: &[&str]) -> Result<Image, ImageError> {
        let digest = blob.digest();
        let attempt = |source| failed("add a module to", source);
        blob.file.sync_all().map_err(attempt)?;
        // Under the lock, so that a removal of the same content cannot come between.
        self.change_index(|index| {
            for name in names {
                index.references.insert((*name).to_owned(), digest.clone());
            }
            fs::rename(&blob.path, self.blob(&digest))
        })?
        .map_err(attempt)?;
        let index = self.read_index()?;
        self.image(&index, &digest).ok_or_else(|| failed("read", io::ErrorKind::NotFound.into()))
    }

    fn image(&self, index: &Index, digest: &str) -> Option<Image> {
        let size_bytes = fs::metadata(self.blob(digest)).ok()?.len();
        let references = index.references.iter().filter(|(_, named)| *named == digest);
        let references = references.map(|(name, _)| name.clone()).collect();
        Some(Image { references, digest: digest.to_owned(), size_bytes })
    }

    fn read_index(&self) -> Result<Index, ImageError> {
        match fs::read(self.root.join("index.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| failed("read", io::Error::new(io::ErrorKind::InvalidData, error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(failed("read", error)),
        }
    }

    /// Changes the index while no other process does, and deletes the modules that nothing names any more.
    fn change_index<T>(&self, change: impl FnOnce(&mut Index) -> T) -> Result<T, ImageError> {
        let attempt = |source| failed("write to", source);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join("lock"))
            .map_err(attempt)?;
        lock.lock().map_err(attempt)?;
        let mut index = self.read_index()?;
        let before: Vec<String> = index.references.values().cloned().collect();
        let answer = change(&mut index);
        let bytes = serde_json::to_vec_pretty(&index).map_err(|error| attempt(error.into()))?;
        replace_file(&self.root.join("index.json"), &bytes).map_err(attempt)?;
        for digest in before {
            if !index.references.values().any(|named| *named == digest) {
                // A blob that stays costs disk only; the next removal of it tries again.
                let _ = fs::remove_file(self.blob(&digest));
            }
        }
        Ok(answer)
    }
}

impl NewBlob {
    pub(crate) fn digest(&self) -> String {
        format!("sha256:{:x}", self.hash.clone().finalize())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > IMAGE_BYTES_MAX {
            return Err(io::Error::other(format!("it is larger than {IMAGE_BYTES_MAX} bytes")));
        }
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        // After a rename there is nothing at the old path, which is how it should be.
        let _ = fs::remove_file(&self.path);
    }
}

/// Puts a file in place at once and durably, readable by its owner only.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}.new", rand::random::<u64>()));
    let new = PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| fs::rename(&new, path));
    if placed.is_err() {
        let _ = fs::remove_file(&new);
    }
    placed
}

fn failed(attempt: &str, source: io::Error) -> ImageError {
    ImageError::Store { attempt: attempt.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_lives_as_long_as_a_name_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path()).unwrap();
        let file = directory.path().join("hello.wasm");
        fs::write(&file, b"one").unwrap();
        let one = store.import(&file, "hello:1.0").unwrap();
        assert_eq!(one.references, ["docker.io/library/hello:1.0"]);
        assert_eq!(one.size_bytes, 3);
        store.import(&file, "docker.io/library/hello").unwrap();
        assert_eq!(store.find("hello").unwrap().unwrap().digest, one.digest);
        assert_eq!(store.find(&one.digest).unwrap().unwrap().references.len(), 2);

        fs::write(&file, b"two").unwrap();
        let two = store.import(&file, "hello:1.0").unwrap();
        assert_ne!(two.digest, one.digest);
        assert_eq!(store.list().unwrap().len(), 2);

        store.remove("hello").unwrap();
        store.remove("hello").unwrap();
        assert_eq!(store.find("hello:latest").unwrap(), None);
        assert!(!store.blob(&one.digest).exists());
        store.remove(&two.digest).unwrap();
        assert_eq!(store.list().unwrap(), []);
        assert_eq!(fs::read_dir(directory.path().join("images/new")).unwrap().count(), 0);
    }

    #[test]
    fn many_writers_lose_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("m.wasm");
        fs::write(&file, b"m").unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let (directory, file) = (directory.path(), &file);
                scope.spawn(move || {
                    let store = ImageStore::open(directory).unwrap();
                    for number in 0..5 {
                        store.import(file, &format!("m:{writer}-{number}")).unwrap();
                    }
                });
            }
        });
        let store = ImageStore::open(directory.path()).unwrap();
        assert_eq!(store.list().unwrap()[0].references.len(), 40);
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path()).unwrap();
        for name in ["", "Hello", "a b", "x:", ":1", "hello:té"] {
            let error = store.find(name).expect_err(name).to_string();
            assert!(error.starts_with("couldn't parse image name"), "{error}");
        }
    }
}
