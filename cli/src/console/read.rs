//! What a request says, read as its function reads it: only what is signed.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::fbe::event::{InstallChange, IntegrationChange};
use shared::messenger::event::{self, EventKind};
use shared::messenger::send::request::{self, Recipient};
use shared::secrets::{MetaSecret, RelaySecret};
use shared::webhook::bearer;
use shared::webhook::signature::{HEADER, Received, Verified};
use shared::whatsapp::inbound::{self, Inbound};
use shared::{fbe, json, messenger};

use super::flow::{EVENTS, Event, Flow, LARGEST_BODY, Origin, Proof, Subject};

/// By which the console finds what it posted itself.
pub(crate) const TAG: &str = "x-bridge-console";

/// What checks who asks.
pub(crate) struct Keys {
    meta: Option<MetaSecret>,
    relay: Option<RelaySecret>,
}

impl Keys {
    /// A secret that is missing or not filled in lets nobody in.
    pub(crate) fn of(secrets: &BTreeMap<String, Value>) -> Self {
        Self {
            meta: secret(secrets, "meta"),
            relay: secret(secrets, "relay"),
        }
    }
}

fn secret<T: DeserializeOwned>(secrets: &BTreeMap<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(secrets.get(name)?.clone()).ok()
}

/// A request, and the user whose contacts it may be about.
pub(crate) struct Read {
    pub(crate) flow: Flow,
    pub(crate) user: Option<String>,
}

struct Request {
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn signed<'a>(&self, secrets: impl IntoIterator<Item = &'a secrecy::SecretString>) -> Option<Verified> {
        Received::new(self.body.clone(), self.header(HEADER))
            .verify(secrets)
            .ok()
    }
}

/// Reads what API Gateway hands to a function. `None`: it is no request.
pub(crate) fn read(event: &Value, keys: &Keys, now: Timestamp) -> Option<Read> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let method = text("/requestContext/http/method")?;
    let path = text("/rawPath")?;
    let request = Request {
        headers: headers(event),
        body: body(event),
    };
    let origin = match (method, path) {
        ("GET", "/messenger/webhook" | "/fbe/webhook") => Origin::Handshake,
        (_, "/messenger/webhook") => Origin::Messenger,
        (_, "/fbe/webhook") => Origin::Fbe,
        (_, "/whatsapp/inbound") => Origin::Whatsapp,
        (_, "/whatsapp/reply") => Origin::Reply,
        (_, "/messenger/send") => Origin::Send,
        (_, path) if path.starts_with("/fbe/installs") => Origin::Partner,
        _ => Origin::Other,
    };
    let mut flow = Flow::new(origin, now);
    method.clone_into(&mut flow.method);
    path.clone_into(&mut flow.path);
    flow.tag = request.header(TAG).map(str::to_owned);
    flow.bytes = request.body.len();
    let start = request.body.get(..LARGEST_BODY).unwrap_or(&request.body);
    flow.body = fbe::redact::text(&String::from_utf8_lossy(start));
    let mut read = Read { flow, user: None };
    match origin {
        Origin::Messenger => read.messenger(&request, keys),
        Origin::Fbe => read.fbe(&request, keys),
        Origin::Whatsapp | Origin::Reply | Origin::Send => read.bearer(&request, keys),
        _ => {}
    }
    Some(read)
}

fn headers(event: &Value) -> HeaderMap {
    let headers = event.get("headers").and_then(Value::as_object);
    let pairs = headers.into_iter().flatten().filter_map(|(name, value)| {
        let name = HeaderName::try_from(name.as_str()).ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    });
    pairs.collect()
}

fn body(event: &Value) -> Bytes {
    let body = event.get("body").and_then(Value::as_str).unwrap_or_default();
    if event.get("isBase64Encoded") == Some(&Value::Bool(true)) {
        return STANDARD.decode(body).unwrap_or_default().into();
    }
    Bytes::copy_from_slice(body.as_bytes())
}

impl Read {
    fn event(
        &mut self,
        name: impl Into<String>,
        subject: Option<Subject>,
        said: Option<&str>,
        at: Timestamp,
    ) {
        self.flow.event_count += 1;
        if let Some(subject) = &subject
            && self.flow.subjects.len() < EVENTS
            && !self.flow.subjects.contains(subject)
        {
            self.flow.subjects.push(subject.clone());
        }
        if self.flow.events.len() < EVENTS {
            self.flow.events.push(Event {
                name: name.into(),
                subject,
                said: said.map(|text| text.chars().take(2_000).collect()),
                at,
            });
        }
    }

    fn messenger(&mut self, request: &Request, keys: &Keys) {
        self.flow.proof = Proof::Wrong;
        let secrets = keys.meta.as_ref().map(MetaSecret::messenger_app_secrets);
        let Some(verified) = request.signed(secrets.unwrap_or_default()) else {
            return;
        };
        self.flow.proof = Proof::Signature;
        let parsed = messenger::payload::parse(&verified, self.flow.at);
        if parsed
            .events
            .iter()
            .any(|event| event.channel == messenger::key::Channel::Instagram)
        {
            self.flow.origin = Origin::Instagram;
        }
        self.flow.quarantined = parsed.quarantined.iter().map(|one| one.reason.as_str()).collect();
        for event in &parsed.events {
            let key = event.contact_key().map(|key| key.to_string());
            let key = key.or_else(|| event.user_ref_key().map(|key| key.to_string()));
            self.event(
                event.kind.name(),
                key.map(Subject::Contact),
                said(event),
                event.at,
            );
        }
        if parsed.dashboard_tests > 0 {
            self.event("sample_of_the_app_dashboard", None, None, self.flow.at);
        }
    }

    fn fbe(&mut self, request: &Request, keys: &Keys) {
        self.flow.proof = Proof::Wrong;
        let secrets = keys.meta.as_ref().map(MetaSecret::fbe_app_secrets);
        let Some(verified) = request.signed(secrets.unwrap_or_default()) else {
            return;
        };
        self.flow.proof = Proof::Signature;
        let parsed = fbe::payload::parse(&verified, self.flow.at);
        self.flow.quarantined = parsed.quarantined.iter().map(|one| one.reason.as_str()).collect();
        for change in &parsed.changes {
            let name = match change.change {
                InstallChange::Granted { .. } => "install_or_update",
                InstallChange::Uninstalled => "uninstall",
            };
            let subject = Subject::Install(change.business_id.clone());
            self.event(name, Some(subject), None, change.stamp.at);
        }
        for integration in &parsed.integrations {
            let name = match integration.change {
                IntegrationChange::Install => "business_integration_install",
                IntegrationChange::Update => "business_integration_update",
                IntegrationChange::Uninstall => "business_integration_uninstall",
            };
            let subject = Subject::Install(integration.record_id());
            self.event(name, Some(subject), None, integration.stamp.at);
        }
    }

    fn bearer(&mut self, request: &Request, keys: &Keys) {
        self.flow.proof = Proof::Wrong;
        let Some(relay) = &keys.relay else { return };
        let (origin, now) = (self.flow.origin, self.flow.at);
        // A late reply may be signed instead; its function has checked that, and the answer says so.
        let known = match origin {
            Origin::Send => bearer::matches(&request.headers, relay.send_tokens()),
            Origin::Whatsapp => bearer::matches(&request.headers, relay.inbound_tokens()),
            _ => true,
        };
        if !known {
            return;
        }
        self.flow.proof = Proof::Token;
        match origin {
            Origin::Whatsapp => self.inbound(request),
            Origin::Reply => {
                let body: Value = json::read(&request.body).unwrap_or_default();
                let text = |name: &str| body.get(name).and_then(Value::as_str);
                let subject = text("conversation_id").map(|id| Subject::Conversation(id.to_owned()));
                self.event("late_reply", subject, text("text"), now);
            }
            _ => {
                let Ok(asked) = request::parse(&request.body) else {
                    return;
                };
                let text = asked
                    .message
                    .get("text")
                    .and_then(Value::as_str)
                    .map(str::to_owned);
                match &asked.recipient {
                    Recipient::User(user) => self.user = Some(user.to_string()),
                    // Which page it is, the body may leave open.
                    Recipient::Scoped(id) => drop(self.flow.names.insert(id.to_string())),
                }
                let subject = match (&asked.recipient, &asked.account_id) {
                    (Recipient::Scoped(id), Some(account)) => {
                        let key = messenger::ContactKey::new(asked.channel, account, id.clone());
                        Some(Subject::Contact(key.to_string()))
                    }
                    _ => None,
                };
                self.event("message_to_send", subject, text.as_deref(), now);
            }
        }
    }

    fn inbound(&mut self, request: &Request) {
        let now = self.flow.at;
        match inbound::parse(&request.body, request.header("content-type"), now) {
            Inbound::Message(message) => {
                let id = message.conversation_id.as_str().to_owned();
                let ids = [
                    &message.person.user_id,
                    &message.person.braze_id,
                    &message.person.phone_number,
                ];
                self.flow.names.extend(ids.into_iter().flatten().cloned());
                let text = Some(message.content.text.as_str());
                self.event("message", Some(Subject::Conversation(id)), text, now);
            }
            Inbound::Ignored(reason) => self.event(format!("ignored: {}", reason.as_str()), None, None, now),
            Inbound::Quarantined(reason) => self.flow.quarantined.push(reason.as_str()),
        }
    }
}

/// What a person wrote or tapped.
fn said(event: &event::Event) -> Option<&str> {
    let text = match &event.kind {
        EventKind::Message(message) => message.text.as_ref().or(message.quick_reply.as_ref()),
        EventKind::Postback(postback) => postback.payload.as_ref(),
        _ => None,
    };
    text.map(|text| text.as_str())
}
