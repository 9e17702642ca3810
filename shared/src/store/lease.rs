//! Leases: an item is one worker's at a time.
//!
//! `lease_until` (ms) is there while an item is leased, and free again from that very millisecond on. `lease_owner`
//! names the worker who has the item, and stays when it is released: so a worker recognises its own release when the
//! answer to it was lost and the SDK has sent it again.

use std::time::Duration;

use aws_sdk_dynamodb::types::ReturnValue;
use jiff::{SignedDuration, Timestamp};

use super::table::{CONFLICT, Table, Updated};
use super::update::Update;
use super::{Item, StoreError, milliseconds, string, time};
use crate::personal::Personal;

const UNTIL: &str = "lease_until";
const OWNER: &str = "lease_owner";

/// The right to work on an item alone.
#[derive(Debug, Clone)]
pub struct Lease {
    key: Personal<Item>,
    owner: String,
    until: Timestamp,
    interrupted: bool,
}

/// What came of claiming an item.
#[derive(Debug)]
pub enum Claim<T> {
    /// It is ours until the lease ends; the item as it stands.
    Leased(T, Lease),
    /// Another worker has it, or a transaction is under way at it.
    Busy,
    /// There is no such item, or it is not in the state to be claimed in.
    Missing,
}

/// What came of releasing an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// The lease has ended, and what was to be written with it is written.
    Yes,
    /// Nothing is written, and the item is still ours: another condition did not hold.
    Refused,
    /// Nothing is written: the lease had expired, and another worker has claimed the item since.
    Lost,
}

impl Lease {
    /// Until when the item is ours.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Whether the previous lease expired unreleased, so that what was done under it may or may not have happened.
    /// Also `true` where that cannot be known, since the answer to the claim was lost.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// An update that is made only while the item is ours.
    pub(crate) fn update(&self) -> Update {
        Update::new((*self.key).clone())
            .value("owner", string(&self.owner))
            .when("#lease_owner = :owner AND attribute_exists(#lease_until)")
    }
}

impl Table {
    /// Claims the item of `update` for `length`, if the update's conditions hold. `read` reads the item as it stood
    /// before, without what the update changes.
    pub(crate) async fn claim<T>(
        &self,
        update: Update,
        length: Duration,
        read: impl FnOnce(Item) -> Result<T, StoreError>,
    ) -> Result<Claim<T>, StoreError> {
        let now = self.now();
        let mut lease = Lease {
            key: update.key().clone().into(),
            owner: uuid::Uuid::new_v4().to_string(),
            until: end(now, length),
            interrupted: false,
        };
        let update = update
            .set(UNTIL, milliseconds(lease.until))
            .set(OWNER, string(&lease.owner))
            .value("now", milliseconds(now))
            // Ours already: the answer to this very claim was lost, and the SDK has sent it again.
            .when(
                "attribute_not_exists(#lease_until) OR #lease_until <= :now OR #lease_owner = :lease_owner",
            );
        match self.update_returning(ReturnValue::AllOld, update).await? {
            Updated::Made(item) => {
                lease.interrupted = item.contains_key(UNTIL);
                Ok(Claim::Leased(read(item)?, lease))
            }
            Updated::Refused(item) if time(&item, UNTIL) > Some(now) => Ok(Claim::Busy),
            Updated::Refused(_) => Ok(Claim::Missing),
            Updated::Conflict => Ok(Claim::Busy),
        }
    }

    /// Prolongs a lease to `length` from now and makes `update` (of [`Lease::update`]) in the same call. `read` reads
    /// the item as it stood before. [`Claim::Busy`] if another worker has claimed it since.
    pub(crate) async fn renew<T>(
        &self,
        lease: &Lease,
        update: Update,
        length: Duration,
        read: impl FnOnce(Item) -> Result<T, StoreError>,
    ) -> Result<Claim<T>, StoreError> {
        let lease = Lease {
            until: end(self.now(), length),
            ..lease.clone()
        };
        let update = update.set(UNTIL, milliseconds(lease.until));
        match self.update_returning(ReturnValue::AllOld, update).await? {
            Updated::Made(item) => Ok(Claim::Leased(read(item)?, lease)),
            Updated::Refused(_) => Ok(Claim::Busy),
            Updated::Conflict => Err(StoreError::conflict(CONFLICT)),
        }
    }

    /// Ends a lease and makes `update` (of [`Lease::update`]) in the same call.
    pub(crate) async fn release(&self, lease: &Lease, update: Update) -> Result<Released, StoreError> {
        let update = update.remove(&[UNTIL]);
        match self.update_returning(ReturnValue::None, update).await? {
            Updated::Refused(item) if item.get(OWNER) != Some(&string(&lease.owner)) => Ok(Released::Lost),
            Updated::Refused(item) if item.contains_key(UNTIL) => Ok(Released::Refused),
            // Refused: the answer to this very release was lost, and the SDK has sent it again.
            Updated::Made(_) | Updated::Refused(_) => Ok(Released::Yes),
            Updated::Conflict => Err(StoreError::conflict(CONFLICT)),
        }
    }
}

fn end(now: Timestamp, length: Duration) -> Timestamp {
    now + SignedDuration::try_from(length).unwrap_or(SignedDuration::from_mins(1))
}
