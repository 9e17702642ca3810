//! Every alarm of the template rings once: the real functions meet what it is there for, CloudWatch reads the metrics that
//! they write, and the alarm is evaluated as the template declares it. An alarm on a metric that nobody writes, or with
//! a threshold that nobody reaches, fails here; so does one that rings when nothing is wrong.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking"
)]

mod aws;
mod business;
mod cloudwatch;
mod stack;

use std::collections::BTreeSet;

use stack::Stack;

/// The alarms that have rung in the scenes so far.
type Rung = BTreeSet<String>;

/// Notes that these alarms have rung in a scene, and no other. Of silence a scene may be full: it ticks only where something
/// has to be sent, and few people write on WhatsApp.
fn note(rung: &mut Rung, stack: &Stack, expected: &[&str]) {
    let mut those = stack.rung();
    let expected: Rung = expected.iter().map(|name| (*name).to_owned()).collect();
    those.retain(|name| expected.contains(name) || !name.ends_with("-silent"));
    assert_eq!(those, expected);
    rung.extend(expected);
}

/// One after the other, for the metrics of a process have one recorder.
#[tokio::test]
async fn every_alarm_rings_once_and_none_when_nothing_is_wrong() {
    let mut rung = Rung::new();
    business::scenes(&mut rung).await;
    aws::scenes(&mut rung).await;
    let all: Rung = stack::alarms().into_iter().map(|alarm| alarm.name).collect();
    assert_eq!(rung, all);
    nothing_is_wrong().await;
}

async fn nothing_is_wrong() {
    let mut stack = Stack::start().await;
    for n in 0..60 {
        assert_eq!(stack.message(&format!("7{n:03}")).await, 200);
        stack.run(1).await;
    }
    assert!(stack.house.braze.profiles().len() > 50);
    assert_eq!(stack.rung(), Rung::new());
}
