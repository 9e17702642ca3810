//! What a person says to the relay in a scene, and what must come of it.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use testkit::braze::FakeBraze;
use testkit::external_system::{ExternalSystem, Reply};

use crate::inspect;
use crate::output;
use crate::payloads::{Payload, Sender};
use crate::secrets;
use crate::stack::LocalStack;
use crate::story::{self, Mark};

/// How long what follows from one step may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The attribute that says that people answer.
pub(super) const HUMAN: &str = "whatsapp_human_agent";

/// Nobody is called twice.
const PHONE: &str = "+15550142";

/// The trigger property unless the settings name another.
const PROPERTY: &str = "external_system_msg_body";

/// What one step must come to, and nothing else.
#[derive(Default)]
pub(super) struct Expected<'a> {
    /// The texts of each handover.
    pub(super) handed: &'a [&'a [&'a str]],
    /// Who answered when they were handed over.
    pub(super) mode: &'a str,
    /// What leaves through Braze, in order.
    pub(super) sent: &'a [&'a str],
    /// Through this campaign; empty = the campaign for replies.
    pub(super) campaign: &'a str,
    /// What the profile then says.
    pub(super) attributes: &'a [(&'a str, Value)],
}

/// One person, and the system that answers them.
pub(super) struct Talk<'a> {
    stack: &'a LocalStack,
    braze: &'a FakeBraze,
    pub(super) system: &'a ExternalSystem,
    client: &'a reqwest::Client,
    quiet: bool,
    /// The external id in Braze.
    user: &'a str,
    mark: Mark,
    /// Handovers, messages and callbacks that were looked at.
    handed: usize,
    sent: usize,
    called: usize,
    /// How many things were not as they should be.
    pub(super) off: usize,
}

impl<'a> Talk<'a> {
    /// `system` is the one that answers this person.
    pub(super) fn with(
        stack: &'a LocalStack,
        client: &'a reqwest::Client,
        quiet: bool,
        (user, system): (&'a str, &'a ExternalSystem),
    ) -> anyhow::Result<Self> {
        let braze = stack.fakes().braze.as_ref().context("there is no fake Braze")?;
        braze.add_user(user, &json!({}));
        Ok(Self {
            stack,
            braze,
            system,
            client,
            quiet,
            user,
            mark: Mark::of(stack.fakes()),
            handed: 0,
            sent: 0,
            called: 0,
            off: 0,
        })
    }

    fn conversation(&self) -> String {
        format!("user:{}", self.user)
    }

    /// How often the system was asked for this person so far, as far as the scene has looked.
    pub(super) fn handed(&self) -> usize {
        self.handed
    }

    /// What the system was asked for this person.
    fn handovers(&self) -> Vec<testkit::external_system::Handover> {
        let conversation = self.conversation();
        let mut handovers = self.system.handovers();
        // A chat completion names no conversation: such a system answers one person in a scene.
        handovers.retain(|handover| {
            matches!(handover.conversation_id(), "") || handover.conversation_id() == conversation
        });
        handovers
    }

    /// Waits until the system was asked so often for this person.
    pub(super) async fn asked(&self, times: usize) {
        self.system
            .until(PATIENCE, |_| self.handovers().len() >= times)
            .await;
    }

    /// Braze posts what the person wrote, put into the template as it is.
    pub(super) async fn says(&mut self, text: &str) -> anyhow::Result<()> {
        let body = format!(
            "{{\n  \"user_id\": \"{}\",\n  \"phone_number\": \"{PHONE}\",\n  \"message\": \"{text}\"\n}}",
            self.user
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
    pub(super) async fn calls_back(&mut self, webhook_id: &str, reply: &Reply) -> anyhow::Result<()> {
        let conversation = self.conversation();
        self.calls_back_into(&conversation, webhook_id, reply).await
    }

    /// The same for any conversation.
    pub(super) async fn calls_back_into(
        &mut self,
        conversation: &str,
        webhook_id: &str,
        reply: &Reply,
    ) -> anyhow::Result<()> {
        let handovers = self.handovers();
        let url = handovers
            .last()
            .and_then(|handover| handover.body.get("reply_url")?.as_str())
            .context("no handover told where to answer")?;
        self.system
            .call_back(url, conversation, webhook_id, reply)
            .await?;
        Ok(())
    }

    /// Waits until all is said, tells it, and compares.
    pub(super) async fn settles(&mut self, expected: &Expected<'_>) -> anyhow::Result<()> {
        let (handed, sent) = (
            self.handed + expected.handed.len(),
            self.sent + expected.sent.len(),
        );
        self.asked(handed).await;
        self.braze
            .until(PATIENCE, |braze| messages(braze, self.user).len() >= sent)
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

    pub(super) fn compare(&mut self, expected: &Expected<'_>) {
        let handovers = self.handovers();
        let new = handovers.get(self.handed..).unwrap_or_default();
        self.handed = handovers.len();
        let texts: Vec<Vec<&str>> = new.iter().map(|handover| handover.texts()).collect();
        if texts != expected.handed {
            self.is_off(format_args!(
                "the external system was handed {texts:?} instead of {:?}",
                expected.handed
            ));
        }
        let fake = self.stack.fakes().external_system.as_ref();
        let is_routes_own = fake.is_none_or(|fake| !std::ptr::eq(fake, self.system));
        for handover in new {
            if is_routes_own {
                let texts = story::quoted(&handover.texts().join(" / "));
                self.say(format_args!(
                    "  handed  to the route's own system, with its own key: {texts}"
                ));
            }
            if handover.mode() == "human" {
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
        let sent: Vec<_> = messages(self.braze, self.user)
            .into_iter()
            .skip(self.sent)
            .collect();
        self.sent += sent.len();
        for (campaign, _) in sent.iter().filter(|_| !expected.campaign.is_empty()) {
            self.say(format_args!("  through {campaign}"));
        }
        if sent != wanted {
            self.is_off(format_args!("Braze sent {sent:?} instead of {wanted:?}"));
        }

        let profile = self.braze.profile(self.user);
        for (name, value) in expected.attributes {
            let held = profile.as_ref().and_then(|profile| profile.attribute(name));
            match held {
                Some(held) => self.say(format_args!("  profile {}: {name} = {held}", self.user)),
                None => self.say(format_args!("  profile {}: no {name}", self.user)),
            }
            if held != Some(value) {
                self.is_off(format_args!("the attribute {name} is not {value}"));
            }
        }
    }

    /// What `/whatsapp/reply` answered since this was last asked.
    pub(super) async fn called_back(&mut self, expected: &[u16]) {
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

    pub(super) fn refusals(&mut self) {
        for refusal in self.stack.fakes().take_refusals() {
            self.is_off(refusal);
        }
    }

    pub(super) fn title(&self, text: &str) {
        self.say(format_args!("WhatsApp: {text}"));
    }

    pub(super) fn say(&self, text: impl Display) {
        if !self.quiet {
            output::line(text);
        }
    }

    pub(super) fn is_off(&mut self, text: impl Display) {
        self.off += 1;
        output::line(format_args!("  OFF     {text}"));
    }
}

/// Campaign and text of what Braze sent to the person, in order.
fn messages(braze: &FakeBraze, user: &str) -> Vec<(String, String)> {
    let Some(profile) = braze.profile(user) else {
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
