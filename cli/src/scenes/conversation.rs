//! One person talks to the WhatsApp relay: broken JSON, a burst, a late answer, a human agent, and an answer
//! after WhatsApp's 24 hours.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use jiff::SignedDuration;
use serde_json::{Value, json};
use shared::clock::Clock;
use testkit::braze::FakeBraze;
use testkit::external_system::{Behaviour, ExternalSystem, Reply};

use crate::inspect;
use crate::output;
use crate::payloads::{Payload, Sender};
use crate::secrets;
use crate::stack::{LocalStack, StackOptions};
use crate::story::{self, Mark};

/// How long what follows from one step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the external system thinks while the burst comes in.
const THINKING: Duration = Duration::from_secs(1);

/// Who writes: the external id in Braze, the telephone, and what the relay calls the conversation.
const USER: &str = "ana";
const PHONE: &str = "+15550142";
const CONVERSATION: &str = "user:ana";

/// The attribute that says that people answer.
const HUMAN: &str = "whatsapp_human_agent";

/// The trigger property unless the settings name another.
const PROPERTY: &str = "external_system_msg_body";

const TEMPLATE_CAMPAIGN: &str = "local-template-campaign";

/// Plays it, prints it unless `quiet`, and says how many things were off.
///
/// # Errors
///
/// When a stack cannot be started or asked. A wrong reply is no error but off.
pub(crate) async fn play(stack: &LocalStack, client: &reqwest::Client, quiet: bool) -> anyhow::Result<usize> {
    let mut conversation = Conversation::with(stack, client, quiet)?;
    conversation.quotes_and_line_breaks().await?;
    conversation.burst().await?;
    conversation.late_answer().await?;
    conversation.human_agent().await?;
    Ok(conversation.off + next_day(stack.clock(), client, quiet).await?)
}

/// The answer that comes after 25 hours. Time is moved, so it has a stack of its own.
async fn next_day(now: &Clock, client: &reqwest::Client, quiet: bool) -> anyhow::Result<usize> {
    let clock = Clock::fixed(now.now());
    let template = ("TEMPLATE_CAMPAIGN_ID".to_owned(), TEMPLATE_CAMPAIGN.to_owned());
    let stack = LocalStack::start(StackOptions {
        settings: BTreeMap::from([template]),
        ..StackOptions::with_clock(&clock)
    })
    .await?;
    let mut conversation = Conversation::with(&stack, client, quiet)?;
    let played = conversation.after_the_window(&clock).await;
    conversation.refusals();
    let off = conversation.off;
    stack.stop().await;
    played.map(|()| off)
}

/// What one step must come to, and nothing else.
#[derive(Default)]
struct Expected<'a> {
    /// The texts of each handover.
    handed: &'a [&'a [&'a str]],
    /// Who answered when they were handed over.
    mode: &'a str,
    /// What leaves through Braze, in order.
    sent: &'a [&'a str],
    /// Through this campaign; empty = the campaign for replies.
    campaign: &'a str,
    /// What the profile then says.
    attributes: &'a [(&'a str, Value)],
}

struct Conversation<'a> {
    stack: &'a LocalStack,
    braze: &'a FakeBraze,
    system: &'a ExternalSystem,
    client: &'a reqwest::Client,
    quiet: bool,
    mark: Mark,
    /// Handovers, messages and callbacks that were looked at.
    handed: usize,
    sent: usize,
    called: usize,
    off: usize,
}

impl<'a> Conversation<'a> {
    fn with(stack: &'a LocalStack, client: &'a reqwest::Client, quiet: bool) -> anyhow::Result<Self> {
        let fakes = stack.fakes();
        let braze = fakes.braze.as_ref().context("there is no fake Braze")?;
        braze.add_user(USER, &json!({}));
        Ok(Self {
            stack,
            braze,
            system: fakes
                .external_system
                .as_ref()
                .context("there is no fake external system")?,
            client,
            quiet,
            mark: Mark::of(fakes),
            handed: 0,
            sent: 0,
            called: 0,
            off: 0,
        })
    }

    async fn quotes_and_line_breaks(&mut self) -> anyhow::Result<()> {
        self.title("quotes and line breaks, through a template without json_escape");
        let text = "Where is \"order 66\"?\nYou wrote:\n\t\"tomorrow\", twice: \"tomorrow\"";
        self.system
            .script(Behaviour::text("It is on its way,\n\"tomorrow\" it is there."));
        self.says(text).await?;
        self.settles(&Expected {
            handed: &[&[text]],
            mode: "bot",
            sent: &["It is on its way,\n\"tomorrow\" it is there."],
            ..Expected::default()
        })
        .await
    }

    /// Three messages that come while an answer is made are answered together, after it.
    async fn burst(&mut self) -> anyhow::Result<()> {
        self.title("a burst of three, while the external system is still thinking");
        let first = Behaviour::text("One moment, please.");
        self.system.script(Behaviour::Slow(THINKING, Box::new(first)));
        self.system.script(Behaviour::text("All three are noted."));
        self.says("I have to change it.").await?;
        let handed = self.handed;
        self.system
            .until(PATIENCE, |system| {
                system.handovers_of(CONVERSATION).len() > handed
            })
            .await;
        let burst = ["Two of the blue ones", "none of the red ones", "and to my office"];
        for text in burst {
            self.says(text).await?;
        }
        self.settles(&Expected {
            handed: &[&["I have to change it."], &burst],
            mode: "bot",
            sent: &["One moment, please.", "All three are noted."],
            ..Expected::default()
        })
        .await
    }

    async fn late_answer(&mut self) -> anyhow::Result<()> {
        self.title("the external system answers 202, and half a second later for good");
        let reply = Reply::text("Your office it is.").attributes(json!({"last_topic": "delivery"}));
        let reply = Box::new(Behaviour::Reply(reply));
        self.system
            .script(Behaviour::Later(Duration::from_millis(500), reply));
        self.says("Does that work?").await?;
        self.settles(&Expected {
            handed: &[&["Does that work?"]],
            mode: "bot",
            sent: &["Your office it is."],
            attributes: &[("last_topic", json!("delivery"))],
            ..Expected::default()
        })
        .await?;
        self.called_back(&[202]).await;
        Ok(())
    }

    async fn human_agent(&mut self) -> anyhow::Result<()> {
        self.title("a human agent takes over");
        self.system.script(Behaviour::Reply(
            Reply::text("A colleague takes over.").handoff(true),
        ));
        self.says("May I talk to a person?").await?;
        self.settles(&Expected {
            handed: &[&["May I talk to a person?"]],
            mode: "bot",
            sent: &["A colleague takes over."],
            attributes: &[(HUMAN, json!(true))],
            ..Expected::default()
        })
        .await?;
        self.system.script(Behaviour::Reply(Reply::silent()));
        self.says("Is anybody there?").await?;
        self.settles(&Expected {
            handed: &[&["Is anybody there?"]],
            mode: "human",
            attributes: &[(HUMAN, json!(true))],
            ..Expected::default()
        })
        .await?;

        self.title("the agent answers, twice by mistake, and hands back");
        let reply = Reply::text("Berta here: it is all changed.").handoff(false);
        for _ in 0..2 {
            self.calls_back("agent-1", &reply).await?;
        }
        self.settles(&Expected {
            sent: &["Berta here: it is all changed."],
            attributes: &[(HUMAN, json!(false))],
            ..Expected::default()
        })
        .await?;
        // A repetition is told that all is well, so that it ends.
        self.called_back(&[202, 202]).await;
        self.says("Thank you!").await?;
        self.settles(&Expected {
            handed: &[&["Thank you!"]],
            mode: "bot",
            sent: &["You said: Thank you!"],
            attributes: &[(HUMAN, json!(false))],
            ..Expected::default()
        })
        .await
    }

    async fn after_the_window(&mut self, clock: &Clock) -> anyhow::Result<()> {
        self.title("the answer takes 25 hours: only a template may reach the person");
        self.system.script(Behaviour::later(Duration::from_hours(25)));
        self.says("Do you repair old ones?").await?;
        self.settles(&Expected {
            handed: &[&["Do you repair old ones?"]],
            mode: "bot",
            ..Expected::default()
        })
        .await?;
        clock.set(clock.now() + SignedDuration::from_hours(25));
        self.say("  25 hours later");
        self.calls_back("next-day", &Reply::text("Yes,\n  we do."))
            .await?;
        self.settles(&Expected {
            // A template's parameter may hold no line break.
            sent: &["Yes, we do."],
            campaign: TEMPLATE_CAMPAIGN,
            ..Expected::default()
        })
        .await?;
        self.called_back(&[202]).await;
        Ok(())
    }

    /// Braze posts what the person wrote, put into the template as it is.
    async fn says(&mut self, text: &str) -> anyhow::Result<()> {
        let body = format!(
            "{{\n  \"user_id\": \"{USER}\",\n  \"phone_number\": \"{PHONE}\",\n  \"message\": \"{text}\"\n}}"
        );
        let payload = Payload {
            sender: Sender::Whatsapp,
            name: "conversation".to_owned(),
            body: body.into_bytes(),
        };
        let mut request = self
            .client
            .post(format!("{}{}", self.stack.url(), Sender::Whatsapp.path()));
        for (name, value) in payload.headers(&secrets::development_credential(Sender::Whatsapp)) {
            request = request.header(name, value);
        }
        let answer = request.body(payload.body).send().await;
        let answer = answer.context("the embedded stack does not answer")?;
        let status = answer.status().as_u16();
        let answer: Value = answer.json().await.context("the answer is not JSON")?;
        let became = answer.get("status").and_then(Value::as_str).unwrap_or_default();
        self.say(format_args!(
            "  said    {} → {status} {became}",
            story::quoted(text)
        ));
        if (status, became) != (202, "accepted") {
            self.is_off(format_args!("the message is not accepted: {answer}"));
        }
        Ok(())
    }

    /// The external system calls `/whatsapp/reply`, as it was told to.
    async fn calls_back(&mut self, webhook_id: &str, reply: &Reply) -> anyhow::Result<()> {
        let handovers = self.system.handovers_of(CONVERSATION);
        let url = handovers
            .last()
            .and_then(|handover| handover.body.get("reply_url")?.as_str())
            .context("no handover told where to answer")?;
        self.system
            .call_back(url, CONVERSATION, webhook_id, reply)
            .await?;
        Ok(())
    }

    /// Waits until all is said, tells it, and compares.
    async fn settles(&mut self, expected: &Expected<'_>) -> anyhow::Result<()> {
        let (handed, sent) = (
            self.handed + expected.handed.len(),
            self.sent + expected.sent.len(),
        );
        self.system
            .until(PATIENCE, |system| {
                system.handovers_of(CONVERSATION).len() >= handed
            })
            .await;
        self.braze
            .until(PATIENCE, |braze| messages(braze).len() >= sent)
            .await;
        // What is one too many would be pending, or have come by now.
        if !inspect::drained(self.stack, PATIENCE).await? {
            self.is_off(format_args!(
                "the outbox is not drained after {} s",
                PATIENCE.as_secs()
            ));
        }
        for line in self.mark.news(self.stack.fakes()) {
            self.say(format_args!("  {line}"));
        }
        self.compare(expected);
        Ok(())
    }

    fn compare(&mut self, expected: &Expected<'_>) {
        let handovers = self.system.handovers_of(CONVERSATION);
        let new = handovers.get(self.handed..).unwrap_or_default();
        self.handed = handovers.len();
        let texts: Vec<Vec<&str>> = new.iter().map(|handover| handover.texts()).collect();
        if texts != expected.handed {
            self.is_off(format_args!(
                "the external system was handed {texts:?} instead of {:?}",
                expected.handed
            ));
        }
        for handover in new {
            if handover.mode() != "bot" {
                self.say(format_args!("  mode    {}", handover.mode()));
            }
            if handover.mode() != expected.mode {
                self.is_off(format_args!(
                    "handed over in the mode {} instead of {}",
                    handover.mode(),
                    expected.mode
                ));
            }
            if handover.repeated {
                self.is_off("the same messages were handed over twice");
            }
        }

        let campaign = match expected.campaign {
            "" => self.stack.settings().get("REPLY_CAMPAIGN_ID").cloned(),
            campaign => Some(campaign.to_owned()),
        };
        let wanted: Vec<(String, String)> = expected
            .sent
            .iter()
            .map(|text| (campaign.clone().unwrap_or_default(), (*text).to_owned()))
            .collect();
        let sent: Vec<_> = messages(self.braze).into_iter().skip(self.sent).collect();
        self.sent += sent.len();
        for (campaign, _) in sent.iter().filter(|_| !expected.campaign.is_empty()) {
            self.say(format_args!("  through {campaign}"));
        }
        if sent != wanted {
            self.is_off(format_args!("Braze sent {sent:?} instead of {wanted:?}"));
        }

        let profile = self.braze.profile(USER);
        for (name, value) in expected.attributes {
            let held = profile.as_ref().and_then(|profile| profile.attribute(name));
            match held {
                Some(held) => self.say(format_args!("  profile {USER}: {name} = {held}")),
                None => self.say(format_args!("  profile {USER}: no {name}")),
            }
            if held != Some(value) {
                self.is_off(format_args!("the attribute {name} is not {value}"));
            }
        }
    }

    /// What `/whatsapp/reply` answered since this was last asked.
    async fn called_back(&mut self, expected: &[u16]) {
        // The reply may leave before its call is answered.
        let calls = self.called + expected.len();
        self.system
            .until(PATIENCE, |system| system.callbacks().len() >= calls)
            .await;
        let callbacks = self.system.callbacks();
        let statuses: Vec<u16> = callbacks
            .iter()
            .skip(self.called)
            .map(|callback| callback.status.unwrap_or_default())
            .collect();
        self.called = callbacks.len();
        self.say(format_args!("  called  /whatsapp/reply → {statuses:?}"));
        if statuses != expected {
            self.is_off(format_args!(
                "/whatsapp/reply answered {statuses:?} instead of {expected:?}"
            ));
        }
    }

    fn refusals(&mut self) {
        for refusal in self.stack.fakes().take_refusals() {
            self.is_off(refusal);
        }
    }

    fn title(&self, text: &str) {
        self.say(format_args!("WhatsApp: {text}"));
    }

    fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            output::line(text);
        }
    }

    fn is_off(&mut self, text: impl std::fmt::Display) {
        self.off += 1;
        output::line(format_args!("  OFF     {text}"));
    }
}

/// Campaign and text of what Braze sent to the person, in order.
fn messages(braze: &FakeBraze) -> Vec<(String, String)> {
    let Some(profile) = braze.profile(USER) else {
        return Vec::new();
    };
    let sent = braze.sent_messages().into_iter();
    sent.filter(|message| message.braze_id == profile.braze_id)
        .map(|message| {
            let text = message.trigger_properties.get(PROPERTY).and_then(Value::as_str);
            (message.campaign_id, text.unwrap_or_default().to_owned())
        })
        .collect()
}
