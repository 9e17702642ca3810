//! `bridge fakes`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::json;
use testkit::braze::{self, FakeBraze};
use testkit::external_system::{self, Behaviour, ExternalSystem};
use testkit::graph::{self, FakeGraph};
use tokio::signal::unix::{SignalKind, signal};

use crate::fakes::recorded_page;
use crate::output::{self, usage};
use crate::secrets;

/// How often what has arrived is printed.
const LOOK: Duration = Duration::from_millis(100);

/// Serve the fake Braze, Graph and external system for a stack that runs elsewhere on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Prints every request that arrives as a line of JSON, until it is stopped.")]
pub(crate) struct Args {
    /// The secrets of the stack: {"meta":{…},"braze":{…},"relay":{…}} [default: the development values]
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,

    /// A business that Graph knows, as the body of its install webhook; repeatable
    #[arg(long = "install", value_name = "FILE")]
    installs: Vec<PathBuf>,

    /// Where Braze listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4100")]
    braze_addr: SocketAddr,

    /// Where Graph listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4200")]
    graph_addr: SocketAddr,

    /// Where the external system listens, at /messages. It echoes
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4300")]
    external_system_addr: SocketAddr,

    /// A word, and how many seconds the external system takes for messages with it
    #[arg(long, value_name = "WORD=SECONDS", value_parser = slow)]
    slow: Option<(String, u64)>,
}

fn slow(text: &str) -> Result<(String, u64), String> {
    let (word, seconds) = text.split_once('=').unwrap_or_default();
    match seconds.parse() {
        Ok(seconds) if !word.is_empty() => Ok((word.to_owned(), seconds)),
        _ => Err("expects WORD=SECONDS".to_owned()),
    }
}

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let secrets = match &args.secrets {
        Some(file) => secrets::read_file(file)?,
        None => secrets::development(),
    };
    let secret = |path: &str| secrets.pointer(path).and_then(Value::as_str);
    let required = |path: &str| secret(path).with_context(|| format!("the secrets have no {path}"));

    let options = braze::Options::new(required("/braze/api_key")?);
    let options = options.clock(clock).address(args.braze_addr).drained(false);
    let braze = FakeBraze::start(options).await?;
    let options = graph::Options::new(required("/meta/app_id")?, required("/meta/app_secret")?);
    let options = options
        .any_token(true)
        .clock(clock)
        .address(args.graph_addr)
        .drained(false);
    let graph = FakeGraph::start(options).await?;
    graph.add_page(recorded_page());
    for file in &args.installs {
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let webhook: Value =
            json::read(&text).map_err(|error| usage(format!("{}: {error}", file.display())))?;
        let value = webhook.pointer("/entry/0/changes/0/value");
        let install = value.and_then(graph::Install::from_webhook);
        graph.set_install(install.ok_or_else(|| usage(format!("{} is no install webhook", file.display())))?);
    }
    let mut options = external_system::Options::new(required("/relay/signing_secret")?);
    if let Some(token) = secret("/relay/external_system_token") {
        options = options.bearer_token(token);
    }
    let options = options
        .clock(clock)
        .address(args.external_system_addr)
        .drained(false);
    let external_system = ExternalSystem::start(options).await?;
    if let Some((word, seconds)) = args.slow {
        let echo = Box::new(Behaviour::Echo);
        external_system.set_behaviour(Behaviour::SlowAt(word, Duration::from_secs(seconds), echo));
    }

    let printing = async {
        let (mut requests, mut calls, mut handovers) = (0, 0, 0);
        loop {
            for request in braze.requests().iter().skip(requests) {
                requests += 1;
                output::line(json!({
                    "to": "braze", "path": request.path, "status": request.status, "body": request.body,
                }));
            }
            for call in graph.calls().iter().skip(calls) {
                calls += 1;
                output::line(json!({
                    "to": "graph", "path": call.path, "status": call.status, "parameters": call.parameters,
                }));
            }
            for handover in external_system.handovers().iter().skip(handovers) {
                handovers += 1;
                output::line(json!({
                    "to": "external_system", "path": handover.path, "status": handover.status, "body": handover.body,
                }));
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = printing => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
    }
    Ok(())
}
