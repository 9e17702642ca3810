//! `bridge dead`

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use serde_json::json;
use shared::clock::Clock;
use shared::outbox::Lane;
use shared::outbox::{Entry, Outbox};
use shared::telemetry;

use crate::output::{self, usage};
use crate::secrets::{STACK_NAME, stack_outputs};

/// Items read in one go when all are wanted.
const PAGE: usize = 500;

/// Look at what was given up, and try it again
#[derive(Debug, clap::Args)]
#[command(
    after_help = "An outbox item is dead when Braze, Meta or your system refused it for good, or when it was\n\
    tried for RETRY_FOR_HOURS. What waits for a key, a permission or a URL to be mended is not dead:\n\
    it leaves within an hour of that. A dead item is kept for 30 days. Mend the cause, then redrive.\n\n\
    Examples:\n  \
    bridge dead list\n  \
    bridge dead show 3f6c1d2ab9e0\n  \
    bridge dead redrive 3f6c1d2ab9e0\n  \
    bridge dead redrive --all --lane sync --stack meta-braze-bridge-dev"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List dead items, oldest first. Names no person.
    List {
        #[command(flatten)]
        place: Place,

        /// At most so many of each lane
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,

        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one item whole, with whom it is about
    Show {
        #[command(flatten)]
        place: Place,

        /// As `list` prints it
        id: String,
    },
    /// Make items pending again; the schedule sends them within a minute
    Redrive {
        #[command(flatten)]
        place: Place,

        /// As `list` prints them
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,

        /// Every dead item (of the lane)
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Only this lane [default: both]
    #[arg(long)]
    lane: Option<LaneName>,

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

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LaneName {
    /// Braze and Graph
    Sync,
    /// External systems
    Relay,
}

impl Place {
    fn lanes(&self) -> Vec<Lane> {
        match self.lane {
            Some(LaneName::Sync) => vec![Lane::Sync],
            Some(LaneName::Relay) => vec![Lane::Relay],
            None => vec![Lane::Sync, Lane::Relay],
        }
    }

    async fn outbox(&self, clock: &Clock) -> anyhow::Result<Outbox> {
        let (config, table) = if let Some(stack) = &self.stack {
            let config = shared::clients::aws::of_person().await;
            let table = stack_outputs(&config, stack).await?.remove("OutboxTableName");
            let table = table.with_context(|| format!("the stack {stack} has no output OutboxTableName"))?;
            (config, table)
        } else {
            if tokio::net::TcpStream::connect(self.aws_addr).await.is_err() {
                bail!(
                    "no local stack answers at {}; is `bridge local` running? (for a deployed one: --stack)",
                    self.aws_addr
                );
            }
            let config = testkit::aws::sdk_config(&format!("http://{}", self.aws_addr));
            (config, format!("{STACK_NAME}-OutboxTable"))
        };
        let client = aws_sdk_dynamodb::Client::new(&config);
        Ok(Outbox::new(client, table, clock.clone()))
    }

    async fn dead(&self, outbox: &Outbox, limit: usize) -> anyhow::Result<Vec<Entry>> {
        let mut dead = Vec::new();
        for lane in self.lanes() {
            dead.extend(outbox.list_dead(lane, limit).await?);
        }
        dead.sort_by_key(|entry| entry.dead_at);
        Ok(dead)
    }
}

/// A short name that tells nothing of the person.
fn id(entry: &Entry) -> String {
    telemetry::pseudonym(&format!("{}\n{}", entry.subject, entry.event_key))
}

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    match args.verb {
        Verb::List { place, limit, json } => list(&place, clock, usize::from(limit), json).await,
        Verb::Show { place, id } => show(&place, clock, &id).await,
        Verb::Redrive { place, ids, all } => {
            let outbox = place.outbox(clock).await?;
            if all {
                redrive_all(&place, &outbox).await
            } else {
                redrive(&place, &outbox, &ids).await
            }
        }
    }
}

async fn list(place: &Place, clock: &Clock, limit: usize, json: bool) -> anyhow::Result<()> {
    let outbox = place.outbox(clock).await?;
    let dead = place.dead(&outbox, limit).await?;
    if json {
        for entry in &dead {
            output::line(summary(entry));
        }
        return Ok(());
    }
    if dead.is_empty() {
        output::note("nothing is dead");
        return Ok(());
    }
    output::line(format_args!(
        "{:<12}  {:<5}  {:<20}  {:<20}  {:>8}  REASON",
        "ID", "LANE", "KIND", "GIVEN UP", "ATTEMPTS"
    ));
    for entry in &dead {
        output::line(format_args!(
            "{:<12}  {:<5}  {:<20}  {:<20}  {:>8}  {}",
            id(entry),
            entry.lane.as_str(),
            kind(entry),
            entry.dead_at.map(|at| format!("{at:.0}")).unwrap_or_default(),
            entry.attempts,
            entry.reason.as_deref().unwrap_or_default(),
        ));
    }
    Ok(())
}

fn kind(entry: &Entry) -> String {
    let name = serde_json::to_value(entry.kind).unwrap_or_default();
    name.as_str().unwrap_or_default().to_owned()
}

fn summary(entry: &Entry) -> serde_json::Value {
    json!({
        "id": id(entry),
        "lane": entry.lane,
        "kind": entry.kind,
        "created": entry.created_at,
        "given_up": entry.dead_at,
        "attempts": entry.attempts,
        "reason": entry.reason,
    })
}

async fn show(place: &Place, clock: &Clock, wanted: &str) -> anyhow::Result<()> {
    let outbox = place.outbox(clock).await?;
    let dead = place.dead(&outbox, PAGE).await?;
    let entry = dead
        .iter()
        .find(|entry| id(entry) == wanted)
        .with_context(|| format!("no dead item is named {wanted}; `bridge dead list` names them"))?;
    let mut whole = summary(entry);
    if let Some(fields) = whole.as_object_mut() {
        fields.insert("subject".to_owned(), json!(entry.subject));
        fields.insert("event_key".to_owned(), json!(entry.event_key));
        fields.insert("payload".to_owned(), entry.payload().unwrap_or_default());
    }
    output::line(serde_json::to_string_pretty(&whole)?);
    Ok(())
}

async fn redrive(place: &Place, outbox: &Outbox, ids: &[String]) -> anyhow::Result<()> {
    let dead = place.dead(outbox, PAGE).await?;
    let find = |wanted: &String| dead.iter().find(|entry| id(entry) == *wanted);
    // All or nothing: a misspelt name among many should not go unnoticed.
    if let Some(unknown) = ids.iter().find(|wanted| find(wanted).is_none()) {
        return Err(usage(format!(
            "no dead item is named {unknown}; `bridge dead list` names them"
        )));
    }
    let mut redriven = 0;
    for entry in ids.iter().filter_map(find) {
        redriven += usize::from(outbox.redrive(entry).await?);
    }
    tell(redriven);
    Ok(())
}

async fn redrive_all(place: &Place, outbox: &Outbox) -> anyhow::Result<()> {
    let mut redriven = 0;
    // The index lags behind the table a little, so an item may be listed again.
    let mut seen = BTreeSet::new();
    loop {
        let dead = place.dead(outbox, PAGE).await?;
        let fresh: Vec<&Entry> = dead.iter().filter(|entry| seen.insert(entry.key())).collect();
        if fresh.is_empty() {
            break;
        }
        for entry in fresh {
            redriven += usize::from(outbox.redrive(entry).await?);
        }
        if dead.len() >= PAGE {
            output::note(format_args!("{redriven} so far"));
        }
    }
    tell(redriven);
    Ok(())
}

fn tell(redriven: usize) {
    let items = if redriven == 1 { "item is" } else { "items are" };
    output::line(format_args!("{redriven} {items} pending again"));
}
