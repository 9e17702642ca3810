//! What DynamoDB holds, and the commits that keep it consistent.

pub(crate) mod batch;

use std::fmt;
use std::time::Duration;

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
use jiff::{SignedDuration, Timestamp};

use crate::telemetry;

/// DynamoDB could not do it, or an item is not what we wrote. Carries the service's words and never an item.
#[derive(Debug, thiserror::Error)]
pub struct StoreError {
    operation: &'static str,
    reason: String,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DynamoDB {} failed: {}", self.operation, self.reason)
    }
}

impl StoreError {
    /// Somebody else kept writing the same item.
    #[must_use]
    pub fn conflict(reason: &'static str) -> Self {
        Self::new("conditional write", reason)
    }

    /// An item is not what we wrote. The deserializer's own words are left out: they quote what they met, which
    /// may be a PSID or what somebody wrote.
    pub(crate) fn unreadable(operation: &'static str) -> Self {
        Self::new(operation, "the item is not of the expected shape")
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
        // The service's message can quote an item's key; its code cannot.
        let reason = match error.as_service_error().and_then(ProvideErrorMetadata::code) {
            Some(code) => code.to_owned(),
            None => DisplayErrorContext(error).to_string(),
        };
        Self { operation, reason }
    }
}

/// A write that met a transaction is sent this often in all.
const CONFLICT_TRIES: u32 = 5;

/// Whether DynamoDB refused a write because a transaction was at its item. The SDK does not send such a one again.
pub(crate) fn is_conflict<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    code == Some("TransactionConflictException")
}

/// Sends a write, and sends it again for a while if a transaction is at its item.
pub(crate) async fn past_transactions<T, E, R, F>(send: impl Fn() -> F) -> Result<T, SdkError<E, R>>
where
    E: ProvideErrorMetadata,
    F: Future<Output = Result<T, SdkError<E, R>>>,
{
    let mut tries = 1;
    loop {
        match send().await {
            Err(error) if is_conflict(&error) && tries < CONFLICT_TRIES => {
                tokio::time::sleep(Duration::from_millis(12 << tries)).await;
                tries += 1;
            }
            answer => return answer,
        }
    }
}

/// Why one write of a transaction was not made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing was wrong with this one.
    None,
    /// Its condition did not hold.
    Condition,
    /// Another transaction or write was at the item, or DynamoDB was busy.
    Conflict,
}

pub(crate) fn reasons<R>(error: &SdkError<TransactWriteItemsError, R>) -> Option<Vec<Reason>> {
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error.as_service_error()? else {
        return None;
    };
    let reason = |code: Option<&str>| match code {
        None | Some("None") => Reason::None,
        Some("ConditionalCheckFailed") => Reason::Condition,
        Some(_) => Reason::Conflict,
    };
    Some(
        cancelled
            .cancellation_reasons()
            .iter()
            .map(|given| reason(given.code()))
            .collect(),
    )
}

pub(crate) fn is_condition<R>(error: &SdkError<UpdateItemError, R>) -> bool {
    refused(error).is_some()
}

/// What a condition was held against, if it did not hold.
pub(crate) fn refused<R>(error: &SdkError<UpdateItemError, R>) -> Option<&ConditionalCheckFailedException> {
    match error.as_service_error()? {
        UpdateItemError::ConditionalCheckFailedException(failed) => Some(failed),
        _ => None,
    }
}

pub(crate) fn until(now: Timestamp, lease: Duration) -> AttributeValue {
    let lease = SignedDuration::try_from(lease).unwrap_or(SignedDuration::from_mins(1));
    number((now + lease).as_millisecond())
}

/// Operations that DynamoDB takes in one `TransactWriteItems`.
pub(crate) const MAX_TRANSACT: usize = 100;

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
        let id = item.get(key).and_then(|id| id.as_s().ok());
        let id = id.map(|id| telemetry::pseudonym(id));
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
