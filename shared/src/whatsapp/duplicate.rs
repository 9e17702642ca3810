//! Ids of messages, and the guards that keep the same message from being handled again.
//!
//! Braze gives no id of the WhatsApp message, so one is made from what there is: the dispatch id, the person
//! and the content. Two things bring a message twice: Braze tries a webhook again whose answer got lost (same
//! dispatch id), and a keyword campaign and a catch-all campaign both fire for it (two dispatch ids, within a
//! moment).

use std::time::Duration;

use jiff::Timestamp;

use super::conversation::Turn;
use super::message::{ConversationId, InboundMessage};
use crate::digest::Digest;

/// The dispatch id of previews and test sends, always the same, so it says nothing about duplicates.
const PREVIEW_DISPATCH_ID: &str = "dispatch_id_for_unsent_campaign";

/// Braze tries again for up to 24 hours.
const SAME_DISPATCH: Duration = Duration::from_hours(24);
/// A second campaign fires within a moment; a person who repeats themselves takes longer, or was answered in between.
const SAME_CONTENT: Duration = Duration::from_secs(10);
/// How long the bytes of an answer stand in for a `webhook-id`.
const SAME_ANSWER: Duration = Duration::from_mins(1);

/// A marker beside the conversation. It is written in the transaction that stores the message, on condition
/// that there is none with this key whose `expires_at` is still to come; if there is one, this is a duplicate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct DuplicateGuard {
    /// Unique within the conversation.
    pub key: String,
    /// From then on the marker means nothing.
    pub expires_at: Timestamp,
}

/// The id of a message, 32 hexadecimal digits. The same for every try of one Braze dispatch. `nonce` is a
/// fresh UUID; only previews use it, which must never look like each other.
#[must_use]
pub fn message_id(message: &InboundMessage, nonce: &str) -> String {
    match message.dispatch_id.as_deref() {
        Some(PREVIEW_DISPATCH_ID) => digest("preview", message, nonce),
        Some(dispatch_id) => digest("dispatch", message, dispatch_id),
        // Not from the content alone: the same words an hour later are another message.
        None => digest("time", message, &message.received_at.as_millisecond().to_string()),
    }
}

/// The guards that this message must pass and sets. None for previews.
///
/// `answers` is how often the person was answered before. The guards of what they say end with the answer: who says
/// "1" to the next question repeats nothing.
#[must_use]
pub fn guards(message: &InboundMessage, answers: u64) -> Vec<DuplicateGuard> {
    let since = if answers == 0 {
        String::new()
    } else {
        answers.to_string()
    };
    let guard = |kind: &str, detail: &str, hold: Duration| DuplicateGuard {
        key: format!("seen#{kind}#{}", digest(kind, message, detail)),
        expires_at: message.received_at.saturating_add(hold).unwrap_or(Timestamp::MAX),
    };
    match message.dispatch_id.as_deref() {
        Some(PREVIEW_DISPATCH_ID) => Vec::new(),
        Some(dispatch_id) => vec![
            guard("dispatch", dispatch_id, SAME_DISPATCH),
            guard("content", &since, SAME_CONTENT),
        ],
        // Without a dispatch id a second try cannot be told from a person who says "yes" twice.
        None => vec![guard("content", &since, SAME_CONTENT)],
    }
}

/// The guard of an asynchronous answer: its `webhook-id`, held for 24 hours. Without one (bearer token only)
/// the bytes of the body stand in, for a minute.
#[must_use]
pub fn reply_guard(webhook_id: Option<&str>, body: &[u8], now: Timestamp) -> DuplicateGuard {
    let (kind, digest, hold) = match webhook_id {
        Some(id) => ("reply", Digest::of(id), SAME_DISPATCH),
        None => ("reply-body", Digest::of(body), SAME_ANSWER),
    };
    DuplicateGuard {
        key: format!("seen#{kind}#{}", digest.short()),
        expires_at: now.saturating_add(hold).unwrap_or(Timestamp::MAX),
    }
}

/// The `webhook-id` of a handover: the same whenever the same messages of a conversation are handed over, so
/// that the receiver can tell a repetition.
#[must_use]
pub fn handover_id(conversation: &ConversationId, messages: &[Turn]) -> String {
    let ids = messages.iter().map(|message| message.id.as_str());
    let parts = std::iter::once(conversation.as_str()).chain(ids);
    format!("msg_{}", Digest::of_parts(parts).short())
}

fn digest(kind: &str, message: &InboundMessage, detail: &str) -> String {
    let content = &message.content;
    let parts = [
        kind,
        detail,
        message.conversation_id.as_str(),
        content.text.trim(),
    ];
    let optional = [&content.flow_response, &content.product_id, &content.catalog_id];
    let optional = optional.map(|part| part.as_deref().unwrap_or_default());
    let urls = content.media_urls.iter().map(String::as_str);
    Digest::of_parts(parts.into_iter().chain(optional).chain(urls)).short()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::tests::message;

    fn keys(message: &InboundMessage) -> Vec<String> {
        guards(message, 0).into_iter().map(|guard| guard.key).collect()
    }

    fn dispatched(text: &str, dispatch_id: &str) -> InboundMessage {
        InboundMessage {
            dispatch_id: Some(dispatch_id.to_owned()),
            ..message(text)
        }
    }

    #[test]
    fn a_second_try_is_the_same_message() {
        let first = dispatched("hi", "d1");
        let mut again = first.clone();
        again.received_at = first.received_at + Duration::from_hours(5);
        assert_eq!(message_id(&first, "n1"), message_id(&again, "n2"));
        assert_eq!(keys(&first), keys(&again));
        let held: Vec<_> = guards(&first, 0)
            .iter()
            .map(|guard| guard.expires_at.duration_since(first.received_at).as_secs())
            .collect();
        assert_eq!(held, [86_400, 10]);
    }

    #[test]
    fn a_second_campaign_shares_only_the_short_guard() {
        let (first, second) = (keys(&dispatched("hi", "d1")), keys(&dispatched("hi", "d2")));
        assert_ne!(first[0], second[0]);
        assert_eq!(first[1], second[1]);
        let bare = message("hi");
        assert_eq!(keys(&bare), first[1..]);
        let held = guards(&bare, 0)[0].expires_at.duration_since(bare.received_at);
        assert_eq!(held.as_secs(), 10);
    }

    #[test]
    fn the_guards_of_what_was_said_end_with_the_answer() {
        let of = |message: &InboundMessage, answers| {
            let guards = guards(message, answers).into_iter();
            guards.map(|guard| guard.key).collect::<Vec<_>>()
        };
        let dispatched = dispatched("1", "d1");
        let (before, behind) = (of(&dispatched, 0), of(&dispatched, 1));
        // The very same send stays a duplicate.
        assert_eq!(before[0], behind[0]);
        assert_ne!(before[1], behind[1]);
        let bare = message("yes");
        assert_ne!(of(&bare, 1), of(&bare, 2));
    }

    #[test]
    fn another_person_or_content_is_another_message() {
        let first = dispatched("hi", "d1");
        let mut others = [
            dispatched("ho", "d1"),
            first.clone(),
            first.clone(),
            first.clone(),
            first.clone(),
        ];
        others[1].conversation_id = super::super::ConversationId::parse("user:43").unwrap();
        others[2].content.media_urls = vec!["https://a".to_owned()];
        others[3].content.flow_response = Some("{}".to_owned());
        others[4].content.product_id = Some("{}".to_owned());
        let mut ids: Vec<_> = others
            .iter()
            .chain([&first])
            .map(|message| message_id(message, ""))
            .collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6);
    }

    #[test]
    fn previews_are_never_duplicates() {
        let preview = dispatched("hi", PREVIEW_DISPATCH_ID);
        assert!(guards(&preview, 0).is_empty());
        assert_ne!(message_id(&preview, "a"), message_id(&preview, "b"));
    }

    #[test]
    fn without_a_dispatch_id_the_same_words_later_are_another_message() {
        let first = message("yes");
        let mut later = first.clone();
        later.received_at = first.received_at + Duration::from_secs(61);
        assert_ne!(message_id(&first, ""), message_id(&later, ""));
        assert_eq!(keys(&first), keys(&later));
    }

    #[test]
    fn an_answer_is_known_by_its_webhook_id() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(
            reply_guard(Some("msg_1"), b"a", now),
            reply_guard(Some("msg_1"), b"b", now)
        );
        assert_ne!(
            reply_guard(Some("msg_1"), b"a", now).key,
            reply_guard(Some("msg_2"), b"a", now).key
        );
        assert_eq!(reply_guard(None, b"a", now), reply_guard(None, b"a", now));
        assert_ne!(reply_guard(None, b"a", now).key, reply_guard(None, b"b", now).key);
    }
}
