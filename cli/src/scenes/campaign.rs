//! A campaign writes to people on Messenger: to one who wrote lately, to one who wrote too long ago, and to one who has
//! blocked the page and comes back.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Context as _;
use jiff::SignedDuration;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::messenger::link;
use testkit::braze::FakeBraze;
use testkit::graph::{FakeGraph, Reach};

use crate::fakes::recorded_page;
use crate::inspect;
use crate::output;
use crate::payloads::{Payload, Sender};
use crate::secrets;
use crate::stack::{LocalStack, StackOptions};
use crate::story::Mark;

/// How long what follows from one step may take.
const PATIENCE: Duration = Duration::from_secs(20);

const TEXT: &str = "Your order has left our house.";

/// Who is written to: external id in Braze and PSID.
const LATELY: (&str, &str) = ("dora", "5275811702470001");
const LONG_AGO: (&str, &str) = ("emil", "5275811702470002");
const BLOCKS: (&str, &str) = ("fay", "5275811702470003");

/// Plays it on a stack of its own, for time is moved; prints it unless `quiet`, and says how many things were off.
///
/// # Errors
///
/// When a stack cannot be started or asked.
pub(crate) async fn play(now: &Clock, client: &reqwest::Client, quiet: bool) -> anyhow::Result<usize> {
    let clock = Clock::fixed(now.now());
    let page = recorded_page().id;
    let mut secrets = secrets::development();
    let meta = secrets.get_mut("meta").and_then(Value::as_object_mut);
    let tokens = json!({ &page: format!("EAAB-page-{page}") });
    meta.context("there is no meta secret")?
        .insert("page_access_tokens".to_owned(), tokens);
    let stack = LocalStack::start(StackOptions {
        secrets: Some(secrets),
        ..StackOptions::with_clock(&clock)
    })
    .await?;
    let fakes = stack.fakes();
    let mut campaign = Campaign {
        stack: &stack,
        graph: fakes.graph.as_deref().context("there is no fake Graph")?,
        braze: fakes.braze.as_ref().context("there is no fake Braze")?,
        client,
        clock: &clock,
        page: &page,
        quiet,
        mark: Mark::of(fakes),
        sent: 0,
        off: 0,
    };
    let played = campaign.run().await;
    for refusal in stack.fakes().take_refusals() {
        campaign.is_off(refusal);
    }
    let off = campaign.off;
    stack.stop().await;
    played.map(|()| off)
}

struct Campaign<'a> {
    stack: &'a LocalStack,
    graph: &'a FakeGraph,
    braze: &'a FakeBraze,
    client: &'a reqwest::Client,
    clock: &'a Clock,
    page: &'a str,
    quiet: bool,
    mark: Mark,
    /// Messages of Graph's that were looked at.
    sent: usize,
    off: usize,
}

impl Campaign<'_> {
    async fn run(&mut self) -> anyhow::Result<()> {
        self.title("three people come by a link that says who they are, one of them a day earlier");
        self.comes(LONG_AGO).await?;
        self.later(SignedDuration::from_hours(25));
        self.comes(LATELY).await?;
        self.comes(BLOCKS).await?;
        self.settles(&[]).await?;

        self.title("the campaign reaches who wrote lately, once");
        for repetition in ["accepted", "duplicate"] {
            self.writes_to(LATELY, "dispatch-1", &json!({}), (202, repetition))
                .await?;
        }
        self.settles(&[LATELY]).await?;

        self.title("it does not reach who wrote too long ago; a human agent still may");
        self.writes_to(LONG_AGO, "dispatch-1", &json!({}), (409, "window_closed"))
            .await?;
        let agent = json!({"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"});
        self.writes_to(LONG_AGO, "dispatch-2", &agent, (202, "accepted"))
            .await?;
        self.settles(&[LONG_AGO]).await?;

        self.title("one has blocked the page: Meta says so, and Braze forgets the id");
        self.graph.set_reach(BLOCKS.1, Reach::Unavailable);
        self.writes_to(BLOCKS, "dispatch-1", &json!({}), (202, "accepted"))
            .await?;
        self.settles(&[]).await?;
        self.holds_id(BLOCKS, false);
        self.later(SignedDuration::from_hours(1));
        self.writes_to(BLOCKS, "dispatch-3", &json!({}), (409, "unreachable"))
            .await?;

        self.title("they come back, and are reached again");
        self.graph.set_reach(BLOCKS.1, Reach::Open);
        self.acts(
            BLOCKS,
            "message",
            json!({"mid": "m_back", "text": "Hello again!"}),
        )
        .await?;
        self.settles(&[]).await?;
        self.holds_id(BLOCKS, true);
        self.writes_to(BLOCKS, "dispatch-4", &json!({}), (202, "accepted"))
            .await?;
        self.settles(&[BLOCKS]).await
    }

    /// By an m.me link whose token says who they are.
    async fn comes(&mut self, person: (&str, &str)) -> anyhow::Result<()> {
        let key = self
            .stack
            .secrets()
            .get("link")
            .and_then(|link| link.get("signing_key")?.as_str());
        let key = key.context("the link secret has no signing_key")?;
        let minutes = SignedDuration::from_mins(15);
        let token = link::mint(&key.into(), person.0, minutes, self.clock.now())?;
        self.acts(
            person,
            "referral",
            json!({"ref": token, "source": "SHORTLINK", "type": "OPEN_THREAD"}),
        )
        .await?;
        self.say(format_args!("  came    {}", person.0));
        Ok(())
    }

    /// Meta's webhook says what a person did.
    async fn acts(&mut self, person: (&str, &str), what: &str, value: Value) -> anyhow::Result<()> {
        let at = self.clock.now().as_millisecond();
        let item =
            json!({"sender": {"id": person.1}, "recipient": {"id": self.page}, "timestamp": at, what: value});
        let body = json!({"object": "page", "entry": [{"id": self.page, "time": at, "messaging": [item]}]});
        let (status, _) = self.posts(Sender::Messenger, &body).await?;
        if status != 200 {
            self.is_off(format_args!("Meta's webhook was answered {status}"));
        }
        Ok(())
    }

    /// Braze's webhook campaign posts a message.
    async fn writes_to(
        &mut self,
        person: (&str, &str),
        dispatch_id: &str,
        more: &Value,
        expected: (u16, &str),
    ) -> anyhow::Result<()> {
        let mut body = json!({
            "user_id": person.0, "dispatch_id": dispatch_id, "campaign_id": "order-left", "text": TEXT,
        });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let (status, answer) = self.posts(Sender::MessengerSend, &body).await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        let word = text("status").or_else(|| text("error")).unwrap_or_default();
        self.say(format_args!("  to      {} → {status} {word}", person.0));
        if (status, word) != expected {
            self.is_off(format_args!("expected {} {}", expected.0, expected.1));
        }
        Ok(())
    }

    async fn posts(&self, sender: Sender, body: &Value) -> anyhow::Result<(u16, Value)> {
        let payload = Payload {
            sender,
            name: "campaign".to_owned(),
            body: body.to_string().into_bytes(),
        };
        let mut request = self.client.post(format!("{}{}", self.stack.url(), sender.path()));
        for (name, value) in payload.headers(&secrets::development_credential(sender)) {
            request = request.header(name, value);
        }
        let answer = request.body(payload.body).send().await;
        let answer = answer.context("the embedded stack does not answer")?;
        let status = answer.status().as_u16();
        let text = answer.text().await.context("the answer was cut off")?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    /// Waits until nothing is left to do; Meta must have taken a message to each of these since, and no other.
    async fn settles(&mut self, reached: &[(&str, &str)]) -> anyhow::Result<()> {
        if !inspect::drained(self.stack, PATIENCE).await? {
            self.is_off(format_args!(
                "the outbox is not drained after {} s",
                PATIENCE.as_secs()
            ));
        }
        for line in self.mark.news(self.stack.fakes()) {
            self.say(format_args!("  {line}"));
        }
        let sent = self.graph.sent_messages();
        let new = sent.iter().skip(self.sent);
        let people: Vec<&str> = new.map(|message| message.recipient.as_str()).collect();
        let expected: Vec<&str> = reached.iter().map(|person| person.1).collect();
        if people != expected {
            self.is_off(format_args!(
                "Meta has taken messages to {people:?} instead of {expected:?}"
            ));
        }
        self.sent = sent.len();
        Ok(())
    }

    fn holds_id(&mut self, person: (&str, &str), expected: bool) {
        let profile = self.braze.profile(person.0);
        let held = profile.and_then(|profile| profile.attribute("messenger_id").cloned());
        self.say(match &held {
            Some(id) => format!("  profile {}: messenger_id = {id}", person.0),
            None => format!("  profile {}: no messenger_id", person.0),
        });
        if held.is_some_and(|id| id == person.1) != expected {
            self.is_off("the profile's messenger_id is not as it should be");
        }
    }

    fn later(&self, duration: SignedDuration) {
        self.clock.set(self.clock.now() + duration);
    }

    fn title(&self, text: &str) {
        self.say(format_args!("Messenger: {text}"));
    }

    fn say(&self, text: impl Display) {
        if !self.quiet {
            output::line(text);
        }
    }

    fn is_off(&mut self, text: impl Display) {
        self.off += 1;
        output::line(format_args!("  OFF     {text}"));
    }
}
