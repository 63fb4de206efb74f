//! The targets by name.

mod certificates;
mod configuration;
mod expressions;
mod objects;
mod patches;
mod requests;
mod words;

/// Something that takes bytes from outside.
pub struct Target {
    /// Its name on the command line, and in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Gives it these bytes; a panic is a finding.
    pub run: fn(&[u8]),
    /// Good and nearly good inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "objects", run: objects::run, seeds: objects::seeds },
    Target { name: "patches", run: patches::run, seeds: patches::seeds },
    Target { name: "apply", run: patches::run_apply, seeds: patches::apply_seeds },
    Target { name: "selectors", run: words::run_selectors, seeds: words::selector_seeds },
    Target { name: "quantities", run: words::run_quantities, seeds: words::quantity_seeds },
    Target { name: "expressions", run: expressions::run, seeds: expressions::seeds },
    Target { name: "certificates", run: certificates::run, seeds: certificates::seeds },
    Target { name: "configuration", run: configuration::run, seeds: configuration::seeds },
    Target { name: "requests", run: requests::run, seeds: requests::seeds },
    Target {
        name: "credentials",
        run: requests::run_credentials,
        seeds: requests::credential_seeds,
    },
];

/// The target of this name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target {name}"))
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
