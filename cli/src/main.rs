//! `bridge`: meta-braze-bridge on one machine, and its operations.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    bridge::run().await
}
