//! Meta delivers at least once and in any order. Whatever it does, the same contacts and the same profiles
//! come of it.

use std::collections::BTreeMap;

use bridge::inspect::{INSTALLS, Snapshot};
use bridge::payloads::{Sender, recorded};
use serde_json::Value;
use testkit::braze::faults::{self, RateLimit};

use crate::house::{House, all};

/// A small generator, so that a failing seed is a failing seed everywhere (Knuth's constants).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// While Braze takes nothing, and says so, only the end of the story is left to tell, and that must be the same.
/// (Told as it goes, a person who was linked and unlinked has another past at Braze than one of whom we learn
/// both at once.)
#[tokio::test(flavor = "multi_thread")]
async fn twice_and_shuffled_is_once_and_in_order() {
    let settings = [("MESSENGER_EVENTS", "message,postback,referral,optin")];
    let once = House::start(&settings).await;
    once.braze().begin_outage(faults::rate_limited(RateLimit::Silent));
    once.deliver_all(&all(), 1).await;
    once.braze().end_outage();
    once.drain().await;
    assert_eq!(once.problems().await, Vec::<String>::new());
    let (facts, profiles) = (once.facts().await, once.profiles());
    assert!(facts.len() > 50 && profiles.len() > 50);
    once.stack.stop().await;

    for seed in 1..=3 {
        let house = House::start(&settings).await;
        let mut payloads = [all(), all()].concat();
        Random(seed).shuffle(&mut payloads);
        house
            .braze()
            .begin_outage(faults::rate_limited(RateLimit::Silent));
        house.deliver_all(&payloads, 8).await;
        house.braze().end_outage();
        house.drain().await;
        assert_eq!(house.problems().await, Vec::<String>::new(), "seed {seed}");
        assert_eq!(house.facts().await, facts, "seed {seed}");
        assert_eq!(house.profiles(), profiles, "seed {seed}");
        house.stack.stop().await;
    }
}

/// With Braze up, everybody's past differs with the order, but where it ends does not.
#[tokio::test(flavor = "multi_thread")]
async fn told_as_it_goes_braze_ends_with_what_the_contacts_say() {
    let once = House::start(&[]).await;
    once.deliver_all(&all(), 1).await;
    once.drain().await;
    let facts = once.facts().await;
    once.stack.stop().await;

    for seed in [11, 12] {
        let house = House::start(&[]).await;
        let mut payloads = [all(), all()].concat();
        Random(seed).shuffle(&mut payloads);
        house.deliver_all(&payloads, 8).await;
        house.drain().await;
        assert_eq!(house.problems().await, Vec::<String>::new(), "seed {seed}");
        assert_eq!(house.facts().await, facts, "seed {seed}");
        house.stack.stop().await;
    }
}

/// Braze repeats a webhook, and may do so while the first is still being answered.
#[tokio::test(flavor = "multi_thread")]
async fn every_whatsapp_message_twice_at_once_is_handed_over_and_answered_once() {
    let mut payloads = recorded(Sender::Whatsapp);
    // Test sends of Braze's dashboard all carry the same dispatch id, and are never taken for duplicates.
    // What carries no dispatch id is a duplicate only until its person has been answered, which may be at any moment.
    payloads.retain(|payload| {
        payload.name != "whatsapp/full_preview"
            && String::from_utf8_lossy(&payload.body).contains("dispatch_id")
    });
    let start = || House::live(&[("RETRY_BASE_SECONDS", "1")]);
    let once = start().await;
    let house = start().await;
    for payload in &payloads {
        once.deliver_all(std::slice::from_ref(payload), 1).await;
        house.deliver_all(&[payload.clone(), payload.clone()], 2).await;
        // The next may say the same with another dispatch id: it is taken for a duplicate until this one is answered.
        once.drain().await;
        house.drain().await;
    }
    let told = |house: &House| {
        let system = house.stack.fakes().external_system.as_ref().unwrap();
        let handovers = system.handovers();
        let mut texts: Vec<String> = handovers
            .iter()
            .flat_map(|handover| handover.texts().into_iter().map(str::to_owned))
            .collect();
        texts.sort();
        texts
    };
    let told_once = told(&once).len();
    assert!(told_once >= 10, "{told_once}");
    assert_eq!(told(&house), told(&once));
    assert_eq!(house.problems().await, Vec::<String>::new());
    once.stack.stop().await;
    house.stack.stop().await;
}

/// Meta repeats what businesses do, too.
#[tokio::test(flavor = "multi_thread")]
async fn every_fbe_webhook_twice_at_once_ends_in_the_same_installs() {
    let (once, house) = (House::start(&[]).await, House::start(&[]).await);
    // What follows from one is waited for, as what Graph says is looked up and changes with the next.
    for payload in recorded(Sender::Fbe) {
        once.deliver(&payload).await;
        once.drain().await;
        house.deliver_all(&[payload.clone(), payload], 2).await;
        house.drain().await;
    }
    let (first, second) = (once.snapshot().await, house.snapshot().await);
    assert!(first.table(INSTALLS).len() > 5);
    let status = |snapshot: &Snapshot| -> BTreeMap<String, [Value; 3]> {
        let items = snapshot.table(INSTALLS).iter();
        let said = |item: &Value| {
            let mut said = ["status", "pixel_id", "facts"].map(|name| item[name].clone());
            // When Graph was last asked and did not know it, which is a matter of moments.
            let facts = said.last_mut().and_then(Value::as_object_mut);
            facts.map(|facts| facts.remove("unknown_at_graph_since"));
            // Which of its numbered tokens Graph gave out, and so which version of the secret holds it.
            let token = said.last_mut().and_then(|facts| facts.get_mut("token"));
            token
                .and_then(Value::as_object_mut)
                .map(|token| token.remove("version"));
            said
        };
        items.map(|(key, item)| (key.clone(), said(item))).collect()
    };
    assert_eq!(status(&second), status(&first));
    assert_eq!(house.outbox().await, once.outbox().await);
    assert_eq!(house.problems().await, Vec::<String>::new());
    once.stack.stop().await;
    house.stack.stop().await;
}
