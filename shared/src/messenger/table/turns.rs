//! Whose turn it is to be written through and to: what all processes that send messages have to keep together.
//!
//! `turns#<account>` holds from when on (`free_at`, milliseconds) the turns of a page or account are not taken yet; beside a
//! contact's facts stands when it was last written to (`written_at`).

use aws_sdk_dynamodb::types::ReturnValue;
use jiff::{SignedDuration, Timestamp};

use super::{Contacts, key, read_contact};
use crate::messenger::key::ContactKey;
use crate::messenger::sync::Stored;
use crate::store::table::{CONFLICT, Updated};
use crate::store::update::Update;
use crate::store::{Rounds, StoreError, milliseconds, number, time};

const FREE_AT: &str = "free_at";
const WRITTEN_AT: &str = "written_at";

/// Whether a person may be written to.
#[expect(
    clippy::large_enum_variant,
    reason = "there are few at a time, and none is kept"
)]
#[derive(Debug)]
pub enum Turn {
    /// Now, and nobody else until the pause is over.
    Now(Stored),
    /// They were written to a moment ago: in so long.
    In(SignedDuration),
    /// There is no such contact.
    Missing,
}

impl Contacts {
    /// Takes the next `length` of an account's time to send. Says when it begins; `None` if that were after `until`: then
    /// nothing is taken.
    pub async fn take_time(
        &self,
        account_id: &str,
        length: SignedDuration,
        (now, until): (Timestamp, Timestamp),
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut rounds = Rounds::new("too many processes send through one account");
        let account = || Update::new(key(format!("turns#{account_id}"))).value("now", milliseconds(now));
        if now > until {
            return Ok(None);
        }
        loop {
            let behind = account()
                .increase(FREE_AT, number(length.as_millis()))
                .value("until", milliseconds(until))
                .when("#free_at > :now AND #free_at <= :until");
            match self.table.update_returning(ReturnValue::AllOld, behind).await? {
                Updated::Made(item) => return Ok(time(&item, FREE_AT)),
                Updated::Refused(item) if time(&item, FREE_AT) > Some(until) => return Ok(None),
                Updated::Refused(_) => {}
                Updated::Conflict => return Err(StoreError::conflict(CONFLICT)),
            }
            // Nobody sends.
            let end = now.saturating_add(length).unwrap_or(Timestamp::MAX);
            let first = account()
                .set(FREE_AT, milliseconds(end))
                .when("attribute_not_exists(#free_at) OR #free_at <= :now");
            if self.table.update(first).await? {
                return Ok(Some(now));
            }
            rounds.next().await?;
        }
    }

    /// Notes that a contact is written to at the time `now`, if they were not since `pause` before, and reads the contact
    /// in the same call.
    pub async fn take_turn(
        &self,
        contact: &ContactKey,
        pause: SignedDuration,
        now: Timestamp,
    ) -> Result<Turn, StoreError> {
        let update = Update::new(key(contact.to_string()))
            .set(WRITTEN_AT, milliseconds(now))
            .value("before", milliseconds(now - pause))
            .when("attribute_exists(#facts)")
            .when("attribute_not_exists(#written_at) OR #written_at <= :before");
        match self.table.update_returning(ReturnValue::AllOld, update).await? {
            Updated::Made(item) => Ok(Turn::Now(read_contact(item)?)),
            Updated::Refused(item) => Ok(time(&item, WRITTEN_AT).map_or(Turn::Missing, |written_at| {
                Turn::In(pause - now.duration_since(written_at))
            })),
            Updated::Conflict => Err(StoreError::conflict(CONFLICT)),
        }
    }
}
