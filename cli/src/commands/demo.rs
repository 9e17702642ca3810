//! `bridge demo`

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use shared::clients::http;
use shared::clock::Clock;
use shared::health::Status;
use shared::messenger::key::ContactKey;
use testkit::braze::{Endpoint, FakeBraze};

use crate::check;
use crate::commands::setup;
use crate::inspect::{self, Snapshot};
use crate::output::{self, usage};
use crate::payloads::{self, Payload, Sender};
use crate::scenes::{campaign, conversation, fbe_life, forget, vendors};
use crate::secrets;
use crate::stack::{LocalStack, StackOptions};
use crate::story::{self, Mark};

/// How long what follows from one payload may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Start everything embedded, play every recorded payload, and show what came of it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Needs no account, no Docker and no network. Each payload is signed and posted to the HTTP API of an\n\
    embedded stack; below it stands what was stored and what Braze was sent. Then scenes are played: a business's life with\n\
    FBE, WhatsApp conversations with a bot, a model and a vendor, a campaign on Messenger. At last\n\
    somebody is forgotten.\n\
    Exits 1 if anything is off.\n\n\
    Examples:\n  \
    bridge demo\n  \
    bridge demo --console\n  \
    bridge demo instagram\n  \
    bridge demo messenger/referral_link_token messenger/message_opt_out"
)]
pub(crate) struct Args {
    /// Only these: a sender, such as messenger, or a case, such as `messenger/message_text`
    #[arg(value_name = "SENDER|CASE")]
    only: Vec<String>,

    /// Play into the console, and keep it open until Ctrl-C
    #[arg(long)]
    console: bool,

    /// Print only what is off, and the summary
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run(args: &Args, clock: &Clock) -> anyhow::Result<()> {
    let chosen = choose(&args.only)?;
    let start = Instant::now();
    let stack = LocalStack::start(StackOptions {
        console: args.console,
        ..StackOptions::with_clock(clock)
    })
    .await?;
    output::note(format_args!(
        "the stack answers at {} (started in {} ms)",
        stack.url(),
        start.elapsed().as_millis()
    ));
    if let Some(console) = stack.console() {
        output::line(format_args!("console {console}"));
    }
    let mut demo = Demo {
        client: http::client(Duration::from_secs(30)),
        before: Snapshot::take(&stack).await?,
        stack,
        quiet: args.quiet,
        accepted: 0,
        replies: 0,
        off: 0,
    };
    demo.refusals().await?;
    if args.only.is_empty() {
        demo.set_up(clock).await?;
    }
    let mut played = 0;
    for payload in &chosen {
        if !demo.serves(payload.sender) {
            continue;
        }
        demo.play(payload).await?;
        played += 1;
    }
    demo.replies = demo.stack.fakes().braze.as_ref().map_or(0, replies_to);
    let plays = |sender: Sender| args.only.is_empty() || args.only.iter().any(|only| only == sender.name());
    if plays(Sender::Fbe) && demo.serves(Sender::Fbe) {
        demo.fbe_life().await?;
    }
    if plays(Sender::Whatsapp) && demo.serves(Sender::Whatsapp) {
        demo.off += conversation::play(&demo.stack, &demo.client, demo.quiet).await?;
        demo.off += vendors::play(clock, &demo.client, demo.quiet).await?;
        demo.before = Snapshot::take(&demo.stack).await?;
    }
    if plays(Sender::MessengerSend) && demo.serves(Sender::MessengerSend) {
        demo.off += campaign::play(clock, &demo.client, demo.quiet).await?;
    }
    if args.only.is_empty() {
        demo.off += forget::play(demo.stack.clock(), &demo.client, demo.quiet).await?;
    }
    demo.finish(played, start).await
}

fn choose(only: &[String]) -> anyhow::Result<Vec<Payload>> {
    if only.is_empty() {
        let webhooks = Sender::ALL
            .into_iter()
            .filter(|sender| *sender != Sender::MessengerSend);
        return Ok(webhooks.flat_map(in_order).collect());
    }
    let mut chosen = Vec::new();
    for name in only {
        match Sender::ALL.into_iter().find(|sender| sender.name() == name) {
            // To people who have to come first: a scene of its own.
            Some(Sender::MessengerSend) => {}
            Some(sender) => chosen.extend(in_order(sender)),
            None if std::path::Path::new(name).is_file() => {
                return Err(usage(format!(
                    "the demo plays recorded payloads; for the file {name} there is `bridge send`"
                )));
            }
            None => chosen.push(payloads::find(name, None)?),
        }
    }
    Ok(chosen)
}

/// In the order in which they happened, so that they tell a story; what has no time happens now.
fn in_order(sender: Sender) -> Vec<Payload> {
    let mut payloads = payloads::recorded(sender);
    payloads.sort_by_cached_key(|payload| {
        let body: Value = serde_json::from_slice(&payload.body).unwrap_or_default();
        body.pointer("/entry/0/time")
            .and_then(seconds)
            .unwrap_or(i64::MAX)
    });
    payloads
}

/// Meta's times are in seconds here and in milliseconds there, and may be texts.
fn seconds(time: &Value) -> Option<i64> {
    const FIRST_IN_MILLISECONDS: i64 = 100_000_000_000;
    let number = time.as_i64().or_else(|| time.as_str()?.parse().ok())?;
    Some(if number < FIRST_IN_MILLISECONDS {
        number
    } else {
        number / 1000
    })
}

struct Demo {
    stack: LocalStack,
    client: reqwest::Client,
    before: Snapshot,
    quiet: bool,
    accepted: usize,
    /// To the recorded payloads.
    replies: usize,
    off: usize,
}

impl Demo {
    fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            output::line(text);
        }
    }

    fn is_off(&mut self, text: impl std::fmt::Display) {
        self.off += 1;
        output::line(format_args!("  OFF     {text}"));
    }

    /// Whether the template routes the sender's path to a function of this build.
    fn serves(&self, sender: Sender) -> bool {
        self.stack.template().functions().iter().any(|function| {
            self.stack.function(&function.logical_id).is_some()
                && function.routes.iter().any(|route| route.path == sender.path())
        })
    }

    /// The doors: the handshake that Meta makes when a webhook is set up, and a forged request.
    async fn refusals(&mut self) -> anyhow::Result<()> {
        let url = format!("{}{}", self.stack.url(), Sender::Messenger.path());
        let handshake = |token: &str| {
            format!("{url}?hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1158201444")
        };
        for (what, request, status, body) in [
            (
                "Meta sets the webhook up",
                self.client.get(handshake("development-verify-token")),
                200,
                Some("1158201444"),
            ),
            (
                "… somebody else tries to",
                self.client.get(handshake("guessed")),
                403,
                None,
            ),
            (
                "a forged event",
                self.client
                    .post(&url)
                    .header(
                        shared::webhook::signature::HEADER,
                        format!("sha256={}", "0".repeat(64)),
                    )
                    .body("{}"),
                401,
                None,
            ),
        ] {
            let (answered, text) = answer(request).await?;
            self.say(format_args!("{what:<52} {answered} {}", first_line(&text)));
            if answered != status || body.is_some_and(|body| body != text) {
                self.is_off(format_args!("{what}: expected {status}"));
            }
        }
        Ok(())
    }

    /// What a newcomer does first: `bridge setup`, twice, and every check that `bridge doctor` makes.
    async fn set_up(&mut self, clock: &Clock) -> anyhow::Result<()> {
        let report = setup::embedded(&self.stack, clock).await?;
        self.say("bridge setup");
        for line in report.lines() {
            self.say(format_args!("  {line}"));
        }
        for problem in &report.problems {
            self.is_off(format_args!("setup: {problem}"));
        }
        self.say("bridge doctor");
        for check in &report.checks {
            let said = format_args!("{}: {}", check.name, check.message);
            match check.status {
                Status::Ok => self.say(format_args!("  ok         {said}")),
                // The machine's clock, where the demo has another.
                Status::Warn => self.say(format_args!("  warn       {said}")),
                Status::Fail => self.is_off(format_args!("doctor: {said}")),
            }
        }
        if setup::embedded(&self.stack, clock).await?.changed() {
            self.is_off("setup: the second time something was changed");
        }
        Ok(())
    }

    async fn play(&mut self, payload: &Payload) -> anyhow::Result<()> {
        let mut mark = Mark::of(self.stack.fakes());
        let mut request = self
            .client
            .post(format!("{}{}", self.stack.url(), payload.sender.path()));
        for (name, value) in payload.headers(&secrets::development_credential(payload.sender)) {
            request = request.header(name, value);
        }
        let (status, text) = answer(request.body(payload.body.clone())).await?;
        let drained = inspect::drained(&self.stack, PATIENCE).await?;
        // What the sender's function and the dispatcher write to.
        let table = match payload.sender {
            Sender::Messenger | Sender::Instagram | Sender::MessengerSend => inspect::CONTACTS,
            Sender::Fbe => inspect::INSTALLS,
            Sender::Whatsapp => inspect::CONVERSATIONS,
        };
        let after = self.before.with(&self.stack, &[table, inspect::OUTBOX]).await?;

        self.say(format_args!(
            "{:<52} {status} {}",
            payload.name,
            first_line(&text)
        ));
        for line in story::changes(&after.since(&self.before)) {
            self.say(format_args!("  {line}"));
        }
        for line in mark.news(self.stack.fakes()) {
            self.say(format_args!("  {line}"));
        }
        let expected = match payload.sender {
            Sender::Whatsapp | Sender::MessengerSend => 202,
            _ => 200,
        };
        if payload.sender == Sender::Whatsapp {
            self.relayed(payload, &text);
        }
        if status != expected {
            self.is_off(format_args!("{}: {status} instead of {expected}", payload.name));
        }
        if !drained {
            self.is_off(format_args!(
                "{}: the outbox is not drained after {} s",
                payload.name,
                PATIENCE.as_secs()
            ));
        }
        self.before = after;
        Ok(())
    }

    /// What is named so must be quarantined, and nothing else; what is accepted is answered once by the echo.
    fn relayed(&mut self, payload: &Payload, text: &str) {
        let answer: Value = serde_json::from_str(text).unwrap_or_default();
        let status = answer.get("status").and_then(Value::as_str).unwrap_or_default();
        self.accepted += usize::from(status == "accepted");
        if payload.name.contains("/quarantined_") != (status == "quarantined") {
            self.is_off(format_args!("{}: it is {status}", payload.name));
        }
    }

    /// One business from its install to its removal.
    async fn fbe_life(&mut self) -> anyhow::Result<()> {
        for step in fbe_life::play(&self.stack, &self.client).await? {
            self.say(&step.title);
            for line in step.lines {
                self.say(format_args!("  {line}"));
            }
            for deviation in step.deviations {
                self.is_off(deviation);
            }
        }
        let tables = [inspect::INSTALLS, inspect::OUTBOX];
        self.before = self.before.with(&self.stack, &tables).await?;
        Ok(())
    }

    async fn finish(mut self, played: usize, start: Instant) -> anyhow::Result<()> {
        for problem in check::problems(&self.stack, &self.before)? {
            self.is_off(problem);
        }
        // The same table holds what is known of a `user_ref`.
        let keys = self.before.table(inspect::CONTACTS).keys();
        let contacts = keys.filter(|key| key.parse::<ContactKey>().is_ok()).count();
        let (accepted, replies) = (self.accepted, self.replies);
        if replies != accepted {
            self.is_off(format_args!(
                "{accepted} WhatsApp messages were accepted, but {replies} replies were sent"
            ));
        }
        let (profiles, points) = match &self.stack.fakes().braze {
            Some(braze) => (braze.profiles().len(), braze.data_points()),
            None => (0, 0),
        };
        output::line(format_args!(
            "\n{played} payloads: {contacts} contacts, {} installs, {replies} WhatsApp replies; \
             {profiles} Braze profiles, {points} data points; {} off; {:.1} s",
            self.before.table(inspect::INSTALLS).len(),
            self.off,
            start.elapsed().as_secs_f64()
        ));
        let off = self.off;
        if self.stack.console().is_some() {
            output::line("the console stays open until Ctrl-C");
            tokio::signal::ctrl_c().await?;
        }
        self.stack.stop().await;
        if off > 0 {
            bail!("{off} things are off; `bridge -v demo` shows the functions' log");
        }
        output::line("all in order: what Braze holds is what the contacts say, and nothing is left to send");
        Ok(())
    }
}

/// Replies that Braze took. Whom they reach is Braze's: the recorded people are no users of the fake.
fn replies_to(braze: &FakeBraze) -> usize {
    let requests = braze.requests_to(Endpoint::TriggerSend);
    let taken = requests.iter().filter(|request| request.status == Some(201));
    taken.count()
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<(u16, String)> {
    let answer = request
        .send()
        .await
        .context("the embedded stack does not answer")?;
    let status = answer.status().as_u16();
    Ok((status, answer.text().await.context("the answer was cut off")?))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
