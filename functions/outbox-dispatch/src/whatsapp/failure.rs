//! What follows when the external system fails, or answers when a human has taken over.

use jiff::Timestamp;
use serde_json::Map;

use shared::whatsapp::answer::{Answer, AnswerReply};
use shared::whatsapp::conversation::{Conversation, Mode};
use shared::whatsapp::decide::answer::{disclosure, sends};
use shared::whatsapp::plan::Plan;
use shared::whatsapp::reply::can_be_sent;
use shared::whatsapp::settings::{ExternalSystemKind, RelaySettings};

/// After this many failures in a row the person gets the fallback text.
const FAILURES_BEFORE_FALLBACK: u32 = 3;

/// An answer as it counts once it is there, if it was asked for in mode `asked_in`. A human may have taken the
/// conversation over meanwhile: then it does not give it back to the bot, and a chatbot without a server of its
/// own, which cannot know, is not heard.
pub(super) fn in_time(
    answer: &Answer,
    asked_in: Mode,
    kind: ExternalSystemKind,
    stored: &Conversation,
) -> Answer {
    if asked_in == Mode::Human || stored.mode == Mode::Bot {
        return answer.clone();
    }
    match kind {
        ExternalSystemKind::Openai => Answer::default(),
        ExternalSystemKind::Webhook => Answer {
            handoff: answer.handoff.filter(|handoff| *handoff),
            ..answer.clone()
        },
    }
}

/// A failure to hand messages over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    /// How often the messages have failed, with this time.
    pub(super) failures: u32,
    /// They are given up.
    pub(super) given_up: bool,
    /// Until when the external system wants to be left alone.
    pub(super) ask_not_before: Option<Timestamp>,
}

/// Plans what follows from `failure`: the fallback text, once messages have failed for the third time or are
/// given up, and the wait that the external system asks for. What is not given up stays pending and is tried
/// further: the answer still comes. `None` = there is nothing to store.
pub(super) fn decide_failure(
    stored: &Conversation,
    failure: Failure,
    settings: &RelaySettings,
    now: Timestamp,
) -> Option<Plan> {
    let mut plan = Plan::next(stored.clone());
    plan.conversation.ask_not_before = failure.ask_not_before.or(stored.ask_not_before);
    let sayable = can_be_sent(stored, None, &settings.rules, now);
    // At the third failure and not later: messages answered meanwhile must not have it said again and again.
    let is_time = failure.given_up || failure.failures == FAILURES_BEFORE_FALLBACK;
    let text = settings
        .fallback_text
        .as_deref()
        .filter(|_| is_time && sayable && !stored.fallback_sent);
    if let Some(text) = text {
        plan.conversation.fallback_sent = true;
        let mut attributes = Map::new();
        if stored.mode == Mode::Bot {
            plan.outbox = disclosure(&mut plan.conversation, &settings.rules, &mut attributes, now);
        }
        // No turn: what we say for want of an answer is nothing that a chatbot should believe it said.
        let reply = AnswerReply {
            text: Some(text.to_owned()),
            ..AnswerReply::default()
        };
        plan.outbox
            .extend(sends(&mut plan.conversation, &reply, &mut attributes));
    }
    let changed = text.is_some() || plan.conversation.ask_not_before != stored.ask_not_before;
    changed.then_some(plan)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::whatsapp::decide::answer::decide_answer;

    use super::*;
    use crate::whatsapp::tests::{conversation, relay_settings, turn};

    #[test]
    fn the_fallback_is_said_once_until_there_is_an_answer() {
        let settings = relay_settings(&[("FALLBACK_TEXT", "One moment, please.")]);
        let stored = conversation();
        let now = stored.last_inbound_at;
        let failure = |failures| Failure {
            failures,
            given_up: false,
            ask_not_before: None,
        };
        let failed =
            |stored: &Conversation, failures| decide_failure(stored, failure(failures), &settings, now);
        assert_eq!((failed(&stored, 2), failed(&stored, 4)), (None, None));
        assert_eq!(
            decide_failure(&stored, failure(3), &relay_settings(&[]), now),
            None
        );
        let plan = failed(&stored, 3).unwrap();
        assert_eq!(plan.outbox[0].payload["text"], "One moment, please.");
        assert!(plan.turns.is_empty() && plan.handed_over.is_empty());
        assert_eq!(failed(&plan.conversation, 3), None);
        let rules = &settings.rules;
        let unasked = decide_answer(
            &plan.conversation,
            &[],
            &Answer::of("Our shop opens at nine."),
            rules,
            now,
        );
        assert_eq!(failed(&unasked.conversation, 3), None);
        let answer = Answer::of("Here I am.");
        let answered = decide_answer(&unasked.conversation, &[turn("a")], &answer, rules, now);
        assert!(failed(&answered.conversation, 3).is_some());
        let given_up = Failure {
            given_up: true,
            ..failure(1)
        };
        assert!(decide_failure(&stored, given_up, &settings, now).is_some());
        assert_eq!(
            decide_failure(&stored, failure(3), &settings, stored.window_closes_at),
            None
        );
    }

    #[test]
    fn the_wait_that_the_external_system_asks_for_is_kept() {
        let stored = conversation();
        let now = stored.last_inbound_at;
        let failure = Failure {
            failures: 1,
            given_up: false,
            ask_not_before: Some(now + Duration::from_mins(10)),
        };
        let plan = decide_failure(&stored, failure, &relay_settings(&[]), now).unwrap();
        assert_eq!(plan.conversation.ask_not_before, failure.ask_not_before);
        assert_eq!((plan.outbox.len(), plan.turns.len()), (0, 0));
    }

    #[test]
    fn an_answer_that_comes_after_a_human_took_over_leaves_the_conversation_to_them() {
        let mut stored = conversation();
        let answer = Answer {
            handoff: Some(false),
            ..Answer::of("ok")
        };
        let counts = |stored: &Conversation, kind| in_time(&answer, Mode::Bot, kind, stored);
        assert_eq!(counts(&stored, ExternalSystemKind::Openai), answer);
        stored.set_mode(Mode::Human, stored.last_activity_at);
        assert_eq!(counts(&stored, ExternalSystemKind::Openai), Answer::default());
        assert_eq!(counts(&stored, ExternalSystemKind::Webhook), Answer::of("ok"));
        // Whoever was told that a human has it may give it back.
        let told = in_time(&answer, Mode::Human, ExternalSystemKind::Webhook, &stored);
        assert_eq!(told, answer);
    }

    #[test]
    fn a_fallback_that_is_the_first_word_is_disclosed() {
        let settings = relay_settings(&[
            ("FALLBACK_TEXT", "One moment."),
            ("DISCLOSURE_TEXT", "A machine answers."),
        ]);
        let failure = Failure {
            failures: 3,
            given_up: false,
            ask_not_before: None,
        };
        let stored = conversation();
        let plan = decide_failure(&stored, failure, &settings, stored.last_inbound_at).unwrap();
        let texts: Vec<_> = plan
            .outbox
            .iter()
            .map(|item| item.payload["text"].clone())
            .collect();
        assert_eq!(texts, ["A machine answers.", "One moment."]);
        assert!(plan.conversation.disclosed);
    }
}
