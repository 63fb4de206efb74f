//! One command on a laptop.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use coracle_tests::{Output, binary, examples, get};

const DEADLINE: Duration = Duration::from_secs(60);

/// `coracle up`, and what it prints.
struct Up {
    process: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Up {
    fn start(folder: &std::path::Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(binary())
            .arg("up")
            .args(arguments)
            .arg("--data-dir")
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { process, lines, seen: Vec::new() }
    }

    fn line(&mut self, wanted: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(DEADLINE) else {
                panic!("up did not print {wanted:?}: {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(wanted) {
                return line;
            }
        }
    }

    fn interrupt(mut self) -> Option<i32> {
        let pid = self.process.id().to_string();
        Output::of(Command::new("kill").args(["-INT", &pid]));
        self.process.wait().unwrap().code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn address(line: &str) -> SocketAddr {
    let address = line.rsplit("http://").next().unwrap();
    address.parse().unwrap_or_else(|_| format!("{address}:80").parse().unwrap())
}

#[test]
fn up_runs_a_folder_prints_where_it_answers_and_finds_its_state_again() {
    let folder = tempfile::tempdir().unwrap();
    let example = examples("hello");
    let example = example.to_str().unwrap();

    let mut up = Up::start(folder.path(), &[example]);
    up.line("deployment.apps/hello created");
    let line = up.line("service/hello answers on http://");
    let answer = get(address(&line), "/").unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("pod: hello-"), "{answer:?}");
    up.line("GET /");
    assert_eq!(up.interrupt(), Some(0));

    let mut again = Up::start(folder.path(), &["-f", example]);
    again.line("deployment.apps/hello unchanged");
    let line = again.line("service/hello answers on http://");
    assert_eq!(get(address(&line), "/").unwrap().status, 200);
    assert_eq!(again.interrupt(), Some(0));
}

#[test]
fn up_says_what_to_type_when_it_is_not_told_what_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str], expected: &str| {
        let mut command = Command::new(binary());
        command.arg("up").args(arguments).arg("--data-dir").arg(folder.path());
        let output = Output::of(&mut command);
        assert_ne!(output.code, Some(0));
        assert!(output.stderr.contains(expected), "{output:?}");
    };
    check(&[], "<FILE|DIR>");
    check(&["/no/such/file.yaml"], "cannot read /no/such/file.yaml");
    check(&[folder.path().to_str().unwrap()], "no manifests in");
}
