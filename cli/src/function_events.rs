//! The files of `events/<function>/`: what Lambda hands to a function, for `sam local invoke`.
//!
//! They are made from the recorded payloads, the development secrets and `template.yaml`, and are the same on every
//! machine and at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use aws_sdk_dynamodb::types::AttributeValue;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use shared::clock::Clock;
use shared::config::Env;
use shared::messenger::decide::decide;
use shared::messenger::link::LinkKeys;
use shared::messenger::payload;
use shared::messenger::proof::{Holders, Judge};
use shared::messenger::settings::MessengerSettings;
use shared::outbox::Outbox;
use shared::outbox::OutboxItem;
use shared::webhook::signature::{self, Received};
use shared::webhook::signed_request;
use testkit::signer::gateway_event;
use testkit::template::Template;
use testkit::time;

use crate::payloads::{self, Credential, Payload, Sender};
use crate::secrets;
use crate::stack::TEMPLATE;

/// One event.
#[derive(Debug, Clone)]
pub struct FunctionEvent {
    /// The function's logical id in `template.yaml`.
    pub function: String,
    /// The file's name without its ending.
    pub case: &'static str,
    /// What the function is handed.
    pub event: Value,
    /// The HTTP status it answers; `None` = it is not behind the HTTP API.
    pub status: Option<u16>,
}

/// A file as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// From `events/` on.
    pub path: String,
    /// All of it.
    pub content: String,
}

/// How a directory differs from what it should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// There is no such file.
    Missing(File),
    /// The file has another content.
    Stale(File),
    /// Nothing makes this file.
    LeftOver {
        /// From `events/` on.
        path: String,
    },
}

impl Difference {
    /// The file, from `events/` on.
    #[must_use]
    pub fn file(&self) -> &str {
        match self {
            Self::Missing(file) | Self::Stale(file) => &file.path,
            Self::LeftOver { path } => path,
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Stale(_) => "stale",
            Self::LeftOver { .. } => "left over",
        }
    }
}

const MESSENGER: &str = "/messenger/webhook";
const FBE: &str = "/fbe/webhook";

/// Every event.
///
/// # Errors
///
/// When a payload or a function that an event is made of is gone.
pub fn all() -> anyhow::Result<Vec<FunctionEvent>> {
    let mut events = Events {
        template: Template::parse(TEMPLATE)?,
        all: Vec::new(),
    };
    events.handshakes(MESSENGER)?;
    for (case, name) in [
        ("message_text", "messenger/message_text"),
        ("link_token", "messenger/referral_link_token"),
        ("opt_out", "messenger/message_opt_out"),
        ("instagram", "instagram/message_text"),
        ("one_broken_of_three", "messenger/one_broken_of_three"),
    ] {
        events.delivery(case, name)?;
    }
    events.delivery_in_base64("base64", "messenger/message_text_unicode")?;
    events.forged("wrong_signature", "messenger/message_text")?;

    events.delivery("unknown_person", "messenger-send/unknown_person")?;
    events.delivery("retired_tag", "messenger-send/retired_tag")?;
    events.forged("wrong_token", "messenger-send/text")?;

    events.handshakes(FBE)?;
    for (case, name) in [
        ("install", "fbe/install"),
        ("update_removes_pixel", "fbe/update_removes_pixel"),
        ("uninstall", "fbe/uninstall"),
    ] {
        events.delivery(case, name)?;
    }
    events.forged("wrong_signature", "fbe/install")?;

    for (case, name) in [
        ("inbound", "whatsapp/full"),
        ("inbound_three_keys", "whatsapp/three_key"),
        ("inbound_broken_by_liquid", "whatsapp/broken_quotes"),
        ("inbound_form", "whatsapp/form.form"),
    ] {
        events.delivery(case, name)?;
    }
    events.forged("inbound_wrong_token", "whatsapp/three_key")?;
    events.replies()?;
    events.deletions()?;
    events.stream()?;
    events.schedules()?;
    Ok(events.all)
}

struct Events {
    template: Template,
    all: Vec<FunctionEvent>,
}

impl Events {
    /// The function behind a route.
    fn function(&self, method: &str, path: &str) -> anyhow::Result<String> {
        let serves = |route: &testkit::template::Route| route.method == method && route.path == path;
        let function = self
            .template
            .functions()
            .iter()
            .find(|function| function.routes.iter().any(serves));
        Ok(function
            .with_context(|| format!("no function serves {method} {path}"))?
            .logical_id
            .clone())
    }

    fn http(
        &mut self,
        case: &'static str,
        method: &str,
        path: &str,
        event: Value,
        status: u16,
    ) -> anyhow::Result<()> {
        self.all.push(FunctionEvent {
            function: self.function(method, path)?,
            case,
            event,
            status: Some(status),
        });
        Ok(())
    }

    fn handshakes(&mut self, path: &str) -> anyhow::Result<()> {
        for (case, query, status) in [
            (
                "handshake",
                "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=development-verify-token",
                200,
            ),
            (
                "handshake_wrong_token",
                "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=guessed",
                403,
            ),
            (
                "handshake_without_challenge",
                "hub.mode=subscribe&hub.verify_token=development-verify-token",
                400,
            ),
        ] {
            let headers = [(
                "user-agent",
                "facebookplatform/1.0 (+http://developers.facebook.com)",
            )];
            let event = gateway_event("GET", path, query, &headers, b"", false);
            self.http(case, "GET", path, event, status)?;
        }
        Ok(())
    }

    fn delivery(&mut self, case: &'static str, name: &str) -> anyhow::Result<()> {
        self.post(case, name, None, false)
    }

    fn delivery_in_base64(&mut self, case: &'static str, name: &str) -> anyhow::Result<()> {
        self.post(case, name, None, true)
    }

    /// The same with a credential that is not ours.
    fn forged(&mut self, case: &'static str, name: &str) -> anyhow::Result<()> {
        let secret = SecretString::from("somebody-elses-secret");
        let credential = if name.starts_with("whatsapp/") || name.starts_with("messenger-send/") {
            Credential::BearerToken(secret)
        } else {
            Credential::AppSecret(secret)
        };
        self.post(case, name, Some(credential), false)
    }

    fn post(
        &mut self,
        case: &'static str,
        name: &str,
        forged: Option<Credential>,
        base64: bool,
    ) -> anyhow::Result<()> {
        let payload = named(name)?;
        let accepted = match payload.sender {
            Sender::Whatsapp => 202,
            // Who is to be written to has to write first.
            Sender::MessengerSend if name.ends_with("retired_tag") => 409,
            Sender::MessengerSend => 404,
            _ => 200,
        };
        let status = if forged.is_some() { 401 } else { accepted };
        let credential = forged.unwrap_or_else(|| secrets::development_credential(payload.sender));
        let headers = payload.headers(&credential);
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        // API Gateway hands over a form in base64.
        let base64 = base64
            || headers
                .iter()
                .any(|(_, value)| *value == "application/x-www-form-urlencoded");
        let path = payload.sender.path();
        let event = gateway_event("POST", path, "", &headers, &payload.body, base64);
        self.http(case, "POST", path, event, status)
    }

    /// Answers of the external system. A Standard Webhooks signature holds for five minutes only, so the kept
    /// event carries the token.
    fn replies(&mut self) -> anyhow::Result<()> {
        const PATH: &str = "/whatsapp/reply";
        for (case, conversation, token, status) in [
            // It is known once `inbound.json` has been played.
            ("reply", "user:42", "development-external-system-token", 202),
            (
                "reply_unknown_conversation",
                "user:nobody",
                "development-external-system-token",
                404,
            ),
            ("reply_wrong_token", "user:42", "guessed", 401),
        ] {
            let body = json!({
                "conversation_id": conversation,
                "replies": [{ "text": "It left our house this morning." }],
            })
            .to_string();
            let authorization = format!("Bearer {token}");
            let headers = [
                ("content-type", "application/json"),
                ("authorization", authorization.as_str()),
            ];
            let event = gateway_event("POST", PATH, "", &headers, body.as_bytes(), false);
            self.http(case, "POST", PATH, event, status)?;
        }
        Ok(())
    }

    /// A person removes the app. The field is signed itself, so it is made and not recorded.
    fn deletions(&mut self) -> anyhow::Result<()> {
        const PATH: &str = "/meta/deletion";
        let ours = match secrets::development_credential(Sender::Messenger) {
            Credential::AppSecret(secret) => secret,
            Credential::BearerToken(_) => anyhow::bail!("Meta signs"),
        };
        let asked = json!({
            "algorithm": "HMAC-SHA256",
            "issued_at": time::start().as_second(),
            "user_id": "10200000000000042",
        });
        for (case, secret, status) in [
            ("deletion", ours, 200),
            ("deletion_wrong_signature", "somebody-elses-secret".into(), 401),
        ] {
            let body = format!("signed_request={}", signed_request::sign(&secret, &asked));
            let headers = [("content-type", "application/x-www-form-urlencoded")];
            let event = gateway_event("POST", PATH, "", &headers, body.as_bytes(), true);
            self.http(case, "POST", PATH, event, status)?;
        }
        Ok(())
    }

    /// What the stream brings after `messenger-events/message_text.json`.
    fn stream(&mut self) -> anyhow::Result<()> {
        let items = items_of(&named("messenger/message_text")?)?;
        let records: Vec<Value> = items
            .iter()
            .enumerate()
            .map(|(position, item)| record(item, position))
            .collect::<anyhow::Result<_>>()?;
        let sync = self
            .template
            .functions()
            .iter()
            .find(|function| {
                function
                    .environment
                    .get("LANE")
                    .is_some_and(|lane| lane == "sync")
            })
            .context("no function serves the lane sync")?;
        self.all.push(FunctionEvent {
            function: sync.logical_id.clone(),
            case: "stream_contact_sync",
            event: json!({ "Records": records }),
            status: None,
        });
        Ok(())
    }

    /// What the schedules send, whichever lane they wake.
    fn schedules(&mut self) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        for function in self.template.functions() {
            for schedule in &function.schedules {
                let input = schedule
                    .input
                    .as_deref()
                    .context("a schedule sends EventBridge's own event")?;
                let input: Value = serde_json::from_str(input)?;
                let case = match input.get("task").and_then(Value::as_str) {
                    Some("due") => "schedule",
                    Some("reconcile") => "reconcile",
                    Some("health") => "health",
                    other => anyhow::bail!("a schedule sends the unknown task {other:?}"),
                };
                if seen.insert(case) {
                    self.all.push(FunctionEvent {
                        function: function.logical_id.clone(),
                        case,
                        event: input,
                        status: None,
                    });
                }
            }
        }
        Ok(())
    }
}

fn named(name: &str) -> anyhow::Result<Payload> {
    let sender = Sender::ALL
        .into_iter()
        .find(|sender| name.split('/').next() == Some(sender.name()));
    sender
        .into_iter()
        .flat_map(payloads::recorded)
        .find(|payload| payload.name == name)
        .with_context(|| format!("the payload {name} is gone"))
}

/// The outbox items that follow from a Messenger payload about people who were not known before.
fn items_of(payload: &Payload) -> anyhow::Result<Vec<OutboxItem>> {
    let Credential::AppSecret(secret) = secrets::development_credential(payload.sender) else {
        anyhow::bail!("{} is not signed", payload.name);
    };
    let signature = signature::sign(&secret, &payload.body);
    let verified = Received::new(payload.body.clone(), Some(&signature)).verify([&secret])?;
    let parsed = payload::parse(&verified, time::start());
    let settings = Env::new(|_| None).finish(MessengerSettings::read)?;
    let judge = Judge {
        keys: &LinkKeys::none(),
        holders: &Holders::default(),
    };
    let mut by_contact: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in parsed.events {
        if let Some(key) = event.contact_key() {
            by_contact.entry(key).or_default().push(event);
        }
    }
    Ok(by_contact
        .values()
        .flat_map(|events| decide(None, events, &[], judge, &settings).outbox)
        .collect())
}

/// The stream's record of an item's insertion.
fn record(item: &OutboxItem, position: usize) -> anyhow::Result<Value> {
    const ARN: &str =
        "arn:aws:dynamodb:eu-west-1:123456789012:table/local-OutboxTable/stream/2026-11-21T09:00:00.000";
    let at = time::start();
    // Only to write the item down as it is stored; nothing is sent.
    let client = aws_sdk_dynamodb::Client::new(&testkit::aws::sdk_config("http://127.0.0.1:1"));
    let write = Outbox::new(client, String::new(), Clock::fixed(at)).put(item)?;
    let image = write.put.context("an outbox item is not put")?.item;
    let (mut keys, mut new_image, mut size) = (Map::new(), BTreeMap::new(), 0);
    for (name, value) in &image {
        size += name.len();
        if let AttributeValue::S(text) | AttributeValue::N(text) = value {
            size += text.len();
        }
        let value = attribute(value)?;
        if matches!(name.as_str(), "subject" | "event_key") {
            keys.insert(name.clone(), value.clone());
        }
        new_image.insert(name.clone(), value);
    }
    Ok(json!({
        "eventID": format!("{:032x}", position + 1),
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-west-1",
        "dynamodb": {
            "ApproximateCreationDateTime": at.as_second(),
            "Keys": keys,
            "NewImage": new_image,
            "SequenceNumber": format!("{}", 111_111_u64 + position as u64),
            // Names and values. Nobody reads it, but no record is without it.
            "SizeBytes": size,
            "StreamViewType": "NEW_IMAGE",
        },
        "eventSourceARN": ARN,
    }))
}

fn attribute(value: &AttributeValue) -> anyhow::Result<Value> {
    Ok(match value {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(number) => json!({ "N": number }),
        AttributeValue::Bool(value) => json!({ "BOOL": value }),
        AttributeValue::Null(value) => json!({ "NULL": value }),
        _ => anyhow::bail!("an outbox item holds more than texts and numbers"),
    })
}

/// The files as they should be, by path. A folder is named after the function's binary, as both lanes are one.
fn files() -> anyhow::Result<BTreeMap<String, String>> {
    let template = Template::parse(TEMPLATE)?;
    let mut files = BTreeMap::new();
    for event in all()? {
        let function = template
            .function(&event.function)
            .context("an event of an unknown function")?;
        let path = format!("{}/{}.json", function.binary, event.case);
        let mut content = serde_json::to_string_pretty(&event.event)?;
        content.push('\n');
        files.insert(path, content);
    }
    Ok(files)
}

/// How `directory` (`events/`) differs from what it should hold.
///
/// # Errors
///
/// When an event cannot be made, or the directory cannot be read.
pub fn differences(directory: &Path) -> anyhow::Result<Vec<Difference>> {
    let files = files()?;
    let folders: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| Some(path.split_once('/')?.0))
        .collect();
    let mut differences = Vec::new();
    for folder in folders {
        let there = directory.join(folder);
        if !there.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&there).with_context(|| format!("cannot read {}", there.display()))? {
            let name = file?.file_name();
            let path = format!("{folder}/{}", name.to_string_lossy());
            if !files.contains_key(&path) {
                differences.push(Difference::LeftOver { path });
            }
        }
    }
    for (path, content) in files {
        let there = std::fs::read_to_string(directory.join(&path));
        let file = File { path, content };
        match there {
            Ok(there) if there == file.content => {}
            Ok(_) => differences.push(Difference::Stale(file)),
            Err(_) => differences.push(Difference::Missing(file)),
        }
    }
    Ok(differences)
}
