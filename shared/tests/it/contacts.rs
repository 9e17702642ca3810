use std::time::Duration;

use serde_json::json;
use shared::messenger::Stamped;
use shared::messenger::contact::{Contact, Link, LinkedVia};
use shared::messenger::key::{Channel, ContactKey, UserRefKey};
use shared::messenger::sync::Synced;
use shared::messenger::table::{Record, Unit};
use shared::messenger::user_ref::UserRef;
use shared::outbox::{Kind, OutboxItem};
use shared::store::{Claim, Released};
use testkit::aws::Fault;

use super::Tables;

fn key(n: usize) -> ContactKey {
    ContactKey {
        channel: Channel::Messenger,
        account_id: "101".into(),
        scoped_id: format!("{n}").into(),
    }
}

fn contact(n: usize, version: u64) -> Contact {
    let mut contact = Contact::new(key(n), "2026-11-21T10:00:00Z".parse().unwrap());
    contact.version = version;
    contact
}

fn sync(n: usize, event_key: &str) -> OutboxItem {
    OutboxItem {
        subject: key(n).to_string(),
        event_key: event_key.into(),
        kind: Kind::ContactSync,
        payload: json!(null),
        not_before: None,
    }
}

/// Says of each unit whether it is written.
async fn write(tables: &Tables, units: &[Unit]) -> Vec<bool> {
    let named = units.iter().cloned().enumerate().collect();
    let refused: Vec<usize> = tables.contacts.write(named).await.unwrap();
    (0..units.len()).map(|unit| !refused.contains(&unit)).collect()
}

fn unit(n: usize, version: u64, event_key: &str) -> Unit {
    Unit {
        record: Some(Record::Contact(contact(n, version))),
        claims: vec![],
        outbox: vec![sync(n, event_key)],
        ..Unit::default()
    }
}

#[tokio::test]
async fn a_contact_and_its_effect_are_written_in_one_call_and_read_back() {
    let tables = Tables::create().await;
    assert_eq!(write(&tables, &[unit(1, 1, "sync#a")]).await, [true]);
    assert_eq!(tables.house.aws.dynamodb_calls().total(), 1);
    let known = tables.contacts.read(&[key(1), key(2)], &[], &[]).await.unwrap();
    let known: Vec<_> = known
        .contacts
        .into_values()
        .map(|stored| stored.contact)
        .collect();
    assert_eq!(known, [contact(1, 1)]);
    assert!(
        tables
            .outbox
            .get(&key(1).to_string(), "sync#a")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn of_two_writers_who_read_the_same_one_has_to_read_again() {
    let tables = Tables::create().await;
    write(&tables, &[unit(1, 1, "sync#a")]).await;
    let (one, two) = tokio::join!(async { write(&tables, &[unit(1, 2, "sync#b")]).await }, async {
        write(&tables, &[unit(1, 2, "sync#c")]).await
    },);
    assert_ne!(one, two);
    let loser = if one == [true] { "sync#c" } else { "sync#b" };
    let effect = tables.outbox.get(&key(1).to_string(), loser).await.unwrap();
    assert!(
        effect.is_none(),
        "the loser's effect must not be there without its state"
    );
}

#[tokio::test]
async fn an_effect_that_is_there_already_does_not_stop_the_state() {
    let tables = Tables::create().await;
    tables.outbox.add(&sync(1, "sync#a")).await.unwrap();
    let mut unit = unit(1, 1, "sync#a");
    unit.outbox.push(sync(1, "sync#b"));
    assert_eq!(write(&tables, &[unit]).await, [true]);
    assert_eq!(
        tables
            .contacts
            .read(&[key(1)], &[], &[])
            .await
            .unwrap()
            .contacts
            .len(),
        1
    );
    assert!(
        tables
            .outbox
            .get(&key(1).to_string(), "sync#b")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn a_thousand_new_contacts_take_twenty_transactions() {
    let tables = Tables::create().await;
    let units: Vec<Unit> = (0..1000).map(|n| unit(n, 1, "sync#a")).collect();
    let written = write(&tables, &units).await;
    assert!(written.iter().all(|written| *written));
    let calls = tables.house.aws.dynamodb_calls();
    assert_eq!((calls.total(), calls.of("TransactWriteItems")), (20, 20));
}

#[tokio::test]
async fn one_conflict_in_a_group_costs_only_its_own_unit() {
    let tables = Tables::create().await;
    write(&tables, &[unit(7, 1, "sync#a")]).await;
    let units: Vec<Unit> = (0..50).map(|n| unit(n, 1, "sync#b")).collect();
    let written = write(&tables, &units).await;
    let refused: Vec<usize> = (0..50).filter(|n| !written[*n]).collect();
    assert_eq!(refused, [7]);
}

#[tokio::test]
async fn a_cut_answer_is_survived() {
    let tables = Tables::create().await;
    tables
        .house
        .aws
        .fail_next("TransactWriteItems", 1, Fault::AnswerLost);
    // The SDK sends the same idempotency token again, so the write counts once.
    assert_eq!(write(&tables, &[unit(1, 1, "sync#a")]).await, [true]);
    assert_eq!(
        tables
            .contacts
            .read(&[key(1)], &[], &[])
            .await
            .unwrap()
            .contacts
            .len(),
        1
    );
}

#[tokio::test]
async fn a_unit_with_many_effects_is_split_and_complete() {
    let tables = Tables::create().await;
    let mut large = unit(1, 1, "sync#a");
    large
        .outbox
        .extend((0..250).map(|n| sync(1, &format!("event#{n}"))));
    assert_eq!(write(&tables, &[large]).await, [true]);
    assert_eq!(tables.house.aws.dynamodb_calls().total(), 3);
    assert!(
        tables
            .outbox
            .get(&key(1).to_string(), "event#249")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn what_was_told_survives_new_facts() {
    let tables = Tables::create().await;
    write(&tables, &[unit(1, 1, "sync#a")]).await;
    let name = key(1).to_string();
    let lease = Duration::from_mins(1);
    let claim = tables.contacts.claim(&name, lease).await.unwrap();
    let Claim::Leased(stored, leased) = claim else {
        panic!("free")
    };
    assert_eq!(stored.synced, Synced::default());

    // The webhook function writes meanwhile.
    write(&tables, &[unit(1, 2, "sync#b")]).await;
    let told = Synced {
        held: true,
        ..Synced::default()
    };
    let released = tables.contacts.release(&leased, Some(&told)).await.unwrap();
    assert_eq!(released, Released::Yes);
    let Claim::Leased(stored, _) = tables.contacts.claim(&name, lease).await.unwrap() else {
        panic!("free")
    };
    assert_eq!((stored.synced, stored.contact.version), (told, 2));
}

#[tokio::test]
async fn a_user_keeps_every_contact_that_ever_entered() {
    let tables = Tables::create().await;
    for (entering, expected) in [
        (Some(key(1)), vec![key(1)]),
        (Some(key(2)), vec![key(1), key(2)]),
        (None, vec![key(1), key(2)]),
    ] {
        let claim = tables
            .contacts
            .claim_user("user-42", entering.as_ref(), Duration::from_mins(1));
        let Claim::Leased(contacts, lease) = claim.await.unwrap() else {
            panic!("free")
        };
        assert_eq!(contacts, expected);
        tables.contacts.release(&lease, None).await.unwrap();
    }
}

#[tokio::test]
async fn a_user_finds_their_contacts_and_unlinked_ones_leave_the_index() {
    let tables = Tables::create().await;
    let mut linked = contact(1, 1);
    linked.link = Some(Stamped {
        at: "2026-11-21T10:00:00Z".parse().unwrap(),
        value: Link {
            user_id: Some("user-42".into()),
            via: LinkedVia::Optin,
        },
    });
    for (contact, expected) in [(linked, 1), (contact(1, 2), 0)] {
        let unit = Unit {
            record: Some(Record::Contact(contact)),
            claims: vec![],
            outbox: vec![],
            ..Unit::default()
        };
        write(&tables, &[unit]).await;
        let found = tables.contacts.of_user("user-42").await.unwrap().contacts;
        assert_eq!(found.len(), expected);
    }
}

#[tokio::test]
async fn user_refs_live_beside_contacts() {
    let tables = Tables::create().await;
    let name = UserRefKey::new(Channel::Messenger, "101", "form-7");
    let record = UserRef {
        version: 1,
        ..UserRef::default()
    };
    let unit = Unit {
        record: Some(Record::UserRef(name.clone(), record.clone())),
        claims: vec![],
        outbox: vec![],
        ..Unit::default()
    };
    write(&tables, &[unit]).await;
    let known = tables
        .contacts
        .read(&[key(1)], std::slice::from_ref(&name), &[])
        .await
        .unwrap();
    assert_eq!(known.user_refs.get(&name), Some(&record));
    assert!(known.contacts.is_empty());
}

#[tokio::test]
async fn a_transaction_that_is_under_way_is_waited_for() {
    let tables = Tables::create().await;
    for operation in ["TransactWriteItems", "UpdateItem"] {
        let mut unit = unit(1, 1, "sync#a");
        if operation == "UpdateItem" {
            unit.record = Some(Record::Contact(contact(2, 1)));
            unit.outbox.clear();
        }
        tables.house.aws.fail_next(operation, 2, Fault::Conflict);
        assert_eq!(write(&tables, &[unit]).await, [true], "{operation}");
        assert_eq!(tables.house.aws.clear_faults(), 0);
    }
}
