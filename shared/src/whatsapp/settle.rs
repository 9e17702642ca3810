//! An answer becomes a plan: what is stored of it, and what is still to be sent.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::answer::Answer;
use super::conversation::{Conversation, Mode, Role, Turn};
use super::message::Content;
use super::plan::Plan;
use super::reply::{HUMAN_AGENT_ATTRIBUTE, ReplyPayload, can_be_sent, event_key, profile_item};
use super::route::ReplyRules;
use super::split::{TEXT_LIMIT, split};
use crate::outbox::OutboxItem;
use crate::whatsapp::settings::{ExternalSystemKind, RelaySettings};

/// How many messages are handed over at once, the oldest first. With the replies to them they have to fit
/// into one transaction.
pub const MAX_HANDED_OVER: usize = 20;

/// After this many failures in a row the person gets the fallback text.
pub const FAILURES_BEFORE_FALLBACK: u32 = 3;

/// Plans for `answer`, to the turns `handed_over` (none if it came through `/whatsapp/reply`).
#[must_use]
pub fn decide_answer(
    stored: &Conversation,
    handed_over: &[Turn],
    answer: &Answer,
    rules: ReplyRules<'_>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::next(stored.clone());
    plan.handed_over = handed_over.iter().map(Turn::sort_key).collect();
    let conversation = &mut plan.conversation;
    // What somebody posts unasked says nothing about the messages that fail.
    conversation.fallback_sent &= handed_over.is_empty();
    if let Some(handoff) = answer.handoff {
        conversation.set_mode(if handoff { Mode::Human } else { Mode::Bot }, now);
    }

    let mut attributes = Map::new();
    if !answer.replies.is_empty() {
        conversation.last_activity_at = conversation.last_activity_at.max(now);
        let of_route = rules.attributes(conversation.route.as_deref());
        attributes.extend(
            of_route
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }
    attributes.extend(answer.attributes.clone());
    let by_human = conversation.mode == Mode::Human;
    if by_human != conversation.human_agent_told {
        conversation.human_agent_told = by_human;
        attributes.insert(HUMAN_AGENT_ATTRIBUTE.to_owned(), by_human.into());
    }

    for reply in &answer.replies {
        plan.turns.push(assistant_turn(conversation, &reply.text, now));
        let campaign = reply.campaign.as_deref();
        plan.outbox
            .extend(sends(conversation, &reply.text, campaign, &mut attributes));
    }
    if !attributes.is_empty() {
        plan.outbox.push(profile_item(conversation, attributes));
    }
    plan
}

/// An answer as it counts once it is there, if it was asked for in mode `asked_in`. A human may have taken the
/// conversation over meanwhile: then it does not give it back to the bot, and a chatbot without a server of its
/// own, which cannot know, is not heard.
#[must_use]
pub fn in_time(answer: &Answer, asked_in: Mode, kind: ExternalSystemKind, stored: &Conversation) -> Answer {
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
pub struct Failure {
    /// How often the messages have failed, with this time.
    pub failures: u32,
    /// They are given up.
    pub given_up: bool,
    /// Until when the external system wants to be left alone.
    pub ask_not_before: Option<Timestamp>,
}

/// Plans what follows from `failure`: the fallback text, once messages have failed for the third time or are
/// given up, and the wait that the external system asks for. What is not given up stays pending and is tried
/// further: the answer still comes. `None` = there is nothing to store.
#[must_use]
pub fn decide_failure(
    stored: &Conversation,
    failure: Failure,
    settings: &RelaySettings,
    now: Timestamp,
) -> Option<Plan> {
    let mut plan = Plan::next(stored.clone());
    plan.conversation.ask_not_before = failure.ask_not_before.or(stored.ask_not_before);
    let sayable = can_be_sent(stored, None, ReplyRules::from(settings), now);
    // At the third failure and not later: messages answered meanwhile must not have it said again and again.
    let is_time = failure.given_up || failure.failures == FAILURES_BEFORE_FALLBACK;
    let text = settings
        .fallback_text
        .as_deref()
        .filter(|_| is_time && sayable && !stored.fallback_sent);
    if let Some(text) = text {
        plan.conversation.fallback_sent = true;
        // No turn: what we say for want of an answer is nothing that a chatbot should believe it said.
        plan.outbox = sends(&mut plan.conversation, text, None, &mut Map::new());
    }
    let changed = text.is_some() || plan.conversation.ask_not_before != stored.ask_not_before;
    changed.then_some(plan)
}

/// The first reply that cannot be sent at `now`, because the window is closed and no template is there.
#[must_use]
pub fn unsendable(
    conversation: &Conversation,
    answer: &Answer,
    rules: ReplyRules<'_>,
    now: Timestamp,
) -> Option<usize> {
    let sendable = |campaign: Option<&str>| can_be_sent(conversation, campaign, rules, now);
    answer
        .replies
        .iter()
        .position(|reply| !sendable(reply.campaign.as_deref()))
}

/// The sends of one text. The first takes the attributes along: they need to be written once, and Braze
/// bills every attribute.
fn sends(
    conversation: &mut Conversation,
    text: &str,
    campaign: Option<&str>,
    attributes: &mut Map<String, Value>,
) -> Vec<OutboxItem> {
    let mut send = |piece: String| {
        let payload = ReplyPayload {
            text: Some(piece),
            campaign: campaign.map(str::to_owned),
            route: conversation.route.clone(),
            attributes: std::mem::take(attributes),
        };
        let key = event_key(conversation.number_send());
        payload.item(conversation, key)
    };
    split(text, TEXT_LIMIT).into_iter().map(&mut send).collect()
}

fn assistant_turn(conversation: &mut Conversation, text: &str, now: Timestamp) -> Turn {
    let sequence = conversation.number_turn();
    Turn {
        id: format!("reply-{sequence}"),
        at: now,
        sequence,
        role: Role::Assistant,
        content: Content {
            text: text.to_owned(),
            ..Content::default()
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::whatsapp::answer::AnswerReply;
    use crate::whatsapp::tests::{conversation, relay_settings, turn};

    const NO_RULES: ReplyRules<'static> = ReplyRules {
        routes: &[],
        template_campaign_id: None,
    };

    fn decide(stored: &Conversation, answer: &Answer) -> Plan {
        decide_answer(
            stored,
            &[],
            answer,
            NO_RULES,
            stored.last_inbound_at + Duration::from_secs(3),
        )
    }

    fn payloads(plan: &Plan) -> Vec<ReplyPayload> {
        plan.outbox
            .iter()
            .map(|item| serde_json::from_value(item.payload.clone()).unwrap())
            .collect()
    }

    fn hand_off(handoff: bool) -> Answer {
        Answer {
            handoff: Some(handoff),
            ..Answer::of("ok")
        }
    }

    #[test]
    fn replies_keep_their_order_over_several_answers() {
        let stored = conversation();
        let messages = [turn("a"), turn("b")];
        let reply = |text: &str| AnswerReply {
            text: text.to_owned(),
            campaign: None,
        };
        let answer = Answer {
            replies: vec![reply("one"), reply("two")],
            ..Answer::default()
        };
        let now = stored.last_inbound_at + Duration::from_secs(3);
        let first = decide_answer(&stored, &messages, &answer, NO_RULES, now);
        assert_eq!(stored.version + 1, first.conversation.version);
        assert_eq!(first.handed_over, messages.each_ref().map(Turn::sort_key));
        let second = decide(&first.conversation, &Answer::of("three"));
        let items: Vec<_> = first.outbox.iter().chain(&second.outbox).collect();
        assert!(items.is_sorted_by_key(|item| &item.event_key));
        let texts: Vec<_> = payloads(&first)
            .into_iter()
            .chain(payloads(&second))
            .filter_map(|reply| reply.text)
            .collect();
        assert_eq!(texts, ["one", "two", "three"]);
        let turns: Vec<_> = first
            .turns
            .iter()
            .chain(&second.turns)
            .map(|turn| turn.id.as_str())
            .collect();
        assert_eq!(turns, ["reply-1", "reply-2", "reply-3"]);
    }

    #[test]
    fn a_long_reply_is_one_turn_and_several_sends() {
        let plan = decide(&conversation(), &Answer::of("A sentence of words. ".repeat(500)));
        assert_eq!((plan.turns.len(), plan.outbox.len()), (1, 3));
        assert!(
            payloads(&plan)
                .iter()
                .all(|reply| reply.text.as_ref().unwrap().ends_with("words."))
        );
    }

    #[test]
    fn the_largest_answer_fits_into_a_transaction() {
        let text = format!("{}\n\n{}", "x".repeat(2_100), "y".repeat(1_000));
        let reply = AnswerReply { text, campaign: None };
        let answer = Answer {
            replies: vec![reply; 20],
            ..Answer::default()
        };
        let plan = decide(&conversation(), &answer);
        assert!(plan.turns.len() + plan.outbox.len() + MAX_HANDED_OVER + 3 <= 100);
        let unbroken = Answer::of(format!("{}\n", "z".repeat(2_060)).repeat(31));
        let plan = decide(&conversation(), &unbroken);
        assert!(
            plan.outbox.len() + 19 + 20 + MAX_HANDED_OVER + 3 <= 100,
            "{}",
            plan.outbox.len()
        );
    }

    #[test]
    fn attributes_are_written_once() {
        let routes = r#"[{"name":"orders","attributes":{"topic":"orders","seen":true}}]"#;
        let settings = relay_settings(&[("RELAY_ROUTES", routes)]);
        let mut stored = conversation();
        stored.route = Some("orders".to_owned());
        let mut answer = Answer::of("one");
        answer.replies.push(AnswerReply {
            text: "two".to_owned(),
            campaign: Some("step-2".to_owned()),
        });
        answer.attributes.insert("topic".to_owned(), "refunds".into());
        let plan = decide_answer(
            &stored,
            &[],
            &answer,
            ReplyRules::from(&settings),
            stored.last_inbound_at,
        );
        let replies = payloads(&plan);
        assert_eq!(
            Value::from(replies[0].attributes.clone()).to_string(),
            r#"{"seen":true,"topic":"refunds"}"#
        );
        assert!(replies[1].attributes.is_empty());
        assert_eq!(replies[1].campaign.as_deref(), Some("step-2"));
        assert_eq!(replies[1].route.as_deref(), Some("orders"));
    }

    #[test]
    fn a_hand_off_is_told_to_braze_when_it_changes() {
        let told = |plan: &Plan| payloads(plan)[0].attributes.get(HUMAN_AGENT_ATTRIBUTE).cloned();
        let first = decide(&conversation(), &hand_off(true));
        assert_eq!(
            (first.conversation.mode, told(&first)),
            (Mode::Human, Some(true.into()))
        );
        let again = decide(&first.conversation, &hand_off(true));
        assert_eq!((again.conversation.mode, told(&again)), (Mode::Human, None));
        assert_eq!(again.conversation.mode_since, first.conversation.mode_since);
        let unsaid = decide(&again.conversation, &Answer::of("hi"));
        assert_eq!((unsaid.conversation.mode, told(&unsaid)), (Mode::Human, None));
        let back = decide(&unsaid.conversation, &hand_off(false));
        assert_eq!(
            (back.conversation.mode, told(&back)),
            (Mode::Bot, Some(false.into()))
        );
    }

    #[test]
    fn a_hand_off_without_a_word_is_told_as_well() {
        let answer = Answer {
            handoff: Some(true),
            ..Answer::default()
        };
        let plan = decide(&conversation(), &answer);
        assert!(plan.turns.is_empty());
        let replies = payloads(&plan);
        assert_eq!((replies.len(), replies[0].text.is_none()), (1, true));
        assert_eq!(replies[0].attributes[HUMAN_AGENT_ATTRIBUTE], true);
        assert!(decide(&conversation(), &Answer::default()).outbox.is_empty());
    }

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
        assert_eq!(payloads(&plan)[0].text.as_deref(), Some("One moment, please."));
        assert!(plan.turns.is_empty() && plan.handed_over.is_empty());
        assert_eq!(failed(&plan.conversation, 3), None);
        let unasked = decide(&plan.conversation, &Answer::of("Our shop opens at nine."));
        assert_eq!(failed(&unasked.conversation, 3), None);
        let answer = Answer::of("Here I am.");
        let answered = decide_answer(&unasked.conversation, &[turn("a")], &answer, NO_RULES, now);
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
        let answer = hand_off(false);
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
    fn what_cannot_be_sent_is_known_before() {
        let stored = conversation();
        let (open, closed) = (stored.last_inbound_at, stored.window_closes_at);
        let answer = Answer::of("hi");
        assert_eq!(unsendable(&stored, &answer, NO_RULES, open), None);
        assert_eq!(unsendable(&stored, &answer, NO_RULES, closed), Some(0));
        let with_template = ReplyRules {
            routes: &[],
            template_campaign_id: Some("t"),
        };
        assert_eq!(unsendable(&stored, &answer, with_template, closed), None);
        let silent = Answer {
            handoff: Some(false),
            ..Answer::default()
        };
        assert_eq!(unsendable(&stored, &silent, NO_RULES, closed), None);
    }
}
