//! A pod's volumes: what their files are (pure), and how they come onto the disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_runtime::Mount;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret,
    ServiceAccountTokenProjection, Volume,
};

use crate::atomic::{self, File, Files};
use crate::env::expand_all;
use crate::fields::{self, Surroundings};
use crate::sources::Objects;

/// Upstream's mode for files that name none.
const DEFAULT_MODE: u32 = 0o644;

/// The tokens that a pod's projected volumes hold, by what they were asked for.
pub(crate) type Tokens = BTreeMap<TokenRequest, String>;

/// What a token is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenRequest {
    /// For whom; empty for the API server.
    pub(crate) audience: String,
    /// For how long.
    pub(crate) seconds: i64,
}

impl TokenRequest {
    /// What a projection asks for; an hour when it does not say.
    pub(crate) fn of(projection: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: projection.audience.clone().unwrap_or_default(),
            seconds: projection.expiration_seconds.unwrap_or(3600),
        }
    }
}

/// Every token that the pod's volumes need.
pub(crate) fn token_requests(pod: &Pod) -> Vec<TokenRequest> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|p| p.sources.iter().flatten());
    let mut requests: Vec<_> = sources
        .filter_map(|source| source.service_account_token.as_ref())
        .map(TokenRequest::of)
        .collect();
    requests.sort();
    requests.dedup();
    requests
}

/// All that the files of a pod's volumes are made from.
pub(crate) struct Ingredients<'a> {
    /// Whose volumes they are.
    pub(crate) pod: &'a Pod,
    /// What the pod may learn about itself.
    pub(crate) around: &'a Surroundings,
    /// What it refers to.
    pub(crate) objects: &'a Objects,
    /// Its tokens.
    pub(crate) tokens: &'a Tokens,
    /// The paths of its claims, by the volume's name.
    pub(crate) claims: &'a BTreeMap<String, PathBuf>,
}

/// Where a volume's files are. As upstream, ConfigMaps are on disk and what may hold secrets is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    Disk,
    Memory,
}

/// One volume that is ready to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// An empty directory of the pod's own.
    Empty {
        /// Its mode.
        mode: u32,
        /// In memory, or on disk.
        medium: Medium,
    },
    /// Files that we write and keep current.
    Written {
        /// Upstream's name of the plugin, part of the path.
        plugin: &'static str,
        /// In memory, or on disk.
        medium: Medium,
        /// What is in it.
        files: Files,
    },
    /// A path of the host.
    Host {
        /// Which.
        path: PathBuf,
        /// What must be there, in the words of `hostPath.type`.
        kind: String,
    },
}

/// What this volume should be, or why it cannot be made.
pub(crate) fn wanted(volume: &Volume, from: &Ingredients<'_>) -> Result<Wanted, String> {
    if let Some(empty) = &volume.empty_dir {
        // A size limit would need a quota, and that root.
        let medium = match empty.medium.as_deref() {
            Some("Memory") => Medium::Memory,
            Some(_) | None => Medium::Disk,
        };
        return Ok(Wanted::Empty { mode: empty.mode.map_or(0o777, mode_bits), medium });
    }
    if let Some(source) = &volume.config_map {
        let default = source.default_mode.map_or(DEFAULT_MODE, mode_bits);
        let optional = source.optional.unwrap_or(false);
        let mut files = Files::new();
        if let Some(map) = from.objects.config_map(&source.name, optional)? {
            add_items(
                &mut files,
                &config_map_keys(map),
                source.items.as_deref(),
                default,
                optional,
                "configmap",
            )?;
        }
        return Ok(Wanted::Written { plugin: "configmap", medium: Medium::Disk, files });
    }
    if let Some(source) = &volume.secret {
        let default = source.default_mode.map_or(DEFAULT_MODE, mode_bits);
        let optional = source.optional.unwrap_or(false);
        let mut files = Files::new();
        if let Some(secret) =
            from.objects.secret(source.secret_name.as_deref().unwrap_or_default(), optional)?
        {
            add_items(
                &mut files,
                &secret_keys(secret),
                source.items.as_deref(),
                default,
                optional,
                "secret",
            )?;
        }
        return Ok(Wanted::Written { plugin: "secret", medium: Medium::Memory, files });
    }
    if let Some(source) = &volume.downward_api {
        let default = source.default_mode.map_or(DEFAULT_MODE, mode_bits);
        let mut files = Files::new();
        for item in source.items.iter().flatten() {
            add_downward(&mut files, item, default, from)?;
        }
        return Ok(Wanted::Written { plugin: "downward-api", medium: Medium::Memory, files });
    }
    if let Some(source) = &volume.projected {
        let files = projected(source, from)?;
        return Ok(Wanted::Written { plugin: "projected", medium: Medium::Memory, files });
    }
    if let Some(source) = &volume.host_path {
        let kind = source.type_.clone().unwrap_or_default();
        return Ok(Wanted::Host { path: PathBuf::from(&source.path), kind });
    }
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        let path = from
            .claims
            .get(&volume.name)
            .cloned()
            .ok_or("the claim is not bound to a volume of this node")?;
        return Ok(Wanted::Host { path, kind: "Directory".to_owned() });
    }
    Err("no volume plugin matched: this node offers emptyDir, configMap, secret, downwardAPI, projected, hostPath and \
         claims on local volumes"
        .to_owned())
}

fn projected(source: &ProjectedVolumeSource, from: &Ingredients<'_>) -> Result<Files, String> {
    let default = source.default_mode.map_or(DEFAULT_MODE, mode_bits);
    let mut files = Files::new();
    for source in source.sources.iter().flatten() {
        if let Some(source) = &source.config_map {
            let optional = source.optional.unwrap_or(false);
            if let Some(map) = from.objects.config_map(&source.name, optional)? {
                add_items(
                    &mut files,
                    &config_map_keys(map),
                    source.items.as_deref(),
                    default,
                    optional,
                    "configmap",
                )?;
            }
        } else if let Some(source) = &source.secret {
            let optional = source.optional.unwrap_or(false);
            if let Some(secret) = from.objects.secret(&source.name, optional)? {
                add_items(
                    &mut files,
                    &secret_keys(secret),
                    source.items.as_deref(),
                    default,
                    optional,
                    "secret",
                )?;
            }
        } else if let Some(source) = &source.downward_api {
            for item in source.items.iter().flatten() {
                add_downward(&mut files, item, default, from)?;
            }
        } else if let Some(source) = &source.service_account_token {
            let token =
                from.tokens.get(&TokenRequest::of(source)).ok_or("the token was not issued")?;
            files.insert(
                source.path.clone(),
                File { bytes: token.clone().into_bytes(), mode: default },
            );
        } else {
            return Err("unsupported projected volume source".to_owned());
        }
    }
    Ok(files)
}

fn config_map_keys(map: &ConfigMap) -> BTreeMap<&str, &[u8]> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = map
        .binary_data
        .iter()
        .flatten()
        .map(|(key, ByteString(value))| (key.as_str(), value.as_slice()));
    text.chain(binary).collect()
}

fn secret_keys(secret: &Secret) -> BTreeMap<&str, &[u8]> {
    secret
        .data
        .iter()
        .flatten()
        .map(|(key, ByteString(value))| (key.as_str(), value.as_slice()))
        .collect()
}

fn add_items(
    files: &mut Files,
    keys: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    default_mode: u32,
    optional: bool,
    what: &str,
) -> Result<(), String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in keys {
            files.insert((*key).to_owned(), File { bytes: bytes.to_vec(), mode: default_mode });
        }
        return Ok(());
    };
    for item in items {
        match keys.get(item.key.as_str()) {
            Some(bytes) => {
                let mode = item.mode.map_or(default_mode, mode_bits);
                files.insert(item.path.clone(), File { bytes: bytes.to_vec(), mode });
            }
            None if optional => (),
            None => {
                return Err(format!(
                    "{what} references non-existent {}: {}",
                    kind_of_key(what),
                    item.key
                ));
            }
        }
    }
    Ok(())
}

fn kind_of_key(what: &str) -> &'static str {
    if what == "secret" { "secret key" } else { "config key" }
}

fn add_downward(
    files: &mut Files,
    item: &DownwardAPIVolumeFile,
    default_mode: u32,
    from: &Ingredients<'_>,
) -> Result<(), String> {
    let text = match (&item.field_ref, &item.resource_field_ref) {
        (Some(field), _) => fields::field(from.pod, from.around, &field.field_path)?,
        (None, Some(selector)) => fields::resource(from.pod, None, from.around, selector)?,
        (None, None) => String::new(),
    };
    let mode = item.mode.map_or(default_mode, mode_bits);
    files.insert(item.path.clone(), File { bytes: text.into_bytes(), mode });
    Ok(())
}

fn mode_bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(DEFAULT_MODE) & 0o7777
}

/// Where a pod's files are on this node; upstream's layout.
#[derive(Debug, Clone)]
pub(crate) struct PodDirectory {
    disk: PathBuf,
    memory: PathBuf,
}

impl PodDirectory {
    /// The directories of the pod with this uid, in those of all pods on disk and in memory; both may be the same.
    pub(crate) fn new(disk: &Path, memory: &Path, uid: &str) -> Self {
        Self { disk: disk.join(uid), memory: memory.join(uid) }
    }

    /// Makes the volume and answers where it is.
    pub(crate) fn make(&self, name: &str, wanted: &Wanted, now: Timestamp) -> io::Result<PathBuf> {
        match wanted {
            Wanted::Empty { mode, medium } => {
                let path = self.volume(*medium, "empty-dir", name);
                if !path.exists() {
                    fs::create_dir_all(&path)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
                }
                Ok(path)
            }
            Wanted::Written { plugin, medium, files } => {
                let path = self.volume(*medium, plugin, name);
                fs::create_dir_all(&path)?;
                atomic::write(&path, files, now)?;
                Ok(path)
            }
            Wanted::Host { path, kind } => {
                check_host_path(path, kind)?;
                Ok(path.clone())
            }
        }
    }

    /// Removes all that the pod had on this node. It is no error when that is nothing.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for path in [&self.memory, &self.disk] {
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => (),
            }
        }
        Ok(())
    }

    fn volume(&self, medium: Medium, plugin: &str, name: &str) -> PathBuf {
        let path = match medium {
            Medium::Disk => &self.disk,
            Medium::Memory => &self.memory,
        };
        path.join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }
}

/// What `hostPath.type` promises, made true or refused.
fn check_host_path(path: &Path, kind: &str) -> io::Result<()> {
    let refuse = |what: &str| {
        Err(io::Error::other(format!(
            "hostPath type check failed: {} is not {what}",
            path.display()
        )))
    };
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    match kind {
        "DirectoryOrCreate" if found.is_none() => fs::create_dir_all(path),
        "FileOrCreate" if found.is_none() => fs::File::create(path).map(drop),
        "Directory" | "DirectoryOrCreate" if !found.is_some_and(|found| found.is_dir()) => {
            refuse("a directory")
        }
        "File" | "FileOrCreate" if !found.is_some_and(|found| found.is_file()) => refuse("a file"),
        "Socket" if !found.is_some_and(|found| found.is_socket()) => refuse("a socket file"),
        "CharDevice" if !found.is_some_and(|found| found.is_char_device()) => {
            refuse("a character device")
        }
        "BlockDevice" if !found.is_some_and(|found| found.is_block_device()) => {
            refuse("a block device")
        }
        _ => Ok(()),
    }
}

/// Where a container sees its volumes, longest path last. An error is the message of `CreateContainerConfigError`.
pub(crate) fn mounts(
    pod: &Pod,
    container: &Container,
    paths: &BTreeMap<String, PathBuf>,
    env: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    // What we write and keep current is not the guest's to change; upstream mounts it read-only too.
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let written: Vec<&str> =
        volumes.filter(|volume| is_written(volume)).map(|volume| volume.name.as_str()).collect();
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = paths.get(&mount.name).ok_or_else(|| {
            format!(
                "cannot find volume \"{}\" to mount into container \"{}\"",
                mount.name, container.name
            )
        })?;
        let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => path.clone(),
            (_, Some(expression)) => expand_all(Some(&vec![expression.clone()]), env).concat(),
            (_, None) => String::new(),
        };
        mounts.push(Mount {
            host_path: inside(volume, &sub_path).map_err(|cause| {
                format!(
                    "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {cause}",
                    mount.name, container.name
                )
            })?,
            container_path: mount.mount_path.clone(),
            read_only: mount.read_only.unwrap_or(false) || written.contains(&mount.name.as_str()),
        });
    }
    mounts.sort_by_key(|mount| mount.container_path.len());
    Ok(mounts)
}

fn is_written(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// A path inside of a volume, links resolved, never outside of it; a missing directory is made.
fn inside(volume: &Path, sub_path: &str) -> io::Result<PathBuf> {
    if sub_path.is_empty() {
        return Ok(volume.to_owned());
    }
    let outside = || io::Error::other(format!("subPath {sub_path:?} leads out of the volume"));
    if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
        return Err(outside());
    }
    let path = volume.join(sub_path);
    if !path.exists() {
        // A link that leads out would make a directory there: refuse before making anything.
        let mut known = path.as_path();
        while let Some(parent) = known.parent().filter(|_| !known.exists()) {
            known = parent;
        }
        if !known.canonicalize()?.starts_with(volume.canonicalize()?) {
            return Err(outside());
        }
        fs::create_dir_all(&path)?;
    }
    let real = path.canonicalize()?;
    if !real.starts_with(volume.canonicalize()?) {
        return Err(outside());
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::amounts::Amounts;

    fn check(volume: serde_json::Value, expected: Result<&[(&str, &str, u32)], &str>) {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "name": "p", "labels": { "a": "b" } } }))
                .unwrap();
        let map: ConfigMap = serde_json::from_value(
            json!({ "data": { "k1": "v1", "k2": "v2" }, "binaryData": { "b": "AAE=" } }),
        )
        .unwrap();
        let secret: Secret = serde_json::from_value(json!({ "data": { "user": "bWU=" } })).unwrap();
        let objects = Objects {
            config_maps: [("map".to_owned(), std::sync::Arc::new(map))].into(),
            secrets: [("secret".to_owned(), std::sync::Arc::new(secret))].into(),
        };
        let around = Surroundings {
            node_ip: "10.0.0.1".parse().unwrap(),
            pod_ip: None,
            allocatable: Amounts::default(),
        };
        let tokens =
            [(TokenRequest { audience: String::new(), seconds: 3607 }, "tok".to_owned())].into();
        let from = Ingredients {
            pod: &pod,
            around: &around,
            objects: &objects,
            tokens: &tokens,
            claims: &BTreeMap::new(),
        };
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let made = wanted(&volume, &from).map(|wanted| match wanted {
            Wanted::Written { files, .. } => files,
            Wanted::Empty { .. } | Wanted::Host { .. } => panic!("not written"),
        });
        let expected = expected.map_err(str::to_owned).map(|files| {
            files
                .iter()
                .map(|(path, text, mode)| {
                    ((*path).to_owned(), File { bytes: text.as_bytes().to_vec(), mode: *mode })
                })
                .collect::<Files>()
        });
        assert_eq!(made, expected, "{volume:?}");
    }

    #[test]
    fn the_files_of_a_volume_are_what_its_spec_says() {
        check(
            json!({ "name": "v", "configMap": { "name": "map" } }),
            Ok(&[("k1", "v1", 0o644), ("k2", "v2", 0o644), ("b", "\0\u{1}", 0o644)]),
        );
        check(
            json!({ "name": "v", "configMap": { "name": "map", "defaultMode": 0o400, "items": [{ "key": "k2", "path": "x/y" }] } }),
            Ok(&[("x/y", "v2", 0o400)]),
        );
        check(
            json!({ "name": "v", "configMap": { "name": "map", "items": [{ "key": "nope", "path": "x" }] } }),
            Err("configmap references non-existent config key: nope"),
        );
        check(
            json!({ "name": "v", "configMap": { "name": "none" } }),
            Err("configmap \"none\" not found"),
        );
        check(json!({ "name": "v", "configMap": { "name": "none", "optional": true } }), Ok(&[]));
        check(
            json!({ "name": "v", "secret": { "secretName": "secret", "items": [{ "key": "user", "path": "u", "mode": 0o440 }] } }),
            Ok(&[("u", "me", 0o440)]),
        );
        check(
            json!({ "name": "v", "projected": { "sources": [
                { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
                { "configMap": { "name": "map", "items": [{ "key": "k1", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
            ] } }),
            Ok(&[("token", "tok", 0o644), ("ca.crt", "v1", 0o644), ("labels", "a=\"b\"", 0o644)]),
        );
    }

    #[test]
    fn a_sub_path_stays_inside_its_volume() {
        let volume = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", volume.path().join("out")).unwrap();
        assert!(inside(volume.path(), "a/b").unwrap().is_dir());
        for path in ["..", "/etc", "a/../../x", "out", "out/tmp", "out/coracle-must-not-make-this"]
        {
            assert!(inside(volume.path(), path).is_err(), "{path}");
        }
        assert!(!Path::new("/coracle-must-not-make-this").exists());
    }
}
