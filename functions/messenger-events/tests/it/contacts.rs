//! What becomes of the people who write.

use aws_sdk_dynamodb::types::AttributeValue;
use metrics_cloudwatch_embedded::Builder;
use serde_json::{Value, json};
use testkit::aws::Fault;
use testkit::logged::Logged;

use super::house::{House, later, message, page, referral};

#[tokio::test]
async fn a_rotated_link_key_links_at_once() {
    let house = House::start().await;
    assert_eq!(house.signed(&page(&[referral("7001", "ana", "k")])).await.0, 200);
    let rotated = json!({"signing_key": "new", "previous_signing_key": "k"});
    house.aws.put_secret("local/link", &rotated).await.unwrap();
    let both = [referral("7002", "bo", "new"), referral("7003", "cy", "k")];
    assert_eq!(house.signed(&page(&both)).await.0, 200);
    for (psid, user) in [("7001", "ana"), ("7002", "bo"), ("7003", "cy")] {
        assert_eq!(house.user(psid).await.as_deref(), Some(user));
    }
}

#[tokio::test]
async fn foreign_tokens_do_not_make_us_ask_for_the_key_each_time() {
    let house = House::start().await;
    for n in 0..5 {
        let body = page(&[referral(&format!("700{n}"), "ana", "another")]);
        assert_eq!(house.signed(&body).await.0, 200);
    }
    assert_eq!(house.user("7000").await, None);
    let asked = house.aws.secrets_manager_calls().of("GetSecretValue");
    assert_eq!(asked, 3, "the app's, the link's, and once more");
}

#[tokio::test]
async fn a_link_key_that_cannot_be_looked_up_is_our_fault() {
    let house = House::start().await;
    house.signed(&page(&[message("7001")])).await;
    let rotated = json!({"signing_key": "new", "previous_signing_key": "k"});
    house.aws.put_secret("local/link", &rotated).await.unwrap();
    house
        .aws
        .fail_next("GetSecretValue", 3, Fault::ServiceUnavailable);
    let body = page(&[referral("7001", "ana", "new")]);
    assert_eq!(house.signed(&body).await.0, 503);
}

#[tokio::test]
async fn a_write_that_meets_a_transaction_is_made_all_the_same() {
    let house = House::start().await;
    house.signed(&page(&[message("7001")])).await;
    house.aws.fail_next("UpdateItem", 1, Fault::Conflict);
    let mut again = message("7001");
    again["timestamp"] = json!(1_763_719_260_000_u64);
    assert_eq!(house.signed(&page(&[again])).await.0, 200);
    assert_eq!(house.aws.clear_faults(), 0);
    assert_eq!(
        house.contact("7001").await["version"],
        AttributeValue::N("2".into())
    );
}

#[tokio::test]
async fn a_contact_that_cannot_be_read_costs_nobody_else_and_loses_nothing() {
    let house = House::start().await;
    house.signed(&page(&[message("7001")])).await;
    let facts = house.contact("7001").await["facts"].clone();
    let mut newer = facts.as_m().unwrap().clone();
    newer.insert("first_seen".into(), AttributeValue::Bool(true));
    let key = AttributeValue::S("messenger#101#7001".into());
    let update = house.aws.dynamodb().update_item().key("contact_key", key);
    let update = update.table_name(&house.contacts_table);
    let update = update.update_expression("SET facts = :facts");
    let update = update.expression_attribute_values(":facts", AttributeValue::M(newer.clone()));
    update.send().await.unwrap();

    let mut items = [message("7001"), message("7002")];
    items[0]["message"]["mid"] = "m_later".into();
    let body = page(&items);
    assert_eq!(house.signed(&body).await, (200, "EVENT_RECEIVED".into()));
    assert!(!house.contact("7002").await.is_empty());
    assert_eq!(house.contact("7001").await["facts"], AttributeValue::M(newer));
    assert_eq!(house.quarantined().await, 1);
}

#[tokio::test]
async fn one_broken_item_of_a_thousand_costs_nobody_else() {
    let house = House::start().await;
    let mut items: Vec<Value> = (0..999).map(|n| message(&format!("7{n:04}"))).collect();
    items.insert(500, json!({"sender": 5, "message": "not an object"}));
    assert_eq!(house.signed(&page(&items)).await.0, 200);
    assert_eq!((house.synced_people().await, house.quarantined().await), (999, 1));
}

#[tokio::test]
async fn ids_as_numbers_and_missing_times_are_taken() {
    let house = House::start().await;
    let body = br#"{"object":"page","entry":[{"id":101,"messaging":[{"sender":{"id":7001},"recipient":{"id":101},"message":{"mid":"m_1","text":"a\u0000b"}}]}]}"#;
    assert_eq!(house.signed(body).await.0, 200);
    assert_eq!((house.synced_people().await, house.quarantined().await), (1, 0));
}

#[tokio::test]
async fn everything_twice_and_at_once_makes_one_contact_each() {
    let house = House::start().await;
    let items: Vec<Value> = (0..50).map(|n| message(&format!("7{n:04}"))).collect();
    let body = page(&items);
    let mut backwards = items;
    backwards.reverse();
    let reversed = page(&backwards);
    let answers = tokio::join!(
        house.signed(&body),
        house.signed(&reversed),
        house.signed(&body),
        house.signed(&reversed),
    );
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(answer.0, 200);
    }
    assert_eq!(house.synced_people().await, 50);
}

#[tokio::test]
async fn a_known_contact_that_says_something_takes_no_more_calls_than_before() {
    let house = House::start().await;
    house.signed(&page(&[message("7001")])).await;
    let mut stop = later("7001", 2);
    stop["message"]["text"] = "STOP".into();
    let mut read = message("7001");
    read.as_object_mut().unwrap().remove("message");
    read["read"] = json!({"watermark": 1});
    let cases = [
        (later("7001", 0), 1, "the same again"),
        (later("7001", 1), 1, "another one"),
        (later("7001", 1), 1, "a redelivery"),
        (stop, 2, "a keyword"),
        (later("7001", 70), 2, "the window has to be told again"),
        (later("7001", 5), 1, "a late one"),
        (read, 0, "a receipt"),
    ];
    for (item, most, what) in cases {
        house.aws.reset_calls();
        assert_eq!(house.signed(&page(&[item])).await.0, 200);
        let calls = house.aws.dynamodb_calls();
        assert!(calls.total() <= most, "{what}: {calls:?}");
    }
    assert!(
        house.contact("7001").await["facts"]
            .as_m()
            .unwrap()
            .contains_key("opted_out")
    );
}

#[tokio::test]
async fn what_is_noted_beside_the_facts_is_read_with_them() {
    let house = House::start().await;
    house.signed(&page(&[message("7001")])).await;
    house.signed(&page(&[later("7001", 30)])).await;
    let stored = house.contact("7001").await;
    assert_eq!(
        stored["version"],
        AttributeValue::N("1".into()),
        "no decision was written"
    );
    assert_eq!(
        stored["latest"],
        AttributeValue::N((1_763_719_200_000_u64 + 30 * 60_000).to_string())
    );
    let mut stop = later("7001", 31);
    stop["message"]["text"] = "STOP".into();
    stop["message"].as_object_mut().unwrap().remove("mid");
    house.signed(&page(&[stop])).await;
    let opened = house.contact("7001").await["facts"].as_m().unwrap()["opened_at"].clone();
    assert_eq!(opened, AttributeValue::S("2025-11-21T10:31:00Z".into()));
}

#[tokio::test]
async fn samples_of_the_dashboard_leave_nothing_behind() {
    let house = House::start().await;
    let item = json!({"sender": {"id": "12334"}, "recipient": {"id": "23245"}, "timestamp": "1527459824",
        "message": {"mid": "test_message_id", "text": "test_message"}});
    let change = json!({"field": "messages", "value": item});
    let bodies = [
        json!({"object": "page", "entry": [{"id": "0", "time": 1_527_459_824, "changes": [change]}]}),
        json!({"object": "instagram", "entry": [{"id": "0", "time": 1_527_459_824, "changes": [change]}]}),
        json!({"object": "page", "entry": [{"id": "101", "time": 1_527_459_824, "messaging": [item]}]}),
        json!({"object": "page", "entry": [{"id": "0", "changes": [{"field": "messaging_feedback"}]}]}),
        change.clone(),
    ];
    for body in bodies {
        let answer = house.signed(body.to_string().as_bytes()).await;
        assert_eq!(answer, (200, "EVENT_RECEIVED".into()), "{body}");
    }
    assert_eq!(house.aws.dynamodb_calls().total(), 0);
}

#[tokio::test]
async fn a_person_with_more_tokens_than_anybody_needs_is_linked_once() {
    let house = House::start().await;
    let shown: Vec<Value> = (0..70)
        .map(|n| {
            let mut item = referral("7001", &format!("user-{n}"), "k");
            item["timestamp"] = json!(1_795_255_200_000_u64 + n);
            item
        })
        .collect();
    for _ in 0..2 {
        assert_eq!(house.signed(&page(&shown)).await.0, 200);
        assert!(house.user("7001").await.is_some());
    }
}

/// The same token from many people and pages at the same moment, and again.
#[tokio::test]
async fn at_no_time_are_two_contacts_linked_by_one_token() {
    for seed in 0..4 {
        let house = House::start().await;
        let shown = referral("7000", "ana", "k");
        let body = |person: usize| {
            let mut item = shown.clone();
            item["sender"]["id"] = format!("700{}", person % 4).into();
            let optin = json!({"recipient": {"id": "101"}, "timestamp": 1_795_255_200_000_u64,
                "optin": {"ref": shown["referral"]["ref"], "user_ref": "form-1"}});
            let mut answer = message(&format!("701{}", person % 2));
            answer["timestamp"] = json!(1_795_255_200_001_u64);
            answer["prior_message"] = json!({"source": "checkbox_plugin", "identifier": "form-1"});
            page(&match (person + seed) % 3 {
                0 => vec![item],
                1 => vec![optin],
                _ => vec![answer],
            })
        };
        for _ in 0..2 {
            let bodies: Vec<Vec<u8>> = (0..8).map(body).collect();
            let answers = futures_util::future::join_all(bodies.iter().map(|body| house.signed(body))).await;
            assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
            let mut linked = Vec::new();
            for psid in ["7000", "7001", "7002", "7003", "7010", "7011"] {
                linked.extend(house.user(psid).await.map(|_| psid));
            }
            assert!(linked.len() <= 1, "seed {seed}: {linked:?}");
        }
    }
}

/// By a stand-in: a log names nobody.
#[tokio::test]
async fn tokens_that_did_not_link_are_counted_and_logged_without_names() {
    let collector = Builder::new().cloudwatch_namespace("tests").init().unwrap();
    let logged = Logged::begin().unwrap();
    let house = House::start().await;
    let shown = referral("7001", "ana-who-is-linked", "k");
    assert_eq!(house.signed(&page(std::slice::from_ref(&shown))).await.0, 200);
    let mut shown_again = shown;
    shown_again["sender"]["id"] = "7002777777777777".into();
    let foreign = referral("7003777777777777", "bo-who-is-not", "another");
    assert_eq!(house.signed(&page(&[shown_again, foreign])).await.0, 200);

    let lines = logged.take();
    for told in ["a link token was refused", "link tokens did not link"] {
        assert!(lines.contains(told), "{lines}");
    }
    for name in ["ana-who", "bo-who", "777777777777", "messenger#"] {
        assert!(!lines.contains(name), "{lines}");
    }
    // Other tests count too.
    let mut written = Vec::new();
    collector.flush(&mut written).unwrap();
    let lines = String::from_utf8(written).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    let counted =
        |lines: &[Value], name: &str| lines.iter().filter_map(|line| line[name].as_u64()).sum::<u64>();
    let lines: Vec<Value> = lines.collect();
    assert!(counted(&lines, "LinkFailures") >= 2, "{lines:?}");
    assert!(counted(&lines, "Links") >= 1, "{lines:?}");
}
