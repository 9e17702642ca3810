//! `bridge console`

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use shared::clock::Clock;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::console::{Deployed, serve};
use crate::output;
use crate::secrets::{STACK_NAME, stack_outputs};

/// Look at a deployed stack in the browser: read only
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Serves on 127.0.0.1 alone and prints the address that opens it. What is shown is read with AWS's default\n\
    credentials, by key and by index; docs/console.md has the policy that an operator needs. People are hidden behind\n\
    stand-ins unless you say --reveal. The local stack has a console of its own: `bridge local` prints its address.\n\n\
    Examples:\n  \
    bridge console --stack meta-braze-bridge-dev\n  \
    bridge console --stack meta-braze-bridge-dev --reveal"
)]
pub(crate) struct Args {
    /// A deployed stack [default: the local stack's tables, seen as an operator sees a deployed one's]
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,

    /// Where `bridge local` serves its embedded AWS
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:4000",
        conflicts_with = "stack"
    )]
    aws_addr: SocketAddr,

    /// Port on 127.0.0.1; 0 = a free one
    #[arg(long, default_value_t = 3001)]
    port: u16,

    /// Show ids, names and texts of people
    #[arg(long)]
    reveal: bool,
}

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let (config, outputs) = if let Some(stack) = &args.stack {
        let config = shared::clients::aws::of_person().await;
        let outputs = stack_outputs(&config, stack).await?;
        (config, Some(outputs))
    } else {
        if tokio::net::TcpStream::connect(args.aws_addr).await.is_err() {
            bail!(
                "no local stack answers at {}; is `bridge local` running? (for a deployed one: --stack)",
                args.aws_addr
            );
        }
        (
            testkit::aws::sdk_config(&format!("http://{}", args.aws_addr)),
            None,
        )
    };
    let name = args.stack.as_deref().unwrap_or(STACK_NAME);
    let table = |logical_id: &str| match &outputs {
        None => Ok(format!("{STACK_NAME}-{logical_id}")),
        Some(outputs) => {
            let output = format!("{logical_id}Name");
            let table = outputs.get(&output).cloned();
            table.with_context(|| format!("the stack {name} has no output {output}"))
        }
    };
    let stop = CancellationToken::new();
    let (address, served) = serve(Deployed {
        name,
        dynamodb: aws_sdk_dynamodb::Client::new(&config),
        table: &table,
        reveal: args.reveal,
        port: args.port,
        clock,
        stop: &stop,
    })
    .await?;
    output::line(format_args!("console {address}"));
    output::note("Ctrl-C ends");
    let stopped = async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        stop.cancel();
    };
    let ((), served) = tokio::join!(stopped, served);
    served
}
