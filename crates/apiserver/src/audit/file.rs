//! The file that events go to: a task that writes lines, and begins a new file when one is large enough.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

/// Where events go, and how many are kept.
#[derive(Debug, Clone, Default)]
pub struct LogFile {
    /// The file; `-` is the standard output.
    pub path: PathBuf,
    /// A file larger than this is put aside; 0 means 100 MB.
    pub max_megabytes: u64,
    /// How many old files are kept; 0 keeps all.
    pub max_backups: usize,
    /// How many days old files are kept; 0 keeps them for ever.
    pub max_days: u64,
}

/// As upstream's library has it.
const DEFAULT_MEGABYTES: u64 = 100;

/// The open file.
pub(super) struct Writer {
    settings: LogFile,
    file: Option<File>,
    bytes: u64,
}

impl Writer {
    pub(super) fn open(settings: LogFile) -> io::Result<Self> {
        let mut writer = Self { settings, file: None, bytes: 0 };
        if writer.settings.path != Path::new("-") {
            writer.reopen()?;
        }
        Ok(writer)
    }

    /// Writes until nobody can send any more.
    pub(super) fn run(mut self, mut lines: mpsc::Receiver<Vec<u8>>) {
        while let Some(line) = lines.blocking_recv() {
            if let Err(error) = self.write(&line) {
                tracing::error!(%error, path = %self.settings.path.display(), "cannot write the audit log");
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let most = match self.settings.max_megabytes {
            0 => DEFAULT_MEGABYTES,
            megabytes => megabytes,
        } << 20;
        let length = line.len() as u64;
        if self.file.is_some() && self.bytes > 0 && self.bytes + length > most {
            self.rotate()?;
        }
        self.bytes += length;
        match &mut self.file {
            Some(file) => file.write_all(line),
            None => io::stdout().lock().write_all(line),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Some(directory) =
            self.settings.path.parent().filter(|path| !path.as_os_str().is_empty())
        {
            fs::create_dir_all(directory)?;
        }
        // It tells who reads which secret, and may hold what was sent.
        let file =
            OpenOptions::new().append(true).create(true).mode(0o600).open(&self.settings.path)?;
        self.bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Puts the file aside under its time, as `audit-2026-01-02T03-04-05.678.log`.
    fn rotate(&mut self) -> io::Result<()> {
        let (stem, extension) = self.name_parts();
        let mut time = Timestamp::now();
        let aside = loop {
            let text = time.strftime("%Y-%m-%dT%H-%M-%S%.3f");
            let aside = self.settings.path.with_file_name(format!("{stem}-{text}{extension}"));
            // Two in one millisecond: a file that was put aside is never written over.
            if !aside.try_exists()? {
                break aside;
            }
            time += SignedDuration::from_millis(1);
        };
        fs::rename(&self.settings.path, aside)?;
        self.reopen()?;
        self.remove_old()
    }

    fn name_parts(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let extension = part(self.settings.path.extension());
        let extension = if extension.is_empty() { extension } else { format!(".{extension}") };
        (part(self.settings.path.file_stem()), extension)
    }

    fn remove_old(&self) -> io::Result<()> {
        let (stem, extension) = self.name_parts();
        let directory = match self.settings.path.parent() {
            Some(path) if !path.as_os_str().is_empty() => path,
            _ => Path::new("."),
        };
        let mut old: Vec<(String, PathBuf)> = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix(&format!("{stem}-"));
            if rest.is_some_and(|rest| rest.ends_with(&extension) && rest.contains('T')) {
                old.push((name, entry.path()));
            }
        }
        // Their names hold their times: the youngest first.
        old.sort_unstable_by(|one, other| other.cmp(one));
        let keep = match self.settings.max_backups {
            0 => usize::MAX,
            backups => backups,
        };
        let age = Duration::from_secs(self.settings.max_days * 24 * 60 * 60);
        for (index, (_, path)) in old.iter().enumerate() {
            let is_aged = !age.is_zero()
                && fs::metadata(path).and_then(|metadata| metadata.modified()).is_ok_and(|at| {
                    SystemTime::now().duration_since(at).is_ok_and(|since| since > age)
                });
            if index >= keep || is_aged {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_put_aside_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let settings = LogFile {
            path: directory.path().join("audit.log"),
            max_megabytes: 1,
            max_backups: 2,
            max_days: 0,
        };
        let mut writer = Writer::open(settings.clone()).unwrap();
        let line = vec![b'x'; 700 << 10];
        for _ in 0..5 {
            writer.write(&line).unwrap();
        }
        let files = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, 3);
        assert_eq!(fs::metadata(&settings.path).unwrap().len(), 700 << 10);
    }
}
