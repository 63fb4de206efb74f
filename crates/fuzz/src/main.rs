//! Runs the targets for a while each, with any compiler: `cargo xtask fuzz`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use coracle_fuzz::{Mutator, TARGETS, Target, target};
use rustix::process::{Resource, Rlimit, setrlimit};

/// An input that takes longer hangs.
const HANG: Duration = Duration::from_secs(20);
/// All that a target may map; whatever wants more is not bounded.
const MEMORY_BYTES: u64 = 8 << 30;

/// Gives every target many inputs. The first panic, hang or crash ends it, and its input is kept.
#[derive(Parser)]
struct Arguments {
    /// The target.
    target: String,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides all inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Gives the target this file instead.
    #[arg(long)]
    input: Option<PathBuf>,
    /// Where the input that is under way is kept.
    #[arg(long, default_value = "target/fuzz")]
    keep: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.target == "list" {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return Ok(());
    }
    if !TARGETS.iter().any(|target| target.name == arguments.target) {
        bail!("there is no target {}", arguments.target);
    }
    let target = target(&arguments.target);
    let bounds = Rlimit { current: Some(MEMORY_BYTES), maximum: Some(MEMORY_BYTES) };
    setrlimit(Resource::As, bounds).context("cannot bound the memory")?;
    if let Some(input) = &arguments.input {
        let bytes = fs::read(input).with_context(|| format!("cannot read {}", input.display()))?;
        (target.run)(&bytes);
        return Ok(());
    }
    fs::create_dir_all(&arguments.keep)?;
    let kept = arguments.keep.join(target.name);
    fuzz(target, arguments, &kept)
}

fn fuzz(target: &Target, arguments: &Arguments, kept: &Path) -> Result<()> {
    let file = File::create(kept).with_context(|| format!("cannot write {}", kept.display()))?;
    let keep = |input: &[u8]| -> Result<()> {
        file.set_len(u64::try_from(input.len())?)?;
        file.write_all_at(input, 0)?;
        Ok(())
    };
    let seeds = (target.seeds)();
    let inputs = watch_for_hangs(kept.to_path_buf());
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    for seed in &seeds {
        keep(seed)?;
        (target.run)(seed);
        inputs.fetch_add(1, Ordering::Relaxed);
    }
    let mut mutator = Mutator::new(arguments.seed, seeds);
    while Instant::now() < end {
        let input = mutator.next_input();
        keep(&input)?;
        (target.run)(&input);
        inputs.fetch_add(1, Ordering::Relaxed);
    }
    println!("{}: {} inputs", target.name, inputs.load(Ordering::Relaxed));
    fs::remove_file(kept)?;
    Ok(())
}

/// Ends the process when the number that it answers stays the same for too long.
fn watch_for_hangs(kept: PathBuf) -> Arc<AtomicU64> {
    let inputs = Arc::new(AtomicU64::new(0));
    let watched = Arc::clone(&inputs);
    thread::spawn(move || {
        let mut last = (0, Instant::now());
        loop {
            thread::sleep(HANG / 20);
            let now = watched.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > HANG {
                eprintln!("hangs: {}", kept.display());
                std::process::exit(3);
            }
        }
    });
    inputs
}
