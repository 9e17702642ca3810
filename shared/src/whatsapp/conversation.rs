//! What is stored of a conversation, and its turns.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::message::{Content, ConversationId, InboundMessage, Person};

/// WhatsApp lets a business write freely for this long after the person's last message.
pub const WINDOW: Duration = Duration::from_hours(24);

/// The window ends this much earlier for us: what is sent in its last moments arrives when it is closed, is lost, and
/// Braze says 201.
const MARGIN: Duration = Duration::from_mins(1);

/// A hand-off to a human ends after this long without a word from either side.
pub const HAND_OFF_SILENCE: Duration = Duration::from_hours(24);

/// After this long without a word from either side a person is told anew that a machine answers.
const FORGOTTEN: Duration = Duration::from_hours(30 * 24);

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The external system by itself.
    #[default]
    Bot,
    /// A person at the brand.
    Human,
}

/// A conversation as stored.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// Its key.
    pub id: ConversationId,
    /// When the first message came in; none in records of the version before.
    pub first_inbound_at: Option<Timestamp>,
    /// Whom it is with, as far as was ever told.
    pub person: Person,
    /// Until when a reply may be sent that is no approved template.
    pub window_closes_at: Timestamp,
    /// When the last message came in.
    pub last_inbound_at: Timestamp,
    /// When either side last said something, or the mode changed.
    pub last_activity_at: Timestamp,
    /// Who answers.
    #[serde(default)]
    pub mode: Mode,
    /// Since when.
    pub mode_since: Timestamp,
    /// Whether the Braze profile says `whatsapp_human_agent: true`, as far as we told it.
    #[serde(default)]
    pub human_agent_told: bool,
    /// The route that holds; `None` = the settings' own.
    pub route: Option<String>,
    /// When the message came that took it there; none in records of the version before.
    pub route_since: Option<Timestamp>,
    /// Whether the fallback text went out and no answer since.
    #[serde(default)]
    pub fallback_sent: bool,
    /// Whether the person knows that a machine answers: `DISCLOSURE_TEXT` went out, and since then no human has
    /// handed back, and it was never quiet for 30 days.
    #[serde(default)]
    pub disclosed: bool,
    /// How often the person was answered. What they say after an answer is no repetition of what they said before it.
    #[serde(default)]
    pub answers: u64,
    /// Until when the external system wants to be left alone.
    pub ask_not_before: Option<Timestamp>,
    /// How many turns there were; numbers the next one.
    #[serde(default)]
    pub turns: u64,
    /// How many sends were planned; numbers the next one.
    #[serde(default)]
    pub sends: u64,
    /// Goes up with every change. A plan is committed on condition that it is still the one decided on; 0 =
    /// not stored yet.
    #[serde(default)]
    pub version: u64,
}

impl Conversation {
    /// The conversation that this message opens. Version 0: not stored yet.
    #[must_use]
    pub fn opened_by(message: &InboundMessage) -> Self {
        Self {
            id: message.conversation_id.clone(),
            first_inbound_at: Some(message.received_at),
            person: message.person.clone(),
            window_closes_at: closing_after(message.received_at),
            last_inbound_at: message.received_at,
            last_activity_at: message.received_at,
            mode: Mode::Bot,
            mode_since: message.received_at,
            human_agent_told: false,
            route: None,
            route_since: None,
            fallback_sent: false,
            disclosed: false,
            answers: 0,
            ask_not_before: None,
            turns: 0,
            sends: 0,
            version: 0,
        }
    }

    /// Whether a free reply may be sent at `now`: until a minute before the window closes.
    #[must_use]
    pub fn window_is_open(&self, now: Timestamp) -> bool {
        now.saturating_add(MARGIN).unwrap_or(Timestamp::MAX) < self.window_closes_at
    }

    /// Notes that the person wrote at `at`. Messages may be taken up in another order than they came in; times only
    /// move forward.
    pub fn heard(&mut self, at: Timestamp) {
        let quiet_until = self.last_activity_at.saturating_add(FORGOTTEN);
        self.disclosed &= quiet_until.is_ok_and(|until| at < until);
        self.last_inbound_at = self.last_inbound_at.max(at);
        self.last_activity_at = self.last_activity_at.max(at);
        self.window_closes_at = self.window_closes_at.max(closing_after(at));
    }

    /// Whether a human had the conversation, and nobody has said anything for [`HAND_OFF_SILENCE`].
    #[must_use]
    pub fn hand_off_is_over(&self, now: Timestamp) -> bool {
        let ends = self
            .last_activity_at
            .saturating_add(HAND_OFF_SILENCE)
            .unwrap_or(Timestamp::MAX);
        self.mode == Mode::Human && now >= ends
    }

    /// Takes the conversation to `route`, which a message that came at `at` matches. It holds until another one matches
    /// in a later message, whichever of them is taken up first.
    pub fn take_route(&mut self, route: &str, at: Timestamp) {
        if self.route_since.is_some_and(|since| at < since) {
            return;
        }
        self.route_since = Some(at);
        if self.route.as_deref() != Some(route) {
            self.route = Some(route.to_owned());
            // The wait was another system's.
            self.ask_not_before = None;
        }
    }

    /// Takes over what turns say that were stored beside the conversation.
    pub fn catch_up(&mut self, turns: &[Turn]) {
        for turn in turns
            .iter()
            .filter(|turn| turn.status == Some(TurnStatus::Pending))
        {
            if let Some(news) = &turn.news {
                self.person.update(&news.person);
                news.route
                    .iter()
                    .for_each(|route| self.take_route(route, turn.at));
                self.heard(turn.at);
            }
        }
    }

    /// Changes who answers.
    pub fn set_mode(&mut self, mode: Mode, now: Timestamp) {
        if self.mode != mode {
            self.mode = mode;
            self.mode_since = now;
            // Only once the human has handed back does the machine say so again.
            self.disclosed &= mode == Mode::Human;
            self.last_activity_at = self.last_activity_at.max(now);
        }
    }

    /// The number of the next turn.
    pub(super) fn number_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// The number of the next send.
    pub(super) fn number_send(&mut self) -> u64 {
        self.sends += 1;
        self.sends
    }
}

/// When the window closes that a message at `received_at` opens.
#[must_use]
pub fn closing_after(received_at: Timestamp) -> Timestamp {
    received_at.saturating_add(WINDOW).unwrap_or(Timestamp::MAX)
}

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person on WhatsApp.
    User,
    /// The external system, or a human behind it.
    Assistant,
}

/// What became of a user's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TurnStatus {
    /// The external system has not got it yet.
    Pending,
    /// The external system has it.
    HandedOver,
    /// The external system refuses it, or has failed at it for too long. Later messages go without it; it goes
    /// once more if its outbox item is redriven.
    GivenUp,
}

/// Something that was said in a conversation.
#[serde_with::skip_serializing_none]
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The message's id; of a reply, its number in the conversation.
    pub id: String,
    /// When it came in or was answered.
    pub at: Timestamp,
    /// Its number in the conversation: orders what happened in the same millisecond.
    pub sequence: u64,
    /// Who said it.
    pub role: Role,
    /// What was said.
    #[serde(flatten)]
    pub content: Content,
    /// Only of users' turns.
    pub status: Option<TurnStatus>,
    /// What the message says of the conversation, if it was stored beside it: so many came at once that not each
    /// could be written there.
    pub news: Option<Box<News>>,
}

/// What a message says of its conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Who wrote it.
    pub person: Person,
    /// The route that it matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

impl Turn {
    /// What every turn's sort key begins with.
    pub const SORT_KEY_PREFIX: &str = "turn#";

    /// The sort key: time, then number, then id, so that turns come back in their order.
    #[must_use]
    pub fn sort_key(&self) -> String {
        let Self { id, at, sequence, .. } = self;
        format!(
            "{}{:015}#{sequence:010}#{id}",
            Self::SORT_KEY_PREFIX,
            at.as_millisecond()
        )
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("id", &self.id)
            .field("at", &self.at)
            .field("sequence", &self.sequence)
            .field("role", &self.role)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::tests::{conversation, message, turn};

    #[test]
    fn the_window_closes_24_hours_after_the_message() {
        let conversation = Conversation::opened_by(&message("hi"));
        let last = conversation.window_closes_at - MARGIN - Duration::from_millis(1);
        assert_eq!(
            conversation
                .window_closes_at
                .duration_since(conversation.last_inbound_at)
                .as_hours(),
            24
        );
        assert!(conversation.window_is_open(last));
        // What is sent in the last minute would arrive too late.
        assert!(!conversation.window_is_open(conversation.window_closes_at - MARGIN));
        assert!(!conversation.window_is_open(conversation.window_closes_at));
    }

    #[test]
    fn the_latest_message_says_the_route_whichever_is_taken_up_first() {
        let mut conversation = conversation();
        let start = conversation.last_activity_at;
        let mut early = turn("order");
        early.at = start;
        early.news = Some(Box::new(News {
            person: conversation.person.clone(),
            route: Some("order".to_owned()),
        }));
        conversation.take_route("help", start + Duration::from_millis(1));
        conversation.catch_up(std::slice::from_ref(&early));
        assert_eq!(conversation.route.as_deref(), Some("help"));
        early.at = start + Duration::from_millis(2);
        conversation.catch_up(&[early]);
        assert_eq!(conversation.route.as_deref(), Some("order"));
    }

    #[test]
    fn a_hand_off_ends_with_24_hours_of_silence() {
        let mut conversation = conversation();
        let start = conversation.last_activity_at;
        assert!(!conversation.hand_off_is_over(start + Duration::from_hours(48)));
        conversation.set_mode(Mode::Human, start + Duration::from_hours(1));
        assert_eq!(conversation.mode_since, start + Duration::from_hours(1));
        assert!(!conversation.hand_off_is_over(start + Duration::from_hours(24)));
        assert!(conversation.hand_off_is_over(start + Duration::from_hours(25)));
    }

    #[test]
    fn sort_keys_order_turns_by_time_and_number() {
        let turn = |at: i64, sequence, id: &str| Turn {
            id: id.to_owned(),
            at: Timestamp::from_millisecond(at).unwrap(),
            sequence,
            role: Role::User,
            content: Content::default(),
            status: None,
            news: None,
        };
        let turns = [
            turn(999, 9, "z"),
            turn(1_000, 2, "y"),
            turn(1_000, 10, "a"),
            turn(10_000, 1, "a"),
        ];
        let keys: Vec<_> = turns.iter().map(Turn::sort_key).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        assert_eq!(keys[0], "turn#000000000000999#0000000009#z");
    }

    #[test]
    fn what_is_stored_comes_back() {
        let mut conversation = conversation();
        conversation.route = Some("orders".to_owned());
        let stored = serde_json::to_value(&conversation).unwrap();
        assert_eq!(
            serde_json::from_value::<Conversation>(stored).unwrap(),
            conversation
        );
        let turn = Turn {
            id: "1".to_owned(),
            at: conversation.last_inbound_at,
            sequence: 1,
            role: Role::User,
            content: Content {
                text: "secret".to_owned(),
                ..Content::default()
            },
            status: Some(TurnStatus::Pending),
            news: None,
        };
        assert!(!format!("{turn:?} {conversation:?}").contains("secret"));
        let stored = serde_json::to_value(&turn).unwrap();
        assert_eq!(serde_json::from_value::<Turn>(stored).unwrap(), turn);
    }
}
