//! Guests as text: each does one thing that a good guest would not.

/// Grows its memory until it is refused, then traps as an allocator does.
pub const ALLOCATES: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more
      (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    unreachable))"#;

/// Computes for ever.
pub const SPINS: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "_start") (loop $again (br $again))))"#;

/// Prints a kilobyte a million times, which is a gigabyte.
pub const PRINTS: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $left i32)
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 1024))
    (memory.fill (i32.const 1024) (i32.const 120) (i32.const 1023))
    (i32.store8 (i32.const 2047) (i32.const 10))
    (local.set $left (i32.const 1000000))
    (loop $more
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 512)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (local.get $left)))))"#;

/// Divides by zero in a function with a name.
pub const TRAPS: &str = r#"(module
  (memory (export "memory") 1)
  (func $divide (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
  (func (export "_start") (drop (call $divide (i32.const 0)))))"#;

/// Wants what no node offers.
pub const IMPORTS: &str = r#"(module
  (import "env" "launch_missiles" (func))
  (memory (export "memory") 1)
  (func (export "_start")))"#;

/// Opens `/etc/passwd` below whatever directory it was given, and exits with what WASI said of it.
pub const OPENS: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "../../../../etc/passwd")
  (func (export "_start")
    (call $exit (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 22)
      (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 32)))))"#;

/// Ends at once with an exit code.
pub fn exits(code: u8) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const {code}))))"#
    )
}

/// The module that a text describes.
///
/// # Panics
/// When the text is no module.
pub fn module(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the guest is well-formed")
}
