//! Once a day every install is compared with Graph, spread over the day.

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use shared::fbe::install::{Install, Status};
use shared::fbe::plan::reconcile_item;
use shared::outbox::Entry;
use shared::outbox::Kind;
use shared::store::StoreError;

use super::FbeWorker;

/// Writes to the outbox under way at once.
const CONCURRENCY: usize = 32;

/// The last comparison of a day begins this long after the first.
const SPREAD_MINUTES: u64 = 23 * 60;

const DAY: i64 = 24 * 3600;

impl FbeWorker {
    /// Plans the comparisons of the day that `now` is in, and gives how many are new. Done again on the same
    /// day it adds none. An item that cannot be written costs no other.
    ///
    /// # Errors
    ///
    /// The last of the failures.
    pub(crate) async fn plan_comparisons(&self, now: Timestamp) -> Result<usize, StoreError> {
        let day = Timestamp::from_second(now.as_second().div_euclid(DAY) * DAY).unwrap_or(now);
        let (mut planned, mut failed, mut from) = (0, Ok(()), None);
        loop {
            let page = self.installs.scan(true, from).await?;
            let added = stream::iter(page.installs)
                .map(|install| async move { self.plan_comparison(&install, day, now).await })
                .buffer_unordered(CONCURRENCY)
                .collect::<Vec<_>>()
                .await;
            for added in added {
                match added {
                    Ok(added) => planned += usize::from(added),
                    Err(error) => {
                        tracing::error!(%error, "a daily comparison is not planned");
                        failed = Err(error);
                    }
                }
            }
            match page.next {
                Some(cursor) => from = Some(cursor),
                None => return failed.map(|()| planned),
            }
        }
    }

    async fn plan_comparison(
        &self,
        install: &Install,
        day: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let at = now + offset(&install.business_id);
        let item = reconcile_item(&install.business_id, "daily", day, Some(at));
        // What waits for a token, or for a permission, tries every hour. More would only ask more often.
        let pending = self.outbox.pending_all(&item.subject).await?;
        let waits =
            |entry: &Entry| entry.kind == Kind::FbeReconcile || install.status == Status::TokenInvalid;
        if pending.iter().any(waits) {
            return Ok(false);
        }
        self.outbox.add(&item).await
    }
}

/// Always the same for one business, so its comparisons are a day apart.
fn offset(business_id: &str) -> SignedDuration {
    // FNV-1a: even enough, and the same in every build.
    let hash = business_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    SignedDuration::from_mins(i64::try_from(hash % SPREAD_MINUTES).unwrap_or_default())
}
