//! Every target takes its seeds and some changes of them. For longer than this test takes: `cargo xtask fuzz`.

use coracle_fuzz::{Mutator, TARGETS};

/// Enough to see that a target works at all.
const CHANGED: usize = 150;

#[test]
fn every_target_takes_its_seeds_and_changes_of_them() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        seeds.iter().for_each(|seed| (target.run)(seed));
        let mut mutator = Mutator::new(1, seeds);
        for _ in 0..CHANGED {
            (target.run)(&mutator.next_input());
        }
    }
}

#[test]
fn one_number_decides_all_inputs() {
    let inputs = |seed| {
        let mut mutator = Mutator::new(seed, vec![b"{\"a\": [1, 2]}".to_vec()]);
        (0..100).map(|_| mutator.next_input()).collect::<Vec<_>>()
    };
    assert_eq!(inputs(7), inputs(7));
    assert_ne!(inputs(7), inputs(8));
}
