//! By which a table recognizes who was erased, without naming them: a keyed hash, kept for eight days.
//!
//! Meta delivers again for 36 hours, and what was under way when somebody was erased ends within minutes. So what comes
//! late is older than the erasure and makes no new record. What is newer is of somebody who came back.

use jiff::{SignedDuration, Timestamp};

use crate::store::table::Table;
use crate::store::{Item, StoreError, milliseconds, number, time};
use crate::telemetry;
use aws_sdk_dynamodb::types::TransactWriteItem;

/// How long a tombstone is kept.
const KEEP: SignedDuration = SignedDuration::from_hours(8 * 24);

const PREFIX: &str = "erased#";
const AT: &str = "erased_at";
const UNTIL: &str = "erased_until";

/// The key of the tombstone of somebody or something with this name.
pub(crate) fn name(name: &str) -> String {
    format!("{PREFIX}{}", telemetry::keyed_hash(name))
}

/// The tombstone `key`, of somebody who was erased at `at`.
pub(crate) fn put(mut key: Item, at: Timestamp) -> Item {
    key.insert(AT.to_owned(), milliseconds(at));
    key.insert("expires_at".to_owned(), number((at + KEEP).as_second()));
    key
}

/// A tombstone of something that is to be recognized until `until`.
pub(crate) fn put_until(mut key: Item, until: Timestamp) -> Item {
    key.insert(UNTIL.to_owned(), milliseconds(until));
    key.insert("expires_at".to_owned(), number(until.as_second() + 1));
    key
}

/// When the one with this tombstone was erased.
pub(crate) fn erased_at(item: &Item) -> Option<Timestamp> {
    time(item, AT)
}

/// The part of a transaction that holds unless the one with the tombstone `key` was erased at `at` or later.
pub(crate) fn unless_erased(
    table: &Table,
    key: Item,
    at: Timestamp,
) -> Result<TransactWriteItem, StoreError> {
    let values = Item::from([(":at".to_owned(), milliseconds(at))]);
    table.check(
        key,
        "attribute_not_exists(#erased_at) OR #erased_at < :at",
        values,
    )
}

/// The part of a transaction that holds unless the tombstone `key` still counts at `now`.
pub(crate) fn unless_known(
    table: &Table,
    key: Item,
    now: Timestamp,
) -> Result<TransactWriteItem, StoreError> {
    let values = Item::from([(":now".to_owned(), milliseconds(now))]);
    table.check(
        key,
        "attribute_not_exists(#erased_until) OR #erased_until <= :now",
        values,
    )
}
