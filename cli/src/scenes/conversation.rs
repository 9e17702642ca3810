//! One person talks to the WhatsApp relay: broken JSON, a burst, a late answer, a human agent, and an answer
//! after WhatsApp's 24 hours.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use jiff::SignedDuration;
use serde_json::json;
use shared::clock::Clock;
use testkit::external_system::{Behaviour, Reply};

use super::talk::{Expected, HUMAN, Talk};
use crate::stack::{LocalStack, StackOptions};

/// How long the external system thinks while the burst comes in.
const THINKING: Duration = Duration::from_secs(1);

/// Who writes: the external id in Braze.
const USER: &str = "ana";

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
    Ok(conversation.talk.off + next_day(stack.clock(), client, quiet).await?)
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
    conversation.talk.refusals();
    let off = conversation.talk.off;
    stack.stop().await;
    played.map(|()| off)
}

struct Conversation<'a> {
    talk: Talk<'a>,
}

impl<'a> Conversation<'a> {
    fn with(stack: &'a LocalStack, client: &'a reqwest::Client, quiet: bool) -> anyhow::Result<Self> {
        let system = stack.fakes().external_system.as_ref();
        let system = system.context("there is no fake external system")?;
        let talk = Talk::with(stack, client, quiet, (USER, system))?;
        Ok(Self { talk })
    }

    async fn quotes_and_line_breaks(&mut self) -> anyhow::Result<()> {
        self.talk
            .title("quotes and line breaks, through a template without json_escape");
        let text = "Where is \"order 66\"?\nYou wrote:\n\t\"tomorrow\", twice: \"tomorrow\"";
        self.talk
            .system
            .script(Behaviour::text("It is on its way,\n\"tomorrow\" it is there."));
        self.talk.says(text).await?;
        self.talk
            .settles(&Expected {
                handed: &[&[text]],
                mode: "bot",
                sent: &["It is on its way,\n\"tomorrow\" it is there."],
                ..Expected::default()
            })
            .await
    }

    /// Three messages that come while an answer is made are answered together, after it.
    async fn burst(&mut self) -> anyhow::Result<()> {
        self.talk
            .title("a burst of three, while the external system is still thinking");
        let first = Behaviour::text("One moment, please.");
        self.talk
            .system
            .script(Behaviour::Slow(THINKING, Box::new(first)));
        self.talk.system.script(Behaviour::text("All three are noted."));
        self.talk.says("I have to change it.").await?;
        self.talk.asked(self.talk.handed() + 1).await;
        let burst = ["Two of the blue ones", "none of the red ones", "and to my office"];
        for text in burst {
            self.talk.says(text).await?;
        }
        self.talk
            .settles(&Expected {
                handed: &[&["I have to change it."], &burst],
                mode: "bot",
                sent: &["One moment, please.", "All three are noted."],
                ..Expected::default()
            })
            .await
    }

    async fn late_answer(&mut self) -> anyhow::Result<()> {
        self.talk
            .title("the external system answers 202, and half a second later for good");
        let reply = Reply::text("Your office it is.").attributes(json!({"last_topic": "delivery"}));
        let reply = Box::new(Behaviour::Reply(reply));
        self.talk
            .system
            .script(Behaviour::Later(Duration::from_millis(500), reply));
        self.talk.says("Does that work?").await?;
        self.talk
            .settles(&Expected {
                handed: &[&["Does that work?"]],
                mode: "bot",
                sent: &["Your office it is."],
                attributes: &[("last_topic", json!("delivery"))],
                ..Expected::default()
            })
            .await?;
        self.talk.called_back(&[202]).await;
        Ok(())
    }

    async fn human_agent(&mut self) -> anyhow::Result<()> {
        self.talk.title("a human agent takes over");
        self.talk.system.script(Behaviour::Reply(
            Reply::text("A colleague takes over.").handoff(true),
        ));
        self.talk.says("May I talk to a person?").await?;
        self.talk
            .settles(&Expected {
                handed: &[&["May I talk to a person?"]],
                mode: "bot",
                sent: &["A colleague takes over."],
                attributes: &[(HUMAN, json!(true))],
                ..Expected::default()
            })
            .await?;
        self.talk.system.script(Behaviour::Reply(Reply::silent()));
        self.talk.says("Is anybody there?").await?;
        self.talk
            .settles(&Expected {
                handed: &[&["Is anybody there?"]],
                mode: "human",
                attributes: &[(HUMAN, json!(true))],
                ..Expected::default()
            })
            .await?;

        self.talk
            .title("the agent answers, twice by mistake, and hands back");
        let reply = Reply::text("Berta here: it is all changed.").handoff(false);
        for _ in 0..2 {
            self.talk.calls_back("agent-1", &reply).await?;
        }
        self.talk
            .settles(&Expected {
                sent: &["Berta here: it is all changed."],
                attributes: &[(HUMAN, json!(false))],
                ..Expected::default()
            })
            .await?;
        // A repetition is told that all is well, so that it ends.
        self.talk.called_back(&[202, 202]).await;
        self.talk.says("Thank you!").await?;
        self.talk
            .settles(&Expected {
                handed: &[&["Thank you!"]],
                mode: "bot",
                sent: &["You said: Thank you!"],
                attributes: &[(HUMAN, json!(false))],
                ..Expected::default()
            })
            .await
    }

    async fn after_the_window(&mut self, clock: &Clock) -> anyhow::Result<()> {
        self.talk
            .title("the answer takes 25 hours: only a template may reach the person");
        self.talk
            .system
            .script(Behaviour::later(Duration::from_hours(25)));
        self.talk.says("Do you repair old ones?").await?;
        self.talk
            .settles(&Expected {
                handed: &[&["Do you repair old ones?"]],
                mode: "bot",
                ..Expected::default()
            })
            .await?;
        clock.set(clock.now() + SignedDuration::from_hours(25));
        self.talk.say("  25 hours later");
        self.talk
            .calls_back("next-day", &Reply::text("Yes,\n  we do."))
            .await?;
        self.talk
            .settles(&Expected {
                // A template's parameter may hold no line break.
                sent: &["Yes, we do."],
                campaign: TEMPLATE_CAMPAIGN,
                ..Expected::default()
            })
            .await?;
        self.talk.called_back(&[202]).await;
        Ok(())
    }
}
