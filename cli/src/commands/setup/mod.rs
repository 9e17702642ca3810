//! `bridge setup`

mod braze;
mod secret;
mod subscribe;
mod tokens;

use std::fmt;

use anyhow::{Context as _, anyhow, bail};
use clap::Parser as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use shared::clients::graph::GraphError;
use shared::clock::Clock;
use shared::health::{Check, refusal};

use crate::commands::doctor;
use crate::hidden::Hidden;
use crate::output::{self, UsageError, usage};
use crate::stack::LocalStack;
use crate::target::{Target, TargetArgs};

/// Set the app up at Meta: tokens of pages, subscriptions, and what is left to click in Braze
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Finds the pages and their tokens, writes them into the meta secret, subscribes the app and each page, reads both\n\
    back, runs the doctor, and prints what to paste into Braze. Run again, it changes nothing. Without a token it\n\
    works with the pages that are kept already.\n\n\
    A user token: https://developers.facebook.com/tools/explorer, with pages_show_list, pages_messaging,\n\
    pages_manage_metadata (and instagram_basic, instagram_manage_messages; business_management if a Business\n\
    Portfolio owns the page). A token may be `-` for standard input, or @FILE.\n\n\
    What no call can do: app review, Business Verification, switching the app to live, and Instagram where Meta\n\
    refuses; it says so.\n\n\
    Examples:\n  \
    bridge setup --user-token any-word-for-the-fake-graph\n  \
    bridge setup --stack meta-braze-bridge-dev --app-id 1234567890 --app-secret-stdin --user-token @token < secret\n  \
    bridge setup --stack meta-braze-bridge-dev --user-token - --page 1112223334 --dry-run\n  \
    bridge setup --stack meta-braze-bridge-dev --page-token 1112223334=@token"
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,

    /// Token of a person, or a system user, with full control of the pages
    #[arg(long, value_name = "TOKEN", env = "META_USER_TOKEN", hide_env_values = true, value_parser = hide)]
    user_token: Option<SecretString>,

    /// A page's own token, instead; repeatable
    #[arg(long = "page-token", value_name = "PAGE=TOKEN", value_parser = hide, conflicts_with = "user_token")]
    page_tokens: Vec<SecretString>,

    /// Only this page; repeatable
    #[arg(long = "page", value_name = "ID")]
    pages: Vec<String>,

    /// Comma list of the fields to subscribe to [default: the stack's setting]
    #[arg(long, value_name = "LIST")]
    fields: Option<String>,

    /// App id, for a meta secret that has none yet
    #[arg(long, value_name = "ID")]
    app_id: Option<String>,

    /// Read the app secret from standard input
    #[arg(long)]
    app_secret_stdin: bool,

    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// One JSON object: what was done, the checks, and the steps for Braze
    #[arg(long)]
    json: bool,

    /// Print the relay's tokens in what is to be pasted into Braze
    #[arg(long)]
    reveal: bool,
}

/// A parser that cannot fail, since clap quotes what it refuses.
#[expect(clippy::unnecessary_wraps, reason = "clap's shape")]
fn hide(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Became {
    /// Changed something.
    Done,
    /// Nothing had to be changed.
    Unchanged,
    /// Would change something.
    Planned,
    /// Left for a person.
    Left,
}

/// A step, for people and scripts.
#[derive(Debug, Serialize)]
struct Step {
    #[serde(rename = "step")]
    name: String,
    status: Became,
    message: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.status {
            Became::Done => "done",
            Became::Unchanged => "unchanged",
            Became::Planned => "planned",
            Became::Left => "by hand",
        };
        write!(f, "{word:<9}  {}: {}", self.name, self.message)
    }
}

/// The steps so far; printed as they come.
struct Steps {
    all: Vec<Step>,
    quiet: bool,
    hidden: Hidden,
}

impl Steps {
    fn add(&mut self, step: &str, status: Became, message: impl AsRef<str>) {
        let step = Step {
            name: step.to_owned(),
            status,
            message: self.hidden.clean(message.as_ref()),
        };
        if !self.quiet {
            output::line(&step);
        }
        self.all.push(step);
    }
}

/// What was done, and what came of it.
pub(crate) struct Report {
    steps: Vec<Step>,
    /// What the doctor says afterwards; none after a dry run.
    pub(crate) checks: Vec<Check>,
    /// What is to be pasted into Braze.
    pasted: Vec<braze::BrazeStep>,
    /// Where Meta posts who wants to be forgotten: to be entered in its dashboard.
    deletion_url: String,
    /// What was refused or reads back otherwise.
    pub(crate) problems: Vec<String>,
}

impl Report {
    fn has(&self, status: Became) -> bool {
        self.steps.iter().any(|step| step.status == status)
    }

    fn deauthorize_url(&self) -> String {
        let base = self.deletion_url.trim_end_matches("/deletion");
        format!("{base}/deauthorize")
    }

    /// Whether anything was changed.
    pub(crate) fn changed(&self) -> bool {
        self.has(Became::Done)
    }

    /// The steps, one line each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.steps.iter().map(Step::to_string)
    }
}

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    let is_quiet = args.json;
    let report = report(&args, clock, is_quiet).await?;
    if args.json {
        output::line(serde_json::to_string_pretty(&to_json(&report, args.dry_run))?);
    } else {
        print(&report, &args);
    }
    if let Some(problem) = report.problems.first() {
        bail!("{problem}");
    }
    let failed = doctor::failures(&report.checks);
    if failed > 0 {
        bail!("set up, but {failed} of {} checks fail", report.checks.len());
    }
    Ok(())
}

/// Sets the stack of this process up, as somebody with a token for the fake Graph would.
pub(crate) async fn embedded(stack: &LocalStack, clock: &Clock) -> anyhow::Result<Report> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let aws = stack.aws().address().to_string();
    let graph = stack.fakes().graph.as_ref().context("Graph is no fake")?.url();
    let line = [
        "setup",
        "--aws-addr",
        &aws,
        "--url",
        &stack.url(),
        "--graph-url",
        &graph,
        "--user-token",
        "demo",
    ];
    report(&Line::try_parse_from(line)?.args, clock, true).await
}

/// Does it all; what is done is printed as it happens, unless it is to be quiet.
async fn report(args: &Args, clock: &Clock, is_quiet: bool) -> anyhow::Result<Report> {
    let mut steps = Steps {
        all: Vec::new(),
        quiet: is_quiet,
        hidden: Hidden::default(),
    };
    let result = Box::pin(set_up(args, clock, &mut steps)).await;
    // Whatever Graph or AWS repeat of a token in their errors.
    result.map_err(|error| {
        let clean = steps.hidden.clean(&format!("{error:#}"));
        if error.is::<UsageError>() {
            usage(clean)
        } else {
            anyhow!(clean)
        }
    })
}

async fn set_up(args: &Args, clock: &Clock, steps: &mut Steps) -> anyhow::Result<Report> {
    let given = given(args, &mut steps.hidden)?;
    let target = args.target.open().await?;
    let fields = fields(args, &target)?;
    let graph = target.graph()?;

    let mut meta = secret::Meta::read(&target, args, &mut steps.hidden).await?;
    let app = meta.app()?;
    graph.app_name(&app).await.map_err(|error| {
        refused(
            "Graph does not take the app's id and secret",
            &error,
            &refusal::of_app(&error),
        )
    })?;

    progress("looking for pages");
    let search = tokens::Search {
        graph: &graph,
        app: &app,
        given,
        only: &args.pages,
        kept: meta.tokens(),
        now: clock.now(),
    };
    let pages = Box::pin(search.pages(&mut steps.hidden)).await?;
    for page in &pages {
        for note in &page.notes {
            output::note(format_args!("page {}: {}", page.id, steps.hidden.clean(note)));
        }
        meta.keep(page);
    }
    // Only now that everything was seen to work.
    meta.write(&target, args.dry_run, steps).await?;

    progress("subscribing");
    let subscriber = subscribe::Subscriber {
        graph: &graph,
        app: &app,
        callback_url: &target.urls.messenger,
        verify_token: meta.verify_token(),
        fields: &fields,
        dry_run: args.dry_run,
        is_new_token: meta.has_new_verify_token(),
    };
    let problems = Box::pin(subscriber.run(&pages, steps)).await?;

    let checks = if args.dry_run {
        Vec::new()
    } else {
        progress("examining");
        Box::pin(doctor::diagnose(&target, clock)).await
    };
    let pasted = braze::steps(&target, &pages, args.reveal).await?;
    Ok(Report {
        steps: std::mem::take(&mut steps.all),
        checks,
        pasted,
        deletion_url: target.urls.deletion.clone(),
        problems,
    })
}

fn to_json(report: &Report, is_dry_run: bool) -> Value {
    let failed = doctor::failures(&report.checks) + report.problems.len();
    let mut json = doctor::report(&report.checks);
    if let Some(json) = json.as_object_mut() {
        json.insert("ok".to_owned(), json!(failed == 0));
        json.insert("changed".to_owned(), json!(report.changed()));
        json.insert("dry_run".to_owned(), json!(is_dry_run));
        json.insert("steps".to_owned(), json!(report.steps));
        json.insert("braze".to_owned(), json!(report.pasted));
        json.insert("data_deletion_url".to_owned(), json!(report.deletion_url));
        json.insert("deauthorize_url".to_owned(), json!(report.deauthorize_url()));
        json.insert("problems".to_owned(), json!(report.problems));
    }
    json
}

fn print(report: &Report, args: &Args) {
    if !report.checks.is_empty() {
        output::line("");
        doctor::print(&report.checks);
    }
    braze::print(&report.pasted);
    output::line(
        "\nLeft to do in Meta's dashboard (App settings > Advanced, or Facebook Login for Business > Settings):",
    );
    output::line(format_args!("   data deletion callback  {}", report.deletion_url));
    output::line(format_args!(
        "   deauthorize callback    {}",
        report.deauthorize_url()
    ));
    output::line("");
    output::line(
        match (args.dry_run, report.changed(), report.has(Became::Planned)) {
            (true, _, true) => "nothing was changed: this was a dry run",
            (true, ..) => "nothing would be changed",
            (false, true, _) => "set up",
            (false, false, _) => "nothing had to be changed: everything was set up already",
        },
    );
    if !args.dry_run {
        let flags = args.target.flags();
        output::line(format_args!(
            "Next: bridge doctor{flags} --wait 300, and write to the page from a phone"
        ));
    }
}

/// Says what is going on, to a person.
fn progress(what: &str) {
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        output::note(format_args!("… {what}"));
    }
}

fn refused(what: &str, error: &GraphError, remedy: &str) -> anyhow::Error {
    anyhow!("{what}: {error} - {remedy}")
}

fn fields(args: &Args, target: &Target) -> anyhow::Result<Vec<String>> {
    let Some(list) = &args.fields else {
        return Ok(target.health()?.subscribed_fields);
    };
    let fields: Vec<String> = list
        .split(',')
        .map(|field| field.trim().to_owned())
        .filter(|field| !field.is_empty())
        .collect();
    if fields.is_empty() {
        return Err(usage(
            "--fields is empty, but expects names such as messages,messaging_postbacks",
        ));
    }
    Ok(fields)
}

/// The tokens on the command line, with what stands for another place read from there.
fn given(args: &Args, hidden: &mut Hidden) -> anyhow::Result<tokens::Given> {
    if let Some(token) = &args.user_token {
        if args.app_secret_stdin && token.expose_secret() == "-" {
            return Err(usage(
                "standard input cannot be the app secret and the user token: give one as @FILE",
            ));
        }
        let token = dereference(token.expose_secret(), "--user-token")?;
        hidden.add(&token);
        return Ok(tokens::Given::Person(token));
    }
    let mut pages = Vec::new();
    for pair in &args.page_tokens {
        let (page, token) = pair
            .expose_secret()
            .split_once('=')
            .filter(|(page, _)| !page.is_empty())
            .ok_or_else(|| usage("--page-token expects PAGE=TOKEN"))?;
        let token = dereference(token, "--page-token")?;
        hidden.add(&token);
        pages.push((page.to_owned(), token));
    }
    Ok(if pages.is_empty() {
        tokens::Given::Nothing
    } else {
        tokens::Given::Pages(pages)
    })
}

fn dereference(text: &str, flag: &str) -> anyhow::Result<SecretString> {
    let text = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("{flag}: cannot read {file}"))?,
        None if text == "-" => {
            std::io::read_to_string(std::io::stdin()).context("standard input cannot be read")?
        }
        None => text.to_owned(),
    };
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_whitespace) || !text.is_ascii() {
        return Err(usage(format!(
            "{flag} is no token: it is empty, or holds blanks or other letters"
        )));
    }
    Ok(SecretString::from(text))
}
