//! Once a day every active install is compared with Graph, spread over the day.

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use shared::fbe::plan::reconcile_item;
use shared::store::StoreError;

use super::FbeWorker;

/// Writes to the outbox under way at once.
const CONCURRENCY: usize = 32;

/// The last comparison of a day begins this long after the first.
const SPREAD_MINUTES: u64 = 23 * 60;

const DAY: i64 = 24 * 3600;

impl FbeWorker {
    /// Plans the comparisons of the day that `now` is in, and gives how many are new. Done again on the same
    /// day it adds none.
    pub(crate) async fn plan_comparisons(&self, now: Timestamp) -> Result<usize, StoreError> {
        let day = Timestamp::from_second(now.as_second().div_euclid(DAY) * DAY).unwrap_or(now);
        let (mut planned, mut from) = (0, None);
        loop {
            let page = self.installs.scan(true, from).await?;
            let added = stream::iter(page.installs)
                .map(|install| async move {
                    let at = now + offset(&install.business_id);
                    let item = reconcile_item(&install.business_id, "daily", day, Some(at));
                    self.outbox.add(&item).await
                })
                .buffer_unordered(CONCURRENCY)
                .collect::<Vec<_>>()
                .await;
            for added in added {
                planned += usize::from(added?);
            }
            match page.next {
                Some(cursor) => from = Some(cursor),
                None => return Ok(planned),
            }
        }
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
