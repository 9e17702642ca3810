//! How fast a page sends: at most 30 messages a second, fewer when Meta's limits fill up, none while it pauses.
//!
//! Kept by each process. Above 40 a second Meta's own inbox of the page stops working.
//! (<https://developers.facebook.com/docs/messenger-platform/overview/rate-limiting>)

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Between two messages: 30 a second.
const STEP: Duration = Duration::from_nanos(33_333_334);
/// From 80 % of a limit on.
const SLOW: Duration = Duration::from_millis(133);
/// From 95 % of a limit on.
const SLOWEST: Duration = Duration::from_secs(1);

/// How long a restricted page pauses at first; it doubles.
const FIRST_PAUSE: Duration = Duration::from_mins(30);
const LONGEST_PAUSE: Duration = Duration::from_hours(4);

/// Pages and Instagram accounts by their ids.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<HashMap<String, Page>>);

#[derive(Debug)]
struct Page {
    next: Instant,
    step: Duration,
    paused_until: Option<Timestamp>,
    restrictions: u32,
}

impl Pages {
    /// Waits for the page's turn to send a message. An error says for how long the page pauses.
    pub(super) async fn turn(&self, account_id: &str, now: Timestamp) -> Result<(), Duration> {
        let turn = {
            let mut pages = self.pages();
            let page = page(&mut pages, account_id);
            if let Some(until) = page.paused_until.filter(|until| *until > now) {
                return Err(until.duration_since(now).unsigned_abs());
            }
            let turn = page.next.max(Instant::now());
            page.next = turn + page.step;
            turn
        };
        tokio::time::sleep_until(turn).await;
        Ok(())
    }

    /// A message was taken, and so much of the limit is used up, in percent.
    pub(super) fn sent(&self, account_id: &str, percent: u64) {
        let mut pages = self.pages();
        let page = page(&mut pages, account_id);
        page.restrictions = 0;
        page.step = match percent {
            ..80 => STEP,
            80..95 => SLOW,
            _ => SLOWEST,
        };
    }

    /// Meta has restricted the page. Gives how long it pauses.
    pub(super) fn restricted(&self, account_id: &str, now: Timestamp) -> Duration {
        let restrictions = {
            let mut pages = self.pages();
            let page = page(&mut pages, account_id);
            page.restrictions += 1;
            page.restrictions
        };
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(restrictions - 1));
        let pause = pause.min(LONGEST_PAUSE);
        self.pause(account_id, now, pause);
        pause
    }

    /// The page sends nothing for `pause`.
    pub(super) fn pause(&self, account_id: &str, now: Timestamp, pause: Duration) {
        let until = SignedDuration::try_from(pause).ok();
        let until = until.and_then(|pause| now.checked_add(pause).ok());
        let mut pages = self.pages();
        let page = page(&mut pages, account_id);
        page.paused_until = page.paused_until.max(until);
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<String, Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn page<'a>(pages: &'a mut HashMap<String, Page>, account_id: &str) -> &'a mut Page {
    pages.entry(account_id.to_owned()).or_insert_with(|| Page {
        next: Instant::now(),
        step: STEP,
        paused_until: None,
        restrictions: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_sends_thirty_a_second_and_no_page_waits_for_another() {
        let pages = Pages::default();
        let began = Instant::now();
        for _ in 0..31 {
            pages.turn("1", now()).await.unwrap();
        }
        assert!(
            (began + Duration::from_secs(1)..began + Duration::from_millis(1_050)).contains(&Instant::now())
        );
        let then = Instant::now();
        pages.turn("2", now()).await.unwrap();
        assert_eq!(Instant::now(), then);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_near_its_limit_slows_down() {
        let pages = Pages::default();
        pages.sent("1", 96);
        let began = Instant::now();
        for _ in 0..3 {
            pages.turn("1", now()).await.unwrap();
        }
        assert!(Instant::now() >= began + Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restricted_page_pauses_for_longer_each_time_until_a_message_is_taken() {
        let pages = Pages::default();
        let pauses: Vec<_> = (0..5)
            .map(|_| pages.restricted("1", now()).as_secs() / 60)
            .collect();
        assert_eq!(pauses, [30, 60, 120, 240, 240]);
        assert_eq!(pages.turn("1", now()).await, Err(Duration::from_hours(4)));
        assert_eq!(pages.turn("2", now()).await, Ok(()));
        pages.sent("1", 0);
        assert_eq!(pages.restricted("1", now()), Duration::from_mins(30));
    }
}
