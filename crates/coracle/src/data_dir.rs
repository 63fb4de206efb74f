//! The data directory: what lies where, and which loopback networks belong to this cluster.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cli;

/// The second octets that a pair of loopback networks may begin at: even, clear of 127.0 and of the top.
const OCTETS: std::ops::Range<u8> = 16..240;
/// A port that is bound on the pods' network for as long as a cluster runs, so that two clusters never share one.
const CLAIM_PORT: u16 = 10_256;

/// A data directory that exists, for its owner only.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

/// The two loopback networks of a cluster: pods in 127.X.0.0/16, services in 127.(X+1).0.0/16.
#[derive(Debug)]
pub struct Networks {
    octet: u8,
    _claim: TcpListener,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    octet: u8,
}

impl DataDir {
    /// The directory that the user named, or the default one; made when it is not there.
    pub fn open(options: &cli::DataDir) -> Result<Self> {
        let path = match &options.path {
            Some(path) => path.clone(),
            None => default_path()?,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot open the data directory {}", path.display()))?;
        Ok(Self { path })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// A name that no other data directory has, made at the first start. Of the processes that use a directory
    /// only one runs, so one that comes back under this name continues what it was.
    pub fn identity(&self) -> Result<String> {
        let file = self.path.join("identity");
        match fs::read_to_string(&file) {
            Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
            _ => {
                let name = uuid::Uuid::new_v4().to_string();
                Self::write_private(&file, name.as_bytes())?;
                Ok(name)
            }
        }
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.path.join("pki")
    }

    /// How Secrets are encrypted, unless another file is named. A secret.
    pub fn encryption(&self) -> PathBuf {
        self.path.join("encryption.yaml")
    }

    /// The database, unless another is named.
    pub fn database(&self) -> PathBuf {
        self.path.join("state.sqlite")
    }

    /// The kubelet's own: pods' volumes and logs.
    pub fn kubelet(&self) -> PathBuf {
        self.path.join("kubelet")
    }

    /// The Wasm engine's own: images and what is compiled of them.
    pub fn wasm(&self) -> PathBuf {
        self.path.join("wasm")
    }

    /// Writes a file that only its owner may read; readers see the old or the new content, never a part.
    pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
        let partial = path.with_extension("partial");
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&partial)?;
            io::Write::write_all(&mut file, content)?;
            file.sync_all()?;
            fs::rename(&partial, path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Claims this cluster's loopback networks: those it had before, or else a free pair.
    pub fn claim_networks(&self) -> Result<Networks> {
        let file = self.path.join("networks.json");
        if let Ok(text) = fs::read(&file) {
            let remembered: Remembered = serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged", file.display()))?;
            let Some(networks) = Networks::claim(remembered.octet) else {
                bail!(
                    "the network 127.{}.0.0/16 of this cluster is in use: is another coracle \
                     running on {}?",
                    remembered.octet,
                    self.path.display()
                );
            };
            return Ok(networks);
        }
        let start = u32::from(rand::random::<u8>());
        let pairs = u32::from(OCTETS.end - OCTETS.start) / 2;
        for turn in 0..pairs {
            let octet = u32::from(OCTETS.start) + (start + turn) % pairs * 2;
            let octet = u8::try_from(octet).expect("the range ends below 256");
            if let Some(networks) = Networks::claim(octet) {
                let text = serde_json::to_vec(&Remembered { octet })?;
                Self::write_private(&file, &text)?;
                return Ok(networks);
            }
        }
        bail!("every loopback network is in use by another cluster");
    }
}

impl Networks {
    fn claim(octet: u8) -> Option<Self> {
        let address = Ipv4Addr::new(127, octet, 0, 1);
        let claim = TcpListener::bind((address, CLAIM_PORT)).ok()?;
        Some(Self { octet, _claim: claim })
    }

    /// The pods' network, a /16.
    pub fn pods(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.octet, 0, 0)
    }

    /// The services' network, a /16.
    pub fn services(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.octet + 1, 0, 0)
    }
}

fn default_path() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/coracle"));
    }
    let home = std::env::var_os("HOME").context("HOME is not set: name a --data-dir")?;
    Ok(PathBuf::from(home).join(".coracle"))
}
