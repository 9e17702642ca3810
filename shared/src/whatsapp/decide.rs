//! An inbound message becomes a plan: what to store, and what is still to leave. So does an [`answer`].

pub mod answer;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::attributes::HUMAN_AGENT_ATTRIBUTE;
use super::conversation::{Conversation, Mode, News, Role, Turn, TurnStatus};
use super::duplicate::guards;
use super::message::InboundMessage;
use super::plan::Plan;
use super::reply::profile_item;
use super::route::RouteTable;
use crate::outbox::{Kind, OutboxItem};
use crate::whatsapp::settings::InboundSettings;

/// Plans for `message`, whose id is `message_id` (see [`super::duplicate::message_id`]). Ignored keywords are
/// the caller's to check ([`InboundMessage::is_keyword`]), and planned for by [`decide_keyword`].
#[must_use]
pub fn decide_inbound(
    stored: Option<&Conversation>,
    message: &InboundMessage,
    message_id: &str,
    settings: &InboundSettings,
    routes: &RouteTable,
    now: Timestamp,
) -> Plan {
    let mut plan = heard(stored, message, now);
    let conversation = &mut plan.conversation;
    let route = routes.matching(&message.content.text);
    if let Some(route) = route {
        conversation.take_route(route, message.received_at);
    }
    plan.turns.push(Turn {
        id: message_id.to_owned(),
        at: message.received_at,
        sequence: conversation.number_turn(),
        role: Role::User,
        content: message.content.clone(),
        status: Some(TurnStatus::Pending),
        news: None,
    });
    plan.outbox.push(OutboxItem {
        subject: conversation.id.as_str().to_owned(),
        event_key: format!("message#{message_id}"),
        kind: Kind::RelayMessage,
        // Whoever takes it up hands over all that is pending, so it need not say what.
        payload: Value::Object(Map::new()),
        not_before: (!settings.rules.burst_window.is_zero()).then(|| {
            now.saturating_add(settings.rules.burst_window)
                .unwrap_or(Timestamp::MAX)
        }),
    });
    plan.guards = guards(message, conversation.answers);
    plan
}

/// A plan of [`decide_inbound`] that can be committed without its conversation: what the message says of it goes along
/// with the turn, and the next worker writes it there.
#[must_use]
pub fn beside_conversation(mut plan: Plan, message: &InboundMessage, routes: &RouteTable) -> Plan {
    let route = routes.matching(&message.content.text);
    let news = News {
        person: message.person.clone(),
        route: route.map(str::to_owned),
    };
    for turn in &mut plan.turns {
        turn.news = Some(Box::new(news.clone()));
    }
    plan.outbox.retain(|item| item.kind == Kind::RelayMessage);
    plan
}

/// Plans for a message that is an ignored keyword: nobody is asked, but it opens the window as any message does.
#[must_use]
pub fn decide_keyword(stored: Option<&Conversation>, message: &InboundMessage, now: Timestamp) -> Plan {
    heard(stored, message, now)
}

/// What every message of a person changes.
fn heard(stored: Option<&Conversation>, message: &InboundMessage, now: Timestamp) -> Plan {
    let stored = stored.cloned();
    let mut plan = Plan::next(stored.unwrap_or_else(|| Conversation::opened_by(message)));
    let conversation = &mut plan.conversation;
    conversation.person.update(&message.person);
    if conversation.hand_off_is_over(now) {
        conversation.set_mode(Mode::Bot, now);
        plan.outbox.extend(end_hand_off(conversation));
    }
    conversation.heard(message.received_at);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::whatsapp::tests::{conversation, inbound_settings, message};

    fn decide(stored: Option<&Conversation>, message: &InboundMessage, pairs: &[(&str, &str)]) -> Plan {
        let settings = inbound_settings(pairs);
        let routes = RouteTable::new(&settings.rules.routes);
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
    fn a_message_of_a_burst_waits_for_the_next() {
        let message = message("hi");
        let plan = decide(None, &message, &[("BURST_WINDOW_SECONDS", "2")]);
        assert_eq!(
            plan.outbox[0].not_before,
            Some(message.received_at + Duration::from_secs(2))
        );
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
    fn an_ignored_keyword_opens_the_window_and_asks_nobody() {
        let stored = conversation();
        let mut start = message("START");
        start.received_at = stored.window_closes_at + Duration::from_hours(5);
        let plan = decide_keyword(Some(&stored), &start, start.received_at);
        assert!(plan.conversation.window_is_open(start.received_at));
        assert_eq!(plan.conversation.version, stored.version + 1);
        assert!(plan.turns.is_empty() && plan.outbox.is_empty() && plan.guards.is_empty());
        assert_eq!(
            decide_keyword(None, &start, start.received_at)
                .conversation
                .version,
            1
        );
    }

    #[test]
    fn who_was_answered_repeats_nothing() {
        let mut stored = conversation();
        let first = decide(Some(&stored), &message("1"), &[]);
        assert_eq!(
            decide(Some(&first.conversation), &message("1"), &[]).guards,
            first.guards
        );
        stored.answers = 1;
        assert_ne!(decide(Some(&stored), &message("1"), &[]).guards, first.guards);
    }

    #[test]
    fn after_a_month_of_silence_a_person_is_told_anew() {
        let mut stored = conversation();
        stored.disclosed = true;
        let disclosed = |days: u64| {
            let mut late = message("hi");
            late.received_at = stored.last_activity_at + Duration::from_hours(24 * days);
            decide(Some(&stored), &late, &[]).conversation.disclosed
        };
        assert_eq!((disclosed(29), disclosed(30)), (true, false));
    }
}
