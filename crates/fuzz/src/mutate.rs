//! Makes new inputs of old ones. It knows nothing of coverage; it knows what breaks parsers.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Inputs beyond this are cut: what is larger only takes longer.
const LARGEST: usize = 16 << 10;
/// So many changes are made to one input at most.
const CHANGES: usize = 6;
/// So often something is repeated at most, which is deeper than any decoder may follow.
const REPETITIONS: usize = 2_000;

/// What breaks parsers.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "\"",
    "'",
    ":",
    ",",
    "\\",
    "\\u0000",
    "\\ud800",
    "\n",
    "\t",
    " ",
    "\0",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "-0",
    "0.0000000001",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551616",
    "4294967296",
    "1E+",
    "Ki",
    "m",
    "%",
    "*",
    "&a",
    "*a",
    "<<",
    "!!binary ",
    "---\n",
    "- ",
    "? ",
    "$patch",
    "$retainKeys",
    "$deleteFromPrimitiveList/a",
    "$setElementOrder/containers",
    "~0",
    "~1",
    "/-",
    "/0",
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "==",
    "!=",
    " in ",
    " notin ",
    "&&",
    "||",
    "?",
    ".all(x, ",
    ".map(y, y)",
    "\u{e9}",
    "\u{1f600}",
    "\u{202e}",
    "-----BEGIN ",
    "-----END ",
    "resourceVersion=",
    "&continue=",
    "%00",
    "%ff",
];

/// A stream of inputs that one number decides.
pub struct Mutator {
    choice: StdRng,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    /// Begins from these inputs.
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self { choice: StdRng::seed_from_u64(seed), seeds }
    }

    /// One more input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.seed();
        for _ in 0..self.choice.random_range(1..=CHANGES) {
            self.change(&mut input);
            input.truncate(LARGEST);
        }
        input
    }

    fn seed(&mut self) -> Vec<u8> {
        if self.seeds.is_empty() {
            return Vec::new();
        }
        let at = self.choice.random_range(0..self.seeds.len());
        self.seeds[at].clone()
    }

    /// A place in the input, its end included.
    fn place(&mut self, input: &[u8]) -> usize {
        self.choice.random_range(0..=input.len())
    }

    /// A short piece of the input.
    fn piece(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let from = self.place(input);
        let length = self.choice.random_range(0..=24);
        from..(from + length).min(input.len())
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.place(input);
        match self.choice.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << self.choice.random_range(0..8),
            1 if at < input.len() => input[at] = self.choice.random(),
            2 => drop(input.splice(at..at, self.word().bytes())),
            3 => {
                let piece = self.piece(input);
                drop(input.splice(piece, self.word().bytes()));
            }
            4 => {
                let piece = self.piece(input);
                input.drain(piece);
            }
            5 => {
                let piece = self.piece(input);
                let copy = input[piece].to_vec();
                input.splice(at..at, copy);
            }
            6 => {
                // The other half of another input.
                let other = self.seed();
                let from = self.place(&other);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ if self.choice.random_ratio(1, 8) => {
                let piece = self.piece(input);
                let repeated = match self.choice.random_bool(0.5) {
                    true => self.word().as_bytes().to_vec(),
                    false => input[piece].to_vec(),
                };
                let times = self.choice.random_range(2..=REPETITIONS);
                input.splice(at..at, repeated.repeat(times));
            }
            _ => input.truncate(at),
        }
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.choice.random_range(0..WORDS.len())]
    }
}
