//! `objects` of `crates/fuzz`, with libFuzzer.
#![no_main]

use coracle_fuzz::target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| (target("objects").run)(bytes));
