//! Items of the tables as plain JSON.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde_json::{Map, Value};
use shared::messenger::contact::Contact;

/// Logical id of the table of contacts.
pub const CONTACTS: &str = "ContactsTable";
/// Logical id of the table of FBE installs.
pub const INSTALLS: &str = "InstallsTable";
/// Logical id of the table of conversations and their turns.
pub const CONVERSATIONS: &str = "ConversationsTable";
/// Logical id of the outbox.
pub const OUTBOX: &str = "OutboxTable";

/// An item as plain JSON.
pub(crate) fn plain_item(item: &HashMap<String, AttributeValue>) -> Value {
    item.iter()
        .map(|(name, value)| (name.clone(), plain(value)))
        .collect::<Map<_, _>>()
        .into()
}

fn plain(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => text.as_str().into(),
        AttributeValue::N(number) => serde_json::from_str(number).unwrap_or_else(|_| number.as_str().into()),
        AttributeValue::Bool(value) => (*value).into(),
        AttributeValue::M(members) => plain_item(members),
        AttributeValue::L(values) => values.iter().map(plain).collect::<Vec<_>>().into(),
        AttributeValue::Ss(texts) | AttributeValue::Ns(texts) => texts.clone().into(),
        AttributeValue::B(bytes) => format!("{} bytes", bytes.as_ref().len()).into(),
        _ => Value::Null,
    }
}

/// A contact from its item in the table: the facts, and what was noted beside them.
#[must_use]
pub fn contact(item: &Value) -> Option<Contact> {
    let mut contact: Contact = serde_json::from_value(item.get("facts")?.clone()).ok()?;
    let latest = item.get("latest").and_then(Value::as_i64);
    if let Some(latest) = latest.and_then(|latest| Timestamp::from_millisecond(latest).ok()) {
        contact.acted(latest);
    }
    Some(contact)
}
