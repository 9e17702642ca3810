//! What happened, in lines that people read: what changed in the tables and what left the stack.

use serde_json::{Map, Value};
use testkit::braze::{FakeBraze, Request};
use testkit::external_system::ExternalSystem;

use crate::fakes::Fakes;
use crate::inspect::{self, CONTACTS, CONVERSATIONS, Change, OUTBOX};
pub(crate) use crate::said::quoted;
use crate::said::{self, status};

/// How many requests each fake has seen: what comes after is new.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mark {
    braze: usize,
    graph: usize,
    external_system: usize,
}

impl Mark {
    /// Now.
    pub(crate) fn of(fakes: &Fakes) -> Self {
        Self {
            braze: fakes.braze.as_ref().map_or(0, FakeBraze::request_count),
            graph: fakes.graph.as_ref().map_or(0, |fake| fake.call_count()),
            external_system: fakes
                .external_system
                .as_ref()
                .map_or(0, ExternalSystem::handover_count),
        }
    }

    /// What reached the fakes since then, one line each; from now on that is old.
    pub(crate) fn news(&mut self, fakes: &Fakes) -> Vec<String> {
        let now = Self::of(fakes);
        let mut lines = Vec::new();
        if let Some(fake) = &fakes.external_system {
            let new = now.external_system - self.external_system;
            for handover in fake.handovers_since(self.external_system).iter().take(new) {
                lines.push(format!(
                    "handed  to the external system: {}",
                    quoted(&handover.texts().join(" / "))
                ));
            }
        }
        if let Some(fake) = &fakes.graph {
            for call in fake.calls_since(self.graph).iter().take(now.graph - self.graph) {
                lines.push(format!("graph   {} → {}", call.path, status(call.status)));
            }
        }
        if let Some(fake) = &fakes.braze {
            for request in fake
                .requests_since(self.braze)
                .iter()
                .take(now.braze - self.braze)
            {
                lines.extend(braze_request(request));
            }
        }
        *self = now;
        lines
    }
}

/// One line for each object of a request to Braze.
fn braze_request(request: &Request) -> Vec<String> {
    let head = format!("braze   {} → {}", request.path, status(request.status));
    let said = said::to_braze(&request.body);
    if said.is_empty() {
        return vec![head];
    }
    said.into_iter().map(|said| format!("{head}: {said}")).collect()
}

/// What was written for a payload, one line each.
pub(crate) fn changes(changes: &[Change<'_>]) -> Vec<String> {
    let mut lines: Vec<String> = changes
        .iter()
        .filter_map(|change| {
            let word = if change.is_new { "new    " } else { "changed" };
            match change.table {
                OUTBOX => None,
                CONTACTS => {
                    let is_contact = change.item.get("facts").is_some();
                    is_contact.then(|| format!("{word} {}", contact(change)))
                }
                CONVERSATIONS => turn(change),
                other => Some(format!("{word} {}", record(other, change))),
            }
        })
        .collect();
    for change in changes.iter().filter(|change| change.table == OUTBOX) {
        let text = |name: &str| change.item.get(name).and_then(Value::as_str).unwrap_or_default();
        lines.push(match text("status") {
            "quarantined" => format!("kept    not understood: {}", text("reason")),
            status => {
                let reason = match text("reason") {
                    "" => String::new(),
                    reason => format!(" ({reason})"),
                };
                format!("outbox  {} {status}{reason}", text("kind"))
            }
        });
    }
    lines
}

/// The facts of a contact, in short.
fn contact(change: &Change<'_>) -> String {
    let name = change.key.replace('#', " ");
    let empty = Map::new();
    let facts = change
        .item
        .get("facts")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let text = |pointer: &str| {
        change
            .item
            .pointer(&format!("/facts/{pointer}"))
            .and_then(Value::as_str)
    };
    let mut said = Vec::new();
    if facts.contains_key("link") {
        said.push(match text("link/value/user_id") {
            Some(user) => format!(
                "is user {user} (by {})",
                text("link/value/via").unwrap_or_default()
            ),
            None => "no longer linked".to_owned(),
        });
    }
    let contact = inspect::contact(change.item);
    if let Some(closes) = contact.and_then(|contact| contact.window_closes_at()) {
        said.push(format!("window until {closes}"));
    }
    match change.item.pointer("/facts/opted_out/value") {
        Some(Value::Bool(true)) => said.push("opted out".to_owned()),
        Some(Value::Bool(false)) => said.push("opted in again".to_owned()),
        _ => {}
    }
    if let Some(source) = text("referral/value/source") {
        said.push(format!("came from {source}"));
    }
    if said.is_empty() {
        return format!("contact {name}");
    }
    format!("contact {name}: {}", said.join(", "))
}

/// A message or an answer; `None` for the bookkeeping of a conversation.
fn turn(change: &Change<'_>) -> Option<String> {
    let (conversation, name) = change.key.split_once('\n')?;
    if !change.is_new || !name.starts_with("turn#") {
        return None;
    }
    let text = |name: &str| change.item.get(name).and_then(Value::as_str);
    let word = match text("role") {
        Some("assistant") => "answer ",
        _ => "message",
    };
    Some(format!(
        "{word} {conversation}: {}",
        quoted(text("text").unwrap_or_default())
    ))
}

/// An item of another table: its key and its short texts.
fn record(table: &str, change: &Change<'_>) -> String {
    const LONGEST: usize = 40;
    let name = table
        .trim_end_matches("Table")
        .trim_end_matches('s')
        .to_lowercase();
    let key = change.key.replace('\n', " ");
    let said: Vec<String> = change
        .item
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| value.as_str().is_some_and(|text| text.len() < LONGEST) || value.is_boolean())
        .filter(|(_, value)| value.as_str().is_none_or(|text| !change.key.contains(text)))
        .take(6)
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    format!("{name} {key}: {}", said.join(", "))
}
