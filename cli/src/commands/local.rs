//! `bridge local`

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::output::{self, usage};
use crate::secrets;
use crate::stack::{LocalStack, StackOptions};

/// Serve the whole system on this machine until stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bridge local\n  \
    bridge local --data-dir .local --tick 1\n  \
    bridge local --braze-endpoint https://rest.iad-01.braze.com --secrets secrets.json\n  \
    bridge local --set UNLINKED_CONTACTS=hold\n\n\
    Look inside:\n  \
    aws --endpoint-url http://127.0.0.1:4000 --region us-east-1 dynamodb scan --table-name local-ContactsTable")]
pub(crate) struct Args {
    /// Port of the HTTP API on 127.0.0.1; 0 = a free one
    #[arg(long, default_value_t = 3000)]
    port: u16,

    /// Where the embedded DynamoDB, its streams and Secrets Manager listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    aws_addr: SocketAddr,

    /// Keep tables and secrets in this directory [default: in memory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The secrets: {"meta":{…},"braze":{…},"relay":{…},"link":{…}} [default: printed development values]
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,

    /// A real Braze instead of the fake one
    #[arg(long, value_name = "URL")]
    braze_endpoint: Option<url::Url>,

    /// The real Graph API, or another stand-in, instead of the fake one
    #[arg(long, value_name = "URL")]
    graph_url: Option<url::Url>,

    /// A real external system instead of the fake one
    #[arg(long, value_name = "URL")]
    external_system_url: Option<url::Url>,

    /// A setting of the functions, by the name of its environment variable; repeatable
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,

    /// How often the schedule fires that fires every minute when deployed
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    tick: u64,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expects NAME=VALUE".to_owned()),
    }
}

impl Args {
    fn settings(&self) -> BTreeMap<String, String> {
        let endpoints = [
            ("BRAZE_REST_ENDPOINT", &self.braze_endpoint),
            ("GRAPH_API_URL", &self.graph_url),
            ("EXTERNAL_SYSTEM_URL", &self.external_system_url),
        ];
        let endpoints = endpoints.into_iter().filter_map(|(name, url)| {
            Some((
                name.to_owned(),
                url.as_ref()?.as_str().trim_end_matches('/').to_owned(),
            ))
        });
        endpoints.chain(self.settings.iter().cloned()).collect()
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let given = args.secrets.as_deref().map(secrets::read_file).transpose()?;
    let development = given.is_none();
    if args.data_dir.as_deref().is_some_and(std::path::Path::is_file) {
        return Err(usage("--data-dir is a file, but expects a directory"));
    }
    // Before anything starts, so that no signal is missed.
    let mut terminated = signal(SignalKind::terminate())?;
    let stack = LocalStack::start(StackOptions {
        http: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        aws: args.aws_addr,
        settings: args.settings(),
        data_dir: args.data_dir,
        secrets: given,
        tick: Duration::from_secs(args.tick),
    })
    .await?;
    greet(&stack, development);
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
    }
    output::note("stopping: what is in hand is finished first");
    stack.stop().await;
    Ok(())
}

fn greet(stack: &LocalStack, development: bool) {
    let url = stack.url();
    output::line(format_args!("ready {url}"));
    output::line(format_args!(
        "\nAWS (DynamoDB, streams, Secrets Manager): --endpoint-url {} --region us-east-1, any credentials",
        stack.aws().endpoint_url()
    ));
    if development {
        output::line("Development secrets (a data directory may hold others, which then count):");
        let development = secrets::development();
        for (name, fields) in development.as_object().into_iter().flatten() {
            output::line(format_args!("  {name} {fields}"));
        }
    }
    output::line(format_args!(
        "\ncurl '{url}/messenger/webhook?hub.mode=subscribe&hub.verify_token=development-verify-token&hub.challenge=42'"
    ));
    output::line(format_args!("bridge send messenger/text --url {url}"));
    output::line(format_args!(
        "curl -X POST {url}/messenger/webhook -H 'content-type: application/json' \\\n  \
         -H \"x-hub-signature-256: $(bridge sign payload.json)\" --data-binary @payload.json"
    ));
}
