//! Directories of this node that are PersistentVolumes: made and removed when the control plane asks.
//!
//! They outlive the pods that use them. Both requests may be repeated.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;

use crate::server::Api;

/// The longest name that an object may have.
const NAME_MAX: usize = 253;

type Answer = Result<String, (StatusCode, String)>;

/// Makes the volume's directory where it is not there, and answers its path.
pub(crate) async fn ensure(
    State(api): State<Arc<Api>>,
    UrlPath(volume): UrlPath<String>,
) -> Answer {
    let path = directory(&api.ctx.data_dir, &volume)?;
    blocking(path, |path| {
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            // Whoever the guest is, it is its volume.
            fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        }
        Ok(fs::canonicalize(path)?.display().to_string())
    })
    .await
}

/// Removes the volume's directory with all that is in it. It is no error when there is none.
pub(crate) async fn remove(
    State(api): State<Arc<Api>>,
    UrlPath(volume): UrlPath<String>,
) -> Answer {
    let path = directory(&api.ctx.data_dir, &volume)?;
    blocking(path, |path| match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(String::new()),
    })
    .await
}

/// Where the volume of this name is; an error if it could be anywhere else.
fn directory(data_dir: &Path, volume: &str) -> Result<PathBuf, (StatusCode, String)> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
    let is_name = !volume.starts_with('.') && volume.len() <= NAME_MAX;
    if is_name && !volume.is_empty() && volume.chars().all(is_plain) {
        return Ok(data_dir.join("local-volumes").join(volume));
    }
    Err((StatusCode::BAD_REQUEST, format!("{volume:?} cannot be the name of a volume")))
}

async fn blocking(path: PathBuf, work: fn(&Path) -> io::Result<String>) -> Answer {
    let shown = path.display().to_string();
    let failed = |cause: String| {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("local volume {shown}: {cause}"))
    };
    match tokio::task::spawn_blocking(move || work(&path)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_stays_in_its_own_directory() {
        let base = Path::new("/data");
        let expected = PathBuf::from("/data/local-volumes/pvc-1.a");
        assert_eq!(directory(base, "pvc-1.a").unwrap(), expected);
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", &"a".repeat(254)] {
            assert!(directory(base, name).is_err(), "{name}");
        }
    }
}
