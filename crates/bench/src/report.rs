//! What was found: one table that people read, and that goes into the README as it is.

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail};

const HEAD: [&str; 5] = ["benchmark", "what", "median", "p99", "aim"];

/// The lines found so far, and what failed.
#[derive(Default)]
pub struct Report {
    rows: Vec<[String; 5]>,
    failures: Vec<String>,
    notes: Vec<String>,
}

/// What was measured, in the unit it is shown in.
pub struct Figure {
    /// The median.
    pub median: String,
    /// The 99th percentile, where somebody asked for it.
    pub p99: Option<String>,
}

impl Report {
    /// Adds a line. `aim` is what the issue asks for, if it asks for anything.
    pub fn add(&mut self, benchmark: &str, what: &str, figure: Figure, aim: &str) {
        eprintln!("  {what}: {}", figure.median);
        self.rows.push([
            benchmark.to_owned(),
            what.to_owned(),
            figure.median,
            figure.p99.unwrap_or_default(),
            aim.to_owned(),
        ]);
    }

    /// Adds a sentence below the table.
    pub fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    /// Remembers that a benchmark did not get to its end.
    pub fn failed(&mut self, benchmark: &str, error: &anyhow::Error) {
        eprintln!("  failed: {error:#}");
        self.failures.push(benchmark.to_owned());
    }

    /// Prints the command, the machine and the table.
    pub fn print(&self, names: &[String]) {
        let names: String = names.iter().map(|name| format!(" {name}")).collect();
        println!("\n`cargo xtask bench{names}` on {}\n", machine());
        let head = HEAD.map(str::to_owned);
        let width = |column: usize| {
            let cells = std::iter::once(&head).chain(&self.rows);
            cells.map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: [usize; 5] = std::array::from_fn(width);
        print_row(&head, &widths);
        print_row(&widths.map(|width| "-".repeat(width)), &widths);
        for row in &self.rows {
            print_row(row, &widths);
        }
        for note in &self.notes {
            println!("\n{note}");
        }
    }

    /// An error that names what failed, if anything did.
    pub fn into_result(self) -> Result<()> {
        if self.failures.is_empty() {
            return Ok(());
        }
        bail!("not measured: {}", self.failures.join(", "));
    }
}

fn print_row(cells: &[String; 5], widths: &[usize; 5]) {
    let cells: Vec<String> =
        cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    println!("| {} |", cells.join(" | "));
}

/// The machine in a few words: figures mean nothing without it.
fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = field("/proc/cpuinfo", "model name");
    let memory = field("/proc/meminfo", "MemTotal");
    let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} × {model}, {} GiB, Linux {}", memory_kib >> 20, kernel.trim())
}

/// The value in the middle, and the one that 99 of 100 do not exceed.
pub fn median_and_p99(mut durations: Vec<Duration>) -> (Duration, Duration) {
    durations.sort_unstable();
    let at = |percent: usize| {
        let last = durations.len().saturating_sub(1);
        durations.get(last * percent / 100).copied().unwrap_or_default()
    };
    (at(50), at(99))
}

/// Durations as `12.3 ms`: median and 99th percentile.
pub fn times(durations: Vec<Duration>) -> Figure {
    let (median, p99) = median_and_p99(durations);
    Figure { median: milliseconds(median), p99: Some(milliseconds(p99)) }
}

/// Durations of which there are too few for a percentile.
pub fn few_times(durations: Vec<Duration>) -> Figure {
    Figure { p99: None, ..times(durations) }
}

/// One duration as the table shows it.
pub fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    if milliseconds >= 100.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{milliseconds:.1} ms")
    }
}

/// A rate as `12,345/s`.
pub fn rate(per_second: f64) -> String {
    let digits = format!("{per_second:.0}");
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown + "/s"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_99th_of_a_hundred() {
        let durations = (1..=100).rev().map(Duration::from_millis).collect();
        let (median, p99) = median_and_p99(durations);
        assert_eq!((median.as_millis(), p99.as_millis()), (50, 99));
        assert_eq!(median_and_p99(Vec::new()), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(rate(1_234_567.4), "1,234,567/s");
        assert_eq!(rate(999.0), "999/s");
        assert_eq!(milliseconds(Duration::from_micros(12_345)), "12.3 ms");
        assert_eq!(milliseconds(Duration::from_millis(1_234)), "1234 ms");
    }
}
