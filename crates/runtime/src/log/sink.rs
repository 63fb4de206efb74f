//! The file under a container's log: lines, and rotation by size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Head, LogLimits, PARTIAL_BYTES, Stream};

/// How much is gathered before it is written.
const CHUNK_BYTES: usize = 64 * 1024;

pub(super) struct Sink {
    path: PathBuf,
    limits: LogLimits,
    file: File,
    /// What the current file holds, that in `ready` included.
    size: u64,
    ready: Vec<u8>,
    open_lines: [OpenLine; 2],
    /// The second that `date` spells.
    second: i64,
    date: String,
    failed: bool,
}

/// A line whose newline has not come yet.
#[derive(Default)]
struct OpenLine {
    at: (i64, u32),
    text: Vec<u8>,
}

/// The older files of a log, oldest first; the current one is at `path` itself.
pub fn rotated_files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        (1..).map(|age| rotated(path, age)).take_while(|file| file.exists()).collect();
    files.reverse();
    files
}

fn rotated(path: &Path, age: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    PathBuf::from(name)
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path)
}

impl Sink {
    pub(super) fn open(path: &Path, limits: LogLimits) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let file = open_file(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            limits,
            file,
            size,
            ready: Vec::new(),
            open_lines: Default::default(),
            second: i64::MIN,
            date: String::new(),
            failed: false,
        })
    }

    /// Takes one piece of output, which may hold many lines or none that is complete.
    pub(super) fn take(&mut self, head: Head, mut text: &[u8]) {
        let index = usize::from(head.stream == Stream::Stderr);
        let mut line = std::mem::take(&mut self.open_lines[index]);
        while !text.is_empty() {
            if line.text.is_empty() {
                line.at = (head.second, head.nanosecond);
            }
            let room = PARTIAL_BYTES - line.text.len();
            let window = &text[..text.len().min(room + 1)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                line.text.extend_from_slice(&text[..end]);
                self.put(&line, head.stream, b"F");
                line.text.clear();
                text = &text[end + 1..];
            } else if window.len() > room {
                line.text.extend_from_slice(&text[..room]);
                self.put(&line, head.stream, b"P");
                line.text.clear();
                text = &text[room..];
            } else {
                line.text.extend_from_slice(text);
                text = &[];
            }
        }
        self.open_lines[index] = line;
    }

    /// Writes lines that lack their newline, as parts: the container is gone, and nobody shall read a newline that it
    /// did not print.
    pub(super) fn finish_lines(&mut self) {
        for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let line = std::mem::take(&mut self.open_lines[index]);
            if !line.text.is_empty() {
                self.put(&line, stream, b"P");
            }
        }
        self.flush();
    }

    /// Writes what is gathered. A log that cannot be written is lost, and the container runs on.
    pub(super) fn flush(&mut self) {
        let result = self.file.write_all(&self.ready);
        self.ready.clear();
        if self.ready.capacity() > CHUNK_BYTES * 2 {
            self.ready = Vec::new();
        }
        match result {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::error!(path = %self.path.display(), %error, "container log lost");
            }
            Err(_) => (),
        }
    }

    fn put(&mut self, line: &OpenLine, stream: Stream, tag: &[u8]) {
        let name: &[u8] = match stream {
            Stream::Stdout => b" stdout ",
            Stream::Stderr => b" stderr ",
        };
        let nanosecond = format!(".{:09}Z", line.at.1);
        let bytes = 19 + nanosecond.len() + name.len() + tag.len() + 2 + line.text.len();
        if self.size > 0 && self.size + bytes as u64 > self.limits.file_bytes {
            self.rotate();
        }
        if line.at.0 != self.second {
            self.second = line.at.0;
            self.date = Timestamp::from_second(line.at.0)
                .unwrap_or_default()
                .strftime("%Y-%m-%dT%H:%M:%S")
                .to_string();
        }
        self.ready.extend_from_slice(self.date.as_bytes());
        self.ready.extend_from_slice(nanosecond.as_bytes());
        self.ready.extend_from_slice(name);
        self.ready.extend_from_slice(tag);
        self.ready.push(b' ');
        self.ready.extend_from_slice(&line.text);
        self.ready.push(b'\n');
        self.size += bytes as u64;
        if self.ready.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    fn rotate(&mut self) {
        self.flush();
        if let Err(error) = self.shift_files() {
            tracing::error!(path = %self.path.display(), %error, "container log not rotated");
        }
    }

    fn shift_files(&mut self) -> io::Result<()> {
        let oldest = self.limits.files.max(2) - 1;
        for age in (1..oldest).rev() {
            match std::fs::rename(rotated(&self.path, age), rotated(&self.path, age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => (),
            }
        }
        std::fs::rename(&self.path, rotated(&self.path, 1))?;
        self.file = open_file(&self.path)?;
        self.size = 0;
        Ok(())
    }
}
