//! `bridge chat`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use shared::clients::http;
use shared::clock::Clock;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::inspect;
use crate::output::{self, usage};
use crate::payloads::Sender;
use crate::secrets;
use crate::stack::{LocalStack, StackOptions};

/// How often it is looked for replies. An answer should feel immediate.
const LOOK: Duration = Duration::from_millis(50);

/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// The attribute that says that people answer.
const HUMAN: &str = "whatsapp_human_agent";

/// The trigger property unless the settings name another.
const PROPERTY: &str = "external_system_msg_body";

/// Talk to the WhatsApp relay as somebody on WhatsApp does
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Starts a stack of its own with a fake Braze. Every line is posted as Braze's webhook campaign posts a\n\
    message; what the fake Braze is told to send is printed as it comes, and beside it what else an answer does: a\n\
    campaign or Canvas of its own, attributes, a hand-off to people and back. Ends with the input.\n\n\
    Examples:\n  \
    bridge chat\n  \
    printf 'hello\\nwhere is my order?\\n' | bridge chat\n  \
    bridge chat --external-system-url https://bot.example/messages --secrets secrets.json\n  \
    bridge chat --external-system-url http://127.0.0.1:11434/v1 --set EXTERNAL_SYSTEM_KIND=openai \\\n    \
    --set OPENAI_MODEL=llama3 --set OPENAI_SYSTEM_PROMPT='You answer for a shop.' \\\n    \
    --set OPENAI_TOOLS=hand_off,set_attributes --set OPENAI_ATTRIBUTES=shoe_size --set DISCLOSURE_TEXT='I am a bot.'"
)]
pub(crate) struct Args {
    /// Who writes: the external id in Braze
    #[arg(long = "as", value_name = "USER", default_value = "you")]
    user: String,

    /// The system that answers [default: a fake one, which echoes]
    #[arg(long, value_name = "URL")]
    external_system_url: Option<url::Url>,

    /// The secrets, as for `bridge local` [default: development values]
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,

    /// A setting of the functions, by the name of its environment variable; repeatable
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expects NAME=VALUE".to_owned()),
    }
}

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    let given = args.secrets.as_deref().map(secrets::read_file).transpose()?;
    let mut settings: BTreeMap<String, String> = args.settings.into_iter().collect();
    if settings.contains_key("BRAZE_REST_ENDPOINT") {
        return Err(usage(
            "a chat is held through the fake Braze; a real one sends to telephones",
        ));
    }
    if let Some(url) = &args.external_system_url {
        let url = url.as_str().trim_end_matches('/').to_owned();
        settings.insert("EXTERNAL_SYSTEM_URL".to_owned(), url);
    }
    let property = settings.get("TRIGGER_PROPERTY").cloned();
    let stack = LocalStack::start(StackOptions {
        settings,
        secrets: given,
        ..StackOptions::with_clock(clock)
    })
    .await?;
    let mut chat = Chat {
        http: http::client(Duration::from_secs(30)),
        property: property.unwrap_or_else(|| PROPERTY.to_owned()),
        user: args.user,
        stack,
        shown: 0,
        entered: 0,
        attributes: Map::new(),
        said: 0,
    };
    let talked = chat.talk().await;
    chat.stack.stop().await;
    talked
}

struct Chat {
    stack: LocalStack,
    http: reqwest::Client,
    property: String,
    user: String,
    /// Replies that were printed.
    shown: usize,
    /// Canvases that were entered, as far as they were printed.
    entered: usize,
    /// The profile's attributes, as they were printed.
    attributes: Map<String, Value>,
    /// Messages that were posted.
    said: usize,
}

impl Chat {
    async fn talk(&mut self) -> anyhow::Result<()> {
        let braze = self
            .stack
            .fakes()
            .braze
            .as_ref()
            .context("there is no fake Braze")?;
        braze.add_user(&self.user, &json!({}));
        output::note(self.who_answers());
        output::note("write a line and press Enter; Ctrl-D ends");
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        loop {
            tokio::select! {
                line = lines.next_line() => match line.context("the input cannot be read")? {
                    Some(line) => self.say(&line).await?,
                    None => break,
                },
                () = tokio::time::sleep(LOOK) => {}
            }
            self.show();
        }
        let drained = inspect::drained(&self.stack, PATIENCE).await?;
        self.show();
        if !drained {
            output::note("some messages are not answered yet, and are given up here");
        }
        Ok(())
    }

    async fn say(&mut self, text: &str) -> anyhow::Result<()> {
        self.said += 1;
        let token = self
            .stack
            .secrets()
            .get("relay")
            .and_then(|relay| relay.get("inbound_token")?.as_str())
            .context("the relay secret has no inbound_token")?;
        let body = json!({
            "user_id": self.user,
            "phone_number": "+15550100",
            "message": text,
            "dispatch_id": format!("chat-{}", self.said),
        });
        let url = format!("{}{}", self.stack.url(), Sender::Whatsapp.path());
        let request = self.http.post(url).bearer_auth(token).json(&body);
        let answer = request.send().await.context("the stack does not answer")?;
        let status = answer.status();
        let answer: Value = answer.json().await.context("the stack's answer is not JSON")?;
        match answer.get("status").and_then(Value::as_str) {
            Some("accepted") => {}
            Some(other) => output::note(format_args!(
                "({other}: {})",
                answer.get("reason").and_then(Value::as_str).unwrap_or_default()
            )),
            None => output::note(format_args!("({} {answer})", status.as_u16())),
        }
        Ok(())
    }

    /// The system that answers, what it may do, and what is said before its first words.
    fn who_answers(&self) -> String {
        let setting = |name: &str| {
            let value = self.stack.settings().get(name).map(String::as_str);
            value.filter(|value| !value.is_empty())
        };
        let is_model = setting("EXTERNAL_SYSTEM_KIND") == Some("openai");
        let system = match (&self.stack.fakes().external_system, is_model) {
            (Some(_), _) => "a fake one, which echoes",
            (None, true) => "a model",
            (None, false) => "your webhook",
        };
        let tools = match (is_model, setting("OPENAI_TOOLS")) {
            (false, _) => "none, for it is no model",
            (true, Some(tools)) => tools,
            (true, None) => "hand_off",
        };
        let disclosure = setting("DISCLOSURE_TEXT").unwrap_or("none");
        format!("answers: {system}; mode: bot; tools: {tools}; disclosure: {disclosure}")
    }

    /// Prints the replies that came since, and what else the answers have done.
    fn show(&mut self) {
        if let Some(braze) = &self.stack.fakes().braze {
            let setting = |name: &str| self.stack.settings().get(name).map(String::as_str);
            let (disclosure, usual) = (setting("DISCLOSURE_TEXT"), setting("REPLY_CAMPAIGN_ID"));
            for message in braze.sent_messages().into_iter().skip(self.shown) {
                self.shown += 1;
                let text = message.trigger_properties.get(&self.property);
                let text = text.and_then(Value::as_str).unwrap_or_default();
                output::line(format_args!("< {}", text.replace('\n', "\n  ")));
                if disclosure.is_some_and(|disclosure| !text.is_empty() && disclosure == text) {
                    output::note("(the disclosure, DISCLOSURE_TEXT)");
                }
                if usual != Some(message.campaign_id.as_str()) {
                    output::note(format_args!("(through the campaign {})", message.campaign_id));
                }
            }
            for entry in braze.canvas_entries().into_iter().skip(self.entered) {
                self.entered += 1;
                output::note(format_args!("(enters the Canvas {})", entry.canvas_id));
            }
            let profile = braze.profile(&self.user);
            let attributes = profile.map(|profile| profile.attributes).unwrap_or_default();
            for line in told(&self.attributes, &attributes) {
                output::note(line);
            }
            self.attributes = attributes;
        }
        for refusal in self.stack.fakes().take_refusals() {
            output::note(refusal);
        }
    }
}

/// What the person's profile says that it did not say before, one line each. The mode of the conversation stands there too.
fn told(before: &Map<String, Value>, now: &Map<String, Value>) -> Vec<String> {
    let is_new = |(name, value): &(&String, &Value)| before.get(*name) != Some(*value);
    let line = |(name, value): (&String, &Value)| match (name.as_str(), value.as_bool()) {
        (HUMAN, Some(true)) => "(mode: human; people answer now, and a model stays silent)".to_owned(),
        (HUMAN, Some(false)) => "(mode: bot)".to_owned(),
        _ => format!("({name} = {value})"),
    };
    now.iter().filter(is_new).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_mode_and_of_attributes_is_told_once() {
        let attributes = |human: bool, size: i32| {
            Map::from_iter([
                (HUMAN.to_owned(), json!(human)),
                ("shoe_size".to_owned(), json!(size)),
            ])
        };
        let nothing = Map::new();
        let lines = told(&nothing, &attributes(true, 42));
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("(shoe_size") || lines[1].starts_with("(shoe_size"),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|line| line.starts_with("(mode: human")),
            "{lines:?}"
        );
        assert_eq!(told(&attributes(true, 42), &attributes(true, 42)), [""; 0]);
        assert_eq!(
            told(&attributes(true, 42), &attributes(false, 42)),
            ["(mode: bot)"]
        );
    }
}
