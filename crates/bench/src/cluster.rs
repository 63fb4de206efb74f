//! The cluster under test: `coracle server` in a process of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::Settings;
use crate::connection::{Access, Connection};
use crate::process::Process;

/// How often a condition is looked at that nobody can watch: fine enough for what takes 50 ms.
const LOOK: Duration = Duration::from_millis(1);
/// How long a cluster may take to become ready, and any step in it.
const DEADLINE: Duration = Duration::from_secs(60);
/// The name that the guest has in the image store.
pub const IMAGE: &str = "bench.wasm:latest";

/// A running cluster with a connection to its API.
pub struct Cluster {
    process: Process,
    access: Access,
    connection: Connection,
}

/// The lines of a watch.
pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
}

impl Cluster {
    /// A new cluster, whose node is ready and has the guest as an image.
    pub async fn prepared(settings: &Settings) -> Result<Self> {
        let data_dir = data_dir(&settings.lasting_folder()?);
        fs::create_dir(&data_dir)?;
        import(settings, &data_dir).await?;
        let (cluster, _) = Self::start(settings, &data_dir).await?;
        cluster.until("/api/v1/nodes/node-0", |node| is_true(node, "Ready")).await?;
        // Pods of the namespace are refused before.
        cluster.until("/api/v1/namespaces/default/serviceaccounts/default", |_| true).await?;
        Ok(cluster)
    }

    /// Starts a cluster on this data directory; also answers how long it took from exec to /readyz.
    pub async fn start(settings: &Settings, data_dir: &Path) -> Result<(Self, Duration)> {
        let kubeconfig = data_dir.join("kubeconfig");
        // The one of the run before names a port that nobody listens on.
        if kubeconfig.exists() {
            fs::remove_file(&kubeconfig)?;
        }
        let mut command = Command::new(&settings.coracle);
        command.arg("server").arg("--data-dir").arg(data_dir);
        command.args(["--bind-address", "127.0.0.1", "--secure-port", "0"]);
        command.args(["--node-name", "node-0"]);
        let started = Instant::now();
        let mut process = Process::start(&mut command, &data_dir.with_extension("log"))?;
        let ready = until_ready(&mut process, &kubeconfig, started);
        let (access, connection) =
            timeout(DEADLINE, ready).await.context("not ready in time")??;
        Ok((Self { process, access, connection }, started.elapsed()))
    }

    /// One more connection.
    pub async fn connect(&self) -> Result<Connection> {
        Connection::secure(&self.access).await
    }

    /// Where the API is, as the administrator.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Sends a request.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        self.connection.json(method, path, body).await
    }

    /// Merges a patch into an object.
    pub async fn patch(&self, path: &str, patch: &Value) -> Result<()> {
        let headers =
            [("content-type", "application/merge-patch+json"), ("accept", "application/json")];
        let body = serde_json::to_vec(patch)?.into();
        let answer = self.connection.send(Method::PATCH, path, &headers, body).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        if !status.is_success() {
            bail!("patch of {path}: {status}");
        }
        Ok(())
    }

    /// Watches what a path with a query says, on a connection of its own.
    pub async fn watch(&self, path: &str) -> Result<Watch> {
        let connection = self.connect().await?;
        let headers = [("accept", "application/json")];
        let answer = connection.send(Method::GET, path, &headers, Bytes::new()).await?;
        if !answer.status().is_success() {
            bail!("watch of {path}: {}", answer.status());
        }
        Ok(Watch { body: answer.into_body(), buffer: BytesMut::new() })
    }

    /// Waits until a path answers what is wanted.
    pub async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        let looking = async {
            loop {
                // Not there yet is one of the things that are waited for.
                if let Ok(value) = self.json(Method::GET, path, None).await
                    && holds(&value)
                {
                    break;
                }
                sleep(LOOK).await;
            }
        };
        timeout(DEADLINE, looking).await.with_context(|| format!("not in time: {path}"))
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends the cluster as SIGTERM does.
    pub async fn stop(self) -> Result<()> {
        self.process.stop().await
    }

    /// Ends the cluster at once: a graceful end of its pods is not what is measured.
    pub async fn kill(self) -> Result<()> {
        self.process.kill().await
    }
}

impl Watch {
    /// The next event, as JSON.
    pub async fn next(&mut self) -> Result<Value> {
        self.next_as().await
    }

    /// The next event, of which only what is asked for is read.
    pub async fn next_as<T: DeserializeOwned>(&mut self) -> Result<T> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(serde_json::from_slice(&self.buffer.split_to(end + 1))?);
            }
            let frame = timeout(DEADLINE, self.body.frame()).await.context("nothing happens")?;
            let frame = frame.context("the watch ended")??;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// Where a cluster in this directory keeps its state; its log lies beside it.
pub fn data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// True when the object's status has this condition.
pub fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|entry| entry["type"] == condition && entry["status"] == "True")
}

async fn until_ready(
    process: &mut Process,
    kubeconfig: &Path,
    started: Instant,
) -> Result<(Access, Connection)> {
    let access = loop {
        // Written whole or not at all, so what can be read can be used.
        if let Ok(text) = fs::read_to_string(kubeconfig) {
            break Access::parse(&text)?;
        }
        process.check()?;
        sleep(LOOK).await;
    };
    loop {
        process.check()?;
        if let Ok(connection) = Connection::secure(&access).await
            && let Ok(answer) = connection.send(Method::GET, "/readyz", &[], Bytes::new()).await
            && answer.status() == StatusCode::OK
        {
            return Ok((access, connection));
        }
        if started.elapsed() > DEADLINE {
            bail!("/readyz does not say ok");
        }
        sleep(LOOK).await;
    }
}

async fn import(settings: &Settings, data_dir: &Path) -> Result<()> {
    let output = Command::new(&settings.coracle)
        .args(["image", "import"])
        .arg(&settings.guest)
        .arg(IMAGE)
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .await?;
    if !output.status.success() {
        bail!("image import: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
