//! Reads containers' logs: whole, the end only, or on and on while the container runs.
//!
//! The files are written by [`coracle_runtime::log`], whose module documentation is the contract for readers.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use coracle_runtime::log::{LogLine, rotated_files};
use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader};
use tokio::sync::{mpsc, watch};

use crate::changes::Changes;
use crate::snapshot::Snapshot;

/// How much is read or sent at a time.
const PIECE_BYTES: usize = 32 * 1024;
/// Upstream's bounds for `terminationMessagePolicy: FallbackToLogsOnError`.
const LAST_WORDS_BYTES: usize = 2048;
/// See [`LAST_WORDS_BYTES`].
const LAST_WORDS_LINES: u64 = 80;

/// What somebody wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// Go on while the container runs.
    pub(crate) follow: bool,
    /// Only so many lines of the end.
    pub(crate) tail_lines: Option<u64>,
    /// Only lines that are not older.
    pub(crate) since: Option<Timestamp>,
    /// Each line with its time.
    pub(crate) timestamps: bool,
    /// At most so many bytes.
    pub(crate) limit_bytes: Option<u64>,
}

/// Whose log it is, to know when it has ended.
pub(crate) struct Attempt {
    /// The container's name.
    pub(crate) container: String,
    /// The number of the attempt.
    pub(crate) number: u32,
    /// What the pod's worker shows.
    pub(crate) pod: watch::Receiver<Snapshot>,
}

impl Attempt {
    fn runs(&mut self) -> bool {
        let pod = self.pod.borrow_and_update();
        let view = pod.containers.get(&self.container);
        view.is_some_and(|view| view.running && view.attempt == Some(self.number))
    }
}

/// Sends the log at `path` to `out` until it ends or nobody listens any more.
pub(crate) async fn send(
    path: PathBuf,
    query: Query,
    mut attempt: Attempt,
    out: mpsc::Sender<io::Result<Bytes>>,
) {
    let mut sender = Sender {
        out,
        query,
        left: None,
        at_line_start: true,
        pending: Vec::new(),
        piece: Vec::new(),
    };
    sender.left = sender.query.limit_bytes;
    let outcome = copy(&path, &mut sender, &mut attempt).await;
    if let Err(error) = outcome
        && !matches!(error, Ended::Listener)
    {
        let Ended::Failed(error) = error else { return };
        // The listener may be gone as well, and then nobody wants to know.
        let _ = sender.out.send(Err(error)).await;
    }
}

enum Ended {
    /// Nobody listens, or the listener has all it wanted.
    Listener,
    /// The file could not be read.
    Failed(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

async fn copy(path: &Path, sender: &mut Sender, attempt: &mut Attempt) -> Result<(), Ended> {
    // Watch before reading, so that nothing is written in between unseen.
    let mut changes = match (sender.query.follow, path.parent()) {
        (true, Some(directory)) => Some(Changes::of(directory)?),
        (true, None) | (false, _) => None,
    };
    let (first, mut file) = open_at(path, sender.query.tail_lines).await?;
    let mut inode = first;
    loop {
        // Ask before reading: what ended before the read has written all there will be.
        let runs = attempt.runs();
        read_to_end(&mut file, sender).await?;
        while let Some(next) = next_file(path, inode).await? {
            // A renamed file never grows again, but it may have grown since we read it.
            read_to_end(&mut file, sender).await?;
            inode = next.0;
            file = next.1;
            read_to_end(&mut file, sender).await?;
        }
        sender.flush().await?;
        let Some(changes) = changes.as_mut().filter(|_| runs) else { return Ok(()) };
        tokio::select! {
            changed = changes.next() => changed?,
            pod = attempt.pod.changed() => if pod.is_err() { return Ok(()) },
            () = sender.out.closed() => return Err(Ended::Listener),
        }
    }
}

type Open = BufReader<tokio::fs::File>;

/// Opens the oldest file that is wanted, at the place where what is wanted begins.
async fn open_at(path: &Path, tail_lines: Option<u64>) -> io::Result<(u64, Open)> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let mut files = rotated_files(&path);
        files.push(path);
        let Some(lines) = tail_lines else {
            let file = std::fs::File::open(&files[0])?;
            return Ok((file.metadata()?.ino(), file));
        };
        let mut wanted = lines;
        let mut place = None;
        for path in files.iter().rev() {
            let mut file = std::fs::File::open(path)?;
            let (start, found) = tail_start(&mut file, wanted)?;
            file.seek(SeekFrom::Start(start))?;
            place = Some(file);
            wanted -= found;
            if wanted == 0 {
                break;
            }
        }
        let file = place.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok::<_, io::Error>((file.metadata()?.ino(), file))
    });
    let (inode, file) = opened.await.map_err(io::Error::other)??;
    let mut file = tokio::fs::File::from_std(file);
    let at = file.stream_position().await?;
    file.seek(SeekFrom::Start(at)).await?;
    Ok((inode, BufReader::with_capacity(PIECE_BYTES, file)))
}

/// The file that follows the one with this inode, once there is one.
async fn next_file(path: &Path, inode: u64) -> io::Result<Option<(u64, Open)>> {
    let current = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.ino(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if current == inode {
        return Ok(None);
    }
    let path = path.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let mut files = rotated_files(&path);
        files.push(path);
        let inodes: Vec<Option<u64>> = files
            .iter()
            .map(|file| std::fs::metadata(file).ok().map(|metadata| metadata.ino()))
            .collect();
        // One that was deleted meanwhile is followed by the oldest that is left.
        let next = inodes.iter().position(|known| *known == Some(inode)).map_or(0, |at| at + 1);
        let Some(next) = files.get(next) else { return Ok(None) };
        let file = std::fs::File::open(next)?;
        Ok::<_, io::Error>(Some((file.metadata()?.ino(), file)))
    });
    let found = found.await.map_err(io::Error::other)??;
    Ok(found.map(|(inode, file)| {
        (inode, BufReader::with_capacity(PIECE_BYTES, tokio::fs::File::from_std(file)))
    }))
}

async fn read_to_end(file: &mut Open, sender: &mut Sender) -> Result<(), Ended> {
    let mut line = std::mem::take(&mut sender.pending);
    loop {
        if file.read_until(b'\n', &mut line).await? == 0 || line.last() != Some(&b'\n') {
            // The rest of the line has not been written yet.
            sender.pending = line;
            return Ok(());
        }
        sender.line(&line).await?;
        line.clear();
    }
}

struct Sender {
    out: mpsc::Sender<io::Result<Bytes>>,
    query: Query,
    left: Option<u64>,
    at_line_start: bool,
    // The beginning of a line whose end has not been written yet.
    pending: Vec<u8>,
    // What goes out with the next piece.
    piece: Vec<u8>,
}

impl Sender {
    async fn line(&mut self, line: &[u8]) -> Result<(), Ended> {
        let before = self.piece.len();
        self.at_line_start = render(line, &self.query, self.at_line_start, &mut self.piece);
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX);
            self.piece.truncate(before.saturating_add(allowed));
            *left -= (self.piece.len() - before) as u64;
        }
        if self.left == Some(0) {
            self.flush().await?;
            return Err(Ended::Listener);
        }
        if self.piece.len() >= PIECE_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.out.send(Ok(piece)).await.map_err(|_| Ended::Listener)
    }
}

/// Appends what a reader sees of one line of the file. Answers whether the next one begins a line of the container.
fn render(line: &[u8], query: &Query, at_line_start: bool, into: &mut Vec<u8>) -> bool {
    let Some(parsed) = LogLine::parse(line) else { return at_line_start };
    if query.since.is_some_and(|since| parsed.at < since) {
        return at_line_start;
    }
    if query.timestamps && at_line_start {
        let time = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        into.extend_from_slice(time);
        into.push(b' ');
    }
    into.extend_from_slice(parsed.text);
    if !parsed.partial {
        into.push(b'\n');
    }
    !parsed.partial
}

/// Where the last `lines` lines of the file begin, and how many there are, at most as many as asked for.
fn tail_start(file: &mut std::fs::File, lines: u64) -> io::Result<(u64, u64)> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = end;
    let mut newlines = 0;
    let mut piece = vec![0; PIECE_BYTES];
    while at > 0 {
        let size = at.min(PIECE_BYTES as u64);
        at -= size;
        let bytes = &mut piece[..usize::try_from(size).unwrap_or(PIECE_BYTES)];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(bytes)?;
        for (offset, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            newlines += 1;
            // The newline before the first wanted line ends the search.
            if newlines > lines {
                return Ok((at + offset as u64 + 1, lines));
            }
        }
    }
    Ok((0, newlines))
}

/// The end of a log as a termination message.
pub(crate) fn last_words(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let (start, _) = tail_start(&mut file, LAST_WORDS_LINES)?;
        let end = file.seek(SeekFrom::End(0))?;
        // Each line has a head of some forty bytes that is not shown: twice the bound is enough of the file.
        let start =
            start.max(end.saturating_sub(2 * LAST_WORDS_BYTES as u64 + LAST_WORDS_LINES * 64));
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut text = Vec::new();
        let mut at_line_start = true;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            at_line_start = render(line, &Query::default(), at_line_start, &mut text);
        }
        let from = text.len().saturating_sub(LAST_WORDS_BYTES);
        Ok(String::from_utf8_lossy(&text[from..]).into_owned())
    };
    read().unwrap_or_default()
}

/// The file beside a log into which its container may write why it ends (`terminationMessagePath`).
pub(crate) fn message_file(log: &Path) -> PathBuf {
    log.with_extension("message")
}

/// Reads the end of what a container wrote into its [`message_file`], and removes it.
pub(crate) fn take_message(log: &Path, longest: usize) -> String {
    let path = message_file(log);
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(&path)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(longest as u64)))?;
        let mut bytes = Vec::new();
        // A guest that still ends may write on.
        file.take(longest as u64).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "termination message not removed");
        }
        Ok(()) | Err(_) => (),
    }
    text
}

/// Removes the log of one attempt.
pub(crate) async fn remove_attempt(directory: &Path, attempt: u32) {
    let path = directory.join(format!("{attempt}.log"));
    let removed = tokio::task::spawn_blocking(move || {
        for file in rotated_files(&path).into_iter().chain([path]) {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %file.display(), %error, "old log not removed");
                }
                Ok(()) | Err(_) => (),
            }
        }
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "old log not removed");
    }
}

/// Removes every log of a pod.
pub(crate) async fn remove_all(directory: &Path) -> io::Result<()> {
    match tokio::fs::remove_dir_all(directory).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::snapshot::ContainerView;

    const LINES: &str = "2026-01-01T00:00:01.000000000Z stdout F one\n\
        2026-01-01T00:00:02.000000000Z stdout P tw\n\
        2026-01-01T00:00:02.100000000Z stdout F o\n\
        2026-01-01T00:00:03.000000000Z stderr F three\n";

    fn shown(running: bool) -> Snapshot {
        let view = ContainerView { attempt: Some(0), running, id: None, waiting: None };
        Snapshot { containers: [("c".to_owned(), view)].into(), ..Snapshot::default() }
    }

    fn attempt(running: bool) -> (watch::Sender<Snapshot>, Attempt) {
        let (show, pod) = watch::channel(shown(running));
        (show, Attempt { container: "c".to_owned(), number: 0, pod })
    }

    async fn check(query: Query, expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, LINES).unwrap();
        let (_show, attempt) = attempt(false);
        let (out, mut pieces) = mpsc::channel(4);
        let reader = tokio::spawn(send(path, query.clone(), attempt, out));
        let mut text = Vec::new();
        while let Some(piece) = pieces.recv().await {
            text.extend_from_slice(&piece.unwrap());
        }
        reader.await.unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expected, "{query:?}");
    }

    #[tokio::test]
    async fn a_log_is_read_as_it_is_asked_for() {
        check(Query::default(), "one\ntwo\nthree\n").await;
        check(Query { tail_lines: Some(1), ..Query::default() }, "three\n").await;
        check(Query { tail_lines: Some(0), ..Query::default() }, "").await;
        check(Query { tail_lines: Some(100), ..Query::default() }, "one\ntwo\nthree\n").await;
        check(Query { limit_bytes: Some(6), ..Query::default() }, "one\ntw").await;
        let since = Some("2026-01-01T00:00:02.5Z".parse().unwrap());
        check(Query { since, ..Query::default() }, "three\n").await;
        check(Query { follow: true, ..Query::default() }, "one\ntwo\nthree\n").await;
        let stamped = "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:02.000000000Z two\n\
                       2026-01-01T00:00:03.000000000Z three\n";
        check(Query { timestamps: true, ..Query::default() }, stamped).await;
    }

    #[tokio::test]
    async fn a_follower_sees_new_lines_through_a_rotation_until_the_container_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, LINES).unwrap();
        let (show, attempt) = attempt(true);
        let (out, mut pieces) = mpsc::channel(4);
        let query = Query { follow: true, tail_lines: Some(1), ..Query::default() };
        let reader = tokio::spawn(send(path.clone(), query, attempt, out));
        let mut seen = String::new();
        let mut until = async |end: &str| {
            let wait = async {
                while !seen.ends_with(end) {
                    seen.push_str(
                        std::str::from_utf8(&pieces.recv().await.unwrap().unwrap()).unwrap(),
                    );
                }
            };
            tokio::time::timeout(Duration::from_secs(5), wait).await.expect("nothing came");
        };
        until("three\n").await;
        let append = |path: &Path, text: &str| {
            let mut file =
                std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "2026-01-01T00:00:04.000000000Z stdout F {text}").unwrap();
        };
        append(&path, "four");
        until("four\n").await;
        append(&path, "five");
        std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
        append(&path, "six");
        until("five\nsix\n").await;
        append(&path, "last");
        show.send_replace(shown(false));
        until("last\n").await;
        tokio::time::timeout(Duration::from_secs(5), reader)
            .await
            .expect("the follower did not end")
            .unwrap();
        assert_eq!(seen, "three\nfour\nfive\nsix\nlast\n");
    }

    #[test]
    fn the_last_words_are_the_end_of_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, LINES).unwrap();
        assert_eq!(last_words(&path), "one\ntwo\nthree\n");
        std::fs::write(&path, LINES.repeat(100)).unwrap();
        let words = last_words(&path);
        assert!(words.len() <= LAST_WORDS_BYTES && words.ends_with("three\n"));
        std::fs::write(&path, "2026-01-01T00:00:00Z stdout P DONE\n").unwrap();
        assert_eq!(last_words(&path), "DONE", "no newline that the container did not print");
        assert_eq!(last_words(&directory.path().join("absent")), "");
    }

    #[test]
    fn of_a_message_the_end_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        assert_eq!(take_message(&log, 4), "");
        std::fs::write(message_file(&log), "goodbye").unwrap();
        assert_eq!(take_message(&log, 4), "dbye");
        assert_eq!(take_message(&log, 4), "");
    }
}
