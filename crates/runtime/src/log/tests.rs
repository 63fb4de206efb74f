use super::*;

fn lines(path: &Path) -> Vec<(Stream, bool, String)> {
    let mut found = Vec::new();
    for file in rotated_files(path).into_iter().chain([path.to_owned()]) {
        for line in std::fs::read(file).unwrap().split_inclusive(|byte| *byte == b'\n') {
            let line = LogLine::parse(line).expect("a well-formed line");
            found.push((line.stream, line.partial, String::from_utf8(line.text.to_vec()).unwrap()));
        }
    }
    found
}

async fn written(limits: LogLimits, pieces: &[(Stream, &str)]) -> Vec<(Stream, bool, String)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pod/0.log");
    let logs = Logs::start().unwrap();
    let log = logs.open(&path, limits).unwrap();
    let (mut out, mut err) = (log.stream(Stream::Stdout), log.stream(Stream::Stderr));
    for (stream, text) in pieces {
        match stream {
            Stream::Stdout => out.write_all(text.as_bytes()).await,
            Stream::Stderr => err.write_all(text.as_bytes()).await,
        }
    }
    log.close().await;
    lines(&path)
}

#[tokio::test]
async fn lines_are_joined_per_stream_and_the_last_one_is_not_lost() {
    use Stream::{Stderr, Stdout};
    let found =
        written(LogLimits::default(), &[(Stdout, "a"), (Stderr, "x\n"), (Stdout, "b\n\nc")]).await;
    let parts =
        [(Stderr, false, "x"), (Stdout, false, "ab"), (Stdout, false, ""), (Stdout, true, "c")];
    assert_eq!(found, parts.map(|(stream, partial, text)| (stream, partial, text.to_owned())));
}

#[tokio::test]
async fn a_long_line_comes_in_pieces() {
    let text = "y".repeat(PARTIAL_BYTES * 2 + 5) + "\n";
    let found = written(LogLimits::default(), &[(Stream::Stdout, &text)]).await;
    let pieces: Vec<(bool, usize)> = found.iter().map(|line| (line.1, line.2.len())).collect();
    assert_eq!(pieces, [(true, PARTIAL_BYTES), (true, PARTIAL_BYTES), (false, 5)]);
    let exact = "z".repeat(PARTIAL_BYTES) + "\n";
    assert_eq!(written(LogLimits::default(), &[(Stream::Stdout, &exact)]).await.len(), 1);
}

#[tokio::test]
async fn files_are_rotated_between_lines_and_the_oldest_goes() {
    let limits = LogLimits { file_bytes: 1000, files: 3 };
    let text: String = (0..200).map(|number| format!("line {number}\n")).collect();
    let found = written(limits, &[(Stream::Stdout, &text)]).await;
    assert_eq!(found.last().unwrap().2, "line 199");
    assert!(found.len() < 70 && found.len() > 20, "{} lines kept", found.len());
    let first: usize = found[0].2.strip_prefix("line ").unwrap().parse().unwrap();
    for (offset, line) in found.iter().enumerate() {
        assert_eq!(line.2, format!("line {}", first + offset));
    }
}

#[tokio::test]
async fn a_full_buffer_makes_the_writer_wait_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let logs = Logs::start().unwrap();
    let log = logs.open(&path, LogLimits { file_bytes: u64::MAX, files: 2 }).unwrap();
    let mut stream = log.stream(Stream::Stdout);
    let line = "0123456789".repeat(100) + "\n";
    for _ in 0..5000 {
        stream.write_all(line.as_bytes()).await;
        assert!(log.shared.buffer.lock().len() <= BUFFER_BYTES + GRANTED_BYTES + 2 * Head::BYTES);
    }
    log.close().await;
    assert_eq!(lines(&path).len(), 5000);
}

#[test]
fn malformed_lines_are_not_parsed() {
    for line in ["", "x", "2026-01-01T00:00:00Z stdout", "2026-01-01T00:00:00Z stdout X y"] {
        assert_eq!(LogLine::parse(line.as_bytes()), None);
    }
}
