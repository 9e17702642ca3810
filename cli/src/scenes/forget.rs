//! A person removes the app and asks Meta for deletion: they are found, erased, and told so.

use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::SignedDuration;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::webhook::signed_request::sign;

use crate::inspect::{CONTACTS, OUTBOX, Snapshot, drained};
use crate::output;
use crate::payloads::{self, Credential};
use crate::secrets;
use crate::stack::{LocalStack, StackOptions};

/// How long what follows from one step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The person: to the app, and to the page of the recorded message.
const USER_ID: &str = "10200000000000042";
const PAGE: &str = "1134597043258171";
const MESSAGE: &str = "messenger/message_text";

/// Plays it, prints it unless `quiet`, and says how many things were off. Time is moved, so it has a stack of its own.
///
/// # Errors
///
/// When a stack cannot be started or asked.
pub(crate) async fn play(now: &Clock, client: &reqwest::Client, quiet: bool) -> anyhow::Result<usize> {
    let clock = Clock::fixed(now.now());
    let stack = LocalStack::start(StackOptions::with_clock(&clock)).await?;
    let scene = Scene {
        stack: &stack,
        clock: &clock,
        client,
        quiet,
    };
    let off = scene.play().await;
    stack.stop().await;
    off
}

struct Scene<'a> {
    stack: &'a LocalStack,
    clock: &'a Clock,
    client: &'a reqwest::Client,
    quiet: bool,
}

impl Scene<'_> {
    async fn play(&self) -> anyhow::Result<usize> {
        self.say("\nforget  a person asks Meta to delete their data");
        let psid = self.writes().await?;
        let graph = self
            .stack
            .fakes()
            .graph
            .as_ref()
            .context("there is no fake Graph")?;
        graph.add_person_on_page(USER_ID, PAGE, &psid);
        let code = self.asks().await?;
        let mut off = 0;
        for (minutes, expected) in [(2, "matched"), (11, "erased")] {
            self.clock
                .set(self.clock.now() + SignedDuration::from_mins(minutes));
            let status = self.becomes(&code, expected).await?;
            if expected == "matched" {
                self.first_look().await?;
            }
            self.say(&format!("  {minutes} minutes later: {status}"));
            if status != expected {
                off += 1;
                output::line(format_args!(
                    "  OFF     the erasure is {status} instead of {expected}"
                ));
            }
        }
        let after = Snapshot::take(self.stack).await?;
        for table in [CONTACTS, OUTBOX] {
            let mut items = after.table(table).iter();
            if items.any(|(key, item)| key.contains(&psid) || item.to_string().contains(&psid)) {
                off += 1;
                output::line(format_args!("  OFF     {table} still names the person"));
            }
        }
        let braze = self
            .stack
            .fakes()
            .braze
            .as_ref()
            .context("there is no fake Braze")?;
        if !braze.profiles().is_empty() {
            off += 1;
            output::line("  OFF     Braze still has the person's profile");
        }
        Ok(off)
    }

    /// A person writes, and Braze knows them. Gives their page-scoped id.
    async fn writes(&self) -> anyhow::Result<String> {
        let payload = payloads::find(MESSAGE, None)?;
        let body: Value = serde_json::from_slice(&payload.body)?;
        let psid = body
            .pointer("/entry/0/messaging/0/sender/id")
            .and_then(Value::as_str);
        let psid = psid.context("the recorded message has no sender")?.to_owned();
        let url = format!("{}{}", self.stack.url(), payload.sender.path());
        let mut request = self.client.post(url);
        for (name, value) in payload.headers(&secrets::development_credential(payload.sender)) {
            request = request.header(name, value);
        }
        let status = request.body(payload.body).send().await?.status();
        if !status.is_success() || !drained(self.stack, PATIENCE).await? {
            bail!("the message did not arrive ({status})");
        }
        self.say("  wrote   a message, and has a profile in Braze");
        Ok(psid)
    }

    /// Meta posts the person's request. Gives the confirmation code.
    async fn asks(&self) -> anyhow::Result<String> {
        let Credential::AppSecret(secret) = secrets::development_credential(payloads::Sender::Messenger)
        else {
            bail!("there is no app secret");
        };
        let payload = json!({
            "algorithm": "HMAC-SHA256", "issued_at": self.clock.now().as_second(), "user_id": USER_ID,
        });
        let url = format!("{}/meta/deletion", self.stack.url());
        let form = [("signed_request", sign(&secret, &payload))];
        let answer: Value = self.client.post(url).form(&form).send().await?.json().await?;
        let code = answer.get("confirmation_code").and_then(Value::as_str);
        let code = code.context("the request was refused")?.to_owned();
        self.say("  asked   Meta, which posted a signed_request → 200 with a confirmation code");
        Ok(code)
    }

    /// The status, once it is `expected` or nothing more happens.
    async fn becomes(&self, code: &str, expected: &str) -> anyhow::Result<String> {
        let url = format!("{}/meta/deletion/{code}", self.stack.url());
        let ends = tokio::time::Instant::now() + PATIENCE;
        loop {
            let request = self.client.get(&url).header("accept", "application/json");
            let answer: Value = request.send().await?.json().await?;
            let status = answer.get("status").and_then(Value::as_str).unwrap_or_default();
            if status == expected || tokio::time::Instant::now() > ends {
                return Ok(status.to_owned());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until what was found is deleted: the second look comes ten minutes after that.
    async fn first_look(&self) -> anyhow::Result<()> {
        let ends = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < ends {
            let now = Snapshot::take(self.stack).await?;
            let mut orders = now.table(OUTBOX).values().map(Value::to_string);
            if orders.any(|order| order.contains("swept_at")) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the erasure does not end");
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            output::line(text);
        }
    }
}
