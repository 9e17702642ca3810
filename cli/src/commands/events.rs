//! `bridge events`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::function_events::{self, Difference};
use crate::output::{self, usage};

/// Keep the function events of `sam local invoke` up to date
///
/// Each file `events/<function>/<case>.json` is what Lambda hands to a function: a payload as API Gateway passes it on,
/// signed with the development secrets; a batch of the outbox's stream; what a schedule sends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bridge events --check\n  \
    bridge events --write\n  \
    sam local invoke MessengerEventsFunction --event events/messenger-events/message_text.json")]
pub(crate) struct Args {
    /// Say which files are missing, stale or left over; exit 1 if any
    #[arg(long, required_unless_present = "write", conflicts_with = "write")]
    check: bool,

    /// Write what is missing or stale, and remove what is left over
    #[arg(long)]
    write: bool,

    /// The directory of the events
    #[arg(long, value_name = "DIR", default_value = "events")]
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !args.dir.is_dir() {
        return Err(usage(format!(
            "there is no directory {}; run this where the repository is, or say --dir",
            args.dir.display()
        )));
    }
    let differences = function_events::differences(&args.dir)?;
    for difference in &differences {
        let path = args.dir.join(difference.file());
        if args.write {
            apply(&path, difference).with_context(|| format!("cannot write {}", path.display()))?;
        }
        output::line(format_args!("{:<9} {}", difference.word(), path.display()));
    }
    if differences.is_empty() {
        output::line("all function events are up to date");
    } else if args.check {
        bail!(
            "{} function events differ; `bridge events --write` mends them",
            differences.len()
        );
    }
    Ok(())
}

fn apply(path: &Path, difference: &Difference) -> std::io::Result<()> {
    match difference {
        Difference::LeftOver { .. } => std::fs::remove_file(path),
        Difference::Missing(file) | Difference::Stale(file) => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, &file.content)
        }
    }
}
