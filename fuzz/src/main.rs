//! One target under libFuzzer: the one that `FUZZ_TARGET` names. `scripts/fuzz` runs it.
#![no_main]

use std::sync::LazyLock;

use fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let mut targets = TARGETS.into_iter();
    match targets.find(|(known, _)| *known == name) {
        Some((_, target)) => target,
        None => panic!("FUZZ_TARGET is `{name}`"),
    }
});

fuzz_target!(|data: &[u8]| CHOSEN(data));
