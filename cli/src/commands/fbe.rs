//! `bridge fbe`

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_config::SdkConfig;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use shared::clients::graph::{Credentials, GraphApp, GraphClient};
use shared::clients::http;
use shared::clock::Clock;
use shared::config::{FbeSecretSettings, GraphSettings};
use shared::fbe::config_patch::patch;
use shared::fbe::event::integration_record_id;
use shared::fbe::install::{Install, pixel_rivals};
use shared::fbe::plan::{push_item, reconcile_item};
use shared::secrets::{MetaSecret, Secret};
use shared::store::business_secrets::BusinessSecrets;
use shared::store::installs::{Installs, Stored};
use shared::store::outbox::Outbox;

use crate::output::{self, usage};
use crate::secrets::stack_outputs;
use crate::stack::STACK_NAME;

/// Graph answers configuration in seconds.
const GRAPH_TIMEOUT: Duration = Duration::from_secs(30);

/// Look after businesses that installed the app: what they granted, what is on, their feature configuration
#[derive(Debug, clap::Args)]
#[command(
    after_help = "<BUSINESS> is the external business id, as `list` prints it.\n\n\
    Examples:\n  \
    bridge fbe list\n  \
    bridge fbe show shop-42\n  \
    bridge fbe push shop-42 --stack meta-braze-bridge-dev\n  \
    bridge fbe config get shop-42 --stack meta-braze-bridge-dev\n  \
    bridge fbe config set shop-42 '{\"page_cta\":{\"cta_button_text\":\"Book now\"}}' --dry-run"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List businesses and what is on at each
    List {
        #[command(flatten)]
        place: Place,

        /// Those that removed the app, too
        #[arg(long)]
        all: bool,

        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of one business, but for its tokens
    Show {
        #[command(flatten)]
        place: Place,

        business: String,
    },
    /// Compare one business with Graph, within a minute
    Reconcile {
        #[command(flatten)]
        place: Place,

        business: String,
    },
    /// Push one business's catalog from the feed, beginning within a minute
    Push {
        #[command(flatten)]
        place: Place,

        business: String,
    },
    /// Read or change the feature configuration at Graph
    #[command(subcommand)]
    Config(ConfigVerb),
}

#[derive(Debug, clap::Subcommand)]
enum ConfigVerb {
    /// Print the configuration
    Get {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        graph: GraphArgs,

        business: String,
    },
    /// Change what is named, and leave the rest as it is
    Set {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        graph: GraphArgs,

        business: String,

        /// JSON, or @FILE: features with the fields to change; a feature with several instances says which by
        /// `feature_instance_id`; null takes a field out
        change: String,

        /// Print what would be posted, and post nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// A deployed stack, with AWS's default credentials [default: the local stack]
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
}

#[derive(Debug, clap::Args)]
struct GraphArgs {
    /// The Graph API; `bridge local` prints where its fake one is [default with --stack: Meta's]
    #[arg(long, value_name = "URL", env = "GRAPH_API_URL")]
    graph_url: Option<url::Url>,

    /// Version of the Graph API
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "v25.0",
        env = "GRAPH_API_VERSION"
    )]
    graph_version: String,
}

/// The parts of a stack that the commands need.
struct Parts {
    config: SdkConfig,
    installs: Installs,
    outbox: Outbox,
    /// `<stack>/`
    secrets: String,
}

impl Place {
    async fn open(&self) -> anyhow::Result<Parts> {
        let (config, installs, outbox, secrets) = if let Some(stack) = &self.stack {
            let config = shared::clients::aws::config(shared::clients::aws::Patience::Background).await;
            let mut outputs = stack_outputs(&config, stack).await?;
            let mut output = |name: &str| {
                outputs
                    .remove(name)
                    .with_context(|| format!("the stack {stack} has no output {name}"))
            };
            let meta = output("MetaSecretName")?;
            let secrets = meta.strip_suffix("meta").unwrap_or(&meta).to_owned();
            (
                config,
                output("InstallsTableName")?,
                output("OutboxTableName")?,
                secrets,
            )
        } else {
            if tokio::net::TcpStream::connect(self.aws_addr).await.is_err() {
                bail!(
                    "no local stack answers at {}; is `bridge local` running? (for a deployed one: --stack)",
                    self.aws_addr
                );
            }
            let config = testkit::aws::sdk_config(&format!("http://{}", self.aws_addr));
            (
                config,
                format!("{STACK_NAME}-InstallsTable"),
                format!("{STACK_NAME}-OutboxTable"),
                format!("{STACK_NAME}/"),
            )
        };
        let client = aws_sdk_dynamodb::Client::new(&config);
        let outbox = Outbox::new(client.clone(), outbox, Clock::system());
        Ok(Parts {
            installs: Installs::new(client, installs, outbox.clone(), Clock::system()),
            outbox,
            config,
            secrets,
        })
    }
}

impl Parts {
    async fn business(&self, business: &str) -> anyhow::Result<Stored> {
        let stored = self.installs.read(business).await?;
        stored.with_context(|| {
            format!("nothing is known of {business}; `bridge fbe list --all` lists businesses")
        })
    }

    async fn installed(&self, business: &str) -> anyhow::Result<Install> {
        let install = self.business(business).await?.install;
        if !install.is_installed() {
            bail!("{business} has removed the app");
        }
        Ok(install)
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.verb {
        Verb::List { place, all, json } => list(&place.open().await?, all, json).await,
        Verb::Show { place, business } => show(&place.open().await?, &business).await,
        Verb::Reconcile { place, business } => reconcile(&place.open().await?, &business).await,
        Verb::Push { place, business } => push(&place.open().await?, &business).await,
        Verb::Config(ConfigVerb::Get {
            place,
            graph,
            business,
        }) => {
            let config = Configuration::open(&place, &graph, &business).await?;
            output::line(serde_json::to_string_pretty(&config.read().await?)?);
            Ok(())
        }
        Verb::Config(ConfigVerb::Set {
            place,
            graph,
            business,
            change,
            dry_run,
        }) => {
            let change = read_change(&change)?;
            let config = Configuration::open(&place, &graph, &business).await?;
            let posted = patch(&config.read().await?, &change).map_err(|error| usage(error.to_string()))?;
            if dry_run {
                output::line(serde_json::to_string_pretty(&posted)?);
                return Ok(());
            }
            config.write(&posted).await?;
            let features: Vec<&str> = posted
                .as_object()
                .map(|features| features.keys().map(String::as_str).collect())
                .unwrap_or_default();
            output::line(format_args!("changed: {}", features.join(", ")));
            Ok(())
        }
    }
}

/// JSON as it stands, or of a file.
fn read_change(change: &str) -> anyhow::Result<Value> {
    let text = match change.strip_prefix('@') {
        Some(path) => {
            std::fs::read_to_string(Path::new(path)).with_context(|| format!("cannot read {path}"))?
        }
        None => change.to_owned(),
    };
    let change: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| usage(format!("the change is not a JSON object of features: {error}")))?;
    if change.is_empty() {
        return Err(usage("the change names no feature"));
    }
    Ok(Value::Object(change))
}

async fn list(parts: &Parts, all: bool, json: bool) -> anyhow::Result<()> {
    let (mut from, mut shown) = (None, 0);
    loop {
        let page = parts.installs.scan(false, from).await?;
        for install in page.installs {
            // Records of removals that came first, and of integrations, are no businesses of ours.
            if install.is_trace() || (!all && !install.is_installed()) {
                continue;
            }
            if shown == 0 && !json {
                output::line(format_args!(
                    "{:<32}  {:<13}  {:<20}  {:>5}  ON (OFF: MISSING)",
                    "BUSINESS", "STATUS", "INSTALLED", "DRIFT"
                ));
            }
            shown += 1;
            if json {
                output::line(summary(&install));
            } else {
                output::line(row(&install));
            }
        }
        match page.next {
            Some(cursor) => from = Some(cursor),
            None => break,
        }
    }
    if shown == 0 {
        output::note("no business has installed the app");
    }
    Ok(())
}

fn row(install: &Install) -> String {
    let gating = install.gating();
    let mut features = gating.enabled.join(", ");
    for one in &gating.disabled {
        features.push_str(if features.is_empty() { "" } else { " " });
        features.push_str(&["(", &one.feature, ": ", &one.missing, ")"].concat());
    }
    format!(
        "{:<32}  {:<13}  {:<20}  {:>5}  {features}",
        install.business_id,
        status(install),
        install
            .installed_at
            .map(|at| format!("{at:.0}"))
            .unwrap_or_default(),
        install.drift_count,
    )
}

fn status(install: &Install) -> String {
    let status = serde_json::to_value(install.status).unwrap_or_default();
    status.as_str().unwrap_or_default().to_owned()
}

fn summary(install: &Install) -> Value {
    let gating = install.gating();
    json!({
        "business": install.business_id,
        "status": install.status,
        "installed_at": install.installed_at,
        "reconciled_at": install.reconciled_at,
        "drift_count": install.drift_count,
        "enabled": gating.enabled,
        "disabled": gating.disabled,
        "unknown": gating.unknown,
    })
}

async fn show(parts: &Parts, business: &str) -> anyhow::Result<()> {
    let Stored { install, push, .. } = parts.business(business).await?;
    let mut whole = summary(&install);
    let rivals = match &install.assets.pixel_id {
        Some(pixel) => {
            let found = parts.installs.by_pixel(pixel).await?;
            let rivals = pixel_rivals(business, pixel, &found);
            rivals.into_iter().map(str::to_owned).collect()
        }
        None => Vec::new(),
    };
    let integrations = match &install.assets.business_manager_id {
        Some(manager) => {
            let record = parts.installs.read(&integration_record_id(manager)).await?;
            record.map(|record| record.install.integrations)
        }
        None => None,
    };
    if let Some(fields) = whole.as_object_mut() {
        fields.insert("install".to_owned(), json!(install));
        fields.insert("push".to_owned(), json!(push));
        fields.insert("same_pixel".to_owned(), json!(rivals));
        fields.insert("business_integrations".to_owned(), json!(integrations));
    }
    output::line(serde_json::to_string_pretty(&whole)?);
    Ok(())
}

async fn reconcile(parts: &Parts, business: &str) -> anyhow::Result<()> {
    let install = parts.installed(business).await?;
    let item = reconcile_item(&install.business_id, "demand", Timestamp::now(), None);
    parts.outbox.add(&item).await?;
    output::line("planned; `bridge fbe show` tells what came of it");
    Ok(())
}

async fn push(parts: &Parts, business: &str) -> anyhow::Result<()> {
    let install = parts.installed(business).await?;
    let Some(catalog) = &install.assets.catalog_id else {
        bail!("{business} has granted no catalog");
    };
    let item = push_item(&install.business_id, catalog, Timestamp::now());
    parts.outbox.add(&item).await?;
    output::line("planned; `bridge fbe show` tells how far it has come");
    Ok(())
}

/// A business's configuration at Graph.
struct Configuration {
    client: GraphClient,
    app: GraphApp,
    token: secrecy::SecretString,
    business: String,
}

impl Configuration {
    async fn open(place: &Place, graph: &GraphArgs, business: &str) -> anyhow::Result<Self> {
        let url = match (&graph.graph_url, &place.stack) {
            (Some(url), _) => url.as_str().trim_end_matches('/').to_owned(),
            (None, Some(_)) => "https://graph.facebook.com".to_owned(),
            (None, None) => {
                return Err(usage(
                    "say --graph-url: `bridge local` prints where its fake Graph is",
                ));
            }
        };
        let parts = place.open().await?;
        let install = parts.installed(business).await?;
        let client = aws_sdk_secretsmanager::Client::new(&parts.config);
        let meta: Secret<MetaSecret> =
            Secret::new(client.clone(), &format!("{}meta", parts.secrets), Clock::system());
        let meta = meta.get().await?;
        let own = FbeSecretSettings {
            prefix: format!("{}fbe/", parts.secrets),
            encryption_key: None,
        };
        let secret = BusinessSecrets::new(client, own).of(&install).await?;
        let token = secret.as_ref().and_then(|secret| secret.token()).cloned();
        let (id, secret) = meta.fbe_app();
        Ok(Self {
            client: GraphClient::new(
                http::client(GRAPH_TIMEOUT),
                &GraphSettings {
                    url,
                    version: graph.graph_version.clone(),
                },
            ),
            app: GraphApp {
                id: id.to_owned(),
                secret: secret.clone(),
            },
            token: token.with_context(|| format!("there is no token of {business}"))?,
            business: install.business_id,
        })
    }

    fn credentials(&self) -> Credentials<'_> {
        Credentials {
            app: &self.app,
            token: &self.token,
        }
    }

    async fn read(&self) -> anyhow::Result<Value> {
        let answer = self.client.fbe_business(self.credentials(), &self.business).await;
        Ok(answer.context("the configuration was not read")?.value)
    }

    async fn write(&self, config: &Value) -> anyhow::Result<()> {
        self.client
            .update_fbe_business(self.credentials(), &self.business, config)
            .await
            .context("the configuration was not changed")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_an_object_in_words_or_in_a_file() {
        assert_eq!(
            read_change(r#"{"ads":{"enabled":false}}"#).unwrap()["ads"]["enabled"],
            false
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"ads":{}}"#).unwrap();
        let name = format!("@{}", file.path().display());
        assert_eq!(read_change(&name).unwrap(), json!({"ads": {}}));
        for wrong in ["[]", "{}", "ads", "@/no/such/file"] {
            assert!(read_change(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_row_names_what_is_missing() {
        let mut install = Install::unknown("shop-42");
        install.status = shared::fbe::install::Status::Active;
        install.features = vec![shared::fbe::features::Feature {
            feature_type: "pixel".to_owned(),
            ..Default::default()
        }];
        let row = row(&install);
        assert!(
            row.contains("shop-42") && row.ends_with("(pixel: pixel_id)"),
            "{row}"
        );
    }
}
