//! How DynamoDB is used: each mechanism once, whatever the table.
//!
//! * [`table`]: a table, and the calls that more than one job makes.
//! * [`update`]: a conditional update of one item.
//! * [`batch`]: many items in few calls.
//! * [`transact`]: writes that are made together or not at all.
//! * [`lease`]: an item is one worker's at a time.
//! * [`rounds`]: doing something again, with jitter and an end.

mod batch;
pub mod lease;
pub mod rounds;
pub(crate) mod table;
pub(crate) mod transact;
pub(crate) mod update;

use std::fmt;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::Serialize;

use crate::{sdk_error, telemetry};

pub use lease::{Claim, Lease, Released};
pub use rounds::Rounds;

const UNREADABLE: &str = "the item is not of the expected shape";

/// DynamoDB could not do it, or an item is not what we wrote. Carries the service's words and never an item.
#[derive(Debug, thiserror::Error)]
#[error("DynamoDB {operation} failed: {reason}")]
pub struct StoreError {
    operation: &'static str,
    reason: String,
}

impl StoreError {
    /// Counts a stored item that this version cannot read, and logs which kind. It is left alone.
    pub fn count_unreadable(&self, what: &str) {
        metrics::counter!(telemetry::UNREADABLE_ITEMS).increment(1);
        tracing::error!(what, error = %self, "a stored item cannot be read by this version");
    }

    /// Other writers were at the same item for too long.
    #[must_use]
    pub fn conflict(reason: &'static str) -> Self {
        Self::new("conditional write", reason)
    }

    /// An item is not what we wrote. The deserializer's own words are left out: they quote what they met, which
    /// may be a PSID or what somebody wrote.
    pub(crate) fn unreadable(operation: &'static str) -> Self {
        Self::new(operation, UNREADABLE)
    }

    /// Whether an item is not what this version writes. Trying again does not help.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.reason == UNREADABLE
    }

    pub(crate) fn new(operation: &'static str, reason: impl fmt::Display) -> Self {
        Self {
            operation,
            reason: reason.to_string(),
        }
    }

    pub(crate) fn sdk<E, R>(operation: &'static str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: fmt::Debug,
    {
        Self::new(operation, sdk_error::reason(error))
    }
}

pub(crate) type Item = std::collections::HashMap<String, AttributeValue>;

/// Those of `items` that can be read. One that another version has written, or somebody by hand, must not hold
/// up the others: it is left alone, and told of by the stand-in of its `key`.
pub(crate) fn readable<T>(
    items: impl IntoIterator<Item = Item>,
    key: &str,
    read: impl Fn(Item) -> Result<T, StoreError>,
) -> Vec<T> {
    let (mut readable, mut left, mut first) = (Vec::new(), 0_u64, None);
    for item in items {
        let id = text(&item, key).map(telemetry::pseudonym);
        match read(item) {
            Ok(value) => readable.push(value),
            Err(error) => {
                left += 1;
                first.get_or_insert((id, error));
            }
        }
    }
    if let Some((id, error)) = first {
        metrics::counter!(telemetry::UNREADABLE_ITEMS).increment(left);
        tracing::error!(items = left, first = id, %error, "stored items cannot be read by this version");
    }
    readable
}

pub(crate) fn string(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(crate) fn number(value: impl fmt::Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// A time as DynamoDB holds it, in milliseconds.
pub(crate) fn milliseconds(at: Timestamp) -> AttributeValue {
    number(at.as_millisecond())
}

/// The text of an attribute, if it is one.
pub(crate) fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

/// The time of an attribute in milliseconds, if it is one.
pub(crate) fn time(item: &Item, name: &str) -> Option<Timestamp> {
    let at = item.get(name)?.as_n().ok()?.parse().ok()?;
    Timestamp::from_millisecond(at).ok()
}

/// A value as DynamoDB holds it.
pub(crate) fn attribute(value: &impl Serialize) -> Result<AttributeValue, StoreError> {
    serde_dynamo::to_attribute_value(value).map_err(|error| StoreError::new("write", error))
}
