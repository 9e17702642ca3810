//! dynoxide's database, with an index that it lacks.

use std::path::Path;

use anyhow::Context as _;
use dynoxide::Database;
use rusqlite::Connection;

/// For each write to a table with a stream, dynoxide looks among all records that there ever were for the last one. By this
/// index it finds it at once, so that a stack is no slower for having run for a while.
const INDEX: &str = "CREATE INDEX IF NOT EXISTS stream_order ON _stream_records (table_name, CAST(sequence_number AS INTEGER))";

/// The database in a folder, or one in memory.
pub(super) fn open(data_dir: Option<&Path>) -> anyhow::Result<Database> {
    match data_dir {
        Some(folder) => on_disk(folder),
        None => in_memory(),
    }
    .context("the embedded DynamoDB does not open")
}

fn on_disk(folder: &Path) -> anyhow::Result<Database> {
    let path = folder.join("dynamodb.sqlite");
    let database = Database::new(&path.to_string_lossy())?;
    Connection::open(&path)?.execute_batch(INDEX)?;
    Ok(database)
}

/// What is in memory can be reached by way of a snapshot only.
fn in_memory() -> anyhow::Result<Database> {
    let database = Database::memory()?;
    let folder = tempfile::tempdir()?;
    let snapshot = folder.path().join("snapshot.sqlite");
    database.vacuum_into(&snapshot.to_string_lossy())?;
    Connection::open(&snapshot)?.execute_batch(INDEX)?;
    database.restore_from(&snapshot.to_string_lossy())?;
    Ok(database)
}
