//! The fake Braze, Graph and external system on fixed addresses, for a stack that runs elsewhere on this machine.
//!
//! ```sh
//! cargo run -p testkit --example fakes -- SECRETS.json 127.0.0.1:4100 127.0.0.1:4200 127.0.0.1:4300
//! ```
//!
//! The secrets are those of the stack: `{"meta":{…},"braze":{…},"relay":{…}}`; the addresses are those of Braze, Graph and
//! the external system (which echoes). Every request that arrives is printed as a line of JSON. Runs until it is killed.
#![expect(clippy::print_stdout, reason = "what arrives is the result")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use testkit::{braze, external_system, graph};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [secrets, braze_address, graph_address, external_address] = arguments.as_slice() else {
        anyhow::bail!("usage: fakes SECRETS.json BRAZE-ADDRESS GRAPH-ADDRESS EXTERNAL-SYSTEM-ADDRESS");
    };
    let secrets: Value = serde_json::from_slice(&std::fs::read(secrets)?)?;
    let secret = |path: &str| {
        let value = secrets.pointer(path).and_then(Value::as_str);
        value.with_context(|| format!("the secrets have no {path}"))
    };

    let options = braze::Options::new(secret("/braze/api_key")?);
    let options = options
        .address(braze_address.parse::<SocketAddr>()?)
        .drained(false);
    let braze = braze::FakeBraze::start(options).await?;

    let options = graph::Options::new(secret("/meta/app_id")?, secret("/meta/app_secret")?).any_token(true);
    let options = options.address(graph_address.parse()?).drained(false);
    let graph = graph::FakeGraph::start(options).await?;

    let mut options = external_system::Options::new(secret("/relay/signing_secret")?);
    if let Ok(token) = secret("/relay/external_system_token") {
        options = options.bearer_token(token);
    }
    let options = options.address(external_address.parse()?).drained(false);
    let external_system = external_system::ExternalSystem::start(options).await?;

    let (mut braze_seen, mut graph_seen, mut external_seen) = (0, 0, 0);
    loop {
        for request in braze.requests().iter().skip(braze_seen) {
            println!(
                "{}",
                json!({"to": "braze", "path": request.path, "status": request.status, "body": request.body})
            );
            braze_seen += 1;
        }
        for call in graph.calls().iter().skip(graph_seen) {
            println!(
                "{}",
                json!({"to": "graph", "path": call.path, "status": call.status, "parameters": call.parameters})
            );
            graph_seen += 1;
        }
        for handover in external_system.handovers().iter().skip(external_seen) {
            println!(
                "{}",
                json!({"to": "external_system", "path": handover.path, "status": handover.status, "body": handover.body})
            );
            external_seen += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
