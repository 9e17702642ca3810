//! Once a day every install is compared with Graph, and its catalog looked at every `CATALOG_REFRESH_HOURS`; both spread
//! over the time.

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use shared::fbe::install::{Install, Status};
use shared::fbe::plan::{reconcile_item, refresh_item, subject};
use shared::outbox::{Entry, Kind, OutboxItem};
use shared::store::StoreError;

use super::FbeWorker;

/// Writes to the outbox under way at once.
const CONCURRENCY: usize = 32;

/// The last comparison of a day begins this long after the first.
const SPREAD_MINUTES: u64 = 23 * 60;

const DAY: i64 = 24 * 3600;

/// The schedule plans every six hours. Refreshes are planned this far ahead, so that a call that failed leaves no gap.
const PLAN_AHEAD: SignedDuration = SignedDuration::from_hours(12);

impl FbeWorker {
    /// Plans the comparisons of the day, and gives how many are new. Done again on the same day it adds none. An item
    /// that cannot be written costs no other.
    ///
    /// # Errors
    ///
    /// The last of the failures, or that it was not done by `until`: the next run plans the rest.
    pub(crate) async fn plan_comparisons(&self, until: Timestamp) -> Result<usize, lambda_runtime::Error> {
        let now = self.clock.now();
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
                        failed = Err(error.into());
                    }
                }
            }
            match page.next {
                Some(_) if self.clock.now() > until => {
                    return Err("there was no time to plan the comparisons of all installs".into());
                }
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
        let business = &install.business_id;
        let pending = self.outbox.pending_all(&subject(business)).await?;
        let waits = |kind: Kind| pending.iter().any(|entry: &Entry| entry.kind == kind);
        // What waits for a token, a permission or a feed tries every hour. More would only ask more often.
        if install.status == Status::TokenInvalid && !pending.is_empty() {
            return Ok(false);
        }
        if !waits(Kind::FbeCatalogPush) {
            for item in self.refreshes(install, now) {
                self.outbox.add(&item).await?;
            }
        }
        if waits(Kind::FbeReconcile) {
            return Ok(false);
        }
        let at = now + offset(business, SPREAD_MINUTES);
        self.outbox
            .add(&reconcile_item(business, "daily", day, Some(at)))
            .await
    }

    /// The next times at which the install's catalog is looked at. They lie a period apart, at the business's own time.
    fn refreshes(&self, install: &Install, now: Timestamp) -> Vec<OutboxItem> {
        let (Some(period), Some(catalog), true) = (
            self.settings.refresh,
            &install.assets.catalog_id,
            self.settings.fbe.catalog_feed_url.is_some(),
        ) else {
            return Vec::new();
        };
        let period = period.as_secs();
        let minutes = u64::try_from(period / 60).unwrap_or(1);
        let offset = offset(&install.business_id, minutes).as_secs();
        let last = (now.as_second() - offset).div_euclid(period) * period + offset;
        let planned = last + period..=(now + PLAN_AHEAD).as_second();
        planned
            .step_by(usize::try_from(period).unwrap_or(usize::MAX))
            .filter_map(|at| Timestamp::from_second(at).ok())
            .map(|at| refresh_item(&install.business_id, catalog, at))
            .collect()
    }
}

/// Always the same for one business, so that its comparisons are a day apart, and its refreshes a period.
fn offset(business_id: &str, minutes: u64) -> SignedDuration {
    // FNV-1a: even enough, and the same in every build.
    let hash = business_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    SignedDuration::from_mins(i64::try_from(hash % minutes.max(1)).unwrap_or_default())
}
