//! How fast a page sends: at most 30 messages a second, fewer when Meta's limits fill up, none while it pauses.
//!
//! All processes share a page's time to send (`Contacts::take_time`): each takes about a second of it at once. Limits that
//! fill up and pauses are kept by each process, and found out by another at the price of one message.
//!
//! Above 40 a second Meta's own inbox of the page stops working.
//! (<https://developers.facebook.com/docs/messenger-platform/overview/rate-limiting>)

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shared::messenger::table::Contacts;
use shared::store::StoreError;
use tokio::time::Instant;

/// Between two messages: 22 a second leave, so that no more than 30 arrive, also if one is up to 300 ms longer on its way
/// than the first. (On a busy machine 35 of a page arrived within a second at 34 ms, and 31 at 40 ms.)
const STEP: SignedDuration = SignedDuration::from_millis(45);
/// From 80 % of a limit on.
const SLOW: SignedDuration = SignedDuration::from_millis(133);
/// From 95 % of a limit on.
const SLOWEST: SignedDuration = SignedDuration::from_secs(1);
/// How much of a page's time is taken at once: what is not used of it nobody else has.
const TAKEN_AT_ONCE: SignedDuration = SignedDuration::from_secs(1);

/// How long a restricted page pauses at first; it doubles.
const FIRST_PAUSE: Duration = Duration::from_mins(30);
const LONGEST_PAUSE: Duration = Duration::from_hours(4);

/// The time of one run, by which it takes turns and sleeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    began_at: Timestamp,
    began: Instant,
    /// No message may leave later.
    pub(super) until: Timestamp,
}

impl Run {
    pub(super) fn new(now: Timestamp, until: Timestamp) -> Self {
        Self {
            began_at: now,
            began: Instant::now(),
            until,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.began.elapsed()).unwrap_or(SignedDuration::MAX);
        self.began_at.saturating_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn is_over(&self) -> bool {
        self.now() > self.until
    }

    async fn sleep_until(&self, at: Timestamp) {
        let wait = Duration::try_from(at.duration_since(self.began_at)).unwrap_or_default();
        tokio::time::sleep_until(self.began + wait).await;
    }
}

/// What came of waiting for a page's turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PageTurn {
    /// It is ours, now.
    Taken,
    /// None is left before the run's end.
    TooLate,
    /// The page pauses for so long.
    Paused(Duration),
}

/// Pages and Instagram accounts by their ids, as far as this process knows them.
#[derive(Debug, Default)]
pub(crate) struct Pages(Mutex<HashMap<String, Page>>);

#[derive(Debug)]
struct Page {
    step: SignedDuration,
    paused_until: Option<Timestamp>,
    restrictions: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            step: STEP,
            paused_until: None,
            restrictions: 0,
        }
    }
}

/// The turns of a page in one run.
pub(super) struct Turns<'a> {
    contacts: &'a Contacts,
    pages: &'a Pages,
    account_id: &'a str,
    run: Run,
    taken: tokio::sync::Mutex<Taken>,
    are_over: AtomicBool,
}

/// What is taken of the page's time and not used yet.
struct Taken {
    next: Timestamp,
    end: Timestamp,
    step: SignedDuration,
    /// Messages that have had no turn.
    messages: i32,
}

impl<'a> Turns<'a> {
    /// For so many `messages`.
    pub(super) fn new(
        contacts: &'a Contacts,
        pages: &'a Pages,
        account_id: &'a str,
        messages: usize,
        run: Run,
    ) -> Self {
        let taken = Taken {
            next: Timestamp::MIN,
            end: Timestamp::MIN,
            step: STEP,
            messages: i32::try_from(messages).unwrap_or(i32::MAX),
        };
        Self {
            contacts,
            pages,
            account_id,
            run,
            taken: tokio::sync::Mutex::new(taken),
            are_over: AtomicBool::new(false),
        }
    }

    /// Whether no turn is left before the run's end.
    pub(super) fn are_over(&self) -> bool {
        self.are_over.load(Ordering::Relaxed)
    }

    /// Waits for the next turn.
    pub(super) async fn next(&self) -> Result<PageTurn, StoreError> {
        let turn = {
            let mut taken = self.taken.lock().await;
            let taken = &mut *taken;
            // As long as the others wait for this one, the page may have begun to pause.
            if let Some(pause) = self.pages.pause_of(self.account_id, self.run.now()) {
                return Ok(PageTurn::Paused(pause));
            }
            // Turns that have passed are not made up for: they would come on top of the ones to come.
            while taken.next < taken.end && taken.next + taken.step < self.run.now() {
                taken.next += taken.step;
            }
            if taken.next >= taken.end {
                taken.step = self.pages.step_of(self.account_id);
                let length = (taken.step * taken.messages.max(1)).min(TAKEN_AT_ONCE.max(taken.step));
                let now = self.run.now();
                let time = self
                    .contacts
                    .take_time(self.account_id, length, (now, self.run.until));
                let Some(begin) = time.await? else {
                    self.are_over.store(true, Ordering::Relaxed);
                    return Ok(PageTurn::TooLate);
                };
                (taken.next, taken.end) = (begin, begin + length);
            }
            let turn = taken.next;
            taken.next += taken.step;
            taken.messages -= 1;
            turn
        };
        self.run.sleep_until(turn).await;
        Ok(PageTurn::Taken)
    }
}

impl Pages {
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

    fn pause_of(&self, account_id: &str, now: Timestamp) -> Option<Duration> {
        let until = self.pages().get(account_id)?.paused_until?;
        (until > now).then(|| until.duration_since(now).unsigned_abs())
    }

    fn step_of(&self, account_id: &str) -> SignedDuration {
        self.pages().get(account_id).map_or(STEP, |page| page.step)
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<String, Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn page<'a>(pages: &'a mut HashMap<String, Page>, account_id: &str) -> &'a mut Page {
    pages.entry(account_id.to_owned()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }

    #[test]
    fn a_page_near_its_limit_slows_down() {
        let pages = Pages::default();
        let step = |percent| {
            pages.sent("1", percent);
            pages.step_of("1")
        };
        assert_eq!([79, 80, 96, 10].map(step), [STEP, SLOW, SLOWEST, STEP]);
        assert_eq!(pages.step_of("2"), STEP);
    }

    #[test]
    fn a_restricted_page_pauses_for_longer_each_time_until_a_message_is_taken() {
        let pages = Pages::default();
        let pauses: Vec<_> = (0..5)
            .map(|_| pages.restricted("1", now()).as_secs() / 60)
            .collect();
        assert_eq!(pauses, [30, 60, 120, 240, 240]);
        assert_eq!(pages.pause_of("1", now()), Some(Duration::from_hours(4)));
        assert_eq!(pages.pause_of("2", now()), None);
        pages.sent("1", 0);
        assert_eq!(pages.restricted("1", now()), Duration::from_mins(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_goes_on_by_itself_and_ends() {
        let run = Run::new(now(), now() + SignedDuration::from_secs(3));
        run.sleep_until(now() + SignedDuration::from_secs(2)).await;
        assert_eq!(run.now(), now() + SignedDuration::from_secs(2));
        // What has passed is not slept for.
        run.sleep_until(now() - SignedDuration::from_secs(60)).await;
        assert!(!run.is_over());
        tokio::time::advance(Duration::from_millis(1_001)).await;
        assert!(run.is_over());
    }
}
