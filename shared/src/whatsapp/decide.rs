//! An inbound message becomes a plan: what to store, and what is still to leave.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::conversation::{Conversation, Mode, Role, Turn, TurnStatus, closing_after};
use super::duplicate::guards;
use super::message::InboundMessage;
use super::plan::Plan;
use super::reply::{HUMAN_AGENT_ATTRIBUTE, profile_item};
use super::route::{ExternalSystem, RouteTable};
use crate::outbox::{Kind, OutboxItem};
use crate::whatsapp::settings::{ExternalSystemKind, InboundSettings};

/// Plans for `message`, whose id is `message_id` (see [`super::duplicate::message_id`]). Ignored keywords are
/// the caller's to check ([`InboundMessage::is_keyword`]).
#[must_use]
pub fn decide_inbound(
    stored: Option<&Conversation>,
    message: &InboundMessage,
    message_id: &str,
    settings: &InboundSettings,
    routes: &RouteTable,
    now: Timestamp,
) -> Plan {
    let stored = stored.cloned();
    let mut plan = Plan::next(stored.unwrap_or_else(|| Conversation::opened_by(message)));
    let conversation = &mut plan.conversation;
    conversation.person.update(&message.person);
    if let Some(route) = routes.matching(&message.content.text)
        && conversation.route.as_deref() != Some(route)
    {
        conversation.route = Some(route.to_owned());
        // The wait was another system's.
        conversation.ask_not_before = None;
    }

    if conversation.hand_off_is_over(now) {
        conversation.set_mode(Mode::Bot, now);
        plan.outbox.extend(end_hand_off(conversation));
    }

    // Messages may be taken up in another order than they came in; times only move forward.
    conversation.last_inbound_at = conversation.last_inbound_at.max(message.received_at);
    conversation.last_activity_at = conversation.last_activity_at.max(message.received_at);
    conversation.window_closes_at = conversation
        .window_closes_at
        .max(closing_after(message.received_at));

    plan.turns.push(Turn {
        id: message_id.to_owned(),
        at: message.received_at,
        sequence: conversation.number_turn(),
        role: Role::User,
        content: message.content.clone(),
        status: Some(TurnStatus::Pending),
    });
    plan.outbox.push(OutboxItem {
        subject: conversation.id.as_str().to_owned(),
        event_key: format!("message#{message_id}"),
        kind: Kind::RelayMessage,
        // Whoever takes it up hands over all that is pending, so it need not say what.
        payload: Value::Object(Map::new()),
        not_before: (!settings.burst_window.is_zero()).then(|| {
            now.saturating_add(settings.burst_window)
                .unwrap_or(Timestamp::MAX)
        }),
    });
    plan.guards = guards(message);
    plan
}

/// Takes `whatsapp_human_agent` back, if it was ever set.
fn end_hand_off(conversation: &mut Conversation) -> Option<OutboxItem> {
    if !conversation.human_agent_told {
        return None;
    }
    conversation.human_agent_told = false;
    Some(profile_item(
        conversation,
        Map::from_iter([(HUMAN_AGENT_ATTRIBUTE.to_owned(), false.into())]),
    ))
}

/// How many bursts' length a message waits for the next one at most: someone who never stops writing is
/// answered as well.
const LONGEST_BURST: u32 = 5;

/// When messages that are `pending` may be handed over: once nothing more came for `burst_window`. `None` =
/// now.
#[must_use]
pub fn wait_for_burst(pending: &[Turn], burst_window: Duration, now: Timestamp) -> Option<Timestamp> {
    let first = pending.iter().map(|turn| turn.at).min()?;
    let last = pending.iter().map(|turn| turn.at).max()?;
    let after = |at: Timestamp, wait: Duration| at.saturating_add(wait).unwrap_or(Timestamp::MAX);
    let ready = after(last, burst_window).min(after(first, burst_window * LONGEST_BURST));
    (ready > now).then_some(ready)
}

/// Whether the external system is to be asked. A chatbot without a server of its own stays silent while a
/// human has the conversation; a webhook is told the mode and decides for itself.
#[must_use]
pub fn is_asked(conversation: &Conversation, system: ExternalSystem<'_>) -> bool {
    conversation.mode == Mode::Bot || system.kind == ExternalSystemKind::Webhook
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::tests::{conversation, inbound_settings, message};

    fn decide(stored: Option<&Conversation>, message: &InboundMessage, pairs: &[(&str, &str)]) -> Plan {
        let settings = inbound_settings(pairs);
        let routes = RouteTable::new(&settings.routes);
        decide_inbound(stored, message, "m1", &settings, &routes, message.received_at)
    }

    #[test]
    fn the_first_message_opens_a_conversation() {
        let plan = decide(None, &message("hi"), &[]);
        assert_eq!(plan.conversation.version, 1);
        assert_eq!(plan.turns[0].status, Some(TurnStatus::Pending));
        let item = &plan.outbox[0];
        assert_eq!(
            (item.subject.as_str(), item.event_key.as_str()),
            ("user:42", "message#m1")
        );
        assert_eq!(
            (item.kind, item.not_before, plan.outbox.len()),
            (Kind::RelayMessage, None, 1)
        );
    }

    #[test]
    fn a_burst_waits_for_its_next_message() {
        let message = message("hi");
        let plan = decide(None, &message, &[("BURST_WINDOW_SECONDS", "2")]);
        assert_eq!(
            plan.outbox[0].not_before,
            Some(message.received_at + Duration::from_secs(2))
        );
        let at = |seconds| message.received_at + Duration::from_secs(seconds);
        let turns = |seconds: &[u64]| -> Vec<Turn> {
            seconds
                .iter()
                .map(|second| Turn {
                    at: at(*second),
                    ..plan.turns[0].clone()
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

    #[test]
    fn a_route_holds_until_another_matches() {
        let routes = r#"[{"name":"a","keywords":["AA"]},{"name":"b","keywords":["BB"]}]"#;
        let pairs = [("RELAY_ROUTES", routes)];
        let route = |stored: Option<&Conversation>, text| decide(stored, &message(text), &pairs).conversation;
        let first = route(None, "hello");
        assert_eq!(first.route, None);
        let second = route(Some(&first), "aa");
        assert_eq!(second.route.as_deref(), Some("a"));
        let third = route(Some(&second), "where is it?");
        assert_eq!(third.route.as_deref(), Some("a"));
        assert_eq!(route(Some(&third), "bb").route.as_deref(), Some("b"));
    }

    #[test]
    fn silence_ends_a_hand_off_and_braze_is_told() {
        let mut stored = conversation();
        stored.set_mode(Mode::Human, stored.last_activity_at);
        stored.human_agent_told = true;
        let mut soon = message("hi");
        soon.received_at = stored.last_activity_at + Duration::from_hours(23);
        let plan = decide(Some(&stored), &soon, &[]);
        assert_eq!((plan.conversation.mode, plan.outbox.len()), (Mode::Human, 1));
        let mut late = message("hi");
        late.received_at = stored.last_activity_at + Duration::from_hours(24);
        let plan = decide(Some(&stored), &late, &[]);
        assert_eq!(
            (plan.conversation.mode, plan.conversation.human_agent_told),
            (Mode::Bot, false)
        );
        let keys: Vec<_> = plan.outbox.iter().map(|item| item.event_key.as_str()).collect();
        assert_eq!(keys, ["reply#0000000001", "message#m1"]);
        assert_eq!(
            plan.outbox[0].payload["attributes"]["whatsapp_human_agent"],
            false
        );
    }

    #[test]
    fn a_late_message_moves_no_time_back() {
        let stored = conversation();
        let mut late = message("hi");
        late.received_at = stored.last_inbound_at - Duration::from_mins(5);
        let plan = decide(Some(&stored), &late, &[]);
        assert_eq!(plan.conversation.window_closes_at, stored.window_closes_at);
        assert_eq!(plan.conversation.last_inbound_at, stored.last_inbound_at);
    }

    #[test]
    fn a_chatbot_is_silent_while_a_human_answers() {
        let mut conversation = conversation();
        let system = |kind| ExternalSystem {
            url: "https://ai",
            kind,
        };
        assert!(is_asked(&conversation, system(ExternalSystemKind::Openai)));
        conversation.set_mode(Mode::Human, conversation.last_activity_at);
        assert!(!is_asked(&conversation, system(ExternalSystemKind::Openai)));
        assert!(is_asked(&conversation, system(ExternalSystemKind::Webhook)));
    }
}
