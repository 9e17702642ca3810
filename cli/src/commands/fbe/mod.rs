//! `bridge fbe`

mod accept;
mod config_patch;
mod configuration;
mod show;
mod uninstall;

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use aws_config::SdkConfig;
use shared::clock::Clock;
use shared::fbe::install::Install;
use shared::fbe::plan::{exchange_on_demand, push_item, reconcile_item};
use shared::fbe::secrets::BusinessSecrets;
use shared::fbe::settings::FbeSecretSettings;
use shared::fbe::table::{Installs, Stored};
use shared::outbox::Outbox;

use self::configuration::{Configuration, read_change};
use self::show::{list, show};
use self::uninstall::uninstall;
use crate::output::{self, usage};
use crate::secrets::{STACK_NAME, stack_outputs, stack_parameter};

/// Another writer of the install is done within a round or two.
const ROUNDS: usize = 5;

/// Look after businesses that installed the app: what they granted, what is on, their feature configuration
#[derive(Debug, clap::Args)]
#[command(
    after_help = "<BUSINESS> is the external business id, as `list` prints it.\n\n\
    Examples:\n  \
    bridge fbe list\n  \
    bridge fbe show shop-42\n  \
    bridge fbe push shop-42 --stack meta-braze-bridge-dev\n  \
    bridge fbe uninstall shop-42 --stack meta-braze-bridge-dev --dry-run\n  \
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
    /// Ask for a system user's token for one business, also where there is one, within a minute
    Exchange {
        #[command(flatten)]
        place: Place,

        business: String,
    },
    /// Let another Business Manager's claim take effect, and end the install of the owner here
    Accept {
        #[command(flatten)]
        place: Place,

        business: String,

        /// Which one, if several claim the business [default: the earliest]
        #[arg(long, value_name = "ID")]
        manager: Option<String>,
    },
    /// End an install here, as if the business had removed the app: features off, secret deleted, business notified
    Uninstall {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        graph: GraphArgs,

        business: String,

        /// Remove the app at Meta first, with the business's token
        #[arg(long)]
        at_meta: bool,

        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
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
        default_value = shared::clients::graph::DEFAULT_VERSION,
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
    clock: Clock,
}

impl Place {
    async fn open(&self, clock: &Clock) -> anyhow::Result<Parts> {
        let (config, installs, outbox, secrets) = if let Some(stack) = &self.stack {
            let config = shared::clients::aws::of_person().await;
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
        let outbox = Outbox::new(client, outbox, clock.clone());
        Ok(Parts {
            installs: Installs::new(installs, outbox.clone()),
            outbox,
            config,
            secrets,
            clock: clock.clone(),
        })
    }
}

impl Parts {
    fn business_secrets(&self) -> BusinessSecrets {
        let own = FbeSecretSettings {
            prefix: format!("{}fbe/", self.secrets),
            encryption_key: None,
        };
        BusinessSecrets::new(aws_sdk_secretsmanager::Client::new(&self.config), own)
    }

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

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    match args.verb {
        Verb::List { place, all, json } => list(&place.open(clock).await?, all, json).await,
        Verb::Show { place, business } => show(&place.open(clock).await?, &business).await,
        Verb::Reconcile { place, business } => reconcile(&place.open(clock).await?, &business).await,
        Verb::Push { place, business } => push(&place, clock, &business).await,
        Verb::Exchange { place, business } => exchange(&place.open(clock).await?, &business).await,
        Verb::Accept {
            place,
            business,
            manager,
        } => accept::accept(&place.open(clock).await?, &business, manager.as_deref()).await,
        Verb::Uninstall {
            place,
            graph,
            business,
            at_meta,
            dry_run,
        } => {
            let graph = at_meta.then_some(&graph);
            Box::pin(uninstall(&place, clock, graph, &business, dry_run)).await
        }
        Verb::Config(ConfigVerb::Get {
            place,
            graph,
            business,
        }) => {
            let config = Configuration::open(&place, clock, &graph, &business).await?;
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
            let config = Configuration::open(&place, clock, &graph, &business).await?;
            let posted = config_patch::patch(&config.read().await?, &change)
                .map_err(|error| usage(error.to_string()))?;
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

async fn reconcile(parts: &Parts, business: &str) -> anyhow::Result<()> {
    let install = parts.installed(business).await?;
    let item = reconcile_item(&install.business_id, "demand", parts.clock.now(), None);
    parts.outbox.add(&item).await?;
    output::line("planned; `bridge fbe show` tells what came of it");
    Ok(())
}

async fn push(place: &Place, clock: &Clock, business: &str) -> anyhow::Result<()> {
    let parts = place.open(clock).await?;
    if let Some(stack) = &place.stack {
        let feed = stack_parameter(&parts.config, stack, "CatalogFeedUrl").await?;
        if feed.is_none_or(|url| url.is_empty()) {
            bail!("there is no feed to push from: CatalogFeedUrl of {stack} is empty");
        }
    }
    let install = parts.installed(business).await?;
    let Some(catalog) = &install.assets.catalog_id else {
        bail!("{business} has granted no catalog");
    };
    let item = push_item(&install.business_id, catalog, parts.clock.now());
    parts.outbox.add(&item).await?;
    output::line("planned; `bridge fbe show` tells how far it has come");
    if place.stack.is_none() {
        output::note("without a setting CATALOG_FEED_URL, `bridge local` has nothing to push");
    }
    Ok(())
}

async fn exchange(parts: &Parts, business: &str) -> anyhow::Result<()> {
    let install = parts.installed(business).await?;
    let Some(item) = exchange_on_demand(&install, parts.clock.now()) else {
        bail!("{business} has no Business Manager to ask for a token");
    };
    parts.outbox.add(&item).await?;
    output::line("planned; `bridge fbe show` tells what came of it, under `token`");
    Ok(())
}
