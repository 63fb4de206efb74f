//! What becomes of a container when its guest returns, traps or is stopped.
//!
//! | what happened | exit code | reason |
//! | --- | --- | --- |
//! | returned, or exited with 0 | 0 | Completed |
//! | exited with N | N | Error |
//! | a component's `run` returned an error | 1 | Error |
//! | trapped | 134, as a process that aborts, and as `wasmtime run` has it | Error |
//! | died after its memory limit was reached | 137 | OOMKilled |
//! | a command was stopped: WASI has no signals, so it ends at once | 143 | Error |
//! | a server was stopped and had answered everything within the grace | 0 | Completed |
//! | a server was still busy when the grace was over | 137 | Error |

use coracle_runtime::ExitReason;
use wasmtime_wasi::I32Exit;

use crate::memory::Denied;

/// What fits a termination message upstream.
const MESSAGE_BYTES: usize = 4096;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) exit_code: i32,
    pub(crate) reason: ExitReason,
    pub(crate) message: String,
}

impl Ending {
    pub(crate) fn exited(exit_code: i32) -> Self {
        let reason = if exit_code == 0 { ExitReason::Completed } else { ExitReason::Error };
        Self { exit_code, reason, message: String::new() }
    }

    /// Ended by a stop, before or after its grace.
    pub(crate) fn stopped() -> Self {
        Self::exited(143)
    }

    pub(crate) fn killed() -> Self {
        Self::exited(137)
    }

    pub(crate) fn failed(message: String) -> Self {
        Self { exit_code: 128, reason: ExitReason::Error, message: clipped(message) }
    }

    pub(crate) fn out_of_memory(message: String) -> Self {
        Self { exit_code: 137, reason: ExitReason::OomKilled, message: clipped(message) }
    }

    /// From what a guest's call ended with. `denied` says whether it was refused memory before.
    pub(crate) fn of_error(error: &wasmtime::Error, denied: Option<Denied>) -> Self {
        if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
            return Self::exited(*code);
        }
        let message = trap_message(error);
        match denied {
            Some(_) => Self::out_of_memory(format!("memory limit reached: {message}")),
            None => Self { exit_code: 134, reason: ExitReason::Error, message: clipped(message) },
        }
    }
}

/// The trap first, then where it happened: a status is often shown cut off.
pub(crate) fn trap_message(error: &wasmtime::Error) -> String {
    let cause = error.root_cause().to_string();
    match error.downcast_ref::<wasmtime::WasmBacktrace>() {
        Some(backtrace) => format!("{cause}\n{backtrace}"),
        None => format!("{error:#}"),
    }
}

fn clipped(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        let end = (0..=MESSAGE_BYTES).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_clipped_between_characters() {
        let message = clipped(format!("{}é", "x".repeat(MESSAGE_BYTES - 1)));
        assert_eq!(message.len(), MESSAGE_BYTES - 1);
    }
}
