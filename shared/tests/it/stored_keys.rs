//! Keys that are stored, or compared with what an older version stored. A change of one would let a redelivery
//! through as something new, so their values stand here as literals.

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;
use shared::fbe::secret::{FbeSecret, TokenType};
use shared::messenger::{Channel, UserRefKey};
use shared::outbox::{Kind, OutboxItem, Quarantined, Reason};
use shared::webhook::signature::{Received, Verified, sign};
use shared::whatsapp::{Inbound, InboundMessage, Turn, duplicate};

use super::Tables;

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn verified(body: &str) -> Verified {
    let secret = SecretString::from("app secret");
    let signature = sign(&secret, body.as_bytes());
    Received::new(body.to_owned(), Some(&signature))
        .verify([&secret])
        .unwrap()
}

fn message(body: &serde_json::Value) -> InboundMessage {
    match shared::whatsapp::parse(body.to_string().as_bytes(), None, now()) {
        Inbound::Message(message) => *message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messenger_events() {
    let item = |rest: &str| {
        let item =
            format!(r#"{{"sender":{{"id":"1"}},"recipient":{{"id":"2"}},"timestamp":1700000000000,{rest}}}"#);
        let body = format!(r#"{{"object":"page","entry":[{{"id":"2","messaging":[{item}]}}]}}"#);
        shared::messenger::parse(&verified(&body), now()).events[0]
            .key
            .0
            .clone()
    };
    let keys = [
        r#""message":{"mid":"m_1","text":"hi"}"#,
        &format!(r#""message":{{"mid":"{}","text":"hi"}}"#, "m".repeat(500)),
        r#""message":{"text":"hi"}"#,
        r#""postback":{"payload":"START"}"#,
        r#""delivery":{"mids":["m_2","m_1"],"watermark":7}"#,
        r#""optin":{"ref":"r","user_ref":"u"}"#,
        r#""referral":{"ref":"r"}"#,
    ]
    .map(item);
    assert_eq!(
        keys,
        [
            "message:m_1",
            "message:sha256-66088c284a89e155820472e5d04b8a6bc4555be3159c1d4498bc203d8b9b24f1",
            "message:1700000000000:fe00c97e5d4851c6b743b6ab0bd40c2e436634f414812df881b1f1b31c7c8294",
            "postback:1700000000000:6410510742b42810353a7f1b7b5451699207d781e188234ac76102ca311a9065",
            "delivery:7:bc0801e6f39481573a2472540168320206ff9709f95c94739bcefcaf09e5c99d",
            "optin:1700000000000:2dc1b9e8c5cd9a1a068950e6e1cda25c3addf3300bda51a0cb9c14771f0dc77a",
            "referral:1700000000000:f69d15bbe40f7316546a3814c1e37f7739343c947590b0599395fdc16a75cd27",
        ]
    );
}

#[test]
fn user_refs() {
    assert_eq!(
        UserRefKey::new(Channel::Messenger, "2", "a b").as_str(),
        "messenger#2#user_ref:sha256:774f5c152323a0a9d102f6d62d8fa4cb60cf40275cb59d5f1e3130f9848f2b27"
    );
}

#[test]
fn fbe_events_and_secrets() {
    let body = r#"{"entry":[{"time":1700000000,"changes":[
        {"field":"fbe_install","value":{"business_id":"shop","access_token":"t","pages":["1"]}},
        {"field":"business_integration_update","value":{"business_manager_id":"9"}}]}]}"#;
    let parsed = shared::fbe::payload::parse(&verified(body), now());
    let secret = FbeSecret {
        access_token: Some("t".into()),
        token_type: TokenType::User,
        system_user_access_token: None,
        received_at: now(),
        exchanged_at: None,
        system_user_expires_at: None,
    };
    let digests = [
        &parsed.changes[0].stamp.digest,
        &parsed.integrations[0].stamp.digest,
        &secret.version(),
    ];
    assert_eq!(
        digests,
        [
            "14fd264e8a0ca141fdbbf42f2357d88ea3de2cc6833dad51544c45ee86fc8302",
            "d02e1fe293ef86c2e98f1273c0ce8a36336790d23c67ec853a057dbbe5b2ab5e",
            "0e0b2043c8d77c8ccd0f2535c65ef2de6c19d06c84d0f1e985dcc1fa0d04fb37",
        ]
    );
}

#[test]
fn whatsapp_messages_and_answers() {
    let dispatched =
        message(&json!({"user_id": "42", "message": "hi", "media_urls": ["https://a"], "dispatch_id": "d"}));
    let bare = message(&json!({"user_id": "42", "message": "hi"}));
    let keys = |message: &InboundMessage| -> Vec<String> {
        duplicate::guards(message, 0)
            .into_iter()
            .map(|guard| guard.key)
            .collect()
    };
    let turn: Turn = serde_json::from_value(json!(
        {"id": "a", "at": "2026-11-21T10:00:00Z", "sequence": 1, "role": "user", "text": "hi"}))
    .unwrap();
    let mut all = vec![
        duplicate::message_id(&dispatched, "n"),
        duplicate::message_id(&bare, "n"),
        duplicate::reply_guard(Some("msg_1"), b"{}", now()).key,
        duplicate::reply_guard(None, b"{}", now()).key,
        duplicate::handover_id(&dispatched.conversation_id, &[turn]),
    ];
    all.extend(keys(&dispatched));
    all.extend(keys(&bare));
    assert_eq!(
        all,
        [
            "684a423ddbf6409ed3c2d4684cc374e5",
            "3fd845dae6f6810fcd3f34e1016d02e1",
            "seen#reply#116b88f173007be5e05df2a87105f095",
            "seen#reply-body#44136fa355b3678a1146ad16f7e8649e",
            "msg_c2438e7378eaa2404883bddd98cafb30",
            "seen#dispatch#684a423ddbf6409ed3c2d4684cc374e5",
            "seen#content#330a434e488329bfb3a245070a7e4095",
            "seen#content#a64620e440f7d7468668c25ef5166200",
        ]
    );
}

#[tokio::test]
async fn outbox_shards_and_quarantined_bodies() {
    let tables = Tables::create().await;
    let item = OutboxItem {
        subject: "messenger#1#2".into(),
        event_key: "sync#a".into(),
        kind: Kind::ContactSync,
        payload: json!({}),
        not_before: None,
    };
    tables.outbox.add(&item).await.unwrap();
    let quarantined = Quarantined {
        source: "messenger",
        reason: Reason::NotJson,
        raw: bytes::Bytes::from("{").into(),
    };
    tables.outbox.quarantine(&[quarantined]).await.unwrap();
    let client = tables.house.aws.dynamodb();
    let items = client
        .scan()
        .table_name(tables.house.table("OutboxTable"))
        .send()
        .await
        .unwrap()
        .items;
    let text = |name: &str| -> Vec<String> {
        let mut all: Vec<String> = items
            .iter()
            .flatten()
            .filter_map(|item| Some(item.get(name)?.as_s().unwrap().clone()))
            .collect();
        all.sort();
        all
    };
    assert_eq!(
        [text("due_shard"), text("event_key")].concat(),
        [
            "sync#5",
            "not_json#021fb596db81e6d02bf3d2586ee3981fe519f275c0ac9ca76bbcf2ebb4097d96#0",
            "sync#a",
        ]
    );
}
