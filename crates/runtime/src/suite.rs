//! The promises that every engine keeps, run against each of them.
//!
//! An engine's tests implement [`Subject`], which says how that engine is given a program that does what the suite
//! asks, and call [`run`]. Each function is one promise and panics, as tests do, when it is broken.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::log::Stream;
use crate::{
    ContainerId, ContainerSpec, ContainerState, ExitReason, LogLine, Mount, PodIdentity, Runtime,
    SandboxSpec, StartError,
};

/// How long anything here may take on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the suite needs a container to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Prints its arguments, each on a line of standard output.
    Print,
    /// Prints its environment as one line, `env A=1 B=2`, sorted.
    Environment,
    /// Ends with the code that is its argument.
    Exit,
    /// Runs until it is stopped.
    Sleep,
    /// Prints `read TEXT` with the text of the file that is its argument, or `read failed…`.
    Read,
    /// Writes its second argument to the file that is its first.
    Write,
}

/// An image that does it, and how it is called.
#[derive(Debug, Clone)]
pub struct Call {
    /// An image of the engine's store.
    pub image: String,
    /// The spec's command.
    pub command: Vec<String>,
    /// The spec's arguments.
    pub args: Vec<String>,
}

/// One engine under test.
pub trait Subject: Send + Sync {
    /// The engine, with its images in its store.
    fn runtime(&self) -> Arc<dyn Runtime>;
    /// How a program is run with these arguments.
    fn call(&self, program: Program, arguments: &[&str]) -> Call;
    /// A directory that the tests may write to.
    fn directory(&self) -> PathBuf;
}

/// Runs the whole suite.
pub async fn run(subject: &dyn Subject) {
    a_sandbox_has_one_address(subject).await;
    output_and_exit_codes_arrive(subject).await;
    the_environment_is_what_the_spec_says(subject).await;
    a_stopped_container_ends(subject).await;
    volumes_are_seen_and_read_only_is_kept(subject).await;
    a_missing_image_is_told(subject).await;
    a_container_is_known_until_it_is_removed(subject).await;
    removing_a_sandbox_ends_its_containers(subject).await;
}

/// A pod of the suite, with its containers' logs.
struct Pod<'a> {
    subject: &'a dyn Subject,
    runtime: Arc<dyn Runtime>,
    identity: PodIdentity,
}

impl<'a> Pod<'a> {
    async fn new(subject: &'a dyn Subject) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let identity = PodIdentity {
            namespace: "default".to_owned(),
            name: format!("suite-{number}"),
            uid: format!(
                "00000000-0000-4000-8000-{:06}{number:06}",
                std::process::id() % 1_000_000
            ),
        };
        let runtime = subject.runtime();
        let pod = Self { subject, runtime, identity };
        pod.runtime.run_sandbox(&pod.sandbox()).await.expect("the sandbox runs");
        pod
    }

    fn sandbox(&self) -> SandboxSpec {
        SandboxSpec {
            pod: self.identity.clone(),
            hostname: self.identity.name.clone(),
            host_network: false,
        }
    }

    fn spec(&self, program: Program, arguments: &[&str]) -> ContainerSpec {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = ContainerId::new(format!("{:032x}{number:032x}", std::process::id()));
        let call = self.subject.call(program, arguments);
        ContainerSpec {
            log_path: self.subject.directory().join(format!("{}.log", id.as_str())),
            id,
            pod: self.identity.clone(),
            name: format!("c{number}"),
            attempt: 0,
            image: call.image,
            command: call.command,
            args: call.args,
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            tcp_ports: Vec::new(),
            memory_limit_bytes: None,
            cpu_limit_millis: None,
            annotations: Default::default(),
        }
    }

    async fn start(&self, spec: &ContainerSpec) {
        let started = tokio::time::timeout(DEADLINE, self.runtime.start_container(spec.clone()));
        started.await.expect("it starts in time").expect("it starts");
    }

    /// Starts it, and waits for its end.
    async fn run(&self, spec: &ContainerSpec) -> (i32, ExitReason, Vec<(Stream, String)>) {
        self.start(spec).await;
        let (code, reason) = self.end(&spec.id).await;
        (code, reason, lines(&spec.log_path))
    }

    async fn end(&self, id: &ContainerId) -> (i32, ExitReason) {
        tokio::time::timeout(DEADLINE, until_exited(&*self.runtime, id))
            .await
            .expect("it ends in time")
    }

    async fn remove(self) {
        self.runtime.remove_sandbox(&self.identity.uid).await.expect("the sandbox goes");
    }
}

/// Waits for a container's end; what [`Runtime::subscribe`] and [`Runtime::containers`] are for.
pub async fn until_exited(runtime: &dyn Runtime, id: &ContainerId) -> (i32, ExitReason) {
    let mut events = runtime.subscribe();
    loop {
        let known = runtime.containers().await.expect("the engine knows its containers");
        let status =
            known.into_iter().find(|status| status.id == *id).expect("the engine knows it");
        if let ContainerState::Exited { exit_code, reason, .. } = status.state {
            return (exit_code, reason);
        }
        // An error means that events were missed; then the whole is asked for again.
        while let Ok(status) = events.recv().await {
            if let (true, ContainerState::Exited { exit_code, reason, .. }) =
                (status.id == *id, status.state)
            {
                return (exit_code, reason);
            }
        }
    }
}

/// The lines of a log file.
pub fn lines(path: &Path) -> Vec<(Stream, String)> {
    let bytes = std::fs::read(path).expect("the log is there");
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let line = LogLine::parse(line).expect("the log is well-formed");
        (line.stream, String::from_utf8_lossy(line.text).into_owned())
    });
    lines.collect()
}

fn texts(lines: &[(Stream, String)]) -> Vec<&str> {
    lines.iter().map(|(_, text)| text.as_str()).collect()
}

async fn a_sandbox_has_one_address(subject: &dyn Subject) {
    let (one, other) = (Pod::new(subject).await, Pod::new(subject).await);
    let first = one.runtime.run_sandbox(&one.sandbox()).await.expect("it runs");
    let second = other.runtime.run_sandbox(&other.sandbox()).await.expect("it runs");
    assert_eq!(one.runtime.run_sandbox(&one.sandbox()).await.expect("it runs"), first);
    assert_ne!(first, second, "two pods have two addresses");
    one.remove().await;
    other.remove().await;
}

async fn output_and_exit_codes_arrive(subject: &dyn Subject) {
    let pod = Pod::new(subject).await;
    let (code, reason, lines) = pod.run(&pod.spec(Program::Print, &["one", "two"])).await;
    assert_eq!((code, reason), (0, ExitReason::Completed));
    assert_eq!(lines, [(Stream::Stdout, "one".to_owned()), (Stream::Stdout, "two".to_owned())]);
    let (code, reason, _) = pod.run(&pod.spec(Program::Exit, &["1"])).await;
    assert_eq!((code, reason), (1, ExitReason::Error));
    pod.remove().await;
}

async fn the_environment_is_what_the_spec_says(subject: &dyn Subject) {
    let pod = Pod::new(subject).await;
    let mut spec = pod.spec(Program::Environment, &[]);
    let pairs = [("SUITE_A", "1"), ("SUITE_B", "old"), ("SUITE_B", "x=y z")];
    spec.env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let (_, _, lines) = pod.run(&spec).await;
    let line = texts(&lines).concat();
    assert!(line.contains("SUITE_A=1") && line.contains("SUITE_B=x=y z"), "{line}");
    assert!(!line.contains("old"), "of two values the last counts: {line}");
    assert!(!line.contains("CARGO"), "nothing of the host's environment is seen: {line}");
    pod.remove().await;
}

async fn a_stopped_container_ends(subject: &dyn Subject) {
    let pod = Pod::new(subject).await;
    let spec = pod.spec(Program::Sleep, &[]);
    pod.start(&spec).await;
    assert!(pod.runtime.usage(&spec.id).await.is_some(), "a running container uses something");
    pod.runtime.stop_container(&spec.id, Duration::from_secs(1)).await.expect("it stops");
    let (code, reason) = pod.end(&spec.id).await;
    assert!(code == 143 || code == 137, "exit code {code}");
    assert_eq!(reason, ExitReason::Error);
    assert!(pod.runtime.usage(&spec.id).await.is_none(), "an ended one uses nothing");
    pod.runtime.stop_container(&spec.id, Duration::ZERO).await.expect("stopping again is no error");
    pod.remove().await;
}

async fn volumes_are_seen_and_read_only_is_kept(subject: &dyn Subject) {
    let pod = Pod::new(subject).await;
    let host = subject.directory().join(format!("volume-{}", pod.identity.uid));
    std::fs::create_dir_all(&host).expect("the volume is made");
    std::fs::write(host.join("seen"), "text").expect("the file is written");
    let mount = |read_only| Mount {
        host_path: host.clone(),
        container_path: "/volume".to_owned(),
        read_only,
    };
    let mut spec = pod.spec(Program::Read, &["/volume/seen"]);
    spec.mounts = vec![mount(true)];
    assert_eq!(texts(&pod.run(&spec).await.2), ["read text"]);

    let mut spec = pod.spec(Program::Write, &["/volume/refused", "x"]);
    spec.mounts = vec![mount(true)];
    pod.run(&spec).await;
    assert!(!host.join("refused").exists(), "a read-only volume is not written to");

    let mut spec = pod.spec(Program::Write, &["/volume/made", "new"]);
    spec.mounts = vec![mount(false)];
    pod.run(&spec).await;
    assert_eq!(std::fs::read_to_string(host.join("made")).expect("it was written"), "new");

    let (_, _, lines) = pod.run(&pod.spec(Program::Read, &["/volume/seen"])).await;
    assert!(texts(&lines).concat().starts_with("read failed"), "without a mount nothing is seen");
    pod.remove().await;
}

async fn a_missing_image_is_told(subject: &dyn Subject) {
    let pod = Pod::new(subject).await;
    let image = "no-such-image:never";
    assert_eq!(pod.runtime.image(image).await.expect("the store answers"), None);
    let spec = ContainerSpec { image: image.to_owned(), ..pod.spec(Program::Sleep, &[]) };
    let id = spec.id.clone();
    let error = pod.runtime.start_container(spec).await.expect_err("it cannot start");
    assert!(matches!(error, StartError::ImageMissing { .. }), "{error}");
    let known = pod.runtime.containers().await.expect("the engine knows its containers");
    assert!(known.iter().all(|status| status.id != id), "what did not start is not known");
    pod.remove().await;
}

async fn a_container_is_known_until_it_is_removed(subject: &dyn Subject) {
    let pod = Pod::new(subject).await;
    let spec = pod.spec(Program::Sleep, &[]);
    pod.start(&spec).await;
    pod.start(&spec).await;
    let known = || async {
        let all = pod.runtime.containers().await.expect("the engine knows its containers");
        all.into_iter().filter(|status| status.id == spec.id).collect::<Vec<_>>()
    };
    let status = known().await;
    assert_eq!(status.len(), 1, "starting again is no second start");
    assert!(matches!(status[0].state, ContainerState::Running { .. }));
    assert!(status[0].image_digest.starts_with("sha256:"), "{}", status[0].image_digest);
    assert_eq!((&status[0].pod_uid, &status[0].name), (&pod.identity.uid, &spec.name));
    pod.runtime.stop_container(&spec.id, Duration::ZERO).await.expect("it stops");
    assert_eq!(known().await.len(), 1);
    pod.runtime.remove_container(&spec.id).await.expect("it goes");
    pod.runtime.remove_container(&spec.id).await.expect("removing again is no error");
    assert_eq!(known().await.len(), 0);
    assert!(spec.log_path.exists(), "its log stays");
    pod.remove().await;
}

async fn removing_a_sandbox_ends_its_containers(subject: &dyn Subject) {
    let pod = Pod::new(subject).await;
    let spec = pod.spec(Program::Sleep, &[]);
    pod.start(&spec).await;
    let runtime = Arc::clone(&pod.runtime);
    let uid = pod.identity.uid.clone();
    pod.remove().await;
    let ended = tokio::time::timeout(DEADLINE, until_exited(&*runtime, &spec.id)).await;
    assert_ne!(ended.expect("it ends in time").0, 0);
    runtime.remove_sandbox(&uid).await.expect("removing again is no error");
}
