//! Every target is fed with everything that was recorded, and with it cut short: what one platform sends may reach any parser.

use std::path::{Path, PathBuf};

use fuzz::TARGETS;

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn what_was_recorded_is_read_or_refused_whole_and_cut_short() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    files_below(&here.join("seeds"), &mut files);
    files_below(&here.join("../events/payloads"), &mut files);
    assert!(files.len() > 100, "{}", files.len());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        for cut in [bytes.len(), bytes.len() / 2, bytes.len() / 3] {
            for (_, target) in TARGETS {
                target(&bytes[..cut]);
            }
        }
    }
}

#[test]
fn the_script_runs_every_target() {
    let script = include_str!("../../scripts/fuzz");
    let listed = script
        .lines()
        .find_map(|line| line.strip_prefix("targets=(")?.strip_suffix(')'));
    let listed: Vec<&str> = listed.unwrap().split(' ').collect();
    assert_eq!(listed, TARGETS.map(|(name, _)| name));
}
