//! One line of a log file, as a reader sees it.

use jiff::Timestamp;

use super::Stream;

/// A line of the file taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// When the container printed it.
    pub at: Timestamp,
    /// Where it printed it.
    pub stream: Stream,
    /// True when the next line of this stream goes on with the text.
    pub partial: bool,
    /// What it printed, without a newline.
    pub text: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// Takes a line of the file apart, with or without its newline; `None` when it is malformed.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let at = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let partial = match parts.next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Self { at, stream, partial, text: parts.next()? })
    }
}
