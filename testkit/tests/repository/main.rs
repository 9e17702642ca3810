//! The repository as a whole: what `template.yaml`, the documents and the code say about each other.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod alarms;
mod documents;
mod imports;
mod secrets;
mod source;

use std::path::{Path, PathBuf};

use testkit::template::Template;

/// A path in the repository.
fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

/// A file of the repository.
fn read(relative: &str) -> String {
    let path = path(relative);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn template() -> Template {
    Template::of_the_repository().unwrap()
}

/// The rows of a document's table whose head begins with `column`, cell by cell.
fn table(document: &str, column: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let head = format!("| {column} |");
    let rows = text.lines().skip_while(|line| !line.starts_with(&head));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> = rows
        .map(|row| {
            row.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    assert!(!rows.is_empty(), "{document} has no table of {column}s");
    rows
}

/// What stands between backticks.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
