//! A planned reply becomes the request that Braze gets, when its turn comes.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use shared::outbox::{OutboxItem, Reason};
use shared::personal::Personal;
use shared::whatsapp::conversation::Conversation;
use shared::whatsapp::message::Person;
use shared::whatsapp::reply::ReplyPayload;
use shared::whatsapp::settings::RelaySettings;
use shared::whatsapp::split::{TEMPLATE_LIMIT, flatten, split};

use super::route::reply_campaign;

/// What is to be done with a reply now. The bodies hold the text and say whom it is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Send {
    /// Post this to `/campaigns/trigger/send`.
    Trigger(Personal<Value>),
    /// Post this to `/canvas/trigger/send`.
    Canvas(Personal<Value>),
    /// Post this attributes object to `/users/track`.
    Track(Personal<Value>),
    /// Too long for the template it must go by now: settle the item and put these in its place, in one
    /// transaction.
    Replace(Vec<OutboxItem>),
    /// It can be sent once a setting is mended; for this reason.
    Misconfigured(Reason),
    /// It can never be sent; for this reason.
    Dead(Reason),
}

/// Decides how the reply with `event_key` leaves.
pub(super) fn decide_send(
    event_key: &str,
    reply: &ReplyPayload,
    conversation: &Conversation,
    settings: &RelaySettings,
    now: Timestamp,
) -> Send {
    let person = &conversation.person;
    if !reply.says_something() {
        return profile_update(person, &reply.attributes).map_or(Send::Dead(Reason::NoRecipient), |object| {
            Send::Track(object.into())
        });
    }
    let Some(recipient) = identified(person, "external_user_id") else {
        return Send::Dead(Reason::NoRecipient);
    };
    let message = Message {
        reply,
        recipient,
        property: &settings.trigger_property,
    };
    if let Some(canvas) = &reply.canvas {
        return Send::Canvas(message.canvas(canvas).into());
    }
    let (named, route) = (reply.campaign.as_deref(), reply.route.as_deref());
    let rules = &settings.rules;
    // What is named is sent as it is named: the brand knows what is in it.
    let own = rules.own_campaign(named);
    let by_template = match own {
        Some(campaign) => rules.is_template(campaign),
        None => !conversation.window_is_open(now),
    };
    let campaign = match own {
        Some(campaign) => campaign,
        None if by_template => match rules.template_campaign(named, route) {
            Some(campaign) => campaign,
            None => return Send::Dead(Reason::WindowClosed),
        },
        None => match reply_campaign(named, route, settings) {
            Some(campaign) => campaign,
            None => return Send::Misconfigured(Reason::NoCampaign),
        },
    };
    let Some(text) = &reply.text else {
        return Send::Trigger(message.campaign(campaign, None).into());
    };
    let mut text = text.clone();
    if by_template {
        let mut pieces = split(&flatten(&text), TEMPLATE_LIMIT);
        if pieces.len() > 1 {
            return Send::Replace(replacements(event_key, reply, conversation, pieces));
        }
        text = pieces.pop().unwrap_or_default();
    }
    // Braze drops a message whose property is blank, and says 201.
    if text.trim().is_empty() {
        return Send::Dead(Reason::Blank);
    }
    Send::Trigger(message.campaign(campaign, Some(&text)).into())
}

/// A message and whom it is for.
struct Message<'a> {
    reply: &'a ReplyPayload,
    recipient: Map<String, Value>,
    property: &'a str,
}

impl Message<'_> {
    fn campaign(self, campaign: &str, text: Option<&str>) -> Value {
        let recipient = self.recipient("trigger_properties", text);
        json!({ "campaign_id": campaign, "recipients": [recipient] })
    }

    fn canvas(self, canvas: &str) -> Value {
        let text = self.reply.text.as_deref();
        let recipient = self.recipient("context", text);
        json!({ "canvas_id": canvas, "recipients": [recipient] })
    }

    /// The text wins over a property of the same name.
    fn recipient(mut self, properties_key: &str, text: Option<&str>) -> Map<String, Value> {
        let mut properties = self.reply.properties.clone();
        if let Some(text) = text {
            properties.insert(self.property.to_owned(), text.into());
        }
        if !properties.is_empty() {
            self.recipient
                .insert(properties_key.to_owned(), properties.into());
        }
        if !self.reply.attributes.is_empty() {
            self.recipient
                .insert("attributes".to_owned(), self.reply.attributes.clone().into());
        }
        self.recipient
    }
}

/// The pieces as items of their own, which sort where the whole one stood. The first writes the attributes.
fn replacements(
    event_key: &str,
    reply: &ReplyPayload,
    conversation: &Conversation,
    pieces: Vec<String>,
) -> Vec<OutboxItem> {
    let mut attributes = Some(reply.attributes.clone());
    let piece = |(index, text): (usize, String)| {
        let attributes = attributes.take().unwrap_or_default();
        let piece = ReplyPayload {
            text: Some(text),
            attributes,
            ..reply.clone()
        };
        piece.item(conversation, format!("{event_key}.{:03}", index + 1))
    };
    pieces.into_iter().enumerate().map(piece).collect()
}

/// For a reply that is given up though it has attributes: its payload without them, and the item that writes
/// them. They were decided on once, and nobody would write them again.
pub(super) fn without_attributes(
    event_key: &str,
    reply: &ReplyPayload,
    conversation: &Conversation,
) -> Option<(Value, OutboxItem)> {
    if !reply.says_something() || reply.attributes.is_empty() {
        return None;
    }
    let rest = ReplyPayload {
        attributes: Map::new(),
        ..reply.clone()
    };
    let attributes = ReplyPayload {
        attributes: reply.attributes.clone(),
        ..ReplyPayload::default()
    };
    // Before the pieces that the rest may be put into when it is redriven.
    Some((
        json!(rest),
        attributes.item(conversation, format!("{event_key}.000")),
    ))
}

/// The object for `/users/track` that writes `attributes` to a person's profile; `None` if nothing identifies them.
pub(crate) fn profile_update(person: &Person, attributes: &Map<String, Value>) -> Option<Value> {
    let mut object = attributes.clone();
    object.extend(identified(person, "external_id")?);
    // Braze itself told of this person, so there is a profile, and none is to be made.
    object.insert("_update_existing_only".to_owned(), true.into());
    Some(object.into())
}

/// Whom a request is about: exactly one identifier. An unknown WhatsApp number has a profile with the alias `phone`.
fn identified(person: &Person, user_id_key: &str) -> Option<Map<String, Value>> {
    let (key, id) = if let Some(id) = &person.user_id {
        (user_id_key, json!(id))
    } else if let Some(id) = &person.braze_id {
        ("braze_id", json!(id))
    } else {
        (
            "user_alias",
            json!({ "alias_label": "phone", "alias_name": person.phone_number.as_ref()? }),
        )
    };
    Some(Map::from_iter([(key.to_owned(), id)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::tests::{conversation, relay_settings};

    const HUMAN_AGENT_ATTRIBUTE: &str = "whatsapp_human_agent";

    fn payload(text: &str) -> ReplyPayload {
        ReplyPayload {
            text: Some(text.to_owned()),
            ..ReplyPayload::default()
        }
    }

    fn sent(reply: &ReplyPayload, conversation: &Conversation, pairs: &[(&str, &str)], late: bool) -> Send {
        let now = if late {
            conversation.window_closes_at
        } else {
            conversation.last_inbound_at
        };
        decide_send(
            "reply#0000000007",
            reply,
            conversation,
            &relay_settings(pairs),
            now,
        )
    }

    #[test]
    fn a_reply_is_one_trigger_send() {
        let mut reply = payload("<b>Hello</b>,\n\"Ana\"");
        reply
            .attributes
            .insert(HUMAN_AGENT_ATTRIBUTE.to_owned(), true.into());
        let Send::Trigger(body) = sent(&reply, &conversation(), &[("TRIGGER_PROPERTY", "answer")], false)
        else {
            panic!("not sent");
        };
        let expected = json!({
            "campaign_id": "c",
            "recipients": [{
                "external_user_id": "42",
                "trigger_properties": { "answer": "<b>Hello</b>,\n\"Ana\"" },
                "attributes": { "whatsapp_human_agent": true }
            }]
        });
        assert_eq!(body.0, expected);
    }

    #[test]
    fn the_strongest_identifier_is_the_recipient() {
        let mut conversation = conversation();
        conversation.person.braze_id = Some("5fbd".to_owned());
        let mut recipients = Vec::new();
        for step in 0..4 {
            match step {
                1 => conversation.person.user_id = None,
                2 => conversation.person.braze_id = None,
                3 => conversation.person.phone_number = None,
                _ => {}
            }
            recipients.push(match sent(&payload("a"), &conversation, &[], false) {
                Send::Trigger(mut body) => {
                    let recipient = body["recipients"][0].as_object_mut().unwrap();
                    recipient.remove("trigger_properties");
                    json!(recipient).to_string()
                }
                other => format!("{other:?}"),
            });
        }
        assert_eq!(
            recipients,
            [
                r#"{"external_user_id":"42"}"#,
                r#"{"braze_id":"5fbd"}"#,
                r#"{"user_alias":{"alias_label":"phone","alias_name":"+15551234567"}}"#,
                "Dead(NoRecipient)"
            ]
        );
    }

    #[test]
    fn outside_the_window_the_template_carries_flat_text() {
        let text = "Hello,\n\n\tAna     !";
        assert_eq!(
            sent(&payload(text), &conversation(), &[], true),
            Send::Dead(Reason::WindowClosed)
        );
        let template = [("TEMPLATE_CAMPAIGN_ID", "t")];
        let Send::Trigger(body) = sent(&payload(text), &conversation(), &template, true) else {
            panic!("not sent");
        };
        assert_eq!(body["campaign_id"], "t");
        let properties = &body["recipients"][0]["trigger_properties"];
        assert_eq!(properties["external_system_msg_body"], "Hello, Ana !");
        // Named by the answer, a template is a template inside the window as well.
        let named = ReplyPayload {
            campaign: Some("t".to_owned()),
            ..payload(text)
        };
        let Send::Trigger(inside) = sent(&named, &conversation(), &template, false) else {
            panic!("not sent");
        };
        assert_eq!(inside, body);
    }

    #[test]
    fn what_is_too_long_for_a_template_is_put_into_pieces() {
        let mut reply = payload(&"A sentence of words. ".repeat(120));
        reply.attributes.insert("topic".to_owned(), "x".into());
        let Send::Replace(items) = sent(&reply, &conversation(), &[("TEMPLATE_CAMPAIGN_ID", "t")], true)
        else {
            panic!("not replaced");
        };
        let keys: Vec<_> = items.iter().map(|item| item.event_key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "reply#0000000007.001",
                "reply#0000000007.002",
                "reply#0000000007.003"
            ]
        );
        assert!(
            keys.iter()
                .all(|key| *key > "reply#0000000007" && *key < "reply#0000000008")
        );
        let with_attributes = items
            .iter()
            .filter(|item| item.payload.get("attributes").is_some())
            .count();
        assert_eq!(with_attributes, 1);
        for item in &items {
            let piece: ReplyPayload = serde_json::from_value(item.payload.clone()).unwrap();
            let again = sent(&piece, &conversation(), &[("TEMPLATE_CAMPAIGN_ID", "t")], true);
            assert!(matches!(again, Send::Trigger(_)), "{again:?}");
        }
    }

    #[test]
    fn attributes_alone_go_to_the_profile() {
        let reply = ReplyPayload {
            text: None,
            attributes: Map::from_iter([("topic".to_owned(), "orders".into())]),
            ..payload("")
        };
        let Send::Track(object) = sent(&reply, &conversation(), &[], true) else {
            panic!("not tracked");
        };
        let expected = r#"{"_update_existing_only":true,"external_id":"42","topic":"orders"}"#;
        assert_eq!(object.to_string(), expected);
    }

    #[test]
    fn the_attributes_of_a_reply_that_is_given_up_are_kept_apart() {
        let mut reply = payload("hi");
        assert!(without_attributes("reply#0000000007", &reply, &conversation()).is_none());
        reply.attributes.insert("topic".to_owned(), "orders".into());
        let (rest, item) = without_attributes("reply#0000000007", &reply, &conversation()).unwrap();
        assert_eq!(rest, json!({"text": "hi"}));
        assert_eq!(item.payload, json!({"attributes": {"topic": "orders"}}));
        assert!(*"reply#0000000007" < *item.event_key && *item.event_key < *"reply#0000000007.001");
        reply.text = None;
        assert!(without_attributes("reply#0000000007", &reply, &conversation()).is_none());
    }

    #[test]
    fn without_a_campaign_a_reply_waits_for_the_setting() {
        let mut settings = relay_settings(&[]);
        settings.reply_campaign_id = None;
        let stored = conversation();
        let sent = decide_send(
            "reply#1",
            &payload("hi"),
            &stored,
            &settings,
            stored.last_inbound_at,
        );
        assert_eq!(sent, Send::Misconfigured(Reason::NoCampaign));
    }

    #[test]
    fn nothing_blank_is_sent() {
        assert_eq!(
            sent(&payload(" \n"), &conversation(), &[], false),
            Send::Dead(Reason::Blank)
        );
    }

    #[test]
    fn the_longest_text_fits_into_trigger_properties() {
        // Control characters take the most room in JSON.
        for text in ["\u{1}", "€", "😀"] {
            let piece = split(&text.repeat(4_096), shared::whatsapp::split::TEXT_LIMIT).remove(0);
            let Send::Trigger(body) = sent(&payload(&piece), &conversation(), &[], false) else {
                panic!("not sent");
            };
            assert!(body["recipients"][0]["trigger_properties"].to_string().len() < 50_000);
        }
    }

    #[test]
    fn debug_shows_no_text() {
        let reply = payload("secret");
        let shown = format!("{reply:?} {:?}", sent(&reply, &conversation(), &[], false));
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_is_named_is_sent_as_it_is_named_whatever_the_window() {
        let mut named = payload("Hello,\nAna");
        named.campaign = Some("9f-step-2".to_owned());
        named
            .properties
            .insert("external_system_msg_body".to_owned(), "not this".into());
        named.properties.insert("rows".to_owned(), json!([1, 2]));
        let template = [("TEMPLATE_CAMPAIGN_ID", "t")];
        for late in [false, true] {
            let Send::Trigger(body) = sent(&named, &conversation(), &template, late) else {
                panic!("not sent");
            };
            assert_eq!(body["campaign_id"], "9f-step-2");
            let properties = &body["recipients"][0]["trigger_properties"];
            // The text wins, and keeps its form.
            assert_eq!(
                *properties,
                json!({"external_system_msg_body": "Hello,\nAna", "rows": [1, 2]})
            );
        }
        named.text = None;
        let Send::Trigger(body) = sent(&named, &conversation(), &[], true) else {
            panic!("not sent");
        };
        assert_eq!(
            body["recipients"][0]["trigger_properties"]["external_system_msg_body"],
            "not this"
        );
    }

    #[test]
    fn a_canvas_gets_its_entry_properties() {
        let reply = ReplyPayload {
            text: Some("hi".to_owned()),
            canvas: Some("v".to_owned()),
            properties: Map::from_iter([("size".to_owned(), "L".into())]),
            attributes: Map::from_iter([("topic".to_owned(), "orders".into())]),
            ..ReplyPayload::default()
        };
        let Send::Canvas(body) = sent(&reply, &conversation(), &[], true) else {
            panic!("not sent");
        };
        let expected = json!({
            "canvas_id": "v",
            "recipients": [{
                "external_user_id": "42",
                "context": { "external_system_msg_body": "hi", "size": "L" },
                "attributes": { "topic": "orders" }
            }]
        });
        assert_eq!(body.0, expected);
    }

    #[test]
    fn the_last_minute_of_the_window_is_left_to_the_template() {
        let settings = relay_settings(&[("TEMPLATE_CAMPAIGN_ID", "t")]);
        let stored = conversation();
        let by = |seconds| {
            let now = stored.window_closes_at - std::time::Duration::from_secs(seconds);
            match decide_send("reply#0000000007", &payload("hi"), &stored, &settings, now) {
                Send::Trigger(body) => body["campaign_id"].as_str().unwrap().to_owned(),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(
            (by(61), by(60), by(1)),
            ("c".to_owned(), "t".to_owned(), "t".to_owned())
        );
    }
}
