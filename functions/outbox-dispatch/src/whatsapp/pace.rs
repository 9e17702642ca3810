//! Which of the messages that wait are handed over next.
//!
//! Messages that wait go together, in order. If they fail, they wait together, and a message that comes
//! meanwhile waits with them. One of them may be what the external system stumbles over, and nothing tells
//! which; so a message that has failed a few times goes alone from then on, and holds up no other. The oldest
//! goes first, so that after an outage the order is kept; once it is answered, the others follow together. Only what
//! has failed alone is passed by, and what has no item that would count its failures.

use std::time::Duration;

use jiff::Timestamp;

use shared::whatsapp::conversation::{Turn, TurnStatus};
use shared::whatsapp::decide::answer::MAX_HANDED_OVER;

/// After this many failures a message goes alone.
pub(super) const FAILURES_TOGETHER: u32 = 3;

/// After this many failures nothing else is tried for the time being: it is most likely down.
const FAILURES_AT_ONCE: u32 = 2;

/// A message that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting<'a> {
    /// The message.
    pub turn: &'a Turn,
    /// How often the external system was asked about it and gave no answer.
    pub asked_in_vain: u32,
    /// Not before this time, since it failed.
    pub backs_off_until: Option<Timestamp>,
    /// It has failed in this run.
    pub tried: bool,
    /// Its item is there, and counts. It is not where a table was restored, or another version has written it.
    pub has_item: bool,
}

impl Waiting<'_> {
    /// Whether it may be what the external system stumbles over.
    #[must_use]
    pub(super) fn goes_alone(&self) -> bool {
        self.asked_in_vain >= FAILURES_TOGETHER || self.turn.status == Some(TurnStatus::GivenUp)
    }

    /// Whether it has failed alone as well. Before that nobody passes it by, though others may have been answered; but for one
    /// that nobody counts, which would hold up the others for good.
    fn may_be_passed_by(&self) -> bool {
        let has_failed_alone = self.asked_in_vain > FAILURES_TOGETHER;
        has_failed_alone || self.turn.status == Some(TurnStatus::GivenUp) || !self.has_item
    }

    fn backs_off(&self, now: Timestamp) -> bool {
        self.backs_off_until.is_some_and(|until| until > now)
    }
}

/// What this run has taught about the external system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// It has answered.
    pub answered: bool,
    /// It has failed at several messages of which each may have been the one: now each goes alone.
    pub each_alone: bool,
    /// How often it has failed.
    pub failures: u32,
}

impl Learned {
    /// Whether nothing else is tried for the time being.
    #[must_use]
    pub(super) fn is_enough(self) -> bool {
        self.failures >= FAILURES_AT_ONCE
    }

    /// It cannot be asked before somebody mends something.
    pub(super) fn give_in(&mut self) {
        self.failures = FAILURES_AT_ONCE;
    }
}

/// Until when messages that go together have to wait, because some have failed that they may not pass by.
#[must_use]
pub(super) fn held_until(waiting: &[Waiting<'_>], now: Timestamp) -> Option<Timestamp> {
    let holding = waiting.iter().filter(|message| !message.may_be_passed_by());
    holding
        .filter(|message| message.backs_off(now))
        .filter_map(|message| message.backs_off_until)
        .max()
}

/// Those that may be asked about now, in order, if all before them are too or may be passed by.
fn ready<'a, 'b>(waiting: &'b [Waiting<'a>], learned: Learned, now: Timestamp) -> Vec<&'b Waiting<'a>> {
    let held = held_until(waiting, now).is_some();
    let (mut is_open, mut one_goes_alone) = (true, false);
    let mut ready = Vec::new();
    for message in waiting {
        let waits = if message.goes_alone() {
            message.backs_off(now)
        } else {
            held
        };
        let goes =
            !message.tried && (learned.answered || !waits) && (message.goes_alone() || !one_goes_alone);
        if is_open && goes {
            ready.push(message);
        }
        if !message.may_be_passed_by() {
            is_open &= goes;
            one_goes_alone |= message.goes_alone();
        }
    }
    ready
}

/// The messages that are handed over next, in order; none = nothing before something changes. `waiting` is all
/// that wait, in order.
#[must_use]
pub(super) fn next_handover<'a>(waiting: &[Waiting<'a>], learned: Learned, now: Timestamp) -> Vec<&'a Turn> {
    if learned.is_enough() {
        return Vec::new();
    }
    let ready = ready(waiting, learned, now);
    let Some(oldest) = ready.first() else {
        return Vec::new();
    };
    let first = if learned.failures == 0 {
        // If there is a reason to ask at all, the oldest goes first, though its time has not come.
        let mut before = waiting
            .iter()
            .take_while(|message| message.turn.id != oldest.turn.id);
        before.find(|message| message.goes_alone() && !message.tried)
    } else {
        // Whoever has failed least, so that each has its turn; of those that are not passed by, the first.
        let mut in_line = ready.iter().filter(|message| !message.may_be_passed_by());
        let alone = ready.iter().filter(|message| message.may_be_passed_by());
        let next = in_line
            .next()
            .or_else(|| alone.min_by_key(|message| message.asked_in_vain));
        next.copied()
    };
    let first = first.unwrap_or(oldest);
    let together = !learned.each_alone && (learned.answered || !first.goes_alone());
    if !together {
        return vec![first.turn];
    }
    ready
        .into_iter()
        .filter(|message| learned.answered || !message.goes_alone())
        .take(MAX_HANDED_OVER)
        .map(|message| message.turn)
        .collect()
}

/// How many bursts' length a message waits for the next one at most: someone who never stops writing is
/// answered as well.
const LONGEST_BURST: u32 = 5;

/// When messages that are `pending` may be handed over: once nothing more came for `burst_window`. `None` =
/// now.
pub(super) fn wait_for_burst(pending: &[Turn], burst_window: Duration, now: Timestamp) -> Option<Timestamp> {
    let first = pending.iter().map(|turn| turn.at).min()?;
    let last = pending.iter().map(|turn| turn.at).max()?;
    let after = |at: Timestamp, wait: Duration| at.saturating_add(wait).unwrap_or(Timestamp::MAX);
    let ready = after(last, burst_window).min(after(first, burst_window * LONGEST_BURST));
    (ready > now).then_some(ready)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::whatsapp::tests::turn;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// Each with its failures, and for how many seconds it backs off.
    fn next(messages: &[(u32, u64)], learned: Learned) -> Vec<usize> {
        next_after(0, messages, learned)
    }

    /// The same when the first `tried` have failed in this run.
    fn next_after(tried: usize, messages: &[(u32, u64)], learned: Learned) -> Vec<usize> {
        let turns: Vec<Turn> = (0..messages.len()).map(|at| turn(&at.to_string())).collect();
        let waiting: Vec<Waiting<'_>> = turns
            .iter()
            .zip(messages)
            .enumerate()
            .map(|(at, (turn, (attempts, seconds)))| Waiting {
                turn,
                asked_in_vain: *attempts,
                backs_off_until: (*attempts > 0).then_some(NOW + Duration::from_secs(*seconds)),
                tried: at < tried,
                has_item: true,
            })
            .collect();
        next_handover(&waiting, learned, NOW)
            .into_iter()
            .map(|turn| turn.content.text.parse().unwrap())
            .collect()
    }

    const NOTHING: Learned = Learned {
        answered: false,
        each_alone: false,
        failures: 0,
    };

    #[test]
    fn messages_go_together_until_they_have_failed_a_few_times() {
        assert_eq!(next(&[], NOTHING), [0_usize; 0]);
        assert_eq!(next(&[(0, 0), (0, 0)], NOTHING), [0, 1]);
        assert_eq!(next(&[(2, 0), (0, 0)], NOTHING), [0, 1]);
        assert_eq!(next(&[(3, 0), (3, 0)], NOTHING), [0]);
        assert_eq!(next(&[(0, 0); 25], NOTHING).len(), MAX_HANDED_OVER);
    }

    #[test]
    fn a_new_message_waits_with_those_that_back_off_together() {
        assert_eq!(next(&[(1, 30), (0, 0)], NOTHING), [0_usize; 0]);
        assert_eq!(next(&[(1, 30), (1, 0)], NOTHING), [0_usize; 0]);
        assert_eq!(next(&[(1, 0), (0, 0)], NOTHING), [0, 1]);
    }

    #[test]
    fn what_has_only_failed_together_is_not_passed_by_while_another_fails_alone() {
        let failed_once = Learned {
            failures: 1,
            ..NOTHING
        };
        let nobody = [0_usize; 0];
        assert_eq!(
            next_after(1, &[(4, 30), (3, 30), (3, 30), (0, 0)], failed_once),
            nobody
        );
        assert_eq!(
            next_after(1, &[(4, 30), (3, 0), (3, 30), (0, 0)], failed_once),
            [1]
        );
        assert_eq!(next(&[(3, 30), (3, 30), (0, 0)], NOTHING), nobody);
        let answered = Learned {
            answered: true,
            ..NOTHING
        };
        assert_eq!(next(&[(3, 30), (3, 30), (0, 0)], answered), [0, 1]);
        assert_eq!(next(&[(4, 30), (4, 30), (0, 0)], failed_once), [2]);
    }

    #[test]
    fn what_goes_alone_holds_up_nobody_and_goes_first_if_anything_goes() {
        assert_eq!(next(&[(5, 30)], NOTHING), [0_usize; 0]);
        assert_eq!(next(&[(5, 30), (0, 0)], NOTHING), [0]);
        let failed_once = Learned {
            failures: 1,
            ..NOTHING
        };
        assert_eq!(next(&[(5, 30), (0, 0), (0, 0)], failed_once), [1, 2]);
        assert_eq!(next(&[(6, 30), (5, 0), (4, 0)], failed_once), [2]);
        let answered = Learned {
            answered: true,
            ..NOTHING
        };
        assert_eq!(next(&[(5, 30), (4, 30), (0, 0)], answered), [0, 1, 2]);
        let each_alone = Learned {
            each_alone: true,
            ..answered
        };
        assert_eq!(next(&[(5, 30), (4, 30), (0, 0)], each_alone), [0]);
    }

    #[test]
    fn what_has_failed_in_this_run_is_not_passed_by_before_it_has_failed_alone() {
        let failed_once = Learned {
            failures: 1,
            ..NOTHING
        };
        let answered = Learned {
            answered: true,
            ..failed_once
        };
        for learned in [failed_once, answered] {
            for attempts in 1..=3 {
                // Whether its time has come by now or not.
                for seconds in [0, 30] {
                    let messages = [(attempts, seconds), (0, 0)];
                    assert_eq!(next_after(1, &messages, learned), [0_usize; 0], "{messages:?}");
                }
            }
            assert_eq!(next_after(1, &[(4, 30), (0, 0)], learned), [1]);
        }
    }

    #[test]
    fn when_each_goes_alone_it_is_still_the_oldest_that_has_not_failed_alone() {
        let learned = Learned {
            answered: true,
            each_alone: true,
            failures: 1,
        };
        assert_eq!(next_after(1, &[(5, 30), (2, 30), (1, 30), (0, 0)], learned), [1]);
        assert_eq!(next_after(1, &[(5, 30), (3, 30), (0, 0)], learned), [1]);
        assert_eq!(next_after(1, &[(5, 30), (6, 0), (3, 0), (0, 0)], learned), [2]);
    }

    proptest! {
        #[test]
        fn nobody_is_passed_by_who_has_not_failed_alone(
            messages in vec((0..7_u32, prop_oneof![Just(0), Just(30)]), 0..8),
            tried in 0..3_usize,
            (answered, each_alone, failures) in (any::<bool>(), any::<bool>(), 0..2_u32),
        ) {
            let learned = Learned { answered, each_alone, failures };
            let next = next_after(tried, &messages, learned);
            let last = next.last().copied().unwrap_or_default();
            for (at, (attempts, _)) in messages.iter().enumerate().take(last) {
                prop_assert!(next.contains(&at) || *attempts > FAILURES_TOGETHER, "{at} by {next:?}");
            }
            prop_assert!(next.is_sorted());
        }

        #[test]
        fn somebody_is_asked_about_where_nobody_backs_off(
            messages in vec((0..7_u32, Just(0)), 1..8),
            answered in any::<bool>(),
        ) {
            let next = next_after(0, &messages, Learned { answered, ..NOTHING });
            prop_assert!(!next.is_empty());
        }
    }

    #[test]
    fn two_failures_are_enough() {
        let mut learned = Learned {
            failures: 2,
            answered: true,
            ..NOTHING
        };
        assert_eq!(next(&[(0, 0)], learned), [0_usize; 0]);
        learned.failures = 0;
        learned.give_in();
        assert!(learned.is_enough());
    }

    #[test]
    fn a_burst_waits_for_its_next_message() {
        let at = |seconds| NOW + Duration::from_secs(seconds);
        let turns = |seconds: &[u64]| -> Vec<Turn> {
            seconds
                .iter()
                .map(|second| Turn {
                    at: at(*second),
                    ..turn("hi")
                })
                .collect()
        };
        let wait = |seconds: &[u64], now| wait_for_burst(&turns(seconds), Duration::from_secs(2), at(now));
        assert_eq!(wait(&[0], 1), Some(at(2)));
        assert_eq!(wait(&[0], 2), None);
        assert_eq!(wait(&[0, 1], 2), Some(at(3)));
        assert_eq!(wait(&[0, 2, 4, 6, 8, 9], 9), Some(at(10)));
        assert_eq!(wait(&[0, 2, 4, 6, 8, 10], 10), None);
        assert_eq!(wait(&[], 0), None);
        assert_eq!(wait_for_burst(&turns(&[0]), Duration::ZERO, at(0)), None);
    }
}
