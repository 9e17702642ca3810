//! An answer becomes a plan: what is stored of it, and what is still to be sent.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::outbox::OutboxItem;
use crate::whatsapp::answer::{Answer, AnswerReply};
use crate::whatsapp::attributes::HUMAN_AGENT_ATTRIBUTE;
use crate::whatsapp::conversation::{Conversation, Mode, Role, Turn};
use crate::whatsapp::message::Content;
use crate::whatsapp::plan::Plan;
use crate::whatsapp::reply::{ReplyPayload, can_be_sent, event_key, profile_item};
use crate::whatsapp::settings::Rules;
use crate::whatsapp::split::{TEXT_LIMIT, split};

/// How many messages are handed over at once, the oldest first. With the replies to them they have to fit
/// into one transaction.
pub const MAX_HANDED_OVER: usize = 20;

/// Plans for `answer`, to the turns `handed_over` (none if it came through `/whatsapp/reply`).
#[must_use]
pub fn decide_answer(
    stored: &Conversation,
    handed_over: &[Turn],
    answer: &Answer,
    rules: &Rules,
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

    if !answer.replies.is_empty() {
        conversation.answers += 1;
    }
    if stored.mode == Mode::Bot && !answer.replies.is_empty() {
        plan.outbox
            .extend(disclosure(conversation, rules, &mut attributes, now));
    }
    for reply in &answer.replies {
        // What a campaign says by itself is not known here.
        if let Some(text) = &reply.text {
            plan.turns.push(assistant_turn(conversation, text, now));
        }
        plan.outbox.extend(sends(conversation, reply, &mut attributes));
    }
    if !attributes.is_empty() {
        plan.outbox.push(profile_item(conversation, attributes));
    }
    plan
}

/// `DISCLOSURE_TEXT`, if the person is still to be told that a machine answers: before its first words, after a month
/// of silence, and when a human has handed back. It is no turn, since a model should not take it for its own words.
pub fn disclosure(
    conversation: &mut Conversation,
    rules: &Rules,
    attributes: &mut Map<String, Value>,
    now: Timestamp,
) -> Vec<OutboxItem> {
    let is_due = !conversation.disclosed && can_be_sent(conversation, None, rules, now);
    let Some(text) = rules.disclosure_text.as_ref().filter(|_| is_due) else {
        return Vec::new();
    };
    conversation.disclosed = true;
    let reply = AnswerReply {
        text: Some(text.clone()),
        ..AnswerReply::default()
    };
    sends(conversation, &reply, attributes)
}

/// The first reply that cannot be sent at `now`, because the window is closed and no template is there.
#[must_use]
pub fn unsendable(
    conversation: &Conversation,
    answer: &Answer,
    rules: &Rules,
    now: Timestamp,
) -> Option<usize> {
    let sendable = |reply: &AnswerReply| {
        reply.canvas.is_some() || can_be_sent(conversation, reply.campaign.as_deref(), rules, now)
    };
    answer.replies.iter().position(|reply| !sendable(reply))
}

/// The sends of one reply: one for each piece of its text. The first takes the attributes along: they need to be
/// written once, and Braze bills every attribute.
pub fn sends(
    conversation: &mut Conversation,
    reply: &AnswerReply,
    attributes: &mut Map<String, Value>,
) -> Vec<OutboxItem> {
    let pieces = match &reply.text {
        Some(text) => split(text, TEXT_LIMIT).into_iter().map(Some).collect(),
        None => vec![None],
    };
    let mut send = |text: Option<String>| {
        let payload = ReplyPayload {
            text,
            campaign: reply.campaign.clone(),
            canvas: reply.canvas.clone(),
            properties: reply.properties.clone(),
            route: conversation.route.clone(),
            attributes: std::mem::take(attributes),
        };
        let key = event_key(conversation.number_send());
        payload.item(conversation, key)
    };
    pieces.into_iter().map(&mut send).collect()
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
        news: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::whatsapp::answer::AnswerReply;
    use crate::whatsapp::tests::{conversation, relay_settings, turn};

    fn rules(pairs: &[(&str, &str)]) -> Rules {
        relay_settings(pairs).rules
    }

    fn decide(stored: &Conversation, answer: &Answer) -> Plan {
        decide_answer(
            stored,
            &[],
            answer,
            &rules(&[]),
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
        let reply = |text: &str| Answer::of(text).replies.remove(0);
        let answer = Answer {
            replies: vec![reply("one"), reply("two")],
            ..Answer::default()
        };
        let now = stored.last_inbound_at + Duration::from_secs(3);
        let first = decide_answer(&stored, &messages, &answer, &rules(&[]), now);
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
        let answer = Answer {
            replies: vec![Answer::of(text).replies.remove(0); 20],
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
            text: Some("two".to_owned()),
            campaign: Some("step-2".to_owned()),
            ..AnswerReply::default()
        });
        answer.attributes.insert("topic".to_owned(), "refunds".into());
        let plan = decide_answer(&stored, &[], &answer, &settings.rules, stored.last_inbound_at);
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
    fn what_cannot_be_sent_is_known_before() {
        let stored = conversation();
        let (open, closed) = (stored.last_inbound_at, stored.window_closes_at);
        let answer = Answer::of("hi");
        assert_eq!(unsendable(&stored, &answer, &rules(&[]), open), None);
        assert_eq!(unsendable(&stored, &answer, &rules(&[]), closed), Some(0));
        let with_template = rules(&[("TEMPLATE_CAMPAIGN_ID", "t")]);
        assert_eq!(unsendable(&stored, &answer, &with_template, closed), None);
        // What is named is sent as it is named, whatever the window.
        for named in [
            AnswerReply {
                campaign: Some("c".to_owned()),
                ..answer.replies[0].clone()
            },
            AnswerReply {
                canvas: Some("v".to_owned()),
                ..answer.replies[0].clone()
            },
        ] {
            let answer = Answer {
                replies: vec![named],
                ..Answer::default()
            };
            assert_eq!(unsendable(&stored, &answer, &rules(&[]), closed), None);
        }
        let silent = Answer {
            handoff: Some(false),
            ..Answer::default()
        };
        assert_eq!(unsendable(&stored, &silent, &rules(&[]), closed), None);
    }

    #[test]
    fn what_a_campaign_says_by_itself_is_one_send_and_no_turn() {
        let button = AnswerReply {
            campaign: Some("menu".to_owned()),
            properties: Map::from_iter([("rows".to_owned(), 3.into())]),
            ..AnswerReply::default()
        };
        let canvas = AnswerReply {
            canvas: Some("v".to_owned()),
            ..AnswerReply::default()
        };
        let answer = Answer {
            replies: vec![button, canvas],
            ..Answer::default()
        };
        let plan = decide(&conversation(), &answer);
        assert!(plan.turns.is_empty());
        assert_eq!(plan.conversation.answers, 1);
        let sent = payloads(&plan);
        assert_eq!(
            (sent[0].campaign.as_deref(), &sent[0].properties["rows"]),
            (Some("menu"), &3.into())
        );
        assert_eq!((sent[1].canvas.as_deref(), sent.len()), (Some("v"), 2));
    }

    fn disclosing() -> Rules {
        rules(&[("DISCLOSURE_TEXT", "You are talking to a machine.")])
    }

    fn told(stored: &Conversation, answer: &Answer) -> (Conversation, Vec<String>) {
        let plan = decide_answer(stored, &[], answer, &disclosing(), stored.last_activity_at);
        let texts = payloads(&plan)
            .into_iter()
            .filter_map(|reply| reply.text)
            .collect();
        (plan.conversation, texts)
    }

    #[test]
    fn the_disclosure_comes_once_before_the_first_words() {
        let (conversation, texts) = told(&conversation(), &Answer::default());
        assert!(texts.is_empty() && !conversation.disclosed);
        let (conversation, texts) = told(&conversation, &Answer::of("Hi!"));
        assert_eq!(texts, ["You are talking to a machine.", "Hi!"]);
        assert_eq!(conversation.turns, 1);
        let (_, texts) = told(&conversation, &Answer::of("Anything else?"));
        assert_eq!(texts, ["Anything else?"]);
    }

    #[test]
    fn the_disclosure_comes_again_when_a_human_hands_back() {
        let (bot, _) = told(&conversation(), &Answer::of("Hi!"));
        let (human, texts) = told(&bot, &hand_off(true));
        assert_eq!(texts, ["ok"]);
        let (human, texts) = told(&human, &Answer::of("Ana here."));
        assert_eq!(texts, ["Ana here."]);
        // These are still the human's words.
        let (bot, texts) = told(&human, &hand_off(false));
        assert_eq!(texts, ["ok"]);
        assert_eq!(
            told(&bot, &Answer::of("Hi!")).1,
            ["You are talking to a machine.", "Hi!"]
        );
    }

    #[test]
    fn a_disclosure_that_cannot_be_sent_waits() {
        let stored = conversation();
        let mut answer = Answer::of("Hi!");
        answer.replies[0].campaign = Some("approved".to_owned());
        let plan = decide_answer(&stored, &[], &answer, &disclosing(), stored.window_closes_at);
        assert_eq!((plan.outbox.len(), plan.conversation.disclosed), (1, false));
    }
}
