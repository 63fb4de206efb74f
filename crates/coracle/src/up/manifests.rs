//! Reads manifests from files and folders, and finds the local modules that they name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// kubectl's bound on what a manifest file may hold is the API server's: 3 MiB an object. A file holds a few.
const FILE_BYTES: u64 = 32 << 20;

/// What the files say.
#[derive(Debug, Default)]
pub struct Manifests {
    /// The objects, in the order of the files and of the documents in them.
    pub objects: Vec<Value>,
    /// The local modules that containers name, by the image name that they use.
    pub modules: BTreeMap<String, PathBuf>,
}

/// Reads every file, and every manifest in every folder (not in folders below).
pub fn read(paths: &[PathBuf]) -> Result<Manifests> {
    let mut manifests = Manifests::default();
    for path in paths {
        if path.is_dir() {
            let files = manifests_in(path)?;
            if files.is_empty() {
                bail!(
                    "no manifests in {}: put .yaml, .yml or .json files there, or name a file",
                    path.display()
                );
            }
            for file in files {
                read_file(&file, &mut manifests)?;
            }
        } else {
            read_file(path, &mut manifests)?;
        }
    }
    if manifests.objects.is_empty() {
        bail!("the manifests hold no objects");
    }
    Ok(manifests)
}

fn manifests_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path, manifests: &mut Manifests) -> Result<()> {
    let size = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if size > FILE_BYTES {
        bail!("{} has {size} bytes, the limit is {FILE_BYTES}", path.display());
    }
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value = Value::deserialize(document)
            .with_context(|| format!("{} is not valid YAML", path.display()))?;
        add(value, path, manifests)?;
    }
    Ok(())
}

fn add(value: Value, path: &Path, manifests: &mut Manifests) -> Result<()> {
    if value.is_null() {
        return Ok(());
    }
    let kind = value.get("kind").and_then(Value::as_str);
    let version = value.get("apiVersion").and_then(Value::as_str);
    let (Some(kind), Some(_)) = (kind, version) else {
        bail!("{}: every object needs an apiVersion and a kind", path.display());
    };
    if let (true, Some(Value::Array(items))) = (kind.ends_with("List"), value.get("items")) {
        for item in items {
            add(item.clone(), path, manifests)?;
        }
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    for image in images(&value) {
        let file = folder.join(image);
        if image.ends_with(".wasm") && file.is_file() {
            manifests.modules.insert(image.to_owned(), file);
        }
    }
    manifests.objects.push(value);
    Ok(())
}

/// The images of every pod template in an object.
fn images(value: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    let spec = &value["spec"];
    let pod_specs =
        [spec, &spec["template"]["spec"], &spec["jobTemplate"]["spec"]["template"]["spec"]];
    for pod_spec in pod_specs {
        for list in ["initContainers", "containers"] {
            let containers = pod_spec[list].as_array().into_iter().flatten();
            found.extend(containers.filter_map(|container| container["image"].as_str()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: a.wasm}]}\n";

    #[test]
    fn documents_lists_and_the_modules_beside_them_are_found() {
        let list = format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}\n",
            POD.trim_end().replace('\n', "\n  ")
        );
        let two =
            format!("{POD}---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: b}}\n");
        let folder = folder(&[("1.yaml", &list), ("2.yml", &two), ("a.wasm", ""), ("x.txt", "no")]);
        let manifests = read(&[folder.path().to_path_buf()]).unwrap();
        let kinds: Vec<_> =
            manifests.objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["Pod", "Pod", "ConfigMap"]);
        assert_eq!(manifests.modules.keys().collect::<Vec<_>>(), ["a.wasm"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_files_name() {
        let check = |text: &str, expected: &str| {
            let folder = folder(&[("bad.yaml", text)]);
            let error = read(&[folder.path().join("bad.yaml")]).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        };
        check("a: [", "bad.yaml is not valid YAML");
        check("kind: Pod", "bad.yaml: every object needs an apiVersion and a kind");
        check("", "no objects");
        let empty = folder(&[]);
        let error = read(&[empty.path().to_path_buf()]).unwrap_err();
        assert!(error.to_string().starts_with("no manifests in"), "{error}");
    }
}
