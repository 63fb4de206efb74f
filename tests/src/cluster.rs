//! One cluster: `coracle server` in a process of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::tools;

/// How long anything may take before a test gives up on it.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at that nobody can watch.
const LOOK: Duration = Duration::from_millis(20);

/// What a program printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Its exit code.
    pub code: Option<i32>,
}

impl Output {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        let output = command.output().unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }
}

/// A running cluster. Dropping it ends the process and removes its state.
pub struct Cluster {
    folder: TempDir,
    process: Option<Child>,
    kubectl: PathBuf,
    /// What the server is told beside what every cluster of a test is.
    flags: Vec<String>,
}

impl Cluster {
    /// Starts a new cluster, and returns when it is ready and its node too.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with more flags.
    pub fn start_with(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let kubectl = tools::kubectls().swap_remove(0);
        let mut cluster = Self {
            folder,
            process: None,
            kubectl,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        };
        cluster.run();
        cluster
    }

    /// The same cluster, driven by another kubectl.
    pub fn with_kubectl(mut self, kubectl: &Path) -> Self {
        self.kubectl = kubectl.to_path_buf();
        self
    }

    /// Starts the process again on the same state, and returns when it is ready and its node too.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn run(&mut self) {
        self.launch();
        self.until("the API is ready", |cluster| {
            cluster.kubeconfig().exists()
                && cluster.try_kubectl(&["get", "--raw", "/readyz"]).code == Some(0)
        });
        // It fails at once while there is no such node yet.
        self.until("the node is ready", |cluster| {
            let wait = ["wait", "--for=condition=Ready", "node/node-0", "--timeout=30s"];
            cluster.try_kubectl(&wait).code == Some(0)
        });
    }

    /// Starts the process again on the same state, and waits for nothing.
    ///
    /// # Panics
    /// When it runs already.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "the cluster runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("server.log"))
            .expect("a log file");
        // The kubeconfig of the run before names a port that nobody listens on.
        let _ = fs::remove_file(self.kubeconfig());
        let process = Command::new(tools::binary())
            .arg("server")
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--bind-address", "127.0.0.1", "--secure-port", "0", "--node-name", "node-0"])
            .args(&self.flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the cluster starts");
        self.process = Some(process);
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// The process's id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the cluster runs").id()
    }

    /// Kills the process at once, as a power cut would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the cluster runs");
        process.kill().expect("the process can be killed");
        process.wait().expect("the process ends");
    }

    /// Asks the process to stop (SIGTERM) and answers its exit code.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("the cluster runs");
        let pid = process.id().to_string();
        Output::of(Command::new("kill").args(["-TERM", &pid]));
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = process.try_wait().expect("the process can be awaited") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the cluster does not stop:\n{}", self.log());
            thread::sleep(LOOK);
        }
    }

    /// A kubectl command for this cluster.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        // Discovery caches of other tests and users do not belong here.
        command.env("KUBECACHEDIR", self.folder.path().join("kubecache"));
        command.env("HOME", self.folder.path());
        command
    }

    /// Runs kubectl, however it ends.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        Output::of(&mut self.kubectl_command(arguments))
    }

    /// Runs kubectl and answers what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        assert_eq!(output.code, Some(0), "kubectl {arguments:?}: {output:#?}\n{}", self.log());
        output.stdout
    }

    /// Runs kubectl, which must fail, and answers what it complained.
    ///
    /// # Panics
    /// When it succeeds.
    #[track_caller]
    pub fn kubectl_refused(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        assert_ne!(output.code, Some(0), "kubectl {arguments:?} should fail: {output:#?}");
        output.stderr
    }

    /// Runs kubectl with a text on its standard input, however it ends.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn try_kubectl_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut process = self
            .kubectl_command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut stdin = process.stdin.take().expect("a pipe");
        let input = input.to_owned();
        let writer = thread::spawn(move || {
            // kubectl may refuse before it has read all.
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = process.wait_with_output().expect("kubectl ends");
        writer.join().expect("the writer ends");
        Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }

    /// Applies a manifest.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        let output = self.try_kubectl_with(&["apply", "-f", "-"], manifest);
        assert_eq!(output.code, Some(0), "kubectl apply: {output:#?}\n{manifest}\n{}", self.log());
        output.stdout
    }

    /// One object or list as JSON.
    ///
    /// # Panics
    /// When it is not there.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat());
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// What any kubectl command prints, as JSON.
    ///
    /// # Panics
    /// When it fails or prints something else.
    #[track_caller]
    pub fn json_of(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(arguments)).expect("kubectl prints JSON")
    }

    /// A kubectl command without this cluster's kubeconfig: it has no credentials.
    pub fn bare_kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("HOME", self.folder.path()).env("KUBECONFIG", "/dev/null");
        command
    }

    /// Puts a local module into the image store.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn import(&self, file: &Path, name: &str) {
        let output = self.coracle(&["image", "import", &file.to_string_lossy(), name]);
        assert_eq!(output.code, Some(0), "image import: {output:#?}");
    }

    /// Puts a guest that is written as text into the image store.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn import_text(&self, text: &str, name: &str) {
        self.import_bytes(&crate::guests::module(text), name);
    }

    /// Puts any bytes into the image store.
    ///
    /// # Panics
    /// When they are refused.
    #[track_caller]
    pub fn import_bytes(&self, bytes: &[u8], name: &str) {
        let file = self.folder.path().join(format!("{name}.import"));
        fs::write(&file, bytes).expect("a file can be written");
        self.import(&file, name);
    }

    /// Runs another coracle command on this cluster's data directory.
    pub fn coracle(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(tools::binary());
        Output::of(command.args(arguments).arg("--data-dir").arg(self.data_dir()))
    }

    /// Waits until a condition holds that nobody can watch.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.log());
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
