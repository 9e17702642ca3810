//! What people and scripts get to see: results on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use tracing_subscriber::EnvFilter;

/// The command was used wrongly: exit code 2, where other failures are 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// A [`UsageError`] as `anyhow` error.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// One line of the result. It is flushed, so that a script that waits for it gets it.
pub(crate) fn line(text: impl Display) {
    let mut out = io::stdout().lock();
    // A closed pipe (`bridge … | head`) is not our failure.
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// One line that says what is going on.
pub(crate) fn note(text: impl Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// A question, without a line break after it.
pub(crate) fn ask(text: impl Display) {
    let mut err = io::stderr().lock();
    drop(write!(err, "{text}").and_then(|()| err.flush()));
}

/// The reason why the command failed, with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("error: {error:#}"));
}

/// Log lines of the functions and the embedded AWS.
///
/// `quiet` keeps their warnings back: the demo plays broken payloads on purpose and tells itself what came of them.
pub(crate) fn init_log(verbose: u8, quiet: bool) {
    let filter = match verbose {
        0 if quiet => "off",
        0 => "warn,dynoxide=error",
        1 => "info,dynoxide=warn",
        _ => "debug,hyper_util=info",
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}
