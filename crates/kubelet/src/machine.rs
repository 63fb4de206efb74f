//! What this machine is: cores, memory, disk, names. Everything is read from the system, nothing is guessed silently.

use std::path::Path;

use crate::amounts::Amounts;

/// Upstream's default is 110, which bounds what its network ranges and its per-pod processes can bear. A Wasm pod is
/// neither a process nor a range: a machine that runs one runs thousands.
pub(crate) const MAX_PODS: u64 = 2000;

/// Facts about the machine that do not change while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Its id, `/etc/machine-id`.
    pub(crate) machine_id: String,
    /// The id of this boot.
    pub(crate) boot_id: String,
    /// The kernel's version.
    pub(crate) kernel: String,
    /// The system's name for people.
    pub(crate) os_image: String,
}

impl Machine {
    /// Looks at the machine.
    pub(crate) fn look() -> Self {
        let read = |path: &str| {
            std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        let uname = rustix::system::uname();
        Self {
            machine_id: read("/etc/machine-id"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: uname.release().to_string_lossy().into_owned(),
            os_image: os_image(&read("/etc/os-release")),
        }
    }
}

/// The system as Kubernetes names it.
pub(crate) fn operating_system() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// The processor as Kubernetes names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// What the machine has; zero memory when that cannot be told.
pub(crate) fn capacity() -> Amounts {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    Amounts { cpu_millis: cores * 1000, memory_bytes: memory_bytes("MemTotal:"), pods: MAX_PODS }
}

/// A disk with so much left is not short of room, whatever part of it that is.
const ROOM: u64 = 2 << 30;

/// What is free of memory and disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// True when memory is short.
    pub(crate) memory: bool,
    /// True when the disk is nearly full.
    pub(crate) disk: bool,
}

impl Pressure {
    /// Looks at memory and at the disk of the data directory, with the thresholds of upstream's hard eviction, but for a
    /// large disk: a tenth of it may be more than all images here will ever take.
    pub(crate) fn look(data_dir: &Path) -> Self {
        let available = memory_bytes("MemAvailable:");
        let disk = disk(data_dir);
        Self {
            memory: available > 0 && available < 100 << 20,
            disk: disk.is_some_and(|disk| disk.is_short()),
        }
    }
}

/// The file system of a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk {
    /// Its size.
    pub(crate) total_bytes: u64,
    /// What may still be written.
    pub(crate) free_bytes: u64,
    /// How many files it can hold.
    pub(crate) inodes: u64,
    /// How many more it can hold.
    pub(crate) free_inodes: u64,
}

impl Disk {
    /// Whether so little is left that no pod should come.
    fn is_short(self) -> bool {
        let is_low = self.free_bytes * 10 < self.total_bytes && self.free_bytes < ROOM;
        is_low || self.free_inodes * 20 < self.inodes
    }
}

/// The file system that holds this directory, if it can be told.
pub(crate) fn disk(directory: &Path) -> Option<Disk> {
    let status = rustix::fs::statvfs(directory).ok()?;
    Some(Disk {
        total_bytes: status.f_blocks.saturating_mul(status.f_frsize),
        free_bytes: status.f_bavail.saturating_mul(status.f_frsize),
        inodes: status.f_files,
        free_inodes: status.f_favail,
    })
}

/// Memory that is in use on the machine, for summaries.
pub(crate) fn memory_used_bytes() -> u64 {
    memory_bytes("MemTotal:").saturating_sub(memory_bytes("MemAvailable:"))
}

/// How finely Linux tells processor time in `/proc/stat`: the same for every program, whatever the kernel's own tick is.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time that all of the machine has used since its start, where that can be told.
pub(crate) fn cpu_used_nanoseconds() -> Option<u64> {
    cpu_nanoseconds(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn cpu_nanoseconds(stat: &str) -> Option<u64> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (user, nice, system, _idle, _waiting) = (next()?, next()?, next()?, next()?, next()?);
    let interrupts = next().unwrap_or(0) + next().unwrap_or(0);
    let stolen = next().unwrap_or(0);
    Some((user + nice + system + interrupts + stolen) * (1_000_000_000 / TICKS_PER_SECOND))
}

fn memory_bytes(line: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = text.lines().find_map(|candidate| candidate.strip_prefix(line));
    let kilobytes = value
        .and_then(|value| value.trim().strip_suffix("kB"))
        .and_then(|value| value.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| operating_system().to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_what_was_not_idle() {
        let stat = "cpu  10 1 20 4000 300 2 3 4 0 0\ncpu0 5 0 10 2000 150 1 1 2 0 0\n";
        assert_eq!(cpu_nanoseconds(stat), Some(400_000_000));
        assert_eq!(cpu_nanoseconds(""), None);
    }

    #[test]
    fn a_disk_is_short_when_little_is_left_of_it() {
        let check = |free_gib: u64, total_gib: u64, free_inodes: u64, expected: bool| {
            let (free_bytes, total_bytes) = (free_gib << 30, total_gib << 30);
            let disk = Disk { total_bytes, free_bytes, inodes: 100, free_inodes };
            assert_eq!(disk.is_short(), expected, "{disk:?}");
        };
        check(100, 250, 50, false);
        check(23, 250, 50, false);
        check(1, 250, 50, true);
        check(1, 5, 50, false);
        check(100, 250, 4, true);
    }
}
