//! `bridge local`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use shared::clock::Clock;
use testkit::braze::FakeBraze;
use testkit::external_system::ExternalSystem;
use tokio::signal::unix::{SignalKind, signal};

use crate::fakes::Fakes;
use crate::output::{self, usage};
use crate::payloads;
use crate::secrets::{self, STACK_NAME};
use crate::stack::{LocalStack, StackOptions};
use crate::story::Mark;

/// How often the stream and the fakes are looked at. An answer should feel immediate.
const POLL: Duration = Duration::from_millis(100);

/// Serve the whole system on this machine until stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bridge local\n  \
    bridge local --data-dir .local --tick 1\n  \
    bridge local --braze-endpoint https://rest.iad-01.braze.com --secrets secrets.json\n  \
    bridge local --set UNLINKED_CONTACTS=hold\n\n\
    Look inside:\n  \
    aws --endpoint-url http://127.0.0.1:4000 --region us-east-1 dynamodb scan --table-name local-ContactsTable\n\n    \
    What reaches the fakes is told on standard error.")]
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

    /// A real Braze (its REST endpoint) instead of the fake one
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

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    let given = args.secrets.as_deref().map(secrets::read_file).transpose()?;
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
        poll: POLL,
        expiry: true,
        console: true,
        ..StackOptions::with_clock(clock)
    })
    .await?;
    greet(&stack);
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
        () = watch(stack.fakes()) => {}
    }
    output::note("stopping: what is in hand is finished first");
    stack.stop().await;
    Ok(())
}

/// Tells what reaches the fakes, as it comes.
async fn watch(fakes: &Fakes) {
    let mut mark = Mark::of(fakes);
    loop {
        tokio::time::sleep(POLL).await;
        for line in mark.news(fakes) {
            output::note(line);
        }
    }
}

fn greet(stack: &LocalStack) {
    let (url, aws) = (stack.url(), stack.aws());
    output::line(format_args!("ready {url}"));
    if let Some(console) = stack.console() {
        output::line(format_args!("\nConsole, to see it work: {console}"));
    }
    output::line(format_args!(
        "\nAWS (DynamoDB, its streams, Secrets Manager): --endpoint-url {} --region us-east-1, any credentials",
        aws.endpoint_url()
    ));
    let fakes = stack.fakes();
    let fakes = [
        ("Braze", fakes.braze.as_ref().map(FakeBraze::url)),
        ("Graph", fakes.graph.as_ref().map(|fake| fake.url())),
        (
            "external system",
            fakes.external_system.as_ref().map(ExternalSystem::url),
        ),
    ];
    for (name, url) in fakes {
        if let Some(url) = url {
            output::line(format_args!("Fake {name}: {url}"));
        }
    }
    let development = secrets::development();
    let in_force = |name: &str| stack.secrets().get(name) == development.get(name);
    if secrets::NAMES.into_iter().all(in_force) {
        output::line("\nDevelopment secrets, for nothing but this machine:");
        for (name, fields) in development.as_object().into_iter().flatten() {
            output::line(format_args!("  {name} {fields}"));
        }
    }
    output::line("\nTry it:");
    if in_force("meta") {
        // Two commands, and everything is green.
        output::line(format_args!(
            "bridge setup --user-token development --aws-addr {}",
            aws.address()
        ));
    }
    output::line(format_args!("bridge doctor --aws-addr {}", aws.address()));
    if in_force("meta") {
        output::line(format_args!(
            "curl '{url}/messenger/webhook?hub.mode=subscribe&hub.verify_token=development-verify-token&hub.challenge=42'"
        ));
        if let Some(curl) = signed_curl(&url) {
            output::line(curl);
        }
    }
    output::line(format_args!(
        "bridge send messenger/message_text --url {url} --aws-addr {}",
        aws.address()
    ));
    output::line(format_args!(
        "aws dynamodb scan --table-name {STACK_NAME}-ContactsTable --endpoint-url {} --region us-east-1 --no-sign-request",
        aws.endpoint_url()
    ));
}

/// A recorded message as one line for the shell, with the development secret's signature.
fn signed_curl(url: &str) -> Option<String> {
    let payload = payloads::find("messenger/message_text", None).ok()?;
    let body = std::str::from_utf8(&payload.body)
        .ok()
        .filter(|body| !body.contains('\''))?;
    let mut curl = format!("curl -X POST {url}{}", payload.sender.path());
    for (name, value) in payload.headers(&secrets::development_credential(payload.sender)) {
        write!(curl, " -H '{name}: {value}'").ok()?;
    }
    write!(curl, " --data-raw '{body}'").ok()?;
    Some(curl)
}
