//! No `Debug` shows a person, what they wrote, or a credential: logs and errors are made of it.

use std::fmt::Debug;

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use shared::clients::graph::GraphApp;
use shared::fbe::secret::{FbeSecret, TokenType};
use shared::messenger::Stamped;
use shared::messenger::sync::{Identify, Profile, SyncPlan, Synced, UserAlias};
use shared::messenger::{Channel, ContactKey, Link, LinkKeys, LinkedVia, Referral, UserRefKey};
use shared::outbox::{Kind, OutboxItem, Quarantined, Reason};
use shared::personal::Personal;
use shared::webhook::signature::{Received, sign};
use shared::whatsapp::answer::Answer;
use shared::whatsapp::message::Content;
use shared::whatsapp::reply::ReplyPayload;
use shared::whatsapp::{ConversationId, Inbound};

/// Stands for all that must not be seen.
const PERSON: &str = "15551234567";

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn body() -> String {
    let referral = json!({"ref": PERSON, "source": "ADS"});
    let item = |kind: &str, value: Value| json!({"sender": {"id": PERSON}, "recipient": {"id": "2"}, "timestamp": 1, kind: value});
    let messaging = [
        item(
            "message",
            json!({"mid": PERSON, "text": PERSON, "quick_reply": {"payload": PERSON}, "referral": referral}),
        ),
        item(
            "postback",
            json!({"mid": PERSON, "payload": PERSON, "referral": referral}),
        ),
        item(
            "optin",
            json!({"ref": PERSON, "user_ref": PERSON, "notification_messages_token": PERSON}),
        ),
        item("reaction", json!({"mid": PERSON})),
        item(
            "account_linking",
            json!({"status": "linked", "authorization_code": PERSON}),
        ),
        json!({"optin": {"user_ref": PERSON}, "recipient": {"id": "2"}}),
        json!({"sender": {"id": "bad id"}, "message": {"text": PERSON}}),
    ];
    let install = json!({"field": "fbe_install", "value": {"business_id": "shop", "access_token": PERSON}});
    let unknown = json!({"field": "unknown", "value": PERSON});
    json!({"object": "page", "entry": [{"id": "2", "uid": PERSON, "messaging": messaging, "changes": [install, unknown]}]})
        .to_string()
}

#[test]
fn debug_shows_no_person() {
    let person = || Personal::from(PERSON.to_owned());
    let secret = || SecretString::from(PERSON);
    let object = || Map::from_iter([("external_id".to_owned(), Value::from(PERSON))]);

    let signature = sign(&secret(), body().as_bytes());
    let received = Received::new(body(), Some(&signature));
    let verified = received.verify([&secret()]).unwrap();
    let messenger = shared::messenger::parse(&verified, now());
    let fbe = shared::fbe::payload::parse(&verified, now());
    assert!(messenger.events.len() >= 6 && !messenger.quarantined.is_empty());
    assert!(!fbe.changes.is_empty() && !fbe.quarantined.is_empty());
    let whatsapp =
        json!({"user_id": PERSON, "phone_number": PERSON, "profile_name": PERSON, "message": PERSON});
    let whatsapp = shared::whatsapp::parse(whatsapp.to_string().as_bytes(), None, now());
    assert!(matches!(whatsapp, Inbound::Message(_)));

    let key = ContactKey {
        channel: Channel::Messenger,
        account_id: "2".to_owned(),
        scoped_id: person(),
    };
    let synced = Synced {
        profile: Profile::User(person()),
        attributes: Personal(object().into_iter().collect()),
        ..Synced::default()
    };
    let identify = Identify {
        external_id: person(),
        user_alias: UserAlias {
            alias_label: "messenger:2".to_owned(),
            alias_name: person(),
        },
    };
    let shown: [&dyn Debug; 19] = [
        &received,
        &verified,
        &messenger,
        &fbe,
        &whatsapp,
        &key,
        &UserRefKey::new(Channel::Messenger, "2", PERSON),
        &Stamped {
            at: now(),
            value: Link {
                user_id: Some(person()),
                via: LinkedVia::Ref,
            },
        },
        &Referral {
            reference: Some(person()),
            ..Referral::default()
        },
        &LinkKeys::new(&secret(), None),
        &SyncPlan {
            identify: Some(identify),
            attributes: Personal(vec![object().into()]),
            before: synced.clone(),
            after: synced,
        },
        &ConversationId::parse(&format!("phone:{PERSON}")),
        &Content {
            text: PERSON.to_owned(),
            ..Content::default()
        },
        &Answer::of(PERSON),
        &ReplyPayload {
            text: Some(PERSON.to_owned()),
            properties: object(),
            attributes: object(),
            ..ReplyPayload::default()
        },
        &OutboxItem {
            subject: PERSON.to_owned(),
            event_key: PERSON.to_owned(),
            kind: Kind::RelayReply,
            payload: object().into(),
            not_before: None,
        },
        &Quarantined {
            source: "messenger",
            reason: Reason::NotJson,
            raw: bytes::Bytes::from(PERSON).into(),
        },
        &FbeSecret {
            access_token: Some(secret()),
            token_type: TokenType::User,
            system_user_access_token: Some(secret()),
            received_at: now(),
            exchanged_at: None,
            system_user_expires_at: None,
        },
        &GraphApp {
            id: "1".to_owned(),
            secret: secret(),
        },
    ];
    for shown in shown {
        let shown = format!("{shown:?}");
        assert!(!shown.contains(PERSON) && !shown.contains(&signature), "{shown}");
    }
}
